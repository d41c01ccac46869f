//! Package layer: the deb and the rpm: what is in them, and what becomes of a clean Debian with systemd and Docker when they
//! are installed, upgraded while there is traffic, removed and purged.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "package/machine.rs"]
mod machine;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use machine::{Machine, everything, root, succeed};
use seawall::config::Config;
use seawall::input::diagnostic::SourceFile;
use seawall::policy::Mode;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What Docker's configuration is before anything is installed.
const DAEMON_JSON: &str = "{\n  \"shutdown-timeout\": 1\n}\n";
/// The port nginx provides, one that it does not, and one where nobody listens.
const ALLOWED: u16 = 80;
const DENIED: u16 = 9999;
const REFUSED: u16 = 9998;

/// The packages of one revision.
#[derive(Clone)]
struct Packages {
    deb: PathBuf,
    rpm: PathBuf,
}

/// Those of two revisions, built once by what builds them for everybody, from the program that is tested.
fn packages() -> &'static [Packages; 2] {
    static BUILT: OnceLock<[Packages; 2]> = OnceLock::new();
    BUILT.get_or_init(|| {
        ["1", "2"].map(|revision| {
            let mut package = Command::new(root().join("scripts/package"));
            package.args(["--quick", "--revision", revision, "--program"]);
            let built = succeed(package.arg(env!("CARGO_BIN_EXE_seawall")));
            let named = |end: &str| built.lines().find(|line| line.ends_with(end)).unwrap().into();
            Packages { deb: named(".deb"), rpm: named(".rpm") }
        })
    })
}

fn files(packages: &[Packages; 2]) -> Vec<PathBuf> {
    packages.iter().flat_map(|one| [one.deb.clone(), one.rpm.clone()]).collect()
}

fn file_name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// Waits for what no event tells of.
#[track_caller]
fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen within {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Paths and modes of what is in the deb, by path.
fn deb_contents(deb: &Path) -> BTreeMap<String, String> {
    let listed = succeed(Command::new("dpkg-deb").arg("--contents").arg(deb));
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let path = fields[5].trim_start_matches('.').trim_end_matches('/').to_owned();
        (path, format!("{} {}", fields[0], fields[1]))
    };
    listed.lines().map(line).filter(|(path, _)| !path.is_empty()).collect()
}

/// Every command there is, as its manual page is called: found by asking for help.
fn commands() -> BTreeSet<String> {
    let mut found = BTreeSet::from(["seawall".to_owned()]);
    let mut open = vec![Vec::<String>::new()];
    while let Some(path) = open.pop() {
        let help = succeed(Command::new(env!("CARGO_BIN_EXE_seawall")).args(&path).arg("--help"));
        let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        let names = listed
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_whitespace().next())
            .filter(|name| *name != "help");
        for name in names {
            let path: Vec<String> = path.iter().cloned().chain([name.to_owned()]).collect();
            found.insert(format!("seawall-{}", path.join("-")));
            open.push(path);
        }
    }
    found
}

