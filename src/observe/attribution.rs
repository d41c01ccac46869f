//! Owns saying whose a denied packet or a connection is: who is the client, who the server, and on what.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use super::book::{Book, Found};
use super::names::Names;
use super::party::{Carried, Party};
use super::record::{DenialKey, End, FlowKey, Said, Where};
use super::seen::{Denied, carried};
use crate::compile::Generation;
use crate::metadata::WorkloadId;
use crate::nft::conntrack::{Change, Told, Tuple};
use crate::policy::Endpoint;

/// How many connections of a netns are remembered, to tell answers from questions and ends from beginnings.
const REMEMBERED: usize = 1024;
/// How many addresses a netns is remembered to have had.
const ADDRESSES: usize = 64;
/// The first port that clients are given (IANA's dynamic ports begin at 49152, Linux's at 32768).
const EPHEMERAL: u16 = 32_768;

/// A netns that is listened to.
#[derive(Debug)]
pub struct Place {
    /// The workload whose netns it is.
    pub owner: WorkloadId,
    /// Its first process.
    pub pid: u32,
    /// The netns.
    pub inode: u64,
    /// What it was called when it was seen last.
    pub own: Found,
    /// Its addresses when it was first listened to, and those it had since: what is told of one comes after it may be gone.
    pub addresses: BTreeSet<IpAddr>,
    /// What its containers resolved.
    pub names: Names,
    /// The time, in microseconds since 1970, as of what is attributed now.
    pub now_us: u64,
    recent: Recent,
}

/// A denied packet, attributed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributed {
    /// Who, whom, what.
    pub key: DenialKey,
    /// The client now.
    pub client: Found,
    /// The server now.
    pub server: Found,
    /// Whether it went on in, or answered, a connection that was there before.
    pub is_reply: bool,
    /// The container's own port and address.
    pub local: Option<(IpAddr, u16)>,
}

impl Place {
    /// A netns nothing was heard of yet.
    pub fn new(
        owner: WorkloadId,
        pid: u32,
        inode: u64,
        own: Found,
        addresses: BTreeSet<IpAddr>,
    ) -> Self {
        let (names, recent) = (Names::default(), Recent::default());
        Self { owner, pid, inode, own, addresses, names, now_us: 0, recent }
    }

    /// Whose a denied packet is.
    pub fn denied(&mut self, book: &mut Book, denied: &Denied) -> Attributed {
        let own = self.own(book);
        let is_out = !matches!(denied.at, Where::In);
        let Some((source, destination)) = denied.addresses else {
            let address = IpAddr::from([0, 0, 0, 0]);
            let link = Found {
                party: Party::Address { address, name: Some("the link".into()) },
                endpoint: Endpoint::Address(address),
            };
            let carried = carried(denied.protocol, 0, None);
            let key = self.key(denied, &own, &own, &link, carried);
            return Attributed { key, client: own, server: link, is_reply: false, local: None };
        };
        let is_reply = self.is_reply(denied, source, destination);
        let (from, to) = match denied.at {
            Where::In => (self.found(book, source), own.clone()),
            Where::Out | Where::Raw => (own.clone(), self.found(book, destination)),
            Where::Transit => (self.found(book, source), self.found(book, destination)),
        };
        let (client, server, port) = match is_reply {
            false => (from, to, denied.ports.1),
            true => (to, from, denied.ports.0),
        };
        let carried = carried(denied.protocol, port, denied.icmp_type);
        let key = self.key(denied, &own, &client, &server, carried);
        let local = if is_out { (source, denied.ports.0) } else { (destination, denied.ports.1) };
        Attributed { key, client, server, is_reply, local: Some(local) }
    }

    fn key(
        &self,
        denied: &Denied,
        own: &Found,
        client: &Found,
        server: &Found,
        carried: Carried,
    ) -> DenialKey {
        DenialKey {
            workload: own.party.clone(),
            at: denied.at,
            enforced: denied.enforced,
            client: client.party.clone(),
            server: server.party.clone(),
            carried,
        }
    }

    /// Whether a packet answers somebody: it is of a connection that began the other way round. Of connections nobody
    /// remembers it is guessed by the ports.
    fn is_reply(&self, denied: &Denied, source: IpAddr, destination: IpAddr) -> bool {
        let protocol = u8::try_from(denied.protocol).unwrap_or_default();
        let tuple = |from: (IpAddr, u16), to: (IpAddr, u16)| Tuple {
            source: from.0,
            destination: to.0,
            protocol,
            ports: (from.1, to.1),
            icmp_type: None,
        };
        let (from, to) = ((source, denied.ports.0), (destination, denied.ports.1));
        if denied.is_opening || denied.ports.1 == 0 {
            return false;
        }
        if self.recent.get(&tuple(from, to)).is_some() {
            return false;
        }
        if self.recent.get(&tuple(to, from)).is_some() {
            return true;
        }
        // Of TCP only what begins a connection is a question.
        protocol == 6 && denied.ports.0 < EPHEMERAL && denied.ports.1 >= EPHEMERAL
    }

