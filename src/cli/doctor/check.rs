//! Owns what a check is: its stable name, its result, what that costs, and what to do about it.

use serde::Serialize;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// All is as it should be.
    Ok,
    /// The promises hold, but something else is lost, or may be soon.
    Warning,
    /// A promise of the security model does not hold.
    Missing,
    /// This call may not look at it.
    Unknown,
    /// It was not looked at, because of what another check found.
    Skipped,
}

impl Outcome {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Missing => "missing",
            Self::Unknown => "unknown",
            Self::Skipped => "skipped",
        }
    }
}

/// One check that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// Its stable name: `kernel.owner`.
    pub(super) id: &'static str,
    /// How it came out.
    pub(super) result: Outcome,
    /// What was found.
    pub(super) found: String,
    /// What is lost by it.
    pub(super) costs: Option<&'static str>,
    /// The promises of the security model that do not hold, by number.
    pub(super) promises: &'static [u8],
    /// What to do.
    pub(super) remedy: Option<String>,
}

impl Check {
    pub(super) fn ok(id: &'static str, found: impl Into<String>) -> Self {
        Self::of(id, Outcome::Ok, found)
    }

    /// `costs` is what is lost, `remedy` what to do.
    pub(super) fn warning(
        id: &'static str,
        found: impl Into<String>,
        costs: &'static str,
        remedy: impl Into<String>,
    ) -> Self {
        let (costs, remedy) = (Some(costs), Some(remedy.into()));
        Self { costs, remedy, ..Self::of(id, Outcome::Warning, found) }
    }

    /// The same, with the promises that do not hold.
    pub(super) fn missing(
        id: &'static str,
        promises: &'static [u8],
        found: impl Into<String>,
        costs: &'static str,
        remedy: impl Into<String>,
    ) -> Self {
        let result = Outcome::Missing;
        Self { result, promises, ..Self::warning(id, found, costs, remedy) }
    }

    /// `why` it could not be looked at.
    pub(super) fn unknown(id: &'static str, why: impl Into<String>) -> Self {
        Self::of(id, Outcome::Unknown, why)
    }

    /// `why` it was not looked at.
    pub(super) fn skipped(id: &'static str, why: impl Into<String>) -> Self {
        Self::of(id, Outcome::Skipped, why)
    }

    fn of(id: &'static str, result: Outcome, found: impl Into<String>) -> Self {
        Self { id, result, found: found.into(), costs: None, promises: &[], remedy: None }
    }
}

/// The promises of the security model, from 1 on.
pub(super) const PROMISES: [&str; 9] = [
    "no packet before policy",
    "fail closed",
    "no stale identity",
    "no bypass from inside",
    "tampering",
    "atomic",
    "input is hostile",
    "least privilege",
    "never lock out the operator",
];

/// Every check and the question it answers, in the order they are printed.
pub(super) const ALL: [(&str, &str); 39] = [
    ("host.permission", "may this call look at everything"),
    ("host.cgroups", "can a process be told to be a container's"),
    ("host.state", "is the state folder there, and nobody else's"),
    ("host.space", "is there room for what is kept"),
    ("host.configuration", "do all configuration files hold together"),
    ("host.certificates", "can an https webhook be trusted"),
    ("kernel.version", "which kernel is it"),
    ("kernel.scratch", "can a network namespace be made to try it in"),
    ("kernel.tables", "does it take and deny by a real ruleset"),
    ("kernel.owner", "can tables be seawall's own, and outlive it"),
    ("kernel.intervals", "does it take sets of address and port ranges"),
    ("kernel.guard", "can links be guarded against packet sockets"),
    ("kernel.xdp", "can links be kept from AF_XDP sockets"),
    ("kernel.nflog", "does it tell of denied packets"),
    ("kernel.conntrack", "does it tell of connections"),
    ("kernel.accounting", "does it count their bytes"),
    ("kernel.helpers", "does it follow data connections"),
    ("docker.reachable", "does Docker answer"),
    ("docker.settings", "does Docker run as it is expected to"),
    ("docker.file", "is dockerd's configuration file the one seawall reads"),
    ("docker.proxy", "do published ports show who connects"),
    ("containerd.reachable", "does containerd answer"),
    ("runtime.wrapper", "is the runtime wrapper in the engine's configuration"),
    ("runtime.engine", "does the engine use it"),
    ("runtime.containers", "were all containers created with it"),
    ("daemon.running", "does a daemon run"),
    ("daemon.version", "is it this program's version"),
    ("daemon.configuration", "is the configuration on disk in force"),
    ("daemon.sources", "does it hear Docker and containerd"),
    ("daemon.mode", "is anything denied"),
    ("daemon.coverage", "is every container what its mode says"),
    ("daemon.waited", "did every container wait for its policy"),
    ("daemon.record", "is what was seen kept and sent"),
    ("daemon.descriptors", "may it open enough files"),
    ("neighbours.nftables", "does nftables.service flush the host's rules"),
    ("neighbours.firewalld", "what does firewalld do"),
    ("neighbours.ufw", "what does ufw do"),
    ("neighbours.iptables", "what else filters on the host"),
    ("neighbours.networks", "do other network firewalls run"),
];

/// A check's place among all.
pub(super) fn place(id: &str) -> usize {
    ALL.iter().position(|(known, _)| *known == id).unwrap_or(ALL.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_promises_are_called_what_the_security_model_calls_them() {
        let page = include_str!("../../../docs/SECURITY-MODEL.md");
        for (number, title) in (1..).zip(PROMISES) {
            let heading = format!("\n## {number}. {title}\n");
            assert!(page.to_lowercase().contains(&heading), "{heading}");
        }
    }
}
