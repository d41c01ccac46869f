//! Tests of the sinks with real sockets and files, and with names that want to do harm.

use std::collections::BTreeMap;
use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Sinks, journald, syslog};
use crate::config::SinkSettings;
use crate::config::events::SyslogTarget;
use crate::observe::record::{Event, EventKind};
use crate::observe::sample::event;

pub(super) const PATIENCE: Duration = Duration::from_secs(20);
const PAGE: &str = include_str!("../../../docs/operating.md");

/// Nothing is on.
fn off() -> SinkSettings {
    SinkSettings { journald: Some(false), ..SinkSettings::default() }
}

fn to_journal(path: &Path) -> SinkSettings {
    SinkSettings { journald: Some(true), journald_socket: path.to_owned(), ..off() }
}

fn to_file(path: &Path) -> SinkSettings {
    SinkSettings { file: Some(path.to_owned()), file_mib: 1, ..off() }
}

#[track_caller]
pub(super) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what} did not happen within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn received(socket: &UnixDatagram) -> Vec<u8> {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = vec![0; 64 << 10];
    let length = socket.recv(&mut bytes).unwrap();
    bytes.truncate(length);
    bytes
}

/// Reads an entry as the journal does; panics where it is none.
fn fields(mut entry: &[u8]) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut found = BTreeMap::new();
    while !entry.is_empty() {
        let end = entry.iter().position(|byte| *byte == b'\n').unwrap();
        let (line, rest) = (&entry[..end], &entry[end + 1..]);
        let (name, value) = match line.iter().position(|byte| *byte == b'=') {
            Some(at) => {
                entry = rest;
                (text(&line[..at]), text(&line[at + 1..]))
            }
            None => {
                let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
                assert_eq!(rest[8 + length], b'\n');
                entry = &rest[8 + length + 1..];
                (text(line), text(&rest[8..8 + length]))
            }
        };
        assert!(found.insert(name, value).is_none(), "a field is there twice");
    }
    found
}

/// The events of a file; a line that is just being written is none yet.
fn lines(path: &Path) -> Vec<Event> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_journal_gets_each_field_whatever_the_names_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let journal = UnixDatagram::bind(&path).unwrap();
    let sinks = Sinks::start(&to_journal(&path));
    sinks.send(&event(7));
    let fields = fields(&received(&journal));
    let event = event(7);
    let denial = event.denial.clone().unwrap();
    let wanted = [
        ("MESSAGE", event.message.to_string()),
        ("MESSAGE_ID", journald::message_id(EventKind::Denied).to_owned()),
        ("PRIORITY", "4".to_owned()),
        ("SEAWALL_CLIENT", denial.key.client.to_string()),
        ("SEAWALL_KIND", "denied".to_owned()),
        ("SEAWALL_NEEDED", event.needed.unwrap()),
        ("SEAWALL_PORT", "53/udp".to_owned()),
        ("SEAWALL_SEQUENCE", "7".to_owned()),
        ("SEAWALL_SERVER", "host".to_owned()),
        ("SEAWALL_WORKLOAD", event.workload.unwrap().to_string()),
        ("SYSLOG_IDENTIFIER", "seawall".to_owned()),
    ];
    let wanted = wanted.map(|(name, value)| (name.to_owned(), value)).into();
    assert_eq!(fields, wanted);
    assert!(sinks.problems().is_empty());
    sinks.close(PATIENCE);
}

#[test]
fn every_kind_has_an_id_of_its_own_in_the_manual() {
    for kind in EventKind::ALL {
        let id = journald::message_id(kind);
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert!(PAGE.contains(&format!("| `{}` | `{id}` |", kind.word())), "{id} is not described");
        assert!(PAGE.contains(&format!("| `{}` | {}, ", kind.word(), kind.severity())));
    }
    let ids: std::collections::BTreeSet<_> = EventKind::ALL.map(journald::message_id).into();
    assert_eq!(ids.len(), EventKind::ALL.len());
}

#[test]
fn a_journal_that_is_missing_is_a_problem_only_where_it_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let unasked = SinkSettings { journald: None, ..to_journal(&path) };
    let sinks = Sinks::start(&unasked);
    sinks.send(&event(1));
    assert_eq!((sinks.problems(), sinks.lost()), (vec![], vec![]));
    let sinks = Sinks::start(&to_journal(&path));
    sinks.send(&event(1));
    until("the problem", || !sinks.problems().is_empty());
    assert!(sinks.problems()[0].starts_with("journald: "), "{:?}", sinks.problems());
    let journal = UnixDatagram::bind(&path).unwrap();
    assert_eq!(fields(&received(&journal))["SEAWALL_SEQUENCE"], "1");
    until("recovery", || sinks.problems().is_empty());
    assert_eq!(sinks.lost(), [("journald", 0)]);
}

#[test]
fn a_journal_that_does_not_read_holds_up_neither_others_nor_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let _deaf = UnixDatagram::bind(&path).unwrap();
    let file = dir.path().join("events.jsonl");
    let settings = SinkSettings { file: Some(file.clone()), file_mib: 64, ..to_journal(&path) };
    let sinks = Sinks::start(&settings);
    let mut slowest = Duration::ZERO;
    for part in 0..8 {
        for number in 0..1000 {
            let event = event(part * 1000 + number);
            let start = Instant::now();
            sinks.send(&event);
            slowest = slowest.max(start.elapsed());
        }
        let there = usize::try_from((part + 1) * 1000).unwrap();
        until("the file's lines", || {
            fs::read(&file).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count()
                == there
        });
    }
    assert!(slowest < Duration::from_secs(1), "sending took {slowest:?}");
    let lost: BTreeMap<_, _> = sinks.lost().into_iter().collect();
    assert_eq!(lost["file"], 0);
    assert!(lost["journald"] > 0);
    let problems = sinks.problems();
    assert!(problems.len() == 1 && problems[0].contains("events were lost"), "{problems:?}");
    let start = Instant::now();
    sinks.close(Duration::from_millis(300));
    assert!(start.elapsed() < Duration::from_secs(2), "it waits no longer than it is told to");
}

