//! Owns chains of others in a container's netns: which there are, which of them lead packets around ours, and taking these out.
//!
//! In netfilter a packet passes only if every base chain lets it: a chain of somebody else's that accepts allows nothing
//! that ours denies. What gets around it is sending packets elsewhere, changing them where nobody judges them again, or
//! writing into the connection what ours is told by. Expression names are the kernel's (`linux/netfilter/nf_tables.h`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::decode::{attribute, attributes, number, string};
use super::socket::{ApplyError, KernelTable};
use super::wire::{NFTABLES, write};
use crate::compile::TABLE;
use crate::input::Text;

/// Expressions that lead packets around whoever judges them.
const DIVERTING: [&str; 7] =
    ["fwd", "dup", "tproxy", "queue", "synproxy", "notrack", "flow_offload"];
/// Targets of iptables that do the same or write the connection's mark (`NFTA_TARGET_NAME`).
const TARGETS: [&str; 8] =
    ["TPROXY", "NFQUEUE", "TEE", "SYNPROXY", "CT", "NOTRACK", "FLOWOFFLOAD", "CONNMARK"];
/// `NFT_CT_MARK`.
const CT_MARK: u32 = 3;
/// `NF_INET_LOCAL_OUT`.
const OUTPUT: u32 = 3;
/// `NFT_NAT_DNAT`.
const DNAT: u32 = 1;
/// Flags of a batch's messages (`NFNL_MSG_BATCH_BEGIN` and `_END` carry the subsystem as resource).
const BATCH: (u8, u16) = (0, NFTABLES);

/// A base chain that is not ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignChain {
    family: u8,
    table: String,
    name: String,
    /// `filter`, `nat` or `route`.
    kind: String,
    hook: u32,
    priority: i32,
    /// By what it leads packets around ours; empty: it does not.
    pub diverts: BTreeSet<String>,
}

impl ForeignChain {
    /// Whether it is worth telling of: translating addresses alone is nobody's harm, and Docker's own resolver needs it.
    pub fn is_notable(&self) -> bool {
        self.kind != "nat" || !self.diverts.is_empty()
    }
}

impl fmt::Display for ForeignChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match i32::from(self.family) {
            libc::NFPROTO_INET => "inet",
            libc::NFPROTO_IPV4 => "ip",
            libc::NFPROTO_IPV6 => "ip6",
            libc::NFPROTO_ARP => "arp",
            libc::NFPROTO_BRIDGE => "bridge",
            libc::NFPROTO_NETDEV => "netdev",
            _ => "?",
        };
        let (table, name) = (Text::new(&self.table), Text::new(&self.name));
        write!(f, "chain {family} {table} {name} (type {}, ", Text::new(&self.kind))?;
        match (i32::from(self.family), self.hook) {
            (libc::NFPROTO_NETDEV, 0) => f.write_str("ingress")?,
            (libc::NFPROTO_NETDEV, 1) => f.write_str("egress")?,
            (_, 0) => f.write_str("prerouting")?,
            (_, 1) => f.write_str("input")?,
            (_, 2) => f.write_str("forward")?,
            (_, 3) => f.write_str("output")?,
            (_, 4) => f.write_str("postrouting")?,
            (_, other) => write!(f, "hook {other}")?,
        }
        write!(f, ", priority {})", self.priority)?;
        if !self.diverts.is_empty() {
            let by: Vec<&str> = self.diverts.iter().map(String::as_str).collect();
            write!(f, " leads packets around the policy: {}", by.join(", "))?;
        }
        Ok(())
    }
}

/// What one chain's rules do, and where they lead.
#[derive(Debug, Default)]
struct Content {
    diverts: BTreeSet<String>,
    /// By what packets are given another destination, which is harmless where they are judged afterwards.
    redirects: BTreeSet<String>,
    leads_to: BTreeSet<String>,
    leads_anywhere: bool,
}

