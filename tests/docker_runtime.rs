//! Docker layer: the OCI runtime wrapper on a real Docker: installing, what happens without the daemon, and addresses that
//! pass from one container to the next.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use harness::{Capture, DockerHost, FIRST_WORD, Seawall, held, until};
use nix::sys::signal::Signal;

/// The port of everything that is not allowed.
const DENIED: u16 = 47_474;
const ENFORCE: &str = "mode = \"enforce\"\nunknown = \"deny\"";
/// What the engine itself needs to start a container, beside the wrapper's wait.
const SLACK: Duration = Duration::from_secs(6);

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_wrapper_is_installed_and_taken_away_without_a_trace() {
    let host = DockerHost::start();
    let seawall = Seawall::start(&host, ENFORCE);
    let before = std::fs::read_to_string(host.daemon_config()).unwrap();
    assert_eq!(seawall.runtime(&host, &["status"]).status.code(), Some(1), "nothing is installed");
    let older = host.run(&["--name", "older", "busybox:1", "sleep", "600"]);

    let installed = seawall.runtime(&host, &["install"]);
    let said = String::from_utf8_lossy(&installed.stdout).into_owned();
    assert!(installed.status.success() && said.contains("older"), "{said}{}", stderr(&installed));
    assert_eq!(host.container("older").pid, older.pid, "no container was restarted");
    assert_eq!(seawall.runtime(&host, &["status"]).status.code(), Some(1), "one does not wait");
    host.docker_ok(&["rm", "--force", "older"]);
    let status = seawall.runtime(&host, &["status"]);
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));

    let newer = host.run(&["--name", "newer", "busybox:1", "sleep", "600"]);
    assert_eq!(seawall.status_of(&newer.id)["has_waited"], true);
    let refused = seawall.runtime(&host, &["uninstall"]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("newer"), "{}", stderr(&refused));
    host.docker_ok(&["rm", "--force", "newer"]);
    let done = seawall.runtime(&host, &["uninstall"]);
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(std::fs::read_to_string(host.daemon_config()).unwrap(), before);
    let left = std::fs::read_dir(host.daemon_config().parent().unwrap()).unwrap().flatten();
    let left: Vec<_> =
        left.filter(|one| one.file_name().to_string_lossy().contains("seawall")).collect();
    assert!(left.is_empty(), "{left:?}");
    until("Docker without the wrapper", Duration::from_secs(10), || {
        !host.docker_ok(&["info", "--format", "{{json .Runtimes}}"]).contains("seawall")
    });
    let plain = host.run(&["--name", "plain", "busybox:1", "sleep", "600"]);
    assert_eq!(seawall.status_of(&plain.id)["has_waited"], false);
}

#[test]
fn a_file_docker_would_not_read_is_left_alone() {
    let host = DockerHost::start();
    let seawall = Seawall::prepare(&host, ENFORCE);
    for broken in ["{ \"runtimes\": {}, // mine\n}", "[]", "{\"runtimes\": 3}", "{\"a\": "] {
        let file = host.daemon_config().with_file_name("broken.json");
        std::fs::write(&file, broken).unwrap();
        let named = file.display().to_string();
        for command in ["install", "uninstall", "status"] {
            let done = seawall.cli(&["runtime", command, "--docker-config", &named]);
            assert_eq!(done.status.code(), Some(2), "{command} {broken}: {}", stderr(&done));
            assert!(stderr(&done).contains(&named) && stderr(&done).contains("left as it is"));
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), broken);
    }
}

#[test]
fn taken_away_for_good_the_wrapper_leads_to_the_real_runtime_while_it_may_be_called() {
    let host = DockerHost::start();
    let seawall = Seawall::start(&host, ENFORCE);
    seawall.install_runtime(&host);
    let made = host.run(&["--name", "made", "busybox:1", "sleep", "600"]);
    assert_eq!(seawall.status_of(&made.id)["has_waited"], true);
    let installed = std::fs::read_to_string(host.daemon_config()).unwrap();
    let leads_to = || std::fs::read_link(seawall.wrapper("runc")).unwrap();
    let own = leads_to();

    // A file nobody can change goes on naming the wrapper.
    std::fs::write(host.daemon_config(), "{ \"runtimes\": ").unwrap();
    let failed = seawall.runtime(&host, &["uninstall", "--all"]);
    assert_eq!(failed.status.code(), Some(3), "{}", stderr(&failed));
    assert!(stderr(&failed).contains("left as it is"), "{}", stderr(&failed));
    assert!(leads_to().ends_with("runc") && leads_to() != own, "{}", leads_to().display());
    host.docker_ok(&["exec", "made", "true"]);

    // With a file that can be changed the name stays, because there is a container that has it.
    std::fs::write(host.daemon_config(), installed).unwrap();
    let done = seawall.runtime(&host, &["uninstall", "--all"]);
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(String::from_utf8_lossy(&done.stdout).contains("made"));
    let left: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(host.daemon_config()).unwrap()).unwrap();
    let path = left["runtimes"]["seawall"]["path"].as_str().unwrap();
    assert!(path.ends_with("/runc") && left["default-runtime"].is_null(), "{left:#}");
    let known = ["info", "--format", "{{.DefaultRuntime}}"];
    assert_eq!(host.docker_ok(&known), "runc");

    host.docker_ok(&["rm", "--force", "made"]);
    let done = seawall.runtime(&host, &["uninstall", "--all"]);
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(!seawall.wrapper("runc").is_symlink());
    assert!(!std::fs::read_to_string(host.daemon_config()).unwrap().contains("seawall"));
    host.docker_ok(&["run", "--rm", "busybox:1", "true"]);
}

