//! Owns a small world on a private Docker host that needs no real applications: a store, an application that uses it,
//! a published web server, and an intruder on the same network. What serves is the test's own echo servers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::container::Container;
use super::deadline::until;
use super::docker_host::DockerHost;
use super::netns::Netns;
use super::probe::{Flow, Probe, Server};

/// Where the store serves, as its model says.
pub(crate) const STORE: u16 = 5432;
/// Where the web server is published on the host.
const WEB: u16 = 8088;
const SECOND: Duration = Duration::from_secs(1);

/// The world. Its containers keep their names when they are started again.
pub(crate) struct Lab {
    /// PostgreSQL by its label; echoes on [`STORE`].
    pub(crate) store: Container,
    /// An application whose environment names the store.
    pub(crate) app: Container,
    /// On the same network, of no project.
    pub(crate) intruder: Container,
    /// nginx by its label; echoes on 80, published as [`WEB`].
    pub(crate) web: Container,
    servers: Vec<Server>,
}

impl Lab {
    /// Makes the network and the containers.
    #[track_caller]
    pub(crate) fn up(host: &DockerHost) -> Self {
        host.docker_ok(&["network", "create", "--ipv6", "lab"]);
        let run = |name: &str, service: &str, model: &str, more: &[&str]| {
            let service = format!("com.docker.compose.service={service}");
            let model = format!("seawall.model={model}");
            let project = ["--label", "com.docker.compose.project=lab", "--label", &service];
            let args = [&["--name", name, "--network", "lab", "--label", &model][..], &project];
            let args = [&args.concat(), more, &IDLE].concat();
            host.run(&args);
        };
        run("store", "store", "postgres", &[]);
        run("app", "app", "python", &["--env", "DATABASE_URL=postgresql://store:5432/x"]);
        run("web", "web", "nginx", &["--publish", &format!("{WEB}:80")]);
        host.run(&[&["--name", "intruder", "--network", "lab"], &IDLE[..]].concat());
        Self::of(host)
    }

    /// The containers as they are now, after they were started again.
    #[track_caller]
    pub(crate) fn of(host: &DockerHost) -> Self {
        let [store, app, intruder, web] =
            ["store", "app", "intruder", "web"].map(|name| host.container(name));
        let servers = vec![store.tcp_server(STORE), web.tcp_server(80)];
        Self { store, app, intruder, web, servers }
    }

    /// Where an application finds the store: over IPv4 and IPv6.
    pub(crate) fn store_ips(&self) -> Vec<IpAddr> {
        self.store.ips_shared_with(&self.app)
    }

    /// Panics unless the application reaches the store, the world the web server, and the intruder neither.
    #[track_caller]
    pub(crate) fn assert_verdicts(&self, host: &DockerHost, when: &str) {
        for ip in self.store_ips() {
            assert_eq!(self.app.tcp(ip, STORE), Probe::Reached, "app to store, {when}: {ip}");
            let denied = self.intruder.tcp(ip, STORE);
            assert!(!denied.is_reached(), "intruder to store, {when}: {ip}");
        }
        let web = SocketAddr::new(DockerHost::ADDR4, WEB);
        assert_eq!(host.outside().tcp(web, SECOND), Probe::Reached, "world to web, {when}");
    }

    /// Connections that stay: application to store over each family, world to web server.
    #[track_caller]
    pub(crate) fn flows(&self, host: &DockerHost) -> Flows {
        let to_store = |ip| self.app.netns().flow(SocketAddr::new(ip, STORE), SECOND);
        let mut flows: Vec<_> = self.store_ips().into_iter().map(to_store).collect();
        flows.push(host.outside().flow(SocketAddr::new(DockerHost::ADDR4, WEB), SECOND));
        Flows(flows.into_iter().map(|flow| flow.expect("an allowed connection")).collect())
    }

    /// Tries without a pause what is denied: the intruder to the store.
    pub(crate) fn prober(&self) -> Prober {
        Prober::start(&self.intruder.netns(), &self.store_ips(), STORE)
    }
}

/// How containers that do nothing are run.
pub(crate) const IDLE: [&str; 4] = ["--stop-timeout=0", "busybox:1", "sleep", "600"];

/// Established connections.
pub(crate) struct Flows(Vec<Flow>);

impl Flows {
    /// Panics unless data passes both ways on each.
    #[track_caller]
    pub(crate) fn assert_alive(&mut self, when: &str) {
        for (number, flow) in self.0.iter_mut().enumerate() {
            let outcome = flow.exchange(5 * SECOND);
            assert_eq!(outcome, Probe::Reached, "connection {number} of 3, {when}");
        }
    }
}

/// How many attempts are under way at any moment. An attempt opens with one packet and takes [`PATIENCE`]: so one is sent
/// every ten milliseconds or so, and a gap much shorter than an attempt is met too.
const PROBERS: u32 = 8;
const PATIENCE: Duration = Duration::from_millis(80);

/// Threads that try to connect again and again.
pub(crate) struct Prober {
    ended: Arc<AtomicBool>,
    attempts: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<usize>>,
}

impl Prober {
    fn start(from: &Netns, to: &[IpAddr], port: u16) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let attempts = Arc::new(AtomicUsize::new(0));
        let one = |number| {
            let (from, to) = (from.clone(), to.to_vec());
            let (ended, attempts) = (Arc::clone(&ended), Arc::clone(&attempts));
            std::thread::spawn(move || {
                std::thread::sleep(PATIENCE * number / PROBERS);
                probe(&from, &to, port, (&ended, &attempts))
            })
        };
        let threads = (0..PROBERS).map(one).collect();
        Self { ended, attempts, threads }
    }

    /// Waits until every thread has begun and ended an attempt since now.
    #[track_caller]
    pub(crate) fn look(&self) {
        let enough = self.attempts.load(Ordering::Relaxed) + 2 * PROBERS as usize;
        until("a look at what is denied", 10 * SECOND, || {
            self.attempts.load(Ordering::Relaxed) >= enough
        });
    }

    /// Ends it: how many attempts there were, and how many of them succeeded.
    pub(crate) fn finish(self) -> (usize, usize) {
        self.ended.store(true, Ordering::Relaxed);
        let successes = self.threads.into_iter().map(|thread| thread.join().expect("no panic"));
        let successes = successes.sum();
        (self.attempts.load(Ordering::Relaxed), successes)
    }
}

fn probe(
    from: &Netns,
    to: &[IpAddr],
    port: u16,
    (ended, attempts): (&AtomicBool, &AtomicUsize),
) -> usize {
    let mut successes = 0;
    while !ended.load(Ordering::Relaxed) {
        for ip in to {
            let outcome = from.tcp(SocketAddr::new(*ip, port), PATIENCE);
            attempts.fetch_add(1, Ordering::Relaxed);
            successes += usize::from(outcome.is_reached());
        }
    }
    successes
}
