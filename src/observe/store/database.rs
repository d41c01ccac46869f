//! Owns the database as a file: who may have it, whether it can be used, and setting it aside when not.

use std::ffi::OsString;
use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use super::{FILE, schema};

/// How long a statement waits for other programs that have the database locked.
const BUSY: Duration = Duration::from_millis(500);
/// To what size the write-ahead log is cut back, in bytes.
const JOURNAL_BYTES: i64 = 4 << 20;
/// Only its owner reads and writes it: it tells who talks to whom.
const PERMISSIONS: u32 = 0o600;

/// An open database that is sound and of this program's version. The lock goes last.
pub(super) struct Database {
    pub(super) connection: Connection,
    path: PathBuf,
    inode: (u64, u64),
    _lock: Flock<fs::File>,
}

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{path} is broken ({why})")]
    Broken { path: String, why: String },
    #[error(
        "{path} is of version {found} and this seawall knows {known}: nothing is kept until it is moved away or seawall is updated"
    )]
    Newer { path: String, found: i64, known: i64 },
    #[error("another seawall keeps what it sees in {dir}: give each its own --state-dir")]
    Taken { dir: String },
    #[error("another program has {path} locked; changes wait for it")]
    Busy { path: String },
    #[error("there is no space left for {path}: free some; changes wait for it")]
    Full { path: String },
    #[error("{path} cannot be used: {why}")]
    Unusable { path: String, why: String },
}

impl Refusal {
    /// What an error of SQLite's means. `is_opening`: the directory was just seen to be writable.
    pub(super) fn of(path: &Path, error: &rusqlite::Error, is_opening: bool) -> Self {
        let (path, why) = (path.display().to_string(), error.to_string());
        // https://www.sqlite.org/rescode.html
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy { path },
            Some(ErrorCode::DiskFull) => Self::Full { path },
            // A short read is a file that was cut; a read-only one, in a directory that is not, has a broken header.
            Some(ErrorCode::SystemIoFailure)
                if matches!(
                    error.sqlite_error().map(|error| error.extended_code),
                    Some(ffi::SQLITE_IOERR_SHORT_READ)
                ) =>
            {
                Self::Broken { path, why }
            }
            Some(ErrorCode::ReadOnly) if is_opening => Self::Broken { path, why },
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::AuthorizationForStatementDenied
                | ErrorCode::OutOfMemory
                | ErrorCode::NoLargeFileSupport
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::OperationInterrupted
                | ErrorCode::OperationAborted,
            ) => Self::Unusable { path, why },
            _ => Self::Broken { path, why },
        }
    }

    fn io(path: &Path, error: &io::Error) -> Self {
        let path = path.display().to_string();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            _ => Self::Unusable { path, why: error.to_string() },
        }
    }
}

impl Database {
    /// Opens or begins the database of `dir`, which nobody else has then. `check` sees whether it can be read.
    pub(super) fn open<T>(
        dir: &Path,
        check: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<(Self, T), Refusal> {
        let lock = lock(dir)?;
        let path = dir.join(FILE);
        create(&path)?;
        let refusal = |error| Refusal::of(&path, &error, true);
        let mut connection = connect(&path).map_err(refusal)?;
        let found = schema::version(&connection).map_err(refusal)?;
        let known = schema::latest();
        if found > known {
            return Err(Refusal::Newer { path: path.display().to_string(), found, known });
        }
        let checked = prepare(&mut connection).and_then(|()| check(&mut connection));
        let checked = checked.map_err(refusal)?;
        let inode = inode(&path).map_err(|error| Refusal::io(&path, &error))?;
        Ok((Self { connection, path, inode, _lock: lock }, checked))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file still is where it was opened; SQLite goes on writing into one that was removed.
    pub(super) fn is_in_place(&self) -> bool {
        inode(&self.path).is_ok_and(|inode| inode == self.inode)
    }
}

/// Renames the database of `dir`, so that a new one can be begun. Returns its new name. Two are kept, the newer as `-2`.
pub(super) fn set_aside(dir: &Path) -> io::Result<PathBuf> {
    let _lock = lock(dir).map_err(io::Error::other)?;
    let path = dir.join(FILE);
    let [first, second] = [1, 2].map(|number| dir.join(format!("{FILE}.broken-{number}")));
    let aside = if !exists(&first) {
        first
    } else {
        if exists(&second) {
            for side in ["", "-wal"] {
                remove(&beside(&first, side))?;
                rename(&beside(&second, side), &beside(&first, side))?;
            }
        }
        second
    };
    // The write-ahead log belongs to it; the index of that is made anew by whoever opens it.
    rename(&path, &aside)?;
    rename(&beside(&path, "-wal"), &beside(&aside, "-wal"))?;
    remove(&beside(&path, "-shm"))?;
    Ok(aside)
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Removes a file that may be missing; of directories only empty ones, because what is in them is not ours.
fn remove(path: &Path) -> io::Result<()> {
    let is_directory = path.symlink_metadata().is_ok_and(|found| found.is_dir());
    let removed = if is_directory { fs::remove_dir(path) } else { fs::remove_file(path) };
    removed.or_else(|error| if exists(path) { Err(error) } else { Ok(()) })
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    if exists(from) { fs::rename(from, to) } else { Ok(()) }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    path.metadata().map(|found| (found.dev(), found.ino()))
}

/// A file of its own: to open and close the database beside SQLite would give up SQLite's own locks.
fn lock(dir: &Path) -> Result<Flock<fs::File>, Refusal> {
    let path = dir.join(format!("{FILE}.lock"));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(PERMISSIONS);
    let file = options.open(&path).map_err(|error| Refusal::io(&path, &error))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        nix::Error::EWOULDBLOCK => Refusal::Taken { dir: dir.display().to_string() },
        error => Refusal::io(&path, &error.into()),
    })
}

/// Sees to it that there is a file nobody else may read.
fn create(path: &Path) -> Result<(), Refusal> {
    let made = match path.metadata() {
        // Opening a pipe or a device would do something.
        Ok(found) if !found.is_file() => {
            let why = "it is no regular file".to_owned();
            return Err(Refusal::Broken { path: path.display().to_string(), why });
        }
        Ok(_) => fs::set_permissions(path, Permissions::from_mode(PERMISSIONS)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(PERMISSIONS).open(path).map(drop)
        }
        Err(error) => Err(error),
    };
    made.map_err(|error| Refusal::io(path, &error))
}

/// Opens it with little trust in what stands in it (<https://www.sqlite.org/security.html>).
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "auto_vacuum", "incremental")?;
    Ok(connection)
}

fn prepare(connection: &mut Connection) -> rusqlite::Result<()> {
    // Where there can be no write-ahead log (a network file system) it answers with what it does instead.
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update_and_check(None, "journal_size_limit", JOURNAL_BYTES, |_| Ok(()))?;
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        let broken = ffi::Error::new(ffi::SQLITE_CORRUPT);
        return Err(rusqlite::Error::SqliteFailure(broken, Some(found.replace('\n', " "))));
    }
    schema::migrate(connection, schema::MIGRATIONS)
}
