//! Owns entering network namespaces: sockets opened inside keep acting there, whoever uses them afterwards.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

/// A network namespace, by the path of its file.
#[derive(Clone, Debug)]
pub(crate) struct Netns {
    path: PathBuf,
}

impl Netns {
    /// One made by `ip netns add`.
    pub(crate) fn named(name: &str) -> Self {
        Self { path: Path::new("/run/netns").join(name) }
    }

    /// That of a process.
    pub(crate) fn of_pid(pid: u32) -> Self {
        Self { path: format!("/proc/{pid}/ns/net").into() }
    }

    /// Its file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `action` inside, on a thread that ends with it.
    #[track_caller]
    pub(crate) fn run<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        let file = File::open(&self.path).unwrap_or_else(|error| {
            panic!("cannot open the netns {}: {error}", self.path.display())
        });
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(file, CloneFlags::CLONE_NEWNET).expect("entering a netns needs root");
                action()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}
