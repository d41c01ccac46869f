//! Docker layer: with the runtime wrapper, before runc and before crun, containers behave as without it, on each Docker that Debian ships.

mod harness;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use harness::{DockerHost, Engine, OUTSIDE_NET4, OUTSIDE_NET6, Seawall, until};
use serde_json::{Value, json};

const ENFORCE: &str = "mode = \"enforce\"\nunknown = \"deny\"\n\
                       resolvers = [\"203.0.113.53\", \"2001:db8:53::53\"]";
const CALLERS: &str =
    "[[allow]]\nfrom = \"label:caller=yes\"\nto = \"internet\"\nports = [\"443/tcp\"]\n";
const LIMIT: Duration = Duration::from_secs(10);
/// Answers signals, and ends with a code of its own.
const LIFE: &str = "trap 'echo usr1' USR1; trap 'echo term; exit 3' TERM; echo up; \
                    while :; do sleep 0.1; done";

#[test]
fn containers_of_docker_20_10_behave_as_without_the_wrapper() {
    behave_alike(Engine::Bookworm);
}

#[test]
fn containers_of_docker_26_1_behave_as_without_the_wrapper() {
    behave_alike(Engine::Trixie);
}

#[test]
fn containers_of_docker_28_5_behave_as_without_the_wrapper() {
    behave_alike(Engine::Sid);
}

