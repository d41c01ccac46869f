//! Owns the form of `observed.sqlite`: its migrations, each one version. `docs/operating.md` describes it for people.

use rusqlite::{Connection, TransactionBehavior};

/// What leads from each version to the next. What is released is never changed.
pub(super) const MIGRATIONS: &[&str] = &[
    // 1: the tables.
    "CREATE TABLE flows (
        id          INTEGER PRIMARY KEY,
        key         TEXT NOT NULL UNIQUE,
        first_us    INTEGER NOT NULL,
        last_us     INTEGER NOT NULL,
        connections INTEGER NOT NULL,
        unanswered  INTEGER NOT NULL,
        packets_out INTEGER NOT NULL,
        bytes_out   INTEGER NOT NULL,
        packets_in  INTEGER NOT NULL,
        bytes_in    INTEGER NOT NULL
    );
    CREATE TABLE denials (
        id       INTEGER PRIMARY KEY,
        key      TEXT NOT NULL UNIQUE,
        first_us INTEGER NOT NULL,
        last_us  INTEGER NOT NULL,
        logged   INTEGER NOT NULL,
        is_reply INTEGER NOT NULL,
        uid      INTEGER,
        process  TEXT
    );
    CREATE TABLE events (
        id       INTEGER PRIMARY KEY,
        sequence INTEGER NOT NULL,
        at_us    INTEGER NOT NULL,
        kind     TEXT NOT NULL,
        workload TEXT,
        message  TEXT NOT NULL,
        denial   TEXT,
        needed   TEXT,
        UNIQUE (sequence, at_us)
    );",
    // 2: what is old is found without reading everything.
    "CREATE INDEX flows_by_time ON flows (last_us);
    CREATE INDEX denials_by_time ON denials (last_us);
    CREATE INDEX events_by_time ON events (at_us);",
];

/// The version this program writes.
pub(super) fn latest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// The version of a database; 0 is an empty one.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Brings a database to the version after `migrations`, each step whole or not at all.
pub(super) fn migrate(connection: &mut Connection, migrations: &[&str]) -> rusqlite::Result<()> {
    for (number, migration) in (1_i64..).zip(migrations) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if version(&transaction)? < number {
            transaction.execute_batch(migration)?;
            transaction.pragma_update(None, "user_version", number)?;
        }
        transaction.commit()?;
    }
    Ok(())
}
