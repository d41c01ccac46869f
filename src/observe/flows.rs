//! Owns counting connections by who, whom and what. Pure: time is given to it, and its size is bounded.

use std::collections::{BTreeSet, HashMap};

use super::party::Party;
use super::record::{End, Flow, FlowKey};
use super::share;
use crate::nft::conntrack::Count;

/// How many keys are kept. When there are more, whoever has most gives way, with what was not seen for the longest time.
const KEPT: usize = 20_000;
/// How many give way at once, so that it is done seldom.
const SURPLUS: usize = KEPT / 10;

/// In whose netns they were seen, and at which end: visitors push nothing out of what a workload asked for itself.
fn owner(key: &FlowKey) -> (Party, End) {
    let party = match key.end {
        End::Client => &key.client,
        End::Server => &key.server,
    };
    (party.clone(), key.end)
}

/// Flows by key.
#[derive(Debug, Default)]
pub struct Flows {
    flows: HashMap<FlowKey, Flow>,
    changed: BTreeSet<FlowKey>,
}

impl Flows {
    /// Flows that were kept before.
    pub fn restore(&mut self, kept: Vec<Flow>) {
        self.flows.extend(kept.into_iter().map(|flow| (flow.key.clone(), flow)));
    }

    /// A connection began.
    pub fn began(&mut self, key: &FlowKey, at_us: u64) {
        let flow = self.entry(key, at_us);
        flow.connections += 1;
        flow.last_us = flow.last_us.max(at_us);
    }

    /// A connection ended. One whose beginning was not seen is not counted as one.
    pub fn ended(
        &mut self,
        key: &FlowKey,
        at_us: u64,
        was_answered: bool,
        out: Count,
        back: Count,
    ) {
        let flow = self.entry(key, at_us);
        flow.last_us = flow.last_us.max(at_us);
        flow.unanswered += u64::from(!was_answered);
        flow.packets_out += out.packets;
        flow.bytes_out += out.bytes;
        flow.packets_in += back.packets;
        flow.bytes_in += back.bytes;
    }

    fn entry(&mut self, key: &FlowKey, at_us: u64) -> &mut Flow {
        if !self.flows.contains_key(key) && self.flows.len() >= KEPT {
            self.make_room();
        }
        self.changed.insert(key.clone());
        self.flows.entry(key.clone()).or_insert_with(|| Flow {
            key: key.clone(),
            first_us: at_us,
            last_us: at_us,
            connections: 0,
            unanswered: 0,
            packets_out: 0,
            bytes_out: 0,
            packets_in: 0,
            bytes_in: 0,
        })
    }

    fn make_room(&mut self) {
        let entries = self.flows.iter().map(|(key, flow)| (owner(key), flow.last_us));
        let bounds = share::bounds(entries, SURPLUS);
        self.flows
            .retain(|key, flow| bounds.get(&owner(key)).is_none_or(|bound| flow.last_us > *bound));
        let flows = &self.flows;
        self.changed.retain(|key| flows.contains_key(key));
    }

    /// What changed since this was last asked.
    pub fn take_changed(&mut self) -> Vec<Flow> {
        let changed = std::mem::take(&mut self.changed);
        changed.iter().filter_map(|key| self.flows.get(key).cloned()).collect()
    }

    /// All, most recent last.
    pub fn list(&self) -> Vec<Flow> {
        let mut all: Vec<Flow> = self.flows.values().cloned().collect();
        all.sort_by(|a, b| (a.last_us, &a.key).cmp(&(b.last_us, &b.key)));
        all
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::L4Proto;
    use crate::observe::{Carried, End, Party, Said};

    fn key(port: u16) -> FlowKey {
        FlowKey {
            end: End::Client,
            client: Party::Host,
            server: Party::Host,
            carried: Carried::Port { proto: L4Proto::Tcp, port },
            master: None,
            said: Said::Allowed,
        }
    }

    #[test]
    fn connections_of_one_key_are_counted_together() {
        let mut flows = Flows::default();
        flows.began(&key(80), 5);
        flows.began(&key(80), 9);
        let out = Count { packets: 4, bytes: 400 };
        flows.ended(&key(80), 12, false, out, Count::default());
        let all = flows.list();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].first_us, all[0].last_us, all[0].connections), (5, 12, 2));
        assert_eq!((all[0].unanswered, all[0].bytes_out), (1, 400));
        assert_eq!(flows.take_changed().len(), 1);
        assert!(flows.take_changed().is_empty());
    }

    #[test]
    fn a_scan_of_every_port_does_not_grow_it_without_end_and_takes_no_room_of_others() {
        let mut flows = Flows::default();
        let named =
            |name: &str| Party::Workload { name: name.into(), model: None, selector: name.into() };
        let quiet = FlowKey { client: named("quiet"), ..key(80) };
        flows.began(&quiet, 0);
        for number in 0..60_000u32 {
            let mut one = key((number % 65_535 + 1) as u16);
            one.end = if number < 40_000 { End::Client } else { End::Server };
            flows.began(&one, u64::from(number));
            assert!(flows.len() <= KEPT);
        }
        assert!(flows.list().iter().any(|flow| flow.key == quiet));
        let newest = flows.list().last().map(|flow| flow.last_us);
        assert_eq!(newest, Some(59_999));
        assert!(flows.take_changed().len() <= KEPT);
    }
}
