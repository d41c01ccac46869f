//! Owns reading what the kernel tells of one netns: a task for each, at a bounded pace, whatever a container does.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::sync::mpsc;

use super::seen::{Seen, logged};
use crate::nft::conntrack::told;
use crate::nft::listen::{Heard, hear};
use crate::nft::log;
use crate::nft::message::ready::when_readable;
use crate::reconcile::feed::Listening;

/// The longest that is told at once, in bytes.
const AT_ONCE: usize = 64 << 10;
/// How many messages are read before others get their turn: the kernel tells each connection in one of its own.
const READS: usize = 512;
/// The same at the end, when nothing more comes.
const LAST_READS: usize = 8192;
/// Between two looks; what a container can make us do in a second is bounded by this. More is lost, counted, and told.
const PAUSE: Duration = Duration::from_millis(20);

/// What was read of a netns.
#[derive(Debug)]
pub struct Report {
    /// Which netns: its number among all that were listened to. An inode is another's as soon as it is free.
    pub place: u64,
    /// What was told, in order.
    pub seen: Vec<Seen>,
    /// How often more was told than there was room for.
    pub lost: u64,
    /// Whether nothing more will come.
    pub is_last: bool,
}

/// Reads until the netns is not to be listened to any more; what was told by then is read, too.
pub async fn read(place: u64, listening: Listening, reports: mpsc::Sender<Report>) {
    // Closing these sockets can wait for the kernel: no thread that others need may wait for that.
    let closing = listening.listeners.clone();
    if let Err(error) = read_until_it_ends(place, listening, &reports).await {
        tracing::warn!(%error, "denials of a container are counted, but not listed any more");
    }
    tokio::task::spawn_blocking(move || drop(closing));
    let _ = reports.send(Report { place, seen: Vec::new(), lost: 0, is_last: true }).await;
}

async fn read_until_it_ends(
    place: u64,
    mut listening: Listening,
    reports: &mpsc::Sender<Report>,
) -> io::Result<()> {
    let connections = when_readable(Arc::clone(&listening.listeners.connections))?;
    let log = match &listening.listeners.log {
        Ok(log) => Some(when_readable(Arc::clone(log))?),
        Err(_) => None,
    };
    let mut buffer = vec![0; AT_ONCE];
    let mut is_over = false;
    while !is_over {
        // All arms are cancel-safe.
        let (ready, is_log) = tokio::select! {
            _ = &mut listening.until => { is_over = true; (None, false) }
            ready = connections.readable() => (Some(ready?), false),
            ready = readable(log.as_ref()) => (Some(ready?), true),
        };
        let mut report = Report { place, seen: Vec::new(), lost: 0, is_last: false };
        let reads = if is_over { LAST_READS } else { READS };
        // Connections first: by them answers are told from questions.
        let mut is_empty =
            take(connections.get_ref(), reads, &mut buffer, &mut report, connection)?;
        if let Some(log) = &log {
            let is_log_empty = take(log.get_ref(), reads, &mut buffer, &mut report, denial)?;
            is_empty = if is_log { is_log_empty } else { is_empty };
        }
        if is_empty && let Some(mut ready) = ready {
            ready.clear_ready();
        }
        if (report.lost > 0 || !report.seen.is_empty()) && reports.send(report).await.is_err() {
            // The daemon stops.
            return Ok(());
        }
        if !is_over {
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Never, without a socket.
async fn readable(
    socket: Option<&AsyncFd<Arc<OwnedFd>>>,
) -> io::Result<AsyncFdReadyGuard<'_, Arc<OwnedFd>>> {
    match socket {
        Some(socket) => socket.readable().await,
        None => std::future::pending().await,
    }
}

/// Reads a socket until it has nothing more, or enough was read. Returns whether it has nothing more.
fn take(
    socket: &OwnedFd,
    reads: usize,
    buffer: &mut [u8],
    report: &mut Report,
    read: fn(&[u8], &mut Vec<Seen>),
) -> io::Result<bool> {
    for _ in 0..reads {
        match hear(socket, buffer)? {
            Heard::Nothing => return Ok(true),
            Heard::Bytes(length) => read(&buffer[..length], &mut report.seen),
            Heard::Lost => report.lost += 1,
        }
    }
    Ok(false)
}

fn connection(bytes: &[u8], seen: &mut Vec<Seen>) {
    seen.extend(told(bytes).map(Seen::Connection));
}

fn denial(bytes: &[u8], seen: &mut Vec<Seen>) {
    seen.extend(log::logged(bytes).filter_map(|one| logged(&one)));
}
