//! Tests of the store on real files: what is kept comes back, and nothing that happens to the file stops it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::{Change, FILE, Limits, Restored, Store, WAITING, schema};
use crate::observe::Party;
use crate::observe::record::{Denial, DenialKey, Event, Flow, FlowKey};
use crate::observe::sample::{denial, event, flow, now_us};

const PATIENCE: Duration = Duration::from_secs(20);
const PAGE: &str = include_str!("../../../docs/operating.md");

/// The event is of today, so that it is kept.
fn today(sequence: u64) -> Event {
    Event { at_us: now_us() + sequence, ..event(sequence) }
}

fn some() -> (Vec<Flow>, Vec<Denial>, Vec<Event>) {
    let flows = (1..30).map(|port| flow(port, u64::from(port))).collect();
    (flows, (1..20).map(denial).collect(), (1..40).map(today).collect())
}

fn changes((flows, denials, events): &(Vec<Flow>, Vec<Denial>, Vec<Event>)) -> Vec<Change> {
    let flows = flows.iter().cloned().map(Change::Flow);
    let denials = denials.iter().cloned().map(Change::Denial);
    flows.chain(denials).chain(events.iter().cloned().map(Change::Event)).collect()
}

fn open(dir: &Path) -> (Store, Restored) {
    Store::open(dir, Limits::default())
}

/// Opens, puts, closes: what is in the database then.
fn keep(dir: &Path, changes: Vec<Change>) {
    let (store, _) = open(dir);
    store.put(changes);
    let problem = store.problem();
    assert!(store.close(PATIENCE), "not all was written: {problem:?}");
}

#[track_caller]
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what} did not happen within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// That a store works: what is put into it now is there when it is opened again.
#[track_caller]
fn assert_keeps(dir: &Path, store: Store, what: &str) {
    let marker = flow(60_000, 77);
    store.put(vec![Change::Flow(marker.clone())]);
    let problem = store.problem();
    assert!(store.close(PATIENCE), "{what}: it is not written: {problem:?}");
    let (store, restored) = open(dir);
    assert!(restored.flows.contains(&marker), "{what}: it is not there: {:?}", store.problem());
    assert!(store.close(PATIENCE));
}

/// Numbers that look random and are the same each time (Knuth's constants).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

#[test]
fn what_is_put_is_there_after_a_restart_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let (store, restored) = open(dir.path());
    assert_eq!(restored, Restored::default());
    assert_eq!(store.problem(), None);
    let put = some();
    store.put(changes(&put));
    assert!(store.close(PATIENCE));
    let (store, restored) = open(dir.path());
    let (flows, denials, events) = put;
    assert_eq!(restored, Restored { flows, denials, events, skipped: 0 });
    assert_eq!(store.problem(), None);
    for name in [FILE, "observed.sqlite-wal", "observed.sqlite.lock"] {
        let mode = dir.path().join(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn changes_are_written_within_seconds_and_others_may_read_them() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.put(vec![Change::Flow(flow(80, 1))]);
    let reader = Connection::open(dir.path().join(FILE)).unwrap();
    let count = || reader.query_row("SELECT count(*) FROM flows", [], |row| row.get::<_, i64>(0));
    until("the flow", || count().unwrap() == 1);
    assert_eq!(store.problem(), None);
}

#[test]
fn what_is_put_again_replaces_what_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    keep(dir.path(), vec![Change::Flow(flow(80, 1)), Change::Flow(flow(80, 2))]);
    let last = flow(80, 9);
    keep(dir.path(), vec![Change::Flow(last.clone())]);
    assert_eq!(open(dir.path()).1.flows, [last]);
}