#[test]
fn everything_in_the_deb_is_where_it_belongs() {
    let contents = deb_contents(&packages()[0].deb);
    let is_listed_elsewhere = |path: &str| {
        ["/usr/share/doc/seawall/", "/usr/share/man/man1/"].iter().any(|top| path.starts_with(top))
    };
    let listed = contents.iter().filter(|(path, mode)| {
        // Of folders only those that are nobody else's.
        !is_listed_elsewhere(path) && (!mode.starts_with('d') || path.contains("seawall"))
    });
    let listed: Vec<String> = listed.map(|(path, mode)| format!("{mode} {path}")).collect();
    insta::assert_snapshot!(listed.join("\n"), @r"
    drwxr-xr-x root/root /etc/seawall
    drwxr-xr-x root/root /etc/seawall/models.d
    drwxr-xr-x root/root /etc/seawall/policy.d
    -rw-r--r-- root/root /etc/seawall/seawall.toml
    -rwxr-xr-x root/root /usr/bin/seawall
    -rw-r--r-- root/root /usr/lib/systemd/system/seawall.service
    -rw-r--r-- root/root /usr/lib/sysusers.d/seawall.conf
    -rw-r--r-- root/root /usr/share/bash-completion/completions/seawall
    drwxr-xr-x root/root /usr/share/doc/seawall
    -rw-r--r-- root/root /usr/share/fish/vendor_completions.d/seawall.fish
    -rw-r--r-- root/root /usr/share/lintian/overrides/seawall
    -rw-r--r-- root/root /usr/share/zsh/vendor-completions/_seawall
    ");
    let pages: BTreeSet<String> = contents
        .keys()
        .filter_map(|path| path.strip_prefix("/usr/share/man/man1/")?.strip_suffix(".1.gz"))
        .map(str::to_owned)
        .collect();
    assert_eq!(pages, commands(), "there is a manual page for every command, and no other");
    for document in ["copyright", "changelog.gz", "changelog.Debian.gz", "notices.txt.gz"] {
        assert!(contents.contains_key(&format!("/usr/share/doc/seawall/{document}")), "{document}");
    }
    for page in std::fs::read_dir(root().join("docs")).unwrap().flatten() {
        let name = page.file_name().into_string().unwrap();
        let packed = [name.clone(), format!("{name}.gz")]
            .iter()
            .any(|name| contents.contains_key(&format!("/usr/share/doc/seawall/{name}")));
        assert!(packed || page.path().is_dir(), "docs/{name} is packed");
    }
}

#[test]
fn the_deb_says_what_it_needs_and_what_an_operator_may_change() {
    let deb = &packages()[0].deb;
    let field = |name: &str| succeed(Command::new("dpkg-deb").arg("--field").arg(deb).arg(name));
    assert_eq!((field("Package"), field("Version")), ("seawall".into(), format!("{VERSION}-1")));
    let depends = field("Depends");
    for library in ["libc6 (>= ", "libnftnl11 (>= ", "libsqlite3-0 (>= ", "systemd"] {
        assert!(depends.contains(library), "{library} in {depends}");
    }
    assert_eq!(field("Recommends"), "ca-certificates");
    let conffiles = succeed(Command::new("dpkg-deb").args(["--info"]).arg(deb).arg("conffiles"));
    assert_eq!(conffiles, "/etc/seawall/seawall.toml");
}

#[test]
fn lintian_has_nothing_to_say_but_what_is_explained() {
    let mut lintian = Command::new("lintian");
    lintian.args(["--display-info", "--fail-on", "error,warning,info", "--allow-root"]);
    let said = lintian.arg(&packages()[0].deb).output().unwrap();
    assert!(said.status.success(), "{}", everything(&said));
    assert_eq!(everything(&said), "");
    let overrides = std::fs::read_to_string(root().join("packaging/debian/lintian-overrides"));
    let overrides = overrides.unwrap();
    let mut is_explained = false;
    for line in overrides.lines() {
        assert!(line.starts_with('#') || is_explained, "nothing explains `{line}`");
        is_explained = line.starts_with('#');
    }
}

#[test]
fn the_rpm_holds_the_same_and_says_what_it_needs() {
    let Packages { deb, rpm } = &packages()[0];
    let ask = |arguments: &[&str]| succeed(Command::new("rpm").args(arguments).arg(rpm));
    let files = ask(&["-qp", "--list"]);
    let is_folder_of_all = |path: &str| !path.contains("seawall");
    let elsewhere = ["/usr/share/doc/", "/usr/share/lintian/", "/usr/share/zsh/"];
    for path in deb_contents(deb).keys().filter(|path| !is_folder_of_all(path)) {
        let is_same = !elsewhere.iter().any(|top| path.starts_with(top));
        assert!(!is_same || files.lines().any(|file| file == path), "{path} is not in the rpm");
    }
    for path in [
        "/usr/share/zsh/site-functions/_seawall",
        "/usr/lib/systemd/system-preset/50-seawall.preset",
        "/usr/share/licenses/seawall/LICENSE",
        "/usr/share/doc/seawall/operating.md",
    ] {
        assert!(files.lines().any(|file| file == path), "{path} is not in the rpm");
    }
    assert_eq!(ask(&["-qp", "--configfiles"]), "/etc/seawall/seawall.toml");
    let requires = ask(&["-qp", "--requires"]);
    for library in ["libc.so.6(", "libnftnl.so.11(", "libsqlite3.so.0("] {
        assert!(requires.contains(library), "{library} in {requires}");
    }
    assert_eq!(ask(&["-qp", "--recommends"]), "ca-certificates");
    let scripts = ask(&["-qp", "--scripts"]);
    for script in ["postinstall", "preuninstall", "postuninstall"] {
        assert!(scripts.contains(&format!("{script} scriptlet")), "{scripts}");
    }
}

#[test]
fn the_configuration_that_is_installed_observes_and_shows_every_key_with_its_default() {
    let path = root().join("packaging/seawall.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let config = Config::parse(SourceFile { name: &path, text: &text }).unwrap();
    assert_eq!(config, Config::default(), "it changes nothing");
    assert_eq!(config.settings.mode, Mode::Observe);
    // What is behind a `#` and looks like a key is one.
    let is_key = |line: &str| {
        let key = line.strip_prefix("# ").and_then(|rest| rest.split_once('='));
        key.is_some_and(|(key, _)| key.trim().chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    };
    let shown: Vec<&str> =
        text.lines().map(|line| if is_key(line) { &line[2..] } else { line }).collect();
    assert!(shown.iter().filter(|line| line.contains('=') && !line.starts_with('#')).count() > 20);
    let shown = shown.join("\n");
    Config::parse(SourceFile { name: &path, text: &shown }).unwrap();
    let documented = std::fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let keys = documented.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    for key in keys.filter(|key| !key.contains('/')) {
        let key = key.rsplit('.').next().unwrap();
        let is_shown = |line: &str| line.split(['=', ' ']).next() == Some(key);
        assert!(shown.lines().any(is_shown), "{key} is not shown");
    }
}

#[test]
fn the_service_is_confined() {
    let unit = root().join("packaging/seawall.service");
    // Of five: below four is what systemd calls "OK".
    succeed(
        Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=40"])
            .arg(&unit),
    );
}

/// Installs the first revision on a machine that has containers: what was there goes on, and is looked after.
fn installed(machine: &Machine, packages: &[Packages; 2]) {
    machine.write("/etc/docker/daemon.json", DAEMON_JSON);
    machine.on(&["systemctl", "restart", "docker"]);
    let serve = format!("python3 -m http.server {DENIED} & exec nginx -g 'daemon off;'");
    let web = ["--name", "web", "--restart", "always", "--entrypoint", "sh", "nginx:1.22", "-c"];
    machine.run(&[&web[..], &[&serve]].concat());

    let said = machine.try_on(&["dpkg", "--install", file_name(&packages[0].deb)]);
    assert!(said.status.success(), "{}", everything(&said));
    assert_eq!(machine.service("ActiveState"), "active");
    assert_eq!(machine.service("UnitFileState"), "enabled");
    let socket = machine.on(&["stat", "--format", "%U:%G %a", "/run/seawall/seawall.sock"]);
    assert_eq!(socket, "root:seawall 660");
    let status = machine.seawall(&["status", "--wait"]);
    assert_eq!(status["mode"], "observe");
    assert_eq!(status["problems"], serde_json::json!([]));
    assert_eq!(status["workloads"][0]["coverage"], "observed");
    // Nothing is stopped, and what would be is told.
    assert!(reaches(machine, ALLOWED) && reaches(machine, DENIED));
    until("a count", Duration::from_secs(5), || {
        machine.seawall(&["status"])["workloads"][0]["denied_in"].as_u64() > Some(0)
    });
    // A refused connection ends at once, and what it carried is counted then.
    assert!(!reaches(machine, REFUSED));
    until("a flow with its bytes", Duration::from_secs(10), || {
        let flows = machine.seawall(&["flows"]);
        let mut flows = flows.as_array().unwrap().iter();
        flows.any(|flow| flow["carried"] == "9998/tcp" && flow["bytes_out"].as_u64() > Some(0))
    });
    machine.on(&["man", "--path", "seawall-runtime-install"]);
    // The confinement is in the way of nothing.
    let log = machine.on(&["journalctl", "--no-pager", "--unit", "seawall"]);
    assert!(!log.contains(" WARN ") && !log.contains(" ERROR "), "{log}");
}

/// Whether the machine itself gets an answer from a port of `web`.
fn reaches(machine: &Machine, port: u16) -> bool {
    let address = machine.inspect("web", "{{.NetworkSettings.IPAddress}}");
    let ask = "import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1)
s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
assert s.recv(4) == b'HTTP'";
    let port = port.to_string();
    machine.try_on(&["python3", "-c", ask, &address, &port]).status.success()
}

/// Enforces for `web`, and has containers that are made from now on wait.
fn enforced(machine: &Machine) {
    machine.on(&["seawall", "mode", "name:web", "enforce"]);
    until("enforcing", Duration::from_secs(5), || !reaches(machine, DENIED));
    assert!(reaches(machine, ALLOWED));
    let process = "import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try: s.sendto(b'x', ('203.0.113.9', 7))
except OSError: pass
time.sleep(5)";
    machine
        .on(&["docker", "exec", "--detach", "--user", "nobody", "web", "python3", "-c", process]);
    until("a denial with its process", Duration::from_secs(10), || {
        machine.seawall(&["events"]).to_string().contains("python3")
    });
    machine.on(&["seawall", "runtime", "install"]);
    machine.run(&["--name", "late", "busybox:1", "sleep", "600"]);
    let status = machine.seawall(&["status", "--wait", "late"]);
    assert_eq!(status["workloads"][0]["has_waited"], true, "{status:#}");
}

/// Upgrades while there is traffic; no verdict changes, whether or not the new version takes the configuration.
fn upgraded(machine: &Machine, packages: &[Packages; 2]) {
    let before = machine.service("MainPID");
    let traffic = machine.traffic("web", ALLOWED, DENIED);
    let upgrade = machine.try_on(&["dpkg", "--install", file_name(&packages[1].deb)]);
    assert!(upgrade.status.success(), "{}", everything(&upgrade));
    machine.seawall(&["status", "--wait"]);
    let after = machine.service("MainPID");
    assert_ne!(before, after, "the new version runs");
    assert_eq!(machine.service("ActiveState"), "active");
    let version = machine.on(&["dpkg-query", "--show", "--showformat", "${Version}", "seawall"]);
    assert_eq!(version, format!("{VERSION}-2"));

    // One that does not take the configuration leaves the one before running.
    let config = machine.on(&["cat", "/etc/seawall/seawall.toml"]);
    machine.write("/etc/seawall/seawall.toml", "mode = \"enforced\"\n");
    let refused = machine.try_on(&["dpkg", "--install", file_name(&packages[0].deb)]);
    let said = everything(&refused);
    assert!(refused.status.success() && said.contains("seawall.toml:1:8"), "{said}");
    assert_eq!(machine.service("MainPID"), after, "{said}");
    machine.write("/etc/seawall/seawall.toml", &format!("{config}\n"));
    machine.on(&["dpkg", "--install", file_name(&packages[1].deb)]);
    assert_ne!(machine.service("MainPID"), after);
    machine.seawall(&["status", "--wait"]);

    let counts = traffic.end();
    for wrong in ["lost", "broken", "leaked"] {
        assert_eq!(counts[wrong], 0, "{counts}");
    }
    for right in ["allowed", "kept", "denied"] {
        assert!(counts[right].as_u64() > Some(20), "{counts}");
    }
    println!("traffic during two upgrades and a refused one: {counts}");
}

/// After a boot everything is as before; neither waits for the other.
fn rebooted(machine: &Machine) {
    machine.reboot();
    assert_eq!(machine.service("ActiveState"), "active");
    assert_eq!(machine.service("NRestarts"), "0");
    machine.on(&["systemctl", "is-active", "docker"]);
    until("enforcing after the boot", Duration::from_secs(10), || {
        let status = machine.try_on(&["seawall", "status", "web", "--output", "json"]);
        everything(&status).contains("\"enforced\"")
    });
    assert!(reaches(machine, ALLOWED) && !reaches(machine, DENIED));
    machine.on(&["docker", "start", "late"]);
    assert_eq!(machine.seawall(&["status", "--wait", "late"])["workloads"][0]["has_waited"], true);
}

/// systemd starts a daemon that hangs anew.
fn watched(machine: &Machine) {
    machine.write("/etc/systemd/system/seawall.service.d/soon.conf", "[Service]\nWatchdogSec=2\n");
    machine.sh("systemctl daemon-reload; systemctl restart seawall");
    // Longer than the limit: it is alive, and says so.
    let hangs_not = Instant::now();
    until("three limits", Duration::from_secs(8), || hangs_not.elapsed() > Duration::from_secs(6));
    assert_eq!(machine.service("NRestarts"), "0");
    let pid = machine.service("MainPID");
    machine.on(&["kill", "-STOP", &pid]);
    until("a new start", Duration::from_secs(20), || {
        machine.service("NRestarts") == "1" && machine.service("ActiveState") == "active"
    });
    machine.sh("rm -r /etc/systemd/system/seawall.service.d; systemctl daemon-reload");
}

/// Docker works as if there had never been anything else.
fn works_as_before(machine: &Machine) {
    assert_eq!(machine.on(&["cat", "/etc/docker/daemon.json"]), DAEMON_JSON.trim());
    let runtimes =
        machine.on(&["docker", "info", "--format", "{{json .Runtimes}} {{.DefaultRuntime}}"]);
    assert!(!runtimes.contains("seawall") && runtimes.ends_with(" runc"), "{runtimes}");
    machine.on(&["docker", "run", "--rm", "busybox:1", "true"]);
    machine.sh("docker restart --time 1 web; systemctl restart docker");
    until("web", Duration::from_secs(10), || reaches(machine, DENIED));
    assert!(reaches(machine, ALLOWED));
}

fn nothing_is_left(machine: &Machine) {
    let left = machine.sh("find / -xdev -name '*seawall*' ! -path '/root/*' ! -path '/proc/*' ! -path '/sys/*' | sort");
    assert_eq!(left, "");
    let known = machine.try_on(&["systemctl", "list-unit-files", "--no-legend", "seawall*"]);
    assert_eq!(everything(&known), "");
}

#[test]
fn on_debian_12_it_is_installed_upgraded_removed_and_purged() {
    let packages = packages();
    let machine = Machine::boot("bookworm", &files(packages));
    installed(&machine, packages);
    enforced(&machine);
    upgraded(&machine, packages);
    rebooted(&machine);

    // Removed: what is in force stays, and no engine is left with a runtime that is gone.
    let removed = machine.try_on(&["dpkg", "--remove", "seawall"]);
    assert!(removed.status.success(), "{}", everything(&removed));
    assert!(machine.tables("web").contains("inet seawall"));
    assert!(reaches(&machine, ALLOWED) && !reaches(&machine, DENIED));
    assert!(!machine.on(&["cat", "/etc/docker/daemon.json"]).contains("/seawall/"));
    machine.on(&["docker", "exec", "late", "true"]);
    machine.on(&["docker", "restart", "--time", "1", "late"]);
    machine.on(&["docker", "run", "--rm", "busybox:1", "true"]);

    machine.on(&["docker", "rm", "--force", "late"]);
    let purged = machine.try_on(&["dpkg", "--purge", "seawall"]);
    assert!(purged.status.success(), "{}", everything(&purged));
    assert!(!machine.tables("web").contains("seawall"));
    nothing_is_left(&machine);
    works_as_before(&machine);
}

#[test]
fn on_debian_13_it_is_installed_upgraded_and_purged_at_once() {
    let packages = packages();
    let machine = Machine::boot("trixie", &files(packages));
    installed(&machine, packages);
    enforced(&machine);
    upgraded(&machine, packages);
    watched(&machine);
    rebooted(&machine);

    // While a container runs that was started through the wrapper, what it needs stays, and is none of seawall's.
    let purged = machine.try_on(&["dpkg", "--purge", "seawall"]);
    assert!(
        purged.status.success() && everything(&purged).contains("late"),
        "{}",
        everything(&purged)
    );
    assert!(
        !machine.tables("web").contains("seawall") && !machine.tables("late").contains("seawall")
    );
    let link = "/var/lib/seawall/runtime/seawall-runc";
    assert!(machine.on(&["readlink", link]).ends_with("/runc"));
    assert!(!machine.on(&["cat", "/etc/docker/daemon.json"]).contains("/seawall/"));
    machine.on(&["docker", "exec", "late", "true"]);
    machine.on(&["docker", "restart", "--time", "1", "late"]);
    machine.on(&["docker", "rm", "--force", "late"]);
    machine.sh("rm -r /var/lib/seawall");
    nothing_is_left(&machine);
    machine.write("/etc/docker/daemon.json", DAEMON_JSON);
    machine.on(&["systemctl", "restart", "docker"]);
    works_as_before(&machine);
}

#[test]
fn the_rpm_is_installed_upgraded_and_erased_by_rpm() {
    let packages = packages();
    let machine = Machine::boot("bookworm", &files(packages));
    machine.write("/etc/docker/daemon.json", DAEMON_JSON);
    machine.on(&["systemctl", "restart", "docker"]);
    // What it needs is there, but no rpm says so; and rpm warns of a system that is not its own.
    let rpm = ["rpm", "--nodeps", "--force-debian"];
    machine.on(&[&rpm[..], &["--install", file_name(&packages[0].rpm)]].concat());
    assert_eq!(
        (machine.service("ActiveState"), machine.service("UnitFileState")),
        ("active".into(), "enabled".into())
    );
    assert_eq!(machine.on(&["getent", "group", "seawall"]).split(':').next(), Some("seawall"));
    machine.run(&["--name", "one", "busybox:1", "sleep", "600"]);
    assert_eq!(machine.seawall(&["status", "--wait"])["workloads"][0]["coverage"], "observed");
    machine.on(&["seawall", "runtime", "install"]);
    let before = machine.service("MainPID");
    machine.on(&[&rpm[..], &["--upgrade", file_name(&packages[1].rpm)]].concat());
    assert_ne!(machine.service("MainPID"), before, "the new version runs");
    assert_eq!(machine.service("ActiveState"), "active");
    machine.on(&[&rpm[..], &["--erase", "seawall"]].concat());
    assert_eq!(machine.on(&["cat", "/etc/docker/daemon.json"]), DAEMON_JSON.trim());
    assert!(machine.tables("one").contains("inet seawall"), "what is in force stays");
    let left = machine.sh("find / -xdev -name '*seawall*' ! -path '/root/*' ! -path '/proc/*' ! -path '/var/lib/rpm/*' | sort");
    insta::assert_snapshot!(left, @r"
    /var/lib/seawall
    /var/log/seawall
    ");
}
