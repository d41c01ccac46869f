//! Owns whose a table is: what the kernel says of it, what is to be done about it, and which process stands behind it.
//!
//! A table can belong to one netlink socket; then nobody else may change it, root included (`nft_table_has_owner` in the
//! kernel). With [`PERSIST`] it stays when that socket closes, and waits for whoever adopts it. Never without: the end of
//! the daemon would take the table away (security model 2).

use std::fmt;
use std::io;

use nix::unistd::gettid;

use super::netns::{Entrance, Netns, NetnsError};
use crate::input::Text;

/// The table is switched off (`NFT_TABLE_F_DORMANT`).
const DORMANT: u32 = 0x1;
/// The table belongs to a socket (`NFT_TABLE_F_OWNER`, Linux 5.12).
pub const OWNER: u32 = 0x2;
/// The table outlives the socket it belongs to (`NFT_TABLE_F_PERSIST`, Linux 6.9).
pub const PERSIST: u32 = 0x4;
/// netfilter's number among the netlink protocols (`NETLINK_NETFILTER`).
const NETFILTER: &str = "12";

/// What the kernel says of a table beside its content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableState {
    /// `NFTA_TABLE_FLAGS`.
    pub flags: u32,
    /// The port id of the socket it belongs to.
    pub owner: Option<u32>,
}

/// Whose a table shall be after a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Whether a table that is made is made the socket's own.
    pub is_owned: bool,
    /// What becomes of one that is there.
    pub present: Present,
}

/// What becomes of a table that is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Present {
    /// It is whose it shall be.
    #[default]
    Kept,
    /// It is made the socket's own.
    Adopted,
    /// It is removed and made anew: the kernel lets nobody claim a table that was made plain.
    Remade,
}

impl Claim {
    /// What the socket with this port id is to do about a table, or else the port id of whoever it belongs to.
    pub fn of(
        present: Option<TableState>,
        wants_ownership: bool,
        port_id: u32,
    ) -> Result<Self, u32> {
        let is = |present| Ok(Self { is_owned: wants_ownership, present });
        let Some(table) = present else { return is(Present::Kept) };
        let is_dormant = table.flags & DORMANT != 0;
        match table.owner {
            Some(other) if other != port_id => Err(other),
            // The flags of an adopted table are those of one that is not switched off.
            Some(_) if is_dormant => is(Present::Adopted),
            Some(_) => is(Present::Kept),
            None if wants_ownership && table.flags & PERSIST != 0 => is(Present::Adopted),
            None if wants_ownership || is_dormant => is(Present::Remade),
            None => is(Present::Kept),
        }
    }

    /// What the kernel says of the table once a transaction with this claim is committed on the socket with this port id.
    pub fn state(&self, port_id: u32) -> TableState {
        match self.is_owned {
            true => TableState { flags: OWNER | PERSIST, owner: Some(port_id) },
            false => TableState::default(),
        }
    }
}

/// A process that holds a netlink socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its pid.
    pub pid: u32,
    /// What it calls itself.
    pub name: Text,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// The process behind a port id in a netns, if it can be found. Slow: it looks at every process's descriptors.
/// Sources: `/proc/net/netlink` in that netns, and `/proc/PID/fd`.
pub fn holder(entrance: &Entrance, netns: &Netns, port_id: u32) -> Option<Holder> {
    let sockets = entrance.netlink_sockets(netns).ok()?;
    let inode = inode_of(&sockets, port_id)?;
    let link = format!("socket:[{inode}]");
    let has_it = |pid: &u32| {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
        descriptors
            .flatten()
            .any(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == &*link))
    };
    let pid = processes().ok()?.into_iter().find(has_it)?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(Holder { pid, name: Text::new(name.trim_end()) })
}

fn processes() -> io::Result<Vec<u32>> {
    let entries = std::fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// The inode of the netfilter socket with this port id, from `/proc/net/netlink` (columns: `sk Eth Pid … Inode`).
fn inode_of(sockets: &str, port_id: u32) -> Option<&str> {
    let fields = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut found = fields.filter(|fields| {
        fields.get(1) == Some(&NETFILTER)
            && fields.get(2).and_then(|id| id.parse().ok()) == Some(port_id)
    });
    found.next()?.last().copied()
}

impl Entrance {
    /// The netlink sockets of a netns, as `/proc/net/netlink` lists them.
    fn netlink_sockets(&self, netns: &Netns) -> Result<String, NetnsError> {
        self.enter(netns, || {
            std::fs::read_to_string(format!("/proc/self/task/{}/net/netlink", gettid()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_done_follows_from_whose_the_table_is() {
        const OURS: u32 = 7;
        let table = |flags, owner| Some(TableState { flags, owner });
        let cases = [
            (None, true, Ok(Present::Kept)),
            (None, false, Ok(Present::Kept)),
            (table(OWNER | PERSIST, Some(OURS)), true, Ok(Present::Kept)),
            (table(OWNER | PERSIST | DORMANT, Some(OURS)), true, Ok(Present::Adopted)),
            (table(OWNER | PERSIST, Some(8)), true, Err(8)),
            (table(OWNER, Some(8)), false, Err(8)),
            (table(PERSIST, None), true, Ok(Present::Adopted)),
            (table(PERSIST | DORMANT, None), true, Ok(Present::Adopted)),
            (table(PERSIST, None), false, Ok(Present::Kept)),
            (table(PERSIST | DORMANT, None), false, Ok(Present::Remade)),
            (table(0, None), true, Ok(Present::Remade)),
            (table(0, None), false, Ok(Present::Kept)),
            (table(DORMANT, None), false, Ok(Present::Remade)),
        ];
        for (present, wants, expected) in cases {
            let claim = Claim::of(present, wants, OURS);
            let expected = expected.map(|present| Claim { is_owned: wants, present });
            assert_eq!(claim, expected, "{present:?} {wants}");
        }
    }

    #[test]
    fn the_socket_behind_a_port_id_is_found_by_its_protocol_and_number() {
        let listed = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
                      00000000e8ee 0   4711       00000000 0        0        0     2        0        11\n\
                      00000000f9ff 12  4711       00000000 0        0        0     2        0        22\n\
                      00000000f9f0 12  3294963    00000000 0        0        0     2        0        33\n";
        assert_eq!(inode_of(listed, 4711), Some("22"));
        assert_eq!(inode_of(listed, 3_294_963), Some("33"));
        assert_eq!(inode_of(listed, 1), None);
    }
}