    /// The key of a connection that began or ended; none for what is not to be counted.
    pub fn connection(&mut self, book: &mut Book, told: &Told) -> Option<Arc<FlowKey>> {
        let is_new = told.change == Change::New;
        // A new one on addresses and ports that were used before is another.
        if let Some(known) = self.recent.get(&told.tuple).filter(|_| !is_new) {
            let known = Arc::clone(known);
            self.recent.forget(&told.tuple);
            return Some(known);
        }
        let key = Arc::new(self.flow(book, told)?);
        if is_new {
            self.recent.remember(told.tuple, Arc::clone(&key));
        }
        Some(key)
    }

    fn flow(&mut self, book: &mut Book, told: &Told) -> Option<FlowKey> {
        let said = match told.mark & Generation::MASK {
            mark if mark == Generation::LOCAL.mark() => return None,
            mark if mark == Generation::OBSERVED.mark() => Said::WouldDeny,
            0 => Said::Unasked,
            _ => Said::Allowed,
        };
        // A data channel is its control connection's: its own ports mean nothing, and may go the other way.
        let tuple = told.master.unwrap_or(told.tuple);
        let ends = [tuple.source, tuple.destination];
        let end = match ends.map(|one| self.is_own(book, one)) {
            [true, false] => End::Client,
            [false, true] => End::Server,
            // With itself.
            [true, true] => return None,
            [false, false] => match ends.map(|one| self.was_own(&one)) {
                [true, false] => End::Client,
                [false, true] => End::Server,
                // Forwarded for others.
                _ => return None,
            },
        };
        let carried = carried(tuple.protocol.into(), tuple.ports.1, tuple.icmp_type);
        let own = self.own(book).party;
        let (client, server) = match end {
            End::Client => (own, self.found(book, tuple.destination).party),
            End::Server => (self.found(book, tuple.source).party, own),
        };
        let master = told.master.map(|_| carried);
        Some(FlowKey { end, client, server, carried, master, said })
    }

    fn is_own(&mut self, book: &Book, address: IpAddr) -> bool {
        let is_now = book.is_own(&self.owner, address);
        if is_now && self.addresses.len() < ADDRESSES {
            self.addresses.insert(address);
        }
        is_now
    }

    /// What it had once may be another's by now: it is asked for only where nothing else fits.
    fn was_own(&self, address: &IpAddr) -> bool {
        self.addresses.contains(address)
    }

    /// Whose netns it is, by its name now, or the last one it had.
    fn own(&mut self, book: &Book) -> Found {
        if let Some(found) = book.workload(&self.owner) {
            self.own = found;
        }
        self.own.clone()
    }

    fn found(&self, book: &mut Book, address: IpAddr) -> Found {
        let mut found = book.at(&self.owner, address, self.now_us);
        if let Party::Address { name, .. } = &mut found.party {
            *name = self.names.of(address).cloned();
        }
        found
    }
}

/// The last connections of a netns.
#[derive(Debug, Default)]
struct Recent {
    keys: HashMap<Tuple, (u64, Arc<FlowKey>)>,
    /// Each with its number: the same tuple may have been remembered before, and forgotten.
    order: VecDeque<(u64, Tuple)>,
    last: u64,
}

impl Recent {
    fn get(&self, tuple: &Tuple) -> Option<&Arc<FlowKey>> {
        self.keys.get(tuple).map(|(_, key)| key)
    }

    fn remember(&mut self, tuple: Tuple, key: Arc<FlowKey>) {
        if self.order.len() >= REMEMBERED
            && let Some((number, oldest)) = self.order.pop_front()
            && self.keys.get(&oldest).is_some_and(|(known, _)| *known == number)
        {
            self.keys.remove(&oldest);
        }
        self.last += 1;
        self.keys.insert(tuple, (self.last, key));
        self.order.push_back((self.last, tuple));
    }

    /// Its place in the order stays until it is the oldest: that costs nothing.
    fn forget(&mut self, tuple: &Tuple) {
        self.keys.remove(tuple);
    }
}

#[cfg(test)]
mod tests;
