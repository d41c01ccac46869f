//! Docker layer: how long a container is without its ruleset, beside what the nft command takes for the same ruleset.
//!
//! Measured over 20 starts (`SEAWALL_STARTS=200` sets another number), printed as a table, and written to
//! `target/bench/latency.json`. The nft command loads the same text, alone into an idle namespace, and in further starts at the
//! same event into the container that is being started (with seawall off for it). Then `docker run` is timed by turns: with
//! the runtime wrapper, without it, and for a container seawall does not touch. Only completeness is asserted: times depend
//! on the machine. For figures to quote: `scripts/bench docker`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use containerd_client::events::TaskCreate;
use containerd_client::services::v1::SubscribeRequest;
use containerd_client::services::v1::events_client::EventsClient;
use harness::{DockerHost, Netns, Seawall, Shop, eventually};
use serde_json::{Value, json};

/// `docker run` as it is timed: what the span is called, the runtime, and seawall's mode for it.
const RUNS: [(&str, &str, &str); 3] = [
    ("docker run, wrapper", "seawall", "enforce"),
    ("docker run, no wrapper", "runc", "enforce"),
    ("docker run, seawall off", "runc", "off"),
];
const LIMIT: Duration = Duration::from_secs(20);

/// How many starts are measured.
fn starts() -> usize {
    std::env::var("SEAWALL_STARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

/// How many are measured with the nft command in seawall's place.
fn nft_starts() -> usize {
    starts().div_ceil(5) * 2
}

/// How many of each kind `docker run` is timed for.
fn runs() -> usize {
    starts().div_ceil(2)
}

#[test]
fn the_ruleset_of_every_start_is_committed_and_its_time_is_known() {
    let host = DockerHost::start();
    let _shop = Shop::up(&host, "shop", 8080);
    let seawall = Seawall::start(&host, "mode = \"enforce\"");
    let created = Created::follow(&host);
    let bench = Bench::new(&host);

    let mut spans = BTreeMap::<&str, Vec<u64>>::new();
    let (mut missing, mut operations, mut ruleset) = (Vec::new(), 0, String::new());
    for number in 0..starts() {
        let name = format!("job{number}");
        let id = host.run(&job(&name)).id;
        let at = created.time_of(&id);
        let entry = eventually("the commit", LIMIT, || seawall.journal_of(&id).into_iter().next());
        match at {
            Some(Event { told, received, .. }) => {
                let since = |from: u64| entry.committed_us.saturating_sub(from);
                spans.entry("event to commit").or_default().push(since(told));
                spans.entry("event to any").or_default().push(received.saturating_sub(told));
            }
            None => missing.push(name.clone()),
        }
        spans.entry("open to commit").or_default().push(entry.took_us);
        if number == 0 {
            operations = entry.operations;
            ruleset = plan_of(&seawall, &name);
        }
        spans.entry("nft -f").or_default().push(bench.load(&ruleset));
        host.docker_ok(&["rm", "--force", &name]);
    }

    for number in 0..nft_starts() {
        let name = format!("rival{number}");
        let late = std::thread::scope(|scope| {
            let start = scope.spawn(|| host.run(&rival(&name)));
            let (_, event) = created.0.recv_timeout(LIMIT).expect("the container is started");
            let late = bench.load_into(event, &ruleset);
            start.join().expect("the container runs");
            late
        });
        spans.entry("event to nft -f").or_default().push(late);
        host.docker_ok(&["rm", "--force", &name]);
    }

    seawall.install_runtime(&host);
    for number in 0..runs() {
        for (turn, (span, runtime, mode)) in RUNS.into_iter().enumerate() {
            let name = format!("run{number}-{turn}");
            let mode = format!("seawall.mode={mode}");
            let options = ["run", "--detach", "--runtime", runtime, "--label", &mode];
            let began = Instant::now();
            host.docker_ok(&[&options[..], &job(&name)].concat());
            spans.entry(span).or_default().push(micros(began.elapsed()));
            host.docker_ok(&["rm", "--force", &name]);
        }
    }

    let table = Table::new(spans);
    table.print(operations, ruleset.lines().count());
    table.write(Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench"));
    assert!(missing.is_empty(), "no times of {missing:?}");
    for (span, times) in &table.spans {
        let starts = match *span {
            "event to nft -f" => nft_starts(),
            span if span.starts_with("docker run") => runs(),
            _ => starts(),
        };
        assert_eq!(times.len(), starts, "{span}");
    }
    assert_eq!(seawall.log_at("ERROR"), Vec::<String>::new());
}

/// `docker run` of one more application of the shop: it uses the shop's stores, so it has peers, and is one.
fn job(name: &str) -> [&str; 16] {
    [
        "--name",
        name,
        "--network",
        "shop_backend",
        "--label",
        "com.docker.compose.project=shop",
        "--label",
        "com.docker.compose.service=job",
        "--label",
        "seawall.model=python",
        "--env",
        "DATABASE_URL=postgresql://db:5432/shop",
        "--stop-timeout=0",
        "busybox:1",
        "sleep",
        "600",
    ]
}

/// A container seawall does not touch.
fn rival(name: &str) -> [&str; 10] {
    let off = "seawall.mode=off";
    let network = "shop_backend";
    [
        "--name",
        name,
        "--network",
        network,
        "--label",
        off,
        "--stop-timeout=0",
        "busybox:1",
        "sleep",
        "600",
    ]
}

fn plan_of(seawall: &Seawall, name: &str) -> String {
    let output = seawall.cli(&["plan", name]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("table inet seawall"), "{text}");
    text
}

/// When containerd says that each task was created: the time in the event itself, in microseconds since 1970.
struct Created(mpsc::Receiver<(String, Event)>);

/// One event, in microseconds since 1970.
#[derive(Clone, Copy)]
struct Event {
    /// When containerd says that it was.
    told: u64,
    /// When a subscriber that does nothing else had it.
    received: u64,
    /// The task's first process.
    pid: u32,
}

impl Created {
    /// Subscribes; returns when the subscription is seen to work.
    fn follow(host: &DockerHost) -> Self {
        let (tx, rx) = mpsc::channel();
        let socket = host.containerd_socket();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(forward(&socket, tx));
        });
        let created = Self(rx);
        eventually("the first event", LIMIT, || {
            let id = host.docker_ok(&["run", "--detach", "--rm", "busybox:1", "true"]);
            created.time_of(&id)
        });
        created
    }

    fn time_of(&self, id: &str) -> Option<Event> {
        let deadline = Instant::now() + Duration::from_secs(1);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.0.recv_timeout(left) {
                Ok((of, at)) if of == id => return Some(at),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }
}

/// Ends with an error when containerd does, which is when the test is over.
async fn forward(socket: &Path, tx: mpsc::Sender<(String, Event)>) {
    let channel = containerd_client::connect(socket).await.unwrap();
    let filters = vec!["topic==\"/tasks/create\"".to_owned()];
    let request = SubscribeRequest { filters };
    let mut stream = EventsClient::new(channel).subscribe(request).await.unwrap().into_inner();
    while let Ok(Some(envelope)) = stream.message().await {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let at = envelope.timestamp.unwrap();
        let mut event = envelope.event.unwrap();
        event.type_url.insert(0, '/');
        let created: TaskCreate = event.to_msg().unwrap();
        let told =
            at.seconds.unsigned_abs() * 1_000_000 + u64::from(at.nanos.unsigned_abs()) / 1000;
        let received = u64::try_from(now.as_micros()).unwrap();
        if tx.send((created.container_id, Event { told, received, pid: created.pid })).is_err() {
            return;
        }
    }
}

/// A netns to load rulesets into with the nft command.
struct Bench(String);

impl Bench {
    fn new(host: &DockerHost) -> Self {
        let bench = Self(format!("swall-{}-nft", host.name()));
        assert!(Command::new("ip").args(["netns", "add", &bench.0]).status().unwrap().success());
        bench
    }

    /// Loads the ruleset; how long it took from starting the command to its end, in microseconds.
    fn load(&self, ruleset: &str) -> u64 {
        let file = written(ruleset);
        let mut command = nft(Netns::named(&self.0).path());
        command.arg("-f").arg(file.path());
        let began = Instant::now();
        let status = command.status().unwrap();
        let took = began.elapsed();
        assert!(status.success(), "{ruleset}");
        let mut cleared = nft(Netns::named(&self.0).path());
        assert!(cleared.args(["delete", "table", "inet", "seawall"]).status().unwrap().success());
        micros(took)
    }

    /// Loads the ruleset into the container that an event tells of; how long after the event it was there.
    fn load_into(&self, event: Event, ruleset: &str) -> u64 {
        let file = written(ruleset);
        let mut command = nft(Netns::of_pid(event.pid).path());
        assert!(command.arg("-f").arg(file.path()).status().unwrap().success(), "{ruleset}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::try_from(now.as_micros()).unwrap().saturating_sub(event.told)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap()
}

fn written(ruleset: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ruleset).unwrap();
    file
}

fn nft(netns: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", netns.display())).arg("nft").stdin(Stdio::null());
    command
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Times in microseconds, sorted.
struct Table {
    spans: BTreeMap<&'static str, Vec<u64>>,
}

impl Table {
    fn new(mut spans: BTreeMap<&'static str, Vec<u64>>) -> Self {
        spans.values_mut().for_each(|times| times.sort_unstable());
        Self { spans }
    }

    /// The value that `percent` of all are not above (nearest rank).
    fn percentile(times: &[u64], percent: usize) -> u64 {
        times[(times.len() * percent).div_ceil(100).max(1) - 1]
    }

    /// How many times faster seawall is than the nft command at the same: from the event on, and by itself.
    fn ratios(&self) -> [(&'static str, f64); 2] {
        let p50 = |span: &str| Self::percentile(&self.spans[span], 50) as f64;
        [
            ("from the event on", p50("event to nft -f") / p50("event to commit")),
            ("the change alone", p50("nft -f") / p50("open to commit")),
        ]
    }

    fn print(&self, operations: usize, lines: usize) {
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        println!(
            "{} starts, {operations} operations ({lines} lines of nft), {profile} build",
            starts()
        );
        println!("{:24} {:>9} {:>9} {:>9} {:>9}", "ms", "p50", "p90", "p99", "max");
        for (span, times) in &self.spans {
            let cells = [50, 90, 99, 100].map(|percent| Self::percentile(times, percent));
            let cells = cells.map(|us| format!("{:9.3}", us as f64 / 1000.0)).join(" ");
            println!("{span:24} {cells}");
        }
        for (what, ratio) in self.ratios() {
            println!("{what}: {ratio:.1} times faster than nft -f (p50)");
        }
    }

    fn write(&self, folder: impl AsRef<Path>) {
        let spans: BTreeMap<&str, Value> = self.spans.iter().map(|(span, times)| {
            let [p50, p90, p99, max] = [50, 90, 99, 100].map(|percent| Self::percentile(times, percent));
            (*span, json!({"p50_us": p50, "p90_us": p90, "p99_us": p99, "max_us": max, "all_us": times}))
        }).collect();
        let report = json!({
            "starts": starts(),
            "is_release": !cfg!(debug_assertions),
            "spans": spans,
            "times_faster_than_nft": BTreeMap::from(self.ratios()),
        });
        std::fs::create_dir_all(&folder).unwrap();
        let text = serde_json::to_string_pretty(&report).unwrap();
        std::fs::write(folder.as_ref().join("latency.json"), text).unwrap();
    }
}
