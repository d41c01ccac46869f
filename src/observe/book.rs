//! Owns finding out who has an address, as one netns meets it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::party::Party;
use crate::input::Text;
use crate::metadata::{NetworkKey, Workload, WorkloadId};
use crate::policy::Endpoint;
use crate::policy::selector::selector_for;
use crate::reconcile::View;

/// How long an address is still said to be a workload's that has gone, in microseconds: what is told of it comes later than
/// its end.
const REMEMBERED_US: u64 = 10_000_000;
/// How many answers are kept.
const KEPT: usize = 8192;

/// Who somebody is: for people, and for asking the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// In words that outlive containers.
    pub party: Party,
    /// Now.
    pub endpoint: Endpoint,
}

/// Who has which address.
#[derive(Debug, Default)]
pub struct Book {
    view: Arc<View>,
    /// Workloads by network and address. Made when it is needed.
    index: Option<HashMap<(NetworkKey, IpAddr), WorkloadId>>,
    found: HashMap<(WorkloadId, IpAddr), Found>,
    /// Workloads that were found before who is who changed, and when.
    former: HashMap<(WorkloadId, IpAddr), (Found, u64)>,
}

impl Book {
    /// Who is who from now on.
    pub fn renew(&mut self, view: Arc<View>, now_us: u64) {
        self.view = view;
        self.index = None;
        self.former.retain(|_, (_, since)| now_us.saturating_sub(*since) < REMEMBERED_US);
        let workloads = self.found.drain().filter(|(_, found)| found.party.is_workload());
        self.former.extend(workloads.map(|(key, found)| (key, (found, now_us))));
    }

    /// Who is who.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// A workload.
    pub fn workload(&self, id: &WorkloadId) -> Option<Found> {
        let workload = self.view.inventory.get(id)?;
        let endpoint = Endpoint::Workload(id.clone());
        Some(Found { party: self.party(workload), endpoint })
    }

    fn party(&self, workload: &Workload) -> Party {
        let resolution = self.view.desired.resolutions.get(&workload.id);
        let model = resolution.and_then(|resolution| resolution.model.as_ref());
        Party::Workload {
            name: workload.display_name(),
            model: model.map(|model| Text::new(model.as_str())),
            selector: Text::new(&selector_for(workload)),
        }
    }

    /// Whether an address is a workload's own.
    pub fn is_own(&self, owner: &WorkloadId, address: IpAddr) -> bool {
        let workload = self.view.inventory.get(owner);
        workload.is_some_and(|workload| workload.addresses().any(|own| own == address))
    }

    /// Who has an address that the netns of `owner` meets.
    pub fn at(&mut self, owner: &WorkloadId, address: IpAddr, now_us: u64) -> Found {
        let key = (owner.clone(), address);
        if let Some(found) = self.found.get(&key) {
            return found.clone();
        }
        let found = self.look_up(owner, address);
        if matches!(found.endpoint, Endpoint::Address(_))
            && let Some((former, since)) = self.former.get(&key)
            && now_us.saturating_sub(*since) < REMEMBERED_US
        {
            // Not kept as found: it is said for a while only, however often it is asked for.
            return former.clone();
        }
        if self.found.len() >= KEPT {
            self.found.clear();
        }
        self.found.insert(key, found.clone());
        found
    }

    fn look_up(&mut self, owner: &WorkloadId, address: IpAddr) -> Found {
        let nobody = Found {
            party: Party::Address { address, name: None },
            endpoint: Endpoint::Address(address),
        };
        let view = Arc::clone(&self.view);
        let Some(workload) = view.inventory.get(owner) else { return nobody };
        if workload.networks.values().any(|one| one.host_addresses().any(|own| own == address)) {
            return Found { party: Party::Host, endpoint: Endpoint::Host };
        }
        let index = self.index.get_or_insert_with(|| index(&view));
        let mut keys = workload.networks.keys();
        let id = keys.find_map(|network| index.get(&(network.clone(), address)));
        id.cloned().and_then(|id| self.workload(&id)).unwrap_or(nobody)
    }
}

fn index(view: &View) -> HashMap<(NetworkKey, IpAddr), WorkloadId> {
    let workloads = view.inventory.iter();
    let attachments = workloads
        .flat_map(|workload| workload.networks.iter().map(move |(key, one)| (workload, key, one)));
    attachments
        .flat_map(|(workload, key, one)| {
            one.addresses.iter().map(move |address| ((key.clone(), *address), workload.id.clone()))
        })
        .collect()
}
