//! Owns the world of an attack: the attacker's containers, who is near, who is far, and where they all are.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::mark::Ends;
use crate::harness::{Container, DockerHost, IDLE, OUTSIDE_NET4, OUTSIDE_NET6, STORE, Server};

/// Named in full: the machine's programs, which come first otherwise, do not run until they find their libraries.
const STILL: [&str; 4] = ["--stop-timeout=0", "busybox:1", "/bin/sleep", "600"];

/// An attack, as `attacker list` tells.
pub(crate) struct Attack {
    /// Its place in the attacker's list.
    pub(crate) number: u16,
    /// `4`, `6` or `46`.
    pub(crate) families: String,
    /// Whether a container is not the same afterwards.
    pub(crate) spoils: bool,
    /// As the table calls it.
    pub(crate) name: String,
}

/// Builds what runs inside containers; a path to it.
#[track_caller]
pub(crate) fn attacker_program() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["build", "--quiet", "--locked", "--example", "attacker", "--message-format=json"]);
    let output = cargo.output().expect("cargo can be run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let messages = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    messages
        .filter(|message: &serde_json::Value| message["target"]["name"] == "attacker")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

/// All attacks there are.
#[track_caller]
pub(crate) fn catalogue(program: &Path) -> Vec<Attack> {
    let output = Command::new(program).arg("list").output().expect("it runs here too");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let attacks: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split('\t');
            Some(Attack {
                number: words.next()?.parse().ok()?,
                families: words.next()?.to_owned(),
                spoils: words.next()? == "spoils",
                name: words.next()?.to_owned(),
            })
        })
        .collect();
    assert!(attacks.len() > 100, "{text}");
    attacks
}

/// The world. Dropping it removes its containers and networks.
pub(crate) struct Cell<'h> {
    /// Where it is.
    pub(crate) host: &'h DockerHost,
    program: PathBuf,
    /// What the attacker is told: whom it may reach (`friend`), and whom it may not.
    targets: Vec<String>,
    /// Where the friend is.
    pub(crate) friend: Ends,
    _servers: Vec<Server>,
}

impl<'h> Cell<'h> {
    /// Makes it, without any attacker.
    #[track_caller]
    pub(crate) fn up(host: &'h DockerHost, program: &Path) -> Self {
        host.docker_ok(&["network", "create", "--ipv6", "lab"]);
        host.docker_ok(&["network", "create", "--ipv6", "elsewhere"]);
        let run = |args: &[&str]| host.run(&[args, &IDLE[..]].concat());
        let project = |service: &str| {
            [
                "com.docker.compose.project=lab".to_owned(),
                format!("com.docker.compose.service={service}"),
            ]
        };
        let [lab, store] = project("store");
        let labels = ["--label", &lab, "--label", &store, "--label", "seawall.model=postgres"];
        let friend = run(&[&["--name", "store", "--network", "lab"], &labels[..]].concat());
        let published = ["--publish", "8099:8099", "--publish", "8099:8099/udp"];
        let peer = run(&[&["--name", "peer", "--network", "lab"], &published[..]].concat());
        let other = run(&["--name", "other", "--network", "elsewhere"]);
        let servers =
            vec![friend.tcp_server(STORE), other.tcp_server(80), host.netns().tcp_server(22)];
        let mut cell = Self {
            host,
            program: program.to_owned(),
            targets: Vec::new(),
            friend: ends(&friend),
            _servers: servers,
        };
        cell.describe(&friend, &peer, &other);
        cell
    }

    /// A new attacker: an application of the store's project, which may connect to it and ping it, and publishes two ports.
    #[track_caller]
    pub(crate) fn attacker(&self, name: &str, options: &[&str]) -> Attacker<'_> {
        let program = format!("{}:/attacker:ro", self.program.display());
        let fixed = [
            "--name",
            name,
            "--network",
            "lab",
            "--label",
            "com.docker.compose.project=lab",
            "--label",
            "com.docker.compose.service=app",
            "--label",
            "seawall.model=python",
            "--env",
            "DATABASE_URL=postgresql://store:5432/x",
            "--publish",
            "8000",
            "--publish",
            "8001/udp",
            "--volume",
            "/usr:/usr:ro",
            "--volume",
            &program,
        ];
        let container = self.host.run(&[&fixed[..], options, &STILL].concat());
        // The machine's own programs, with what they are linked to.
        let links = "ln -s usr/lib /lib; ln -s usr/lib64 /lib64";
        let made = self.host.exec_in(&container, &["/bin/sh", "-c", links]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let cables = container.cables();
        let device = *cables.get("eth0").unwrap_or_else(|| panic!("{name}: {cables:?}"));
        let own = ends(&container);
        Attacker { cell: self, container, device, own }
    }

