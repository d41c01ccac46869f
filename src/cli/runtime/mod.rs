//! `seawall runtime`: puts the OCI runtime wrapper before an engine's runtime, takes it away, and says whether it is there.

mod install;
mod leave;
mod reload;
pub(super) mod status;
mod uninstall;

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::{Args, Subcommand, ValueEnum};

use super::{CommandError, Exit, Global, facts};
use crate::config::Loaded;
use crate::metadata::docker::DockerSource;
use crate::runtime::{containerd, docker, podman};

/// The name engines know the wrapper by, unless told otherwise.
const NAME: &str = "seawall";

#[derive(Debug, Subcommand)]
pub(super) enum RuntimeCommand {
    /// Make an engine call seawall before a container's first instruction
    #[command(after_help = "\
Examples:
  seawall runtime install                          Docker, for all containers created from now on
  seawall runtime install --no-default             only for `docker run --runtime seawall`
  seawall runtime install --runtime /usr/bin/crun  before crun instead of runc
  seawall runtime install --engine podman")]
    Install(install::InstallArgs),
    /// Undo `install`; the engine calls its runtime itself again
    Uninstall(uninstall::UninstallArgs),
    /// Say whether containers wait for their policy; exit code 1 when not all do
    Status(EngineArgs),
}

/// Which engine, and where its configuration is.
#[derive(Args, Clone, Debug)]
pub(super) struct EngineArgs {
    /// Which engine.
    #[arg(long, value_enum, default_value_t = Engine::Docker)]
    engine: Engine,
    /// Docker's configuration file.
    #[arg(long, value_name = "FILE", default_value = docker::CONFIG)]
    docker_config: PathBuf,
    /// containerd's configuration file, for `--engine containerd`.
    #[arg(long, value_name = "FILE", default_value = containerd::CONFIG)]
    containerd_config: PathBuf,
    /// The file to write for Podman, for `--engine podman`.
    #[arg(long, value_name = "FILE", default_value = podman::CONFIG)]
    podman_config: PathBuf,
    /// The name the engine knows the wrapper by.
    #[arg(long, default_value = NAME, value_parser = name)]
    name: String,
}

/// Who runs containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// Docker Engine
    Docker,
    /// containerd's own containers: Kubernetes' pods
    Containerd,
    /// Podman
    Podman,
}

impl EngineArgs {
    /// Docker, with this configuration file.
    pub(super) fn docker(config: &Path) -> Self {
        Self {
            engine: Engine::Docker,
            docker_config: config.to_path_buf(),
            containerd_config: containerd::CONFIG.into(),
            podman_config: podman::CONFIG.into(),
            name: NAME.to_owned(),
        }
    }

    /// containerd's own containers, with the configuration file it has unless told otherwise.
    pub(super) fn containerd() -> Self {
        Self { engine: Engine::Containerd, ..Self::docker(docker::CONFIG.as_ref()) }
    }

    /// The engine's file.
    fn file(&self) -> &Path {
        match self.engine {
            Engine::Docker => &self.docker_config,
            Engine::Containerd => &self.containerd_config,
            Engine::Podman => &self.podman_config,
        }
    }
}

/// A runtime's name as Docker takes it: letters, digits, `-` and `_`, and none that Docker keeps for itself.
fn name(raw: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if raw.is_empty() || !raw.chars().all(is_plain) {
        return Err("use letters, digits, - and _".to_owned());
    }
    if raw == "runc" {
        return Err("Docker keeps this name for itself; use another".to_owned());
    }
    Ok(raw.to_owned())
}

pub(super) async fn runtime(
    global: &Global,
    command: &RuntimeCommand,
) -> Result<Exit, CommandError> {
    match command {
        RuntimeCommand::Install(args) => install::install(global, args).await,
        RuntimeCommand::Uninstall(args) => uninstall::uninstall(global, args).await,
        RuntimeCommand::Status(args) => status::status(global, args).await,
    }
}

/// Where wrappers are put.
fn folder(global: &Global) -> Result<PathBuf, CommandError> {
    Ok(std::path::absolute(global.state_dir.join("runtime"))?)
}

fn docker_source(loaded: &Loaded) -> Result<DockerSource, CommandError> {
    docker_at(loaded.config.docker_host.as_deref())
}

/// Docker where the configuration says it is, if it says so.
fn docker_at(configured: Option<&str>) -> Result<DockerSource, CommandError> {
    let host = configured.unwrap_or(facts::DOCKER_HOST);
    DockerSource::from_env(host, std::collections::BTreeSet::new())
        .map_err(|error| CommandError::Usage(error.into()))
}

fn need_root() -> Result<(), CommandError> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(CommandError::System(anyhow!(
        "no permission to change the engine's configuration; run seawall as root"
    )))
}

/// What went wrong with an engine's file, which is as it was.
fn untouched(file: &Path, error: impl std::fmt::Display) -> CommandError {
    CommandError::Usage(anyhow!("{}: {error}; the file is left as it is", file.display()))
}

fn system(error: impl Into<anyhow::Error>) -> CommandError {
    CommandError::System(error.into())
}
