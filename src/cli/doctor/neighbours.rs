//! Owns what is asked of others who filter on this host: what they do to containers, and to seawall.
//!
//! seawall's tables are in the containers' own network namespaces, so nobody's flush on the host reaches them. What others
//! do to Docker's rules on the host reaches containers all the same.

use std::collections::BTreeSet;

use super::check::Check;
use crate::input::Text;
use crate::nft::KernelTable;
use crate::nft::chains::NamedChain;

/// Files that `nftables.service` loads, by distribution.
const NFTABLES: [&str; 2] = ["/etc/nftables.conf", "/etc/sysconfig/nftables.conf"];
/// Links and prefixes of links that say whose network this is.
const NETWORKS: [(&str, &str); 7] = [
    ("cilium", "Cilium"),
    ("lxc_health", "Cilium"),
    ("cali", "Calico"),
    ("vxlan.calico", "Calico"),
    ("flannel", "flannel"),
    ("weave", "Weave Net"),
    ("kube-ipvs", "kube-proxy"),
];

/// What was found out.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Each file `nftables.service` may load, with its text.
    pub(super) nftables: Vec<(String, String)>,
    /// Whether that unit is started with the host.
    pub(super) is_nftables_enabled: bool,
    /// Whether a process called firewalld runs.
    pub(super) has_firewalld: bool,
    /// `firewalld.conf`.
    pub(super) firewalld: String,
    /// `/etc/ufw/ufw.conf` and `/etc/default/ufw`.
    pub(super) ufw: String,
    /// The host's own chains, and how many rules `DOCKER-USER` has; none where this call may not list them.
    pub(super) chains: Option<(BTreeSet<NamedChain>, usize)>,
    /// Tables of the legacy iptables; none where this call may not list them.
    pub(super) legacy: Option<BTreeSet<String>>,
    /// Whether bridged packets pass the host's rules (`net.bridge.bridge-nf-call-iptables` and its sibling for IPv6).
    pub(super) is_bridge_filtered: bool,
    /// The names of the host's links.
    pub(super) links: Vec<String>,
}

pub(super) fn read() -> Facts {
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let nftables = NFTABLES
        .iter()
        .filter_map(|path| Some(((*path).to_owned(), std::fs::read_to_string(path).ok()?)));
    Facts {
        nftables: nftables.collect(),
        is_nftables_enabled: is_enabled("nftables.service"),
        has_firewalld: has_process("firewalld"),
        firewalld: text("/etc/firewalld/firewalld.conf"),
        ufw: text("/etc/ufw/ufw.conf") + "\n" + &text("/etc/default/ufw"),
        chains: host_chains(),
        legacy: legacy(),
        is_bridge_filtered: ["iptables", "ip6tables"].iter().any(|program| {
            text(&format!("/proc/sys/net/bridge/bridge-nf-call-{program}")).trim() == "1"
        }),
        links: links(&text("/proc/self/net/dev")),
    }
}

/// Whether a unit is wanted by a target (`systemctl enable`).
fn is_enabled(unit: &str) -> bool {
    let entries = std::fs::read_dir("/etc/systemd/system").into_iter().flatten().flatten();
    let wants = |name: &str| name.ends_with(".wants") || name.ends_with(".requires");
    let folders = entries.filter(|entry| entry.file_name().to_str().is_some_and(wants));
    folders.into_iter().any(|folder| folder.path().join(unit).is_symlink())
}

fn has_process(name: &str) -> bool {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        let comm = std::fs::read_to_string(entry.path().join("comm"));
        comm.is_ok_and(|comm| comm.trim_end() == name)
    })
}

fn host_chains() -> Option<(BTreeSet<NamedChain>, usize)> {
    let mut table = KernelTable::open_here().ok()?;
    let chains = table.chains().ok()?;
    let rules = chains.iter().filter(|chain| chain.name == *"DOCKER-USER");
    let rules = rules.filter_map(|chain| table.rules_in(chain).ok()).max().unwrap_or(0);
    Some((chains, rules))
}

fn legacy() -> Option<BTreeSet<String>> {
    let mut tables = BTreeSet::new();
    for file in ["/proc/self/net/ip_tables_names", "/proc/self/net/ip6_tables_names"] {
        match std::fs::read_to_string(file) {
            Ok(names) => tables.extend(names.split_whitespace().map(str::to_owned)),
            // The module is not loaded.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(_) => return None,
        }
    }
    Some(tables)
}

/// The names in `/proc/net/dev`: two lines of heading, then `NAME: …`.
fn links(text: &str) -> Vec<String> {
    let lines = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    lines.map(|(name, _)| name.trim().to_owned()).collect()
}

pub(super) fn judge(facts: &Facts) -> Vec<Check> {
    vec![nftables(facts), firewalld(facts), ufw(facts), iptables(facts), networks(facts)]
}

