//! Owns writing one expression of a rule through libnftnl.

use std::ffi::CStr;

use nftnl::nftnl_sys as sys;

use super::c_string;
use crate::compile::ruleset::Verdict;
use crate::nft::expr::Expr;

/// The number of a 32-bit register (`NFT_REG32_00` is 8).
fn register(number: u32) -> u32 {
    number + 8
}

/// One libnftnl expression; null for one that seawall does not write.
pub(super) fn expression(expr: &Expr) -> *mut sys::nftnl_expr {
    match expr {
        Expr::Meta { key, dreg } => build(c"meta", |set| {
            set.u32(sys::NFTNL_EXPR_META_KEY, *key);
            set.u32(sys::NFTNL_EXPR_META_DREG, register(*dreg));
        }),
        Expr::CtLoad { key, dreg } => build(c"ct", |set| {
            set.u32(sys::NFTNL_EXPR_CT_KEY, *key);
            set.u32(sys::NFTNL_EXPR_CT_DREG, register(*dreg));
        }),
        Expr::CtSet { key, sreg } => build(c"ct", |set| {
            set.u32(sys::NFTNL_EXPR_CT_KEY, *key);
            set.u32(sys::NFTNL_EXPR_CT_SREG, register(*sreg));
        }),
        Expr::Payload { base, offset, len, dreg } => build(c"payload", |set| {
            set.u32(sys::NFTNL_EXPR_PAYLOAD_DREG, register(*dreg));
            set.u32(sys::NFTNL_EXPR_PAYLOAD_BASE, *base);
            set.u32(sys::NFTNL_EXPR_PAYLOAD_OFFSET, *offset);
            set.u32(sys::NFTNL_EXPR_PAYLOAD_LEN, *len);
        }),
        Expr::Bitwise { reg, mask, xor } => build(c"bitwise", |set| {
            set.u32(sys::NFTNL_EXPR_BITWISE_SREG, register(*reg));
            set.u32(sys::NFTNL_EXPR_BITWISE_DREG, register(*reg));
            set.u32(sys::NFTNL_EXPR_BITWISE_LEN, mask.len() as u32);
            set.bytes(sys::NFTNL_EXPR_BITWISE_MASK, mask);
            set.bytes(sys::NFTNL_EXPR_BITWISE_XOR, xor);
        }),
        Expr::Cmp { op, sreg, data } => build(c"cmp", |set| {
            set.u32(sys::NFTNL_EXPR_CMP_SREG, register(*sreg));
            set.u32(sys::NFTNL_EXPR_CMP_OP, *op);
            set.bytes(sys::NFTNL_EXPR_CMP_DATA, data);
        }),
        Expr::Lookup { set: name, sreg } => build(c"lookup", |set| {
            set.u32(sys::NFTNL_EXPR_LOOKUP_SREG, register(*sreg));
            set.string(sys::NFTNL_EXPR_LOOKUP_SET, name);
        }),
        Expr::Object { kind, name } => build(c"objref", |set| {
            set.u32(sys::NFTNL_EXPR_OBJREF_IMM_TYPE, *kind);
            set.string(sys::NFTNL_EXPR_OBJREF_IMM_NAME, name);
        }),
        Expr::Counter => build(c"counter", |_| {}),
        Expr::Limit { rate, unit, burst } => build(c"limit", |set| {
            set.u64(sys::NFTNL_EXPR_LIMIT_RATE, *rate);
            set.u64(sys::NFTNL_EXPR_LIMIT_UNIT, *unit);
            set.u32(sys::NFTNL_EXPR_LIMIT_BURST, *burst);
        }),
        Expr::Log { prefix, group } => build(c"log", |set| {
            set.string(sys::NFTNL_EXPR_LOG_PREFIX, prefix);
            set.u16(sys::NFTNL_EXPR_LOG_GROUP, *group);
        }),
        Expr::Reject { kind, code } => build(c"reject", |set| {
            set.u32(sys::NFTNL_EXPR_REJECT_TYPE, *kind);
            set.u8(sys::NFTNL_EXPR_REJECT_CODE, *code);
        }),
        Expr::Verdict(verdict) => build(c"immediate", |set| {
            let (code, chain) = verdict_code(verdict);
            // The verdict register (`NFT_REG_VERDICT`).
            set.u32(sys::NFTNL_EXPR_IMM_DREG, 0);
            set.u32(sys::NFTNL_EXPR_IMM_VERDICT, code as u32);
            if let Some(chain) = chain {
                set.string(sys::NFTNL_EXPR_IMM_CHAIN, chain);
            }
        }),
        Expr::Other(_) => std::ptr::null_mut(),
    }
}

fn verdict_code(verdict: &Verdict) -> (i32, Option<&str>) {
    match verdict {
        Verdict::Accept => (libc::NF_ACCEPT, None),
        Verdict::Drop => (libc::NF_DROP, None),
        Verdict::Return => (libc::NFT_RETURN, None),
        Verdict::Jump(chain) => (libc::NFT_JUMP, Some(chain)),
        Verdict::Goto(chain) => (libc::NFT_GOTO, Some(chain)),
    }
}

/// Sets attributes of one expression.
struct Attributes(*mut sys::nftnl_expr);

fn build(name: &CStr, set: impl FnOnce(&Attributes)) -> *mut sys::nftnl_expr {
    // SAFETY: the name is a C string; libnftnl gives null for a name it does not know.
    let raw = unsafe { sys::nftnl_expr_alloc(name.as_ptr()) };
    if !raw.is_null() {
        set(&Attributes(raw));
    }
    raw
}

// `self.0` is a live expression, and the setters copy what they are given.
impl Attributes {
    fn u8(&self, attribute: u32, value: u8) {
        // SAFETY: see above.
        unsafe { sys::nftnl_expr_set_u8(self.0, attribute as u16, value) }
    }

    fn u16(&self, attribute: u32, value: u16) {
        // SAFETY: see above.
        unsafe { sys::nftnl_expr_set_u16(self.0, attribute as u16, value) }
    }

    fn u32(&self, attribute: u32, value: u32) {
        // SAFETY: see above.
        unsafe { sys::nftnl_expr_set_u32(self.0, attribute as u16, value) }
    }

    fn u64(&self, attribute: u32, value: u64) {
        // SAFETY: see above.
        unsafe { sys::nftnl_expr_set_u64(self.0, attribute as u16, value) }
    }

    fn bytes(&self, attribute: u32, value: &[u8]) {
        let length = value.len() as u32;
        // SAFETY: see above.
        unsafe { sys::nftnl_expr_set(self.0, attribute as u16, value.as_ptr().cast(), length) };
    }

    fn string(&self, attribute: u32, value: &str) {
        let value = c_string(value);
        // SAFETY: see above.
        unsafe { sys::nftnl_expr_set_str(self.0, attribute as u16, value.as_ptr()) };
    }
}
