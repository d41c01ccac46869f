//! Proves the Docker and containerd sources against a real dockerd, private to this test (needs root).

#![allow(clippy::unwrap_used)] // helpers of a test may panic too

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use seawall::metadata::containerd::ContainerdSource;
use seawall::metadata::docker::DockerSource;
use seawall::metadata::{InventoryBuilder, NetworkMode, Observation, Source, State, Workload};
use tokio::sync::mpsc;

/// dockerd in a network namespace of its own. Ends with what it started, and nothing else.
struct Host {
    netns: String,
    folder: tempfile::TempDir,
    daemon: Option<Child>,
}

impl Host {
    fn start() -> Self {
        let netns = format!("swmd-{}", std::process::id());
        let folder = tempfile::Builder::new().prefix("swmd-").tempdir_in("/tmp").unwrap();
        run(Command::new("ip").args(["netns", "add", &netns]));
        let mut host = Self { netns, folder, daemon: None };
        run(Command::new("ip").args(["-n", &host.netns, "link", "set", "lo", "up"]));
        let slow = host.path("slow-runc");
        let script = "#!/bin/sh\nfor a in \"$@\"; do [ \"$a\" = start ] && sleep 10; done\nexec runc \"$@\"\n";
        std::fs::write(&slow, script).unwrap();
        run(Command::new("chmod").arg("+x").arg(&slow));
        let config = format!("{{\"runtimes\": {{\"slow\": {{\"path\": {slow:?}}}}}}}");
        std::fs::write(host.path("daemon.json"), config).unwrap();
        host.start_daemon();
        host.import_busybox();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn address(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    fn containerd(&self) -> PathBuf {
        self.path("exec/containerd/containerd.sock")
    }

    fn start_daemon(&mut self) {
        let log = std::fs::File::create(self.path("log")).unwrap();
        let daemon = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.netns))
            .arg("dockerd")
            .arg("--data-root")
            .arg(self.path("data"))
            .arg("--exec-root")
            .arg(self.path("exec"))
            .arg("--pidfile")
            .arg(self.path("pid"))
            .arg("--config-file")
            .arg(self.path("daemon.json"))
            .args(["-H", &self.address()])
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.daemon = Some(daemon);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.docker_command(&["version"]).output().unwrap().status.success() {
            let log = std::fs::read_to_string(self.path("log")).unwrap();
            assert!(Instant::now() < deadline, "dockerd does not start:\n{log}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn stop_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // nsenter has become dockerd: the pid is its own.
            let _ = Command::new("kill").arg(daemon.id().to_string()).status();
            let _ = daemon.wait();
        }
    }

    fn import_busybox(&self) {
        let root = self.path("root");
        std::fs::create_dir_all(root.join("bin")).unwrap();
        std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        std::os::unix::fs::symlink("busybox", root.join("bin/sleep")).unwrap();
        let tar = self.path("root.tar");
        run(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg("."));
        let tar = tar.display().to_string();
        self.docker(&[
            "import",
            "-c",
            "ENV FROM_IMAGE=1",
            "-c",
            "EXPOSE 80",
            "-c",
            "LABEL made=here",
            &tar,
            "box:1",
        ]);
    }

    fn docker_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["-H", &self.address()]).args(arguments);
        command
    }

    fn ctr(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("ctr");
        run(command.arg("-a").arg(self.containerd()).args(["-n", "other"]).args(arguments))
    }

    fn docker(&self, arguments: &[&str]) -> String {
        run(&mut self.docker_command(arguments))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let ids =
            self.docker_command(&["ps", "-aq"]).output().map(|o| o.stdout).unwrap_or_default();
        for id in String::from_utf8_lossy(&ids).split_whitespace() {
            let _ = self.docker_command(&["rm", "-f", id]).output();
        }
        self.stop_daemon();
        let _ = Command::new("ip").args(["netns", "del", &self.netns]).status();
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Both sources, folded, with everything they told.
struct Watcher {
    rx: mpsc::UnboundedReceiver<(Instant, Observation)>,
    builder: InventoryBuilder,
    told: Vec<(Instant, Observation)>,
}

impl Watcher {
    fn new(host: &Host) -> Self {
        let (tx, mut observed) = mpsc::channel(256);
        let (stamped, rx) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(observation) = observed.recv().await {
                let _ = stamped.send((Instant::now(), observation));
            }
        });
        let resolvers = BTreeSet::from(["192.0.2.53".parse().unwrap()]);
        let docker = DockerSource::new(&host.address(), resolvers.clone()).unwrap();
        tokio::spawn(docker.watch(tx.clone()));
        tokio::spawn(ContainerdSource::new(host.containerd(), resolvers).watch(tx));
        Self { rx, builder: InventoryBuilder::new(), told: Vec::new() }
    }

    fn workload(&self, name: &str) -> Option<&Workload> {
        self.builder.inventory().iter().find(|workload| workload.name == name)
    }

    async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> Duration {
        let (begun, deadline) = (Instant::now(), Duration::from_secs(20));
        while !is_so(self) {
            let left = deadline.saturating_sub(begun.elapsed());
            match tokio::time::timeout(left, self.rx.recv()).await {
                Ok(Some((at, observation))) => {
                    self.told.push((at, observation.clone()));
                    self.builder.apply(observation);
                }
                _ => panic!("never: {what}\n{:#?}", self.builder.inventory()),
            }
        }
        begun.elapsed()
    }

    async fn until_workload(
        &mut self,
        name: &str,
        what: &str,
        is_so: impl Fn(&Workload) -> bool,
    ) -> Workload {
        self.until(&format!("{name} {what}"), |w| w.workload(name).is_some_and(&is_so)).await;
        self.workload(name).unwrap().clone()
    }

    /// What was told after the first `from` observations and fits.
    fn position(&self, from: usize, fits: impl Fn(&Observation) -> bool) -> Option<usize> {
        self.told[from..].iter().position(|(_, observation)| fits(observation)).map(|at| from + at)
    }
}

