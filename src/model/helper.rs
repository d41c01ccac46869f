//! Owns connection tracking helpers: which there are, what their control connections are, and what these expect.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::input::Text;
use crate::metadata::L4Proto;

/// What reads a control connection in the kernel, and expects the data connections that are agreed on there
/// (`net/netfilter/nf_conntrack_ftp.c` and its neighbours).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Helper {
    /// FTP, active and passive (RFC 959, RFC 2428).
    Ftp,
    /// SIP, and the media streams it agrees on (RFC 3261).
    Sip,
    /// TFTP (RFC 1350).
    Tftp,
}

/// A text that names no helper.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no connection tracking helper")]
pub struct HelperError(Text);

impl Helper {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ftp, Self::Sip, Self::Tftp];
    /// What to write instead of a name that is none.
    pub const HELP: &'static str = "use ftp, tftp or sip";

    /// The kernel's name for it, which is also the one people write.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ftp => "ftp",
            Self::Sip => "sip",
            Self::Tftp => "tftp",
        }
    }

    /// The protocols its control connection may have.
    pub fn protocols(self) -> &'static [L4Proto] {
        match self {
            Self::Ftp => &[L4Proto::Tcp],
            Self::Sip => &[L4Proto::Tcp, L4Proto::Udp],
            Self::Tftp => &[L4Proto::Udp],
        }
    }

    /// The protocols of the connections it expects.
    pub fn data_protocols(self) -> &'static [L4Proto] {
        self.protocols()
    }

    /// Over what it is spoken, in a sentence.
    pub fn spoken(self) -> String {
        let protocols: Vec<&str> = self.protocols().iter().map(|proto| proto.as_str()).collect();
        format!("{self} is spoken over {}", protocols.join(" or "))
    }

    /// Whether it reads control connections of this protocol.
    pub fn reads(self, proto: L4Proto) -> bool {
        self.protocols().contains(&proto)
    }
}

impl fmt::Display for Helper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Helper {
    type Err = HelperError;

    fn from_str(text: &str) -> Result<Self, HelperError> {
        let known = Self::ALL.into_iter().find(|helper| helper.as_str() == text);
        known.ok_or_else(|| HelperError(Text::new(text)))
    }
}