fn is_ours(family: u8, table: &str) -> bool {
    let family = i32::from(family);
    table == TABLE && matches!(family, libc::NFPROTO_INET | libc::NFPROTO_NETDEV)
}

fn base_chain(family: u8, payload: &[u8]) -> Option<ForeignChain> {
    let hook = attribute(payload, 4)?;
    let table = string(payload, 1).filter(|table| !is_ours(family, table))?;
    Some(ForeignChain {
        family,
        table,
        name: string(payload, 3)?,
        kind: string(payload, 7).unwrap_or_default(),
        hook: number(hook, 1).unwrap_or(u32::MAX),
        priority: number(hook, 2).unwrap_or_default() as i32,
        diverts: BTreeSet::new(),
    })
}

/// Adds what a rule does to the content of its chain (`NFTA_RULE_EXPRESSIONS`).
fn add_rule(contents: &mut BTreeMap<String, Content>, payload: &[u8]) {
    let Some(chain) = string(payload, 2) else { return };
    let content = contents.entry(chain).or_default();
    for (_, expression) in attributes(attribute(payload, 4).unwrap_or(&[])) {
        let name = string(expression, 1).unwrap_or_default();
        let data = attribute(expression, 2).unwrap_or(&[]);
        let has = |kind| attribute(data, kind).is_some();
        match name.as_str() {
            name if DIVERTING.contains(&name) => drop(content.diverts.insert(name.to_owned())),
            // Both write when they have a source register.
            "payload" if has(5) => drop(content.diverts.insert("changed headers".to_owned())),
            "ct" if has(4) && number(data, 2) == Some(CT_MARK) => {
                content.diverts.insert("connection mark".to_owned());
            }
            "target" => {
                let target = string(data, 1).unwrap_or_default();
                match target.as_str() {
                    "DNAT" | "REDIRECT" => drop(content.redirects.insert(target)),
                    known if TARGETS.contains(&known) => drop(content.diverts.insert(target)),
                    _ => {}
                }
            }
            "nat" if number(data, 1) == Some(DNAT) => {
                content.redirects.insert("dnat".to_owned());
            }
            "redir" => drop(content.redirects.insert("redirect".to_owned())),
            "immediate" => {
                let verdict = attribute(data, 2).and_then(|data| attribute(data, 2));
                content.leads_to.extend(verdict.and_then(|verdict| string(verdict, 2)));
            }
            // A lookup with a destination may be a verdict map.
            "lookup" if has(3) => content.leads_anywhere = true,
            _ => {}
        }
    }
}

/// By what a base chain, with all it leads to, leads packets around ours.
fn diverts(chain: &ForeignChain, contents: &BTreeMap<String, Content>) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut next = vec![chain.name.as_str()];
    let mut found = BTreeSet::new();
    // Ours judges what leaves at this hook with priority 0: another destination that is given later is not judged.
    let is_late = chain.hook == OUTPUT && chain.priority >= 0;
    while let Some(name) = next.pop() {
        let Some(content) = contents.get(name).filter(|_| reached.insert(name)) else { continue };
        found.extend(content.diverts.iter().cloned());
        if is_late {
            found.extend(content.redirects.iter().cloned());
        }
        next.extend(content.leads_to.iter().map(String::as_str));
        if content.leads_anywhere {
            next.extend(contents.keys().map(String::as_str));
        }
    }
    found
}

/// Messages that remove base chains, whatever stands in them.
fn removal(chains: &[&ForeignChain]) -> Vec<u8> {
    let kind = |message: i32| (NFTABLES << 8) | message as u16;
    let mut bytes = write(libc::NFNL_MSG_BATCH_BEGIN as u16, 0, 0, BATCH, &[]);
    for chain in chains {
        let of = |attribute| [(1, chain.table.as_str()), (attribute, chain.name.as_str())];
        let family = (chain.family, 0);
        bytes.extend(write(kind(libc::NFT_MSG_DELRULE), 0, 1, family, &of(2)));
        bytes.extend(write(kind(libc::NFT_MSG_DELCHAIN), 0, 2, family, &of(3)));
    }
    bytes.extend(write(libc::NFNL_MSG_BATCH_END as u16, 0, 3, BATCH, &[]));
    bytes
}

