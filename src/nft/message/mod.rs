//! Owns writing netlink messages: operations become one batch, through libnftnl.
//!
//! All `unsafe` code of seawall is in this module. Constants: `linux/netfilter/nf_tables.h`.

mod expression;
pub mod filter;
mod helper;
pub mod ready;
pub mod seat;

use std::ffi::{CString, c_char, c_void};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use nftnl::nftnl_sys as sys;
use nftnl::{MsgType, NlMsg};

use expression::expression;

use super::diff::Op;
use super::expr::lower;
use super::owner::{OWNER, PERSIST};
use crate::compile::ruleset::{
    Base, Comment, Element, Family, Hook, Key, KeyKind, Rule, Set, TABLE, TableFamily,
};

/// `NF_NETDEV_EGRESS` (`linux/netfilter.h`).
const EGRESS: u32 = 1;
const CREATE: u16 = libc::NLM_F_CREATE as u16;
const APPEND: u16 = libc::NLM_F_APPEND as u16;
const SET_INTERVAL: u32 = 0x4;
const SET_CONCAT: u32 = 0x80;
/// Comments stand in user data as type, length, value (`libnftnl/udata.h`).
const UDATA_COMMENT: u8 = 0;
const UDATA_SET_COMMENT: u8 = 7;

/// A finished batch, and which operation each of its messages belongs to.
pub struct Encoded {
    /// The bytes; to be sent with one `send`.
    pub bytes: Vec<u8>,
    /// Sequence number of each message, ascending, with the index of its operation.
    pub sequence: Vec<(u32, usize)>,
}

/// Encodes operations in order. `generation_id` is the ruleset's generation the plan was made for; the kernel
/// refuses the batch with `ERESTART` when it is another by now.
pub fn encode<'a>(
    operations: impl Iterator<Item = (TableFamily, &'a Op)>,
    generation_id: Option<u32>,
) -> Encoded {
    let family = TableFamily::Inet;
    let mut writer = Writer { batch: nftnl::Batch::new(), family, operations: Vec::new() };
    for (index, (family, op)) in operations.enumerate() {
        writer.family = family;
        writer.op(index, op, index);
    }
    let finished = writer.batch.finalize();
    let mut bytes = Vec::with_capacity(finished.iter().map(<[u8]>::len).sum());
    for page in &finished {
        bytes.extend_from_slice(page);
    }
    if let Some(generation_id) = generation_id {
        set_generation_id(&mut bytes, generation_id);
    }
    let sequence = sequence_numbers(&bytes).into_iter().zip(writer.operations).collect();
    Encoded { bytes, sequence }
}

/// The sequence numbers nftnl gave to the messages between the batch's opening and closing one, in order.
fn sequence_numbers(bytes: &[u8]) -> Vec<u32> {
    let mut numbers = Vec::new();
    let mut rest = bytes;
    while let Some(header) = rest.get(..16) {
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        if !matches!(i32::from(kind), libc::NFNL_MSG_BATCH_BEGIN | libc::NFNL_MSG_BATCH_END) {
            numbers.push(word(8));
        }
        let length = (word(0) as usize).next_multiple_of(4).max(16);
        rest = rest.get(length..).unwrap_or(&[]);
    }
    numbers
}

/// Adds `NFNL_BATCH_GENID` (1) to the opening message, which nftnl cannot.
fn set_generation_id(bytes: &mut Vec<u8>, generation_id: u32) {
    const HEADER: usize = 20;
    let mut attribute = Vec::from(8u16.to_ne_bytes());
    attribute.extend(1u16.to_ne_bytes());
    attribute.extend(generation_id.to_be_bytes());
    let length = u32::try_from(HEADER + attribute.len()).unwrap_or_default();
    bytes.splice(HEADER..HEADER, attribute);
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
}

struct Writer {
    batch: nftnl::Batch,
    /// Of the table the next message is about.
    family: TableFamily,
    /// The operation of each message written so far.
    operations: Vec<usize>,
}

