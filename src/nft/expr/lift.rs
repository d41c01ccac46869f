//! Owns reading seawall's statements out of the kernel's expressions: whatever lowers to the same ones is what is meant.

use super::links::link_candidates;
use super::{Expr, lower};
use crate::compile::ruleset::{
    CtDirection, CtState, Family, Generation, LookupKey, LookupRest, Reject, Side, Stmt,
};
use crate::nft::render;

/// Every statement that can be lifted by comparing with its own lowering, given what the expressions hold.
fn candidates(exprs: &[Expr]) -> Vec<Stmt> {
    let mut found = vec![Stmt::FromLoopback, Stmt::ToLoopback, Stmt::Counter];
    found.extend([Stmt::IsUnjudged, Stmt::IsLocal, Stmt::SetLocal]);
    found.extend([Stmt::IsObserved, Stmt::SetObserved, Stmt::LogAnswer]);
    found.extend([CtState::Invalid, CtState::Related, CtState::New].map(Stmt::CtState));
    found.push(Stmt::CtStateIsNot(CtState::Related));
    found.extend([CtDirection::Original, CtDirection::Reply].map(Stmt::CtDirection));
    found.extend([Reject::TcpReset, Reject::AdminProhibited].map(Stmt::Reject));
    let byte = |expr: &Expr| match expr {
        Expr::Cmp { data, .. } if data.len() == 1 => Some(data[0]),
        _ => None,
    };
    let port = |expr: &Expr| match expr {
        Expr::Cmp { data, .. } => Some(u16::from_be_bytes(data.as_slice().try_into().ok()?)),
        _ => None,
    };
    // Longer forms first: a protocol match may be the beginning of an ICMPv6 type match.
    let mut longer = Vec::new();
    longer.extend(link_candidates(exprs));
    longer.extend(exprs.get(3).and_then(byte).map(Stmt::HopLimit));
    longer.extend(exprs.get(3).and_then(byte).map(Stmt::Icmp6Type));
    longer.extend(exprs.get(3).and_then(port).map(Stmt::FromUdpPort));
    longer.extend(
        exprs
            .iter()
            .take(8)
            .find_map(|expr| match expr {
                Expr::Lookup { set, .. } => Some(set),
                _ => None,
            })
            .into_iter()
            .flat_map(|set| lookup_keys().map(|key| Stmt::Lookup { key, set: set.clone() })),
    );
    longer.extend(exprs.get(1).and_then(byte).map(Stmt::L4Proto));
    longer.extend(exprs.get(1).and_then(byte).map(Stmt::L4ProtoIsNot));
    longer.extend(
        exprs.iter().take(3).filter_map(mark_in).flat_map(|generation| {
            [Stmt::GenerationIs(generation), Stmt::SetGeneration(generation)]
        }),
    );
    longer.extend(exprs.iter().take(2).find_map(|expr| match expr {
        Expr::Log { prefix, .. } => Some(Stmt::Log(prefix.clone())),
        _ => None,
    }));
    if let Some(Expr::Object { name, .. }) = exprs.first() {
        longer.push(Stmt::SetHelper(name.clone()));
    }
    longer.extend(exprs.get(1).and_then(helper_in).map(Stmt::HelperIs));
    if let Some(Expr::Verdict(verdict)) = exprs.first() {
        longer.push(Stmt::Verdict(verdict.clone()));
    }
    longer.extend(found);
    longer
}

pub(super) fn lookup_keys() -> impl Iterator<Item = LookupKey> {
    let sides = [Side::Source, Side::Destination];
    let rests = [
        LookupRest::Port(Side::Source),
        LookupRest::Port(Side::Destination),
        LookupRest::IcmpType,
        LookupRest::Nothing,
        LookupRest::Alone,
    ];
    Family::BOTH.into_iter().flat_map(move |family| {
        sides.into_iter().flat_map(move |address| {
            rests.into_iter().map(move |rest| LookupKey { family, address, rest })
        })
    })
}

/// A helper's name that a register is compared with.
fn helper_in(expr: &Expr) -> Option<String> {
    let Expr::Cmp { data, .. } = expr else { return None };
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    std::str::from_utf8(&data[..end]).ok().map(str::to_owned)
}

fn mark_in(expr: &Expr) -> Option<Generation> {
    let bytes = match expr {
        Expr::Cmp { data, .. } => data,
        Expr::Bitwise { xor, .. } => xor,
        _ => return None,
    };
    Generation::from_mark(u32::from_ne_bytes(bytes.as_slice().try_into().ok()?))
}

/// The statements a rule's expressions stand for. What no statement of seawall's says becomes one foreign statement.
pub fn lift(exprs: &[Expr]) -> Vec<Stmt> {
    let mut statements = Vec::new();
    let mut rest = exprs;
    while !rest.is_empty() {
        let fitting = candidates(rest).into_iter().find_map(|statement| {
            let lowered = lower(&statement);
            rest.starts_with(&lowered).then_some((statement, lowered.len()))
        });
        match fitting {
            Some((statement, length)) => {
                statements.push(statement);
                rest = &rest[length..];
            }
            None => {
                let names: Vec<String> = rest.iter().map(name).collect();
                statements.push(Stmt::Foreign(names.join(" ")));
                break;
            }
        }
    }
    statements
}

fn name(expr: &Expr) -> String {
    match expr {
        Expr::Meta { .. } => "meta".to_owned(),
        Expr::CtLoad { .. } | Expr::CtSet { .. } => "ct".to_owned(),
        Expr::Payload { .. } => "payload".to_owned(),
        Expr::Bitwise { .. } => "bitwise".to_owned(),
        Expr::Cmp { .. } => "cmp".to_owned(),
        Expr::Lookup { set, .. } => format!("lookup @{set}"),
        Expr::Object { .. } => "objref".to_owned(),
        Expr::Counter => "counter".to_owned(),
        Expr::Limit { .. } => "limit".to_owned(),
        Expr::Log { .. } => "log".to_owned(),
        Expr::Reject { .. } => "reject".to_owned(),
        Expr::Verdict(verdict) => render::verdict(verdict),
        Expr::Other(name) => name.clone(),
    }
}
