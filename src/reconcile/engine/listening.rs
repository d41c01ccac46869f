//! Owns what the loop does once a netns has its policy: that it is watched, and that its denials and connections are heard.
//! Nothing that is enforced waits for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{Engine, NetnsState, WORKERS};
use crate::metadata::WorkloadId;
use crate::nft::netns::Process;
use crate::nft::{Netns, NetnsError};
use crate::reconcile::apply::Failure;
use crate::reconcile::feed::{self, Listening};
use crate::reconcile::hearing::Heard;
use crate::reconcile::watch::News;

/// How long at most it is put off for others that have no policy yet.
const PATIENCE: Duration = Duration::from_secs(1);

/// A netns that is to be heard.
#[derive(Debug)]
pub(super) struct Unheard {
    owner: WorkloadId,
    process: Arc<Process>,
    inode: u64,
    since: Instant,
}

impl Engine {
    /// Has a netns be heard that was brought to what is wanted, where it is not yet.
    pub(super) fn ask_to_listen(&mut self, owner: &WorkloadId) {
        if self.outlet.is_none() {
            return;
        }
        let Some(state) = self.netns.get_mut(owner) else { return };
        let inode = state.known.as_ref().map(|known| known.inode);
        let (Some(process), Some(inode)) = (state.process.clone(), inode) else { return };
        if !state.hearing.begin(inode) {
            return;
        }
        self.unheard.push_back(Unheard {
            owner: owner.clone(),
            process,
            inode,
            since: Instant::now(),
        });
    }

    /// Has what waits watched and heard: not while others wait for their first policy, unless that takes long; and few at once.
    pub(super) fn dispatch_later(&mut self, sender: &mpsc::UnboundedSender<News>) {
        let now = Instant::now();
        while self.unwatched.front().is_some_and(|(_, since)| self.is_due(*since))
            && let Some((owner, _)) = self.unwatched.pop_front()
        {
            if self.netns.contains_key(&owner) {
                self.queue.add(owner, now);
            }
        }
        while self.opening < WORKERS
            && let Some(next) = self.unheard.front()
            && self.is_due(next.since)
            && let Some(next) = self.unheard.pop_front()
        {
            self.open_listeners(next, sender);
        }
    }

    /// When somebody who waits to be watched or heard waits no longer for others.
    pub(super) fn later_due(&self) -> Option<Instant> {
        let unwatched = self.unwatched.front().map(|(_, since)| *since);
        let unheard = self.unheard.front().filter(|_| self.opening < WORKERS);
        let first = [unwatched, unheard.map(|next| next.since)].into_iter().flatten().min()?;
        Some(first + PATIENCE)
    }

    fn is_due(&self, since: Instant) -> bool {
        self.untried.is_empty() || since.elapsed() >= PATIENCE
    }

    fn open_listeners(&mut self, next: Unheard, sender: &mpsc::UnboundedSender<News>) {
        let Unheard { owner, process, inode, .. } = next;
        let pid = process.pid();
        let state = self.netns.get(&owner);
        let former = state.and_then(|state| state.hearing.former(inode));
        let (kernel, sender) = (self.kernel.clone(), sender.clone());
        self.opening += 1;
        tokio::task::spawn_blocking(move || {
            let netns = Netns::of(&process).map_err(Failure::from).and_then(|netns| {
                // It left its netns for another: that one is asked for when it is known.
                let gone = || Failure::from(NetnsError::Gone(PathBuf::new()));
                (netns.inode() == inode).then_some(netns).ok_or_else(gone)
            });
            let listeners = netns.and_then(|netns| kernel.listen(&netns, former.as_ref()));
            let listeners = listeners
                .map(|listeners| Some(listeners).into())
                .map_err(|failure| (!failure.is_gone()).then(|| failure.chain()));
            // Nobody listens any more only when the daemon stops.
            let _ = sender.send(News::Hearable(Heard { owner, pid, inode, listeners }));
        });
    }

    /// Hands on where a netns is heard.
    pub(super) fn listen(&mut self, heard: Heard) {
        let Heard { mut owner, mut pid, inode, listeners } = heard;
        self.opening -= 1;
        if self.netns.get(&owner).is_none_or(|state| state.pid != pid) {
            // Whoever stands for the netns now would find these sockets in the way.
            let is_there =
                |state: &NetnsState| state.known.as_ref().is_some_and(|known| known.inode == inode);
            let Some((other, state)) = self.netns.iter().find(|(_, state)| is_there(state)) else {
                return;
            };
            (owner, pid) = (other.clone(), state.pid);
        }
        let (Some(outlet), Some(state)) = (&self.outlet, self.netns.get_mut(&owner)) else {
            return;
        };
        let change = state.hearing.take(inode, listeners);
        let workload = self.facts.inventory().get(&owner);
        if let Some(error) = change.missing {
            let workload = workload.map(|workload| workload.name.clone()).unwrap_or_default();
            tracing::warn!(%workload, %error, "not all of its denials and connections are listed; they are counted");
        }
        if let Some((listeners, until)) = change.read {
            let addresses = workload.into_iter().flat_map(|one| one.addresses()).collect();
            let listening = Listening { owner, pid, inode, addresses, listeners, until };
            outlet.tell(feed::News::Netns(Box::new(listening)));
        }
    }
}
