//! Docker layer: tables are the daemon's own. Nobody else changes them while it lives, it takes them out when asked, and what it
//! holds of a container ends with the container.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::time::Duration;

use harness::{Seawall, Stage, nft, nft_fails, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const ENFORCE: &str = "mode = \"enforce\"\nunknown = \"deny\"";
const LIMIT: Duration = Duration::from_secs(10);

/// What somebody with nft tries in a container's netns.
const EDITS: [&str; 5] = [
    "delete table inet seawall",
    "flush table inet seawall",
    "insert rule inet seawall ingress accept",
    "flush set inet seawall in4",
    "chain inet seawall ingress { policy accept; }",
];

#[test]
fn nobody_changes_a_table_while_the_daemon_lives_and_every_daemon_adopts_what_it_finds() {
    let stage = Stage::take();
    let db = stage.shop().service("db");
    let mut seawall = Seawall::start(stage.host, ENFORCE);
    let held = db.table();
    assert!(held.is_some());
    for round in 0..3 {
        for edit in EDITS {
            assert!(nft_fails(&db.netns(), edit), "round {round}: {edit}");
        }
        assert_eq!(db.table(), held, "round {round}");
        seawall.kill9();
        assert_eq!(db.table(), held, "round {round}: the end of the daemon changes nothing");
        if round == 1 {
            // Nobody owns it now.
            nft(&db.netns(), "flush chain inet seawall deny_ingress");
        }
        seawall.run();
        assert_eq!(db.table(), held, "round {round}: adopted and put right");
        let changes = seawall.journal_of(&db.id);
        assert_eq!(changes[0].changes[0], "adopt table", "round {round}: {changes:?}");
        assert_eq!(changes.len(), 1, "round {round}: in one transaction");
    }
    assert_eq!(seawall.log_at("ERROR"), Vec::<String>::new());
}

#[test]
fn a_plain_table_is_made_anew_as_an_owned_one() {
    let stage = Stage::take();
    let db = stage.shop().service("db");
    let mut seawall = Seawall::start(stage.host, &format!("{ENFORCE}\nownership = \"off\""));
    let held = db.table();
    nft(&db.netns(), "add chain inet seawall mine");
    seawall.stop();
    let config = seawall.config();
    let text = std::fs::read_to_string(&config).unwrap_or_default();
    std::fs::write(&config, text.replace("\"off\"", "\"auto\"")).unwrap_or_default();
    seawall.run();
    assert!(EDITS.iter().all(|edit| nft_fails(&db.netns(), edit)), "it is owned now");
    assert_eq!(db.table(), held);
    let first = seawall.journal_of(&db.id).remove(0);
    assert_eq!(first.changes[..2], ["delete table", "add table, owned"]);
}

#[test]
fn clearing_asks_the_daemon_that_owns_the_tables_and_ends_it() {
    let stage = Stage::take();
    let (host, shop) = (stage.host, stage.shop());
    let mut seawall = Seawall::start(host, ENFORCE);
    let refused = seawall.cli(&["apply"]);
    assert_eq!(refused.status.code(), Some(3));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("keeps every container up to date"), "{told}");

    let containers = host.containers();
    let said = seawall.clear(host);
    assert!(said.contains(&format!("from {} of", containers.len())), "{said}");
    assert!(containers.iter().all(|container| container.table().is_none()));
    assert_eq!(seawall.await_end().code(), Some(0), "so that systemd does not start it again");
    shop.visit().unwrap();
    seawall.run();
    assert!(host.containers().iter().all(|container| container.table().is_some()));
}

#[test]
fn where_the_daemon_hangs_clearing_names_it() {
    let stage = Stage::take();
    let host = stage.host;
    let mut seawall = Seawall::start(host, ENFORCE);
    seawall.signal(Signal::SIGSTOP);
    let output = seawall.try_clear(host);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("did not answer within"), "{told}");
    assert!(told.contains(&format!("seawall (pid {})", seawall.pid())), "{told}");
    assert!(told.contains("end it"), "{told}");
    seawall.kill9();
    let said = seawall.clear(host);
    assert!(said.contains(&format!("from {} of", host.containers().len())), "{said}");
}

#[test]
fn nothing_of_a_container_is_held_when_it_ends_whether_anybody_tells_or_not() {
    let stage = Stage::take();
    let host = stage.host;
    let seawall = Seawall::start(host, ENFORCE);
    let name = format!("held{}", std::process::id());
    let run = || host.docker_ok(&["run", "--detach", "--name", &name, "busybox:1", "sleep", "600"]);
    // One first, so that everything that is made once is made.
    run();
    host.docker_ok(&["rm", "--force", &name]);
    let (sockets, links) = (sockets(&seawall), links(host));
    let start = || {
        run();
        let started = host.container(&name);
        seawall.await_programmed(&started.id);
        assert!(self::sockets(&seawall) > sockets, "a socket is kept");
        started
    };
    start();
    host.docker_ok(&["rm", "--force", &name]);
    until("what was held is let go", LIMIT, || self::sockets(&seawall) <= sockets);
    until("its interface is gone", LIMIT, || self::links(host) <= links);

    // Nobody is there to tell: dockerd, containerd and the shims stand still.
    let started = start();
    let others: Vec<u32> = host.pids().into_iter().filter(|pid| *pid != seawall.pid()).collect();
    let all = |signal| {
        for pid in &others {
            // One that ended meanwhile needs no signal.
            let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
        }
    };
    all(Signal::SIGSTOP);
    kill(Pid::from_raw(started.pid.cast_signed()), Signal::SIGKILL).unwrap();
    until("what was held is let go, unasked", LIMIT, || self::sockets(&seawall) <= sockets);
    all(Signal::SIGCONT);
    host.docker_ok(&["rm", "--force", &name]);
    until("its interface is gone", LIMIT, || self::links(host) <= links);
}

/// Sockets of other namespaces than the daemon's own: those of its own are listed for it.
fn sockets(seawall: &Seawall) -> usize {
    let own = std::fs::read_to_string(format!("/proc/{}/net/unix", seawall.pid())).unwrap();
    let own: Vec<&str> = own.lines().filter_map(|line| line.split_whitespace().nth(6)).collect();
    let targets = seawall.descriptors().into_iter().map(|target| target.display().to_string());
    let inodes =
        targets.filter_map(|t| Some(t.strip_prefix("socket:[")?.trim_end_matches(']').to_owned()));
    inodes.filter(|inode| !own.contains(&inode.as_str())).count()
}

/// Interfaces of the host: a namespace that is kept alive keeps its end of a cable.
fn links(host: &harness::DockerHost) -> usize {
    host.netns()
        .run(|| std::fs::read_dir("/proc/thread-self/net/dev_snmp6").expect("it is there").count())
}
