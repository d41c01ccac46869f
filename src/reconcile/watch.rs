//! Owns following what others do in each netns: one task for each, few words to the loop, however much is done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::hearing::Heard;
use super::identity;
use super::kept::{Ended, SlowToClose};
use crate::metadata::WorkloadId;
use crate::nft::message::ready::when_readable;
use crate::nft::watch::{Committer, Reader, Seen, Watch};

/// The loop is told of a netns at most once in this time: twenty repairs a second, whoever changes something how often.
const PAUSE: Duration = Duration::from_millis(50);

/// What the loop is told of a netns, unasked.
#[derive(Debug)]
pub(super) enum News {
    /// Its container's first process has ended.
    Ended(Ended),
    /// Its denials and connections can be heard now, or why not.
    Hearable(Heard),
    /// Somebody did something there.
    Noticed(Notice),
}

/// What somebody did in a netns.
#[derive(Debug)]
pub(super) struct Notice {
    pub(super) owner: WorkloadId,
    pub(super) pid: u32,
    pub(super) seen: Seen,
    /// Whether a process of the container itself was among those who did it.
    pub(super) is_inside: bool,
}

/// A netns that is watched; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    /// Which netns.
    inode: u64,
    task: AbortHandle,
}

impl Watcher {
    /// The netns that is followed; none where following it has failed.
    pub(super) fn followed(&self) -> Option<u64> {
        (!self.task.is_finished()).then_some(self.inode)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Watches a netns. `own` is the port id of the socket our own changes are made with.
pub(super) fn follow(
    (owner, pid, inode): (WorkloadId, u32, u64),
    watch: Watch,
    own: u32,
    news: mpsc::UnboundedSender<News>,
) -> Watcher {
    let task = tokio::spawn(async move {
        let name = owner.clone();
        if let Err(error) = follow_until_it_fails((owner, pid), watch, own, news).await {
            tracing::warn!(workload = %name, %error, "changes by others are only found by comparing");
        }
    });
    Watcher { inode, task: task.abort_handle() }
}

async fn follow_until_it_fails(
    (owner, pid): (WorkloadId, u32),
    watch: Watch,
    own: u32,
    news: mpsc::UnboundedSender<News>,
) -> std::io::Result<()> {
    // Dropped last, after what is registered.
    let _closing = SlowToClose::from(Some([Arc::clone(&watch.nftables), Arc::clone(&watch.links)]));
    let nftables = when_readable(Arc::clone(&watch.nftables))?;
    let links = when_readable(Arc::clone(&watch.links))?;
    watch.leave_out(own);
    let mut reader = Reader::new(own);
    let mut told: Option<Instant> = None;
    loop {
        // Both arms are cancel-safe.
        let mut ready = tokio::select! {
            ready = nftables.readable() => ready?,
            ready = links.readable() => ready?,
        };
        if watch.read(&mut reader)? {
            ready.clear_ready();
        }
        drop(ready);
        let mut seen = reader.take();
        if seen.is_nothing() {
            continue;
        }
        // At once: who did it may end soon, and then nobody can tell where it was.
        let mut is_inside = look_up(&mut seen, pid, &owner);
        let left = told.map_or(Duration::ZERO, |told| PAUSE.saturating_sub(told.elapsed()));
        if !left.is_zero() {
            tokio::time::sleep(left).await;
            watch.read(&mut reader)?;
            let mut more = reader.take();
            is_inside |= look_up(&mut more, pid, &owner);
            seen.merge(more);
        }
        told = Some(Instant::now());
        let notice = Notice { owner: owner.clone(), pid, seen, is_inside };
        if news.send(News::Noticed(notice)).is_err() {
            // The daemon stops.
            return Ok(());
        }
    }
}

/// Finds the processes of the threads that were told. Returns whether one of them is the container's.
fn look_up(seen: &mut Seen, first: u32, id: &WorkloadId) -> bool {
    let mut is_inside = false;
    for by in [&mut seen.ours, &mut seen.others, &mut seen.dockers].into_iter().flatten() {
        is_inside |= identity::is_of_container(by.pid, first, id);
        if let Some((pid, name)) = identity::process_of(by.pid) {
            *by = Committer { pid, name };
        }
    }
    is_inside
}

/// How many lines a netns may have in the log in [`WINDOW`].
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// Keeps whoever does something in a loop from filling the log.
#[derive(Debug, Default)]
pub(super) struct LogLimit {
    since: Option<Instant>,
    told: u32,
    suppressed: u32,
}

impl LogLimit {
    /// Whether a line may be written now, and then how many were not since the last one that was.
    pub(super) fn allow(&mut self, now: Instant) -> Option<u32> {
        if self.since.is_none_or(|since| now.duration_since(since) >= WINDOW) {
            self.since = Some(now);
            self.told = 0;
        }
        if self.told == LINES {
            self.suppressed += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.suppressed))
    }

    /// How many lines were not written, once it is over.
    pub(super) fn rest(&mut self, now: Instant) -> Option<u32> {
        let is_over = self.since.is_some_and(|since| now.duration_since(since) >= WINDOW);
        (is_over && self.suppressed > 0).then(|| std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_fills_no_log_and_what_was_left_out_is_counted() {
        let begin = Instant::now();
        let mut limit = LogLimit::default();
        for line in 0..LINES {
            assert_eq!(limit.allow(begin), Some(0), "line {line}");
        }
        for _ in 0..500 {
            assert_eq!(limit.allow(begin + Duration::from_secs(1)), None);
        }
        assert_eq!(limit.rest(begin + Duration::from_secs(1)), None, "it is not over");
        assert_eq!(limit.allow(begin + WINDOW), Some(500));
        assert_eq!(limit.allow(begin + WINDOW), Some(0));
        for _ in 0..LINES {
            limit.allow(begin + WINDOW);
        }
        assert_eq!(limit.rest(begin + 2 * WINDOW), Some(2));
        assert_eq!(limit.rest(begin + 2 * WINDOW), None);
    }
}
