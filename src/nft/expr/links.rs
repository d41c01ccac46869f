//! Owns lifting the statements of the guard, the rules at the links.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Expr;
use crate::compile::ruleset::{Family, Stmt};

/// Every statement of the guard that may be lifted, given what the expressions hold.
pub(super) fn link_candidates(exprs: &[Expr]) -> Vec<Stmt> {
    let compared = |at: usize| match exprs.get(at) {
        Some(Expr::Cmp { data, .. }) => Some(data.as_slice()),
        _ => None,
    };
    let mut found = vec![Stmt::HasRoute];
    found.extend(Family::BOTH.map(Stmt::Protocol));
    if let (Some([first]), Some([last])) = (compared(3), compared(4)) {
        found.push(Stmt::Icmp6Types(*first, *last));
    }
    if let Some([high, low]) = compared(1) {
        found.push(Stmt::Ip6LengthAtMost(u16::from_be_bytes([*high, *low])));
    }
    let sender = compared(5).and_then(|mac| <[u8; 6]>::try_from(mac).ok());
    found.extend(sender.map(Stmt::ArpFrom));
    if let Some(Expr::Lookup { set, .. }) = exprs.get(3) {
        found.push(Stmt::ArpSenderIn(set.clone()));
    }
    let whole = compared(1).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    found.extend(whole.map(|address| Stmt::NeighbourTarget(address.into())));
    found.extend(whole.map(|address| Stmt::SenderIs(Ipv6Addr::from(address).into())));
    let whole = compared(1).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    found.extend(whole.map(|address| Stmt::SenderIs(Ipv4Addr::from(address).into())));
    found.extend(ip6_network(exprs));
    found
}

fn ip6_network(exprs: &[Expr]) -> Option<Stmt> {
    let (bytes, bits) = match exprs {
        [_, Expr::Bitwise { mask, .. }, Expr::Cmp { data, .. }, ..] => {
            let mask = u128::from_be_bytes(mask.as_slice().try_into().ok()?);
            (data, u8::try_from(mask.leading_ones()).ok()?)
        }
        [_, Expr::Cmp { data, .. }, ..] => (data, u8::try_from(data.len() * 8).ok()?),
        _ => return None,
    };
    let mut address = [0; 16];
    address.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(Stmt::Ip6To(address.into(), bits))
}