/// One message: type, flags, and what writes its attributes behind the header.
struct Message<F: Fn(*mut sys::libc::nlmsghdr)> {
    kind: i32,
    flags: u16,
    family: TableFamily,
    payload: F,
}

// SAFETY: `write` starts a netlink message at `buf` with libnftnl's own header function and lets libnftnl append
// the attributes; the batch leaves room for the largest message libnftnl can write.
unsafe impl<F: Fn(*mut sys::libc::nlmsghdr)> NlMsg for Message<F> {
    unsafe fn write(&self, buf: *mut c_void, seq: u32, _: MsgType) {
        // SAFETY: the caller hands a buffer with room for a message.
        let header = unsafe {
            let kind = self.kind as u16;
            let family = number(self.family) as u16;
            sys::nftnl_nlmsg_build_hdr(buf.cast::<c_char>(), kind, family, self.flags, seq)
        };
        (self.payload)(header);
    }
}

/// A family's number.
pub(super) fn number(family: TableFamily) -> i32 {
    match family {
        TableFamily::Inet => libc::NFPROTO_INET,
        TableFamily::Netdev => libc::NFPROTO_NETDEV,
    }
}

/// A libnftnl object, freed when dropped.
struct Object<T> {
    ptr: NonNull<T>,
    free: unsafe extern "C" fn(*const T),
}

impl<T> Object<T> {
    fn new(ptr: *mut T, free: unsafe extern "C" fn(*const T)) -> Self {
        match NonNull::new(ptr) {
            Some(ptr) => Self { ptr, free },
            None => std::alloc::handle_alloc_error(std::alloc::Layout::new::<usize>()),
        }
    }

    fn ptr(&self) -> *mut T {
        self.ptr.as_ptr()
    }
}

impl<T> Drop for Object<T> {
    fn drop(&mut self) {
        // SAFETY: the object came from the matching alloc function and is freed once.
        unsafe { (self.free)(self.ptr.as_ptr()) }
    }
}

/// Names come from seawall or from the kernel's own dump; neither can hold a NUL.
fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

fn user_data(kind: u8, comment: &Comment) -> Option<Vec<u8>> {
    let text = comment.as_str();
    let length = u8::try_from(text.len() + 1).ok().filter(|_| !text.is_empty())?;
    Some([&[kind, length], text.as_bytes(), &[0]].concat())
}

impl Writer {
    fn op(&mut self, index: usize, op: &Op, set_id: usize) {
        match op {
            Op::AddTable => self.table(index, libc::NFT_MSG_NEWTABLE, CREATE, None),
            Op::AddOwnedTable | Op::AdoptTable => {
                self.table(index, libc::NFT_MSG_NEWTABLE, CREATE, Some(OWNER | PERSIST));
            }
            Op::DeleteTable => self.table(index, libc::NFT_MSG_DELTABLE, 0, None),
            Op::AddChain { chain, base } => {
                self.chain(index, libc::NFT_MSG_NEWCHAIN, CREATE, chain, base.as_ref());
            }
            Op::DeleteChain { chain } => {
                self.chain(index, libc::NFT_MSG_DELCHAIN, 0, chain, None);
            }
            Op::FlushChain { chain } => self.rule(index, libc::NFT_MSG_DELRULE, 0, chain, None),
            Op::AddRule { chain, rule } => {
                self.rule(index, libc::NFT_MSG_NEWRULE, CREATE | APPEND, chain, Some(rule));
            }
            Op::AddSet { name, set } => {
                self.set(index, libc::NFT_MSG_NEWSET, CREATE, name, set, set_id);
            }
            Op::DeleteSet { name } => self.delete_set(index, name),
            Op::AddHelper { name, helper } => self.helper(index, name, Some(helper)),
            Op::DeleteHelper { name } => self.helper(index, name, None),
            Op::AddElements { name, set } => {
                self.elements(index, libc::NFT_MSG_NEWSETELEM, CREATE, name, set);
            }
            Op::DeleteElements { name, set } => {
                self.elements(index, libc::NFT_MSG_DELSETELEM, 0, name, set);
            }
        }
    }

