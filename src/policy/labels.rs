//! Owns what `seawall.*` container labels may say, and how far they are believed.
//!
//! Every label but `seawall.model` (which `model` reads) is read here. Lists are separated by commas; blanks around items do not
//! matter; an empty list is a list of nothing.
//!
//! ```text
//! seawall.mode     = "off" | "observe" | "enforce"
//! seawall.provides = [ PORTS | SERVICE , … ]          8080/tcp, http
//! seawall.uses     = [ NAME | "service:" SERVICE | "peer:" NAME , … ]
//! seawall.egress   = [ TARGET ":" ( PORTS | "ping" ) , … ]
//! seawall.tag      = [ NAME , … ]
//!
//! TARGET  = "internet" | "world" | "cidr:" RANGE      cidr:10.0.0.0/8:5432/tcp
//! PORTS   = port [ "-" port ] [ "/" ("tcp"|"udp"|"sctp") ]
//! SERVICE = a service of the catalogue, or "exposed"
//! NAME    = 1 or more of A-Z a-z 0-9 . _ -
//! ```
//!
//! A bare name in `seawall.uses` is a service when the catalogue has one of that name, and a peer (service name, container name or
//! alias) in any case. A label with one malformed item is not honoured at all, and reported.
//!
//! With `labels = "trust"` labels add to what the model says; with `narrow` they only take away: the three lists cut what would be
//! generated down to what they name, the mode can only get stricter, tags are not read. A label that the *image* carries with
//! that very value is never read: who builds an image must not grant it anything (security model 7).

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;

use super::selector::parse_cidr;
use super::settings::{LabelTrust, Mode};
use super::statement::{LabelProblem, Peer, Traffic};
use crate::input::Text;
use crate::input::toml_doc::nearest;
use crate::metadata::{Ports, Workload};
use crate::model::{Catalogue, Provided, ServiceName};

/// Which model the workload is; read in `model`.
pub(super) const MODEL: &str = crate::model::resolve::MODEL_LABEL;
pub(super) const MODE: &str = "seawall.mode";
pub(super) const PROVIDES: &str = "seawall.provides";
pub(super) const USES: &str = "seawall.uses";
pub(super) const EGRESS: &str = "seawall.egress";
const TAG: &str = "seawall.tag";
const KNOWN: [&str; 6] = ["seawall.model", MODE, PROVIDES, USES, EGRESS, TAG];

/// A workload's labels as they were understood; `None` is not said (or not believed).
#[derive(Debug, Default)]
pub(super) struct Labels {
    pub(super) trust: LabelTrust,
    pub(super) mode: Option<Mode>,
    pub(super) provides: Option<Provides>,
    pub(super) uses: Option<Uses>,
    pub(super) egress: Option<Vec<EgressItem>>,
    pub(super) tags: BTreeSet<Text>,
}

/// `seawall.provides`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Provides {
    pub(super) services: BTreeSet<String>,
    pub(super) ports: BTreeSet<Ports>,
}

/// `seawall.uses`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Uses {
    pub(super) services: BTreeSet<String>,
    pub(super) peers: BTreeSet<String>,
}

/// One item of `seawall.egress`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EgressItem {
    pub(super) to: EgressTo,
    pub(super) traffic: Traffic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EgressTo {
    Internet,
    World,
    Cidr(IpNetwork),
}

impl From<EgressTo> for Peer {
    fn from(to: EgressTo) -> Self {
        match to {
            EgressTo::Internet => Self::Internet,
            EgressTo::World => Self::World,
            EgressTo::Cidr(range) => Self::Cidr(range),
        }
    }
}

impl Labels {
    /// `seawall.provides`, where it adds.
    pub(super) fn added_provides(&self) -> Option<&Provides> {
        self.provides.as_ref().filter(|_| self.trust == LabelTrust::Trust)
    }

    /// `seawall.provides`, where it takes away.
    pub(super) fn kept_provides(&self) -> Option<&Provides> {
        self.provides.as_ref().filter(|_| self.trust == LabelTrust::Narrow)
    }

    /// `seawall.uses`, where it adds.
    pub(super) fn added_uses(&self) -> Option<&Uses> {
        self.uses.as_ref().filter(|_| self.trust == LabelTrust::Trust)
    }

    /// `seawall.uses`, where it takes away.
    pub(super) fn kept_uses(&self) -> Option<&Uses> {
        self.uses.as_ref().filter(|_| self.trust == LabelTrust::Narrow)
    }
}

