//! Owns reading an OCI runtime's command line, as far as it matters: the command, the container, and where the runtime keeps
//! its state and its log.
//!
//! Pure. What is not understood is none of our business: the real runtime says what is wrong with it.
//! Source: the man pages of `runc(8)` and `crun(1)`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Options before the command that take a value, of runc and crun.
const WITH_VALUE: [&str; 7] =
    ["root", "log", "log-format", "log-level", "criu", "rootless", "cgroup-manager"];

/// A runtime's command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invocation {
    /// The command, such as `create` or `start`.
    pub command: Option<String>,
    /// The last argument behind the command that is no option: for `start`, the container's id.
    pub id: Option<String>,
    /// `--root`: where the runtime keeps the state of its containers.
    pub root: Option<PathBuf>,
    /// `--log`: where it writes errors to.
    pub log: Option<PathBuf>,
    /// Whether it writes them as JSON (`--log-format json`).
    pub logs_json: bool,
    /// How many arguments stand before the command.
    pub globals: usize,
}

impl Invocation {
    /// Reads the arguments behind the program's name.
    pub fn read(arguments: &[OsString]) -> Self {
        let mut read = Self::default();
        let mut rest = arguments.iter().map(OsString::as_os_str);
        while let Some(argument) = rest.next() {
            let Some((name, inline)) = option(argument) else {
                read.command = argument.to_str().map(str::to_owned);
                break;
            };
            let takes_value = WITH_VALUE.contains(&name);
            let value = match inline {
                Some(value) => Some(OsString::from(value)),
                None if takes_value => rest.next().map(OsStr::to_owned),
                None => None,
            };
            read.globals = arguments.len() - rest.len();
            match (name, value) {
                ("root", Some(value)) => read.root = Some(value.into()),
                ("log", Some(value)) => read.log = Some(value.into()),
                ("log-format", Some(value)) => read.logs_json = value == "json",
                _ => {}
            }
        }
        let is_id = |argument: &&OsStr| option(argument).is_none();
        read.id = rest.rfind(is_id).and_then(OsStr::to_str).map(str::to_owned);
        read
    }

    /// The container that is about to be let run, if this is the call that does it.
    pub fn starts(&self) -> Option<&str> {
        let is_start = self.command.as_deref() == Some("start");
        // An id is one path component; whatever else stands there is refused by the runtime itself.
        let is_plain = |id: &&str| Path::new(id).file_name() == Some(OsStr::new(id));
        self.id.as_deref().filter(|_| is_start).filter(is_plain)
    }
}

/// `--name`, `-name`, `--name=value`: the name, and the value behind the sign.
fn option(argument: &OsStr) -> Option<(&str, Option<&str>)> {
    let text = argument.to_str()?;
    let name = text.strip_prefix("--").or_else(|| text.strip_prefix('-'))?;
    Some(match name.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (name, None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Invocation {
        Invocation::read(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn dockers_call_is_understood() {
        let read = read(
            "--root /var/run/docker/runtime-runc/moby --log /run/x/log.json --log-format json --systemd-cgroup start c0ffee",
        );
        assert_eq!(read.starts(), Some("c0ffee"));
        assert_eq!(read.root.as_deref(), Some(Path::new("/var/run/docker/runtime-runc/moby")));
        assert_eq!(read.log.as_deref(), Some(Path::new("/run/x/log.json")));
        assert!(read.logs_json);
        assert_eq!(read.globals, 7);
    }

    #[test]
    fn values_behind_equal_signs_and_options_behind_the_command_are_understood() {
        let read = read("--root=/run/crun --cgroup-manager systemd start --verbose abc");
        assert_eq!(
            (read.starts(), read.root.as_deref()),
            (Some("abc"), Some(Path::new("/run/crun")))
        );
    }

    #[test]
    fn only_a_start_of_one_container_waits() {
        for line in [
            "",
            "--version",
            "create --bundle /b abc",
            "--root /r state abc",
            "kill abc 9",
            "delete --force abc",
            "start",
            "start ..",
            "start a/b",
            "start /etc",
            "--root",
            "features",
        ] {
            assert_eq!(read(line).starts(), None, "{line}");
        }
    }

    #[test]
    fn a_value_that_is_called_start_is_no_command() {
        assert_eq!(read("--log start state x").starts(), None);
        assert_eq!(read("--root start start x").starts(), Some("x"));
    }

    #[test]
    fn bytes_that_are_no_text_are_left_to_the_runtime() {
        use std::os::unix::ffi::OsStringExt;
        let broken = OsString::from_vec(vec![0xff, 0xfe]);
        assert_eq!(Invocation::read(std::slice::from_ref(&broken)).starts(), None);
        assert_eq!(Invocation::read(&["start".into(), broken]).starts(), None);
    }
}
