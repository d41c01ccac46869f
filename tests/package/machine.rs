//! Owns a private machine (`scripts/private-machine`): a clean Debian with systemd as process 1 and a Docker of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value;

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command; panics unless it succeeds, and gives its trimmed output.
#[track_caller]
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(output.status.success(), "{command:?} failed:\n{}", everything(&output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// What a command wrote to both.
pub(crate) fn everything(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// One machine, which goes away with this.
pub(crate) struct Machine(String);

impl Machine {
    /// Boots one with files in its /root.
    #[track_caller]
    pub(crate) fn boot(debian: &str, files: &[PathBuf]) -> Self {
        let machine = Self(format!("{debian}-{}", std::process::id()));
        let owner = std::process::id().to_string();
        succeed(machine.script("up").args([debian, "--owner", &owner]));
        succeed(machine.script("put").args(files));
        machine
    }

    fn script(&self, command: &str) -> Command {
        let mut script = Command::new(root().join("scripts/private-machine"));
        script.args([command, &self.0]);
        script
    }

    /// A command on it; panics unless it succeeds.
    #[track_caller]
    pub(crate) fn on(&self, command: &[&str]) -> String {
        succeed(self.script("on").args(command))
    }

    /// The same, whatever comes of it.
    pub(crate) fn try_on(&self, command: &[&str]) -> Output {
        self.script("on").args(command).output().expect("a script can be run")
    }

    /// A shell's script on it.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        self.on(&["sh", "-euc", script])
    }

    /// A seawall command that prints JSON.
    #[track_caller]
    pub(crate) fn seawall(&self, args: &[&str]) -> Value {
        let text = self.on(&[&["seawall"], args, &["--output", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error} in {text}"))
    }

    /// Puts a text into a file of it.
    #[track_caller]
    pub(crate) fn write(&self, path: &str, text: &str) {
        self.on(&[
            "sh",
            "-euc",
            "mkdir -p \"$(dirname \"$1\")\"; printf %s \"$2\" >\"$1\"",
            "sh",
            path,
            text,
        ]);
    }

    /// A property of the service, as systemd knows it.
    #[track_caller]
    pub(crate) fn service(&self, property: &str) -> String {
        self.on(&["systemctl", "show", "--value", "--property", property, "seawall.service"])
    }

    /// Runs a container, and gives its id.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> String {
        self.on(&[&["docker", "run", "--detach"], args].concat())
    }

    /// What Docker says of a container.
    #[track_caller]
    pub(crate) fn inspect(&self, container: &str, format: &str) -> String {
        self.on(&["docker", "inspect", "--format", format, container])
    }

    /// The tables in a container's network namespace.
    #[track_caller]
    pub(crate) fn tables(&self, container: &str) -> String {
        let pid = self.inspect(container, "{{.State.Pid}}");
        self.on(&["nsenter", "--net", "--target", &pid, "nft", "list", "tables"])
    }

    /// Shuts it down and boots it again.
    #[track_caller]
    pub(crate) fn reboot(&self) {
        succeed(&mut self.script("reboot"));
    }

    /// Begins to connect from the machine to a container without a pause.
    #[track_caller]
    pub(crate) fn traffic(&self, container: &str, allowed: u16, denied: u16) -> Traffic {
        let pid = succeed(&mut self.script("pid"));
        let address = self.inspect(container, "{{.NetworkSettings.IPAddress}}");
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &pid, "python3"]);
        command.arg(root().join("tests/package/traffic.py")).arg(address);
        command.args([allowed.to_string(), denied.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("nsenter can be run");
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("it says that it has begun");
        assert_eq!(line, "begun\n");
        Traffic { child, output }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log =
                self.try_on(&["journalctl", "--no-pager", "--lines", "40", "--unit", "seawall"]);
            eprintln!("--- its log ---\n{}---", everything(&log));
        }
        let _ = self.script("down").status();
    }
}

/// Connections under way.
pub(crate) struct Traffic {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Traffic {
    /// Ends it; what became of them.
    #[track_caller]
    pub(crate) fn end(mut self) -> Value {
        drop(self.child.stdin.take());
        let mut counts = String::new();
        self.output.read_to_string(&mut counts).expect("it prints its counts");
        serde_json::from_str(&counts).unwrap_or_else(|error| panic!("{error} in {counts}"))
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
