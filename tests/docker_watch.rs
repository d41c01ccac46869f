//! Docker layer: what others do in a container's netns is noticed at once: repaired where the table is plain, told of with the
//! name of who did it, and limited when it is done in a loop.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harness::{Container, Seawall, Stage, eventually, nft, nft_fails, until};
use seawall::compile::ruleset::TableFamily;
use seawall::nft::netns::Entrance;
use seawall::nft::{KernelTable, Op, Transaction};
use seawall::reconcile::Entry;

const ENFORCE: &str = "mode = \"enforce\"\nunknown = \"deny\"";
const PLAIN: &str = "mode = \"enforce\"\nunknown = \"deny\"\nownership = \"off\"";
const LIMIT: Duration = Duration::from_secs(10);
/// What is promised for a repair, in microseconds.
const PROMISED: u64 = 100_000;
const TAMPERINGS: usize = 100;

/// A socket onto the tables of a container's netns, as a program in it has one.
fn open(container: &Container) -> KernelTable {
    let netns = container.netns();
    let netns = seawall::nft::Netns::open(netns.path()).unwrap();
    Entrance::start().unwrap().open_table(&netns).unwrap()
}

/// Takes the whole table away, or the rules of a chain that decides.
fn tampering(number: usize) -> Transaction {
    let flush = |chain: &str| Op::FlushChain { chain: chain.to_owned() };
    let op = match number % 3 {
        0 => Op::DeleteTable,
        1 => flush("ingress"),
        _ => flush("in_original"),
    };
    Transaction {
        family: TableFamily::Inet,
        ops: vec![op],
        target: None,
        revokes: false,
        with: None,
    }
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros().try_into().unwrap()
}

/// How many repairs of a container's table there were, and when the last one was.
fn repairs(seawall: &Seawall, container: &Container) -> (u32, u64) {
    let entries = seawall.journal_of(&container.id);
    let repairs = entries.iter().filter(|entry| entry.is_repair);
    repairs.fold((0, 0), |(count, _), entry| (count + entry.times, entry.committed_us))
}

/// What the journal has about chains and rules of others.
fn remarks(seawall: &Seawall, container: &Container) -> Vec<Entry> {
    let mut entries = seawall.journal_of(&container.id);
    entries.retain(|entry| entry.operations == 0);
    entries
}

#[test]
fn a_plain_table_is_repaired_within_100_ms() {
    let stage = Stage::take();
    let db = stage.shop().service("db");
    let seawall = Seawall::start(stage.host, PLAIN);
    let good = db.table();
    let mut table = open(&db);
    let mut took = Vec::new();
    for number in 0..TAMPERINGS {
        let (before, _) = repairs(&seawall, &db);
        let began = now_us();
        table.commit(&tampering(number), None).unwrap();
        let repaired = eventually("the repair", LIMIT, || {
            let (count, at) = repairs(&seawall, &db);
            (count > before).then_some(at)
        });
        took.push(repaired - began);
        assert_eq!(db.table(), good, "{number}");
    }
    took.sort_unstable();
    let (p50, p99, max) =
        (took[TAMPERINGS / 2], took[TAMPERINGS * 99 / 100 - 1], took[TAMPERINGS - 1]);
    println!("{TAMPERINGS} tamperings repaired: p50 {p50} µs, p99 {p99} µs, max {max} µs");
    // The rest of the times is printed: a shared machine can stand still for longer.
    assert!(p50 <= PROMISED, "p50 {p50} µs, p99 {p99} µs, max {max} µs");
    let by = seawall.journal_of(&db.id).into_iter().rev().find_map(|entry| entry.by).unwrap();
    assert!(by.ends_with(&format!("(pid {})", std::process::id())), "{by}");
    let lines = seawall.log_at("WARN");
    assert!(lines.len() <= 30, "{} lines:\n{}", lines.len(), lines.join("\n"));
    assert!(lines[0].contains("somebody changed the table; repaired"), "{}", lines[0]);
    assert!(seawall.cli_ok(&["status", "--changes"]).contains(&format!("repair after {by}")));
}

