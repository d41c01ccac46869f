//! Owns what chaos happens to: containers that come and go all the while, moments nobody chose, packets that must not be
//! there, and what must not be left behind.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::harness::{DockerHost, IDLE, Lab, Seawall, Tap, until};

/// How many sockets the daemon keeps at most in the netns of each running container: the table's, two that tell what others
/// do there, three by which denials, names and connections are heard, and where there is a guard one that holds the place of others on
/// its link.
const SOCKETS: usize = 7;
const LIMIT: Duration = Duration::from_secs(60);

/// Moments nobody chose, the same again with the same seed: `CHAOS_SEED`, or the time. xorshift64 (Marsaglia 2003).
pub(crate) struct Moments(u64);

impl Moments {
    /// New ones; the seed is printed.
    pub(crate) fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
        let given = std::env::var("CHAOS_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or(now);
        println!("CHAOS_SEED={seed}");
        Self(seed | 1)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// Lets some time pass that is shorter than `limit`.
    pub(crate) fn pass(&mut self, limit: Duration) {
        std::thread::sleep(Duration::from_micros(self.below(limit.as_micros() as u64)));
    }
}

/// Containers that come and go until it is dropped. Half of them may use the store, so that each changes its table.
pub(crate) struct Load {
    ended: Arc<AtomicBool>,
    starts: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Two at any time.
    pub(crate) fn start(host: &DockerHost) -> Self {
        let (ended, starts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let one = |number: usize| {
            let client = host.client();
            let (ended, starts) = (Arc::clone(&ended), Arc::clone(&starts));
            std::thread::spawn(move || {
                let name = format!("load{number}");
                let service = format!("com.docker.compose.service={name}");
                let related = [
                    "--label",
                    "com.docker.compose.project=lab",
                    "--label",
                    &service,
                    "--label",
                    "seawall.model=python",
                    "--env",
                    "DATABASE_URL=postgresql://store:5432/x",
                ];
                let more: &[&str] = if number == 0 { &related } else { &[] };
                while !ended.load(Ordering::Relaxed) {
                    let run = ["run", "--detach", "--name", &name, "--network", "lab"];
                    client.docker_ok(&[&run[..], more, &IDLE].concat());
                    client.docker_ok(&["rm", "--force", &name]);
                    starts.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let threads = (0..2).map(one).collect();
        Self { ended, starts, threads }
    }

    /// Ends it: how many came and went.
    pub(crate) fn finish(self) -> usize {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("every container starts");
        }
        self.starts.load(Ordering::Relaxed)
    }
}

/// Packets between the intruder and the store, counted where the store's leave it: it must send none, whatever it is sent.
pub(crate) struct Leaks {
    tap: Tap,
    device: u32,
}

impl Leaks {
    /// Counts from now on.
    pub(crate) fn watch(host: &DockerHost, lab: &Lab) -> Self {
        let (from, to) = (lab.store.ips(), lab.intruder.ips());
        let keep = move |frame: &[u8]| is_between(frame, &from, &to);
        let device = lab.store.cables()["eth0"];
        Self { tap: Tap::start(&host.netns(), keep), device }
    }

    /// How many there were.
    pub(crate) fn finish(self) -> usize {
        self.tap.finish().iter().filter(|frame| frame.device == self.device).count()
    }
}

/// IPv4 and IPv6 from one to the other, but for neighbour discovery, which every neighbour answers.
fn is_between(frame: &[u8], from: &[IpAddr], to: &[IpAddr]) -> bool {
    let at = |place: usize, length: usize| frame.get(place..place + length);
    let is_any = |bytes: Option<&[u8]>, addresses: &[IpAddr]| {
        addresses.iter().any(|address| match address {
            IpAddr::V4(address) => bytes == Some(&address.octets()),
            IpAddr::V6(address) => bytes == Some(&address.octets()),
        })
    };
    match at(12, 2) {
        Some([0x08, 0x00]) => is_any(at(26, 4), from) && is_any(at(30, 4), to),
        Some([0x86, 0xdd]) if frame.get(20) == Some(&58) && frame.get(54) >= Some(&133) => false,
        Some([0x86, 0xdd]) => is_any(at(22, 16), from) && is_any(at(38, 16), to),
        _ => false,
    }
}

/// Panics unless the daemon knows what runs, has programmed all of it, and holds nothing of what does not.
#[track_caller]
pub(crate) fn assert_nothing_is_left(host: &DockerHost, seawall: &Seawall) {
    until("status and docker ps agreeing", LIMIT, || {
        let running = host.docker_ok(&["ps", "--no-trunc", "--quiet"]);
        let running: BTreeSet<String> = running.lines().map(str::to_owned).collect();
        let status = seawall.status();
        let known = status.workloads.iter().filter(|workload| workload.pid.is_some());
        known.map(|workload| workload.id.clone()).collect::<BTreeSet<_>>() == running
    });
    seawall.settle();
    let status = seawall.status();
    let running: Vec<_> = status.workloads.iter().filter(|one| one.pid.is_some()).collect();
    for workload in &running {
        assert!(!workload.coverage.starts_with("unprotected"), "{workload:?}");
    }
    let diff = seawall.cli(&["diff"]);
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
    until("no socket in the netns of a container that ended", LIMIT, || {
        foreign(seawall).len() <= running.len() * SOCKETS
    });
    until("no process held that ended", LIMIT, || {
        processes(&seawall.descriptors()) == running.len()
    });
    // A netns that somebody holds keeps its end of the cable, and so the host's end.
    until("no cable of a container that ended", LIMIT, || cables(host) <= running.len());
}

/// How many cables end on a bridge of the host.
fn cables(host: &DockerHost) -> usize {
    let netns = format!("--net={}", host.netns().path().display());
    let arguments = [&netns, "ip", "-json", "link", "show", "type", "bridge_slave"];
    let output = std::process::Command::new("nsenter").args(arguments).output().unwrap();
    let links: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    // Of devices that are none it prints empty objects.
    links.as_array().into_iter().flatten().filter(|link| link["ifname"].is_string()).count()
}

/// Descriptors that pin something of a container: a netns that is not the daemon's own, or a socket in one.
/// All of the daemon's own sockets are unix ones, and those of its netns are listed in `/proc/PID/net/unix`.
pub(crate) fn foreign(seawall: &Seawall) -> Vec<String> {
    let own = std::fs::read_link(format!("/proc/{}/ns/net", seawall.pid())).unwrap();
    let unix = unix_inodes(seawall);
    let is_foreign = |target: &String| match target.strip_prefix("socket:[") {
        Some(inode) => !unix.contains(inode.trim_end_matches(']')),
        None => target.starts_with("net:[") && own.to_str() != Some(target),
    };
    let targets = seawall.descriptors().into_iter();
    targets.map(|target| target.display().to_string()).filter(is_foreign).collect()
}

fn unix_inodes(seawall: &Seawall) -> BTreeSet<String> {
    let text = std::fs::read_to_string(format!("/proc/{}/net/unix", seawall.pid())).unwrap();
    text.lines().filter_map(|line| line.split_whitespace().nth(6)).map(str::to_owned).collect()
}

/// How many processes are held.
pub(crate) fn processes(descriptors: &[PathBuf]) -> usize {
    descriptors.iter().filter(|target| target.ends_with("anon_inode:[pidfd]")).count()
}

/// How many of the descriptors are unix sockets: connections to Docker and containerd.
pub(crate) fn unix_sockets(seawall: &Seawall, descriptors: &[PathBuf]) -> usize {
    let unix = unix_inodes(seawall);
    let targets = descriptors.iter().map(|target| target.display().to_string());
    let inodes =
        targets.filter_map(|t| Some(t.strip_prefix("socket:[")?.trim_end_matches(']').to_owned()));
    inodes.filter(|inode| unix.contains(inode)).count()
}