fn nftables(facts: &Facts) -> Check {
    const ID: &str = "neighbours.nftables";
    let flushes = |text: &str| {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        lines.into_iter().any(|line| {
            let words: Vec<&str> = line.trim_end_matches(';').split_whitespace().collect();
            words == ["flush", "ruleset"]
        })
    };
    let flushing = facts.nftables.iter().find(|(_, text)| flushes(text)).map(|(path, _)| path);
    match (flushing, facts.is_nftables_enabled) {
        (None, true) => Check::ok(ID, "nftables.service is enabled, and flushes nothing of others"),
        (None, false) => Check::ok(ID, "nftables.service is not enabled"),
        (Some(path), false) => Check::ok(
            ID,
            format!("{path} has `flush ruleset`, but nftables.service is not enabled"),
        ),
        (Some(path), true) => Check::warning(
            ID,
            format!("nftables.service is enabled, and {path} has `flush ruleset`"),
            "starting or reloading it takes away the rules Docker made on the host: published ports and the way out end until \
             Docker is restarted; seawall's tables stay",
            format!(
                "in {path}, in place of `flush ruleset`, delete your own tables only: `table inet filter`, then \
                 `delete table inet filter`"
            ),
        ),
    }
}

/// The value of `KEY=VALUE`, without quotes; the last one counts.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.trim().split_once('='));
    let found = lines.rfind(|(name, _)| name.trim() == key)?;
    Some(found.1.trim().trim_matches('"'))
}

fn firewalld(facts: &Facts) -> Check {
    const ID: &str = "neighbours.firewalld";
    if !facts.has_firewalld {
        return Check::ok(ID, "it does not run");
    }
    let is_iptables = value(&facts.firewalld, "FirewallBackend") == Some("iptables");
    if is_iptables {
        return Check::warning(
            ID,
            "it runs with the backend iptables",
            "its reload takes away Docker's rules on the host until Docker puts them back; seawall's tables stay",
            "FirewallBackend=nftables in /etc/firewalld/firewalld.conf",
        );
    }
    Check::ok(
        ID,
        "it runs: what passes the host must pass its zones too; its reload leaves seawall's tables alone",
    )
}

fn ufw(facts: &Facts) -> Check {
    const ID: &str = "neighbours.ufw";
    let is = |key, wanted: &str| {
        value(&facts.ufw, key).is_some_and(|value| value.eq_ignore_ascii_case(wanted))
    };
    if !is("ENABLED", "yes") {
        return Check::ok(ID, "it is not enabled");
    }
    if is("MANAGE_BUILTINS", "yes") {
        return Check::warning(
            ID,
            "it is enabled with MANAGE_BUILTINS=yes",
            "its start and reload empty the host's built-in chains, Docker's rules among them, until Docker is \
             restarted; seawall's tables stay",
            "MANAGE_BUILTINS=no in /etc/default/ufw",
        );
    }
    Check::ok(
        ID,
        "it is enabled: it does not judge what Docker publishes, seawall does; its reload leaves seawall's tables alone",
    )
}

fn iptables(facts: &Facts) -> Check {
    const ID: &str = "neighbours.iptables";
    let Some((chains, rules)) = &facts.chains else {
        return Check::unknown(ID, "the host's rules may not be listed by this call");
    };
    let tables: BTreeSet<&str> = chains.iter().map(|chain| chain.table.as_str()).collect();
    let legacy = facts.legacy.clone().unwrap_or_default();
    let mut parts = Vec::new();
    if chains.iter().any(|chain| chain.name == *"DOCKER-USER") {
        parts.push(format!("DOCKER-USER has {rules} rules"));
    }
    let bridge = match facts.is_bridge_filtered {
        true => "traffic within a bridge passes the host's rules too (br_netfilter)",
        false => {
            "traffic within a bridge does not pass the host's rules; seawall needs no br_netfilter"
        }
    };
    parts.push(bridge.to_owned());
    let is_docker_nft = chains.iter().any(|chain| chain.name.as_str().starts_with("DOCKER"));
    if !legacy.is_empty() && is_docker_nft {
        let legacy: Vec<String> = legacy.iter().map(|name| Text::new(name).to_string()).collect();
        return Check::warning(
            ID,
            format!(
                "legacy iptables tables ({}) stand beside Docker's in nftables",
                legacy.join(", ")
            ),
            "packets must pass both, and each program shows only its own",
            "use one of them: update-alternatives --config iptables, then restart",
        );
    }
    if !tables.is_empty() {
        parts.push(format!("tables on the host: {}", some_of(&tables)));
    }
    Check::ok(ID, parts.join("; "))
}

fn some_of(names: &BTreeSet<&str>) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<&str> = names.iter().take(SHOWN).copied().collect();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

fn networks(facts: &Facts) -> Check {
    const ID: &str = "neighbours.networks";
    let of = |link: &String| {
        let known = NETWORKS.iter().find(|(prefix, _)| link.starts_with(prefix));
        known.map(|(_, name)| *name)
    };
    let found: BTreeSet<&str> = facts.links.iter().filter_map(of).collect();
    if found.is_empty() {
        return Check::ok(ID, "none is seen by its links");
    }
    let names: Vec<&str> = found.into_iter().collect();
    Check::warning(
        ID,
        format!("{} is seen by its links", names.join(", ")),
        "what it denies is denied whatever seawall allows, and addresses it translates are not those of seawall's sets",
        "know which of the two denied something: `seawall events` tells seawall's",
    )
}

#[cfg(test)]
mod tests;