    fn add(
        &mut self,
        op: usize,
        kind: i32,
        flags: u16,
        payload: impl Fn(*mut sys::libc::nlmsghdr),
    ) {
        let family = self.family;
        self.batch.add(&Message { kind, flags, family, payload }, MsgType::Add);
        self.operations.push(op);
    }

    fn table(&mut self, op: usize, kind: i32, flags: u16, table_flags: Option<u32>) {
        let name = c_string(TABLE);
        // SAFETY: the setters copy what they are given; all pointers are valid during the calls.
        unsafe {
            let table = Object::new(sys::nftnl_table_alloc(), sys::nftnl_table_free);
            sys::nftnl_table_set_str(table.ptr(), sys::NFTNL_TABLE_NAME as u16, name.as_ptr());
            if let Some(table_flags) = table_flags {
                let attribute = sys::NFTNL_TABLE_FLAGS as u16;
                sys::nftnl_table_set_u32(table.ptr(), attribute, table_flags);
            }
            self.add(op, kind, flags, |header| {
                sys::nftnl_table_nlmsg_build_payload(header, table.ptr());
            });
        }
    }

    fn chain(&mut self, op: usize, kind: i32, flags: u16, name: &str, base: Option<&Base>) {
        let (table, name) = (c_string(TABLE), c_string(name));
        // SAFETY: the setters copy what they are given; all pointers are valid during the calls.
        unsafe {
            let chain = Object::new(sys::nftnl_chain_alloc(), sys::nftnl_chain_free);
            sys::nftnl_chain_set_str(chain.ptr(), sys::NFTNL_CHAIN_TABLE as u16, table.as_ptr());
            sys::nftnl_chain_set_str(chain.ptr(), sys::NFTNL_CHAIN_NAME as u16, name.as_ptr());
            if let Some(base) = base {
                let hook = match base.hook {
                    Hook::Input => libc::NF_INET_LOCAL_IN as u32,
                    Hook::Forward => libc::NF_INET_FORWARD as u32,
                    Hook::Output => libc::NF_INET_LOCAL_OUT as u32,
                    Hook::Egress => EGRESS,
                    Hook::Other(number) => number,
                };
                let policy = if base.drops { libc::NF_DROP } else { libc::NF_ACCEPT } as u32;
                sys::nftnl_chain_set_u32(chain.ptr(), sys::NFTNL_CHAIN_HOOKNUM as u16, hook);
                sys::nftnl_chain_set_s32(chain.ptr(), sys::NFTNL_CHAIN_PRIO as u16, base.priority);
                sys::nftnl_chain_set_u32(chain.ptr(), sys::NFTNL_CHAIN_POLICY as u16, policy);
                if let Some(device) = &base.device {
                    let device = c_string(device);
                    let attribute = sys::NFTNL_CHAIN_DEV as u16;
                    sys::nftnl_chain_set_str(chain.ptr(), attribute, device.as_ptr());
                }
                let kind = c"filter".as_ptr();
                sys::nftnl_chain_set_str(chain.ptr(), sys::NFTNL_CHAIN_TYPE as u16, kind);
            }
            self.add(op, kind, flags, |header| {
                sys::nftnl_chain_nlmsg_build_payload(header, chain.ptr());
            });
        }
    }

