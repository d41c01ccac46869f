//! Owns folding observations of several sources into one inventory.
//!
//! Pure. The sources are not ordered against each other, so the order in which their words arrive must not matter:
//!
//! - containerd knows first that a process exists, so a pid from it stands against a Docker that does not know yet;
//! - an end that one source told is not taken, when the other tells it too, for the end of the successor;
//! - what stopped has no addresses (security model 3: no stale identity);
//! - a source that is down changes nothing (security model 2: fail closed).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::container::netns_of;
use super::inventory::Inventory;
use super::observation::{NetworkFacts, Observation, Source};
use super::workload::{Attachment, NetworkKey, NetworkMode, Runtime, State, Workload, WorkloadId};
use crate::input::Text;

/// The inventory and what it takes to keep it right while sources speak.
#[derive(Clone, Debug, Default)]
pub struct InventoryBuilder {
    inventory: Inventory,
    networks: BTreeMap<NetworkKey, NetworkFacts>,
    /// Running first processes as containerd tells them; may be of workloads nobody has described yet.
    tasks: BTreeMap<WorkloadId, u32>,
    /// Ends that containerd told and Docker has not told yet.
    untold_stops: BTreeMap<WorkloadId, u32>,
    /// Addresses read from the netns of a process.
    read_addresses: BTreeMap<WorkloadId, (u32, Vec<IpAddr>)>,
    sources: BTreeMap<Source, Result<(), Text>>,
}

impl InventoryBuilder {
    /// Nothing known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every workload known now.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// Every network known now.
    pub fn networks(&self) -> impl Iterator<Item = &NetworkFacts> {
        self.networks.values()
    }

    /// Whether a source is connected: `None` when it has not spoken yet, `Err` with the reason when it is down.
    pub fn source(&self, source: Source) -> Option<Result<(), &Text>> {
        self.sources.get(&source).map(|state| state.as_ref().map(|_| ()))
    }

    /// Folds in one observation. Returns whether the inventory or the networks changed.
    pub fn apply(&mut self, observation: Observation) -> bool {
        match observation {
            Observation::Snapshot { source, workloads } => self.snapshot(source, workloads),
            Observation::Upsert(workload) => self.upsert(*workload),
            Observation::Removed(id) => self.removed(&id),
            Observation::Stopped(id) => self.stopped(&id),
            Observation::TaskCreated { id, pid } => self.task_created(id, pid),
            Observation::TaskExited { id, pid } => self.task_exited(&id, pid),
            Observation::Tasks { running, undecided } => self.replace_tasks(running, &undecided),
            Observation::Networks(networks) => self.replace_networks(networks),
            Observation::Down { source, error } => {
                self.sources.insert(source, Err(error));
                self.untold_stops.clear();
                false
            }
        }
    }

    /// Notes which netns a running workload's process is in.
    pub fn set_inode(&mut self, id: &WorkloadId, pid: u32, inode: Option<u64>) {
        self.inventory.set_inode(id, pid, inode);
    }

    /// Replaces a workload's addresses by those read from its netns, which are the truth.
    ///
    /// An address goes to the network the workload is attached to whose subnet it is of; others go to an attachment
    /// with the key `netns:ID`, which no other workload shares: an address that a container gave itself relates it to nobody
    /// (security model 4). Link-local, loopback and unspecified addresses are left out.
    /// Does nothing for a workload that has no netns. Returns whether anything changed.
    pub fn set_addresses(&mut self, id: &WorkloadId, addresses: Vec<IpAddr>) -> bool {
        let Some(known) = self.inventory.get(id) else { return false };
        let Some(netns) = &known.netns else { return false };
        self.read_addresses.insert(id.clone(), (netns.pid, addresses.clone()));
        let mut workload = known.clone();
        workload.networks.remove(&netns_key(id));
        let former: Vec<_> = workload
            .networks
            .values_mut()
            .map(|attachment| std::mem::take(&mut attachment.addresses))
            .collect();
        for address in addresses.into_iter().filter(is_attributable) {
            let key = self.network_of(address, &workload, &former);
            attachment(&mut workload, key).addresses.insert(address);
        }
        self.inventory.upsert(workload)
    }

