//! Kernel layer: tables that belong to a socket. Nobody else changes them, they outlive the socket, and who adopts them loses and
//! leaks no packet.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "kernel/netns.rs"]
mod netns;
#[path = "kernel/traffic.rs"]
mod traffic;
#[path = "kernel/veth.rs"]
mod veth;
#[path = "kernel/worlds.rs"]
mod worlds;

use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::time::{Duration, Instant};

use netns::{TestNetns, inside_of};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, send, socket};
use seawall::compile::TableFamily;
use seawall::compile::{Options, Ruleset, compile};
use seawall::nft::message::encode;
use seawall::nft::netns::Entrance;
use seawall::nft::owner::{self, OWNER, PERSIST};
use seawall::nft::{ApplyError, Claim, KernelTable, Netns, Op, TableState, plan_as};
use seawall::policy::Mode;
use traffic::{Counts, Traffic, rulesets, world};
use veth::Wire;

const ADOPTIONS: usize = 200;

/// Two rulesets that differ in sets, intervals, rules and generation.
fn wanted() -> [Ruleset; 2] {
    let world = world();
    rulesets().map(|statements| {
        let mut policy = world.policy(Mode::Enforce);
        policy.statements = statements;
        compile(&[&policy], &world.inventory, &Options::default()).unwrap()
    })
}

fn open(netns: &TestNetns) -> KernelTable {
    Entrance::start().unwrap().open_table(&Netns::open(&netns.path()).unwrap()).unwrap()
}

/// Makes the table what is wanted, and the socket's own. Returns what was done.
fn own(table: &mut KernelTable, wanted: &Ruleset) -> Vec<Op> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match bring(table, wanted, true) {
            // Another test may be starting a program: until that begins, it has a copy of the former owner's socket.
            Err(ApplyError::Owned(_)) if Instant::now() < deadline => std::thread::yield_now(),
            result => return result.unwrap(),
        }
    }
}

fn bring(table: &mut KernelTable, wanted: &Ruleset, is_owned: bool) -> Result<Vec<Op>, ApplyError> {
    let before = table.dump().unwrap();
    let claim =
        Claim::of(before.table, is_owned, table.port_id()).map_err(|_| ApplyError::Owned(None))?;
    let transaction = plan_as(before.ruleset.as_ref(), Some(wanted), claim);
    table.commit(&transaction, Some(before.generation_id))?;
    let after = table.dump().unwrap();
    assert_eq!(after.ruleset, transaction.target, "what is read back is what was written");
    if is_owned {
        assert_eq!(after.table, Some(claim.state(table.port_id())));
    }
    Ok(transaction.ops)
}

/// What nft is told when it tries to change something.
fn refusal(netns: &TestNetns, command: &str) -> String {
    let output =
        Command::new("ip").args(["netns", "exec", &netns.name, "nft", command]).output().unwrap();
    assert!(!output.status.success(), "{command} is let through");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn nobody_else_changes_an_owned_table_and_it_outlives_its_owner() {
    let netns = TestNetns::new();
    let [wanted, _] = wanted();
    let mut table = open(&netns);
    let ops = own(&mut table, &wanted);
    assert_eq!(ops.first(), Some(&Op::AddOwnedTable));
    let held = table.dump().unwrap();
    for command in [
        "delete table inet seawall",
        "flush table inet seawall",
        "flush chain inet seawall ingress",
        "insert rule inet seawall ingress accept",
        "add chain inet seawall side { type filter hook input priority -5; }",
        "flush set inet seawall in4",
        "chain inet seawall ingress { policy accept; }",
        "add table inet seawall { flags dormant; }",
    ] {
        let told = refusal(&netns, command);
        assert!(told.contains("Operation not permitted"), "{command}: {told}");
    }
    netns.run(&["nft", "add table inet other"]);
    netns.run(&["nft", "flush ruleset"]);
    let after = open(&netns).dump().unwrap();
    assert_eq!((&after.ruleset, after.table), (&held.ruleset, held.table), "nothing changed");
    let error = bring(&mut open(&netns), &wanted, true).unwrap_err();
    assert!(matches!(error, ApplyError::Owned(_)), "{error}");

    drop(table);
    let left = open(&netns).dump().unwrap();
    assert_eq!(left.ruleset, held.ruleset, "the socket's end changes no rule");
    assert_eq!(left.table, Some(TableState { flags: PERSIST, owner: None }));
    let mut next = open(&netns);
    assert_eq!(own(&mut next, &wanted), [Op::AdoptTable]);
    refusal(&netns, "delete table inet seawall");
    assert_eq!(own(&mut next, &wanted), [], "once is enough");
}

#[test]
fn an_orphan_is_adopted_in_the_batch_that_updates_it() {
    let netns = TestNetns::new();
    let [one, other] = wanted();
    own(&mut open(&netns), &one);
    let mut table = open(&netns);
    let ops = own(&mut table, &other);
    assert_eq!(ops.first(), Some(&Op::AdoptTable), "before anything is changed");
    assert!(ops.len() > 1, "{ops:?}");
    assert!(ops.iter().all(|op| !matches!(op, Op::DeleteTable)), "{ops:?}");
    let ops = own(&mut table, &one);
    assert!(!ops.is_empty() && ops.iter().all(|op| *op != Op::AdoptTable), "{ops:?}");
}

#[test]
fn a_plain_table_is_made_anew_as_an_owned_one() {
    let netns = TestNetns::new();
    let [wanted, _] = wanted();
    let mut table = open(&netns);
    assert_eq!(bring(&mut table, &wanted, false).unwrap().first(), Some(&Op::AddTable));
    assert_eq!(table.dump().unwrap().table, Some(TableState::default()));
    let generation = table.dump().unwrap().ruleset.unwrap().generation();
    let ops = own(&mut table, &wanted);
    assert_eq!(ops[..2], [Op::DeleteTable, Op::AddOwnedTable]);
    let after = table.dump().unwrap();
    assert_eq!(after.table.unwrap().flags, OWNER | PERSIST);
    assert_eq!(after.ruleset.unwrap().generation(), generation, "connections go on by their mark");
}

/// Gives a table flags that no nft of before 2024 has words for.
fn set_flags(netns: &TestNetns, flags: u8) {
    let mut bytes = encode([(TableFamily::Inet, &Op::AdoptTable)].into_iter(), None).bytes;
    // Attribute 2 (`NFTA_TABLE_FLAGS`), 8 bytes long.
    let attribute = [8, 0, 2, 0, 0, 0, 0, (OWNER | PERSIST) as u8];
    let at = bytes.windows(8).position(|window| window == attribute).unwrap();
    bytes[at + 7] = flags;
    inside_of(netns, move || {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::empty(),
            SockProtocol::NetlinkNetFilter,
        )
        .unwrap();
        send(socket.as_raw_fd(), &bytes, MsgFlags::empty()).unwrap();
    });
}

