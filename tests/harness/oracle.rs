//! Owns the prediction: what policy says of a connection, decided from saved `docker inspect` output by the pure part alone.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use seawall::config::Files;
use seawall::metadata::{Inventory, WorkloadId, inspect};
use seawall::model::Catalogue;
use seawall::policy::{Endpoint, Packet, Verdict, test_connection};
use seawall::reconcile::{Desired, Rules, desire};

use super::container::Container;
use super::docker_host::DockerHost;
use super::seawall::Seawall;

/// What everything should be, judged without a kernel and without the daemon.
pub(crate) struct Oracle {
    /// What is running.
    pub(crate) inventory: Inventory,
    /// What is decided of it.
    pub(crate) desired: Desired,
    rules: Rules,
}

impl Oracle {
    /// Asks Docker for everything that runs now, and decides by seawall's configuration.
    #[track_caller]
    pub(crate) fn of(host: &DockerHost, seawall: &Seawall) -> Self {
        let ids = host.docker_ok(&["ps", "-q", "--no-trunc"]);
        let networks = host.docker_ok(&["network", "ls", "-q", "--no-trunc"]);
        let inspect = |kind: &str, ids: &str| {
            let command = [kind, "inspect"].into_iter().chain(ids.lines());
            host.docker_ok(&command.collect::<Vec<_>>())
        };
        let images = host.docker_ok(&["images", "-q", "--no-trunc"]);
        let images: BTreeSet<&str> = images.lines().collect();
        let images = images.into_iter().collect::<Vec<_>>().join("\n");
        let saved =
            [inspect("container", &ids), inspect("network", &networks), inspect("image", &images)];
        let workloads =
            inspect::parse(Path::new("inspect.json"), saved.concat().as_bytes(), &BTreeSet::new())
                .expect("what Docker prints is understood");
        let loaded = Files::read(&seawall.config()).load(Catalogue::with_files);
        let rules = Rules::from(&loaded.expect("the configuration is good"));
        let inventory: Inventory = workloads.into_iter().collect();
        let desired = desire(&inventory, &rules);
        Self { inventory, desired, rules }
    }

    /// What becomes of a connection.
    pub(crate) fn verdict(&self, from: &Endpoint, to: &Endpoint, packet: Packet) -> Verdict {
        let settings = &self.rules.options.settings;
        test_connection(&self.inventory, &self.desired.policies, settings, from, to, packet)
    }

    /// The host's addresses on a container's networks.
    pub(crate) fn gateways(&self, container: &Container) -> Vec<IpAddr> {
        let workload = self.inventory.get(&WorkloadId::new(&container.id));
        let networks = workload.expect("it is running").networks.values();
        networks.flat_map(|network| network.host_addresses()).collect()
    }
}
