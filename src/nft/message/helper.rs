//! Owns writing a table's helpers, objects that rules refer to.

use nftnl::nftnl_sys as sys;

use super::{CREATE, Object, Writer, c_string};
use crate::compile::helped::CtHelper;
use crate::compile::ruleset::TABLE;
use crate::nft::expr::HELPER_OBJECT;

/// For both families (`NFPROTO_INET`), whatever the table's.
const BOTH: u16 = libc::NFPROTO_INET as u16;

impl Writer {
    /// Makes a helper, or removes the one of this name.
    pub(super) fn helper(&mut self, op: usize, name: &str, helper: Option<&CtHelper>) {
        let (table, name) = (c_string(TABLE), c_string(name));
        // SAFETY: the setters copy what they are given; all pointers are valid during the calls.
        unsafe {
            let object = Object::new(sys::nftnl_obj_alloc(), sys::nftnl_obj_free);
            sys::nftnl_obj_set_str(object.ptr(), sys::NFTNL_OBJ_TABLE as u16, table.as_ptr());
            sys::nftnl_obj_set_str(object.ptr(), sys::NFTNL_OBJ_NAME as u16, name.as_ptr());
            sys::nftnl_obj_set_u32(object.ptr(), sys::NFTNL_OBJ_TYPE as u16, HELPER_OBJECT);
            if let Some(CtHelper { kind, protocol }) = helper {
                let kind = c_string(kind);
                let attribute = sys::NFTNL_OBJ_CT_HELPER_NAME as u16;
                sys::nftnl_obj_set_str(object.ptr(), attribute, kind.as_ptr());
                let attribute = sys::NFTNL_OBJ_CT_HELPER_L3PROTO as u16;
                sys::nftnl_obj_set_u16(object.ptr(), attribute, BOTH);
                let attribute = sys::NFTNL_OBJ_CT_HELPER_L4PROTO as u16;
                sys::nftnl_obj_set_u8(object.ptr(), attribute, *protocol);
            }
            let (kind, flags) = match helper {
                Some(_) => (libc::NFT_MSG_NEWOBJ, CREATE),
                None => (libc::NFT_MSG_DELOBJ, 0),
            };
            self.add(op, kind, flags, |header| {
                sys::nftnl_obj_nlmsg_build_payload(header, object.ptr());
            });
        }
    }
}
