//! Owns the rows of `observed.sqlite`: writing them, reading them with no trust in them, and deleting old ones.

use std::time::{Duration, Instant};

use rusqlite::{Connection, Row, params};
use serde::de::DeserializeOwned;

use super::{Limits, Restored};
use crate::input::Text;
use crate::input::text::MAX_CHARS;
use crate::observe::record::{Denial, Event, EventKind, Flow};

/// How many events are read at start.
pub(super) const EVENTS: u32 = 10_000;
/// How many rows one statement deletes.
const STEP: u32 = 1000;
/// How long a text of a row may be, in bytes.
const TEXT_BYTES: usize = 64 << 10;
const DAY_US: u64 = 86_400 * 1_000_000;
/// Each table, its time, and whose a row is. Of what is too much, whoever has most gives way.
const TABLES: [(&str, &str, &str); 3] = [
    (
        "flows",
        "last_us",
        "CASE WHEN json_valid(key) THEN CASE json_extract(key, '$.end') WHEN 'client'
        THEN 'client ' || json_extract(key, '$.client')
        ELSE 'server ' || json_extract(key, '$.server') END END",
    ),
    ("denials", "last_us", "CASE WHEN json_valid(key) THEN json_extract(key, '$.workload') END"),
    ("events", "at_us", "workload"),
];

const PUT_FLOW: &str = "INSERT INTO flows
    (key, first_us, last_us, connections, unanswered, packets_out, bytes_out, packets_in, bytes_in)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
    ON CONFLICT (key) DO UPDATE SET first_us = ?2, last_us = ?3, connections = ?4, unanswered = ?5,
    packets_out = ?6, bytes_out = ?7, packets_in = ?8, bytes_in = ?9";
const PUT_DENIAL: &str = "INSERT INTO denials (key, first_us, last_us, logged, is_reply, uid, process)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
    ON CONFLICT (key) DO UPDATE SET first_us = ?2, last_us = ?3, logged = ?4, is_reply = ?5, uid = ?6, process = ?7";
const PUT_EVENT: &str =
    "INSERT OR REPLACE INTO events (sequence, at_us, kind, workload, message, denial, needed)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const FLOWS: &str =
    "SELECT id, key, first_us, last_us, connections, unanswered, packets_out, bytes_out,
    packets_in, bytes_in FROM flows WHERE last_us >= ?2
    ORDER BY last_us DESC, id DESC LIMIT ?1";
const DENIALS: &str = "SELECT id, key, first_us, last_us, logged, is_reply, uid, process
    FROM denials WHERE last_us >= ?2 ORDER BY last_us DESC, id DESC LIMIT ?1";
const NEWEST_EVENTS: &str = "SELECT id, sequence, at_us, kind, workload, message, denial, needed
    FROM events WHERE at_us >= ?2 ORDER BY id DESC LIMIT ?1";

/// SQLite's whole numbers have a sign; nothing that is counted comes near to it.
fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn put_flow(connection: &Connection, key: &str, flow: &Flow) -> rusqlite::Result<()> {
    let values = [
        flow.first_us,
        flow.last_us,
        flow.connections,
        flow.unanswered,
        flow.packets_out,
        flow.bytes_out,
        flow.packets_in,
        flow.bytes_in,
    ];
    let [first, last, connections, unanswered, packets_out, bytes_out, packets_in, bytes_in] =
        values.map(whole);
    connection.prepare_cached(PUT_FLOW)?.execute(params![
        key,
        first,
        last,
        connections,
        unanswered,
        packets_out,
        bytes_out,
        packets_in,
        bytes_in
    ])?;
    Ok(())
}

pub(super) fn put_denial(
    connection: &Connection,
    key: &str,
    denial: &Denial,
) -> rusqlite::Result<()> {
    connection.prepare_cached(PUT_DENIAL)?.execute(params![
        key,
        whole(denial.first_us),
        whole(denial.last_us),
        whole(denial.logged),
        denial.is_reply,
        denial.uid,
        denial.process.as_ref().map(Text::as_str)
    ])?;
    Ok(())
}

pub(super) fn put_event(connection: &Connection, event: &Event) -> rusqlite::Result<()> {
    let denial = event.denial.as_ref().and_then(|denial| serde_json::to_string(denial).ok());
    connection.prepare_cached(PUT_EVENT)?.execute(params![
        whole(event.sequence),
        whole(event.at_us),
        event.kind.word(),
        event.workload.as_ref().map(Text::as_str),
        event.message.as_str(),
        denial,
        event.needed
    ])?;
    Ok(())
}

/// A row that is no value of ours.
struct Senseless;

impl From<rusqlite::Error> for Senseless {
    fn from(_: rusqlite::Error) -> Self {
        Self
    }
}

/// Everything that is kept, oldest first. Rows that make no sense are counted and deleted.
pub(super) fn restore(
    connection: &Connection,
    limits: Limits,
    now_us: u64,
) -> rusqlite::Result<Restored> {
    let (oldest, mut skipped) = (oldest(limits, now_us), 0);
    let rows = limits.keep_rows;
    let flows = read(connection, ("flows", FLOWS), (rows, oldest), flow, &mut skipped)?;
    let denials = read(connection, ("denials", DENIALS), (rows, oldest), denial, &mut skipped)?;
    let newest = (EVENTS.min(rows), oldest);
    let events = read(connection, ("events", NEWEST_EVENTS), newest, event, &mut skipped)?;
    Ok(Restored { flows, denials, events, skipped })
}

