//! Throwaway network namespaces: made with a unique name, removed when dropped, also on failure.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// A named network namespace of a test.
pub(crate) struct TestNetns {
    pub(crate) name: String,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl TestNetns {
    /// Makes one; fails the test when that is not possible (these tests need root).
    pub(crate) fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("swall-k{}-{number}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let netns = Self { name };
        netns.ip(&["link", "set", "lo", "up"]);
        netns
    }

    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs `ip` on it.
    pub(crate) fn ip(&self, args: &[&str]) -> Output {
        let all: Vec<&str> =
            ["-n", self.name.as_str()].into_iter().chain(args.iter().copied()).collect();
        run("ip", &all)
    }

    /// Runs a command in it and expects it to succeed.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let all: Vec<&str> =
            ["netns", "exec", self.name.as_str()].into_iter().chain(args.iter().copied()).collect();
        run("ip", &all)
    }
}

impl Drop for TestNetns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// Runs something on a thread in a netns.
#[allow(dead_code, reason = "not every test opens sockets")]
pub(crate) fn inside_of<T: Send + 'static>(
    netns: &TestNetns,
    run: impl FnOnce() -> T + Send + 'static,
) -> T {
    let file = std::fs::File::open(netns.path()).unwrap();
    std::thread::spawn(move || {
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        run()
    })
    .join()
    .unwrap()
}

/// Runs a command and expects it to succeed.
pub(crate) fn run(program: &str, args: &[&str]) -> Output {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}\n(these tests need root, iproute2 and nftables)",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
