//! Owns where the wrapper lies on disk: a link to seawall's program, called `seawall-RUNTIME`, and beside it a file that says
//! which runtime is behind it and which daemon to ask.
//!
//! Engines call a runtime by path and give it their own arguments only, so whatever the wrapper must know stands in that file.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files::with_suffix;

/// What the wrapper's name begins with.
const PREFIX: &str = "seawall-";

/// One installed wrapper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The real runtime's path.
    pub runtime: PathBuf,
    /// seawall's configuration file.
    pub config: PathBuf,
    /// The daemon's control socket.
    pub socket: PathBuf,
    /// The daemon's state folder; none is where it is unless said otherwise. Modes set at run time stand there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub state_dir: Option<PathBuf>,
    /// The engine's default runtime before the wrapper became that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub former_default: Option<String>,
}

/// Why the wrapper does not know what to do.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The file beside the wrapper cannot be read.
    #[error("cannot read {path}; run `seawall runtime install` again")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not understood.
    #[error("{path} is damaged; run `seawall runtime install` again")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: toml::de::Error,
    },
    /// The wrapper cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Place {
    /// Whether a program called by this name is the wrapper, not the command line.
    pub fn is_wrapper(program: &OsStr) -> bool {
        let name = Path::new(program).file_name().and_then(OsStr::to_str);
        name.is_some_and(|name| name.len() > PREFIX.len() && name.starts_with(PREFIX))
    }

    /// The path of the wrapper that was called as `program`: found as a shell would find it.
    pub fn locate(program: &OsStr) -> PathBuf {
        let called = Path::new(program);
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let found = || {
            let mut candidates = std::env::split_paths(&folders).map(|folder| folder.join(called));
            candidates.find(|candidate| candidate.exists())
        };
        // A name with a folder in it is a path already.
        let is_name = called.components().count() == 1;
        is_name.then(found).flatten().unwrap_or_else(|| called.to_path_buf())
    }

    /// The wrapper of a runtime in a folder.
    pub fn wrapper(folder: &Path, runtime: &Path) -> PathBuf {
        let name = runtime.file_name().and_then(OsStr::to_str).unwrap_or("runtime");
        folder.join(format!("{PREFIX}{name}"))
    }

    /// The wrappers installed in a folder.
    pub fn all_in(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let is_link = |path: &PathBuf| path.is_symlink() && Self::is_wrapper(path.as_os_str());
        let mut found: Vec<_> = entries.map(|entry| entry.path()).filter(is_link).collect();
        found.sort();
        found
    }

    /// Reads the file beside a wrapper.
    pub fn read(wrapper: &Path) -> Result<Self, PlaceError> {
        let path = beside(wrapper);
        let text = std::fs::read_to_string(&path)
            .map_err(|source| PlaceError::Read { path: path.clone(), source })?;
        toml::from_str(&text).map_err(|source| PlaceError::Parse { path, source })
    }

    /// Writes wrapper and file into `folder`; `program` is seawall's own. Returns the wrapper's path.
    pub fn write(&self, folder: &Path, program: &Path) -> Result<PathBuf, PlaceError> {
        let wrapper = Self::wrapper(folder, &self.runtime);
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| PlaceError::Write { path, source }
        };
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
        let file = beside(&wrapper);
        // The file first: a wrapper that is there can always read it.
        let body = toml::to_string(self)
            .map_err(|error| failed(&file)(io::Error::other(error.to_string())))?;
        let wrapped = wrapper.display();
        let text = format!(
            "# Written by `seawall runtime install`: what {wrapped} stands before.\n{body}"
        );
        replace(&file, |path| std::fs::write(path, &text)).map_err(failed(&file))?;
        replace(&wrapper, |path| std::os::unix::fs::symlink(program, path))
            .map_err(failed(&wrapper))?;
        Ok(wrapper)
    }

    /// Removes a wrapper and its file; what is not there is no error.
    pub fn remove(wrapper: &Path) -> Result<(), PlaceError> {
        for path in [wrapper.to_path_buf(), beside(wrapper)] {
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(PlaceError::Write { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn beside(wrapper: &Path) -> PathBuf {
    with_suffix(wrapper, ".toml")
}

/// Makes a file under another name and puts it in place at once.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let new = with_suffix(path, ".new");
    let _ = std::fs::remove_file(&new);
    make(&new)?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_called_after_a_runtime_are_wrappers() {
        for (name, expected) in [
            ("/var/lib/seawall/runtime/seawall-runc", true),
            ("seawall-crun", true),
            ("/usr/bin/seawall", false),
            ("seawall-", false),
            ("runc", false),
        ] {
            assert_eq!(Place::is_wrapper(OsStr::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place {
            runtime: "/usr/bin/runc".into(),
            state_dir: None,
            config: "/etc/sea \"wall\"/seawall.toml".into(),
            socket: "/run/s.sock".into(),
            former_default: Some("kata".into()),
        };
        let wrapper = place.write(folder.path(), Path::new("/usr/bin/seawall")).unwrap();
        assert_eq!(wrapper, folder.path().join("seawall-runc"));
        assert_eq!(std::fs::read_link(&wrapper).unwrap(), Path::new("/usr/bin/seawall"));
        assert_eq!(Place::read(&wrapper).unwrap(), place);
        // Again, over what is there.
        place.write(folder.path(), Path::new("/usr/bin/seawall")).unwrap();
        Place::remove(&wrapper).unwrap();
        Place::remove(&wrapper).unwrap();
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
        assert!(matches!(Place::read(&wrapper), Err(PlaceError::Read { .. })));
    }
}