impl KernelTable {
    /// The base chains of others, and what they do. Cheap where there are none.
    pub fn foreign(&mut self) -> Result<Vec<ForeignChain>, ApplyError> {
        let mut found = Vec::new();
        let every = libc::NFPROTO_UNSPEC as u8;
        self.ask((libc::NFT_MSG_GETCHAIN, true), every, &[], |family, chain| {
            found.extend(base_chain(family, chain));
        })?;
        found.sort();
        let tables: BTreeSet<_> = found.iter().map(|one| (one.family, one.table.clone())).collect();
        for (family, table) in tables {
            let mut contents = BTreeMap::new();
            self.ask((libc::NFT_MSG_GETRULE, true), family, &[(1, &table)], |_, rule| {
                add_rule(&mut contents, rule);
            })?;
            let of_table = |one: &&mut ForeignChain| one.family == family && one.table == table;
            for chain in found.iter_mut().filter(of_table) {
                chain.diverts = diverts(chain, &contents);
            }
        }
        Ok(found)
    }

    /// Removes base chains, all or none.
    pub fn remove(&mut self, chains: &[&ForeignChain]) -> Result<(), ApplyError> {
        self.send_all(&removal(chains))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(name: &str, hook: u32, priority: i32) -> ForeignChain {
        let (family, kind) = (libc::NFPROTO_INET as u8, "filter".to_owned());
        let (table, name) = ("theirs".to_owned(), name.to_owned());
        ForeignChain { family, table, name, kind, hook, priority, diverts: BTreeSet::new() }
    }

    fn content(diverts: &[&str], redirects: &[&str], leads_to: &[&str]) -> Content {
        let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Content {
            diverts: set(diverts),
            redirects: set(redirects),
            leads_to: set(leads_to),
            leads_anywhere: false,
        }
    }

    #[test]
    fn what_a_chain_leads_to_counts_as_its_own() {
        let mut contents = BTreeMap::from([
            ("base".to_owned(), content(&[], &[], &["middle"])),
            ("middle".to_owned(), content(&[], &[], &["base", "end"])),
            ("end".to_owned(), content(&["dup"], &[], &[])),
            ("aside".to_owned(), content(&["queue"], &[], &[])),
        ]);
        let base = chain("base", 1, -300);
        assert_eq!(diverts(&base, &contents), ["dup".to_owned()].into());
        assert_eq!(diverts(&chain("empty", 1, 0), &contents), BTreeSet::new());
        contents.get_mut("middle").unwrap().leads_anywhere = true;
        assert_eq!(diverts(&base, &contents), ["dup".to_owned(), "queue".to_owned()].into());
    }

    #[test]
    fn another_destination_is_harmless_only_where_it_is_judged_afterwards() {
        let contents = BTreeMap::from([("base".to_owned(), content(&[], &["dnat"], &[]))]);
        for (hook, priority, is_harmful) in
            [(0, -100, false), (OUTPUT, -100, false), (OUTPUT, 0, true), (OUTPUT, 100, true)]
        {
            let found = diverts(&chain("base", hook, priority), &contents);
            assert_eq!(!found.is_empty(), is_harmful, "{hook} {priority}");
        }
    }

    #[test]
    fn names_from_a_container_are_told_harmlessly() {
        let mut evil = chain("a\u{1b}[2Jb", 3, -5);
        evil.diverts.insert("dup".to_owned());
        let told = evil.to_string();
        assert!(!told.contains('\u{1b}'), "{told}");
        assert!(
            told.ends_with(
                "(type filter, output, priority -5) leads packets around the policy: dup"
            ),
            "{told}"
        );
    }
}