#[test]
fn an_owned_table_stands_whatever_is_tried() {
    let stage = Stage::take();
    let (host, db) = (stage.host, stage.shop().service("db"));
    let intruder = host.guest(&["--network", "shop_backend", "busybox:1", "sleep", "900"]);
    let seawall = Seawall::start(host, ENFORCE);
    let good = db.table();
    let ips = db.ips_shared_with(&intruder);
    let mut table = open(&db);
    for number in 0..TAMPERINGS {
        table.commit(&tampering(number), None).unwrap_err();
        if number % 10 == 0 {
            assert!(ips.iter().all(|ip| !intruder.tcp(*ip, 5432).is_reached()), "{number}");
        }
    }
    assert_eq!(db.table(), good);
    assert_eq!(repairs(&seawall, &db).0, 0);
    // It takes everybody's tables but ours.
    assert!(nft_fails(&intruder.netns(), "delete table inet seawall"));
    nft(&intruder.netns(), "flush ruleset");
    assert!(intruder.table().is_some());
    let told = eventually("word of it", LIMIT, || {
        let told = remarks(&seawall, &intruder);
        told.into_iter().find(|entry| entry.changes[0].contains("rules of Docker's"))
    });
    assert!(told.by.unwrap().starts_with("nft (pid "));
    println!("{TAMPERINGS} tamperings refused");
}

#[test]
fn a_loop_of_tampering_costs_little_and_harms_nobody_else() {
    const STORM: Duration = Duration::from_secs(3);
    let stage = Stage::take();
    let (db, api) = (stage.shop().service("db"), stage.shop().service("api"));
    let seawall = Seawall::start(stage.host, PLAIN);
    let (good, of_api) = (db.table(), api.table());
    let (before, cpu) = (repairs(&seawall, &db).0, seawall.cpu_time());
    let (ended, tried) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut table = open(&db);
            let began = Instant::now();
            while !ended.load(Ordering::Relaxed) {
                // What is not there cannot be taken away; then it was not repaired yet.
                let _ = table.commit(&tampering(0), None);
                let number = tried.fetch_add(1, Ordering::Relaxed) + 1;
                let due = began + Duration::from_millis(number as u64);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        });
        let mut table = open(&api);
        let began = Instant::now();
        let mut slowest = 0;
        while began.elapsed() < STORM {
            let (count, _) = repairs(&seawall, &api);
            let at = now_us();
            table.commit(&tampering(1), None).unwrap();
            let repaired = eventually("the repair of another", LIMIT, || {
                let (now, at) = repairs(&seawall, &api);
                (now > count).then_some(at)
            });
            slowest = slowest.max(repaired - at);
        }
        ended.store(true, Ordering::Relaxed);
        println!("the slowest repair of another netns meanwhile: {slowest} µs");
        // Not starved; how long it took is printed, for a shared machine can stand still for longer than is promised.
        assert!(slowest <= 10 * PROMISED, "{slowest} µs");
    });
    until("the last repair", LIMIT, || db.table() == good);
    assert_eq!(api.table(), of_api);
    let done = repairs(&seawall, &db).0 - before;
    let tried = tried.load(Ordering::Relaxed);
    println!(
        "{tried} tamperings in {STORM:?}: {done} repairs, {:?} of processor time, {} lines",
        seawall.cpu_time() - cpu,
        seawall.log_at("WARN").len()
    );
    assert!(done >= 10, "it is not given up");
    assert!(done <= 20 * 3 + 10, "{done} repairs");
    assert!(seawall.log_at("WARN").len() <= 60, "{}", seawall.log_at("WARN").len());
    assert_eq!(seawall.log_at("ERROR"), Vec::<String>::new());
}

#[test]
fn others_changes_in_a_loop_do_not_keep_a_revocation_away() {
    let stage = Stage::take();
    let (host, db) = (stage.host, stage.shop().service("db"));
    for settings in [ENFORCE, PLAIN] {
        let seawall = Seawall::start(host, settings);
        let before = db.table();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| noise(&db, &ended));
            seawall.write(
                "policy.d/no.toml",
                "[[deny]]\nfrom = \"any\"\nto = \"service:shop/db\"\nports = [\"5432/tcp\"]\n",
            );
            let began = Instant::now();
            seawall.cli_ok(&["reload"]);
            until("the deny", LIMIT, || {
                let changes = seawall.journal_of(&db.id);
                changes.iter().any(|entry| entry.is_revoking)
            });
            println!("revoked after {:?}", began.elapsed());
            ended.store(true, Ordering::Relaxed);
        });
        assert_ne!(db.table(), before);
        drop(seawall);
        stage.bare();
    }
}

