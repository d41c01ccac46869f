//! Owns samples of what is seen, for tests: with names that want to do harm.

use std::time::{SystemTime, UNIX_EPOCH};

use super::party::{Carried, Party};
use super::record::{Denial, DenialKey, End, Event, EventKind, Flow, FlowKey, Said, Where};
use crate::input::Text;
use crate::metadata::L4Proto;

/// What a container may be called by somebody who hopes for a shell, a terminal, a parser or a log.
pub(super) const HOSTILE: &str =
    "evil\"]} \\ '); DROP TABLE flows;--\n<0>1 \u{1b}[2J\r\nPRIORITY=0\u{2028}x";

/// Now, in microseconds since 1970.
pub(super) fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_micros()).unwrap()
}

fn workload(name: &str) -> Party {
    Party::Workload {
        name: Text::new(name),
        model: Some(Text::new("nginx")),
        selector: Text::new(&format!("name:{name}")),
    }
}

pub(super) fn flow(port: u16, connections: u64) -> Flow {
    let key = FlowKey {
        end: End::Client,
        client: workload(HOSTILE),
        server: Party::Address {
            address: [192, 0, 2, 7].into(),
            name: Some(Text::new("example.org")),
        },
        carried: Carried::Port { proto: L4Proto::Tcp, port },
        master: Some(Carried::Ping),
        said: Said::WouldDeny,
    };
    let at = now_us();
    Flow {
        key,
        first_us: at - 10,
        last_us: at,
        connections,
        unanswered: 1,
        packets_out: 2,
        bytes_out: 3,
        packets_in: 4,
        bytes_in: 5,
    }
}

pub(super) fn denial(port: u16) -> Denial {
    let at = now_us();
    Denial {
        key: DenialKey {
            workload: workload(HOSTILE),
            at: Where::Out,
            enforced: true,
            client: workload(HOSTILE),
            server: Party::Host,
            carried: Carried::Port { proto: L4Proto::Udp, port },
        },
        first_us: at - 5,
        last_us: at,
        logged: 3,
        is_reply: false,
        uid: Some(1000),
        process: Some(Text::new("curl (4711)")),
    }
}

/// The same for the same number.
pub(super) fn event(sequence: u64) -> Event {
    let denial =
        Denial { first_us: 1_798_761_599_000_000, last_us: 1_798_761_599_123_456, ..denial(53) };
    Event {
        sequence,
        at_us: 1_798_761_599_123_456,
        kind: EventKind::Denied,
        workload: Some(Text::new(HOSTILE)),
        message: Text::new(&format!("{HOSTILE} → host 53/udp denied")),
        denial: Some(denial),
        needed: Some("[[allow]]\nfrom = \"name:evil\"\nPRIORITY=0\n".to_owned()),
    }
}
