//! Owns a test's private Docker host: made by `scripts/private-docker`, gone when dropped.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use super::container::Container;
use super::netns::Netns;

/// A globally routed address in the outside world; `outside.test` resolves to it. TCP 80, 443, 5432; UDP 123 echoes.
pub(crate) const OUTSIDE_NET4: IpAddr = IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9));
/// The same for IPv6.
pub(crate) const OUTSIDE_NET6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2620, 0xfe, 0, 0, 0, 0, 0, 9));

/// Which Docker a host runs: what Debian ships.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// The system's own; in Debian 12, Docker 20.10 with containerd 1.6.
    Bookworm,
    /// Debian 13: Docker 26.1 with containerd 1.7.
    Trixie,
    /// Docker 28.5 with containerd 2.1.
    Sid,
}

impl Engine {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Bookworm, Self::Trixie, Self::Sid];

    fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        }
    }
}

/// A dockerd with the test images, in a netns of its own, and an outside world that it is connected to.
pub(crate) struct DockerHost {
    name: String,
}

impl DockerHost {
    /// The host's own address, seen from outside.
    pub(crate) const ADDR4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 231, 2));
    /// The same for IPv6.
    pub(crate) const ADDR6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd5e, 0x2310, 0, 0, 0, 0, 0, 2));

    /// A new host, ready to use; about a second, and 45 more when the images must be built first.
    pub(crate) fn start() -> Self {
        Self::start_engine(Engine::Bookworm)
    }

    /// One that runs another Docker; 30 seconds more when that must be built first.
    pub(crate) fn start_engine(engine: Engine) -> Self {
        Self::start_configured(engine, &serde_json::json!({}))
    }

    /// The same, with these keys set in its `daemon.json`.
    pub(crate) fn start_configured(engine: Engine, config: &serde_json::Value) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let owner = std::process::id().to_string();
        // Before the command, so that a failed start is cleaned up too.
        let host = Self { name };
        let mut keys = tempfile::NamedTempFile::new().expect("a temporary file can be made");
        write!(keys, "{config}").expect("a temporary file can be written");
        let mut up = host.command("up");
        up.args(["--owner", &owner, "--images", "--engine", engine.name(), "--config"]);
        succeed(up.arg(keys.path()));
        host
    }

    /// Its name, as `scripts/private-docker` knows it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Docker's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.run_folder().join("docker.sock")
    }

    /// The socket of Docker's own containerd.
    pub(crate) fn containerd_socket(&self) -> PathBuf {
        self.run_folder().join("exec/containerd/containerd.sock")
    }

    /// The netns of the host itself.
    pub(crate) fn netns(&self) -> Netns {
        Netns::named(&format!("swall-{}", self.name))
    }

    /// The netns of the outside world, connected to the host by a cable.
    pub(crate) fn outside(&self) -> Netns {
        Netns::named(&format!("swall-{}-out", self.name))
    }

    /// The Docker client, on this host.
    pub(crate) fn docker(&self, args: &[&str]) -> Output {
        output(&mut self.docker_command(args))
    }

    /// The same, to be run by the caller.
    pub(crate) fn docker_command(&self, args: &[&str]) -> Command {
        let mut command = self.command("docker");
        command.args(args);
        command
    }

    /// The same; panics unless it succeeds, and gives its trimmed output.
    #[track_caller]
    pub(crate) fn docker_ok(&self, args: &[&str]) -> String {
        succeed(self.command("docker").args(args))
    }

    /// A Docker client that a thread may keep. It fails once the host is gone.
    pub(crate) fn client(&self) -> Client {
        Client(self.name.clone())
    }

    /// docker-compose with the example shop as `project`, its front door on `port`.
    pub(crate) fn compose(&self, project: &str, port: u16, args: &[&str]) -> Output {
        output(self.compose_command(project, port).args(args))
    }

    /// The same; panics unless it succeeds, and gives its trimmed output.
    #[track_caller]
    pub(crate) fn compose_ok(&self, project: &str, port: u16, args: &[&str]) -> String {
        succeed(self.compose_command(project, port).args(args))
    }

    /// Starts a container: `docker run --detach ARGS`.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Container {
        let id = self.docker_ok(&[&["run", "--detach"], args].concat());
        self.container(&id)
    }

    /// The same, for as long as the test holds it.
    #[track_caller]
    pub(crate) fn guest(&self, args: &[&str]) -> Guest<'_> {
        Guest { host: self, container: self.run(args) }
    }

    /// All running containers, as they are now.
    #[track_caller]
    pub(crate) fn containers(&self) -> Vec<Container> {
        let ids = self.docker_ok(&["ps", "-q", "--no-trunc"]);
        ids.lines().map(|id| self.container(id)).collect()
    }

    /// A running container, by name or id, as it is now.
    #[track_caller]
    pub(crate) fn container(&self, name: &str) -> Container {
        let json = self.docker_ok(&["container", "inspect", name]);
        let list: serde_json::Value =
            serde_json::from_str(&json).expect("docker inspect prints JSON");
        Container::from_inspect(&list[0])
    }

    /// Runs a program inside a container.
    pub(crate) fn exec_in(&self, container: &Container, argv: &[&str]) -> Output {
        self.docker(&[&["exec", container.id.as_str()], argv].concat())
    }

    /// Every process of it: those in its network namespaces, and those in its containers.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let pids = succeed(&mut self.command("pids"));
        pids.split_whitespace().map(|pid| pid.parse().expect("pids are numbers")).collect()
    }

    /// Ends dockerd and its containerd in good order, leaving everything else.
    pub(crate) fn stop_dockerd(&self) {
        succeed(&mut self.command("stop"));
    }

    /// Kills dockerd and its containerd where they stand; containers run on.
    pub(crate) fn kill_dockerd(&self) {
        succeed(&mut self.command("kill"));
    }

    /// Starts dockerd again.
    pub(crate) fn start_dockerd(&self) {
        succeed(&mut self.command("start"));
    }

    /// Its `daemon.json`.
    pub(crate) fn daemon_config(&self) -> PathBuf {
        self.run_folder().join("daemon.json")
    }

    /// Has dockerd read its `daemon.json` again, and waits until it did.
    pub(crate) fn reload_dockerd(&self) {
        succeed(&mut self.command("reload"));
    }

    /// A command where dockerd runs: in its network namespace and with the programs of its engine.
    pub(crate) fn inside(&self, argv: &[&str]) -> Command {
        let mut command = self.command("inside");
        command.args(argv);
        command
    }

    fn run_folder(&self) -> PathBuf {
        Path::new("/run").join(format!("swall-{}", self.name))
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(root().join("scripts/private-docker"));
        command.args([verb, &self.name]);
        command
    }

    fn compose_command(&self, project: &str, port: u16) -> Command {
        let mut command = self.command("compose");
        command.env("SHOP_PORT", port.to_string()).args(["-p", project, "-f"]);
        command.arg(root().join("examples/shop/compose.yaml"));
        command
    }
}