/// What is older is not kept.
fn oldest(limits: Limits, now_us: u64) -> i64 {
    whole(now_us.saturating_sub(u64::from(limits.keep_days) * DAY_US))
}

fn read<T>(
    connection: &Connection,
    (table, query): (&str, &str),
    (limit, oldest): (u32, i64),
    value: impl Fn(&Row<'_>) -> Result<T, Senseless>,
    skipped: &mut usize,
) -> rusqlite::Result<Vec<T>> {
    let mut statement = connection.prepare(query)?;
    let mut rows = statement.query(params![limit, oldest])?;
    let (mut values, mut senseless) = (Vec::new(), Vec::<i64>::new());
    while let Some(row) = rows.next()? {
        match value(row) {
            Ok(value) => values.push(value),
            Err(Senseless) => senseless.push(row.get(0)?),
        }
    }
    for id in &senseless {
        // Where nothing can be written they are skipped again next time.
        drop(connection.execute(&format!("DELETE FROM {table} WHERE id = ?1"), [id]));
    }
    *skipped += senseless.len();
    values.reverse();
    Ok(values)
}

fn flow(row: &Row<'_>) -> Result<Flow, Senseless> {
    Ok(Flow {
        key: json(&row.get::<_, String>(1)?)?,
        first_us: count(row, 2)?,
        last_us: count(row, 3)?,
        connections: count(row, 4)?,
        unanswered: count(row, 5)?,
        packets_out: count(row, 6)?,
        bytes_out: count(row, 7)?,
        packets_in: count(row, 8)?,
        bytes_in: count(row, 9)?,
    })
}

fn denial(row: &Row<'_>) -> Result<Denial, Senseless> {
    Ok(Denial {
        key: json(&row.get::<_, String>(1)?)?,
        first_us: count(row, 2)?,
        last_us: count(row, 3)?,
        logged: count(row, 4)?,
        is_reply: row.get(5)?,
        uid: row.get(6)?,
        process: row.get::<_, Option<String>>(7)?.map(Text::from),
    })
}

fn event(row: &Row<'_>) -> Result<Event, Senseless> {
    let denial = row.get::<_, Option<String>>(6)?;
    let needed = row.get::<_, Option<String>>(7)?;
    if needed.as_deref().is_some_and(|needed| !is_harmless(needed)) {
        return Err(Senseless);
    }
    Ok(Event {
        sequence: count(row, 1)?,
        at_us: count(row, 2)?,
        kind: EventKind::of_word(&row.get::<_, String>(3)?).ok_or(Senseless)?,
        workload: row.get::<_, Option<String>>(4)?.map(Text::from),
        message: Text::from(row.get::<_, String>(5)?),
        denial: denial.map(|denial| json(&denial)).transpose()?,
        needed,
    })
}

fn count(row: &Row<'_>, column: usize) -> Result<u64, Senseless> {
    u64::try_from(row.get::<_, i64>(column)?).map_err(|_| Senseless)
}

fn json<T: DeserializeOwned>(text: &str) -> Result<T, Senseless> {
    if text.len() > TEXT_BYTES {
        return Err(Senseless);
    }
    serde_json::from_str(text).map_err(|_| Senseless)
}

/// Whether a text of several lines is one that [`Text`] would not change, but for its length.
fn is_harmless(lines: &str) -> bool {
    let characters: Vec<char> = lines.chars().filter(|character| *character != '\n').collect();
    let mut pieces = characters.chunks(MAX_CHARS).map(|piece| piece.iter().collect::<String>());
    lines.len() <= TEXT_BYTES && pieces.all(|piece| Text::new(&piece) == piece.as_str())
}

/// Deletes what is too old at `now_us` or too much, for as long as `budget`. Returns whether all of it is gone.
pub(super) fn prune(
    connection: &Connection,
    limits: Limits,
    now_us: u64,
    budget: Duration,
) -> rusqlite::Result<bool> {
    let end = Instant::now() + budget;
    let oldest = oldest(limits, now_us);
    // What is too old first, of all tables: what comes in a flood into one keeps nothing in another.
    for (table, time, _) in TABLES {
        let old = format!(
            "DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE {time} < ?2 ORDER BY {time} LIMIT ?1)"
        );
        while connection.prepare_cached(&old)?.execute(params![STEP, oldest])? > 0 {
            if Instant::now() >= end {
                return Ok(false);
            }
        }
    }
    for (table, time, owner) in TABLES {
        let rows: i64 =
            connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
        if rows > i64::from(limits.keep_rows) {
            // All rows are looked at for it: a tenth more goes, so that it is done seldom.
            let surplus = rows - i64::from(limits.keep_rows) * 9 / 10;
            let delete = format!(
                "DELETE FROM {table} WHERE id IN (SELECT id FROM (SELECT id, {time}, row_number() OVER
                (PARTITION BY {owner} ORDER BY {time} DESC, id DESC) AS rank FROM {table})
                ORDER BY rank DESC, {time}, id LIMIT ?1)"
            );
            connection.prepare_cached(&delete)?.execute([surplus])?;
        }
    }
    // Each row is one page given back.
    let mut statement = connection.prepare("PRAGMA incremental_vacuum(1000)")?;
    let mut pages = statement.query([])?;
    while pages.next()?.is_some() {}
    Ok(true)
}
