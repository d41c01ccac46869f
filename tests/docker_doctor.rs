//! Docker layer: `seawall doctor` beside a real Docker and a running daemon: content where all is well, and aware of what is
//! taken away.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::time::Duration;

use harness::{DockerHost, Engine, Seawall, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const ENFORCE: &str = "mode = \"enforce\"\nunknown = \"deny\"";
const LIMIT: Duration = Duration::from_secs(10);

/// What doctor says, and its exit code.
fn doctor(seawall: &Seawall) -> (Vec<Value>, Option<i32>) {
    let output = seawall.cli(&["doctor", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr))
    });
    (said["checks"].as_array().unwrap().clone(), output.status.code())
}

/// The checks that came out like this, by name.
fn which<'c>(checks: &'c [Value], result: &str) -> Vec<&'c str> {
    let found = checks.iter().filter(|check| check["result"] == result);
    found.map(|check| check["id"].as_str().unwrap()).collect()
}

#[track_caller]
fn found<'c>(checks: &'c [Value], id: &str) -> &'c str {
    let check = checks.iter().find(|check| check["id"] == id).unwrap();
    check["found"].as_str().unwrap()
}

#[test]
fn with_wrapper_and_daemon_the_promises_hold_and_each_loss_is_told() {
    let host = DockerHost::start();
    let mut seawall = Seawall::start(&host, ENFORCE);
    let older = host.guest(&["--name", "older", "busybox:1", "sleep", "600"]);
    seawall.await_programmed(&older.id);

    // Without the wrapper one promise does not hold, and nothing else is wrong.
    let (checks, code) = doctor(&seawall);
    let wrapper = ["runtime.wrapper", "runtime.engine", "runtime.containers", "daemon.waited"];
    assert_eq!((which(&checks, "missing"), code), (wrapper.to_vec(), Some(1)), "{checks:#?}");
    assert!(which(&checks, "unknown").is_empty() && which(&checks, "skipped").is_empty());
    assert!(found(&checks, "docker.reachable").contains("docker.sock (docker.host)"));
    assert!(found(&checks, "docker.file").contains("as dockerd's --config-file says"));
    assert!(found(&checks, "containerd.reachable").starts_with("containerd "));
    for check in checks.iter().filter(|check| check["result"] == "missing") {
        assert_eq!(check["promises"], json!([1]), "{check:#}");
    }

    // With it, but for a container that was there before.
    seawall.install_runtime(&host);
    let (checks, _) = doctor(&seawall);
    assert_eq!(which(&checks, "missing"), ["runtime.containers", "daemon.waited"]);
    for id in ["runtime.containers", "daemon.waited"] {
        assert!(found(&checks, id).contains("older"), "{checks:#?}");
    }
    drop(older);
    until("it is forgotten", LIMIT, || seawall.workload("older").is_none());
    let newer = host.guest(&["--name", "newer", "busybox:1", "sleep", "600"]);
    seawall.await_programmed(&newer.id);
    let (checks, code) = doctor(&seawall);
    assert_eq!(which(&checks, "missing"), [""; 0], "{checks:#?}");
    assert_eq!(code, Some(0), "{checks:#?}");
    // Nothing at all is to be said of it on this kernel but what the host's others do.
    let told = which(&checks, "warning");
    assert!(told.iter().all(|id| id.starts_with("neighbours.")), "{checks:#?}");

    // A container that can change its own firewall, and one in the host's network: told, and no promise is broken.
    let admin = host.guest(&["--cap-add", "NET_ADMIN", "busybox:1", "sleep", "600"]);
    seawall.await_programmed(&admin.id);
    let (checks, code) = doctor(&seawall);
    assert!(which(&checks, "warning").contains(&"daemon.coverage"), "{checks:#?}");
    assert!(found(&checks, "daemon.coverage").contains("NET_ADMIN"));
    assert_eq!(code, Some(0));
    drop(admin);

    // A configuration that is refused.
    seawall.write("policy.d/broken.toml", "[[allow]]\nfrom = \"nonsense\"\n");
    assert!(!seawall.cli(&["reload"]).status.success());
    let (checks, code) = doctor(&seawall);
    assert_eq!((which(&checks, "missing"), code), (vec!["host.configuration"], Some(1)));
    assert!(found(&checks, "daemon.configuration").contains("broken.toml"));
    seawall.write("policy.d/broken.toml", "");
    seawall.cli_ok(&["reload"]);

    // Docker without the daemon, and the daemon without Docker.
    seawall.stop();
    let (checks, code) = doctor(&seawall);
    assert_eq!((which(&checks, "missing"), code), (vec!["daemon.running"], Some(1)));
    assert_eq!(which(&checks, "skipped").len(), 8, "{checks:#?}");
    seawall.run();

    // One that hangs is waited for some seconds, and told.
    seawall.signal(Signal::SIGSTOP);
    let (checks, code) = doctor(&seawall);
    seawall.signal(Signal::SIGCONT);
    assert_eq!((which(&checks, "missing"), code), (vec!["daemon.running"], Some(1)));
    assert!(found(&checks, "daemon.running").contains("does not answer"));
    host.stop_dockerd();
    until("both sources down", LIMIT, || {
        let status = seawall.json(&["status"]);
        status["sources"].as_array().unwrap().iter().all(|source| source["is_up"] == false)
    });
    let (checks, code) = doctor(&seawall);
    assert_eq!(code, Some(1));
    let missing = which(&checks, "missing");
    assert!(["docker.reachable", "daemon.sources"].iter().all(|id| missing.contains(id)));
}

#[test]
fn every_docker_is_recognised_with_its_configuration() {
    let keys = json!({"userland-proxy": false, "live-restore": true});
    for (engine, version) in Engine::ALL.into_iter().zip(["Docker 20.", "Docker 26.", "Docker 28."])
    {
        let host = DockerHost::start_configured(engine, &keys);
        let mut seawall = Seawall::start(&host, ENFORCE);
        let (checks, _) = doctor(&seawall);
        let docker = found(&checks, "docker.reachable");
        assert!(docker.contains(version) && docker.contains("(live-restore)"), "{checks:#?}");
        assert!(found(&checks, "docker.proxy").contains("is off"), "{checks:#?}");
        assert_eq!(which(&checks, "missing"), ["runtime.wrapper", "runtime.engine"], "{checks:#?}");
        assert!(which(&checks, "unknown").is_empty(), "{checks:#?}");
        // Another file than the one it reads.
        let (docker, containerd) = (host.socket(), host.containerd_socket());
        let (docker, containerd) = (docker.display(), containerd.display());
        seawall.stop();
        seawall.write(
            "seawall.toml",
            &format!(
                "[docker]\nhost = \"unix://{docker}\"\n[containerd]\naddress = \"{containerd}\"\n"
            ),
        );
        let (checks, _) = doctor(&seawall);
        assert!(which(&checks, "warning").contains(&"docker.file"), "{checks:#?}");
    }
}