/// Makes and removes a table of its own in a container's netns, as fast as it can.
fn noise(container: &Container, ended: &AtomicBool) {
    let mut nft = Command::new("nsenter")
        .arg(format!("--net={}", container.netns().path().display()))
        .args(["nft", "-i"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = nft.stdin.take().unwrap();
    while !ended.load(Ordering::Relaxed) {
        input.write_all(b"add table inet noise; delete table inet noise\n").unwrap();
    }
    nft.kill().unwrap();
    nft.wait().unwrap();
}

/// nft as a process of the container, in its pid namespace, with the rights of `docker exec --privileged`. It lives until its
/// input ends.
fn nft_inside(container: &Container) -> Child {
    let pid = container.pid.to_string();
    let mut nsenter = Command::new("nsenter");
    nsenter.args(["--target", &pid, "--net", "--pid", "nft", "-i"]);
    nsenter.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

const AROUND: &str = "table netdev around { chain c { type filter hook egress device eth0 priority 0; dup to eth0; }; }";

#[test]
fn chains_that_lead_around_the_policy_are_told_of_and_removed_where_nobody_vouches_for_them() {
    let stage = Stage::take();
    let host = stage.host;
    let plain = host.guest(&["busybox:1", "sleep", "900"]);
    let admin = host.guest(&["--cap-add", "NET_ADMIN", "busybox:1", "sleep", "900"]);
    let seawall = Seawall::start(host, ENFORCE);
    let is_there =
        |container: &Container| nft(&container.netns(), "list ruleset").contains("chain c {");
    let told = |container: &Container, what: &str| {
        eventually(what, LIMIT, || {
            let told = remarks(&seawall, container);
            told.into_iter().rev().find(|entry| entry.changes[0].contains(what))
        })
    };
    let coverage = |container: &Container| {
        seawall.status_of(&container.id)["coverage"].as_str().unwrap().to_owned()
    };

    // The host's own doing, in a container that cannot have done it: left there, and shown.
    nft(&plain.netns(), AROUND);
    let entry = told(&plain, "left there");
    assert!(
        entry.changes[0].starts_with("chain netdev around c (type filter, egress"),
        "{entry:?}"
    );
    assert!(entry.by.unwrap().starts_with("nft (pid "));
    assert!(is_there(&plain));
    assert!(
        coverage(&plain).contains("leads packets around the policy: dup"),
        "{}",
        coverage(&plain)
    );
    nft(&plain.netns(), "delete table netdev around");
    until("its end being seen", LIMIT, || !coverage(&plain).contains("around"));

    // A chain that accepts first allows nothing.
    let first = "table inet first { chain c { type filter hook input priority -300; accept; }; }";
    nft(&plain.netns(), first);
    told(&plain, "it allows nothing that is denied");
    let human = seawall.cli_ok(&["status"]);
    assert!(
        human.contains("another's chain inet first c (type filter, input, priority -300)"),
        "{human}"
    );
    nft(&plain.netns(), "delete table inet first");

    // One whose process is of the container.
    let mut inside = nft_inside(&plain);
    let mut input = inside.stdin.take().unwrap();
    let began = now_us();
    input.write_all(format!("{AROUND}\n").as_bytes()).unwrap();
    let entry = told(&plain, "; removed");
    println!("removed {} µs after nft was told to make it", entry.committed_us - began);
    drop(input);
    inside.wait().unwrap();
    until("its removal", LIMIT, || !is_there(&plain));

    // One in a container that could have made it.
    nft(&admin.netns(), AROUND);
    told(&admin, "; removed");
    until("its removal", LIMIT, || !is_there(&admin));
    drop(seawall);

    stage.bare();
    let seawall = Seawall::start(host, &format!("{ENFORCE}\nforeign = \"report\""));
    nft(&admin.netns(), "delete table netdev around");
    nft(&admin.netns(), AROUND);
    until("word of it", LIMIT, || {
        remarks(&seawall, &admin).iter().any(|entry| entry.changes[0].contains("left there"))
    });
    assert!(nft(&admin.netns(), "list ruleset").contains("chain c {"));
}

#[test]
fn an_address_that_appears_is_known_at_once() {
    let stage = Stage::take();
    let guest = stage.host.guest(&["busybox:1", "sleep", "900"]);
    let seawall = Seawall::start(stage.host, ENFORCE);
    let mut ip = Command::new("nsenter");
    ip.arg(format!("--net={}", guest.netns().path().display()));
    assert!(
        ip.args(["ip", "addr", "add", "198.51.100.7/32", "dev", "eth0"])
            .status()
            .unwrap()
            .success()
    );
    until("the new address", Duration::from_secs(2), || {
        seawall.status_of(&guest.id)["addresses"].to_string().contains("198.51.100.7")
    });
}
