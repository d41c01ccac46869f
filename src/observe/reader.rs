//! Owns reading what the kernel tells of one netns: a task for each, at a bounded pace, whatever a container does.

use std::io;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::sync::mpsc;

use super::seen::{Seen, logged};
use crate::nft::buffer::Buffer;
use crate::nft::conntrack::told;
use crate::nft::listen::{Ear, Heard, Listeners, hear};
use crate::nft::log;
use crate::nft::message::ready::when_readable;
use crate::reconcile::feed::Listening;

/// How many messages are read before others get their turn: the kernel tells each connection in one of its own.
const READS: usize = 512;
/// The same of logged packets, of which our own rules log a few a second. Others' rules may log as many as they like.
const LOGGED_READS: usize = 64;
/// Of both so many times as much at the end, when nothing more comes.
const LAST: usize = 16;
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
    let ears = ears(&listening.listeners)?;
    let mut is_over = false;
    while !is_over {
        // Both arms are cancel-safe.
        let mut ready = tokio::select! {
            _ = &mut listening.until => { is_over = true; None }
            ready = any_readable(&ears) => Some(ready?),
        };
        // Only as long as something is read: there are as many of us as there are containers.
        let mut buffer = Buffer::take();
        let mut report = Report { place, seen: Vec::new(), lost: 0, is_last: false };
        for (number, ear) in ears.iter().enumerate() {
            let reads = if is_over { LAST * ear.reads } else { ear.reads };
            let is_empty = ear.read(reads, &mut buffer, &mut report)?;
            if let Some((of, guard)) = &mut ready
                && is_empty
                && *of == number
            {
                guard.clear_ready();
            }
        }
        drop(buffer);
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

/// A socket, and what makes sense of what it is told.
struct HeardBy {
    socket: AsyncFd<Ear>,
    /// How much is read at one look.
    reads: usize,
    meaning: fn(&[u8], &mut Vec<Seen>),
}

impl HeardBy {
    /// Reads until there is nothing more, or enough was read. Returns whether there is nothing more.
    fn read(&self, reads: usize, buffer: &mut [u8], report: &mut Report) -> io::Result<bool> {
        for _ in 0..reads {
            match hear(self.socket.get_ref(), buffer)? {
                Heard::Nothing => return Ok(true),
                Heard::Bytes(length) => (self.meaning)(&buffer[..length], &mut report.seen),
                Heard::Lost => report.lost += 1,
            }
        }
        Ok(false)
    }
}

/// In the order they are read: by connections answers are told from questions, by names addresses get theirs.
fn ears(listeners: &Listeners) -> io::Result<Vec<HeardBy>> {
    let heard_by = |ear: &Ear, reads, meaning| {
        when_readable(Arc::clone(ear)).map(|socket| HeardBy { socket, reads, meaning })
    };
    let logged = [&listeners.answers, &listeners.denials];
    let logged = logged.into_iter().flatten().map(|ear| heard_by(ear, LOGGED_READS, logged_packet));
    iter::once(heard_by(&listeners.connections, READS, connection)).chain(logged).collect()
}

/// The first of them that has something to read, and its number.
async fn any_readable(ears: &[HeardBy]) -> io::Result<(usize, AsyncFdReadyGuard<'_, Ear>)> {
    let readable = ears.iter().map(|ear| Box::pin(ear.socket.readable()));
    let (guard, number, _) = select_all(readable).await;
    Ok((number, guard?))
}

fn connection(bytes: &[u8], seen: &mut Vec<Seen>) {
    seen.extend(told(bytes).map(Seen::Connection));
}

fn logged_packet(bytes: &[u8], seen: &mut Vec<Seen>) {
    seen.extend(log::logged(bytes).filter_map(|one| logged(&one)));
}
