//! Owns changing other programs' configuration files: a copy of what was there first, then the new text in its place at once.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Why a file was not changed. It is as it was.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}")]
pub struct FileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The copy of a file as it was before seawall changed it first.
pub fn backup_of(path: &Path) -> PathBuf {
    with_suffix(path, ".before-seawall")
}

/// A file's text; none when there is no such file.
pub fn read(path: &Path) -> Result<Option<String>, FileError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError { action: "read", path: path.to_path_buf(), source }),
    }
}

/// Keeps a copy of the file as it is now, unless there is one already.
pub fn back_up(path: &Path) -> Result<(), FileError> {
    let backup = backup_of(path);
    if backup.exists() || !path.exists() {
        return Ok(());
    }
    let copied = std::fs::copy(path, &backup).map(drop);
    copied.map_err(|source| FileError { action: "write", path: backup, source })
}

/// Puts `text` in the place of the file, with its owner and rights. A reader sees the old text or the new one.
pub fn replace(path: &Path, text: &str) -> Result<(), FileError> {
    let failed = |source| FileError { action: "write", path: path.to_path_buf(), source };
    // Behind a link stands the file that is meant.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let new = with_suffix(&target, ".seawall-new");
    let write = || {
        if let Some(folder) = target.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&new, text)?;
        let old = std::fs::metadata(&target);
        let mode = old.as_ref().map_or(0o644, |old| old.permissions().mode());
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode))?;
        if let Ok(old) = old {
            chown(&new, Some(old.uid()), Some(old.gid()))?;
        }
        std::fs::File::open(&new)?.sync_all()?;
        std::fs::rename(&new, &target)
    };
    let written = write();
    if written.is_err() {
        // It may not have been made at all.
        let _ = std::fs::remove_file(&new);
    }
    written.map_err(failed)
}

/// Removes a file; one that is not there is no error.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(FileError { action: "remove", path: path.to_path_buf(), source })
        }
        _ => Ok(()),
    }
}

/// A name beside the file.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_with_its_rights_and_its_first_text_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("daemon.json"), folder.path().join("link"));
        std::fs::write(&file, "first").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for text in ["second", "third"] {
            back_up(&link).unwrap();
            replace(&link, text).unwrap();
        }
        assert_eq!(read(&file).unwrap().as_deref(), Some("third"));
        assert_eq!(read(&backup_of(&link)).unwrap().as_deref(), Some("first"));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "nothing else is left");
    }

    #[test]
    fn what_is_not_there_has_no_text_and_no_copy() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("etc/docker/daemon.json");
        assert_eq!(read(&file).unwrap(), None);
        back_up(&file).unwrap();
        replace(&file, "{}").unwrap();
        assert_eq!(read(&file).unwrap().as_deref(), Some("{}"));
        assert!(!backup_of(&file).exists());
        remove(&file).unwrap();
        remove(&file).unwrap();
    }
}