#[test]
fn what_is_old_or_too_much_goes() {
    let dir = tempfile::tempdir().unwrap();
    let day = 86_400 * 1_000_000;
    let old = Flow { last_us: now_us() - 3 * day, ..flow(1, 1) };
    let mut put: Vec<Change> = (2..200).map(|port| Change::Flow(flow(port, 1))).collect();
    put.push(Change::Flow(old.clone()));
    // Older than all of the others, but the only one of its workload.
    let mut quiet = flow(1, 1);
    quiet.key.client = Party::Host;
    quiet.last_us -= 1_000_000;
    put.push(Change::Flow(quiet.clone()));
    let quiet_event = Event { workload: Some("quiet".into()), ..today(0) };
    put.push(Change::Event(quiet_event.clone()));
    put.extend((1..2500).map(|number| Change::Event(today(number))));
    keep(dir.path(), put);
    let limits = Limits { keep_days: 2, keep_rows: 100 };
    let (store, restored) = Store::open(dir.path(), limits);
    assert_eq!(restored.flows.len(), 100);
    assert!(!restored.flows.contains(&old));
    let sequences: Vec<u64> = restored.events.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, (2400..2500).collect::<Vec<_>>());
    // More than was too much is gone, so that it is seldom done.
    let file = Connection::open(dir.path().join(FILE)).unwrap();
    for table in ["flows", "events"] {
        let query = format!("SELECT count(*) FROM {table}");
        let count = || file.query_row(&query, [], |row| row.get::<_, i64>(0)).unwrap();
        until(table, || count() == 90);
    }
    assert!(store.close(PATIENCE));
    let (store, restored) = open(dir.path());
    assert!(restored.flows.contains(&quiet), "whoever has most gives way");
    assert_eq!(restored.events.first(), Some(&quiet_event));
    assert_eq!((restored.flows.len(), restored.events.len()), (90, 90));
    assert!(store.close(PATIENCE));
}

#[test]
fn a_database_of_any_version_is_brought_to_the_latest_with_what_it_keeps() {
    for version in 1..=schema::MIGRATIONS.len() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = Connection::open(dir.path().join(FILE)).unwrap();
        schema::migrate(&mut file, &schema::MIGRATIONS[..version]).unwrap();
        assert_eq!(schema::version(&file), Ok(version as i64));
        let kept = flow(80, 3);
        let insert = "INSERT INTO flows (key, first_us, last_us, connections, unanswered, packets_out, bytes_out,
            packets_in, bytes_in) VALUES (?1, ?2, ?3, 3, 1, 2, 3, 4, 5)";
        let key = serde_json::to_string(&kept.key).unwrap();
        file.execute(insert, (key, kept.first_us as i64, kept.last_us as i64)).unwrap();
        drop(file);
        let (store, restored) = open(dir.path());
        assert_eq!((restored.flows, store.problem()), (vec![kept], None), "version {version}");
        assert!(store.close(PATIENCE));
        let file = Connection::open(dir.path().join(FILE)).unwrap();
        assert_eq!(schema::version(&file), Ok(schema::latest()));
    }
}

#[test]
fn a_newer_database_is_left_alone_and_told_of_until_it_is_moved_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let file = Connection::open(&path).unwrap();
    file.execute_batch("CREATE TABLE future (x); PRAGMA user_version = 99").unwrap();
    drop(file);
    let before = fs::read(&path).unwrap();
    let (store, restored) = open(dir.path());
    assert_eq!(restored, Restored::default());
    assert!(store.problem().unwrap().contains("is of version 99"), "{:?}", store.problem());
    store.put(vec![Change::Flow(flow(80, 1))]);
    assert_eq!(fs::read(&path).unwrap(), before);
    fs::rename(&path, dir.path().join("elsewhere")).unwrap();
    until("recovery", || store.problem().is_none());
    assert!(!dir.path().join("observed.sqlite.broken-1").exists());
    assert_keeps(dir.path(), store, "a new one");
}

#[test]
fn a_file_cut_anywhere_never_stops_it() {
    let whole = tempfile::tempdir().unwrap();
    keep(whole.path(), changes(&some()));
    let bytes = fs::read(whole.path().join(FILE)).unwrap();
    let mut dice = Dice(1);
    let mut set_aside = 0;
    for _ in 0..40 {
        let length = dice.below(bytes.len());
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), &bytes[..length]).unwrap();
        let (store, _) = open(dir.path());
        if dir.path().join("observed.sqlite.broken-1").exists() {
            set_aside += 1;
            let problem = store.problem().expect("it is told");
            assert!(problem.contains("observed.sqlite.broken-1"), "cut at {length}: {problem}");
        }
        assert_keeps(dir.path(), store, &format!("cut at {length}"));
    }
    assert!(set_aside > 30, "most of them are broken: {set_aside}");
}

