//! Owns what is done with a denied packet: whose it is, whether it is news, which process sent it, and what would have been
//! needed.

use super::search::Looked;
use super::{Observer, now_us};
use crate::input::Text;
use crate::observe::attribution::Attributed;
use crate::observe::denials::News;
use crate::observe::process::Local;
use crate::observe::record::{Denial, DenialKey, Event, EventKind, Where};
use crate::observe::seen::Denied;
use crate::policy::test_connection;

/// A time the kernel tells is as near to now.
const NEAR_US: u64 = 10_000_000;

impl Observer {
    pub(super) fn denied(&mut self, number: u64, denied: &Denied) {
        let Some(place) = self.places.get_mut(&number) else { return };
        place.now_us = now_us();
        let attributed = place.denied(&mut self.book, denied);
        let (pid, inode) = (place.pid, place.inode);
        // Of a raw packet the time is what its sender wrote (`SO_TXTIME`).
        let now = now_us();
        let at_us = denied.at_us.filter(|at| now.abs_diff(*at) < NEAR_US).unwrap_or(now);
        let denial = Denial {
            key: attributed.key.clone(),
            first_us: at_us,
            last_us: at_us,
            logged: 1,
            is_reply: attributed.is_reply,
            uid: denied.uid,
            process: None,
        };
        let News::Told(withheld) = self.denials.count(denial) else { return };
        if withheld > 0 {
            let message =
                format!("{withheld} more kinds of denied packets were listed and not told");
            self.note(EventKind::Daemon, Some(&attributed.key.workload), &message);
        }
        let needed = self.needed(&attributed);
        let looked = Looked { key: attributed.key, process: None, needed };
        let local = attributed.local.filter(|_| matches!(denied.at, Where::Out | Where::Raw));
        let local = local.map(|(address, port)| {
            let (uid, protocol) = (denied.uid, denied.protocol);
            Local { pid, inode, uid, protocol, port, address }
        });
        if let Some(looked) = self.search.begin(local, looked) {
            self.tell(looked);
        }
    }

    /// The statement that would have been needed.
    fn needed(&self, attributed: &Attributed) -> Option<String> {
        let packet = attributed.key.carried.packet()?;
        // What went on in a connection nobody remembers is a guess, and of frames and packets for others no statement speaks.
        if attributed.is_reply || matches!(attributed.key.at, Where::Transit | Where::Raw) {
            return None;
        }
        let view = self.book.view();
        let verdict = test_connection(
            &view.inventory,
            &view.desired.policies,
            &view.settings,
            &attributed.client.endpoint,
            &attributed.server.endpoint,
            packet,
        );
        let mut ends = verdict.egress.iter().chain(&verdict.ingress);
        ends.find_map(|end| end.missing.clone())
    }

    /// Tells a denial that is news.
    pub(super) fn tell(&mut self, looked: Looked) {
        let Looked { key, process, needed } = looked;
        if let Some(process) = process {
            self.denials.set_process(&key, process);
        }
        let Some(denial) = self.denials.get(&key).cloned() else { return };
        let kind = if key.enforced { EventKind::Denied } else { EventKind::WouldDeny };
        let message = Text::new(&said(&denial));
        let event = self.events.event(kind, now_us(), Some(&key.workload), message);
        self.events.push(Event { denial: Some(denial), needed, ..event });
    }
}

/// A denial in one line.
fn said(denial: &Denial) -> String {
    let DenialKey { workload, at, enforced, client, server, carried } = &denial.key;
    let verb = if *enforced { "denied" } else { "would be denied" };
    let way = match at {
        Where::In => format!("at {workload}, on its way in"),
        Where::Out => format!("at {workload}, on its way out"),
        Where::Transit => format!("at {workload}, on its way through"),
        Where::Raw => format!("at {workload}, from a packet socket or not from its own address"),
    };
    let reply = if denial.is_reply { ", in a connection that was there before" } else { "" };
    let by = match (&denial.process, denial.uid) {
        (Some(process), Some(uid)) => format!(", by {process}, uid {uid}"),
        (Some(process), None) => format!(", by {process}"),
        (None, Some(uid)) => format!(", by uid {uid}"),
        (None, None) => String::new(),
    };
    format!("{client} → {server} on {carried} {verb} {way}{reply}{by}")
}
