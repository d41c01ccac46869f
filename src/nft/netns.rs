//! Owns entering other network namespaces: only on dedicated threads, only to open sockets or read addresses.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};

use nix::sched::{CloneFlags, setns};

use super::links::links_here;
use super::message::pidfd_open;
use super::message::ready::when_readable;
use super::seats::Seats;
use super::socket::KernelTable;
use super::watch::Watch;
use crate::compile::guard::Link;

/// Why a netns could not be entered or read.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// It is gone: the container has ended meanwhile.
    #[error("the network namespace {0} is gone")]
    Gone(PathBuf),
    /// It is the host's, which is never filtered (security model 9).
    #[error("{0} is the host's own network namespace")]
    Host(PathBuf),
    /// seawall may not enter it.
    #[error("no permission to enter {path}; run seawall as root")]
    Permission {
        /// Which.
        path: PathBuf,
    },
    /// The system refused for another reason.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which namespace.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// An open network namespace. While it is held the namespace cannot go away, so hold it briefly.
#[derive(Debug)]
pub struct Netns {
    file: File,
    inode: u64,
    path: PathBuf,
}

impl Netns {
    /// Opens the netns of a process. The pid is checked to be the same process before and after.
    pub fn of_pid(pid: u32) -> Result<Self, NetnsError> {
        Self::of(&Process::open(pid)?)
    }

    /// Opens the netns of a process that is held. Gone, when it has ended, whoever has its pid by now.
    pub fn of(process: &Process) -> Result<Self, NetnsError> {
        let path = netns_path(process.pid);
        let opened = Self::open(&path);
        // Also when it could not be opened: that may be somebody else's, who has the number now.
        if process.is_alive() { opened } else { Err(NetnsError::Gone(path)) }
    }

    /// Opens a netns by path; the host's own is refused.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let netns = Self::open_any(path)?;
        let is_host = |own: &str| std::fs::metadata(own).is_ok_and(|own| own.ino() == netns.inode);
        if is_host("/proc/1/ns/net") || is_host("/proc/self/ns/net") {
            return Err(NetnsError::Host(path.to_path_buf()));
        }
        Ok(netns)
    }

    fn open_any(path: &Path) -> Result<Self, NetnsError> {
        let file = File::open(path).map_err(|source| error("open", path, source))?;
        let inode = file.metadata().map_err(|source| error("read", path, source))?.ino();
        Ok(Self { file, inode, path: path.to_path_buf() })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The namespace's inode number, its identity while it exists.
    pub fn inode(&self) -> u64 {
        self.inode
    }
}

fn error(action: &'static str, path: &Path, source: io::Error) -> NetnsError {
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH | libc::EINVAL) => NetnsError::Gone(path.to_path_buf()),
        Some(libc::EPERM | libc::EACCES) => NetnsError::Permission { path: path.to_path_buf() },
        _ => NetnsError::Io { action, path: path.to_path_buf(), source },
    }
}

fn netns_path(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}

/// A process held by pidfd, so that its number cannot be mistaken for another's.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: Arc<OwnedFd>,
}

impl Process {
    /// Takes hold of the process that has this pid now.
    pub fn open(pid: u32) -> Result<Self, NetnsError> {
        let pidfd = pidfd_open(pid).map_err(|source| error("open", &netns_path(pid), source))?;
        Ok(Self { pid, pidfd: Arc::new(pidfd) })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for its end. To be called in a tokio runtime.
    pub fn ended(&self) -> io::Result<impl Future<Output = io::Result<()>> + Send + 'static> {
        let descriptor = when_readable(Arc::clone(&self.pidfd))?;
        Ok(async move { descriptor.readable().await.map(drop) })
    }

    /// Whether it still runs: a pidfd becomes readable when its process ends (`pidfd_open(2)`).
    pub fn is_alive(&self) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0))
    }
}

/// What was found in a netns.
pub struct Found {
    /// Its links with their addresses.
    pub links: Vec<Link>,
    /// What tells of changes from before they were read, where that was wanted.
    pub watch: Option<io::Result<Watch>>,
}

impl Found {
    fn here(watches: bool) -> io::Result<Self> {
        let watch = watches.then(Watch::open_here);
        Ok(Self { links: links_here()?, watch })
    }
}

/// How many threads enter namespaces at most: what they do there is the kernel's work, on one processor each.
const THREADS: usize = 4;