/// One start by the wrapper while the daemon is in some state: how it ended, what it said, what left it, how long it took.
struct Start {
    output: Output,
    frames: usize,
    took: Duration,
}

impl Start {
    /// `docker run` of a container that talks at its first instruction to the host, and then stays for a while.
    fn of(host: &DockerHost, name: &str) -> Self {
        let targets = [DockerHost::ADDR4, DockerHost::ADDR6].map(|ip| SocketAddr::new(ip, DENIED));
        let targets = targets.map(|target| target.to_string());
        let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
        let capture = Capture::of_port(&host.netns(), DENIED);
        let began = Instant::now();
        let run = ["run", "--detach", "--name", name, FIRST_WORD, "--stay", "60"];
        let output = host.docker(&[&run[..], &targets].concat());
        let took = began.elapsed();
        if output.status.success() {
            // Its last line is written when every target has been tried.
            until("its first words", Duration::from_secs(10), || {
                host.docker_ok(&["logs", name]).lines().count() == targets.len()
            });
        }
        Self { output, frames: capture.end().len(), took }
    }
}

#[test]
fn without_the_daemon_a_start_ends_as_configured_and_within_its_bound() {
    let host = DockerHost::start();
    host.import_first_word();
    let wait = Duration::from_millis(1500);
    let mut seawall = Seawall::start(&host, ENFORCE);
    seawall.install_runtime(&host);
    for (fallback, does_start, may_talk) in
        [("deny-all", true, false), ("refuse", false, false), ("allow", true, true)]
    {
        let settings = format!("{ENFORCE}\n[runtime]\nwait_ms = 1500\nfallback = \"{fallback}\"");
        seawall.configure(&settings, &host.socket(), &host.containerd_socket());
        for state in ["absent", "hung", "killed"] {
            let name = format!("{fallback}-{state}");
            let start = match state {
                "absent" => {
                    seawall.stop();
                    let start = Start::of(&host, &name);
                    seawall.run();
                    start
                }
                "hung" => {
                    seawall.signal(Signal::SIGSTOP);
                    let start = Start::of(&host, &name);
                    seawall.signal(Signal::SIGCONT);
                    start
                }
                _ => {
                    seawall.signal(Signal::SIGSTOP);
                    let start = std::thread::scope(|scope| {
                        let start = scope.spawn(|| Start::of(&host, &name));
                        until("a wrapper that waits", SLACK, || waits(&host));
                        seawall.kill9();
                        start.join().unwrap()
                    });
                    seawall.run();
                    start
                }
            };
            let Start { output, frames, took } = start;
            println!(
                "{name}: {} frames, {} ms, {}",
                frames,
                took.as_millis(),
                stderr(&output).trim()
            );
            assert_eq!(output.status.success(), does_start, "{name}: {}", stderr(&output));
            assert_eq!(frames > 0, may_talk, "{name}: {frames} frames left it");
            assert!(took < wait + SLACK, "{name} took {took:?}");
            if !does_start {
                assert!(
                    stderr(&output).contains("runtime.fallback"),
                    "{name}: {}",
                    stderr(&output)
                );
            } else {
                let container = host.container(&name);
                // The daemon is back: its policy takes the place of whatever the wrapper left.
                seawall.await_programmed(&container.id);
                assert!(held(&container.netns()).is_some(), "{name}");
                assert_eq!(seawall.status_of(&container.id)["mode"], "enforce", "{name}");
            }
            host.docker_ok(&["rm", "--force", &name]);
        }
    }
}

/// Whether a wrapper of this host waits now: its process is `start`ed and has not become runc yet.
fn waits(host: &DockerHost) -> bool {
    host.pids().iter().any(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let is_wrapper = words.first().is_some_and(|word| word.ends_with(b"seawall-runc"));
        is_wrapper && words.contains(&&b"start"[..])
    })
}

