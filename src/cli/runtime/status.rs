//! `seawall runtime status`: whether containers wait for their policy, from the wrapper's file to the daemon's socket.

use std::path::Path;

use serde::Serialize;

use super::{Engine, EngineArgs, docker_source, system, untouched};
use crate::api::Client;
use crate::cli::output::Colour;
use crate::cli::{CommandError, Exit, Global, Output, load, output};
use crate::runtime::docker::Setup;
use crate::runtime::{Place, containerd, files};

/// One thing that must be so.
#[derive(Debug, Serialize)]
struct Finding {
    /// Whether it is.
    is_good: bool,
    /// What was found, and what to do where it is not good.
    what: String,
}

fn good(what: String) -> Finding {
    Finding { is_good: true, what }
}

fn bad(what: String) -> Finding {
    Finding { is_good: false, what }
}

pub(super) async fn status(global: &Global, args: &EngineArgs) -> Result<Exit, CommandError> {
    let loaded = load(global)?;
    let file = args.file();
    let text = files::read(file).map_err(system)?.unwrap_or_default();
    let mut found = Vec::new();
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
    match &wrapper {
        None => found.push(bad(format!(
            "{} does not name the wrapper; install it with `seawall runtime install`",
            file.display()
        ))),
        Some(wrapper) => found.push(wrapper_finding(Path::new(wrapper))),
    }
    if args.engine == Engine::Docker {
        docker_findings(&docker_source(&loaded)?, &args.name, &mut found).await;
    }
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

async fn docker_findings(
    docker: &crate::metadata::docker::DockerSource,
    name: &str,
    found: &mut Vec<Finding>,
) {
    match docker.runtimes().await {
        Err(error) => found.push(bad(error.to_string())),
        Ok(runtimes) if !runtimes.known.contains(name) => found.push(bad(format!(
            "Docker {} does not know the runtime `{name}`; have it read its configuration: systemctl reload docker",
            runtimes.version
        ))),
        Ok(runtimes) if runtimes.default != *name => found.push(bad(format!(
            "Docker {} knows `{name}`, but containers get `{}` unless they ask for it",
            runtimes.version, runtimes.default
        ))),
        Ok(runtimes) => {
            found.push(good(format!("Docker {} has `{name}` as its default runtime", runtimes.version)));
        }
    }
    let containers = docker.containers_runtimes().await.unwrap_or_default();
    let others: Vec<String> = containers
        .iter()
        .filter(|(_, runtime)| *runtime != *name)
        .map(|(container, runtime)| format!("{container} ({runtime})"))
        .collect();
    if !others.is_empty() {
        found.push(bad(format!(
            "{} of {} containers were created with another runtime and do not wait; create them anew: {}",
            others.len(),
            containers.len(),
            others.join(", ")
        )));
    } else if !containers.is_empty() {
        found.push(good(format!("all {} containers were created with it", containers.len())));
    }
}
