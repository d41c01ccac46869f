//! Owns Docker's daemon as a process: finding it, having it check a configuration, and having it read its own again.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Pid;

/// Where dockerd writes its pid, unless it is told otherwise.
const PID_FILE: &str = "/var/run/docker.pid";

/// The pid of the dockerd that listens on `socket` (`unix:///path`).
///
/// Whoever listens is asked of the kernel (`SO_PEERCRED`); where systemd listens in its stead, it is the one whose pid is in
/// `pid_file` (`pidfile` of `daemon.json`).
pub fn find(socket: &str, pid_file: Option<&str>) -> Option<u32> {
    let path = socket.strip_prefix("unix://")?;
    let listener = || {
        let stream = UnixStream::connect(path).ok()?;
        let credentials = getsockopt(&stream, PeerCredentials).ok()?;
        u32::try_from(credentials.pid()).ok()
    };
    let written =
        || std::fs::read_to_string(pid_file.unwrap_or(PID_FILE)).ok()?.trim().parse().ok();
    listener().filter(|pid| is_dockerd(*pid)).or_else(written).filter(|pid| is_dockerd(*pid))
}

fn is_dockerd(pid: u32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
    name.is_ok_and(|name| name.trim() == "dockerd")
}

/// Has dockerd read its configuration file again: the keys that can be changed while it runs, runtimes among them.
/// Containers run on. Source: "Reloadable features" of dockerd's reference.
pub fn reload(pid: u32) -> std::io::Result<()> {
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGHUP).map_err(std::io::Error::from)
}

/// What dockerd itself says of a configuration file; `Ok` too where there is none to ask, or it cannot check (before 23.0).
pub fn validate(file: &Path) -> Result<(), String> {
    let asked = Command::new("dockerd")
        .args(["--validate", "--config-file"])
        .arg(file)
        .stdin(Stdio::null())
        .output();
    let Ok(answer) = asked else { return Ok(()) };
    let said = String::from_utf8_lossy(&answer.stderr);
    if answer.status.success() || said.contains("unknown flag: --validate") {
        return Ok(());
    }
    Err(crate::input::Text::new(said.trim()).to_string())
}