fn behave_alike(engine: Engine) {
    let start = Instant::now();
    let own = json!({"live-restore": true, "runtimes": {"plain-crun": {"path": "/usr/bin/crun"}}});
    let host = DockerHost::start_configured(engine, &own);
    let before = config(&host);
    let early = host.run(&["--name", "early", "busybox:1", "sleep", "900"]);
    let mut seawall = Seawall::prepare(&host, ENFORCE);
    seawall.write("policy.d/callers.toml", CALLERS);
    seawall.run();
    install(&seawall, &host);
    assert_eq!(config(&host)["live-restore"], true, "everything else stays");
    assert_eq!(host.container("early").pid, early.pid, "no container was restarted");
    calls_pass_through(&host, &seawall);
    for (plain, wrapped) in [("runc", "seawall"), ("plain-crun", "seawall-crun")] {
        let [plain, wrapped] = std::thread::scope(|scope| {
            [plain, wrapped]
                .map(|name| scope.spawn(|| outcomes(&host, name)))
                .map(|done| done.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        assert_eq!(plain.len(), wrapped.len());
        for (what, outcome) in &plain {
            assert_eq!(outcome, &wrapped[what], "{what}, without and with the wrapper");
        }
        println!("{} outcomes are the same", plain.len());
    }
    first_instructions_meet_the_policy(&host, &seawall);
    a_restarted_dockerd_uses_it(&host, &seawall);
    uninstall(&seawall, &host);
    assert_eq!(config(&host), before);
    host.docker_ok(&["run", "--rm", "busybox:1", "true"]);
    assert_eq!(host.container("early").pid, early.pid);
    let log = seawall.log();
    assert!(!log.contains("ERROR"), "{log}");
    println!("{engine:?}: {} s", start.elapsed().as_secs());
}

fn config(host: &DockerHost) -> Value {
    let text = std::fs::read_to_string(host.daemon_config()).expect("it is there");
    serde_json::from_str(&text).expect("it is JSON")
}

/// Before runc as the default, and before crun for whoever asks for it.
fn install(seawall: &Seawall, host: &DockerHost) {
    let file = host.daemon_config().display().to_string();
    let common = ["runtime", "install", "--docker-config", &file];
    let crun = ["--name", "seawall-crun", "--runtime", "crun", "--no-default"];
    seawall.cli_inside(host, &[&common[..], &crun].concat());
    let said = seawall.cli_inside(host, &common);
    assert!(said.contains("no container was restarted") && said.contains("early"), "{said}");
    let default = host.docker_ok(&["info", "--format", "{{.DefaultRuntime}}"]);
    assert_eq!(default, "seawall");
}

fn uninstall(seawall: &Seawall, host: &DockerHost) {
    let file = host.daemon_config().display().to_string();
    for name in ["seawall-crun", "seawall"] {
        let args = ["runtime", "uninstall", "--docker-config", &file, "--name", name];
        seawall.cli_inside(host, &args);
    }
    assert_eq!(host.docker_ok(&["info", "--format", "{{.DefaultRuntime}}"]), "runc");
    let known = host.docker_ok(&["info", "--format", "{{json .Runtimes}}"]);
    assert!(!known.contains("seawall"), "{known}");
    for runtime in ["runc", "crun"] {
        assert!(!seawall.wrapper(runtime).exists());
    }
}

/// The wrapper called by hand: whatever is no start of a container is the runtime's own answer.
fn calls_pass_through(host: &DockerHost, seawall: &Seawall) {
    let bundle = tempfile::tempdir().expect("a temporary folder can be made");
    std::fs::write(bundle.path().join("config.json"), "{ broken").expect("it can be written");
    let bundle = bundle.path().display().to_string();
    let calls: [&[&str]; 14] = [
        &[],
        &["--version"],
        &["features"],
        &["bogus"],
        &["--bogus"],
        &["list"],
        &["state", "nobody"],
        &["start"],
        &["start", "nobody"],
        &["kill", "nobody", "9"],
        &["delete", "nobody"],
        &["exec", "nobody", "true"],
        &["create", "--bundle", "/nonexistent", "nobody"],
        &["run", "--bundle", &bundle, "nobody"],
    ];
    for runtime in ["runc", "crun"] {
        let found = host.inside(&["sh", "-c", &format!("command -v {runtime}")]).output();
        let plain =
            String::from_utf8_lossy(&found.expect("it can be run").stdout).trim().to_owned();
        let wrapper = seawall.wrapper(runtime).display().to_string();
        for call in calls {
            let say = |program: &str| {
                let argv = [&[program], call].concat();
                outcome(&host.inside(&argv).output().expect("it can be run"))
            };
            assert_eq!(say(&plain), say(&wrapper), "{runtime} {call:?}");
        }
    }
}

/// What becomes of containers of a runtime: everything people and programs see of them.
fn outcomes(host: &DockerHost, runtime: &str) -> BTreeMap<&'static str, String> {
    let mut outcomes = BTreeMap::new();
    let run = |options: &[&str], argv: &[&str]| {
        let run = ["run", "--rm", "--runtime", runtime];
        host.docker(&[&run[..], options, &["busybox:1"], argv].concat())
    };
    let script = "echo out; echo err >&2; cat /proc/self/uid_map; echo $A; pwd; id; exit 7";
    let options = ["-e", "A=b", "-w", "/tmp", "-u", "1000:1000", "--init"];
    outcomes.insert("streams and exit code", outcome(&run(&options, &["sh", "-c", script])));
    let limits = ["--cap-drop", "ALL", "--read-only", "--pids-limit", "50", "--memory", "64m"];
    let show = ["sh", "-c", "grep Cap /proc/self/status; touch /x; ulimit -n; env | sort"];
    outcomes.insert("limits", outcome(&run(&[&limits[..], &["-h", "same"]].concat(), &show)));
    outcomes.insert("a program that is not there", outcome(&run(&[], &["/nonexistent"])));
    outcomes.insert("a program that is none", outcome(&run(&[], &["/etc/passwd"])));
    outcomes.insert("a folder that is not there", outcome(&run(&["-w", "/etc/passwd"], &["id"])));
    outcomes.insert("death by signal", outcome(&run(&[], &["sh", "-c", "kill -9 $$"])));
    for network in ["none", "host"] {
        let ended = run(&["--network", network], &["sh", "-c", "ls /sys/class/net | wc -l"]);
        outcomes.insert(network, ended.status.to_string());
    }
    outcomes.insert("stdin", outcome(&fed(host, &["-i"], runtime, "cat; exit 5", "fed\n")));
    outcomes.insert("a terminal", on_a_terminal(host, runtime));
    life(host, runtime, &mut outcomes);
    outcomes
}

/// A container from start to removal.
fn life(host: &DockerHost, runtime: &str, outcomes: &mut BTreeMap<&'static str, String>) {
    let run = ["run", "-d", "--runtime", runtime, "--stop-timeout", "5"];
    let id = host.docker_ok(&[&run[..], &["busybox:1", "sh", "-c", LIFE]].concat());
    let inspect = |what: &str| host.docker_ok(&["inspect", "--format", what, &id]);
    let logs = || host.docker_ok(&["logs", &id]);
    until("it is up", LIMIT, || logs() == "up");
    let exec = |argv: &[&str]| outcome(&host.docker(&[&["exec"], argv].concat()));
    let codes = exec(&[&id, "sh", "-c", "echo in; echo err >&2; exit 9"]);
    outcomes.insert("exec", codes);
    outcomes.insert("exec of nothing", exec(&[&id, "/nonexistent"]));
    outcomes
        .insert("exec with a terminal", exec(&["-t", "-w", "/tmp", &id, "sh", "-c", "tty; pwd"]));
    outcomes.insert(
        "exec as somebody",
        exec(&["-u", "7:8", "-e", "A=b", &id, "sh", "-c", "id; echo $A"]),
    );
    let top = host.docker_ok(&["top", &id, "-o", "pid,comm"]);
    let lists_it = top.lines().any(|line| line.split_whitespace().nth(1) == Some("sh"));
    outcomes.insert("top", lists_it.to_string());
    host.docker_ok(&["kill", "--signal", "USR1", &id]);
    until("it answers", LIMIT, || logs().ends_with("usr1"));
    host.docker_ok(&["pause", &id]);
    let paused = outcome(&host.docker(&["exec", &id, "true"]));
    outcomes.insert("paused", inspect("{{.State.Status}}") + &paused);
    host.docker_ok(&["unpause", &id]);
    outcomes.insert("update", outcome(&host.docker(&["update", "--pids-limit", "77", &id])));
    host.docker_ok(&["restart", &id]);
    until("it is up again", LIMIT, || logs().matches("up").count() == 2);
    host.docker_ok(&["stop", &id]);
    let ended = "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}} {{.State.OOMKilled}}";
    outcomes.insert("stopped", inspect(ended));
    host.docker_ok(&["start", &id]);
    let sharing = format!("container:{id}");
    let mate = ["run", "--rm", "--runtime", runtime, "--network", &sharing, "busybox:1", "true"];
    outcomes.insert("a netns shared", outcome(&host.docker(&mate)));
    host.docker_ok(&["kill", &id]);
    outcomes.insert("wait", host.docker_ok(&["wait", &id]));
    outcomes.insert("killed", inspect(ended));
    outcomes.insert("the whole log", logs());
    host.docker_ok(&["rm", &id]);
}

fn fed(host: &DockerHost, options: &[&str], runtime: &str, script: &str, input: &str) -> Output {
    let run = ["run", "--rm", "--runtime", runtime];
    let mut docker =
        host.docker_command(&[&run[..], options, &["busybox:1", "sh", "-c", script]].concat());
    docker.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    write_and_wait(docker, input)
}

fn write_and_wait(mut command: Command, input: &str) -> Output {
    let mut child = command.spawn().expect("it can be run");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

/// `docker run -it`, on a terminal that script(1) makes.
fn on_a_terminal(host: &DockerHost, runtime: &str) -> String {
    let run = ["run", "-it", "--rm", "--runtime", runtime, "busybox:1", "sh", "-c"];
    // The size arrives shortly after the start.
    let inside = "'tty; until stty size 2>/dev/null | grep -q 33.99; do sleep 0.1; done; read x; echo got $x; exit 4'";
    let docker = host.docker_command(&run);
    let words = [docker.get_program()].into_iter().chain(docker.get_args());
    let line: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let mut script = Command::new("script");
    script.args([
        "-qec",
        &format!("stty rows 33 cols 99; {} {inside}", line.join(" ")),
        "/dev/null",
    ]);
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ended = outcome(&write_and_wait(script, "hello\n"));
    assert!(ended.contains("got hello"), "{ended}");
    // What is typed is echoed by two terminals, before or after what the program says.
    ended.lines().filter(|line| *line != "hello").collect::<Vec<_>>().join("\n")
}

/// Exit code and both streams, without what differs from container to container.
fn outcome(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = format!("{}\n{}--\n{}", output.status, text(&output.stdout), text(&output.stderr));
    let is_id = |word: &str| word.len() >= 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_separator = |c: char| !c.is_ascii_alphanumeric();
    let words = said.split_inclusive(is_separator).map(|word| {
        let bare = word.trim_end_matches(is_separator);
        if is_id(bare) { word.replace(bare, "ID") } else { word.to_owned() }
    });
    let said: String = words.collect();
    // The engine names the program it called.
    let is_program = |word: &str| word.ends_with("/crun") || word.ends_with("/seawall-crun");
    let said = said.split(' ').map(|word| if is_program(word) { "PROGRAM" } else { word });
    let said = said.collect::<Vec<_>>().join(" ");
    // runc's own log lines begin with the time.
    let lines = said.lines().map(|line| match line.strip_prefix("time=") {
        Some(line) => line.split_once(' ').map_or(line, |(_, rest)| rest),
        None => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Whoever connects at its first instruction is denied what is denied, and allowed what is allowed.
fn first_instructions_meet_the_policy(host: &DockerHost, seawall: &Seawall) {
    for runtime in ["seawall", "seawall-crun"] {
        for ip in [OUTSIDE_NET4, OUTSIDE_NET6].map(|ip| ip.to_string()) {
            let connects = |options: &[&str]| {
                let run = ["run", "--rm", "--runtime", runtime];
                let nc = ["busybox:1", "nc", "-w", "3", ip.as_str(), "443"];
                host.docker(&[&run[..], options, &nc].concat()).status.success()
            };
            assert!(!connects(&[]), "{runtime} {ip}");
            assert!(connects(&["--label", "caller=yes"]), "{runtime} {ip}");
        }
        let guest = host.guest(&["--runtime", runtime, "busybox:1", "sleep", "900"]);
        let status = seawall.status_of(&guest.id);
        assert_eq!(status["has_waited"], true, "{status:#}");
    }
}

/// dockerd away and back, containers running on (`live-restore`): they can be stopped and started as before.
fn a_restarted_dockerd_uses_it(host: &DockerHost, seawall: &Seawall) {
    let guest = host.guest(&["--stop-timeout", "1", "busybox:1", "sleep", "900"]);
    host.stop_dockerd();
    host.start_dockerd();
    assert_eq!(host.container(&guest.id).pid, guest.pid, "it lived on");
    host.docker_ok(&["exec", &guest.id, "true"]);
    host.docker_ok(&["restart", &guest.id]);
    let runtime = host.docker_ok(&["inspect", "--format", "{{.HostConfig.Runtime}}", &guest.id]);
    assert_eq!(runtime, "seawall");
    seawall.await_programmed(&guest.id);
    assert_eq!(seawall.status_of(&guest.id)["has_waited"], true);
}
