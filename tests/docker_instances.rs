//! Docker layer: two instances of one compose file beside each other, and a daemon that comes before or after them.

mod harness;

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use harness::{Container, DockerHost, Seawall, Shop, Stage, until};
use seawall::compile::Ruleset;

const ENFORCE: &str = "mode = \"enforce\"\nunknown = \"deny\"\n\
                       resolvers = [\"203.0.113.53\", \"2001:db8:53::53\"]";
const SERVICES: [&str; 4] = ["web", "api", "db", "cache"];

/// The second instance, started while a daemon ran; and what the kernel held then.
static SECOND: LazyLock<(Shop<'static>, BTreeMap<String, Ruleset>)> = LazyLock::new(|| {
    let host = Stage::shared_host();
    let seawall = Seawall::start(host, ENFORCE);
    let shop = Shop::up(host, "second", 8091);
    seawall.settled();
    (shop, tables(host))
});

#[test]
fn the_daemon_before_and_after_the_containers_writes_the_same() {
    let stage = Stage::take();
    stage.shop();
    let (second, first_run) = &*SECOND;
    assert_eq!(first_run.len(), 8, "{:?}", first_run.keys());
    let mut seawall = Seawall::start(stage.host, ENFORCE);
    assert_eq!(&tables(stage.host), first_run, "the daemon after the containers");
    seawall.kill9();
    seawall.run();
    for change in seawall.changes() {
        let done = &change["changes"];
        let adopted = serde_json::json!(["adopt table", "netdev: adopt table"]);
        assert_eq!(*done, adopted, "what is in force is wanted");
    }
    seawall.stop();
    println!("{}", seawall.clear(stage.host));
    assert_eq!(tables(stage.host).len(), 0);
    seawall.run();
    assert_eq!(&tables(stage.host), first_run, "from nothing again");
    second.visit().unwrap();
    println!("{} rulesets are the same", first_run.len());
}

#[test]
fn instances_never_reach_each_other_even_on_one_network() {
    let stage = Stage::take();
    let host = stage.host;
    let (first, second) = (stage.shop(), &SECOND.0);
    stage.bare();
    let network = Commons::new(host);
    let all = |shop: &Shop<'_>| SERVICES.map(|service| network.join(&shop.service(service)));
    let (mine, yours) = (all(first), all(second));
    // The same without seawall: everybody reaches everybody.
    let ports = [80, 8000, 5432, 6379];
    let mut paths = Vec::new();
    for (ours, theirs) in [(&mine, &yours), (&yours, &mine)] {
        for (to, port) in theirs.iter().zip(ports) {
            for from in ours {
                let ips = to.ips_shared_with(from).into_iter();
                paths.extend(ips.map(|ip| (from, to, ip, port)));
            }
        }
    }
    assert_eq!(paths.len(), 64, "2 × 4 × 4 pairs, IPv4 and IPv6");
    for (from, to, ip, port) in &paths {
        let what = format!("{} → {} {ip}:{port}", from.name, to.name);
        until(&what, Duration::from_secs(5), || from.tcp(*ip, *port).is_reached());
    }
    let seawall = Seawall::start(host, ENFORCE);
    for (from, to, ip, port) in &paths {
        let probe = from.tcp(*ip, *port);
        assert!(!probe.is_reached(), "{} → {} {ip}:{port}", from.name, to.name);
    }
    println!("all {0} reached across instances without seawall, none of {0} with it", paths.len());
    // Inside one instance the shared network is as good as its own.
    for shop in [&mine, &yours] {
        let [web, api, db, cache] = shop;
        for (from, to, port) in [(web, api, 8000), (api, db, 5432), (api, cache, 6379)] {
            until("an allowed pair", Duration::from_secs(5), || {
                to.ips_shared_with(from).iter().all(|ip| from.tcp(*ip, port).is_reached())
            });
        }
    }
    let before = second.visit().unwrap();
    first.visit().unwrap();
    assert_eq!(second.visit().unwrap().sql, before.sql + 1, "each has its own visits");
    assert!(!seawall.log().contains("ERROR"));
}

fn tables(host: &DockerHost) -> BTreeMap<String, Ruleset> {
    let containers = host.containers().into_iter();
    containers.filter_map(|one| Some((one.name.clone(), one.table()?))).collect()
}

/// An external network that both instances are attached to, until dropped.
struct Commons(&'static DockerHost);

impl Commons {
    fn new(host: &'static DockerHost) -> Self {
        host.docker_ok(&["network", "create", "--ipv6", "commons"]);
        Self(host)
    }

    fn join(&self, container: &Container) -> Container {
        self.0.docker_ok(&["network", "connect", "commons", &container.id]);
        self.0.container(&container.id)
    }
}

impl Drop for Commons {
    fn drop(&mut self) {
        for container in self.0.containers() {
            self.0.docker(&["network", "disconnect", "--force", "commons", &container.id]);
        }
        self.0.docker(&["network", "rm", "commons"]);
    }
}
