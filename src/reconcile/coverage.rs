//! Owns saying honestly what protection a workload has now.

use std::fmt;

use serde::Serialize;

use crate::metadata::{NetworkMode, Workload};
use crate::policy::Mode;

/// Why a workload in the host's network has none.
pub const HOST_NETWORK: &str = "it uses the host's network";
/// How a reason begins when the newest policy could not be brought into force.
pub const OLDER_POLICY: &str = "an older policy is in force";

/// What protection a workload really has. Never more than the kernel was seen to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "state", content = "reason")]
pub enum Coverage {
    /// What is not allowed is denied.
    Enforced,
    /// Nothing is denied; all that would be is counted.
    Observed,
    /// A policy is in force, but something weakens it.
    Degraded(String),
    /// Nothing is in force.
    Unprotected(String),
    /// It does not run.
    Stopped,
}

/// The last try to bring a netns to what is desired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastTry {
    /// Whether some ruleset of ours is in the kernel.
    pub is_in_force: bool,
    /// Whether raw sockets are stopped at every link.
    pub is_guarded: bool,
    /// Why they are not although they should be.
    pub unguarded: Option<String>,
    /// Why the last try failed, if it did.
    pub error: Option<String>,
    /// By what packets get around the policy, if they do.
    pub diverted: Option<String>,
}

/// The coverage of one workload.
pub fn coverage(workload: &Workload, mode: Mode, is_running: bool, last: &LastTry) -> Coverage {
    if workload.network_mode == NetworkMode::Host {
        return Coverage::Unprotected(HOST_NETWORK.to_owned());
    }
    if !is_running {
        return Coverage::Stopped;
    }
    if mode == Mode::Off {
        return Coverage::Unprotected("its mode is off".to_owned());
    }
    match (last.is_in_force, &last.error) {
        (false, Some(error)) => return Coverage::Unprotected(error.clone()),
        (false, None) => return Coverage::Unprotected("not programmed yet".to_owned()),
        (true, Some(error)) => {
            return Coverage::Degraded(format!("{OLDER_POLICY}: {error}"));
        }
        (true, None) => {}
    }
    if mode == Mode::Observe {
        return Coverage::Observed;
    }
    if let Some(by) = &last.diverted {
        return Coverage::Degraded(format!("another's {by}"));
    }
    if workload.capabilities.privileged {
        return Coverage::Degraded("it is privileged and can change its own firewall".to_owned());
    }
    if workload.capabilities.net_admin {
        return Coverage::Degraded("it holds NET_ADMIN and can change its own firewall".to_owned());
    }
    if workload.capabilities.net_raw && !last.is_guarded {
        let why = last.unguarded.as_deref().unwrap_or("packet sockets (AF_PACKET) pass the policy");
        return Coverage::Degraded(format!("it holds NET_RAW: {why}"));
    }
    Coverage::Enforced
}

/// The coverage of one workload that lives in one netns with `mates`: what one of them can do to it, it does to all.
/// `mode` is that of the netns.
pub fn shared_coverage(
    workload: &Workload,
    mates: &[&Workload],
    mode: Mode,
    is_running: bool,
    last: &LastTry,
) -> Coverage {
    let own = coverage(workload, mode, is_running, last);
    let by_mate = |mate: &&Workload| match coverage(mate, mode, true, last) {
        Coverage::Degraded(reason) => Some(format!("{} shares its network: {reason}", mate.name)),
        _ => None,
    };
    match own {
        Coverage::Enforced => mates.iter().find_map(by_mate).map_or(own, Coverage::Degraded),
        _ => own,
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enforced => f.write_str("enforced"),
            Self::Observed => f.write_str("observed"),
            Self::Degraded(reason) => write!(f, "degraded ({reason})"),
            Self::Unprotected(reason) => write!(f, "unprotected ({reason})"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Runtime, WorkloadId};

    #[test]
    fn coverage_never_claims_more_than_there_is() {
        type Change = fn(&mut Workload, &mut LastTry);
        let cases: [(Change, Mode, &str); 14] = [
            (|_, _| (), Mode::Enforce, "enforced"),
            (|_, _| (), Mode::Observe, "observed"),
            (|_, _| (), Mode::Off, "unprotected (its mode is off)"),
            (
                |workload, _| workload.network_mode = NetworkMode::Host,
                Mode::Enforce,
                "unprotected (it uses the host's network)",
            ),
            (
                |workload, _| workload.capabilities.privileged = true,
                Mode::Enforce,
                "degraded (it is privileged and can change its own firewall)",
            ),
            (
                |workload, _| workload.capabilities.net_admin = true,
                Mode::Enforce,
                "degraded (it holds NET_ADMIN and can change its own firewall)",
            ),
            (
                |workload, _| workload.capabilities.net_raw = true,
                Mode::Enforce,
                "degraded (it holds NET_RAW: packet sockets (AF_PACKET) pass the policy)",
            ),
            (
                |workload, last| {
                    workload.capabilities.net_raw = true;
                    last.unguarded = Some("AF_XDP sockets pass the policy; busy".to_owned());
                },
                Mode::Enforce,
                "degraded (it holds NET_RAW: AF_XDP sockets pass the policy; busy)",
            ),
            (
                |workload, last| {
                    workload.capabilities.net_raw = true;
                    last.is_guarded = true;
                },
                Mode::Enforce,
                "enforced",
            ),
            (|workload, _| workload.capabilities.net_raw = true, Mode::Observe, "observed"),
            (|_, last| last.is_in_force = false, Mode::Enforce, "unprotected (not programmed yet)"),
            (
                |_, last| *last = LastTry { error: Some("no".to_owned()), ..LastTry::default() },
                Mode::Enforce,
                "unprotected (no)",
            ),
            (
                |_, last| last.diverted = Some("chain".to_owned()),
                Mode::Enforce,
                "degraded (another's chain)",
            ),
            (
                |_, last| last.error = Some("no".to_owned()),
                Mode::Enforce,
                "degraded (an older policy is in force: no)",
            ),
        ];
        for (change, mode, expected) in cases {
            let mut workload = Workload::new(WorkloadId::new("c"), "c".into(), Runtime::Docker);
            workload.network_mode = NetworkMode::Own;
            workload.capabilities = crate::metadata::Capabilities::default();
            let mut last = LastTry { is_in_force: true, ..LastTry::default() };
            change(&mut workload, &mut last);
            assert_eq!(coverage(&workload, mode, true, &last).to_string(), expected);
        }
    }

    #[test]
    fn what_a_neighbour_in_the_same_netns_may_do_weakens_all_of_them() {
        let workload = Workload::new(WorkloadId::new("c"), "c".into(), Runtime::Docker);
        let mut mate = Workload::new(WorkloadId::new("m"), "side".into(), Runtime::Docker);
        let last = LastTry { is_in_force: true, ..LastTry::default() };
        let of = |mate: &Workload, mode| {
            shared_coverage(&workload, &[mate], mode, true, &last).to_string()
        };
        assert_eq!(of(&mate, Mode::Enforce), "enforced");
        mate.capabilities.net_admin = true;
        let expected = "degraded (side shares its network: it holds NET_ADMIN and can change its own firewall)";
        assert_eq!(of(&mate, Mode::Enforce), expected);
        assert_eq!(of(&mate, Mode::Observe), "observed");
    }
}
