//! Owns what is held of a running container and nothing else may outlive: its netlink socket, and the news of its end.

use tokio::sync::mpsc;

use super::watch::News;
use crate::metadata::WorkloadId;
use crate::nft::KernelTable;
use crate::nft::netns::Process;
use crate::nft::seats::Seats;

/// A socket, and which netns it acts on.
#[derive(Debug)]
pub struct Socket {
    pub(super) inode: u64,
    pub(super) table: KernelTable,
    /// What is kept from sockets no table can stop.
    pub(super) seats: Seats,
}

/// Where the socket is while nobody uses it.
pub(super) type Kept = SlowToClose<Socket>;

impl Kept {
    /// By which others know it.
    pub(super) fn port_id(&self) -> Option<u32> {
        self.get().map(|socket| socket.table.port_id())
    }
}

/// Netlink sockets. Closing one waits for the kernel to have freed what was removed (some 10 ms): no loop, and no thread
/// that others need, may wait for that.
#[derive(Debug)]
pub(super) struct SlowToClose<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> SlowToClose<T> {
    pub(super) fn take(&mut self) -> Option<T> {
        self.0.take()
    }

    pub(super) fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }
}

impl<T: Send + 'static> Default for SlowToClose<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Send + 'static> From<Option<T>> for SlowToClose<T> {
    fn from(sockets: Option<T>) -> Self {
        Self(sockets)
    }
}

impl<T: Send + 'static> Drop for SlowToClose<T> {
    fn drop(&mut self) {
        if let Some(sockets) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn_blocking(move || drop(sockets));
        }
    }
}

/// The end of a container's first process, told as soon as the kernel tells it, whether any source does or not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) owner: WorkloadId,
    pub(super) pid: u32,
}

/// Tells when the process has ended.
pub(super) fn await_end(owner: WorkloadId, process: &Process, news: mpsc::UnboundedSender<News>) {
    let pid = process.pid();
    let end = match process.ended() {
        Ok(end) => end,
        Err(error) => {
            tracing::warn!(%error, pid, "the end of a process is only known when its runtime tells it");
            return;
        }
    };
    tokio::spawn(async move {
        if end.await.is_ok() {
            // Nobody listens any more only when the daemon stops.
            let _ = news.send(News::Ended(Ended { owner, pid }));
        }
    });
}