/// Reads a workload's labels. `called` is what people call it, for the problems.
pub(super) fn read(
    workload: &Workload,
    called: &Text,
    catalogue: &Catalogue,
    trust: LabelTrust,
    problems: &mut Vec<LabelProblem>,
) -> Labels {
    let mut labels = Labels { trust, ..Labels::default() };
    if trust == LabelTrust::Ignore {
        return labels;
    }
    for (key, value) in &workload.labels {
        if !key.as_str().starts_with("seawall.") {
            continue;
        }
        let read = if workload.operator_label(key.as_str()).is_none() {
            Err((
                "label/from-image",
                "it comes, or may come, with the image, and an image cannot speak for itself"
                    .to_owned(),
            ))
        } else if key == MODEL {
            Ok(()) // read where workloads are resolved
        } else {
            labels.set(key.as_str(), value.as_str(), catalogue)
        };
        if let Err((code, message)) = read {
            problems.push(LabelProblem {
                workload: workload.id.clone(),
                label: called.clone(),
                key: key.clone(),
                code,
                message: Text::new(&message),
            });
        }
    }
    labels
}

impl Labels {
    fn set(
        &mut self,
        key: &str,
        value: &str,
        catalogue: &Catalogue,
    ) -> Result<(), (&'static str, String)> {
        let malformed = |message| ("label/malformed", message);
        match key {
            MODE => self.mode = Some(parse_mode(value).map_err(malformed)?),
            PROVIDES => self.provides = Some(parse_provides(value, catalogue).map_err(malformed)?),
            USES => self.uses = Some(parse_uses(value, catalogue).map_err(malformed)?),
            EGRESS => {
                let items = items(value).map(parse_egress).collect::<Result<_, _>>();
                self.egress = Some(items.map_err(malformed)?);
            }
            TAG => {
                let tags: BTreeSet<Text> = items(value)
                    .map(|item| name(item).map(Text::new))
                    .collect::<Result<_, _>>()
                    .map_err(malformed)?;
                // A tag can bring an operator's allow with it, so it is not a way to take away.
                if self.trust == LabelTrust::Trust {
                    self.tags = tags;
                }
            }
            _ => {
                let near = nearest(key, KNOWN.into_iter()).map_or_else(
                    || format!("known ones: {}", KNOWN.join(", ")),
                    |near| format!("did you mean {near}?"),
                );
                return Err(("label/unknown", format!("there is no such label; {near}")));
            }
        }
        Ok(())
    }
}

fn items(value: &str) -> impl Iterator<Item = &str> {
    value
        .split(',')
        .map(str::trim)
        .filter(move |item| !(item.is_empty() && value.trim().is_empty()))
}

fn parse_mode(value: &str) -> Result<Mode, String> {
    match value.trim() {
        "off" => Ok(Mode::Off),
        "observe" => Ok(Mode::Observe),
        "enforce" => Ok(Mode::Enforce),
        other => Err(format!("`{other}` is not off, observe or enforce")),
    }
}

fn is_service(name: &str, catalogue: &Catalogue) -> bool {
    name == Provided::EXPOSED
        || ServiceName::new(name).is_some_and(|name| catalogue.services.contains_key(&name))
}

fn name(item: &str) -> Result<&str, String> {
    let is_name = !item.is_empty()
        && item.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if is_name { Ok(item) } else { Err(format!("`{item}` is not a name")) }
}

fn parse_provides(value: &str, catalogue: &Catalogue) -> Result<Provides, String> {
    let mut provides = Provides::default();
    for item in items(value) {
        if is_service(item, catalogue) {
            provides.services.insert(item.to_owned());
        } else if item.starts_with(|first: char| first.is_ascii_digit()) {
            provides.ports.insert(item.parse::<Ports>().map_err(|error| error.to_string())?);
        } else {
            return Err(format!(
                "`{item}` is neither a service of the catalogue nor a port such as 8080/tcp"
            ));
        }
    }
    Ok(provides)
}

fn parse_uses(value: &str, catalogue: &Catalogue) -> Result<Uses, String> {
    let mut uses = Uses::default();
    for item in items(value) {
        if let Some(service) = item.strip_prefix("service:") {
            if !is_service(service, catalogue) {
                return Err(format!("`{service}` is not a service of the catalogue"));
            }
            uses.services.insert(service.to_owned());
        } else if let Some(peer) = item.strip_prefix("peer:") {
            uses.peers.insert(name(peer)?.to_owned());
        } else {
            if is_service(item, catalogue) {
                uses.services.insert(item.to_owned());
            }
            uses.peers.insert(name(item)?.to_owned());
        }
    }
    Ok(uses)
}

fn parse_egress(item: &str) -> Result<EgressItem, String> {
    let shape = || {
        format!("`{item}` is not TARGET:PORTS such as internet:443/tcp or cidr:10.0.0.0/8:5432/tcp")
    };
    let (target, ports) = item.rsplit_once(':').ok_or_else(shape)?;
    let to = match target {
        "internet" => EgressTo::Internet,
        "world" => EgressTo::World,
        _ => {
            let range = target.strip_prefix("cidr:").ok_or_else(shape)?;
            EgressTo::Cidr(parse_cidr(range).map_err(|error| error.to_string())?)
        }
    };
    let traffic = match ports {
        "ping" => Traffic::Ping,
        ports => Traffic::Ports(ports.parse::<Ports>().map_err(|error| error.to_string())?),
    };
    Ok(EgressItem { to, traffic })
}

#[cfg(test)]
mod tests;
