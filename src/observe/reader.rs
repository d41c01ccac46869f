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
/// How many of these are read before others get their turn.
const READS: usize = 4;
/// Between two looks; what a container can make us do in a second is bounded by this. More is lost, counted, and told.
const PAUSE: Duration = Duration::from_millis(20);

/// What was read of a netns.
#[derive(Debug)]
pub struct Report {
    /// The netns.
    pub inode: u64,
    /// What was told, in order.
    pub seen: Vec<Seen>,
    /// How often more was told than there was room for.
    pub lost: u64,
    /// Whether nothing more will come.
    pub is_last: bool,
}

/// Reads until the netns is not to be listened to any more; what was told by then is read, too.
pub async fn read(listening: Listening, reports: mpsc::Sender<Report>) {
    let inode = listening.inode;
    if let Err(error) = read_until_it_ends(listening, &reports).await {
        tracing::warn!(%error, "denials of a container are counted, but not listed any more");
    }
    let _ = reports.send(Report { inode, seen: Vec::new(), lost: 0, is_last: true }).await;
}

async fn read_until_it_ends(
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
        let mut report =
            Report { inode: listening.inode, seen: Vec::new(), lost: 0, is_last: false };
        // Connections first: by them answers are told from questions.
        let mut is_empty = take(connections.get_ref(), &mut buffer, &mut report, connection)?;
        if let Some(log) = &log {
            let is_log_empty = take(log.get_ref(), &mut buffer, &mut report, denial)?;
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
    buffer: &mut [u8],
    report: &mut Report,
    read: fn(&[u8], &mut Vec<Seen>),
) -> io::Result<bool> {
    for _ in 0..READS {
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