#[test]
fn a_daemon_that_restarts_meanwhile_lets_the_container_start_with_its_policy() {
    let host = DockerHost::start();
    host.import_first_word();
    let mut seawall = Seawall::start(&host, &format!("{ENFORCE}\n[runtime]\nwait_ms = 20000"));
    seawall.install_runtime(&host);
    seawall.signal(Signal::SIGSTOP);
    let start = std::thread::scope(|scope| {
        let start = scope.spawn(|| Start::of(&host, "patient"));
        until("a wrapper that waits", SLACK, || waits(&host));
        seawall.kill9();
        seawall.run();
        start.join().unwrap()
    });
    assert!(start.output.status.success(), "{}", stderr(&start.output));
    assert_eq!(start.frames, 0);
    let id = host.container("patient").id;
    assert_eq!(seawall.status_of(&id)["has_waited"], true);
}

#[test]
fn where_nothing_is_enforced_a_daemon_that_is_away_denies_nothing() {
    let host = DockerHost::start();
    host.import_first_word();
    let mut seawall = Seawall::start(&host, "mode = \"observe\"");
    seawall.install_runtime(&host);
    seawall.stop();
    let start = Start::of(&host, "watched");
    assert!(start.output.status.success(), "{}", stderr(&start.output));
    assert!(start.frames > 0, "it was closed");
}

#[test]
fn the_next_holder_of_an_address_gets_nothing_meant_for_the_former_one() {
    let host = DockerHost::start();
    host.import_first_word();
    let seawall = Seawall::start(&host, ENFORCE);
    seawall.install_runtime(&host);
    host.docker_ok(&["network", "create", "--subnet", "172.27.9.0/24", "shared"]);
    seawall.write(
        "policy.d/shared.toml",
        "[[allow]]\nfrom = \"name:friend-*\"\nto = \"name:server\"\nports = \"5000/tcp\"\n\
         [[allow]]\nfrom = \"name:stranger-*\"\nto = \"name:nobody\"\nports = \"5000/tcp\"\n\
         [[allow]]\nfrom = \"name:stranger-*\"\nto = \"cidr:172.27.9.0/24\"\nports = \"5000/tcp\"\n",
    );
    seawall.cli_ok(&["reload"]);
    let server =
        host.run(&["--name", "server", "--network", "shared", "busybox:1", "sleep", "600"]);
    let _listener = server.tcp_server(5000);
    let target = format!("{}:5000", server.ips()[0]);
    let begin = |name: &str| {
        let run = ["run", "--detach", "--name", name, "--network", "shared", "--ip", "172.27.9.77"];
        host.docker_ok(&[&run[..], &[FIRST_WORD, "--stay", "60", &target]].concat());
        let mut said = String::new();
        until("its first words", Duration::from_secs(10), || {
            said = host.docker_ok(&["logs", name]);
            said.lines().count() == 1
        });
        said.ends_with("reached")
    };
    let (mut friends, mut strangers) = (0, 0);
    for round in 0..12 {
        friends += usize::from(begin(&format!("friend-{round}")));
        // The stranger's own policy lets it ask; only the server's word on the address keeps it out.
        host.docker_ok(&["rm", "--force", &format!("friend-{round}")]);
        strangers += usize::from(begin(&format!("stranger-{round}")));
        host.docker_ok(&["rm", "--force", &format!("stranger-{round}")]);
    }
    println!(
        "the address changed hands 24 times: {friends} of 12 friends reached the server, {strangers} of 12 strangers"
    );
    assert_eq!((friends, strangers), (12, 0));
}

#[test]
fn only_root_may_say_that_a_container_starts() {
    let host = DockerHost::start();
    let seawall = Seawall::start(&host, ENFORCE);
    let socket = seawall.socket();
    // Rights that let everybody connect: the daemon asks the kernel who it is all the same.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&socket, open).unwrap();
    std::fs::set_permissions(
        socket.parent().unwrap(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let ask = |uid: &str| {
        let answer = Command::new("setpriv")
            .args([
                "--reuid",
                uid,
                "--regid",
                uid,
                "--clear-groups",
                "curl",
                "--silent",
                "--max-time",
                "2",
            ])
            .args(["--unix-socket", &socket.display().to_string()])
            .args([
                "--header",
                "content-type: application/json",
                "--data",
                "{\"id\": \"x\", \"pid\": 1}",
            ])
            .args(["--write-out", "%{http_code}", "http://seawall/v1/starts"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&answer.stdout).into_owned()
    };
    assert!(ask("65534").ends_with("403"), "{}", ask("65534"));
    // Root's question about a container nobody knows has no answer: it is waited for.
    assert!(ask("0").ends_with("000"), "{}", ask("0"));
}
