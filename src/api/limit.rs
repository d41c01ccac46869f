//! Owns how many connections may be open at once: each costs a descriptor, and those are needed for network namespaces.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A listener whose connections beyond a number are closed at once, but for those of whom it always listens to.
pub(super) struct Limited<L: Listener> {
    listener: L,
    free: Arc<Semaphore>,
    is_exempt: fn(&L::Io) -> bool,
}

impl<L: Listener> Limited<L> {
    /// At most `most` connections at once, besides those that `is_exempt`.
    pub(super) fn new(listener: L, most: usize, is_exempt: fn(&L::Io) -> bool) -> Self {
        Self { listener, free: Arc::new(Semaphore::new(most)), is_exempt }
    }
}

impl<L: Listener> Listener for Limited<L> {
    type Io = Counted<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (io, address) = self.listener.accept().await;
            let place = if (self.is_exempt)(&io) {
                None
            } else {
                match Arc::clone(&self.free).try_acquire_owned() {
                    Ok(place) => Some(place),
                    Err(_) => continue,
                }
            };
            return (Counted { io, _place: place }, address);
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that is counted as long as it is open.
pub(super) struct Counted<T> {
    pub(super) io: T,
    _place: Option<OwnedSemaphorePermit>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