#[test]
fn a_table_that_somebody_switched_off_is_switched_on() {
    const DORMANT: u32 = 1;
    let [wanted, _] = wanted();
    // Where tables are owned nobody can do it before the owner ends.
    for (is_owned, first) in [(false, Op::DeleteTable), (true, Op::AdoptTable)] {
        let netns = TestNetns::new();
        bring(&mut open(&netns), &wanted, is_owned).unwrap();
        let flags = DORMANT | if is_owned { PERSIST } else { 0 };
        set_flags(&netns, flags as u8);
        let mut table = open(&netns);
        assert_eq!(table.dump().unwrap().table.unwrap().flags, flags, "it is off");
        let ops = bring(&mut table, &wanted, is_owned).unwrap();
        assert_eq!(ops.first(), Some(&first));
        assert_eq!(table.dump().unwrap().table.unwrap().flags & DORMANT, 0, "it is on");
    }
}

#[test]
fn the_process_that_owns_a_table_is_found() {
    let netns = TestNetns::new();
    let [wanted, _] = wanted();
    let mut table = open(&netns);
    own(&mut table, &wanted);
    let port_id = open(&netns).dump().unwrap().table.unwrap().owner.unwrap();
    assert_eq!(port_id, table.port_id());
    let opened = Netns::open(&netns.path()).unwrap();
    let holder = owner::holder(&Entrance::start().unwrap(), &opened, port_id).unwrap();
    assert_eq!(holder.pid, std::process::id());
    assert!(holder.to_string().contains("kernel_owner"), "{holder}");
}

#[test]
fn owners_come_and_go_under_traffic_without_a_packet_lost_or_leaked() {
    let wire = Wire::new(&worlds::remotes(), worlds::OWN);
    let rulesets = wanted();
    own(&mut open(&wire.inside), &rulesets[0]);
    let traffic = Traffic::start(&wire);
    let (mut adopted, mut remade) = (0, 0);
    for round in 0..ADOPTIONS {
        // Each time by a socket of its own; every second time nothing else is to do.
        let ops = own(&mut open(&wire.inside), &rulesets[round / 2 % 2]);
        assert_eq!(ops.first(), Some(&Op::AdoptTable), "round {round}");
        adopted += 1;
    }
    let counts = traffic.finish();
    println!("{adopted} adoptions: {counts:?}");
    assert_nothing_lost(counts);

    let mut table = open(&wire.inside);
    own(&mut table, &rulesets[0]);
    let traffic = Traffic::start(&wire);
    for round in 0..ADOPTIONS {
        let ruleset = &rulesets[round % 2];
        let before = table.dump().unwrap();
        let claim = Claim { is_owned: round % 2 == 0, present: owner::Present::Remade };
        let transaction = plan_as(before.ruleset.as_ref(), Some(ruleset), claim);
        table.commit(&transaction, Some(before.generation_id)).unwrap();
        remade += 1;
    }
    let counts = traffic.finish();
    println!("{remade} times made anew: {counts:?}");
    assert_nothing_lost(counts);
}

#[track_caller]
fn assert_nothing_lost(counts: Counts) {
    assert!(counts.echoed > 1000 && counts.denied > 1000, "there was traffic: {counts:?}");
    assert_eq!((counts.lost, counts.leaked), (0, 0), "{counts:?}");
}
