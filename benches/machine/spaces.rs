//! Network namespaces with a link and addresses, each held by one sleeping process, as containers hold theirs.

use std::io::Write as _;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, setns, unshare};

/// The netns all links lead to.
pub(crate) struct Hub {
    name: String,
    /// While this end is open the processes that hold namespaces wait at the other: they end with this process, however
    /// that ends.
    _end: OwnedFd,
    waiting: OwnedFd,
}

/// One netns.
pub(crate) struct Space {
    process: Child,
}

impl Hub {
    pub(crate) fn new(word: &str) -> Self {
        let name = format!("swall-b{}-{word}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]));
        let (waiting, end) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        Self { name, _end: end, waiting }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A netns whose link has these addresses; `number` names the link's other end.
    pub(crate) fn space(&self, number: usize, addresses: &[IpAddr]) -> Space {
        let mut commands = format!(
            "link set lo up\nlink add eth0 type veth peer name v{number} netns {}\n",
            self.name
        );
        for address in addresses {
            commands += &match address {
                IpAddr::V4(address) => format!("addr add {address}/16 dev eth0\n"),
                IpAddr::V6(address) => format!("addr add {address}/64 dev eth0 nodad\n"),
            };
        }
        commands += "link set eth0 up\n";
        let waiting = self.waiting.try_clone().unwrap();
        let process = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            fed(Command::new("ip").args(["-batch", "-"]), &commands);
            // It waits for the end of its input, which never comes.
            Command::new("cat").stdin(waiting).stdout(Stdio::null()).spawn().unwrap()
        });
        Space { process: process.join().unwrap() }
    }

    /// Switches the links' other ends on.
    pub(crate) fn connect(&self, numbers: std::ops::Range<usize>) {
        let commands: String = numbers.map(|number| format!("link set v{number} up\n")).collect();
        fed(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), &commands);
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

impl Space {
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Runs something on a thread in it.
    pub(crate) fn inside<T: Send + 'static>(
        &self,
        inside: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let file = std::fs::File::open(format!("/proc/{}/ns/net", self.pid())).unwrap();
        std::thread::spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            inside()
        })
        .join()
        .unwrap()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a command, which must succeed.
pub(crate) fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a command with this input; it must succeed.
pub(crate) fn fed(command: &mut Command, input: &str) {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "{command:?} of\n{}", input.chars().take(2000).collect::<String>());
}
