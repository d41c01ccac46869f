//! Owns finding out whether containers that run were started through a wrapper: who looks after them calls it by its path, to
//! stop them and to run something in them, for as long as they live.
//!
//! containerd's shims keep what they were told in `options.json` of the container's bundle (`containerd/runtime/v2`); Podman's
//! conmon has it on its command line (`conmon --runtime`).

use std::fs;
use std::path::{Path, PathBuf};

use super::files::{self, FileError, with_suffix};

/// Where containerd keeps bundles: the system's own, and the one dockerd starts.
const STATES: [&str; 2] = ["/run/containerd", "/run/docker/containerd/daemon"];
/// Made anew whenever containerd starts.
const CONTAINERD: &str = "/run/containerd/containerd.sock";

/// Whether somebody on this host still calls `wrapper`.
pub fn is_needed(wrapper: &Path) -> bool {
    is_held(wrapper, &STATES.map(Path::new), Path::new("/proc"))
        || is_awaited(wrapper, Path::new(CONTAINERD))
}

/// Notes that containerd, which reads its configuration only when it starts, calls `wrapper` until it is started again.
pub fn await_restart(wrapper: &Path) -> Result<(), FileError> {
    files::replace(&note(wrapper), "containerd calls this until it is started again\n")
}

/// Takes that note away.
pub fn forget(wrapper: &Path) -> Result<(), FileError> {
    files::remove(&note(wrapper))
}

fn note(wrapper: &Path) -> PathBuf {
    with_suffix(wrapper, ".containerd")
}

/// Whether containerd has not been started since the note was written.
fn is_awaited(wrapper: &Path, socket: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    time(&note(wrapper)).is_some_and(|noted| time(socket).is_some_and(|started| started <= noted))
}

/// Whether a running container needs `wrapper`. `states` are containerd's state folders, `proc` is where processes are shown.
fn is_held(wrapper: &Path, states: &[&Path], proc: &Path) -> bool {
    let wrapper = wrapper.as_os_str().as_encoded_bytes();
    let tasks = states.iter().map(|state| state.join("io.containerd.runtime.v2.task"));
    let bundles = tasks.flat_map(|tasks| below(&tasks)).flat_map(|namespace| below(&namespace));
    let is_named = |file: PathBuf| {
        fs::read(file).is_ok_and(|text| text.windows(wrapper.len()).any(|part| part == wrapper))
    };
    let mut options = bundles.map(|bundle| bundle.join("options.json"));
    let is_conmon = |process: &PathBuf| {
        fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim() == "conmon")
    };
    let mut conmons =
        below(proc).into_iter().filter(is_conmon).map(|process| process.join("cmdline"));
    options.any(is_named) || conmons.any(is_named)
}

fn below(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn shims_and_conmons_hold_the_wrapper_they_were_started_with() {
        let folder = tempfile::tempdir().unwrap();
        let (state, proc) = (folder.path().join("state"), folder.path().join("proc"));
        let wrapper = Path::new("/var/lib/seawall/runtime/seawall-runc");
        let is_held = || is_held(wrapper, &[&state], &proc);
        let bundle = state.join("io.containerd.runtime.v2.task/moby/0123");
        fs::create_dir_all(&bundle).unwrap();
        fs::create_dir_all(proc.join("7")).unwrap();
        assert!(!is_held());
        fs::write(bundle.join("options.json"), r#"{"binary_name":"runc"}"#).unwrap();
        fs::write(proc.join("7/comm"), "less\n").unwrap();
        fs::write(proc.join("7/cmdline"), "less\0/var/lib/seawall/runtime/seawall-runc").unwrap();
        assert!(!is_held());
        let held = format!(r#"{{"binary_name":"{}"}}"#, wrapper.display());
        fs::write(bundle.join("options.json"), held).unwrap();
        assert!(is_held());
        fs::remove_file(bundle.join("options.json")).unwrap();
        fs::write(proc.join("7/comm"), "conmon\n").unwrap();
        assert!(is_held());
    }

    #[test]
    fn containerd_is_waited_for_until_it_was_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let (wrapper, socket) = (folder.path().join("seawall-runc"), folder.path().join("socket"));
        let started = |after: u64| {
            let file = fs::File::create(&socket).unwrap();
            let noted = fs::metadata(note(&wrapper)).unwrap().modified().unwrap();
            let time = noted + Duration::from_secs(after) - Duration::from_secs(60);
            file.set_modified(time).unwrap();
        };
        await_restart(&wrapper).unwrap();
        assert!(!is_awaited(&wrapper, &socket), "there is no containerd");
        started(0);
        assert!(is_awaited(&wrapper, &socket));
        started(120);
        assert!(!is_awaited(&wrapper, &socket));
        started(0);
        forget(&wrapper).unwrap();
        assert!(!is_awaited(&wrapper, &socket));
    }
}
