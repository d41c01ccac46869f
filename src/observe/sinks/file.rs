//! Owns the file that events are appended to, one JSON object a line, and its one older generation.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::outlet::Undelivered;
use crate::observe::record::Event;

/// The owner writes, its group reads.
const PERMISSIONS: u32 = 0o640;

/// The file.
#[derive(Debug)]
pub(super) struct EventFile {
    path: PathBuf,
    /// The older generation: `PATH.1`.
    older: PathBuf,
    most: u64,
    file: Option<File>,
}

impl EventFile {
    /// `most` is how large it grows, in bytes.
    pub(super) fn new(path: &Path, most: u64) -> Self {
        let mut older = path.as_os_str().to_owned();
        older.push(".1");
        Self { path: path.to_owned(), older: older.into(), most, file: None }
    }

    pub(super) fn deliver(&mut self, event: &Event) -> Result<(), Undelivered> {
        let mut line = serde_json::to_vec(event)
            .map_err(|error| Undelivered::Never(format!("no JSON can be made of one: {error}")))?;
        line.push(b'\n');
        self.append(&line).map_err(|error| {
            self.file = None;
            Undelivered::Later(format!("{}: {error}", self.path.display()))
        })
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let most = self.most;
        let mut file = self.open()?;
        let mut length = file.metadata()?.len();
        if length > 0 && length + line.len() as u64 > most {
            fs::rename(&self.path, &self.older)?;
            self.file = None;
            file = self.open()?;
            length = file.metadata()?.len();
        }
        let written = file.write_all(line);
        if written.is_err() {
            // No half line stays: a reader takes each for an object.
            drop(file.set_len(length));
        }
        written
    }

    /// The open file, if it still is the one at its path: logrotate and others move it away.
    fn open(&mut self) -> io::Result<&File> {
        let is_same = self.file.as_ref().is_some_and(|file| {
            let found = file.metadata().and_then(|open| Ok((open, fs::metadata(&self.path)?)));
            found.is_ok_and(|(open, there)| (open.dev(), open.ino()) == (there.dev(), there.ino()))
        });
        if !is_same {
            self.file = None;
        }
        if self.file.is_none() {
            let mut options = OpenOptions::new();
            // Opening a pipe would wait for its reader.
            options.append(true).create(true).mode(PERMISSIONS).custom_flags(libc::O_NONBLOCK);
            let file = options.open(&self.path)?;
            if !file.metadata()?.is_file() {
                return Err(io::Error::other("it is no regular file"));
            }
            self.file = Some(file);
        }
        self.file.as_ref().ok_or_else(|| io::Error::other("it is not open"))
    }
}
