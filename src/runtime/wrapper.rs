//! Owns the wrapper's one decision: at `start` the daemon is asked, and the real runtime takes over when it agrees, or after
//! the configured fallback.

use std::ffi::{OsStr, OsString};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::arguments::Invocation;
use super::place::Place;
use super::task;
use crate::api::Client;
use crate::api::client::ClientError;
use crate::api::start::StartRequest;
use crate::compile::guard::Terms;
use crate::config::{Config, Fallback, Files, Loaded, RuntimeSettings, STATE_DIR};
use crate::input::time::utc;
use crate::metadata::WorkloadId;
use crate::model::Catalogue;
use crate::nft::{ApplyError, Netns, NetnsError};
use crate::policy::Mode;
use crate::reconcile::{Failure, Kernel, Target, Wanted};

/// How long a daemon that is not there is waited for: one that restarts is back by then, one that was stopped is not missed.
const ABSENCE: Duration = Duration::from_secs(1);
/// How often a daemon that is not there is looked for. A socket nobody listens on yet has no event to wait for.
const LOOK: Duration = Duration::from_millis(20);

/// A call of the wrapper.
#[derive(Debug)]
pub struct Wrapper {
    place: Place,
    arguments: Vec<OsString>,
    invocation: Invocation,
}

/// Why nothing stands between a container and its start.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(
        "seawall: {0}; this container is not started, because seawall.toml says `runtime.fallback = \"refuse\"`"
    )]
    Configured(ClientError),
    #[error(
        "seawall: {asked}, and the container could not be closed either: {failed}; it is not started. `systemctl restart seawall` helps if the daemon hangs"
    )]
    NotClosed { asked: ClientError, failed: String },
}

/// The wrapper called as `program` by an engine.
pub fn called(program: &OsStr, arguments: Vec<OsString>) -> ExitCode {
    match Place::read(&Place::locate(program)) {
        Ok(place) => Wrapper::new(place, arguments).run(),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            eprintln!("seawall: {error}: {}", cause.unwrap_or_default());
            ExitCode::from(127)
        }
    }
}

impl Wrapper {
    /// The call `arguments` (without the program's name) of the wrapper at `place`.
    pub fn new(place: Place, arguments: Vec<OsString>) -> Self {
        let invocation = Invocation::read(&arguments);
        Self { place, arguments, invocation }
    }

    /// Waits if this call lets a container run, then becomes the real runtime. Returns only when that is not to be, or fails.
    pub fn run(&self) -> ExitCode {
        if let Some(id) = self.invocation.starts()
            && let Err(refusal) = self.gate(id)
        {
            self.tell("error", &refusal.to_string());
            return ExitCode::FAILURE;
        }
        let error = Command::new(&self.place.runtime).args(&self.arguments).exec();
        let runtime = self.place.runtime.display();
        self.tell("error", &format!("seawall: cannot run {runtime}: {error}; is it installed?"));
        ExitCode::from(127)
    }

    fn gate(&self, id: &str) -> Result<(), Refusal> {
        let runtime = &self.place.runtime;
        let found = task::first_process(&self.invocation, id, runtime, &self.arguments);
        // No such container: the runtime says so.
        let Some(pid) = found else { return Ok(()) };
        if matches!(Netns::of_pid(pid), Err(NetnsError::Host(_) | NetnsError::Gone(_))) {
            return Ok(());
        }
        let settings = self.settings();
        match self.ask(id, pid, settings.wait) {
            Ok(()) => Ok(()),
            Err(error) => self.fall_back(settings.fallback, id, pid, error),
        }
    }

    /// The settings, from the configuration file alone. A broken one has been refused by the daemon too; the defaults are safe.
    fn settings(&self) -> RuntimeSettings {
        let files = Files::read(&self.place.config);
        let config = files.config.as_ref().and_then(|file| Config::parse(file.as_file()).ok());
        config.map(|config| config.runtime).unwrap_or_default()
    }

    /// Asks until the daemon agrees, for as long as `wait`.
    fn ask(&self, id: &str, pid: u32, wait: Duration) -> Result<(), ClientError> {
        let began = Instant::now();
        let client = Client::new(&self.place.socket);
        let request = StartRequest { id: id.to_owned(), pid };
        let unavailable = |_| ClientError::NotRunning(self.place.socket.clone());
        let executor = tokio::runtime::Builder::new_current_thread().enable_all().build();
        executor.map_err(unavailable)?.block_on(async {
            let mut was_there = false;
            loop {
                let left = wait.saturating_sub(began.elapsed());
                let error = match client.start(&request, left).await {
                    Ok(_) => return Ok(()),
                    Err(error) => error,
                };
                // It went away while it was asked: it is being restarted, and knows more when it is back.
                was_there |= matches!(error, ClientError::Http(_) | ClientError::Stopping);
                let limit = if was_there { wait } else { wait.min(ABSENCE) };
                let may_return = was_there || matches!(error, ClientError::NotRunning(_));
                if !may_return || began.elapsed() + LOOK >= limit {
                    return Err(error);
                }
                tokio::time::sleep(LOOK).await;
            }
        })
    }

