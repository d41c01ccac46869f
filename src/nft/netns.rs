//! Owns entering other network namespaces: only on one dedicated thread, only to open sockets or read addresses.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use nix::sched::{CloneFlags, setns};

use super::links::links_here;
use super::message::pidfd_open;
use super::message::ready::when_readable;
use super::socket::KernelTable;
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
pub struct Opened {
    /// A socket onto its table.
    pub table: KernelTable,
    /// Its links with their addresses.
    pub links: Vec<Link>,
}

/// Work in a netns; says whether the thread entered it.
type Job = Box<dyn FnOnce() -> bool + Send>;

/// The thread that enters namespaces.
#[derive(Clone, Debug)]
pub struct Entrance {
    jobs: mpsc::Sender<Job>,
}

impl Entrance {
    /// Starts the thread. It ends when the last handle is dropped.
    pub fn start() -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let home = Netns::open_any(Path::new("/proc/thread-self/ns/net"))
            .map_err(|error| io::Error::other(error.to_string()))?;
        std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
            for job in queue {
                let has_left = job();
                // A thread that cannot come home must not run another job in the wrong place.
                if has_left && setns(&home.file, CloneFlags::CLONE_NEWNET).is_err() {
                    tracing::error!("cannot return from a container's network namespace");
                    return;
                }
            }
        })?;
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

    /// Opens a socket onto the netns' table and reads the netns' links.
    pub fn open(&self, netns: &Netns) -> Result<Opened, NetnsError> {
        self.enter(netns, || Ok(Opened { table: KernelTable::open_here()?, links: links_here()? }))
    }

    /// Opens a socket onto the netns' table.
    pub fn open_table(&self, netns: &Netns) -> Result<KernelTable, NetnsError> {
        self.enter(netns, KernelTable::open_here)
    }

    /// Reads the netns' links with their addresses.
    pub fn links(&self, netns: &Netns) -> Result<Vec<Link>, NetnsError> {
        self.enter(netns, links_here)
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
