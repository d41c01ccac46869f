//! Containers with more power than others, and with users of their own.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;

use crate::awkward::ENFORCE;
use crate::harness::{DockerHost, Engine, OUTSIDE_NET4, OUTSIDE_NET6, Seawall, until};

const LIMIT: Duration = Duration::from_secs(10);

/// A runtime that leaves out of a container's capabilities what this very machine does not have: in a virtual machine or a
/// container runc refuses to start what is privileged, because some of the capabilities cannot be given.
const BOUNDED: &str = r#"#!/usr/bin/python3
import json, os, sys
SYS_RESOURCE = 24
bound = next(int(line.split()[1], 16) for line in open("/proc/self/status") if line.startswith("CapBnd"))
if "create" in sys.argv and not bound >> SYS_RESOURCE & 1:
    path = sys.argv[sys.argv.index("--bundle") + 1] + "/config.json"
    spec = json.load(open(path))
    for names in spec["process"]["capabilities"].values():
        names[:] = [name for name in names if name != "CAP_SYS_RESOURCE"]
    json.dump(spec, open(path, "w"))
os.execvp("runc", ["runc"] + sys.argv[1:])
"#;

#[test]
fn a_privileged_container_is_enforced_and_shown_as_degraded() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = folder.path().join("bounded");
    std::fs::write(&runtime, BOUNDED).unwrap();
    std::fs::set_permissions(&runtime, std::fs::Permissions::from_mode(0o755)).unwrap();
    let runtimes = json!({"runtimes": {"bounded": {"path": runtime}}});
    let host = DockerHost::start_configured(Engine::Bookworm, &runtimes);
    let seawall = Seawall::start(&host, ENFORCE);
    let run = ["--privileged", "--runtime", "bounded", "nginx:1.22", "sleep", "900"];
    let guest = host.guest(&run);
    seawall.await_programmed(&guest.id);
    let coverage = seawall.status_of(&guest.id)["coverage"].as_str().unwrap().to_owned();
    assert_eq!(coverage, "degraded (it is privileged and can change its own firewall)");
    for ip in [OUTSIDE_NET4, OUTSIDE_NET6] {
        assert!(!guest.tcp(ip, 443).is_reached(), "{ip}");
    }
    let human = seawall.cli_ok(&["status"]);
    assert!(human.contains("it is privileged"), "{human}");
}

#[test]
fn containers_with_users_of_their_own_are_filtered_like_others() {
    let host = DockerHost::start_configured(Engine::Trixie, &json!({"userns-remap": "default"}));
    // Images of other hosts belong to other users there.
    import_busybox(&host);
    let mut seawall = Seawall::start(&host, ENFORCE);
    host.docker_ok(&["network", "create", "--ipv6", "users"]);
    let run = [
        "--network",
        "users",
        "--stop-timeout",
        "0",
        "postgres:15",
        "/bin/busybox",
        "sleep",
        "900",
    ];
    let (store, mut other) = (host.guest(&run), host.guest(&run));
    let map = host.docker_ok(&["exec", &store.id, "/bin/busybox", "cat", "/proc/self/uid_map"]);
    assert!(map.split_whitespace().nth(1).is_some_and(|outside| outside != "0"), "{map}");
    let _servers = [5432, 4000].map(|port| store.tcp_server(port));
    let own = host.netns();
    let reaches = |port| {
        store.ips().into_iter().all(|ip| own.tcp((ip, port).into(), LIMIT / 10).is_reached())
    };
    until("the host reaches what it provides", LIMIT, || reaches(5432));
    assert!(!reaches(4000));
    assert!(store.ips().iter().all(|ip| !other.tcp(*ip, 4000).is_reached()));
    for ip in [OUTSIDE_NET4, OUTSIDE_NET6] {
        assert!(!store.tcp(ip, 443).is_reached(), "{ip}");
    }
    for container in [&store, &other] {
        let coverage = seawall.status_of(&container.id)["coverage"].as_str().unwrap().to_owned();
        assert!(coverage == "enforced" || coverage.contains("NET_RAW"), "{coverage}");
    }
    host.docker_ok(&["restart", &other.id]);
    other.look();
    seawall.await_programmed(&other.id);
    assert!(other.table().is_some());
    // containerd has them in a namespace of another name then; they are Docker's all the same.
    seawall.stop();
    seawall.run();
    let listed = "listed source=containerd workloads=";
    for line in seawall.log().lines().filter(|line| line.contains(listed)) {
        assert!(line.ends_with("workloads=0"), "{line}");
    }
    assert!(reaches(5432));
    assert_eq!(seawall.log_at("ERROR"), Vec::<String>::new());
}

/// busybox, under the name of an image that a model knows.
fn import_busybox(host: &DockerHost) {
    let rootfs = tempfile::tempdir().unwrap();
    let program = rootfs.path().join("bin");
    std::fs::create_dir(&program).unwrap();
    std::fs::copy("/bin/busybox", program.join("busybox")).unwrap();
    let mut tar = std::process::Command::new("tar");
    tar.arg("-C").arg(rootfs.path()).args(["-c", "."]).stdout(Stdio::piped());
    let mut tar = tar.spawn().unwrap();
    let mut import = host.docker_command(&["import", "-", "postgres:15"]);
    let status = import.stdin(tar.stdout.take().unwrap()).status().unwrap();
    assert!(status.success() && tar.wait().unwrap().success());
}
