//! Owns a private seawall beside the system's one: its configuration, its daemon, its command line.

use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::deadline::{eventually, until};
use super::docker_host::{DockerHost, output, succeed};
use super::netns::Netns;

const READY_LIMIT: Duration = Duration::from_secs(30);

/// Runs a command with a /proc of its own, which shows only some processes, and with no named network namespaces but those
/// of one host. Arguments: an empty folder, the host's name, the pids, the command.
const SECLUDED: &str = r#"
proc=$1 name=$2 pids=$3
shift 3
awk '$4 ~ /^net:\[/ { print $5 }' /proc/self/mountinfo | grep -v "/swall-$name" | xargs -r umount --lazy
mkdir -p "$proc"
mount -t tmpfs none "$proc"
for pid in 1 $$ $pids; do
  mkdir "$proc/$pid"
  mount --rbind "/proc/$pid" "$proc/$pid" 2>/dev/null || rmdir "$proc/$pid" # it has ended
done
ln -s $$ "$proc/self"
ln -s "$$/task/$$" "$proc/thread-self"
mount --move "$proc" /proc
exec "$@"
"#;

/// A seawall for one private Docker host. Dropping it kills the daemon; what it wrote into netns goes with the host.
pub(crate) struct Seawall {
    folder: TempDir,
    host: Netns,
    docker_config: PathBuf,
    notify: UnixDatagram,
    run_args: Vec<String>,
    daemon: Option<Child>,
}

impl Seawall {
    /// Writes the configuration: `settings` (TOML) and where the host's Docker and containerd are. Starts nothing.
    pub(crate) fn prepare(host: &DockerHost, settings: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("swall-")
            .tempdir()
            .expect("a temporary folder can be made");
        for name in ["models.d", "policy.d", "state"] {
            std::fs::create_dir(folder.path().join(name)).expect("a folder can be made");
        }
        let notify =
            UnixDatagram::bind(folder.path().join("notify")).expect("a socket can be bound");
        let seawall = Self {
            folder,
            host: host.netns(),
            docker_config: host.daemon_config(),
            notify,
            run_args: Vec::new(),
            daemon: None,
        };
        seawall.configure(settings, &host.socket(), &host.containerd_socket());
        seawall
    }

    /// Writes the configuration anew: `settings` (TOML) and where Docker and containerd are.
    pub(crate) fn configure(&self, settings: &str, docker: &Path, containerd: &Path) {
        let (docker, containerd) = (docker.display(), containerd.display());
        let file = self.docker_config.display();
        let config = format!(
            "{settings}\n[docker]\nhost = \"unix://{docker}\"\nconfig = \"{file}\"\n[containerd]\naddress = \"{containerd}\"\n"
        );
        self.write("seawall.toml", &config);
    }

    /// The daemon's next starts get these options: `seawall run ARGS`.
    pub(crate) fn run_with(&mut self, args: &[&str]) {
        self.run_args = args.iter().map(|arg| (*arg).to_owned()).collect();
    }

    /// Prepares and starts one.
    #[track_caller]
    pub(crate) fn start(host: &DockerHost, settings: &str) -> Self {
        let mut seawall = Self::prepare(host, settings);
        seawall.run();
        seawall
    }

    /// Writes a file beside the configuration: `policy.d/x.toml`, `models.d/x.toml`.
    pub(crate) fn write(&self, path: &str, text: &str) {
        std::fs::write(self.folder.path().join(path), text).expect("a file can be written");
    }

    /// Starts the daemon and returns when it says READY=1.
    #[track_caller]
    pub(crate) fn run(&mut self) {
        // What another said before it was killed is not what this one says.
        self.notify.set_nonblocking(true).expect("a socket's own");
        while self.notify.recv(&mut [0; 4096]).is_ok() {}
        self.notify.set_nonblocking(false).expect("a socket's own");
        self.spawn();
        self.await_notice("READY=1", READY_LIMIT);
    }

    /// Starts the daemon and waits for nothing.
    #[track_caller]
    pub(crate) fn spawn(&mut self) {
        assert!(self.daemon.is_none(), "seawall runs already");
        let log = File::options().create(true).append(true).open(self.folder.path().join("log"));
        let log = log.expect("a log file can be made");
        let mut command = self.command();
        command
            .arg("run")
            .args(&self.run_args)
            .env("NOTIFY_SOCKET", self.folder.path().join("notify"));
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be cloned"))
            .stderr(log);
        self.daemon = Some(command.spawn().expect("nsenter can be run"));
    }

    /// Waits until the daemon sends a line by sd_notify.
    #[track_caller]
    pub(crate) fn await_notice(&mut self, line: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        self.notify
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("a timeout can be set");
        loop {
            let mut message = [0; 4096];
            let said = self.notify.recv(&mut message).unwrap_or(0);
            if String::from_utf8_lossy(&message[..said]).lines().any(|got| got == line) {
                return;
            }
            if let Some(status) =
                self.daemon.as_mut().and_then(|daemon| daemon.try_wait().ok().flatten())
            {
                panic!("seawall ended ({status}) before it said {line}; its log:\n{}", self.log());
            }
            assert!(
                Instant::now() < deadline,
                "seawall did not say {line}; its log:\n{}",
                self.log()
            );
        }
    }