    /// The attached network an address is of; the synthetic one when it is of none.
    fn network_of(
        &self,
        address: IpAddr,
        workload: &Workload,
        former: &[BTreeSet<IpAddr>],
    ) -> NetworkKey {
        let stood_there = workload.networks.keys().zip(former);
        let by_docker = stood_there.filter(|(_, had)| had.contains(&address)).map(|(key, _)| key);
        let has_it = |key: &&NetworkKey| {
            self.networks.get(*key).is_some_and(|facts| facts.contains(address))
        };
        let by_subnet = workload.networks.keys().filter(has_it);
        by_docker.chain(by_subnet).next().cloned().unwrap_or_else(|| netns_key(&workload.id))
    }

    fn snapshot(&mut self, source: Source, workloads: Vec<Workload>) -> bool {
        self.sources.insert(source, Ok(()));
        self.untold_stops.clear();
        let present: BTreeSet<_> = workloads.iter().map(|workload| workload.id.clone()).collect();
        let is_gone =
            |workload: &&Workload| runs_at(workload, source) && !present.contains(&workload.id);
        let gone: Vec<_> =
            self.inventory.iter().filter(is_gone).map(|workload| workload.id.clone()).collect();
        let mut has_changed = false;
        for id in &gone {
            has_changed |= self.removed(id);
        }
        for workload in workloads {
            // A snapshot makes up for what was missed: an end too. `Created` is no end.
            if workload.state == State::Exited {
                self.tasks.remove(&workload.id);
            }
            has_changed |= self.upsert(workload);
        }
        has_changed
    }

    fn upsert(&mut self, mut workload: Workload) -> bool {
        let id = workload.id.clone();
        let docker_pid = workload.netns.as_ref().map(|netns| netns.pid);
        if self.is_down(Source::Containerd)
            && let Some(pid) = docker_pid
            && let Some(task) = self.tasks.get_mut(&id)
        {
            *task = pid;
        }
        if let Some(pid) = self.tasks.get(&id).copied() {
            workload.state = State::Running;
            if docker_pid != Some(pid) {
                workload.netns = Some(netns_of(pid));
            }
        } else if self.untold_stops.contains_key(&id) && workload.state == State::Running {
            // Docker frees the addresses first and only then says that the process ended: until it does, its word is old.
            workload.state = State::Exited;
        }
        let known = self.inventory.get(&id);
        if let (Some(new), Some(old)) =
            (&mut workload.netns, known.and_then(|known| known.netns.as_ref()))
            && new.pid == old.pid
        {
            new.inode = new.inode.or(old.inode);
        }
        match (workload.state, &workload.netns) {
            (State::Running, Some(netns)) => self.fill_in_addresses(netns.pid, &mut workload),
            (State::Running, None) => {}
            (State::Created | State::Exited, _) => clear(&mut workload),
        }
        self.inventory.upsert(workload)
    }

    /// Gives attachments that the source knows no address of those read from the netns of the same process.
    fn fill_in_addresses(&self, pid: u32, workload: &mut Workload) {
        let Some((of, addresses)) = self.read_addresses.get(&workload.id) else { return };
        if *of != pid || !matches!(workload.network_mode, NetworkMode::Own | NetworkMode::None) {
            return;
        }
        let told: BTreeSet<IpAddr> = workload.addresses().collect();
        for address in addresses.iter().copied().filter(is_attributable) {
            let key = self.network_of(address, workload, &[]);
            let is_told = workload.networks.get(&key).is_some_and(|a| {
                a.addresses.iter().any(|a| told.contains(a) && a.is_ipv4() == address.is_ipv4())
            });
            if !is_told {
                attachment(workload, key).addresses.insert(address);
            }
        }
    }

    fn removed(&mut self, id: &WorkloadId) -> bool {
        self.tasks.remove(id);
        self.untold_stops.remove(id);
        self.read_addresses.remove(id);
        self.inventory.remove(id).is_some()
    }

    /// Docker's word that the process ended. Containerd may have told already, and of the next process too.
    fn stopped(&mut self, id: &WorkloadId) -> bool {
        match self.untold_stops.get_mut(id) {
            Some(untold) if *untold > 1 => *untold -= 1,
            Some(_) => {
                self.untold_stops.remove(id);
            }
            None => {
                self.tasks.remove(id);
                return self.exited(id);
            }
        }
        if self.tasks.contains_key(id) { false } else { self.exited(id) }
    }

