//! Kernel layer: `seawall doctor` on hosts that lack something. Each is a private mount, network and process namespace of
//! this kernel, with an /etc and a /run of its own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

/// An empty /etc and /run, and what the test adds; then doctor, and what is left of its processes. Arguments: the program
/// and its own.
const HOST: &str = r#"
mount -t tmpfs none /etc
mount -t tmpfs none /run
mkdir -p /run/state /etc/seawall
ip link set lo up
"#;
const RUN: &str = r#"
status=0
"$@" || status=$?
# Whoever is neither this shell nor what it runs to look.
for process in /proc/[0-9]*; do
  [ "${process#/proc/}" = "$$" ] || cat "$process/comm" >&2 2>/dev/null || true
done
exit "$status"
"#;

/// What doctor said.
struct Said {
    checks: Vec<Value>,
    promises_hold: bool,
    code: i32,
    stderr: String,
}

impl Said {
    /// Result and finding of one check.
    #[track_caller]
    fn of(&self, id: &str) -> (&str, &str) {
        let check = self.checks.iter().find(|check| check["id"] == id);
        let check = check.unwrap_or_else(|| panic!("no check {id} in {:#?}", self.checks));
        let [result, found] = ["result", "found"].map(|key| check[key].as_str().unwrap());
        if matches!(result, "warning" | "missing") {
            assert!(check["costs"].is_string() && check["remedy"].is_string(), "{check:#}");
        }
        (result, found)
    }

    #[track_caller]
    fn assert(&self, id: &str, result: &str, found: &str) {
        let said = self.of(id);
        assert_eq!(said.0, result, "{id}: {}", said.1);
        assert!(said.1.contains(found), "{id}: {}", said.1);
    }
}

/// Runs doctor on a host that `setup` makes (a shell's text), with the rights that `as_whom` leaves (a command in front).
#[track_caller]
fn doctor(setup: &str, as_whom: &[&str]) -> Said {
    let mut command = Command::new("unshare");
    let own = ["--mount", "--propagation", "private", "--net", "--pid", "--fork", "--mount-proc"];
    command.args(own).args(["bash", "-euc", &format!("{HOST}{setup}{RUN}"), "bash"]);
    command.args(as_whom).arg(env!("CARGO_BIN_EXE_seawall"));
    command.args(["--state-dir", "/run/state", "doctor", "--json"]);
    command.env_remove("DOCKER_HOST").env_remove("SEAWALL_CONFIG").env_remove("SEAWALL_SOCKET");
    let output = command.env_remove("SSL_CERT_FILE").output().unwrap();
    let (stdout, stderr) =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).into();
    let said: Value = serde_json::from_str(&stdout)
        .unwrap_or_else(|error| panic!("{error} (these tests need root): {stdout}{stderr}"));
    Said {
        checks: said["checks"].as_array().unwrap().clone(),
        promises_hold: said["promises_hold"].as_bool().unwrap(),
        code: output.status.code().unwrap(),
        stderr,
    }
}

#[test]
fn a_host_without_docker_and_daemon_is_told_so_and_the_kernel_is_tried() {
    let said = doctor("", &[]);
    assert_eq!((said.code, said.promises_hold), (1, false));
    said.assert("host.permission", "ok", "root");
    said.assert("docker.reachable", "missing", "there is no Docker at unix:///var/run/docker.sock");
    said.assert("daemon.running", "missing", "no daemon answers on /run/seawall/seawall.sock");
    said.assert("daemon.mode", "skipped", "no daemon");
    said.assert("runtime.wrapper", "missing", "does not name the wrapper");
    said.assert("neighbours.nftables", "ok", "not enabled");
    said.assert("kernel.tables", "ok", "denied a packet");
    said.assert("kernel.intervals", "ok", "");
    said.assert("kernel.nflog", "ok", "a denied packet was told of");
    said.assert("kernel.conntrack", "ok", "a connection was told of");
    // Nothing is left: no process that would hold the network namespace, and no mount of it.
    assert_eq!(said.stderr, "");
}

#[test]
fn every_check_is_made_once_and_in_the_order_it_is_listed() {
    let list = Command::new(env!("CARGO_BIN_EXE_seawall")).args(["doctor", "--list"]).output();
    let list = String::from_utf8(list.unwrap().stdout).unwrap();
    let listed: Vec<&str> =
        list.lines().skip(1).map(|line| line.split_whitespace().next().unwrap()).collect();
    let said = doctor("", &[]);
    let made: Vec<&str> = said.checks.iter().map(|check| check["id"].as_str().unwrap()).collect();
    assert_eq!(made, listed);
}

