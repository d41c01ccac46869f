//! Owns what the loop does about what others do in a netns: doubt, look, repair at once, and say who it was.

use std::io;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{Engine, NetnsState};
use crate::config::Foreign;
use crate::metadata::{Observation, WorkloadId};
use crate::nft::watch::{Committer, Watch};
use crate::reconcile::foreign::{Fate, Finding, Look};
use crate::reconcile::kept::{Ended, SlowToClose};
use crate::reconcile::watch::{News, Notice, follow};

/// A look that took long is not repeated before this many times its time is over: what others put into a netns must not
/// take the time of all.
const RESTS: u32 = 10;

impl Engine {
    pub(super) fn hear(&mut self, news: News) {
        match news {
            News::Ended(end) => self.end(end),
            News::Hearable(heard) => self.listen(heard),
            News::Noticed(notice) => self.notice(notice),
        }
    }

    /// A container's first process has ended. Nobody else may have told yet; what else lives in its netns keeps the table.
    fn end(&mut self, Ended { owner, pid }: Ended) {
        if self.netns.get(&owner).is_some_and(|state| state.pid == pid) {
            self.observe(Observation::TaskExited { id: owner, pid });
            self.decide();
        }
    }

    /// Follows what is told of a netns from now on, if it could be opened.
    pub(super) fn watch(
        &mut self,
        owner: &WorkloadId,
        (inode, watch): (u64, io::Result<Watch>),
        sender: &mpsc::UnboundedSender<News>,
    ) {
        let Some(state) = self.netns.get_mut(owner) else { return };
        match (watch, state.port_id) {
            (Ok(watch), Some(own)) => {
                let whom = (owner.clone(), state.pid, inode);
                state.watcher = Some(follow(whom, watch, own, sender.clone()));
                // What others had there before is looked at when nobody waits for a first policy any more.
                state.wants_look = true;
                self.queue.add(owner.clone(), Instant::now());
            }
            // The table could not be opened: both are tried again.
            (Ok(watch), None) => drop(SlowToClose::from(Some(watch))),
            (Err(error), _) => {
                tracing::warn!(workload = %owner, %error, "changes by others are only found by comparing");
            }
        }
    }

    fn notice(&mut self, notice: Notice) {
        let Notice { owner, pid, seen, is_inside } = notice;
        let Some(state) = self.netns.get_mut(&owner).filter(|state| state.pid == pid) else {
            return;
        };
        state.is_inside |= is_inside;
        let touches_tables = seen.commits > 0 || seen.is_lost;
        // A transaction of anybody's makes the generation another, by which ours are made unless the table is owned.
        let is_owned = state.is_owned();
        // A link takes the chain that guards it away with it.
        let is_doubtful = seen.ours.is_some() || seen.is_lost || seen.links;
        if is_doubtful || (touches_tables && !is_owned) {
            state.is_doubted = true;
        }
        if seen.ours.is_some() {
            state.by.clone_from(&seen.ours);
        }
        let mut at = Instant::now();
        if seen.others.is_some() || seen.is_lost {
            state.wants_look = true;
            state.looked_for.clone_from(&seen.others);
            if seen.ours.is_none() {
                at = at.max(state.next_look.unwrap_or(at));
            }
        }
        self.queue.add(owner.clone(), at);
        if let Some(by) = seen.dockers.filter(|by| is_inside || !is_of_docker(by)) {
            let what = "somebody took away rules of Docker's in table ip nat: names may not resolve in this container any more";
            self.remark(&owner, Some(&by), what);
        }
    }

    /// What the next look at a netns shall do, if there is to be one.
    pub(super) fn next_look(&mut self, owner: &WorkloadId) -> Option<Look> {
        let holds = |one: &crate::metadata::Workload| {
            one.capabilities.net_admin || one.capabilities.privileged
        };
        let holds = self.facts.inventory().netns_members(owner).any(holds);
        let state = self.netns.get_mut(owner)?;
        let denies = state.wanted.table.as_ref().is_some_and(|wanted| {
            wanted.chains.values().any(|chain| chain.base.as_ref().is_some_and(|base| base.drops))
        });
        let is_trusted = !holds && !state.is_inside;
        let removes = self.foreign == Foreign::Remove && denies && !is_trusted;
        std::mem::take(&mut state.wants_look).then_some(Look { removes })
    }

    /// Takes what a look found: tells what is new, and keeps what is there.
    pub(super) fn take_findings(
        &mut self,
        owner: &WorkloadId,
        findings: Vec<Finding>,
        took: Duration,
    ) {
        let Some(state) = self.netns.get_mut(owner) else { return };
        state.next_look = Some(Instant::now() + took * RESTS);
        let by = state.looked_for.take();
        let is_new = |finding: &&Finding| !state.foreign.contains(finding);
        let new: Vec<Finding> = findings.iter().filter(is_new).cloned().collect();
        state.foreign = findings.into_iter().filter(|one| one.fate != Fate::Removed).collect();
        let leak = state.foreign.iter().find(|finding| finding.is_leak());
        state.last.diverted = leak.map(|finding| match &finding.fate {
            Fate::Refused(error) => format!("{}; it cannot be removed: {error}", finding.chain),
            _ => finding.chain.to_string(),
        });
        for finding in new {
            let what = match &finding.fate {
                Fate::Removed => format!("{}; removed", finding.chain),
                Fate::Refused(error) => format!("{}; not removed: {error}", finding.chain),
                Fate::Left if finding.is_leak() => format!("{}; left there", finding.chain),
                Fate::Left => format!("{}; it allows nothing that is denied", finding.chain),
            };
            self.remark(owner, by.as_ref(), &what);
        }
    }

    /// Notes and tells what somebody did that is not repaired.
    fn remark(&mut self, owner: &WorkloadId, by: Option<&Committer>, what: &str) {
        let workload = self.facts.inventory().get(owner);
        let name = workload.map(|workload| workload.name.clone()).unwrap_or_default();
        let by = by.map(ToString::to_string);
        let Some(state) = self.netns.get_mut(owner) else { return };
        let allowed = state.log.allow(Instant::now());
        self.journal.remark((owner.as_str(), name.as_str()), what, by.clone(), allowed.is_none());
        if let Some(suppressed) = allowed {
            let by = by.unwrap_or_else(unknown);
            tracing::warn!(workload = %name, by, suppressed, what, "others' rules");
        }
    }

    /// Tells how much was not told of what somebody did in a loop.
    pub(super) fn tell_rest(&mut self) {
        let now = Instant::now();
        for (owner, state) in &mut self.netns {
            if let Some(suppressed) = state.log.rest(now) {
                let workload = self.facts.inventory().get(owner);
                let name = workload.map(|workload| workload.name.clone()).unwrap_or_default();
                tracing::warn!(workload = %name, suppressed, "more of the same was not logged");
            }
        }
    }
}

impl NetnsState {
    fn is_owned(&self) -> bool {
        let table = self.known.as_ref().and_then(|known| known.table);
        table.is_some_and(|table| table.owner.is_some())
    }
}

/// Where nobody was told of: somebody did it before the netns was watched.
pub(super) fn unknown() -> String {
    "not known".to_owned()
}

/// Docker changes its own rules, itself or by iptables.
fn is_of_docker(by: &Committer) -> bool {
    ["dockerd", "iptables", "ip6tables"].iter().any(|known| by.name == *known)
}
