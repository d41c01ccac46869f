//! Owns containers that are containerd's alone: run by `ctr` in a namespace of their own, with a cable to the host.
//!
//! The namespace has the host's name: runc keeps its state by namespace and id for the whole machine.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use super::docker_host::{DockerHost, succeed};
use super::netns::Netns;
use super::probe::Server;

/// containerd copies an image's labels to the container, so no label tells who wrote it: these count for nothing.
const LIES: [&str; 2] = ["seawall.model=postgres", "seawall.mode=off"];
const IMAGE: &str = "docker.io/library/busybox:1";

/// One running container of containerd's. Nobody but its cable connects it.
pub(crate) struct Plain<'h> {
    host: &'h DockerHost,
    /// Its id within the namespace.
    pub(crate) id: String,
    /// Its first process.
    pub(crate) pid: u32,
}

impl<'h> Plain<'h> {
    /// The address at the container's end of the cable.
    pub(crate) const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 231, 0, 2));

    /// Hands the host's containerd the image, once for each host.
    #[track_caller]
    pub(crate) fn import_image(host: &DockerHost) {
        let file = tempfile::NamedTempFile::new().expect("a file can be made");
        let path = file.path().display().to_string();
        host.docker_ok(&["save", "--output", &path, "busybox:1"]);
        ctr(host, &["images", "import", &path]);
    }

    /// Runs `sleep` in a container.
    #[track_caller]
    pub(crate) fn run(host: &'h DockerHost, id: &str) -> Self {
        let labels = LIES.iter().flat_map(|label| ["--label", label]);
        let args: Vec<&str> = ["run", "--detach"].into_iter().chain(labels).collect();
        ctr(host, &[&args[..], &[IMAGE, id, "sleep", "600"]].concat());
        let tasks = ctr(host, &["tasks", "list"]);
        let line = tasks.lines().find(|line| line.split_whitespace().next() == Some(id));
        let pid = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        Self { host, id: id.to_owned(), pid: pid.expect("ctr lists the task") }
    }

    /// Its netns.
    pub(crate) fn netns(&self) -> Netns {
        Netns::of_pid(self.pid)
    }

    /// Connects it to the host: 10.231.0.1 there, [`Self::ADDRESS`] here.
    #[track_caller]
    pub(crate) fn connect(&self) {
        let (cable, pid) = (format!("plain{}", self.pid), self.pid.to_string());
        let host = format!("--net={}", self.host.netns().path().display());
        let inside = format!("--net={}", self.netns().path().display());
        let ip = |netns: &str, args: &[&str]| {
            succeed(Command::new("nsenter").arg(netns).arg("ip").args(args));
        };
        let peer = ["type", "veth", "peer", "name", "eth0", "netns", &pid];
        ip(&host, &[&["link", "add", &cable], &peer[..]].concat());
        ip(&host, &["address", "add", "10.231.0.1/24", "dev", &cable]);
        ip(&host, &["link", "set", &cable, "up"]);
        ip(&inside, &["address", "add", "10.231.0.2/24", "dev", "eth0"]);
        ip(&inside, &["link", "set", "eth0", "up"]);
    }

    /// An echo server inside.
    pub(crate) fn tcp_server(&self, port: u16) -> Server {
        self.netns().tcp_server(port)
    }

    /// Kills its process and deletes what is left.
    #[track_caller]
    pub(crate) fn remove(self) {
        ctr(self.host, &["tasks", "delete", "--force", &self.id]);
        ctr(self.host, &["containers", "delete", &self.id]);
    }
}

#[track_caller]
fn ctr(host: &DockerHost, args: &[&str]) -> String {
    let mut command = Command::new("ctr");
    command.arg("--address").arg(host.containerd_socket()).args(["--namespace", host.name()]);
    succeed(command.args(args))
}