/// The Docker client of a host, apart from the host itself.
pub(crate) struct Client(String);

impl Client {
    /// Panics unless it succeeds.
    #[track_caller]
    pub(crate) fn docker_ok(&self, args: &[&str]) {
        let mut command = Command::new(root().join("scripts/private-docker"));
        succeed(command.args(["docker", &self.0]).args(args));
    }
}

/// A container that is removed when dropped, for tests that share a host.
pub(crate) struct Guest<'h> {
    host: &'h DockerHost,
    container: Container,
}

impl Guest<'_> {
    /// Looks at it again: after it was connected to a network, or started again.
    #[track_caller]
    pub(crate) fn look(&mut self) {
        self.container = self.host.container(&self.container.id);
    }
}

impl std::ops::Deref for Guest<'_> {
    type Target = Container;

    fn deref(&self) -> &Container {
        &self.container
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        self.host.docker(&["rm", "--force", "--volumes", &self.container.id]);
    }
}

impl Drop for DockerHost {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log =
                std::fs::read_to_string(self.run_folder().join("dockerd.log")).unwrap_or_default();
            eprintln!("--- dockerd's log ---\n{log}---");
        }
        let result = output(&mut self.command("down"));
        if !result.status.success() {
            eprintln!(
                "cleaning up {} failed: {}",
                self.name,
                String::from_utf8_lossy(&result.stderr)
            );
        }
    }
}

/// The repository.
pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command to its end.
pub(super) fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
}

/// Runs a command to its end; panics unless it succeeds, and gives its trimmed output.
#[track_caller]
pub(super) fn succeed(command: &mut Command) -> String {
    let output = output(command);
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
