//! Owns telling systemd's journal, with fields that `journalctl` can filter by.
//!
//! Its native protocol: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::outlet::Undelivered;
use crate::observe::record::{Event, EventKind};

/// How long the journal may let us wait before it counts as away.
const PATIENCE: Duration = Duration::from_secs(2);

/// The journal.
#[derive(Debug)]
pub(super) struct Journald {
    path: PathBuf,
}

impl Journald {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub(super) fn deliver(&mut self, event: &Event) -> Result<(), Undelivered> {
        let sent = UnixDatagram::unbound().and_then(|socket| {
            socket.set_write_timeout(Some(PATIENCE))?;
            socket.send_to(&entry(event), &self.path)
        });
        sent.map(drop).map_err(|error| {
            let why = format!("{}: {error}", self.path.display());
            match error.raw_os_error() {
                Some(libc::EMSGSIZE) => Undelivered::Never(why),
                _ => Undelivered::Later(why),
            }
        })
    }
}

/// The `MESSAGE_ID` of a kind: 32 hexadecimal digits that mean it for ever.
pub fn message_id(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Denied => "29c7756f9038447f9052e01495b0e28a",
        EventKind::WouldDeny => "0f4e1d51f4f84c449ab54dcbe9dd4318",
        EventKind::Changed => "41a54cde09bc47cab8956fcc09b03cd0",
        EventKind::Repaired => "ad4c8cbea10d46968c712940ef5a6d35",
        EventKind::Foreign => "fd605a21b0304ea4a1f1ae1ef2b6f4e6",
        EventKind::Mode => "ceb6d164850d44e2b7559c54d883953a",
        EventKind::Daemon => "3cd302f544be491498e601a9e7e7d97d",
    }
}

/// One datagram.
pub(super) fn entry(event: &Event) -> Vec<u8> {
    let mut entry = Vec::new();
    field(&mut entry, "MESSAGE", event.message.as_str());
    field(&mut entry, "MESSAGE_ID", message_id(event.kind));
    field(&mut entry, "PRIORITY", &event.kind.severity().to_string());
    field(&mut entry, "SYSLOG_IDENTIFIER", "seawall");
    field(&mut entry, "SEAWALL_KIND", event.kind.word());
    field(&mut entry, "SEAWALL_SEQUENCE", &event.sequence.to_string());
    if let Some(workload) = &event.workload {
        field(&mut entry, "SEAWALL_WORKLOAD", workload.as_str());
    }
    if let Some(denial) = &event.denial {
        field(&mut entry, "SEAWALL_CLIENT", &denial.key.client.to_string());
        field(&mut entry, "SEAWALL_SERVER", &denial.key.server.to_string());
        field(&mut entry, "SEAWALL_PORT", &denial.key.carried.to_string());
    }
    if let Some(needed) = &event.needed {
        field(&mut entry, "SEAWALL_NEEDED", needed);
    }
    entry
}

/// A value of one line stands behind `=`; one with line breaks is preceded by its length, so that it cannot add fields.
fn field(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend((value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend(value.as_bytes());
    entry.push(b'\n');
}
