//! Owns listening on the host's side of containers' cables: what arrived there, whatever anybody says was sent.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

use super::container::Container;
use super::netns::Netns;

/// Room for what comes while this process does something else.
const BUFFER: usize = 64 << 20;
/// Nothing takes longer from one end of a cable to the other, on a busy machine.
const QUIET: Duration = Duration::from_millis(300);
/// `PACKET_OUTGOING` of `packet(7)`: what the host sends, not what arrives at it.
const OUTGOING: u8 = 4;

/// A frame that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// The index of the device it arrived at, in the netns that is listened to.
    pub(crate) device: u32,
    /// When.
    pub(crate) at: Instant,
    /// From its Ethernet header on.
    pub(crate) bytes: Vec<u8>,
}

/// Everything that arrives at any device of a netns, from now on, which `keep` wants.
pub(crate) struct Tap {
    ended: Arc<AtomicBool>,
    frames: Arc<Mutex<Vec<Frame>>>,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    /// Begins to listen.
    #[track_caller]
    pub(crate) fn start(netns: &Netns, keep: impl Fn(&[u8]) -> bool + Send + 'static) -> Self {
        let fd = netns.run(|| {
            let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
            socket(AddressFamily::Packet, kind, flags, SockProtocol::EthAll)
                .expect("a packet socket needs root")
        });
        setsockopt(&fd, sockopt::RcvBufForce, &BUFFER).expect("root may have large buffers");
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(0, 50_000)).expect("a timeout");
        let (ended, frames) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (seen, kept) = (Arc::clone(&ended), Arc::clone(&frames));
        let thread = std::thread::spawn(move || listen(&fd, &seen, &kept, keep));
        Self { ended, frames, thread: Some(thread) }
    }

    /// What was kept so far.
    pub(crate) fn count(&self) -> usize {
        self.frames.lock().expect("no listener panics").len()
    }

    /// Waits until nothing is on its way any more; gives what arrived.
    pub(crate) fn finish(mut self) -> Vec<Frame> {
        std::thread::sleep(QUIET);
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no listener panics");
        }
        std::mem::take(&mut *self.frames.lock().expect("no listener panics"))
    }
}

fn listen(
    fd: &OwnedFd,
    ended: &AtomicBool,
    kept: &Mutex<Vec<Frame>>,
    keep: impl Fn(&[u8]) -> bool,
) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let is_ended = ended.load(Ordering::Relaxed);
        match recvfrom::<LinkAddr>(fd.as_raw_fd(), &mut buffer) {
            Ok((length, Some(from))) => {
                let bytes = &buffer[..length.min(buffer.len())];
                if from.pkttype() != OUTGOING && keep(bytes) {
                    let frame = Frame {
                        device: from.ifindex() as u32,
                        at: Instant::now(),
                        bytes: bytes.to_vec(),
                    };
                    kept.lock().expect("nobody panics").push(frame);
                }
            }
            // Nothing more is there.
            _ if is_ended => return,
            _ => {}
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

impl Container {
    /// The host's ends of its cables: device indices in the host's netns, by the name of the device inside.
    #[track_caller]
    pub(crate) fn cables(&self) -> BTreeMap<String, u32> {
        let output = std::process::Command::new("nsenter")
            .arg(format!("--net={}", self.netns().path().display()))
            .args(["ip", "-json", "link", "show", "type", "veth"])
            .output()
            .expect("nsenter can be run");
        let links: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("ip prints JSON");
        let links = links.as_array().into_iter().flatten();
        links
            .filter_map(|link| {
                let other = u32::try_from(link["link_index"].as_u64()?).ok()?;
                Some((link["ifname"].as_str()?.to_owned(), other))
            })
            .collect()
    }
}
