//! Kernel layer: what keeps and tells on file systems that are full or read-only. They are mounted where nobody else sees them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use seawall::config::SinkSettings;
use seawall::input::Text;
use seawall::observe::{Change, Event, EventKind, Limits, Sinks, Store};

const PATIENCE: Duration = Duration::from_secs(90);

/// Mounts a file system of 1 MiB. It is seen by this thread and those it starts, and gone with them.
fn mounted(dir: &Path) {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("these tests need root");
    run("mount", &["--make-rprivate", "/"]);
    run("mount", &["-t", "tmpfs", "-o", "size=1m,mode=0700", "none", dir.to_str().unwrap()]);
}

fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status().unwrap();
    assert!(status.success(), "{program} {args:?}");
}

/// Writes until there is no space left.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    for piece in [64 << 10, 4096, 1] {
        while file.write_all(&vec![1; piece]).is_ok() {}
    }
}

#[track_caller]
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what} did not happen within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn events(numbers: std::ops::Range<u64>) -> Vec<Event> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now_us = u64::try_from(now.as_micros()).unwrap();
    let event = |number| Event {
        sequence: number,
        at_us: now_us + number,
        kind: EventKind::Denied,
        workload: Some(Text::new("shop/api")),
        message: Text::new(&format!("event {number} {}", "x".repeat(150))),
        denial: None,
        needed: None,
    };
    numbers.map(event).collect()
}

fn put(store: &Store, events: &[Event]) {
    store.put(events.iter().cloned().map(Change::Event).collect());
}

#[test]
fn a_full_disk_is_told_of_and_nothing_is_lost_when_there_is_space_again() {
    let dir = tempfile::tempdir().unwrap();
    mounted(dir.path());
    let (store, _) = Store::open(dir.path(), Limits::default());
    let all = events(0..1000);
    put(&store, &all[..10]);
    let written = dir.path().join("observed.sqlite-wal");
    until("the first batch", || written.metadata().is_ok_and(|found| found.len() > 20_000));
    assert_eq!(store.problem(), None);
    fill(&dir.path().join("filler"));
    put(&store, &all[10..]);
    until("the problem", || store.problem().is_some());
    let problem = store.problem().unwrap();
    assert!(problem.contains("no space left"), "{problem}");
    fs::remove_file(dir.path().join("filler")).unwrap();
    until("recovery", || store.problem().is_none());
    assert!(store.close(PATIENCE));
    let (store, restored) = Store::open(dir.path(), Limits::default());
    assert_eq!(restored.events, all);
    assert_eq!(store.problem(), None);
    assert!(!dir.path().join("observed.sqlite.broken-1").exists(), "a full disk breaks nothing");
}

#[test]
fn a_start_on_a_full_disk_keeps_what_comes_when_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    mounted(dir.path());
    fill(&dir.path().join("filler"));
    let (store, restored) = Store::open(dir.path(), Limits::default());
    assert!(restored.events.is_empty());
    assert!(store.problem().unwrap().contains("no space left"), "{:?}", store.problem());
    let all = events(0..100);
    put(&store, &all);
    fs::remove_file(dir.path().join("filler")).unwrap();
    until("recovery", || !store.problem().unwrap_or_default().contains("no space"));
    assert!(store.close(PATIENCE));
    assert_eq!(Store::open(dir.path(), Limits::default()).1.events, all);
}

#[test]
fn a_read_only_directory_is_told_of_until_it_can_be_written() {
    let dir = tempfile::tempdir().unwrap();
    mounted(dir.path());
    let path = dir.path().to_str().unwrap();
    let all = events(0..100);
    let (store, _) = Store::open(dir.path(), Limits::default());
    put(&store, &all[..50]);
    assert!(store.close(PATIENCE));
    run("mount", &["-o", "remount,ro", path]);
    let (store, _) = Store::open(dir.path(), Limits::default());
    assert!(store.problem().unwrap().contains("Read-only file system"), "{:?}", store.problem());
    put(&store, &all[50..]);
    run("mount", &["-o", "remount,rw", path]);
    until("recovery", || store.problem().is_none());
    assert!(store.close(PATIENCE));
    assert_eq!(Store::open(dir.path(), Limits::default()).1.events, all);
    assert!(!dir.path().join("observed.sqlite.broken-1").exists());
}

#[test]
fn a_file_of_events_on_a_full_disk_never_has_half_a_line() {
    let dir = tempfile::tempdir().unwrap();
    mounted(dir.path());
    let path = dir.path().join("events.jsonl");
    let settings =
        SinkSettings { journald: Some(false), file: Some(path.clone()), ..SinkSettings::default() };
    let filler = dir.path().join("filler");
    let sinks = Sinks::start(&settings);
    let all = events(0..200);
    sinks.send(&all[0]);
    until("the first", || path.metadata().is_ok_and(|found| found.len() > 0));
    fill(&filler);
    all[1..].iter().for_each(|event| sinks.send(event));
    until("the problem", || sinks.problems().iter().any(|one| one.contains("No space")));
    let is_whole = || fs::read_to_string(&path).unwrap().ends_with('\n');
    assert!(is_whole());
    fs::remove_file(&filler).unwrap();
    until("recovery", || sinks.problems().is_empty());
    sinks.close(PATIENCE);
    let text = fs::read_to_string(&path).unwrap();
    let read: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(read, all);
}
