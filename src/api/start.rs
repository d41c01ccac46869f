//! Owns what the runtime wrapper and the daemon say to each other when a container is about to start.

use serde::{Deserialize, Serialize};

use crate::reconcile::StartAnswer;

/// `POST /v1/starts`: a container's first process exists and waits to be let run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRequest {
    /// The container's id, as the runtime was given it.
    pub id: String,
    /// Its first process, in the daemon's pid namespace.
    pub pid: u32,
}

/// The answer: it may run. There is no other; who waits too long goes away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartReply {
    /// Whether its netns is seawall's to filter: not so for the host's own.
    pub is_filtered: bool,
    /// How long it took the daemon, in microseconds.
    pub waited_us: u64,
}

impl From<StartAnswer> for StartReply {
    fn from(answer: StartAnswer) -> Self {
        match answer {
            StartAnswer::Ready(waited) => Self {
                is_filtered: true,
                waited_us: u64::try_from(waited.as_micros()).unwrap_or(u64::MAX),
            },
            StartAnswer::NotFiltered => Self { is_filtered: false, waited_us: 0 },
        }
    }
}