    fn task_created(&mut self, id: WorkloadId, pid: u32) -> bool {
        self.sources.insert(Source::Containerd, Ok(()));
        self.tasks.insert(id.clone(), pid);
        let Some(known) = self.inventory.get(&id) else { return false };
        let mut workload = known.clone();
        if workload.netns.as_ref().is_some_and(|netns| netns.pid != pid) {
            clear(&mut workload);
        }
        workload.state = State::Running;
        if workload.netns.is_none() {
            workload.netns = Some(netns_of(pid));
        }
        self.inventory.upsert(workload)
    }

    fn task_exited(&mut self, id: &WorkloadId, pid: u32) -> bool {
        let task = self.tasks.get(id).copied();
        let known = self.inventory.get(id);
        let current = task.or(known.and_then(|w| w.netns.as_ref()).map(|netns| netns.pid));
        // Docker told first: then this is what it told of. Or the successor runs already.
        let is_told = known.is_some_and(|workload| workload.state != State::Running);
        if current.is_some_and(|current| current != pid) || (task.is_none() && is_told) {
            return false;
        }
        self.tasks.remove(id);
        if known.is_some_and(|workload| workload.runtime == Runtime::Docker) {
            *self.untold_stops.entry(id.clone()).or_default() += 1;
        }
        self.exited(id)
    }

    fn replace_tasks(
        &mut self,
        tasks: BTreeMap<WorkloadId, u32>,
        undecided: &BTreeSet<WorkloadId>,
    ) -> bool {
        self.untold_stops.clear();
        let ended: Vec<_> = self
            .tasks
            .iter()
            .filter(|(id, pid)| tasks.get(*id) != Some(pid) && !undecided.contains(*id))
            .map(|(id, _)| id.clone())
            .collect();
        let mut has_changed = false;
        for id in ended {
            self.tasks.remove(&id);
            if !tasks.contains_key(&id) {
                has_changed |= self.exited(&id);
            }
        }
        for (id, pid) in tasks {
            has_changed |= self.task_created(id, pid);
        }
        self.sources.insert(Source::Containerd, Ok(()));
        has_changed
    }

    fn replace_networks(&mut self, networks: Vec<NetworkFacts>) -> bool {
        let networks: BTreeMap<_, _> =
            networks.into_iter().map(|facts| (facts.key.clone(), facts)).collect();
        let has_changed = self.networks != networks;
        self.networks = networks;
        has_changed
    }

    fn exited(&mut self, id: &WorkloadId) -> bool {
        self.read_addresses.remove(id);
        let Some(workload) = self.inventory.get(id) else { return false };
        let mut workload = workload.clone();
        workload.state = State::Exited;
        clear(&mut workload);
        self.inventory.upsert(workload)
    }

    fn is_down(&self, source: Source) -> bool {
        matches!(self.sources.get(&source), Some(Err(_)))
    }
}

fn runs_at(workload: &Workload, source: Source) -> bool {
    match workload.runtime {
        Runtime::Docker => source == Source::Docker,
        Runtime::Containerd(_) => source == Source::Containerd,
        Runtime::File => false,
    }
}

/// The key of the attachment for addresses of no known network.
fn netns_key(id: &WorkloadId) -> NetworkKey {
    NetworkKey(Text::new(&format!("netns:{id}")))
}

fn attachment(workload: &mut Workload, key: NetworkKey) -> &mut Attachment {
    let name = key.0.clone();
    workload.networks.entry(key).or_insert_with(|| Attachment {
        name,
        driver: None,
        is_default_bridge: false,
        addresses: BTreeSet::new(),
        gateways: BTreeSet::new(),
        aliases: BTreeSet::new(),
    })
}

fn is_attributable(address: &IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !is_link_local && !address.is_loopback() && !address.is_unspecified()
}

/// Takes away what only a running process has.
fn clear(workload: &mut Workload) {
    workload.netns = None;
    let synthetic = netns_key(&workload.id);
    workload.networks.remove(&synthetic);
    for attachment in workload.networks.values_mut() {
        attachment.addresses.clear();
    }
}

#[cfg(test)]
mod tests;
