//! Owns following control connections: when one ends, what was agreed on over it ends too. One task for each netns whose
//! ruleset has a helper, and none for others.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, spawn_blocking};

use super::apply::{Failure, Kernel, Known};
use super::kept::SlowToClose;
use crate::nft::Netns;
use crate::nft::conntrack_entries::{ControlWatch, read_events};
use crate::nft::message::ready::when_readable;
use crate::nft::netns::Process;

/// How often it is looked for what ended without being told: the kernel tells nothing of connections that began when nobody
/// listened (`nf_conntrack_events` is 2, unless somebody changed it).
const SWEEP: Duration = Duration::from_secs(60);

/// A netns whose control connections are followed; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Follower {
    inode: u64,
    task: AbortHandle,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    /// Follows a netns as long as its ruleset has helpers.
    pub(super) fn keep(
        place: &mut Option<Self>,
        kernel: &Kernel,
        process: &Option<Arc<Process>>,
        known: &Option<Known>,
    ) {
        let has_helpers = |known: &&Known| {
            known.ruleset.as_ref().is_some_and(|ruleset| !ruleset.helpers.is_empty())
        };
        let wanted = process.as_ref().zip(known.as_ref().filter(has_helpers));
        let Some((process, known)) = wanted else {
            *place = None;
            return;
        };
        let is_followed = |one: &Self| one.inode == known.inode && !one.task.is_finished();
        if !place.as_ref().is_some_and(is_followed) {
            let task = tokio::spawn(follow(kernel.clone(), Arc::clone(process)));
            *place = Some(Self { inode: known.inode, task: task.abort_handle() });
        }
    }
}

async fn follow(kernel: Kernel, process: Arc<Process>) {
    let pid = process.pid();
    let open = move || kernel.follow_control(&Netns::of(&process).map_err(Failure::from)?);
    let opened = spawn_blocking(open).await;
    let watch = match opened {
        Ok(Ok(watch)) => watch,
        Ok(Err(failure)) if failure.is_gone() => return,
        Ok(Err(failure)) => {
            let error = failure.chain();
            tracing::warn!(pid, error, "data connections outlive their control connections");
            return;
        }
        // The daemon stops.
        Err(_) => return,
    };
    if let Err(error) = follow_until_it_fails(pid, watch).await {
        tracing::warn!(pid, %error, "data connections outlive their control connections");
    }
}

async fn follow_until_it_fails(pid: u32, watch: ControlWatch) -> io::Result<()> {
    let ControlWatch { events, mut entries } = watch;
    // Dropped last, after what is registered.
    let _closing = SlowToClose::from(Some([Arc::clone(&events), entries.socket()]));
    let told = when_readable(Arc::clone(&events))?;
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // Both arms are cancel-safe. The first tick comes at once.
        tokio::select! {
            ready = told.readable() => {
                let mut ready = ready?;
                let (has_ended, is_all) = read_events(&events)?;
                if is_all {
                    ready.clear_ready();
                }
                if !has_ended {
                    continue;
                }
            }
            _ = sweep.tick() => {}
        }
        let looked = spawn_blocking(move || {
            let removed = entries.close_left_behind();
            (entries, removed)
        });
        let Ok((back, removed)) = looked.await else { return Ok(()) };
        entries = back;
        let removed = removed?;
        if !removed.is_empty() {
            tracing::debug!(pid, removed = removed.len(), "the control connection has ended");
        }
    }
}
