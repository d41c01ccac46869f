//! Docker layer: Podman with the runtime wrapper as its runtime, rootful: containers behave as without it, but for the wait.
//!
//! Podman tells nobody anything of a container while it starts it, so the daemon learns of it too late: the wrapper waits as
//! long as it is told to, closes the container, says so, and the daemon opens it to its policy as soon as it may look.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use harness::{DockerHost, Seawall, until};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(10);
const LIFE: &str = "trap 'echo usr1' USR1; trap 'echo term; exit 3' TERM; echo up; \
                    while :; do /bin/busybox sleep 0.1; done";

/// Podman with a storage of its own, as a process of a private host.
struct Podman<'h> {
    host: &'h DockerHost,
    folder: TempDir,
}

impl<'h> Podman<'h> {
    fn new(host: &'h DockerHost) -> Self {
        let podman = Self { host, folder: tempfile::tempdir().unwrap() };
        let rootfs = tempfile::tempdir().unwrap();
        for folder in ["bin", "proc", "sys", "dev", "tmp", "etc"] {
            std::fs::create_dir(rootfs.path().join(folder)).unwrap();
        }
        let program = rootfs.path().join("bin/busybox");
        std::fs::copy("/bin/busybox", program).unwrap();
        std::os::unix::fs::symlink("busybox", rootfs.path().join("bin/sh")).unwrap();
        let mut tar = std::process::Command::new("tar");
        tar.arg("-C").arg(rootfs.path()).args(["-c", "."]).stdout(Stdio::piped());
        let mut tar = tar.spawn().unwrap();
        let mut import = podman.command(&["import", "-", "busybox:1"]);
        let output = import.stdin(tar.stdout.take().unwrap()).output().unwrap();
        assert!(output.status.success() && tar.wait().unwrap().success(), "{output:?}");
        podman
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let mut podman = self.host.inside(&["podman"]);
        podman.args(["--root", &path("root"), "--runroot", &path("run"), "--tmpdir", &path("tmp")]);
        podman.args(["--storage-driver", "vfs", "--events-backend", "file"]);
        podman.args(["--cgroup-manager", "cgroupfs"]).args(args);
        podman
    }

    fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Everything that is seen of containers of a runtime.
    fn outcomes(&self, runtime: &Path) -> Vec<(&'static str, String)> {
        let runtime = runtime.display().to_string();
        // Podman raises limits by itself, which not every machine lets it do.
        let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
        let common = [&["--runtime", &runtime, "run", "--network", "none"][..], &limits].concat();
        let run = |options: &[&str], script: &str| {
            let argv = ["busybox:1", "/bin/sh", "-c", script];
            said(&self.output(&[&common[..], options, &argv].concat()))
        };
        let mut outcomes = vec![
            ("streams and exit code", run(&["--rm"], "echo out; echo err >&2; exit 7")),
            ("a terminal", run(&["--rm", "-t"], "/bin/busybox tty; exit 4")),
            ("death by signal", run(&["--rm"], "kill -9 $$")),
        ];
        let id = self.ok(&[&common[..], &["-d", "busybox:1", "/bin/sh", "-c", LIFE]].concat());
        let logs = || self.ok(&["logs", &id]);
        let own = |args: &[&str]| said(&self.output(&[&["--runtime", &runtime], args].concat()));
        until("it is up", LIMIT, || logs() == "up");
        outcomes.push(("exec", own(&["exec", &id, "/bin/sh", "-c", "echo in; exit 9"])));
        outcomes.push(("exec of nothing", own(&["exec", &id, "/nonexistent"])));
        own(&["kill", "--signal", "USR1", &id]);
        until("it answers", LIMIT, || logs().ends_with("usr1"));
        outcomes.push(("pause", own(&["pause", &id]) + &own(&["unpause", &id])));
        outcomes.push(("restart", own(&["restart", "--time", "5", &id])));
        until("it is up again", LIMIT, || logs().matches("up").count() == 2);
        outcomes.push(("stop", own(&["stop", "--time", "5", &id])));
        outcomes.push(("its end", own(&["inspect", "--format", "{{.State.ExitCode}}", &id])));
        outcomes.push(("the whole log", logs()));
        own(&["rm", "--force", &id]);
        outcomes.iter_mut().for_each(|(_, said)| *said = said.replace(&id, "ID"));
        outcomes
    }
}

/// Exit code and both streams, without what the wrapper says of the wait; the engine names the program it called.
fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let is_notice = |line: &&str| line.starts_with("seawall: the daemon on ");
    let errors = text(&output.stderr);
    let errors: Vec<_> = errors.lines().filter(|line| !is_notice(line)).collect();
    let said = format!("{}\n{}--\n{}", output.status, text(&output.stdout), errors.join("\n"));
    let is_program = |word: &str| word.contains("/crun") || word.contains("/seawall-crun");
    let words = said.split(' ').map(|word| if is_program(word) { "PROGRAM" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// Podman's API, which speaks Docker's language.
struct Service(Child);

impl Service {
    fn start(podman: &Podman<'_>, socket: &Path) -> Self {
        let address = format!("unix://{}", socket.display());
        let mut service = podman.command(&["system", "service", "--time", "0", &address]);
        let child = service.stdin(Stdio::null()).spawn().unwrap();
        until("Podman answers", LIMIT, || UnixStream::connect(socket).is_ok());
        Self(child)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn podmans_containers_behave_as_without_the_wrapper_but_for_the_wait() {
    let host = DockerHost::start();
    let podman = Podman::new(&host);
    let socket = podman.folder.path().join("podman.sock");
    let _service = Service::start(&podman, &socket);
    let mut seawall = Seawall::prepare(&host, "");
    let nowhere = podman.folder.path().join("no-containerd.sock");
    let settings = "mode = \"enforce\"\nunknown = \"deny\"\n[runtime]\nwait_ms = 300\n";
    seawall.configure(settings, &socket, &nowhere);
    seawall.run();
    let file = podman.folder.path().join("50-seawall.conf").display().to_string();
    let engine = ["--engine", "podman", "--podman-config", &file];
    seawall.cli_inside(&host, &[&["runtime", "install"], &engine[..]].concat());
    let written = std::fs::read_to_string(&file).unwrap();
    let wrapper = seawall.wrapper("crun");
    assert!(written.contains(&wrapper.display().to_string()), "{written}");
    let (begin, plain) = (Instant::now(), podman.outcomes(Path::new("/usr/bin/crun")));
    let (middle, wrapped) = (Instant::now(), podman.outcomes(&wrapper));
    println!("{:?} without the wrapper, {:?} with it", middle - begin, middle.elapsed());
    for ((what, plain), (_, wrapped)) in plain.iter().zip(&wrapped) {
        assert_eq!(plain, wrapped, "{what}, without and with the wrapper");
    }
    println!("{} outcomes are the same", plain.len());
    let is_opened = || seawall.log().contains("adopt table");
    until("what was closed by the wrapper is the daemon's", LIMIT, is_opened);
    seawall.cli_inside(&host, &[&["runtime", "uninstall"], &engine[..]].concat());
    assert!(!Path::new(&file).exists());
}
