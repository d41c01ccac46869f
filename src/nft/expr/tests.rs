//! Tests of `expr`.

use super::lift::lookup_keys;
use super::*;

#[test]
fn every_statement_is_lifted_from_its_own_lowering() {
    let mut statements = vec![
        Stmt::FromLoopback,
        Stmt::ToLoopback,
        Stmt::GenerationIs(Generation::FIRST.next()),
        Stmt::SetGeneration(Generation::FIRST),
        Stmt::CtState(CtState::Invalid),
        Stmt::CtState(CtState::Related),
        Stmt::CtState(CtState::New),
        Stmt::CtStateIsNot(CtState::Related),
        Stmt::IsUnjudged,
        Stmt::IsLocal,
        Stmt::SetLocal,
        Stmt::IsObserved,
        Stmt::SetObserved,
        Stmt::FromUdpPort(53),
        Stmt::LogAnswer,
        Stmt::CtDirection(CtDirection::Original),
        Stmt::CtDirection(CtDirection::Reply),
        Stmt::L4Proto(58),
        Stmt::L4ProtoIsNot(58),
        Stmt::SenderIs("192.0.2.1".parse().unwrap()),
        Stmt::SenderIs("2001:db8::1".parse().unwrap()),
        Stmt::HopLimit(255),
        Stmt::Icmp6Type(135),
        Stmt::Icmp6Types(133, 136),
        Stmt::Ip6LengthAtMost(32),
        Stmt::Protocol(Family::V4),
        Stmt::Protocol(Family::V6),
        Stmt::HasRoute,
        Stmt::ArpFrom([2, 0, 0, 0, 0, 1]),
        Stmt::ArpSenderIn("own4".to_owned()),
        Stmt::NeighbourTarget(Ipv6Addr::LOCALHOST),
        Stmt::HelperIs("tftp".to_owned()),
        Stmt::SetHelper("sip_udp".to_owned()),
        Stmt::Counter,
        Stmt::Log("seawall deny in ".to_owned()),
        Stmt::Reject(Reject::TcpReset),
        Stmt::Reject(Reject::AdminProhibited),
    ];
    statements.extend([0, 8, 10, 64, 65, 127, 128].map(|bits| {
        let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
        Stmt::Ip6To(Ipv6Addr::from(mask), bits as u8)
    }));
    statements.extend(lookup_keys().map(|key| Stmt::Lookup { key, set: "in4".to_owned() }));
    statements.extend(
        [
            Verdict::Accept,
            Verdict::Drop,
            Verdict::Return,
            Verdict::Jump("a".to_owned()),
            Verdict::Goto("b".to_owned()),
        ]
        .map(Stmt::Verdict),
    );
    for statement in &statements {
        assert_eq!(lift(&lower(statement)), std::slice::from_ref(statement));
    }
    let all: Vec<Expr> = statements.iter().flat_map(lower).collect();
    assert_eq!(lift(&all), statements);
}

#[test]
fn what_seawall_does_not_write_is_foreign() {
    let exprs = [Expr::Meta { key: 99, dreg: 0 }, Expr::Verdict(Verdict::Accept)];
    assert_eq!(lift(&exprs), [Stmt::Foreign("meta accept".to_owned())]);
}
