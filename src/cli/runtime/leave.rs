//! `seawall runtime uninstall --all`: no engine needs seawall's program any more, whatever containers there are. It is what a
//! package does before its program goes.
//!
//! An engine remembers the name it knows the wrapper by for as long as there is a container that was created with it, and the
//! wrapper's path for as long as that runs. So the name stays in its file, and the link on disk, while they are needed; both
//! lead to the real runtime.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::reload::reload;
use super::uninstall::{as_it_was, users};
use super::{EngineArgs, docker_at, folder, need_root, system, untouched};
use crate::cli::{CommandError, Exit, Global, output};
use crate::config::{Config, Files};
use crate::metadata::docker::DockerSource;
use crate::runtime::docker::Setup;
use crate::runtime::files::{self, with_suffix};
use crate::runtime::{Place, containerd, docker, holders, podman};

/// Goes on after an error: what can be taken away is.
pub(super) async fn leave(global: &Global, args: &EngineArgs) -> Result<Exit, CommandError> {
    need_root()?;
    let folder = folder(global)?;
    let docker = leave_docker(global, args).await;
    // Where the name stays containers may run, whatever folder their shims are in; an engine whose file could not be changed
    // goes on calling the wrapper.
    let is_named = docker.as_ref().is_ok_and(|is_named| *is_named);
    let engines = [docker.map(drop), leave_containerd(args), leave_podman(args, &folder)];
    let is_called = is_named || engines.iter().any(Result::is_err);
    let links = Place::all_in(&folder).into_iter().map(|wrapper| {
        match is_called || holders::is_needed(&wrapper) {
            true => lead_on(&wrapper).map(drop),
            false => Place::remove(&wrapper)
                .map_err(system)
                .and_then(|()| holders::forget(&wrapper).map_err(system)),
        }
    });
    let failed: Vec<String> =
        engines.into_iter().chain(links).filter_map(Result::err).map(told).collect();
    if failed.is_empty() {
        return Ok(Exit::Done);
    }
    Err(CommandError::System(anyhow::anyhow!("{}", failed.join("; "))))
}

fn told(error: CommandError) -> String {
    let (CommandError::Usage(error) | CommandError::System(error)) = error;
    format!("{error:#}")
}

/// The real runtime behind a wrapper, by the file beside it, or as engines find theirs.
fn behind(wrapper: &Path) -> Result<PathBuf, CommandError> {
    if !Place::is_wrapper(wrapper.as_os_str()) {
        return Ok(wrapper.to_path_buf());
    }
    match Place::read(wrapper) {
        Ok(place) => Ok(place.runtime),
        Err(error) => {
            let name = wrapper.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let name = name.strip_prefix("seawall-").unwrap_or("runc");
            super::install::find_program(Path::new(name)).map_err(|_| system(error))
        }
    }
}

/// Makes the link lead to the real runtime, in one step: a shim may call it at any moment.
fn lead_on(wrapper: &Path) -> Result<PathBuf, CommandError> {
    let runtime = behind(wrapper)?;
    let new = with_suffix(wrapper, ".new");
    files::remove(&new).map_err(system)?;
    symlink(&runtime, &new)?;
    std::fs::rename(&new, wrapper)?;
    Ok(runtime)
}

/// Returns whether the name stays.
async fn leave_docker(global: &Global, args: &EngineArgs) -> Result<bool, CommandError> {
    let file = args.docker_config.as_path();
    let Some(text) = files::read(file).map_err(system)? else { return Ok(false) };
    let setup = Setup::read(&text).map_err(|error| untouched(file, error))?;
    let Some(wrapper) = setup.path(&args.name).map(PathBuf::from) else { return Ok(false) };
    // A configuration with problems must not keep the package from going.
    let config = Files::read(&global.config).config;
    let config = config.and_then(|file| Config::parse(file.as_file()).ok()).unwrap_or_default();
    let docker = docker_at(config.docker_host.as_deref())?;
    let needed_by = needed_by(&docker, &args.name).await;
    let former = Place::read(&wrapper).ok().and_then(|place| place.former_default);
    let former = former.as_deref();
    let without = |text: Result<String, docker::EditError>| -> Result<String, docker::EditError> {
        match (&needed_by, behind(&wrapper)) {
            (Some(_), Ok(runtime)) => docker::install(&text?, &args.name, &runtime, false),
            _ => text,
        }
    };
    let edited = without(docker::uninstall(&text, &args.name, former))
        .map_err(|error| untouched(file, error))?;
    let edited = match needed_by {
        None => as_it_was(file, &text, &args.name, &wrapper).unwrap_or(edited),
        Some(_) => edited,
    };
    let released = without(docker::release(&text, &args.name, former))
        .map_err(|error| untouched(file, error))?;
    // Docker goes by this while it runs, and by the text below when it starts.
    files::replace(file, &released).map_err(system)?;
    let after = reload(&docker, &released).await;
    files::replace(file, &edited).map_err(system)?;
    files::remove(&files::backup_of(file)).map_err(system)?;
    match &needed_by {
        None => {
            output::print(&format!(
                "Docker calls its runtime itself again; {} is as it was",
                file.display()
            ));
        }
        Some(who) => {
            output::print(&format!(
                "Docker calls its runtime itself again. In {} the name `{}` stays, and leads to that runtime: {who}. Once they are created anew, remove it there",
                file.display(),
                args.name,
            ));
        }
    }
    match after? {
        Some(after) if !after.has_told => Err(system(anyhow::anyhow!(
            "Docker did not say that it read its configuration; restart it when that suits"
        ))),
        _ => Ok(needed_by.is_some()),
    }
}

/// Why Docker may still need the runtime's name; none when it does not.
async fn needed_by(docker: &DockerSource, name: &str) -> Option<String> {
    match users(docker, name).await {
        Ok(users) if users.is_empty() => None,
        Ok(users) => Some(format!("containers were created with it ({})", users.join(", "))),
        Err(error) => Some(format!("containers may have been created with it ({error})")),
    }
}

fn leave_containerd(args: &EngineArgs) -> Result<(), CommandError> {
    let file = args.containerd_config.as_path();
    let Some(text) = files::read(file).map_err(system)? else { return Ok(()) };
    // A file of another version never held the wrapper.
    let Ok((edited, Some(former))) = containerd::set_program(&text, None) else { return Ok(()) };
    if !Place::is_wrapper(former.as_ref()) {
        return Ok(());
    }
    holders::await_restart(Path::new(&former)).map_err(system)?;
    files::replace(file, &edited).map_err(system)?;
    files::remove(&files::backup_of(file)).map_err(system)?;
    output::print(
        "containerd calls its runtime itself again once it is restarted: systemctl restart containerd",
    );
    Ok(())
}

/// Podman's containers know a runtime by its name only, and Podman tells nobody which.
fn leave_podman(args: &EngineArgs, folder: &Path) -> Result<(), CommandError> {
    let file = args.podman_config.as_path();
    let text = files::read(file).map_err(system)?.unwrap_or_default();
    let used = |wrapper: &PathBuf| text.contains(&wrapper.display().to_string());
    let Some(wrapper) = Place::all_in(folder).into_iter().find(used) else { return Ok(()) };
    let edited = podman::text(&args.name, &behind(&wrapper)?, false);
    files::replace(file, &edited).map_err(system)?;
    output::print(&format!(
        "Podman calls its runtime itself again. In {} the name `{}` stays, and leads to that runtime, for containers created with it; remove the file once there are none",
        file.display(),
        args.name
    ));
    Ok(())
}