/// Work in a netns; says whether the thread entered it.
type Job = Box<dyn FnOnce() -> bool + Send>;

/// The threads that enter namespaces. Nothing else runs on them.
#[derive(Clone, Debug)]
pub struct Entrance {
    jobs: mpsc::Sender<Job>,
}

impl Entrance {
    /// Starts the threads, as many as there are processors, or a few. They end when the last handle is dropped.
    pub fn start() -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
        for _ in 0..threads {
            let home = Netns::open_any(Path::new("/proc/thread-self/ns/net"))
                .map_err(|error| io::Error::other(error.to_string()))?;
            let queue = Arc::clone(&queue);
            std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
                // A job that panicked holds no lock.
                let next = || queue.lock().ok().and_then(|queue| queue.recv().ok());
                while let Some(job) = next() {
                    let has_left = job();
                    // A thread that cannot come home must not run another job in the wrong place.
                    if has_left && setns(&home.file, CloneFlags::CLONE_NEWNET).is_err() {
                        tracing::error!("cannot return from a container's network namespace");
                        return;
                    }
                }
            })?;
        }
        Ok(Self { jobs })
    }

    /// Runs `inside` in the netns and waits for its answer.
    pub(super) fn enter<T: Send + 'static>(
        &self,
        netns: &Netns,
        inside: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, NetnsError> {
        let file = netns.file.try_clone().map_err(|source| error("hold", &netns.path, source))?;
        let (answer, answered) = mpsc::sync_channel(1);
        let job = Box::new(move || {
            let entered = setns(&file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
            let has_left = entered.is_ok();
            let result = entered.and_then(|()| inside());
            drop(file);
            // The receiver is waiting below; it cannot be gone.
            let _ = answer.send(result);
            has_left
        });
        let lost = || error("enter", &netns.path, io::Error::other("the netns thread has ended"));
        self.jobs.send(job).map_err(|_| lost())?;
        let result = answered.recv().map_err(|_| lost())?;
        result.map_err(|source| error("enter", &netns.path, source))
    }

    /// Opens a socket onto the netns' table and reads the netns' links; has changes there be told from before, if `watches`.
    /// The queues of those links are taken that `seated` tells of them, as far as they can be.
    pub fn open(
        &self,
        netns: &Netns,
        watches: bool,
        seated: impl FnOnce(&[Link]) -> Vec<u32> + Send + 'static,
    ) -> Result<(KernelTable, Found, Seats), NetnsError> {
        self.enter(netns, move || {
            let (table, found) = (KernelTable::open_here()?, Found::here(watches)?);
            let seats = Seats::take_here(seated(&found.links));
            Ok((table, found, seats))
        })
    }

    /// Reads the netns' links; has changes there be told from before, if `watches`.
    pub fn look(&self, netns: &Netns, watches: bool) -> Result<Found, NetnsError> {
        self.enter(netns, move || Found::here(watches))
    }

    /// Opens a socket onto the netns' table.
    pub fn open_table(&self, netns: &Netns) -> Result<KernelTable, NetnsError> {
        self.enter(netns, KernelTable::open_here)
    }
}

/// The inodes and a path of every network namespace a process or a mount keeps alive, the host's left out.
/// Source: `/proc/PID/ns/net`, and mounts of type `nsfs` (`ip netns`, Docker, CNI).
pub fn all_on_host() -> io::Result<Vec<Netns>> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    let mut take = |path: &Path| {
        if let Ok(netns) = Netns::open(path)
            && seen.insert(netns.inode())
        {
            found.push(netns);
        }
    };
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit())) {
            take(&entry.path().join("ns/net"));
        }
    }
    for line in std::fs::read_to_string("/proc/self/mountinfo")?.lines() {
        let mut fields = line.split(' ');
        let (root, mount_point) = (fields.nth(3).unwrap_or(""), fields.next().unwrap_or(""));
        if root.starts_with("net:[") {
            take(Path::new(mount_point));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ended_has_no_netns_whoever_has_its_pid() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let held = Process::open(child.id()).unwrap();
        assert!(held.is_alive());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!held.is_alive());
        // The pid's next owner: this very process stands for it.
        let reused = Process { pid: std::process::id(), ..held };
        assert!(matches!(Netns::of(&reused), Err(NetnsError::Gone(_) | NetnsError::Host(_))));
        assert!(matches!(Process::open(child.id()), Err(NetnsError::Gone(_))));
    }
}
