//! Owns the settings of the OCI runtime wrapper (`[runtime]`): how long a start waits, and what happens then.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;

/// What `runtime.wait_ms` may be: a start that waits for minutes is taken for stuck by whoever asked for it.
pub const WAIT_MS: RangeInclusive<u64> = 1..=60_000;

/// What happens to a container's start when the daemon does not answer in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fallback {
    /// It starts with everything denied, until the daemon is back.
    #[default]
    DenyAll,
    /// It does not start.
    Refuse,
    /// It starts unfiltered, until the daemon is back.
    Allow,
}

impl Fallback {
    /// Every fallback.
    pub const ALL: [Self; 3] = [Self::DenyAll, Self::Refuse, Self::Allow];

    /// As it is written in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::DenyAll => "deny-all",
            Self::Refuse => "refuse",
            Self::Allow => "allow",
        }
    }
}

/// What the wrapper obeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RuntimeSettings {
    /// How long a start waits for the daemon at most.
    pub wait: Duration,
    /// What happens then.
    pub fallback: Fallback,
}

impl Default for RuntimeSettings {
    /// Five seconds: a daemon that restarts is back within one.
    fn default() -> Self {
        Self { wait: Duration::from_secs(5), fallback: Fallback::default() }
    }
}
