//! Owns saying what a ruleset does to one packet, statement by statement, as the kernel would.
//!
//! Used to compare rulesets, wanted or read back from the kernel, with the policy they come from.

use std::net::IpAddr;

use super::ruleset::{
    CtDirection, CtState, Generation, Hook, Key, LookupKey, LookupRest, Ruleset, Side, Stmt,
    Verdict,
};

/// What the rules can see of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where the netns meets it.
    pub hook: Hook,
    /// Whether it goes over `lo`.
    pub loopback: bool,
    /// Its connection's state, when it is one that rules ask for.
    pub state: Option<CtState>,
    /// Its direction within the connection.
    pub direction: CtDirection,
    /// The helper of the connection that expects its connection, by the kernel's name.
    pub helper: Option<&'static str>,
    /// The generation its connection was accepted under.
    pub generation: Option<Generation>,
    /// Source and destination address; of one family.
    pub addresses: (IpAddr, IpAddr),
    /// IANA protocol number.
    pub protocol: u8,
    /// Source and destination port; 0 where the protocol has none.
    pub ports: (u16, u16),
    /// ICMP or ICMPv6 type; only looked at for these protocols.
    pub icmp_type: u8,
    /// IPv6 hop limit.
    pub hop_limit: u8,
}

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passes; whether its connection was marked as judged.
    Accept {
        /// The connection's next packets take the fast path.
        marked: bool,
    },
    /// It is dropped.
    Drop,
    /// It is dropped and the sender is told.
    Reject,
}

impl Outcome {
    /// Whether the packet passes.
    pub fn is_accept(self) -> bool {
        matches!(self, Self::Accept { .. })
    }
}

/// Sends a packet through a ruleset. A hook without a chain accepts; a chain that is missing drops.
pub fn interpret(ruleset: &Ruleset, packet: &Packet) -> Outcome {
    let base = ruleset.chains.iter().find_map(|(name, chain)| {
        chain.base.as_ref().filter(|base| base.hook == packet.hook).map(|base| (name, base))
    });
    let Some((name, base)) = base else { return Outcome::Accept { marked: false } };
    let mut marked = false;
    match walk(ruleset, name, packet, &mut marked, 0) {
        Flow::Done(outcome) => outcome,
        Flow::Continue if base.drops => Outcome::Drop,
        Flow::Continue => Outcome::Accept { marked },
    }
}

enum Flow {
    Done(Outcome),
    Continue,
}

fn walk(ruleset: &Ruleset, chain: &str, packet: &Packet, marked: &mut bool, depth: u8) -> Flow {
    // The kernel allows 16 jumps (NFT_JUMP_STACK_SIZE).
    let Some(chain) = ruleset.chains.get(chain).filter(|_| depth < 16) else {
        return Flow::Done(Outcome::Drop);
    };
    'rules: for rule in chain.rules.iter() {
        for statement in &rule.statements {
            match statement {
                Stmt::Counter | Stmt::Log(_) | Stmt::LogAnswer => {}
                // What a helper is given for shows in the packets of other connections: `Packet::helper`.
                Stmt::SetLocal | Stmt::SetObserved | Stmt::SetHelper(_) => {}
                Stmt::SetGeneration(_) => *marked = true,
                Stmt::Reject(_) => return Flow::Done(Outcome::Reject),
                Stmt::Verdict(Verdict::Accept) => {
                    return Flow::Done(Outcome::Accept { marked: *marked });
                }
                Stmt::Verdict(Verdict::Drop) => return Flow::Done(Outcome::Drop),
                Stmt::Verdict(Verdict::Return) => return Flow::Continue,
                Stmt::Verdict(Verdict::Goto(target)) => {
                    return walk(ruleset, target, packet, marked, depth + 1);
                }
                Stmt::Verdict(Verdict::Jump(target)) => {
                    match walk(ruleset, target, packet, marked, depth + 1) {
                        Flow::Continue => {}
                        done => return done,
                    }
                }
                condition if holds(ruleset, condition, packet) => {}
                _ => continue 'rules,
            }
        }
    }
    Flow::Continue
}

fn holds(ruleset: &Ruleset, condition: &Stmt, packet: &Packet) -> bool {
    match condition {
        Stmt::FromLoopback => packet.loopback && packet.hook == Hook::Input,
        Stmt::ToLoopback => packet.loopback && packet.hook == Hook::Output,
        Stmt::GenerationIs(generation) => packet.generation == Some(*generation),
        Stmt::IsUnjudged => packet.generation.is_none(),
        Stmt::IsLocal => packet.generation == Some(Generation::LOCAL),
        Stmt::IsObserved => packet.generation == Some(Generation::OBSERVED),
        Stmt::FromUdpPort(port) => packet.protocol == 17 && packet.ports.0 == *port,
        Stmt::HelperIs(name) => packet.helper == Some(name.as_str()),
        Stmt::CtState(state) => packet.state == Some(*state),
        Stmt::CtStateIsNot(state) => packet.state != Some(*state),
        Stmt::CtDirection(direction) => {
            packet.direction == *direction && packet.state != Some(CtState::Invalid)
        }
        Stmt::SenderIs(address) => packet.addresses.0 == *address,
        Stmt::L4Proto(protocol) => packet.protocol == *protocol,
        Stmt::L4ProtoIsNot(protocol) => packet.protocol != *protocol,
        Stmt::HopLimit(limit) => packet.addresses.0.is_ipv6() && packet.hop_limit == *limit,
        Stmt::Icmp6Type(icmp_type) => packet.protocol == 58 && packet.icmp_type == *icmp_type,
        Stmt::Icmp6Types(first, last) => {
            packet.protocol == 58 && (*first..=*last).contains(&packet.icmp_type)
        }
        // What the kernel sends of these is short and goes where it must: a raw socket is not asked about here.
        Stmt::Ip6LengthAtMost(_) => true,
        Stmt::Ip6To(network, bits) => match packet.addresses.1 {
            IpAddr::V6(to) => {
                (u128::from(to) ^ u128::from(*network)).leading_zeros() >= u32::from(*bits)
            }
            IpAddr::V4(_) => false,
        },
        Stmt::Lookup { key, set } => looked_up(key, packet).is_some_and(|key| {
            ruleset
                .sets
                .get(set)
                .is_some_and(|set| set.elements.keys().any(|element| element.contains(&key)))
        }),
        _ => false,
    }
}

fn looked_up(key: &LookupKey, packet: &Packet) -> Option<Key> {
    let address = match key.address {
        Side::Source => packet.addresses.0,
        Side::Destination => packet.addresses.1,
    };
    if super::ruleset::Family::of(address) != key.family {
        return None;
    }
    let is_icmp = packet.protocol == if address.is_ipv4() { 1 } else { 58 };
    match key.rest {
        LookupRest::IcmpType => {
            is_icmp.then_some(Key { address, selector: packet.icmp_type, port: 0 })
        }
        LookupRest::Nothing | LookupRest::Alone => Some(Key { address, selector: 0, port: 0 }),
        LookupRest::Port(side) => {
            let port = if side == Side::Source { packet.ports.0 } else { packet.ports.1 };
            Some(Key { address, selector: packet.protocol, port })
        }
    }
}
