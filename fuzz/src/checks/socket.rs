//! The control socket itself, asked by root, with nobody behind it who answers.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::OnceLock;
use std::time::Duration;

use seawall::api::{Asked, serve};
use tokio::sync::{mpsc, watch};

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends the bytes as a client that then stops writing. The server answers in HTTP or closes, and is there for the next.
pub fn socket(data: &[u8]) {
    static ADDRESS: OnceLock<SocketAddr> = OnceLock::new();
    let mut client = UnixStream::connect_addr(ADDRESS.get_or_init(start)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may close at what it has read.
    let _ = client.write_all(data).and_then(|()| client.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    let read = client.read_to_end(&mut answer);
    let is_closed = read.as_ref().map_or_else(|error| error.raw_os_error() == Some(104), |_| true);
    assert!(is_closed, "no answer and no end: {read:?}");
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{answer:?}");
}

/// Has it served in a thread of its own; where it is. No file is made.
fn start() -> SocketAddr {
    let name = format!("seawall-fuzz-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (requests, asked_requests) = mpsc::channel(1);
            let (settings, asked_settings) = mpsc::channel(1);
            let (queries, asked_queries) = mpsc::channel(1);
            let (_, sequence) = watch::channel(0);
            tokio::spawn(answer_nobody(asked_requests));
            tokio::spawn(answer_nobody(asked_settings));
            tokio::spawn(answer_nobody(asked_queries));
            let asked = Asked { requests, settings, queries, sequence };
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            serve(listener, asked, std::future::pending()).await.unwrap();
        });
    });
    address
}

/// Whoever asks is told that there is no answer: what he would be answered on is dropped.
async fn answer_nobody<T>(mut asked: mpsc::Receiver<T>) {
    while asked.recv().await.is_some() {}
}