#[test]
fn flipped_bytes_never_stop_it() {
    let whole = tempfile::tempdir().unwrap();
    keep(whole.path(), changes(&some()));
    let bytes = fs::read(whole.path().join(FILE)).unwrap();
    let mut dice = Dice(2);
    let (mut used, mut set_aside, mut skipped) = (0, 0, 0);
    for round in 0..80 {
        let mut bytes = bytes.clone();
        // Single ones and many; every fourth time within the header.
        for _ in 0..=(round % 3) * 20 {
            let at = dice.below(if round % 4 == 0 { 100 } else { bytes.len() });
            bytes[at] ^= 1 << dice.below(8);
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), &bytes).unwrap();
        let (store, restored) = open(dir.path());
        let problem = store.problem();
        skipped += restored.skipped;
        if problem.as_ref().is_some_and(|problem| problem.contains("is of version")) {
            continue;
        }
        if dir.path().join("observed.sqlite.broken-1").exists() {
            set_aside += 1;
            assert!(problem.unwrap().contains("observed.sqlite.broken-1"), "round {round}");
        } else {
            used += 1;
        }
        assert_keeps(dir.path(), store, &format!("round {round}"));
    }
    assert!(used > 0 && set_aside > 0 && skipped > 0, "{used} used, {set_aside} aside, {skipped}");
}

#[test]
fn garbage_a_directory_or_a_pipe_in_its_place_is_set_aside() {
    let garbage: Vec<u8> = (0..9000_u32).map(|number| (number * 7919 % 251) as u8).collect();
    let pipe = |path: &Path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    type Make<'a> = &'a dyn Fn(&Path);
    let cases: [(&str, Make<'_>); 3] = [
        ("garbage", &|path| fs::write(path, &garbage).unwrap()),
        ("a directory", &|path| fs::create_dir_all(path.join("full")).unwrap()),
        ("a pipe", &pipe),
    ];
    for (what, make) in cases {
        let dir = tempfile::tempdir().unwrap();
        make(&dir.path().join(FILE));
        let (store, restored) = open(dir.path());
        assert_eq!(restored, Restored::default());
        let problem = store.problem().expect(what);
        assert!(problem.contains("observed.sqlite.broken-1, a new one was begun"), "{problem}");
        assert!(dir.path().join("observed.sqlite.broken-1").exists());
        assert_keeps(dir.path(), store, what);
    }
}

#[test]
fn of_broken_databases_the_two_newest_stay() {
    let dir = tempfile::tempdir().unwrap();
    for content in ["first", "second", "third", "fourth"] {
        fs::write(dir.path().join(FILE), content.repeat(500)).unwrap();
        assert!(open(dir.path()).0.close(PATIENCE));
    }
    let aside = |number| fs::read_to_string(dir.path().join(format!("{FILE}.broken-{number}")));
    assert!(aside(1).unwrap().starts_with("third"));
    assert!(aside(2).unwrap().starts_with("fourth"));
    assert!(aside(3).is_err());
}

#[test]
fn what_cannot_be_set_aside_is_told_until_somebody_helps() {
    let dir = tempfile::tempdir().unwrap();
    // Folders with something in them are never removed.
    for number in [1, 2] {
        fs::create_dir_all(dir.path().join(format!("{FILE}.broken-{number}/full"))).unwrap();
    }
    fs::write(dir.path().join(FILE), "garbage".repeat(500)).unwrap();
    let (store, _) = open(dir.path());
    assert!(store.problem().unwrap().contains("cannot be set aside"), "{:?}", store.problem());
    fs::remove_dir_all(dir.path().join(format!("{FILE}.broken-1"))).unwrap();
    until("recovery", || !store.problem().unwrap_or_default().contains("cannot"));
    assert_keeps(dir.path(), store, "after help");
}

#[test]
fn a_second_daemon_keeps_nothing_until_the_first_one_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _) = open(dir.path());
    let (second, restored) = open(dir.path());
    assert_eq!(restored, Restored::default());
    assert!(second.problem().unwrap().contains("another seawall"), "{:?}", second.problem());
    assert_eq!(first.problem(), None);
    assert!(first.close(PATIENCE));
    until("its turn", || second.problem().is_none());
    assert_keeps(dir.path(), second, "the second");
}

#[test]
fn a_lock_of_another_program_is_waited_for_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let other = Connection::open(dir.path().join(FILE)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let put = some();
    store.put(changes(&put));
    until("the problem", || store.problem().is_some_and(|problem| problem.contains("locked")));
    other.execute_batch("ROLLBACK").unwrap();
    until("recovery", || store.problem().is_none());
    assert!(store.close(PATIENCE));
    assert_eq!(open(dir.path()).1.flows, put.0);
}

#[test]
fn a_file_that_is_removed_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    for end in ["", "-wal", "-shm"] {
        fs::remove_file(dir.path().join(format!("{FILE}{end}"))).unwrap();
    }
    assert_keeps(dir.path(), store, "a new one");
}

