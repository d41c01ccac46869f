//! Having Docker read its configuration again, and asking it what it made of that.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::system;
use crate::cli::{CommandError, output};
use crate::metadata::docker::{DockerSource, Runtimes};
use crate::runtime::dockerd;

/// How long Docker may take to read its configuration again.
const RELOAD: Duration = Duration::from_secs(10);

/// What came of it.
pub(super) struct Reloaded {
    /// Whether Docker told that it read the file.
    pub(super) has_told: bool,
    /// What it has now.
    pub(super) now: Runtimes,
}

/// Has Docker read its configuration, which is `text`. None: it does not run.
pub(super) async fn reload(
    docker: &DockerSource,
    text: &str,
) -> Result<Option<Reloaded>, CommandError> {
    let settings: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let Some(pid) = dockerd::find(docker.host(), settings["pidfile"].as_str()) else {
        return Ok(None);
    };
    output::progress("Docker reads its configuration again …");
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    dockerd::reload(pid)?;
    let has_told = docker.has_reloaded(before, RELOAD).await.map_err(system)?;
    let now = docker.runtimes().await.map_err(system)?;
    Ok(Some(Reloaded { has_told, now }))
}
