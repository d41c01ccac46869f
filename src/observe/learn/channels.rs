//! Owns data channels: connections that belong to another one, whose port is all a policy has to name.
//!
//! FTP's data connections go to a port that the two agree on over 21/tcp: the server's (passive) or the client's (active),
//! RFC 959. TFTP's go back from a new port of the server's to the client's, RFC 1350. SIP's media go to ports that both
//! tell each other over 5060, RFC 3261. What a connection tracking helper recognised says so itself (`master`); the others are
//! recognised by their ports and times.

use std::collections::BTreeMap;

use super::seen::{Conversation, Evidence, Who};
use crate::metadata::L4Proto;
use crate::observe::Carried;

/// How long after its control connection was last seen a data channel may begin, in microseconds.
const NEAR_US: u64 = 10_000_000;
/// The first port that a data channel is looked for at.
const FIRST_CHANNEL_PORT: u16 = 1024;

/// A protocol with data channels.
struct Protocol {
    helper: &'static str,
    port: u16,
    protos: &'static [L4Proto],
    /// Whether channels without a helper are recognised from client to server.
    forth: bool,
    /// The same from server to client.
    back: bool,
}

static PROTOCOLS: [Protocol; 3] = [
    Protocol { helper: "ftp", port: 21, protos: &[L4Proto::Tcp], forth: true, back: true },
    Protocol { helper: "tftp", port: 69, protos: &[L4Proto::Udp], forth: false, back: true },
    Protocol {
        helper: "sip",
        port: 5060,
        protos: &[L4Proto::Udp, L4Proto::Tcp],
        forth: false,
        back: false,
    },
];

impl Protocol {
    fn of(carried: Carried) -> Option<&'static Self> {
        let Carried::Port { proto, port } = carried else { return None };
        PROTOCOLS.iter().find(|one| one.port == port && one.protos.contains(&proto))
    }
}

/// A control connection: client, server and port.
type Control = (Who, Who, Carried);

/// Puts data channels to the control connections they belong to, which then need a helper. A channel that the policy let pass as
/// one has its helper already, and is left out. `is_missing`: whether the policies do not allow a connection.
pub(super) fn fold(
    conversations: Vec<Conversation>,
    is_missing: impl Fn(&Conversation) -> bool,
) -> Vec<Conversation> {
    let controls: BTreeMap<Control, Evidence> = conversations
        .iter()
        .filter(|one| one.master.is_none() && Protocol::of(one.carried).is_some())
        .map(|one| ((one.client.clone(), one.server.clone(), one.carried), one.evidence.clone()))
        .collect();
    let mut channels: BTreeMap<Control, Evidence> = BTreeMap::new();
    let mut kept = Vec::new();
    for one in conversations {
        let control = match one.master {
            Some(_) if one.was_allowed => continue,
            Some(master) => Some(of_helper(&one, master, &controls)),
            None => of_ports(&one, &controls).filter(|_| is_missing(&one)),
        };
        match control {
            Some(control) => channels.entry(control).or_default().add(&Evidence {
                channels: one.evidence.connections,
                connections: 0,
                unanswered: 0,
                ..one.evidence
            }),
            None => kept.push(one),
        }
    }
    for one in &mut kept {
        let control = (one.client.clone(), one.server.clone(), one.carried);
        if let Some(evidence) = channels.remove(&control) {
            one.evidence.add(&evidence);
            one.helper = Protocol::of(one.carried).map(|protocol| protocol.helper);
        }
    }
    // The control connection may be older than the records: then its channels are all there is to count.
    kept.extend(channels.into_iter().map(|((client, server, carried), evidence)| Conversation {
        client,
        server,
        carried,
        master: None,
        helper: Protocol::of(carried).map(|protocol| protocol.helper),
        evidence: Evidence { connections: evidence.channels, ..evidence },
        is_denied: false,
        was_allowed: false,
        is_unasked: false,
        is_named: false,
    }));
    kept.sort_by(|a, b| a.order().cmp(&b.order()));
    kept
}

/// The control connection of a channel that a helper recognised: the other way round where only that is known.
fn of_helper(
    one: &Conversation,
    master: Carried,
    controls: &BTreeMap<Control, Evidence>,
) -> Control {
    let forth = (one.client.clone(), one.server.clone(), master);
    let back = (one.server.clone(), one.client.clone(), master);
    if controls.contains_key(&back) && !controls.contains_key(&forth) { back } else { forth }
}

/// The control connection that a connection between high ports seems to belong to.
fn of_ports(one: &Conversation, controls: &BTreeMap<Control, Evidence>) -> Option<Control> {
    let Carried::Port { proto, port } = one.carried else { return None };
    if port < FIRST_CHANNEL_PORT || one.is_denied || Protocol::of(one.carried).is_some() {
        return None;
    }
    let is_near = |control: &Evidence| {
        one.evidence.first_us >= control.first_us
            && one.evidence.first_us <= control.last_us.saturating_add(NEAR_US)
    };
    let fits = |protocol: &'static Protocol| {
        let carried = Carried::Port { proto, port: protocol.port };
        let forth = (one.client.clone(), one.server.clone(), carried);
        let back = (one.server.clone(), one.client.clone(), carried);
        [(protocol.forth, forth), (protocol.back, back)].into_iter().find_map(
            |(is_way, control)| {
                let known = is_way && controls.get(&control).is_some_and(is_near);
                known.then_some(control)
            },
        )
    };
    let mut spoken = PROTOCOLS.iter().filter(|protocol| protocol.protos.contains(&proto));
    spoken.find_map(fits)
}
