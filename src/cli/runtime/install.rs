//! `seawall runtime install`: writes the wrapper, enters it in the engine's configuration, and has the engine read that.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;

use super::reload::{Reloaded, reload};
use super::{Engine, EngineArgs, docker_source, folder, need_root, system, untouched};
use crate::cli::{CommandError, Exit, Global, load, output};
use crate::metadata::docker::DockerSource;
use crate::runtime::docker::Setup;
use crate::runtime::{Place, containerd, docker, dockerd, files, podman};

#[derive(Args, Debug)]
pub(in crate::cli) struct InstallArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// The runtime behind the wrapper: a path, or a name to look for in PATH [default: the engine's own]
    #[arg(long, value_name = "RUNTIME")]
    runtime: Option<PathBuf>,
    /// Only enter it; containers get it that ask for it by name
    #[arg(long)]
    no_default: bool,
    /// Do not have the engine read its configuration again
    #[arg(long)]
    no_reload: bool,
}

pub(super) async fn install(global: &Global, args: &InstallArgs) -> Result<Exit, CommandError> {
    need_root()?;
    let loaded = load(global)?;
    let file = args.engine.file();
    let text = files::read(file).map_err(system)?;
    match args.engine.engine {
        Engine::Docker => {
            let setup = Setup::read(text.as_deref().unwrap_or_default())
                .map_err(|error| untouched(file, error))?;
            let (wrapper, _) = write_place(global, args, Some(&setup))?;
            let edited = docker::install(
                text.as_deref().unwrap_or_default(),
                &args.engine.name,
                &wrapper,
                !args.no_default,
            )
            .map_err(|error| untouched(file, error))?;
            change(file, text.as_deref(), &edited, dockerd::validate)?;
            output::print(&format!("{} stands before {}", wrapper.display(), runtime_of(&wrapper)));
            let docker = docker_source(&loaded)?;
            if args.no_reload {
                output::print(
                    "Docker takes it once its configuration is read again: systemctl reload docker",
                );
            } else {
                let default = (!args.no_default).then_some(args.engine.name.as_str());
                match reload(&docker, &edited).await? {
                    None => output::print(
                        "Docker does not run; it takes the new configuration when it starts",
                    ),
                    Some(after) => taken(&after, &args.engine.name, default)?,
                }
            }
            tell_older(&docker, &args.engine.name).await;
        }
        Engine::Containerd => {
            let (wrapper, _) = write_place(global, args, None)?;
            let (edited, _) =
                containerd::set_program(text.as_deref().unwrap_or_default(), Some(&wrapper))
                    .map_err(|error| untouched(file, error))?;
            change(file, text.as_deref(), &edited, |_| Ok(()))?;
            output::print(&format!(
                "{} stands before {}. containerd reads its configuration only when it starts; containers run on: systemctl restart containerd",
                wrapper.display(),
                runtime_of(&wrapper)
            ));
        }
        Engine::Podman => {
            let (wrapper, _) = write_place(global, args, None)?;
            let edited = podman::text(&args.engine.name, &wrapper, !args.no_default);
            change(file, text.as_deref(), &edited, |_| Ok(()))?;
            output::print(&format!(
                "{} stands before {}; Podman takes it for containers created from now on",
                wrapper.display(),
                runtime_of(&wrapper)
            ));
        }
    }
    Ok(Exit::Done)
}

fn runtime_of(wrapper: &Path) -> String {
    Place::read(wrapper).map(|place| place.runtime.display().to_string()).unwrap_or_default()
}