fn is_complete(workload: &Workload) -> bool {
    workload.state == State::Running
        && workload.netns.is_some()
        && workload.addresses().count() > 0
        && workload.env_names.contains("FROM_IMAGE")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_dockerd_and_containerd_are_followed() {
    let mut host = Host::start();
    let mut watcher = Watcher::new(&host);
    let is_up = |w: &Watcher, source| w.builder.source(source) == Some(Ok(()));
    watcher.until("both up", |w| is_up(w, Source::Docker) && is_up(w, Source::Containerd)).await;

    // A whole life.
    host.docker(&[
        "network",
        "create",
        "--ipv6",
        "--subnet",
        "fd00:5ea::/64",
        "--subnet",
        "172.30.0.0/24",
        "shop",
    ]);
    watcher
        .until("the network", |w| {
            w.builder.networks().any(|n| n.name == "shop" && n.subnets.len() == 2)
        })
        .await;
    let mark = watcher.told.len();
    host.docker(&[
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "shop",
        "-p",
        "127.0.0.1:8080:80",
        "--cap-drop",
        "NET_RAW",
        "-e",
        "DB_URL=postgres://u:hunter2@db:5432/x",
        "-l",
        "com.docker.compose.project=p",
        "box:1",
        "sleep",
        "1000",
    ]);
    let web = watcher
        .until_workload("web", "complete", |w| is_complete(w) && w.env_names.contains("DB_URL"))
        .await;
    assert_eq!(web.addresses().count(), 2, "{web:#?}");
    assert!(!web.capabilities.net_raw);
    assert!(web.wires.iter().any(|wire| wire.host == "db" && wire.port == Some(5432)));
    assert_eq!(web.published.iter().next().unwrap().host_port, Some(8080));
    assert_eq!(web.image.labels.as_ref().unwrap().len(), 1);
    assert_eq!(web.networks.values().next().unwrap().driver.as_ref().unwrap(), &"bridge");
    assert!(!format!("{web:?}").contains("hunter2"));
    let described =
        watcher.position(mark, |o| matches!(o, Observation::Upsert(w) if w.name == "web")).unwrap();
    let created = watcher.position(mark, |o| matches!(o, Observation::TaskCreated { .. })).unwrap();
    let has_pid = |o: &Observation| matches!(o, Observation::Upsert(w) if w.name == "web" && w.netns.is_some());
    watcher.until("Docker tells the pid", |w| w.position(mark, has_pid).is_some()).await;
    let running = watcher.position(mark, has_pid).unwrap();
    assert!(described < created && created < running, "{described} {created} {running}");
    let lead = watcher.told[running].0 - watcher.told[created].0;
    let prepared = watcher.told[created].0 - watcher.told[described].0;
    eprintln!(
        "described {prepared:?} before containerd's task, which came {lead:?} before Docker's pid"
    );

    host.docker(&["restart", "-t", "0", "web"]);
    let old_pid = web.netns.unwrap().pid;
    let is_new =
        move |w: &Workload| is_complete(w) && w.netns.as_ref().is_some_and(|n| n.pid != old_pid);
    let web = watcher.until_workload("web", "restarted", is_new).await;
    let pid = host.docker(&["inspect", "-f", "{{.State.Pid}}", "web"]);
    assert_eq!(web.netns.unwrap().pid.to_string(), pid);
    host.docker(&["rename", "web", "web2"]);
    watcher.until_workload("web2", "renamed", is_complete).await;
    host.docker(&["network", "connect", "bridge", "web2"]);
    watcher
        .until_workload("web2", "on two networks", |w| {
            w.networks.len() == 2 && w.addresses().count() == 3
        })
        .await;
    host.docker(&["network", "disconnect", "shop", "web2"]);
    watcher
        .until_workload("web2", "on one network", |w| {
            w.networks.len() == 1 && w.addresses().count() == 1
        })
        .await;
    host.docker(&[
        "run",
        "-d",
        "--name",
        "side",
        "--network",
        "container:web2",
        "box:1",
        "sleep",
        "1000",
    ]);
    let side = watcher
        .until_workload("side", "running", |w| w.state == State::Running && w.netns.is_some())
        .await;
    assert_eq!(side.network_mode, NetworkMode::Container(web.id.clone()));
    host.docker(&["exec", "web2", "sleep", "0"]);
    host.docker(&["kill", "side"]);
    watcher
        .until_workload("side", "exited", |w| w.state == State::Exited && w.netns.is_none())
        .await;
    host.docker(&["rm", "side"]);
    watcher.until("side gone", |w| w.workload("side").is_none()).await;
    assert_eq!(watcher.workload("web2").unwrap().state, State::Running);

    // A container that is not Docker's.
    let tar = host.path("box.tar").display().to_string();
    host.docker(&["save", "-o", &tar, "box:1"]);
    host.ctr(&["images", "import", &tar]);
    let image = "docker.io/library/box:1";
    host.ctr(&["run", "-d", "--env", "CACHE_HOST=cache", image, "lone", "/bin/sleep", "1000"]);
    let is_whole = |w: &Workload| w.netns.is_some() && w.env_names.contains("CACHE_HOST");
    let lone = watcher.until_workload("lone", "running", is_whole).await;
    assert_eq!(lone.id.as_str(), "other/lone");
    assert_eq!(lone.network_mode, NetworkMode::Own);
    assert_eq!(lone.image.reference.as_ref().unwrap().repository, "box");
    host.ctr(&["task", "kill", "-s", "KILL", "lone"]);
    watcher.until_workload("lone", "exited", |w| w.state == State::Exited).await;
    host.ctr(&["task", "rm", "lone"]);
    host.ctr(&["container", "rm", "lone"]);
    watcher.until("lone gone", |w| w.workload("lone").is_none()).await;

    // A start that hangs: its facts are there all the same, and nobody else waits.
    let mut slow = host.docker_command(&[
        "run",
        "-d",
        "--name",
        "slow",
        "--runtime",
        "slow",
        "--network",
        "shop",
        "box:1",
        "sleep",
        "1000",
    ]);
    let mut slow = slow.stdout(Stdio::null()).spawn().unwrap();
    let pending = watcher.until_workload("slow", "has its task", |w| w.netns.is_some()).await;
    assert_eq!(pending.image.reference.as_ref().unwrap().repository, "box");
    assert!(pending.env_names.contains("FROM_IMAGE") && pending.networks.len() == 1);
    let begun = Instant::now();
    let source = DockerSource::new(&host.address(), BTreeSet::new()).unwrap();
    let listed = source.list().await.unwrap();
    let took = begun.elapsed();
    let name_of = |w: &Workload| w.name.to_string();
    assert_eq!(
        listed.iter().map(name_of).collect::<BTreeSet<_>>(),
        ["slow", "web2"].map(String::from).into()
    );
    assert!(
        took < Duration::from_secs(3),
        "listing waited {took:?} for a container that is being started"
    );
    let containerd = ContainerdSource::new(host.containerd(), BTreeSet::new());
    let spec = containerd.spec_facts("moby", pending.id.as_str()).await.unwrap().unwrap();
    assert!(spec.env_names.contains("FROM_IMAGE") && spec.capabilities.net_raw, "{spec:?}");
    let listing = containerd.list().await.unwrap();
    assert!(listing.undecided.contains(&pending.id) && listing.tasks.len() == 1, "{listing:?}");
    host.docker(&["run", "-d", "--name", "quick", "box:1", "sleep", "1000"]);
    watcher.until_workload("quick", "complete", is_complete).await;
    assert!(
        slow.try_wait().unwrap().is_none(),
        "the slow start is over already: this proves nothing"
    );
    slow.wait().unwrap();
    watcher.until_workload("slow", "complete", is_complete).await;

    // Docker goes (and its containers with it) and comes back.
    host.stop_daemon();
    let is_down = |w: &Watcher, source| matches!(w.builder.source(source), Some(Err(_)));
    watcher
        .until("both down", |w| is_down(w, Source::Docker) && is_down(w, Source::Containerd))
        .await;
    assert!(watcher.workload("web2").is_some(), "what is known stays in force");
    host.start_daemon();
    watcher
        .until("both up again", |w| is_up(w, Source::Docker) && is_up(w, Source::Containerd))
        .await;
    watcher
        .until_workload("web2", "exited", |w| {
            w.state == State::Exited && w.addresses().count() == 0
        })
        .await;
    host.docker(&["start", "web2"]);
    watcher.until_workload("web2", "complete again", is_complete).await;
}

#[tokio::test]
async fn a_docker_that_is_not_there_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let missing = |name: &str| folder.path().join(name).display().to_string();
    let (tx, mut rx) = mpsc::channel(16);
    let docker =
        DockerSource::new(&format!("unix://{}", missing("d.sock")), BTreeSet::new()).unwrap();
    tokio::spawn(docker.watch(tx));
    assert!(matches!(rx.recv().await, Some(Observation::Down { source: Source::Docker, .. })));
    assert!(
        tokio::time::timeout(Duration::from_secs(1), rx.recv()).await.is_err(),
        "it is told twice"
    );
    assert!(!Path::new(&missing("d.sock")).exists());
}
