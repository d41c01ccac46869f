//! Owns what kinds of events are called and how serious they are.

use super::record::EventKind;

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Denied,
        Self::WouldDeny,
        Self::Changed,
        Self::Repaired,
        Self::Foreign,
        Self::Mode,
        Self::Daemon,
    ];

    /// As it is written in JSON, in labels and in fields.
    pub fn word(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::WouldDeny => "would_deny",
            Self::Changed => "changed",
            Self::Repaired => "repaired",
            Self::Foreign => "foreign",
            Self::Mode => "mode",
            Self::Daemon => "daemon",
        }
    }

    /// The kind of a word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// How serious it is, as syslog and the journal count (RFC 5424, 6.2.1): 4 is a warning, 5 a notice, 6 information.
    pub fn severity(self) -> u8 {
        match self {
            Self::Denied | Self::Repaired | Self::Foreign | Self::Daemon => 4,
            Self::WouldDeny | Self::Mode => 5,
            Self::Changed => 6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_json() {
        for kind in EventKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
            assert_eq!(EventKind::of_word(kind.word()), Some(kind));
        }
        assert_eq!(EventKind::of_word("Denied"), None);
    }
}
