//! Owns what is kept of what was seen: flows, denials, events. Plain values, the same in memory, on disk and on the socket.

use serde::{Deserialize, Serialize};

use super::party::{Carried, Party};
use crate::input::Text;

/// What was said of a connection when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// The policy allows it.
    Allowed,
    /// It passed in observe, and is denied in enforce.
    WouldDeny,
    /// Nothing was asked: it needs no statement.
    Unasked,
}

/// At whose end a connection was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// In the client's netns.
    Client,
    /// In the server's netns.
    Server,
}

/// Connections that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FlowKey {
    /// At whose end they were seen. Between two workloads they are seen at both, each counted on its own.
    pub end: End,
    /// Who connected.
    pub client: Party,
    /// To whom.
    pub server: Party,
    /// On which port.
    pub carried: Carried,
    /// The port of the connection that this one is the data channel of (connection tracking helper).
    pub master: Option<Carried>,
    /// What was said of it there.
    pub said: Said,
}

/// Connections of one key. Times are microseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Which.
    #[serde(flatten)]
    pub key: FlowKey,
    /// When the first began.
    pub first_us: u64,
    /// When the last began or ended.
    pub last_us: u64,
    /// How many were made.
    pub connections: u64,
    /// How many of these ended without an answer.
    pub unanswered: u64,
    /// Packets from client to server, of connections that ended.
    pub packets_out: u64,
    /// Bytes of these.
    pub bytes_out: u64,
    /// Packets from server to client, of connections that ended.
    pub packets_in: u64,
    /// Bytes of these.
    pub bytes_in: u64,
}

/// Where a packet was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Where {
    /// On its way into the netns.
    In,
    /// On its way out.
    Out,
    /// On its way through.
    Transit,
    /// From a packet socket, at a link, or not from an own address.
    Raw,
}

/// Denials that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DenialKey {
    /// Whose table denied it.
    pub workload: Party,
    /// Where.
    pub at: Where,
    /// Whether it really was denied; in observe it passed.
    pub enforced: bool,
    /// Who connected.
    pub client: Party,
    /// To whom.
    pub server: Party,
    /// On which port.
    pub carried: Carried,
}

/// Denials of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// Which.
    #[serde(flatten)]
    pub key: DenialKey,
    /// The first, in microseconds since 1970.
    pub first_us: u64,
    /// The last.
    pub last_us: u64,
    /// How many packets were logged. The kernel logs within limits: the exact count of all is the workload's.
    pub logged: u64,
    /// Whether the packets were answers or went on in a connection that had been allowed before.
    pub is_reply: bool,
    /// The user whose process sent it, where the kernel told.
    pub uid: Option<u32>,
    /// The process that sent it, where it was found: name and pid.
    pub process: Option<Text>,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// Packets were denied.
    Denied,
    /// Packets would have been denied in enforce.
    WouldDeny,
    /// A ruleset changed because what is wanted did.
    Changed,
    /// Somebody changed a table of ours; it was put right.
    Repaired,
    /// Somebody did something that is only told of.
    Foreign,
    /// An operator changed modes.
    Mode,
    /// Something of seawall itself: its store, its sockets.
    Daemon,
}

/// Something that happened, for people and programs that follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number; the next one has a higher one, also after a restart.
    pub sequence: u64,
    /// When, in microseconds since 1970.
    pub at_us: u64,
    /// What it is about.
    pub kind: EventKind,
    /// The workload it is about, as people call it.
    pub workload: Option<Text>,
    /// In one line.
    pub message: Text,
    /// What was denied.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub denial: Option<Denial>,
    /// The statement that would have been needed, as TOML for a file in policy.d.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub needed: Option<String>,
}
