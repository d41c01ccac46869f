//! Owns the form of netlink messages: headers, and the requests nfnetlink takes about any table, whoever's.
//!
//! Pure. Sources: `struct nlmsghdr` (`linux/netlink.h`), `struct nfgenmsg` (`linux/netfilter/nfnetlink.h`).

/// nf_tables among nfnetlink's subsystems (`NFNL_SUBSYS_NFTABLES`).
pub(super) const NFTABLES: u16 = 10;
/// Connection tracking (`NFNL_SUBSYS_CTNETLINK`).
pub(super) const CONNTRACK: u16 = 1;
/// NFLOG (`NFNL_SUBSYS_ULOG`).
pub(super) const LOG: u16 = 4;
pub(super) const HEADER: usize = 16;
const NFGENMSG: usize = 4;

/// One message.
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    /// The port id of the socket it is about or from.
    pub(super) port_id: u32,
    /// What follows the header.
    pub(super) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// An nf_tables message's number (`NFT_MSG_*`), the family it is about, and its attributes.
    pub(super) fn nftables(&self) -> Option<(i32, u8, &'a [u8])> {
        let (header, attributes) = self.payload.split_at_checked(NFGENMSG)?;
        (self.kind >> 8 == NFTABLES).then_some((i32::from(self.kind & 0xff), header[0], attributes))
    }

    /// The same of a message of any subsystem of nfnetlink.
    pub(super) fn of(&self, subsystem: u16) -> Option<(u8, &'a [u8])> {
        let (_, attributes) = self.payload.split_at_checked(NFGENMSG)?;
        (self.kind >> 8 == subsystem).then_some(((self.kind & 0xff) as u8, attributes))
    }

    /// The error number of an error message; 0 is none.
    pub(super) fn errno(&self) -> Option<i32> {
        let number = self.payload.first_chunk::<4>().filter(|_| self.kind == 2)?;
        Some(-i32::from_ne_bytes(*number))
    }
}

/// The messages in what one `recv` gave; what is cut off is left out.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.get(..HEADER)?;
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let length = word(0) as usize;
        let payload = bytes.get(HEADER..length)?;
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let (kind, flags) = (half(4), half(6));
        let message = Message { kind, flags, sequence: word(8), port_id: word(12), payload };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message)
    })
}

/// Has the kernel answer the last message before a batch's end, also where there is nothing to say against it.
pub(super) fn ask_for_an_answer(batch: &mut [u8]) {
    /// `NFNL_MSG_BATCH_BEGIN` and `…_END`.
    const FRAMES: [u16; 2] = [0x10, 0x11];
    let (mut at, mut last) = (0, None);
    while let Some(header) = batch.get(at..at + HEADER) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if !FRAMES.contains(&u16::from_ne_bytes([header[4], header[5]])) {
            last = Some(at);
        }
        at += length.max(HEADER).next_multiple_of(4);
    }
    if let Some(at) = last {
        let flags = u16::from_ne_bytes([batch[at + 6], batch[at + 7]]) | libc::NLM_F_ACK as u16;
        batch[at + 6..at + 8].copy_from_slice(&flags.to_ne_bytes());
    }
}

/// A message with these attributes, each a string with its end.
pub(super) fn write(
    kind: u16,
    flags: i32,
    sequence: u32,
    about: (u8, u16),
    strings: &[(u16, &str)],
) -> Vec<u8> {
    let ended: Vec<(u16, Vec<u8>)> = strings
        .iter()
        .map(|(attribute, value)| (*attribute, [value.as_bytes(), &[0]].concat()))
        .collect();
    write_bytes(kind, flags, sequence, about, &ended)
}

/// A message with these attributes, about a family and a resource (`nfgen_family`, `res_id`).
pub(super) fn write_bytes(
    kind: u16,
    flags: i32,
    sequence: u32,
    (family, resource): (u8, u16),
    values: &[(u16, Vec<u8>)],
) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes.push(family);
    bytes.push(0);
    bytes.extend(resource.to_be_bytes());
    for (attribute, value) in values {
        let length = 4 + value.len();
        bytes.extend((length as u16).to_ne_bytes());
        bytes.extend(attribute.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let length = bytes.len() as u32;
    bytes[0..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    bytes
}
