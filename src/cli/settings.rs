//! Owns the daemon's settings while it runs: reading the configuration again, and the modes set at run time.

use std::path::PathBuf;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::{CommandError, load_files};
use crate::api::SettingsRequest;
use crate::config::modes::{self, ModeChange, ModeSetting};
use crate::input::Text;
use crate::observe::{EventKind, Query};
use crate::reconcile::Request;

/// Who reads the configuration, and writes modes.
pub(super) struct Keeper {
    pub(super) config: PathBuf,
    pub(super) state_dir: PathBuf,
    /// To the reconcile loop.
    pub(super) requests: mpsc::Sender<Request>,
    /// To who tells what happened.
    pub(super) queries: mpsc::Sender<Query>,
}

impl Keeper {
    /// Reads the configuration again on SIGHUP and when asked. A bad one leaves the last good one in force.
    pub(super) fn run(
        self,
        mut asked: mpsc::Receiver<SettingsRequest>,
    ) -> Result<impl Future<Output = ()>, CommandError> {
        let mut hangup: Signal = signal(SignalKind::hangup())?;
        Ok(async move {
            loop {
                // Both arms are cancel-safe.
                let request = tokio::select! {
                    Some(()) = hangup.recv() => SettingsRequest::Reload,
                    Some(request) = asked.recv() => request,
                    else => break,
                };
                match request {
                    SettingsRequest::Reload => {
                        if !self.reload().await {
                            break;
                        }
                    }
                    // Whoever asked may have left meanwhile.
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

    /// Returns whether the daemon still runs.
    async fn reload(&self) -> bool {
        let loaded = load_files(&self.config, &self.state_dir);
        if let Ok(loaded) = &loaded {
            // Nobody takes it only when the daemon stops.
            let _ = self.queries.send(Query::Sinks(loaded.config.events.sinks.clone())).await;
        }
        let loaded = loaded.map(Box::new).map_err(|problems| problems.to_string());
        self.requests.send(Request::Reload(loaded)).await.is_ok()
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
    async fn set_mode(&self, change: &ModeChange) -> Result<Vec<ModeSetting>, String> {
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
        if let Err(problems) = load_files(&self.config, &self.state_dir) {
            write(&before)?;
            return Err(format!(
                "the configuration has problems, so nothing was changed:\n{problems}"
            ));
        }
        if !self.reload().await {
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
