//! Docker layer: FTP between two containers under enforcement, by two lines of an operator's and by what a service brings.

mod harness;
#[path = "ftp/transfer.rs"]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod transfer;

use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::{Container, DockerHost, Seawall, Stage, until};
use transfer::Transfer;

const ENFORCE: &str = "mode = \"enforce\"\nunknown = \"baseline\"";
const SERVER: &str = include_str!("ftp/server.py");
const CLIENT: &str = include_str!("ftp/client.py");
const SMALL: &str = "100000";
const MODES: [&str; 2] = ["passive", "active"];
/// Nobody allows it.
const HIGH_PORT: u16 = 40_077;
const LIMIT: Duration = Duration::from_secs(10);

fn python(host: &DockerHost, container: &Container, script: &str, args: &[&str]) -> Command {
    let head = ["exec", "-i", container.id.as_str(), "python3", "-W", "ignore", "-c", script];
    host.docker_command(&[&head, args].concat())
}

fn ftp(host: &DockerHost, client: &Container, args: &[&str]) -> String {
    let output = python(host, client, CLIENT, args).output().expect("docker can be run");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves on every address of a container, until that ends.
fn serve(host: &DockerHost, server: &Container, ips: &[String]) -> Running {
    let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
    let mut command = python(host, server, SERVER, &ips);
    let mut running = Running(command.stdout(Stdio::piped()).spawn().expect("docker can be run"));
    let mut said = String::new();
    let told = running.0.stdout.take().expect("it is piped");
    BufReader::new(told).read_line(&mut said).expect("it says something");
    assert_eq!(said, "ready\n");
    running
}

struct Removed<'h>(&'h DockerHost);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        self.0.docker(&["network", "rm", "ftp"]);
    }
}

#[test]
fn two_lines_of_an_operators_are_enough_for_ftp_and_open_nothing_else() {
    let stage = Stage::take();
    let host = stage.host;
    host.docker_ok(&["network", "create", "--ipv6", "--subnet", "fd5f::/64", "ftp"]);
    let _network = Removed(host);
    let idle = |name| {
        let image = ["python:3.11", "sleep", "infinity"];
        host.guest(&[["--network", "ftp", "--name", name].as_slice(), &image].concat())
    };
    let (client, server) = (idle("ftp-client"), idle("ftp-server"));
    let ips: Vec<IpAddr> = server.ips();
    assert_eq!(ips.len(), 2, "{ips:?}");
    let addresses: Vec<String> = ips.iter().map(ToString::to_string).collect();
    let _serving = serve(host, &server, &addresses);

    let mut seawall = Seawall::prepare(host, ENFORCE);
    let policy = |ports: &str| {
        format!("[[allow]]\nfrom = \"name:ftp-client\"\nto = \"name:ftp-server\"\n{ports}\n")
    };
    seawall.write("policy.d/ftp.toml", &policy("ports = \"21/tcp\""));
    seawall.run();
    seawall.await_programmed(&server.id);
    seawall.await_programmed(&client.id);
    let said = ftp(host, &client, &["get", &addresses[0], "passive"]);
    assert!(said.contains("timed out") || said.contains("refused"), "no helper: {said}");

    let reload = |seawall: &Seawall, ports: &str| {
        let before = seawall.changes().len();
        seawall.write("policy.d/ftp.toml", &policy(ports));
        seawall.cli_ok(&["reload"]);
        until("the operator's change", LIMIT, || seawall.changes().len() >= before + 2);
        seawall.settled();
    };
    for (number, ports) in
        ["ports = \"21/tcp\"\nhelper = \"ftp\"", "ports = \"ftp\""].into_iter().enumerate()
    {
        if number > 0 {
            reload(&seawall, "ports = \"21/tcp\"");
        }
        reload(&seawall, ports);
        for address in &addresses {
            for mode in MODES {
                let said = ftp(host, &client, &["get", address, mode]);
                assert_eq!(said, SMALL, "{ports} {address} {mode}");
            }
        }
    }
    let text = seawall.cli_ok(&["policy", "ftp-server"]);
    assert!(text.contains("21/tcp with helper ftp"), "{text}");

    let (at_server, at_client) = (server.tcp_server(HIGH_PORT), client.tcp_server(HIGH_PORT));
    for ip in &ips {
        assert!(!client.tcp(*ip, HIGH_PORT).is_reached(), "{ip}");
    }
    for ip in client.ips() {
        assert!(!server.tcp(ip, HIGH_PORT).is_reached(), "{ip}");
    }
    drop((at_server, at_client));

    // The daemon ends a transfer when its control connection ends.
    for (address, mode) in addresses.iter().zip(MODES) {
        let mut transfer = Transfer::start(python(host, &client, CLIENT, &["slow", address, mode]));
        assert!(transfer.flow_later() > 0, "{mode}: the control connection is open");
        transfer.end_control();
        assert_eq!(transfer.flow_later(), 0, "{address} {mode}");
    }
    // While no daemon runs nobody does.
    let mut transfer =
        Transfer::start(python(host, &client, CLIENT, &["slow", &addresses[0], "passive"]));
    seawall.kill9();
    transfer.end_control();
    assert!(transfer.flow_later() > 0, "documented: security model 4");
    // The next one finds what was left behind.
    seawall.run();
    seawall.settled();
    until("the end of the transfer", LIMIT, || transfer.flow() == 0);
}