#[test]
fn without_the_rights_to_look_nothing_is_said_to_be_well() {
    let root = doctor("", &["setpriv", "--bounding-set", "-net_admin"]);
    root.assert("host.permission", "warning", "root, but without CAP_NET_ADMIN");
    let nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let nobody = doctor("", &nobody);
    nobody.assert("host.permission", "warning", "not root");
    for said in [root, nobody] {
        assert_eq!((said.code, said.promises_hold), (3, false), "{}", said.stderr);
        said.assert("kernel.scratch", "unknown", "needs root");
        for id in ["kernel.tables", "kernel.owner", "kernel.guard", "neighbours.iptables"] {
            assert_eq!(said.of(id).0, "unknown", "{id}");
        }
        assert!(said.stderr.contains("run seawall doctor as root"), "{}", said.stderr);
    }
}

#[test]
fn a_service_that_flushes_the_hosts_rules_is_told_when_it_is_enabled() {
    let file = "printf 'flush ruleset\\n' > /etc/nftables.conf\n";
    doctor(file, &[]).assert("neighbours.nftables", "ok", "not enabled");
    let enabled = "wants=/etc/systemd/system/sysinit.target.wants\n\
                   mkdir -p $wants\nln -s /lib/systemd/system/nftables.service $wants/\n";
    let said = doctor(&format!("{file}{enabled}"), &[]);
    said.assert("neighbours.nftables", "warning", "/etc/nftables.conf has `flush ruleset`");
}

#[test]
fn a_wrapper_that_is_named_but_not_there_is_told() {
    let setup = "mkdir /etc/docker\n\
        echo '{\"runtimes\": {\"seawall\": {\"path\": \"/run/gone/seawall-runc\"}}}' > /etc/docker/daemon.json\n";
    let said = doctor(setup, &[]);
    said.assert("runtime.wrapper", "missing", "cannot read /run/gone/seawall-runc.toml");
    let broken = doctor("mkdir /etc/docker\necho '{' > /etc/docker/daemon.json\n", &[]);
    broken.assert("runtime.wrapper", "missing", "not valid JSON");
}

#[test]
fn a_state_folder_that_is_full_or_anybodys_is_told() {
    let full = "mount -t tmpfs -o size=1m none /run/state\n\
                dd if=/dev/zero of=/run/state/x bs=4k status=none 2>/dev/null || true\n";
    let said = doctor(full, &[]);
    said.assert("host.space", "warning", "0 MiB free at /run/state");
    said.assert("host.state", "missing", "others than root may write");
    let own = doctor("chmod 750 /run/state\n", &[]);
    own.assert("host.state", "ok", "/run/state is root's");
}

#[test]
fn a_configuration_the_daemon_would_not_start_with_is_told_and_the_rest_is_looked_at() {
    let said = doctor("echo 'mode = \"on\"' > /etc/seawall/seawall.toml\n", &[]);
    said.assert("host.configuration", "missing", "seawall.toml:1:8: `mode` cannot be `on`");
    said.assert("kernel.tables", "ok", "");
    assert_eq!(said.code, 1);
    let modes = doctor("echo '[[mode]]' > /run/state/modes.toml\n", &[]);
    modes.assert("host.configuration", "missing", "/run/state/modes.toml:1:1");
}

#[test]
fn a_webhook_that_cannot_be_trusted_is_told_without_its_secret() {
    let config = "printf '[events]\\nwebhook = \"https://u:p@h.example/secret\"\\n' > /etc/seawall/seawall.toml\n";
    let said = doctor(config, &[]);
    said.assert("host.certificates", "warning", "https://h.example is configured");
    assert!(said.checks.iter().all(|check| !check.to_string().contains("secret")));
    let trusted = "mkdir -p /etc/ssl/certs\necho x > /etc/ssl/certs/ca-certificates.crt\n";
    doctor(&format!("{config}{trusted}"), &[]).assert("host.certificates", "ok", "ca-certificates");
}

#[test]
fn ownership_that_is_turned_off_costs_something_and_no_promise() {
    let said = doctor("echo 'ownership = \"off\"' > /etc/seawall/seawall.toml\n", &[]);
    said.assert("kernel.owner", "warning", "");
}

#[test]
fn the_scratch_netns_ends_with_whoever_asked_for_it() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    let mut holder =
        command.arg("scratch-netns").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "ready\n");
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    let scratch = std::fs::read_link(format!("/proc/{}/ns/net", holder.id())).unwrap();
    assert_ne!(scratch, own, "nothing is tried where it matters");
    // As when the one who asked is killed: its end of the pipe closes.
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
}
