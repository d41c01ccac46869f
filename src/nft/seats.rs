//! Owns the queues of a netns' links that are kept from `AF_XDP` sockets, which netfilter cannot stop.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use super::message::seat;
use super::netns::{Entrance, Netns, NetnsError};

/// More queues than any link of a container has.
const QUEUES: u32 = 256;

/// What is held, by link. While it is, nobody else can open an `AF_XDP` socket there; it does not outlive who holds it.
#[derive(Debug, Default)]
pub struct Seats(BTreeMap<u32, Vec<OwnedFd>>);

impl Seats {
    /// Whether every one of these links is taken.
    pub fn hold(&self, links: &[u32]) -> bool {
        links.iter().all(|link| self.0.contains_key(link))
    }

    /// Lets go of links that are not among these.
    pub fn retain(&mut self, links: &[u32]) {
        self.0.retain(|link, _| links.contains(link));
    }

    /// Those of links of the calling thread's netns. Where one cannot be taken it is left out.
    pub(super) fn take_here(links: Vec<u32>) -> Self {
        let mut seats = Self::default();
        for link in links {
            let _ = seats.take(link);
        }
        seats
    }

    fn take(&mut self, link: u32) -> io::Result<()> {
        let mut taken = Vec::new();
        for queue in 0..QUEUES {
            match seat::take(link, queue) {
                Ok(seat) => taken.push(seat),
                Err(error) if is_past_the_last(queue, &error) => break,
                Err(error) => return Err(error),
            }
        }
        self.0.insert(link, taken);
        Ok(())
    }
}

/// Whether there are no more queues; or no such sockets at all, so that nobody else has any either.
fn is_past_the_last(queue: u32, error: &io::Error) -> bool {
    match error.raw_os_error() {
        Some(libc::EAFNOSUPPORT | libc::ENODEV) => true,
        Some(libc::EINVAL) => queue > 0,
        _ => false,
    }
}

impl Entrance {
    /// Takes every queue of these links of a netns that is not taken yet. What could be taken is, also after an error.
    pub fn take_seats(
        &self,
        netns: &Netns,
        links: &[u32],
        seats: Seats,
    ) -> Result<(Seats, io::Result<()>), NetnsError> {
        let links = links.to_vec();
        self.enter(netns, move || {
            let mut seats = seats;
            let missing = links.into_iter().filter(|link| !seats.0.contains_key(link));
            let missing: Vec<u32> = missing.collect();
            let results: Vec<io::Result<()>> =
                missing.into_iter().map(|link| seats.take(link)).collect();
            Ok((seats, results.into_iter().collect()))
        })
    }
}
