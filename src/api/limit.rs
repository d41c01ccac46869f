//! Owns how many connections may be open at once: each costs a descriptor, and those are needed for network namespaces.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// A counted connection on which nothing is read or written for this long is closed. Who waits for events is answered sooner.
const IDLE: Duration = Duration::from_secs(60);

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
            let counted = place.map(|place| (place, Box::pin(sleep(IDLE))));
            return (Counted { io, counted }, address);
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that is counted as long as it is open, and not open for ever: a counted one that neither asks nor takes an
/// answer makes room for others.
pub(super) struct Counted<T> {
    pub(super) io: T,
    counted: Option<(OwnedSemaphorePermit, Pin<Box<Sleep>>)>,
}

impl<T> Counted<T> {
    /// Passes on what came of a try to read or to write, unless nothing has come of any for too long.
    fn judge<V>(
        &mut self,
        cx: &mut Context<'_>,
        tried: Poll<io::Result<V>>,
    ) -> Poll<io::Result<V>> {
        let Some((_, patience)) = &mut self.counted else { return tried };
        if tried.is_ready() {
            patience.as_mut().reset(Instant::now() + IDLE);
        } else if patience.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        tried
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let tried = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.judge(cx, tried)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.judge(cx, tried)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_counted_connection_that_says_nothing_ends_and_another_does_not() {
        let (mut near, far) = duplex(64);
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().ok();
        let counted = place.map(|place| (place, Box::pin(sleep(IDLE))));
        let mut far = Counted { io: far, counted };
        let mut byte = [0];
        for _ in 0..3 {
            tokio::time::advance(IDLE / 2).await;
            near.write_all(b"x").await.unwrap();
            assert_eq!(far.read(&mut byte).await.unwrap(), 1, "whoever says something stays");
        }
        let began = Instant::now();
        let error = far.read(&mut byte).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed() >= IDLE), (io::ErrorKind::TimedOut, true));

        let (_near, far) = duplex(64);
        let mut exempt = Counted { io: far, counted: None };
        let waited = tokio::time::timeout(IDLE * 10, exempt.read(&mut byte)).await;
        assert!(waited.is_err(), "root may wait for as long as it likes");
    }
}
