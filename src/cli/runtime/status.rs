//! `seawall runtime status`: whether containers wait for their policy, from the wrapper's file to the daemon's socket.

use std::path::Path;

use serde::Serialize;

use super::{Engine, EngineArgs, docker_source, system, untouched};
use crate::api::Client;
use crate::cli::output::Colour;
use crate::cli::{CommandError, Exit, Global, Output, load, output};
use crate::metadata::docker::DockerSource;
use crate::runtime::docker::Setup;
use crate::runtime::{Place, containerd, files};

/// One thing that must be so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Finding {
    /// Whether it is.
    pub(in crate::cli) is_good: bool,
    /// What was found, and what to do where it is not good.
    pub(in crate::cli) what: String,
}

/// What must be so for an engine's containers to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Chain {
    /// The wrapper is in the engine's file, and leads to a runtime.
    pub(in crate::cli) wrapper: Finding,
    /// The engine knows it, and gives it to containers; none where it cannot be asked.
    pub(in crate::cli) engine: Option<Finding>,
    /// Its containers were created with it; none where there are none, or it cannot be asked.
    pub(in crate::cli) containers: Option<Finding>,
}

fn good(what: String) -> Finding {
    Finding { is_good: true, what }
}

fn bad(what: String) -> Finding {
    Finding { is_good: false, what }
}

/// Looks at every link; those that only Docker knows where it is to be asked.
pub(in crate::cli) async fn chain(
    args: &EngineArgs,
    docker: Option<&DockerSource>,
) -> Result<Chain, CommandError> {
    let file = args.file();
    let text = files::read(file).map_err(system)?.unwrap_or_default();
    let wrapper = match args.engine {
        Engine::Docker => {
            let setup = Setup::read(&text).map_err(|error| untouched(file, error))?;
            setup.path(&args.name).map(str::to_owned)
        }
        Engine::Containerd => {
            let (_, program) =
                containerd::set_program(&text, None).map_err(|error| untouched(file, error))?;
            program.filter(|program| Place::is_wrapper(program.as_ref()))
        }
        Engine::Podman => toml::from_str::<toml::Table>(&text).ok().and_then(|table| {
            let listed = table.get("engine")?.get("runtimes")?.get(&args.name)?.as_array()?;
            listed.first()?.as_str().map(str::to_owned)
        }),
    };
    let wrapper = match &wrapper {
        None => bad(format!(
            "{} does not name the wrapper; install it with `seawall runtime install`",
            file.display()
        )),
        Some(wrapper) => wrapper_finding(Path::new(wrapper)),
    };
    let (engine, containers) = match docker {
        Some(docker) => (
            Some(engine_finding(docker, &args.name).await),
            containers_finding(docker, &args.name).await,
        ),
        None => (None, None),
    };
    Ok(Chain { wrapper, engine, containers })
}

pub(super) async fn status(global: &Global, args: &EngineArgs) -> Result<Exit, CommandError> {
    let loaded = load(global)?;
    let docker = match args.engine {
        Engine::Docker => Some(docker_source(&loaded)?),
        Engine::Containerd | Engine::Podman => None,
    };
    let Chain { wrapper, engine, containers } = chain(args, docker.as_ref()).await?;
    let mut found: Vec<Finding> =
        [Some(wrapper), engine, containers].into_iter().flatten().collect();
    let settings = loaded.config.runtime;
    found.push(match Client::new(&global.socket).status().await {
        Ok(report) => {
            good(format!("seawall {} answers on {}", report.version, global.socket.display()))
        }
        Err(error) => bad(format!(
            "{error}; until then starts fall back to `{}` after at most {} ms",
            settings.fallback.word(),
            settings.wait.as_millis()
        )),
    });
    let is_good = found.iter().all(|finding| finding.is_good);
    match global.output {
        Output::Json => output::json(&serde_json::json!({
            "waits_for_policy": is_good,
            "wait_ms": settings.wait.as_millis(),
            "fallback": settings.fallback,
            "findings": found,
        }))?,
        Output::Human => {
            for finding in &found {
                let (colour, word) = match finding.is_good {
                    true => (Colour::Good, "ok  "),
                    false => (Colour::Bad, "no  "),
                };
                output::print(&format!("{}{}", output::paint(colour, word), finding.what));
            }
        }
    }
    Ok(if is_good { Exit::Done } else { Exit::Difference })
}

fn wrapper_finding(wrapper: &Path) -> Finding {
    let shown = wrapper.display();
    match Place::read(wrapper) {
        Err(error) => bad(error.to_string()),
        Ok(_) if !wrapper.exists() => {
            bad(format!("{shown} leads nowhere; run `seawall runtime install` again"))
        }
        Ok(place) if !place.runtime.exists() => {
            let runtime = place.runtime.display();
            bad(format!("{runtime}, the runtime behind {shown}, is not there"))
        }
        Ok(place) => good(format!("{shown} stands before {}", place.runtime.display())),
    }
}

async fn engine_finding(docker: &DockerSource, name: &str) -> Finding {
    match docker.runtimes().await {
        Err(error) => bad(error.to_string()),
        Ok(runtimes) if !runtimes.known.contains(name) => bad(format!(
            "Docker {} does not know the runtime `{name}`; have it read its configuration: systemctl reload docker",
            runtimes.version
        )),
        Ok(runtimes) if runtimes.default != *name => bad(format!(
            "Docker {} knows `{name}`, but containers get `{}` unless they ask for it",
            runtimes.version, runtimes.default
        )),
        Ok(runtimes) => {
            good(format!("Docker {} has `{name}` as its default runtime", runtimes.version))
        }
    }
}

async fn containers_finding(docker: &DockerSource, name: &str) -> Option<Finding> {
    let containers = docker.containers_runtimes().await.unwrap_or_default();
    let others: Vec<String> = containers
        .iter()
        .filter(|(_, runtime)| *runtime != *name)
        .map(|(container, runtime)| format!("{container} ({runtime})"))
        .collect();
    if !others.is_empty() {
        return Some(bad(format!(
            "{} of {} containers were created with another runtime and do not wait; create them anew: {}",
            others.len(),
            containers.len(),
            others.join(", ")
        )));
    }
    let all = || good(format!("all {} containers were created with it", containers.len()));
    (!containers.is_empty()).then(all)
}