    fn rule(&mut self, op: usize, kind: i32, flags: u16, chain: &str, content: Option<&Rule>) {
        let (table, chain) = (c_string(TABLE), c_string(chain));
        // SAFETY: the setters copy what they are given; the rule takes over its expressions.
        unsafe {
            let rule = Object::new(sys::nftnl_rule_alloc(), sys::nftnl_rule_free);
            sys::nftnl_rule_set_str(rule.ptr(), sys::NFTNL_RULE_TABLE as u16, table.as_ptr());
            sys::nftnl_rule_set_str(rule.ptr(), sys::NFTNL_RULE_CHAIN as u16, chain.as_ptr());
            for expr in content.iter().flat_map(|rule| &rule.statements).flat_map(lower) {
                let raw = expression(&expr);
                if !raw.is_null() {
                    sys::nftnl_rule_add_expr(rule.ptr(), raw);
                }
            }
            if let Some(data) = content.and_then(|rule| user_data(UDATA_COMMENT, &rule.comment)) {
                sys::nftnl_rule_set_data(
                    rule.ptr(),
                    sys::NFTNL_RULE_USERDATA as u16,
                    data.as_ptr().cast(),
                    data.len() as u32,
                );
            }
            self.add(op, kind, flags, |header| {
                sys::nftnl_rule_nlmsg_build_payload(header, rule.ptr());
            });
        }
    }

    fn set(&mut self, op: usize, kind: i32, flags: u16, name: &str, set: &Set, set_id: usize) {
        let object = set_object(self.family, name);
        let (key_type, lengths) = key_layout(set);
        let mut set_flags = 0;
        if set.interval {
            set_flags = SET_INTERVAL | SET_CONCAT;
        }
        let key_length: u32 =
            lengths.iter().map(|length| u32::from(length.next_multiple_of(4))).sum();
        // SAFETY: the setters copy what they are given; the set takes over the counter expression.
        unsafe {
            let set_number = |attribute: sys::nftnl_set_attr, value: u32| {
                sys::nftnl_set_set_u32(object.ptr(), attribute as u16, value);
            };
            set_number(sys::NFTNL_SET_ID, set_id as u32 + 1);
            set_number(sys::NFTNL_SET_FLAGS, set_flags);
            set_number(sys::NFTNL_SET_KEY_TYPE, key_type);
            set_number(sys::NFTNL_SET_KEY_LEN, key_length);
            let data = |attribute: sys::nftnl_set_attr, bytes: &[u8]| {
                let length = bytes.len() as u32;
                sys::nftnl_set_set_data(
                    object.ptr(),
                    attribute as u16,
                    bytes.as_ptr().cast(),
                    length,
                );
            };
            if set.interval {
                data(sys::NFTNL_SET_DESC_CONCAT, &lengths);
            }
            if let Some(comment) = user_data(UDATA_SET_COMMENT, &set.comment) {
                data(sys::NFTNL_SET_USERDATA, &comment);
            }
            if set.kind != KeyKind::Address {
                sys::nftnl_set_add_expr(object.ptr(), sys::nftnl_expr_alloc(c"counter".as_ptr()));
            }
            self.add(op, kind, flags, |header| {
                sys::nftnl_set_nlmsg_build_payload(header, object.ptr());
            });
        }
    }

    fn delete_set(&mut self, op: usize, name: &str) {
        let object = set_object(self.family, name);
        // SAFETY: the object lives during the call.
        self.add(op, libc::NFT_MSG_DELSET, 0, |header| unsafe {
            sys::nftnl_set_nlmsg_build_payload(header, object.ptr());
        });
    }

    fn elements(&mut self, op: usize, kind: i32, flags: u16, name: &str, set: &Set) {
        let object = set_object(self.family, name);
        for (element, comment) in set.elements.iter() {
            add_element(&object, set, element, comment);
        }
        // SAFETY: the iterator refers to the set, which outlives it; libnftnl ends a message before an attribute
        // grows past 64 KiB, and says with its result whether elements are left.
        unsafe {
            let iterator = sys::nftnl_set_elems_iter_create(object.ptr());
            let left = std::cell::Cell::new(1);
            while left.get() > 0 {
                self.add(op, kind, flags, |header| {
                    left.set(sys::nftnl_set_elems_nlmsg_build_payload_iter(header, iterator));
                });
            }
            sys::nftnl_set_elems_iter_destroy(iterator);
        }
    }
}

