//! Owns what is compared: how each is set up and started on a private Docker host, and what it takes of the processor.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::harness::{DockerHost, Seawall, eventually};
use crate::stand::{NETWORK, PORT};

/// The unit of processor times in /proc, in milliseconds: USER_HZ is 100 wherever Docker runs.
const TICK: u64 = 10;

/// What keeps containers to their policy.
#[derive(Clone, Debug)]
pub(crate) enum Contender {
    /// Docker as it is.
    Nothing,
    /// `docker-user.sh`.
    Script,
    /// The program of that name.
    Dfw(PathBuf),
    /// The daemon alone.
    Seawall,
    /// The daemon, and its wrapper before the container's runtime.
    Wrapper,
}

impl Contender {
    /// What it is called in figures.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Script => "shell script",
            Self::Dfw(_) => "dfw",
            Self::Seawall => "seawall, no wrapper",
            Self::Wrapper => "seawall, wrapper",
        }
    }

    /// The runtime of the application's container.
    pub(crate) fn runtime(&self) -> &'static str {
        if matches!(self, Self::Wrapper) { "seawall" } else { "runc" }
    }

    /// Starts it for a host.
    pub(crate) fn start(&self, host: &DockerHost) -> Running {
        match self {
            Self::Nothing => Running::Nothing,
            Self::Script => {
                let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/docker-user.sh");
                Running::Program(Program::start(host, Path::new("bash"), &[script], |_| true))
            }
            Self::Dfw(program) => {
                let folder = tempfile::tempdir().unwrap();
                let config = folder.path().join("dfw.toml");
                std::fs::write(&config, dfw_config()).unwrap();
                let config = config.display().to_string();
                let arguments = ["--config-file", config.as_str()];
                // It says nothing after its rules are loaded; its table is there then.
                let has_rules = |host: &DockerHost| {
                    let listed = host.inside(&["nft", "list", "table", "inet", "dfw"]).output();
                    listed.unwrap().status.success()
                };
                let mut program = Program::start(host, program, &arguments, has_rules);
                program.folder = Some(folder);
                Running::Program(program)
            }
            Self::Seawall | Self::Wrapper => {
                let seawall = Seawall::start(host, "mode = \"enforce\"\nunknown = \"deny\"");
                if matches!(self, Self::Wrapper) {
                    seawall.install_runtime(host);
                }
                seawall.settled();
                Running::Seawall(seawall)
            }
        }
    }
}

/// The same policy, as dfw is told it.
fn dfw_config() -> String {
    format!(
        r#"
[global_defaults]
external_network_interfaces = "uplink0"
[container_to_container]
default_policy = "drop"
[[container_to_container.rules]]
network = "{NETWORK}"
src_container = "app"
dst_container = "db"
matches = "tcp dport {PORT}"
verdict = "accept"
[container_to_wider_world]
default_policy = "drop"
[container_to_host]
default_policy = "drop"
"#
    )
}

/// One that was started.
pub(crate) enum Running {
    Nothing,
    Program(Program),
    Seawall(Seawall),
}

impl Running {
    /// The processor time it took so far, with every program it ran; `None` where there is nobody to take any.
    pub(crate) fn processor_time(&self) -> Option<Duration> {
        let group = match self {
            Self::Nothing => return None,
            Self::Program(program) => program.child.id(),
            // It has no group of its own, and runs no programs.
            Self::Seawall(seawall) => return Some(times_of(seawall.pid())?.1),
        };
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let times = pids.filter_map(times_of).filter(|(of, _)| *of == group);
        Some(times.map(|(_, time)| time).sum())
    }
}

/// A process' group and the processor time of it and of its children that have ended (proc_pid_stat(5)).
fn times_of(pid: u32) -> Option<(u32, Duration)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks: u64 = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some((fields.get(2)?.parse().ok()?, Duration::from_millis(ticks * TICK)))
}

/// A program in a process group of its own; killed with all it runs when dropped.
pub(crate) struct Program {
    child: Child,
    log: tempfile::NamedTempFile,
    folder: Option<tempfile::TempDir>,
}

impl Program {
    /// Runs it in the host's network namespace, with the host's Docker, and waits until it is ready.
    fn start(
        host: &DockerHost,
        program: &Path,
        arguments: &[&str],
        is_ready: impl Fn(&DockerHost) -> bool,
    ) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", host.netns().path().display())).arg(program);
        command.args(arguments).env("DOCKER_HOST", format!("unix://{}", host.socket().display()));
        command.stdin(Stdio::null()).stdout(File::create(log.path()).unwrap());
        command.stderr(File::options().append(true).open(log.path()).unwrap()).process_group(0);
        let mut program = Self { child: command.spawn().unwrap(), log, folder: None };
        eventually("the contender's start", Duration::from_secs(20), || {
            let ended = program.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {}", program.said());
            is_ready(host).then_some(())
        });
        program
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // nsenter became the program by exec, so the group is the program's.
        let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- it said ---\n{}---", self.said());
        }
    }
}