#[test]
fn a_file_gets_a_json_object_a_line_that_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let sinks = Sinks::start(&to_file(&path));
    (1..=50).for_each(|number| sinks.send(&event(number)));
    sinks.close(PATIENCE);
    let read = lines(&path);
    assert_eq!(
        read.iter().map(|event| event.sequence).collect::<Vec<_>>(),
        (1..=50).collect::<Vec<_>>()
    );
    assert_eq!(read[0].message, event(1).message);
    assert_eq!(read[0].needed, event(1).needed);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    assert!(!fs::read_to_string(&path).unwrap().contains('\u{1b}'));
}

#[test]
fn a_file_that_grows_too_large_is_begun_anew_and_one_older_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (path, older) = (dir.path().join("events.jsonl"), dir.path().join("events.jsonl.1"));
    let sinks = Sinks::start(&to_file(&path));
    let line = serde_json::to_string(&event(1)).unwrap().len() as u64;
    let count = 3 * (1 << 20) / line;
    for number in 1..=count {
        sinks.send(&event(number));
        if number % 1000 == 0 {
            until("it is written", || {
                lines(&path).last().is_some_and(|last| last.sequence == number)
            });
        }
    }
    sinks.close(PATIENCE);
    for path in [&path, &older] {
        assert!(path.metadata().unwrap().len() <= 1 << 20, "{}", path.display());
    }
    let read: Vec<u64> =
        lines(&older).into_iter().chain(lines(&path)).map(|event| event.sequence).collect();
    assert_eq!(read, (count + 1 - read.len() as u64..=count).collect::<Vec<_>>(), "none between");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn a_file_that_is_moved_or_cut_is_written_on() {
    let dir = tempfile::tempdir().unwrap();
    let (path, moved) = (dir.path().join("events.jsonl"), dir.path().join("moved"));
    let sinks = Sinks::start(&to_file(&path));
    sinks.send(&event(1));
    until("the first", || lines(&path).len() == 1);
    fs::rename(&path, &moved).unwrap();
    sinks.send(&event(2));
    until("the second", || lines(&path).len() == 1);
    assert_eq!(lines(&moved)[0].sequence, 1);
    fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    sinks.send(&event(3));
    until("the third", || lines(&path).len() == 1);
    assert_eq!(lines(&path)[0].sequence, 3);
}

#[test]
fn a_folder_that_is_missing_and_a_pipe_are_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("missing/events.jsonl");
    let sinks = Sinks::start(&to_file(&path));
    sinks.send(&event(1));
    until("the problem", || sinks.problems().iter().any(|one| one.contains("No such file")));
    fs::create_dir(path.parent().unwrap()).unwrap();
    until("recovery", || lines(&path).len() == 1 && sinks.problems().is_empty());
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let sinks = Sinks::start(&to_file(&pipe));
    sinks.send(&event(1));
    until("the problem", || sinks.problems().iter().any(|one| one.contains("pipe")));
}

#[test]
fn syslog_messages_are_of_rfc_5424_and_of_one_line() {
    let message = syslog::message(&event(42), "host 1\n", 815);
    insta::assert_snapshot!(message, @r#"<28>1 2026-12-31T23:59:59.123456Z host1 seawall 815 denied [seawall@32473 kind="denied" sequence="42" workload="evil\"\]} \\ '); DROP TABLE flows;--\\u{a}<0>1 \\u{1b}[2J\\u{d}\\u{a}PRIORITY=0\\u{2028}x" client="evil\"\]} \\ '); DROP TABLE flows;--\\u{a}<0>1 \\u{1b}[2J\\u{d}\\u{a}PRIORITY=0\\u{2028}x" server="host" port="53/udp"] evil"]} \ '); DROP TABLE flows;--\u{a}<0>1 \u{1b}[2J\u{d}\u{a}PRIORITY=0\u{2028}x → host 53/udp denied"#);
    let nameless =
        Event { workload: None, denial: None, needed: None, kind: EventKind::Changed, ..event(1) };
    let nameless = Event { message: "set changed".into(), at_us: 0, ..nameless };
    assert_eq!(
        syslog::message(&nameless, "", 1),
        "<30>1 1970-01-01T00:00:00.000000Z - seawall 1 changed [seawall@32473 kind=\"changed\" sequence=\"1\"] set changed"
    );
}

#[test]
fn syslog_goes_to_a_unix_socket_and_over_udp() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = UnixDatagram::bind(&path).unwrap();
    let sinks = Sinks::start(&SinkSettings { syslog: Some(SyslogTarget::Local(path)), ..off() });
    sinks.send(&event(1));
    let local = String::from_utf8(received(&log)).unwrap();
    for host in ["127.0.0.1", "::1"] {
        let log = UdpSocket::bind((host, 0)).unwrap();
        log.set_read_timeout(Some(PATIENCE)).unwrap();
        let port = log.local_addr().unwrap().port();
        let target = SyslogTarget::Udp { host: host.to_owned(), port };
        let sinks = Sinks::start(&SinkSettings { syslog: Some(target), ..off() });
        sinks.send(&event(1));
        let mut bytes = [0; 8192];
        let length = log.recv(&mut bytes).unwrap();
        assert_eq!(std::str::from_utf8(&bytes[..length]).unwrap(), local, "over {host}");
    }
    assert!(local.starts_with("<28>1 2026-12-31T23:59:59.123456Z "), "{local}");
    assert_eq!(local.lines().count(), 1);
}
