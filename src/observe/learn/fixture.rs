//! Owns what this module's tests are made of: workloads, what was seen of them, and what becomes of it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::known::source;
use super::*;
use crate::metadata::L4Proto;
use crate::observe::{Carried, DenialKey, End, FlowKey, Party, Said, Where};
use crate::policy::fixture::Make;
use crate::policy::selector::selector_for;

/// 2026-11-25T00:00:00Z, in microseconds since 1970.
pub(super) const MIDNIGHT: u64 = 1_795_564_800_000_000;
const SECOND: u64 = 1_000_000;
const ENFORCE: &str = "mode = \"enforce\"\nunknown = \"baseline\"\n";

/// Workloads, and what was seen of them.
pub(super) struct Scene {
    pub(super) inventory: Inventory,
    pub(super) files: Files,
    pub(super) flows: Vec<Flow>,
    pub(super) denials: Vec<Denial>,
}

pub(super) fn scene(makes: &[Make]) -> Scene {
    let config = Some(source("seawall.toml", ENFORCE));
    Scene {
        inventory: makes.iter().map(|make| make.clone().build()).collect(),
        files: Files { config, ..Files::default() },
        flows: Vec::new(),
        denials: Vec::new(),
    }
}

pub(super) fn carried(text: &str) -> Carried {
    text.parse().unwrap()
}

impl Scene {
    /// `name` is a workload's identity, `host`, an address, or `NAME=ADDRESS` for a name that was resolved to it.
    pub(super) fn party(&self, name: &str) -> Party {
        if let Some(workload) = self.inventory.get(&WorkloadId::new(name)) {
            return Party::Workload {
                name: workload.display_name(),
                model: None,
                selector: Text::new(&selector_for(workload)),
            };
        }
        let (resolved, address) = match name.split_once('=') {
            Some((resolved, address)) => (Some(resolved), address),
            None => (None, name),
        };
        match address.parse::<IpAddr>() {
            Ok(address) => Party::Address { address, name: resolved.map(Text::new) },
            Err(_) => Party::Host,
        }
    }

    /// Connections that were answered, each a second after the one before; seen at every workload's end.
    pub(super) fn saw(
        &mut self,
        client: &str,
        server: &str,
        port: &str,
        connections: u64,
    ) -> &mut Self {
        self.add(client, server, port, None, connections, 0, 0)
    }

    /// The same, of which some were not answered, beginning `after` seconds past midnight.
    #[expect(clippy::too_many_arguments, reason = "each is another column of a table")]
    pub(super) fn add(
        &mut self,
        client: &str,
        server: &str,
        port: &str,
        master: Option<&str>,
        connections: u64,
        unanswered: u64,
        after: u64,
    ) -> &mut Self {
        let (client, server) = (self.party(client), self.party(server));
        let ends = [(End::Client, &client), (End::Server, &server)];
        for (end, _) in ends.into_iter().filter(|(_, party)| party.is_workload()) {
            let first_us = MIDNIGHT + after * SECOND;
            self.flows.push(Flow {
                key: FlowKey {
                    end,
                    client: client.clone(),
                    server: server.clone(),
                    carried: carried(port),
                    master: master.map(carried),
                    said: Said::WouldDeny,
                },
                first_us,
                last_us: first_us + connections * SECOND,
                connections,
                unanswered,
                packets_out: 5 * connections,
                bytes_out: 300 * connections,
                packets_in: 4 * connections,
                bytes_in: 2000 * connections,
            });
        }
        self
    }

    /// Connections that were denied at the client's end.
    pub(super) fn denied(
        &mut self,
        client: &str,
        server: &str,
        port: &str,
        logged: u64,
    ) -> &mut Self {
        let (client, server) = (self.party(client), self.party(server));
        self.denials.push(Denial {
            key: DenialKey {
                workload: client.clone(),
                at: Where::Out,
                enforced: true,
                client,
                server,
                carried: carried(port),
            },
            first_us: MIDNIGHT,
            last_us: MIDNIGHT + logged * SECOND,
            logged,
            is_reply: false,
            uid: None,
            process: None,
        });
        self
    }

    pub(super) fn policy(&mut self, text: &str) -> &mut Self {
        self.files.policies.push(source("policy.d/site.toml", text));
        self
    }

    pub(super) fn known(&self) -> Known<'_> {
        Known::new(&self.inventory, &self.files).unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// The proposal from these seeds, which reads back with the real parsers.
    pub(super) fn learn(&self, seeds: &[&str]) -> Proposal {
        self.learn_with(seeds, &Options::default())
    }

    pub(super) fn learn_with(&self, seeds: &[&str], options: &Options) -> Proposal {
        let seeds: BTreeSet<WorkloadId> = seeds.iter().map(|id| WorkloadId::new(id)).collect();
        let (inventory, files) = (&self.inventory, &self.files);
        propose(&self.flows, &self.denials, &seeds, inventory, files, options)
            .unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// What is known with the proposal applied.
    pub(super) fn applied(&self, proposal: &Proposal) -> Known<'_> {
        let models = source("models.d/learned.toml", &proposal.models_toml);
        let policy = source("policy.d/learned.toml", &proposal.policy_toml);
        let files = with_files(&self.files, &[models], &[policy]);
        Known::new(&self.inventory, &files).unwrap_or_else(|problems| {
            panic!("{problems}\n{}\n{}", proposal.models_toml, proposal.policy_toml)
        })
    }
}

/// Whether the policies allow a connection, whatever the modes are. Parties as [`Scene::party`] takes them.
pub(super) fn allows(
    scene: &Scene,
    known: &Known<'_>,
    client: &str,
    server: &str,
    port: &str,
) -> bool {
    use crate::policy::{Endpoint, test_connection};
    let endpoint = |name: &str| match scene.party(name) {
        Party::Workload { .. } => Endpoint::Workload(WorkloadId::new(name)),
        Party::Host => Endpoint::Host,
        Party::Address { address, .. } => Endpoint::Address(address),
    };
    let packet = carried(port).packet().unwrap();
    let verdict = test_connection(
        known.inventory,
        &known.policies,
        &known.rules.options.settings,
        &endpoint(client),
        &endpoint(server),
        packet,
    );
    let ends: Vec<_> = verdict.egress.iter().chain(&verdict.ingress).collect();
    !ends.is_empty() && !ends.iter().any(|end| end.would_deny)
}

/// Ports of TCP from `first` on.
pub(super) fn tcp(first: u16, count: u16) -> impl Iterator<Item = String> {
    (first..first + count).map(|port| Carried::Port { proto: L4Proto::Tcp, port }.to_string())
}