/// Writes the wrapper; its path, and what it knows.
fn write_place(
    global: &Global,
    args: &InstallArgs,
    setup: Option<&Setup>,
) -> Result<(PathBuf, Place), CommandError> {
    let folder = folder(global)?;
    let own = setup.and_then(|setup| setup.path(&args.engine.name)).map(Path::new);
    let before = own.and_then(|wrapper| Place::read(wrapper).ok());
    let current = setup.and_then(|setup| setup.default.clone());
    let former = match current {
        // Installed again: what stood there before seawall did.
        Some(default) if default == args.engine.name => {
            before.as_ref().and_then(|place| place.former_default.clone())
        }
        other => other,
    };
    let runtime = match &args.runtime {
        Some(given) => find_program(given)?,
        None => default_runtime(args.engine.engine, setup, former.as_deref())?,
    };
    if Place::is_wrapper(runtime.as_os_str()) {
        return Err(CommandError::Usage(anyhow!(
            "{} is seawall's own wrapper; name the runtime behind it with --runtime",
            runtime.display()
        )));
    }
    let place = Place {
        runtime,
        config: std::path::absolute(&global.config)?,
        state_dir: Some(std::path::absolute(&global.state_dir)?),
        socket: std::path::absolute(&global.socket)?,
        former_default: former,
    };
    let program = std::env::current_exe()?;
    let wrapper = place.write(&folder, &program).map_err(system)?;
    Ok((wrapper, place))
}

/// The runtime the engine calls now when it is asked for none.
fn default_runtime(
    engine: Engine,
    setup: Option<&Setup>,
    former: Option<&str>,
) -> Result<PathBuf, CommandError> {
    let built_in = match engine {
        Engine::Podman => "crun",
        Engine::Docker | Engine::Containerd => "runc",
    };
    let Some(name) = former.filter(|name| *name != "runc") else {
        return find_program(Path::new(built_in)).or_else(|_| find_program(Path::new("runc")));
    };
    let path = setup.and_then(|setup| setup.path(name));
    let has_arguments =
        setup.is_some_and(|setup| setup.with_arguments.iter().any(|with| with == name));
    match path {
        Some(path) if !has_arguments => find_program(Path::new(path)),
        _ => Err(CommandError::Usage(anyhow!(
            "Docker's default runtime is `{name}`, which is more than a program; say which program stands behind the wrapper with --runtime, or use --no-default"
        ))),
    }
}

/// An absolute path as it is, a name from PATH.
pub(super) fn find_program(given: &Path) -> Result<PathBuf, CommandError> {
    let missing = || {
        CommandError::Usage(anyhow!(
            "there is no program {}; name one with --runtime",
            given.display()
        ))
    };
    if given.components().count() > 1 {
        return given.canonicalize().map_err(|_| missing());
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&folders).map(|folder| folder.join(given));
    candidates.find(|path| path.is_file()).ok_or_else(missing)
}

/// Puts a new text in place of the old one, once somebody has found nothing wrong with it.
fn change(
    file: &Path,
    old: Option<&str>,
    new: &str,
    validate: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<(), CommandError> {
    if old == Some(new) {
        return Ok(());
    }
    let trial = files::with_suffix(file, ".seawall-trial");
    files::replace(&trial, new).map_err(system)?;
    let verdict = validate(&trial);
    files::remove(&trial).map_err(system)?;
    verdict.map_err(|said| untouched(file, said))?;
    files::back_up(file).map_err(system)?;
    files::replace(file, new).map_err(system)
}

/// Sees that Docker took it.
fn taken(after: &Reloaded, name: &str, default: Option<&str>) -> Result<(), CommandError> {
    let Reloaded { has_told, now } = after;
    let is_default = default.is_none_or(|default| now.default == *default);
    if now.known.contains(name) && is_default {
        let word = if default.is_some() { "its default runtime" } else { "one of its runtimes" };
        output::print(&format!(
            "Docker {} has `{name}` as {word}; no container was restarted",
            now.version
        ));
        return Ok(());
    }
    let why = match has_told {
        true => "read its configuration, but does not use it",
        false => "did not say that it read its configuration",
    };
    Err(CommandError::System(anyhow!(
        "Docker {why}; see its log (journalctl -u docker). Options on dockerd's command line win over daemon.json. `seawall runtime uninstall` undoes the change"
    )))
}

/// Containers keep the runtime they were created with.
async fn tell_older(docker: &DockerSource, name: &str) {
    let Ok(containers) = docker.containers_runtimes().await else { return };
    let older: Vec<&str> = containers
        .iter()
        .filter(|(_, runtime)| *runtime != *name)
        .map(|(container, _)| container.as_str())
        .collect();
    if !older.is_empty() {
        output::print(&format!(
            "{} containers were created before and keep their runtime until they are created anew (docker compose up --force-recreate): {}",
            older.len(),
            older.join(", ")
        ));
    }
}
