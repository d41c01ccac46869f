//! Owns finding the first process of a container that a runtime has created and not started yet.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::arguments::Invocation;

/// Where runc and crun keep the state of containers when `--root` does not say, and what they call the pid there.
const STATES: [(&str, &str, &str); 2] =
    [("/run/runc", "state.json", "init_process_pid"), ("/run/crun", "status", "pid")];

/// The pid of the container's first process, in this process' pid namespace.
///
/// Read from the runtime's own state, which costs nothing; asked from the runtime (`RUNTIME state ID`) where that is not
/// understood. None: there is no such container, and the runtime itself will say so.
pub fn first_process(
    invocation: &Invocation,
    id: &str,
    runtime: &Path,
    arguments: &[OsString],
) -> Option<u32> {
    let recorded = STATES.iter().find_map(|(default_root, file, key)| {
        let root = invocation.root.clone().unwrap_or_else(|| PathBuf::from(default_root));
        number(&std::fs::read(root.join(id).join(file)).ok()?, key)
    });
    recorded.or_else(|| {
        let globals = arguments.get(..invocation.globals)?;
        let asked = Command::new(runtime)
            .args(globals)
            .args(["state", id])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        number(&asked.stdout, "pid")
    })
}

fn number(json: &[u8], key: &str) -> Option<u32> {
    let state: Value = serde_json::from_slice(json).ok()?;
    state[key].as_u64().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_is_read_where_runc_and_crun_keep_it() {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("state.json", r#"{"id":"c1","init_process_pid":4711,"init_process_start":1}"#),
            ("status", r#"{"pid":4712,"process-start-time":1}"#),
        ] {
            let folder = root.path().join(file.replace('.', "-"));
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join(file), text).unwrap();
        }
        let pid = |id: &str| {
            let invocation = Invocation { root: Some(root.path().into()), ..Invocation::default() };
            first_process(&invocation, id, Path::new("/bin/false"), &[])
        };
        assert_eq!(pid("state-json"), Some(4711));
        assert_eq!(pid("status"), Some(4712));
        assert_eq!(pid("none"), None);
    }

    #[test]
    fn a_runtime_with_another_state_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = folder.path().join("runtime");
        std::fs::write(
            &runtime,
            "#!/bin/sh\necho \"{\\\"pid\\\": 7, \\\"args\\\": \\\"$*\\\"}\"\n",
        )
        .unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&runtime, std::fs::Permissions::from_mode(0o755)).unwrap();
        let arguments = ["--root", "/nowhere", "start", "x"].map(OsString::from);
        let invocation = Invocation::read(&arguments);
        assert_eq!(first_process(&invocation, "x", &runtime, &arguments), Some(7));
    }
}
