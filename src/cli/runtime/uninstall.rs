//! `seawall runtime uninstall`: the engine's configuration as it was, and no wrapper left that nobody uses.

use std::path::{Path, PathBuf};

use clap::Args;

use super::leave::leave;
use super::reload::reload;
use super::{Engine, EngineArgs, docker_source, folder, need_root, system, untouched};
use crate::cli::{CommandError, Exit, Global, load, output};
use crate::metadata::docker::{DockerError, DockerSource};
use crate::runtime::docker::Setup;
use crate::runtime::{Place, containerd, docker, files};

#[derive(Args, Debug)]
pub(in crate::cli) struct UninstallArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// From every engine, whatever containers there are: what they still need leads to the real runtime
    #[arg(long, conflicts_with = "engine")]
    all: bool,
}

pub(super) async fn uninstall(global: &Global, args: &UninstallArgs) -> Result<Exit, CommandError> {
    if args.all {
        return leave(global, &args.engine).await;
    }
    let args = &args.engine;
    need_root()?;
    let loaded = load(global)?;
    let file = args.file();
    let Some(text) = files::read(file).map_err(system)? else {
        output::print(&format!("{} is not there: nothing is installed", file.display()));
        return Ok(Exit::Done);
    };
    match args.engine {
        Engine::Docker => {
            let setup = Setup::read(&text).map_err(|error| untouched(file, error))?;
            let Some(wrapper) = setup.path(&args.name).map(PathBuf::from) else {
                output::print(&format!(
                    "Docker has no runtime `{}`: nothing is installed",
                    args.name
                ));
                return Ok(Exit::Done);
            };
            let docker = docker_source(&loaded)?;
            // A Docker that does not answer has none that could be asked for.
            let users = users(&docker, &args.name).await.unwrap_or_default();
            if !users.is_empty() {
                return Err(CommandError::Usage(anyhow::anyhow!(
                    "{} containers were created with `{}` and could not be started without it: {}. Remove them, or create them anew with another runtime, first",
                    users.len(),
                    args.name,
                    users.join(", ")
                )));
            }
            let place = Place::read(&wrapper).ok();
            let former = place.as_ref().and_then(|place| place.former_default.as_deref());
            let edited = docker::uninstall(&text, &args.name, former)
                .map_err(|error| untouched(file, error))?;
            let edited = as_it_was(file, &text, &args.name, &wrapper).unwrap_or(edited);
            let released = docker::release(&text, &args.name, former)
                .map_err(|error| untouched(file, error))?;
            // Docker goes by this while it runs, and by the text below when it starts.
            files::replace(file, &released).map_err(system)?;
            let after = reload(&docker, &released).await;
            files::replace(file, &edited).map_err(system)?;
            files::remove(&files::backup_of(file)).map_err(system)?;
            let is_known = after?.is_some_and(|after| after.now.known.contains(args.name.as_str()));
            if is_known {
                output::print(&format!(
                    "{} is as it was, but Docker goes by what it read before until it is restarted; the wrapper stays for so long",
                    file.display()
                ));
                return Ok(Exit::Done);
            }
            remove_wrapper(global, &wrapper)?;
            output::print(&format!(
                "Docker calls its runtime itself again; {} is as it was",
                file.display()
            ));
        }
        Engine::Containerd => {
            let (edited, former) =
                containerd::set_program(&text, None).map_err(|error| untouched(file, error))?;
            let Some(wrapper) =
                former.map(PathBuf::from).filter(|path| Place::is_wrapper(path.as_os_str()))
            else {
                output::print("containerd does not use the wrapper: nothing is installed");
                return Ok(Exit::Done);
            };
            let kept = files::read(&files::backup_of(file)).map_err(system)?;
            let was = kept.filter(|kept| {
                containerd::set_program(kept, Some(&wrapper)).is_ok_and(|(again, _)| again == text)
            });
            files::replace(file, &was.unwrap_or(edited)).map_err(system)?;
            files::remove(&files::backup_of(file)).map_err(system)?;
            output::print(
                "containerd calls its runtime itself again once it is restarted: systemctl restart containerd",
            );
            // It is needed until then: the wrapper stays, and is removed with the package.
        }
        Engine::Podman => {
            files::remove(file).map_err(system)?;
            output::print(
                "Podman calls its runtime itself again; containers created with the wrapper must be created anew",
            );
        }
    }
    Ok(Exit::Done)
}

/// Names of the containers that were created with a runtime.
pub(super) async fn users(docker: &DockerSource, name: &str) -> Result<Vec<String>, DockerError> {
    let containers = docker.containers_runtimes().await?;
    let users = containers.into_iter().filter(|(_, runtime)| *runtime == *name);
    Ok(users.map(|(container, _)| container.to_string()).collect())
}

/// The text before installing, if nothing else was changed since.
pub(super) fn as_it_was(file: &Path, text: &str, name: &str, wrapper: &Path) -> Option<String> {
    let kept = files::read(&files::backup_of(file)).ok().flatten()?;
    let installed = |is_default| docker::install(&kept, name, wrapper, is_default);
    [true, false]
        .iter()
        .any(|is_default| installed(*is_default).is_ok_and(|again| again == text))
        .then_some(kept)
}

fn remove_wrapper(global: &Global, wrapper: &Path) -> Result<(), CommandError> {
    // Only what lies where install puts it: a path in somebody's file may be anything.
    if wrapper.parent() == Some(folder(global)?.as_path()) && Place::is_wrapper(wrapper.as_os_str())
    {
        Place::remove(wrapper).map_err(system)?;
    }
    Ok(())
}
