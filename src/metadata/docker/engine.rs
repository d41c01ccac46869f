//! Owns asking Docker how it runs: what matters to who looks after its containers.

use super::{DockerError, DockerSource, ask};
use crate::input::Text;

/// How a Docker runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineFacts {
    /// Its version.
    pub version: Text,
    /// Whether containers outlive it.
    pub has_live_restore: bool,
    /// Whether it runs as a user, in namespaces of its own.
    pub is_rootless: bool,
}

impl DockerSource {
    /// Asks how it runs.
    pub async fn engine(&self) -> Result<EngineFacts, DockerError> {
        let docker = self.connect().await?;
        let info = docker.info().await.map_err(|source| ask("ask the settings", source))?;
        // Such as `name=seccomp,profile=default` and `name=rootless`.
        let options = info.security_options.unwrap_or_default();
        let is_rootless = |option: &String| option.split(',').any(|word| word == "name=rootless");
        Ok(EngineFacts {
            version: Text::new(&info.server_version.unwrap_or_default()),
            has_live_restore: info.live_restore_enabled.unwrap_or_default(),
            is_rootless: options.iter().any(is_rootless),
        })
    }
}
