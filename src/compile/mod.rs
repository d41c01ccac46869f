//! Owns compiling: policies and addresses in, one [`Ruleset`] per network namespace out.
//!
//! Pure. Chains are static, sets are dynamic: which peers exist shows in set elements, never in rules.
//! `expand` turns statements into elements, `intervals` makes ranges disjoint, `chains` writes the rules around the
//! sets, `helped` does both for control connections and what they agree on, `sender` asks whom packets are from, `guard` writes the rules at the links of who may use raw sockets, `interpret` says what a ruleset does to a packet.

pub mod chains;
pub mod expand;
pub mod guard;
pub mod helped;
pub mod interpret;
pub mod intervals;
pub mod ruleset;
pub mod sender;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::metadata::{Inventory, Runtime, Workload};
use crate::policy::{DenyVerdicts, Mode, Policy, Settings, netns_mode};

use chains::Shape;
use guard::Terms;
pub use interpret::{Outcome, Packet, interpret};
use ruleset::Chain;
pub use ruleset::{Generation, Ruleset, TABLE, TableFamily};

/// What compiling depends on besides policies and addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What is done to denied packets.
    pub deny: DenyVerdicts,
    /// The settings policies were generated with; resolvers are taken from here.
    pub settings: Settings,
}

/// The ruleset of a netns nobody is known to need anything in: only the container with itself.
pub fn closed(deny: DenyVerdicts) -> Ruleset {
    let sets = BTreeMap::new();
    let chains = chains::chains(&sets, Mode::Enforce, Shape::default(), deny, Generation::FIRST);
    Ruleset { family: TableFamily::Inet, helpers: BTreeMap::new(), chains, sets }
}

/// Compiles the policies of all workloads of one netns.
///
/// The netns is that of the first policy's workload. Its ruleset allows what any member's policy allows and no
/// member's denies: one table with the union. The strictest mode of the members counts ([`netns_mode`]). Returns `None`
/// when the netns is not to be touched: no members, or all of them in mode off.
pub fn compile(members: &[&Policy], inventory: &Inventory, options: &Options) -> Option<Ruleset> {
    let compiled = compile_as(members, inventory, options, &mut Made::default())?;
    let owner = inventory.get(inventory.netns_owner(&members.first()?.workload))?;
    Some(compiled.sending_from(&owner.addresses().collect()).into_owned())
}

/// Chains that were made before, by what they are made of. Most netns have the same, and so they share them.
#[derive(Debug, Default)]
pub struct Made(BTreeMap<(Vec<String>, Mode, Shape), BTreeMap<String, Chain>>);

impl Made {
    /// Lets go of what no ruleset has any more. Names of sets of intervals are hashes of what is in them, so there would be
    /// ever more.
    pub fn let_go(&mut self) {
        let is_used = |chains: &BTreeMap<String, Chain>| {
            chains.values().any(|chain| Arc::strong_count(&chain.rules) > 1)
        };
        self.0.retain(|_, chains| is_used(chains));
    }
}

/// The same, for many netns with the same options. Its own addresses are left out: they are what its links hold
/// ([`Ruleset::sending_from`]).
pub fn compile_as(
    members: &[&Policy],
    inventory: &Inventory,
    options: &Options,
    made: &mut Made,
) -> Option<Ruleset> {
    let mode = netns_mode(members);
    if mode == Mode::Off {
        return None;
    }
    let owner = inventory.get(inventory.netns_owner(&members.first()?.workload))?;
    let mut sets = expand::sets(members, owner, inventory, &options.settings);
    sets.extend(helped::sets(members, owner, inventory, &options.settings));
    let routes = members.iter().any(|policy| policy.routes);
    // Who may configure its netns is asked at the links, each time: it can make connections known to the kernel.
    let asks_sender = !routes && !Terms::of(members, inventory).is_admin;
    let shape = Shape { routes, asks_directly: asks_directly(owner), asks_sender };
    if shape.asks_sender {
        sets.extend(sender::sets(&BTreeSet::new()));
    }
    let parts = (sets.keys().cloned().collect(), mode, shape);
    let make = || chains::chains(&sets, mode, shape, options.deny, Generation::FIRST);
    let chains = made.0.entry(parts).or_insert_with(make).clone();
    let helpers = helped::objects(&sets);
    Some(Ruleset { family: TableFamily::Inet, helpers, chains, sets })
}

/// Whether a workload's queries go to resolvers outside. On Docker's networks but the default bridge they go to its embedded
/// resolver, on `lo`.
fn asks_directly(owner: &Workload) -> bool {
    matches!(owner.runtime, Runtime::Containerd(_))
        || owner.networks.values().any(|network| network.is_default_bridge)
}
