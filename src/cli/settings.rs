//! Owns the daemon's settings while it runs: reading the configuration again, and the modes set at run time.

use std::path::PathBuf;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::{CommandError, load_files};
use crate::api::SettingsRequest;
use crate::config::modes::{self, ModeChange, ModeSetting};
use crate::config::{Config, Loaded};
use crate::input::Text;
use crate::observe::{EventKind, Query};
use crate::reconcile::Request;

/// Why a configuration is not in force.
enum Untaken {
    /// It is refused as a whole; the last good one stays.
    Refused(String),
    /// Nobody takes it any more.
    Stopping,
}

/// Who reads the configuration, and writes modes.
pub(super) struct Keeper {
    pub(super) config: PathBuf,
    pub(super) state_dir: PathBuf,
    /// What the daemon started with: some of it is read at start only.
    pub(super) started_with: Config,
    /// Whether there was a configuration file when it was read last.
    pub(super) had_file: bool,
    /// To the reconcile loop.
    pub(super) requests: mpsc::Sender<Request>,
    /// To who tells what happened.
    pub(super) queries: mpsc::Sender<Query>,
}

impl Keeper {
    /// Reads the configuration again on SIGHUP and when asked. A bad one leaves the last good one in force.
    pub(super) fn run(
        mut self,
        mut asked: mpsc::Receiver<SettingsRequest>,
    ) -> Result<impl Future<Output = ()>, CommandError> {
        let mut hangup: Signal = signal(SignalKind::hangup())?;
        Ok(async move {
            loop {
                // Both arms are cancel-safe.
                let request = tokio::select! {
                    Some(()) = hangup.recv() => {
                        // The log and the status tell of a refusal; a signal has no answer.
                        if matches!(self.reload().await, Err(Untaken::Stopping)) {
                            break;
                        }
                        continue;
                    }
                    Some(request) = asked.recv() => request,
                    else => break,
                };
                match request {
                    // Whoever asked may have left meanwhile. Without an answer it is told that the daemon is stopping.
                    SettingsRequest::Reload(reply) => match self.reload().await {
                        Ok(()) => drop(reply.send(Ok(()))),
                        Err(Untaken::Refused(why)) => drop(reply.send(Err(why))),
                        Err(Untaken::Stopping) => break,
                    },
                    SettingsRequest::Modes(reply) => {
                        drop(reply.send(self.modes().unwrap_or_default()));
                    }
                    SettingsRequest::SetMode(change, reply) => {
                        drop(reply.send(self.set_mode(&change).await));
                    }
                }
            }
        })
    }

    /// Reads everything, and has it taken into force whole or refused whole.
    async fn reload(&mut self) -> Result<(), Untaken> {
        match self.read() {
            Ok(loaded) => self.obey(loaded).await,
            Err(why) => {
                let refused = Request::Reload(Err(why.clone()));
                self.requests.send(refused).await.map_err(|_| Untaken::Stopping)?;
                Err(Untaken::Refused(why))
            }
        }
    }

    /// What the files say now, if it can be obeyed whole; else why not.
    fn read(&self) -> Result<Loaded, String> {
        // Without this, a file that is away for a moment would mean that nothing is enforced (security model 2).
        if self.had_file && !self.config.exists() {
            return Err(format!(
                "{} is gone; put it back, or restart the daemon to run with the defaults",
                self.config.display()
            ));
        }
        let loaded = load_files(&self.config, &self.state_dir).map_err(|all| all.to_string())?;
        let keys = self.started_with.needs_restart(&loaded.config);
        if keys.is_empty() {
            return Ok(loaded);
        }
        let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
        Err(format!(
            "{} changed, which the daemon reads at start only; restart it (systemctl restart seawall: no verdict \
             changes), or take the change back",
            keys.join(", ")
        ))
    }

    async fn obey(&mut self, loaded: Loaded) -> Result<(), Untaken> {
        self.had_file = self.config.exists();
        // Nobody takes it only when the daemon stops.
        let _ = self.queries.send(Query::Sinks(loaded.config.events.sinks.clone())).await;
        let taken = Request::Reload(Ok(Box::new(loaded)));
        self.requests.send(taken).await.map_err(|_| Untaken::Stopping)
    }

    /// What cannot be read is not taken for nothing: the next change would overwrite it.
    fn modes(&self) -> Result<Vec<ModeSetting>, String> {
        let path = modes::path(&self.state_dir);
        match std::fs::read_to_string(&path) {
            Ok(text) => modes::read(&text).map_err(|error| format!("{}: {error}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        }
    }

    /// A mode is written only when everything is good with it, and then taken into force.
    async fn set_mode(&mut self, change: &ModeChange) -> Result<Vec<ModeSetting>, String> {
        let path = modes::path(&self.state_dir);
        let before = self.modes()?;
        if change.mode.is_none() && !before.iter().any(|one| one.select == change.select) {
            return Err(format!("no mode was set for `{}`", Text::new(&change.select)));
        }
        let after = modes::changed(before.clone(), change);
        let write = |modes: &[ModeSetting]| {
            let text = modes::text(modes, &path)?;
            modes::write(&path, &text)
                .map_err(|error| format!("cannot write {}: {error}", path.display()))
        };
        write(&after)?;
        let loaded = match self.read() {
            Ok(loaded) => loaded,
            Err(why) => {
                write(&before)?;
                return Err(format!(
                    "the configuration cannot be obeyed, so nothing was changed:\n{why}"
                ));
            }
        };
        if self.obey(loaded).await.is_err() {
            return Err("the daemon is stopping; the mode is set for its next start".to_owned());
        }
        let mode = change.mode.as_deref().unwrap_or("what the files say");
        let message = Text::new(&format!("the mode of `{}` is {mode}", change.select));
        tracing::warn!("{message}");
        // It is told to who follows; nobody does only when the daemon stops.
        let _ = self.queries.send(Query::Note(EventKind::Mode, None, message)).await;
        Ok(after)
    }
}