#[test]
fn a_directory_that_is_missing_or_takes_no_file_is_told_of() {
    let (store, _) = open(Path::new("/proc/self"));
    assert!(store.problem().unwrap().contains("cannot be used"), "{:?}", store.problem());
    store.put(vec![Change::Flow(flow(1, 1))]);
    assert!(!store.close(PATIENCE), "nothing can have been written");
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let (store, _) = open(&missing);
    assert!(store.problem().unwrap().contains("No such file"), "{:?}", store.problem());
    fs::create_dir(&missing).unwrap();
    until("recovery", || store.problem().is_none());
    assert_keeps(&missing, store, "the directory that was made");
}

#[test]
fn rows_that_make_no_sense_are_left_out_counted_and_gone() {
    let dir = tempfile::tempdir().unwrap();
    keep(dir.path(), changes(&some()));
    let file = Connection::open(dir.path().join(FILE)).unwrap();
    for damage in [
        "UPDATE flows SET key = '{' WHERE id = 1",
        "UPDATE flows SET connections = -1 WHERE id = 2",
        "UPDATE flows SET bytes_in = 'many' WHERE id = 3",
        "UPDATE denials SET key = x'fffe' WHERE id = 1",
        "UPDATE events SET kind = 'strange' WHERE id = 1",
        "UPDATE events SET denial = '{}' WHERE id = 2",
        "UPDATE events SET needed = 'a' || char(27) || '[2J' WHERE id = 3",
    ] {
        assert_eq!(file.execute(damage, []), Ok(1), "{damage}");
    }
    let (store, restored) = open(dir.path());
    assert_eq!(restored.skipped, 7);
    assert_eq!((restored.flows.len(), restored.denials.len(), restored.events.len()), (26, 18, 36));
    assert_eq!(store.problem().unwrap(), "7 rows made no sense and are gone");
    assert!(store.close(PATIENCE));
    assert_eq!(open(dir.path()).1.skipped, 0);
}

#[test]
fn what_is_read_is_harmless_whoever_wrote_it() {
    let dir = tempfile::tempdir().unwrap();
    keep(dir.path(), vec![Change::Event(today(1))]);
    let file = Connection::open(dir.path().join(FILE)).unwrap();
    file.execute("UPDATE events SET message = 'a' || char(27) || char(10)", []).unwrap();
    assert_eq!(open(dir.path()).1.events[0].message, "a\\u{1b}\\u{a}");
}

#[test]
fn more_than_can_wait_is_lost_and_told_and_blocks_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.put(vec![Change::Event(today(1)); WAITING + 1]);
    assert_eq!(store.lost(), WAITING as u64 + 1);
    assert!(store.problem().unwrap().contains("100001 changes were lost"), "{:?}", store.problem());
    store.put(vec![Change::Event(today(2))]);
    assert!(store.close(PATIENCE));
    assert_eq!(open(dir.path()).1.events.len(), 1);
}

#[test]
fn the_manual_shows_the_schema_keys_and_queries_that_are_there() {
    let dir = tempfile::tempdir().unwrap();
    keep(dir.path(), changes(&some()));
    let file = Connection::open(dir.path().join(FILE)).unwrap();
    let blocks = |kind: &str| {
        let fence = format!("```{kind}\n");
        PAGE.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect::<Vec<_>>()
    };
    let queries = blocks("sql");
    assert_eq!(queries.len(), 2);
    for query in queries {
        let mut statement = file.prepare(query).unwrap();
        let mut rows = statement.query([]).unwrap();
        assert!(rows.next().unwrap().is_some(), "it finds nothing:\n{query}");
    }
    let json = blocks("json");
    assert_eq!(json.len(), 3);
    let key: FlowKey = serde_json::from_str(json[0]).unwrap();
    assert_eq!(serde_json::to_string(&key).unwrap(), json[0].trim_end());
    let key: DenialKey = serde_json::from_str(json[1]).unwrap();
    assert_eq!(serde_json::to_string(&key).unwrap(), json[1].trim_end());
    let event: Event = serde_json::from_str(json[2]).unwrap();
    assert_eq!(serde_json::to_string(&event).unwrap(), json[2].trim_end());
    assert!(PAGE.contains(&format!("`PRAGMA user_version` is {}.", schema::latest())));
    for table in ["flows", "denials", "events"] {
        let row = PAGE.lines().find(|line| line.starts_with(&format!("| `{table}` |"))).unwrap();
        let names = file.prepare(&format!("SELECT * FROM {table}")).unwrap();
        for column in names.column_names() {
            assert!(row.contains(&format!("`{column}`")), "{table}.{column} is not described");
        }
    }
}