    fn fall_back(
        &self,
        fallback: Fallback,
        id: &str,
        pid: u32,
        error: ClientError,
    ) -> Result<(), Refusal> {
        let state_dir = self.place.state_dir.as_deref().unwrap_or(Path::new(STATE_DIR));
        let files = Files::read(&self.place.config).with_modes(state_dir);
        let loaded = files.load(Catalogue::with_files);
        let short: String = id.chars().take(12).collect();
        if loaded.as_ref().is_ok_and(|loaded| !enforces(loaded)) {
            let message = format!("seawall: {error}; container {short} starts unobserved");
            self.tell("warning", &message);
            return Ok(());
        }
        match fallback {
            Fallback::Refuse => Err(Refusal::Configured(error)),
            Fallback::Allow => {
                let message = format!(
                    "seawall: {error}; container {short} starts WITHOUT ANY POLICY, because seawall.toml says `runtime.fallback = \"allow\"`"
                );
                self.tell("warning", &message);
                Ok(())
            }
            Fallback::DenyAll => {
                let config = loaded.map(|loaded| loaded.config).unwrap_or_default();
                match close(id, pid, &config) {
                    Ok(()) => {
                        let message = format!(
                            "seawall: {error}; container {short} starts with everything denied until the daemon is back"
                        );
                        self.tell("warning", &message);
                        Ok(())
                    }
                    Err(failure) if failure.is_gone() => Ok(()),
                    Err(failure) => {
                        Err(Refusal::NotClosed { asked: error, failed: failure.chain() })
                    }
                }
            }
        }
    }

    /// Says something where it is looked for: in the runtime's own log, which the engine shows, on stderr, and in the system's log.
    fn tell(&self, level: &str, message: &str) {
        eprintln!("{message}");
        if let Some(path) = &self.invocation.log {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let time = utc(now.as_secs());
            let line = match self.invocation.logs_json {
                true => {
                    serde_json::json!({ "level": level, "msg": message, "time": time }).to_string()
                }
                false => format!("time=\"{time}\" level={level} msg={message:?}"),
            };
            append(path, &line);
        }
        // RFC 3164: facility daemon (3), severity error (3) or warning (4).
        let priority = 3 * 8 + if level == "error" { 3 } else { 4 };
        if let Ok(system_log) = UnixDatagram::unbound() {
            let line = format!("<{priority}>{message}");
            // Hosts without a system log have the runtime's.
            let _ = system_log.set_nonblocking(true);
            let _ = system_log.send_to(line.as_bytes(), "/dev/log");
        }
    }
}

fn append(path: &Path, line: &str) {
    use std::io::Write;
    let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
    // A log that cannot be written is the engine's trouble; the message went to stderr too.
    let _ = file.and_then(|mut file| writeln!(file, "{line}"));
}

/// Whether anything the operator wrote enforces: where nothing does, a daemon that is away must not deny anything either.
fn enforces(loaded: &Loaded) -> bool {
    loaded.config.settings.mode == Mode::Enforce
        || loaded.operator.modes.iter().any(|rule| rule.mode == Mode::Enforce)
}

/// Closes a container's netns, by the same code as the daemon.
fn close(id: &str, pid: u32, config: &Config) -> Result<(), Failure> {
    let kernel = Kernel::start().map_err(|source| NetnsError::Io {
        action: "start the thread that enters",
        path: format!("/proc/{pid}/ns/net").into(),
        source,
    })?;
    let mut target = Target {
        owner: WorkloadId::new(id),
        pid,
        process: None,
        wanted: Wanted {
            table: Some(crate::compile::closed(config.deny).into()),
            guard: Terms::closed(),
        },
        is_fresh: true,
        known: None,
        socket: None,
        watching: None,
    };
    match kernel.apply(&mut target) {
        // The daemon has been here and hangs: its policy is in force, and nothing of the container runs that could own it.
        Err(Failure::Apply(ApplyError::Owned(_))) => Ok(()),
        result => result.map(drop),
    }
}