    /// Asks the daemon to end, and waits for it.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.end(Signal::SIGTERM)
    }

    /// Kills the daemon where it stands.
    #[track_caller]
    pub(crate) fn kill9(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// Sends the daemon a signal.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal)
            .expect("our own child can be signalled");
    }

    /// The daemon's pid.
    #[track_caller]
    pub(crate) fn pid(&self) -> u32 {
        // nsenter becomes seawall by exec, so its pid is seawall's.
        self.daemon.as_ref().expect("seawall runs").id()
    }

    /// A seawall command against this instance: `cli(&["status", "--output", "json"])`.
    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        output(self.command().args(args))
    }

    /// The same, to be started by whoever asked.
    pub(crate) fn cli_command(&self, args: &[&str]) -> Command {
        let mut command = self.command();
        command.args(args);
        command
    }

    /// A command that must succeed, among the files of the host's engine: its `daemon.json`, its runtimes.
    #[track_caller]
    pub(crate) fn cli_inside(&self, host: &DockerHost, args: &[&str]) -> String {
        let own = self.command();
        let mut command = host.inside(&[env!("CARGO_BIN_EXE_seawall")]);
        // What comes before the program's own arguments enters the network namespace, which `inside` does too.
        command.args(own.get_args().skip(2)).args(args).env("NO_COLOR", "1");
        succeed(command.env_remove("DOCKER_HOST"))
    }

    /// Where the runtime wrapper of this instance is installed.
    pub(crate) fn wrapper(&self, runtime: &str) -> PathBuf {
        self.folder.path().join("state/runtime").join(format!("seawall-{runtime}"))
    }

    /// `cli`; panics unless it succeeds, and gives what it printed.
    #[track_caller]
    pub(crate) fn cli_ok(&self, args: &[&str]) -> String {
        succeed(self.command().args(args))
    }

    /// The same, for commands that print JSON.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let text = self.cli_ok(&[args, &["--output", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error} in {text}"))
    }

    /// Waits until everything the daemon knows is programmed; gives its status.
    #[track_caller]
    pub(crate) fn settled(&self) -> Value {
        self.json(&["status", "--wait"])
    }

    /// What the status says of one container, by its id.
    #[track_caller]
    pub(crate) fn status_of(&self, id: &str) -> Value {
        let status = self.settled();
        let mut all = status["workloads"].as_array().into_iter().flatten();
        all.find(|one| one["id"] == id)
            .unwrap_or_else(|| panic!("{id} is not in {status:#}"))
            .clone()
    }

    /// Waits until the daemon has a table in force for the container.
    #[track_caller]
    pub(crate) fn await_programmed(&self, id: &str) {
        until(&format!("programming of {id}"), Duration::from_secs(10), || {
            let status = self.settled();
            let mut all = status["workloads"].as_array().into_iter().flatten();
            all.any(|one| {
                let coverage = one["coverage"].as_str().unwrap_or_default();
                one["id"] == id
                    && !["unprotected", "stopped"].iter().any(|no| coverage.starts_with(no))
            })
        });
    }

    /// The daemon's transactions, oldest first.
    #[track_caller]
    pub(crate) fn changes(&self) -> Vec<Value> {
        self.json(&["status", "--changes"]).as_array().cloned().unwrap_or_default()
    }

    /// `seawall clear`, where nothing is to be seen of the machine but this host: the command goes through every network
    /// namespace there is, and a test must leave those of others alone.
    #[track_caller]
    pub(crate) fn clear(&self, host: &DockerHost) -> String {
        succeed(&mut self.clear_command(host))
    }

    /// The same, whatever comes of it.
    pub(crate) fn try_clear(&self, host: &DockerHost) -> Output {
        output(&mut self.clear_command(host))
    }

    fn clear_command(&self, host: &DockerHost) -> Command {
        let pids: Vec<String> = host.pids().iter().map(ToString::to_string).collect();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "bash", "-euc", SECLUDED, "bash"]);
        command.arg(self.folder.path().join("proc")).arg(host.name()).arg(pids.join(" "));
        let inside = self.command();
        command.arg(inside.get_program()).args(inside.get_args()).arg("clear");
        command.env_remove("DOCKER_HOST").env("NO_COLOR", "1");
        command
    }

    /// Waits for the daemon to end by itself.
    #[track_caller]
    pub(crate) fn await_end(&mut self) -> ExitStatus {
        let mut daemon = self.daemon.take().expect("seawall runs");
        eventually("the end of seawall", Duration::from_secs(10), || {
            daemon.try_wait().expect("our own child")
        })
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("seawall.toml")
    }

    /// The control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("seawall.sock")
    }

    /// What the daemon wrote so far, over all its starts.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.await_end()
    }

    fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.host.path().display()));
        command.arg(env!("CARGO_BIN_EXE_seawall"));
        command.env_remove("DOCKER_HOST").env_remove("NOTIFY_SOCKET").env("NO_COLOR", "1");
        command.arg("--config").arg(self.folder.path().join("seawall.toml"));
        command.arg("--socket").arg(self.folder.path().join("seawall.sock"));
        command.arg("--state-dir").arg(self.folder.path().join("state"));
        command
    }
}

impl Drop for Seawall {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- seawall's log ---\n{}---", self.log());
        }
    }
}