fn set_object(family: TableFamily, name: &str) -> Object<sys::nftnl_set> {
    let (table, name) = (c_string(TABLE), c_string(name));
    // SAFETY: the setters copy the strings.
    unsafe {
        let set = Object::new(sys::nftnl_set_alloc(), sys::nftnl_set_free);
        sys::nftnl_set_set_str(set.ptr(), sys::NFTNL_SET_TABLE as u16, table.as_ptr());
        sys::nftnl_set_set_str(set.ptr(), sys::NFTNL_SET_NAME as u16, name.as_ptr());
        let family = number(family) as u32;
        sys::nftnl_set_set_u32(set.ptr(), sys::NFTNL_SET_FAMILY as u16, family);
        set
    }
}

fn add_element(object: &Object<sys::nftnl_set>, set: &Set, element: &Element, comment: &Comment) {
    let (first, last) = (key_bytes(set.kind, &element.first), key_bytes(set.kind, &element.last));
    // SAFETY: the setters copy what they are given; the set takes over the element.
    unsafe {
        let raw = sys::nftnl_set_elem_alloc();
        let data = |attribute: u32, bytes: &[u8]| {
            let length = bytes.len() as u32;
            sys::nftnl_set_elem_set(raw, attribute as u16, bytes.as_ptr().cast(), length);
        };
        data(sys::NFTNL_SET_ELEM_KEY, &first);
        if set.interval {
            data(sys::NFTNL_SET_ELEM_KEY_END, &last);
        }
        if let Some(comment) = user_data(UDATA_COMMENT, comment) {
            data(sys::NFTNL_SET_ELEM_USERDATA, &comment);
        }
        sys::nftnl_set_elem_add(object.ptr(), raw);
    }
}

/// A set's key type as nft writes it (data type numbers of `nft(8)`, 6 bits each), and its fields' lengths in bytes.
pub fn key_layout(set: &Set) -> (u32, Vec<u8>) {
    let (address, length) = match set.family {
        Family::V4 => (7, 4),
        Family::V6 => (8, 16),
    };
    match (set.kind, set.family) {
        (KeyKind::Tuple, _) => (address << 12 | 12 << 6 | 13, vec![length, 1, 2]),
        (KeyKind::Address, _) => (address, vec![length]),
        (KeyKind::Ping, Family::V4) => (address << 6 | 14, vec![length, 1]),
        (KeyKind::Ping, Family::V6) => (address << 6 | 29, vec![length, 1]),
    }
}

/// A key as the kernel compares it: each field in network order, padded to 32 bits.
fn key_bytes(kind: KeyKind, key: &Key) -> Vec<u8> {
    let mut bytes = match key.address {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    if kind == KeyKind::Address {
        return bytes;
    }
    bytes.extend([key.selector, 0, 0, 0]);
    if kind == KeyKind::Tuple {
        bytes.extend(key.port.to_be_bytes());
        bytes.extend([0, 0]);
    }
    bytes
}

/// Has the kernel leave the refused message out of its error, and add where in the message the error is
/// (`NETLINK_CAP_ACK`, `NETLINK_EXT_ACK`, `netlink(7)`).
pub fn ask_for_short_errors(socket: &OwnedFd) -> io::Result<()> {
    for option in [libc::NETLINK_CAP_ACK, libc::NETLINK_EXT_ACK] {
        let on: libc::c_int = 1;
        // SAFETY: the option's value is an int that lives during the call.
        let result = unsafe {
            let length = size_of_val(&on) as libc::socklen_t;
            let value = (&raw const on).cast();
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_NETLINK, option, value, length)
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Takes hold of a process (`pidfd_open(2)`, Linux 5.3).
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers only, and a result that is not negative is a new descriptor that is ours.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as i32)) }
    }
}