    fn describe(&mut self, friend: &Container, peer: &Container, other: &Container) {
        for (who, container) in [("friend", friend), ("peer", peer), ("other", other)] {
            for ip in container.ips() {
                self.tell(&format!("{who}{}", if ip.is_ipv4() { 4 } else { 6 }), &ip.to_string());
            }
            self.tell(&format!("{who}_mac"), &inside(container, "cat /sys/class/net/eth0/address"));
            self.tell(&format!("{who}_link6"), &inside(container, LINK_LOCAL));
        }
        for (network, who) in [("lab", "gateway"), ("elsewhere", "other_gateway")] {
            let format = "{{range .IPAM.Config}}{{println .Gateway .Subnet}}{{end}}";
            let listed = self.host.docker_ok(&["network", "inspect", "--format", format, network]);
            for line in listed.lines().filter(|line| !line.trim().is_empty()) {
                let (gateway, subnet) = line.split_once(' ').expect("both");
                let gateway = gateway.split('/').next().unwrap_or_default();
                // Docker 20.10 names no gateway for IPv6; it is the subnet's first address.
                let base = subnet.split('/').next().unwrap_or_default();
                let gateway =
                    if gateway.is_empty() { format!("{base}1") } else { gateway.to_owned() };
                let digit = if gateway.contains(':') { 6 } else { 4 };
                self.tell(&format!("{who}{digit}"), &gateway);
                if who == "gateway" && digit == 4 {
                    let (front, _) = base.rsplit_once('.').expect("an IPv4 address");
                    self.tell("broadcast4", &format!("{front}.255"));
                    self.tell("free4", &format!("{front}.231"));
                } else if who == "gateway" {
                    self.tell(
                        "free6",
                        &format!("{}231", base.trim_end_matches(char::is_alphanumeric)),
                    );
                }
            }
        }
        let id = self.host.docker_ok(&["network", "inspect", "--format", "{{.Id}}", "lab"]);
        let bridge = format!("br-{}", &id[..12]);
        let (mac, link) = (
            on_host(self.host, &format!("cat /sys/class/net/{bridge}/address")),
            on_host(self.host, &LINK_LOCAL.replace("eth0", &bridge)),
        );
        self.tell("gateway_mac", &mac);
        self.tell("gateway_link6", &link);
        self.tell("host4", &DockerHost::ADDR4.to_string());
        self.tell("host6", &DockerHost::ADDR6.to_string());
        self.tell("outside4", &OUTSIDE_NET4.to_string());
        self.tell("outside6", &OUTSIDE_NET6.to_string());
        self.tell("resolver4", "203.0.113.53");
        self.tell("published", "8099");
    }

    fn tell(&mut self, key: &str, value: &str) {
        assert!(!value.is_empty(), "{key} is not known");
        self.targets.push(format!("{key}={value}"));
    }
}

impl Drop for Cell<'_> {
    fn drop(&mut self) {
        let ids = self.host.docker_ok(&["ps", "--all", "--quiet"]);
        let ids: Vec<&str> = ids.lines().collect();
        self.host.docker(&[&["rm", "--force", "--volumes"], &ids[..]].concat());
        self.host.docker(&["network", "rm", "lab", "elsewhere"]);
    }
}

/// A container that attacks.
pub(crate) struct Attacker<'c> {
    cell: &'c Cell<'c>,
    /// It.
    pub(crate) container: Container,
    /// The host's end of its cable.
    pub(crate) device: u32,
    /// Where it is on the network.
    pub(crate) own: Ends,
}

impl Attacker<'_> {
    /// Runs attacks one after the other. What it says of each: its number, the IP version, `done` or an error.
    #[track_caller]
    pub(crate) fn run(&self, chosen: &[(u16, char)]) -> Vec<(u16, char, String)> {
        let mut argv = vec!["/attacker".to_owned(), "run".to_owned()];
        argv.extend(self.cell.targets.iter().cloned());
        for ip in self.container.ips() {
            argv.push(format!("own{}={ip}", if ip.is_ipv4() { 4 } else { 6 }));
        }
        argv.push(format!(
            "own_mac={}",
            inside(&self.container, "cat /sys/class/net/eth0/address")
        ));
        argv.push(format!("own_link6={}", inside(&self.container, LINK_LOCAL)));
        argv.push("--".to_owned());
        argv.extend(chosen.iter().map(|(number, family)| format!("{number}/{family}")));
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        let output = self.cell.host.exec_in(&self.container, &argv);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the attacker itself failed: {error}");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = said.lines().filter_map(|line| {
            let mut words = line.splitn(3, '\t');
            let number = words.next()?.parse().ok()?;
            Some((number, words.next()?.chars().next()?, words.next()?.to_owned()))
        });
        said.collect()
    }
}

/// The link-local address of eth0.
const LINK_LOCAL: &str = "ip -6 -json address show dev eth0 scope link | sed -n 's/.*\"local\":\"\\([^\"]*\\)\".*/\\1/p'";

#[track_caller]
fn ends(container: &Container) -> Ends {
    let text = inside(container, "cat /sys/class/net/eth0/address");
    let mut bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16));
    let byte = |_| bytes.next().and_then(Result::ok).expect("an Ethernet address");
    Ends { mac: std::array::from_fn(byte), addresses: container.ips() }
}

/// Runs a shell command of the machine in a container's netns, with the netns' own /sys.
#[track_caller]
fn inside(container: &Container, command: &str) -> String {
    shell(container.netns().path(), command)
}

#[track_caller]
fn on_host(host: &DockerHost, command: &str) -> String {
    shell(host.netns().path(), command)
}

#[track_caller]
fn shell(netns: &Path, command: &str) -> String {
    let script = format!("mount -t sysfs none /sys && {command}");
    let mut nsenter = Command::new("nsenter");
    nsenter.arg(format!("--net={}", netns.display()));
    nsenter.args(["unshare", "--mount", "sh", "-c", &script]);
    let output = nsenter.output().expect("nsenter can be run");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
