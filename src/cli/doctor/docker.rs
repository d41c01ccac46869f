//! Owns what is asked of Docker, containerd, and the runtime wrapper before them.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::PATIENCE;
use super::check::Check;
use crate::cli::CommandError;
use crate::cli::facts::{CONTAINERD, DOCKER_HOST};
use crate::cli::runtime::EngineArgs;
use crate::cli::runtime::status::{Chain, Finding, chain};
use crate::config::Loaded;
use crate::input::Text;
use crate::metadata::containerd::{ContainerdError, ContainerdSource};
use crate::metadata::docker::{DockerSource, EngineFacts};
use crate::runtime::docker::CONFIG;
use crate::runtime::dockerd;

/// Why somebody does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// There is no socket.
    Absent,
    /// This call may not use it.
    Forbidden,
    /// Something else, in words.
    Other(String),
}

impl Silence {
    fn told(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        let error = anyhow::Error::new(error);
        Self::Other(Text::new(&format!("{error:#}")).to_string())
    }
}

/// What was found out.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Docker's address, and who says so.
    pub(super) host: Text,
    pub(super) named_by: &'static str,
    pub(super) docker: Result<EngineFacts, Silence>,
    /// containerd's socket and version.
    pub(super) containerd: Result<(PathBuf, Text), Silence>,
    /// The `daemon.json` that seawall reads.
    pub(super) file: PathBuf,
    /// What stands in it; `Err` when it is no JSON. Null where there is none.
    pub(super) settings: Result<Value, String>,
    /// dockerd's command line, where the process was found.
    pub(super) arguments: Option<Vec<String>>,
    /// The links from the engine's file to its containers; `Err` when the file cannot be used.
    pub(super) chain: Result<Chain, String>,
}

pub(super) async fn read(loaded: &Loaded) -> Facts {
    let is_from_env = std::env::var_os("DOCKER_HOST").is_some_and(|host| !host.is_empty());
    let configured = loaded.config.docker_host.as_deref();
    let named_by = match (is_from_env, configured) {
        (true, _) => "DOCKER_HOST",
        (false, Some(_)) => "docker.host",
        (false, None) => "the default",
    };
    let source = DockerSource::from_env(configured.unwrap_or(DOCKER_HOST), Default::default());
    let host = source.as_ref().map(|source| source.host().to_owned()).unwrap_or_default();
    let docker = match &source {
        Ok(source) => ask_docker(source).await,
        Err(error) => Err(Silence::Other(error.to_string())),
    };
    let file = loaded.config.docker_config.clone().unwrap_or_else(|| CONFIG.into());
    let settings = match std::fs::read_to_string(&file) {
        Ok(text) if text.trim().is_empty() => Ok(Value::Null),
        Ok(text) => serde_json::from_str(&text).map_err(|error| error.to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(error) => Err(error.to_string()),
    };
    let pid_file = settings.as_ref().ok().and_then(|found| found["pidfile"].as_str());
    let pid = dockerd::find(&host, pid_file);
    let arguments = pid.and_then(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).ok());
    let containerd = ask_containerd(loaded).await;
    let is_docker = !matches!(docker, Err(Silence::Absent)) || containerd.is_err();
    let engine = if is_docker { EngineArgs::docker(&file) } else { EngineArgs::containerd() };
    let asked = docker.is_ok().then(|| source.as_ref().ok()).flatten();
    let chain = chain(&engine, asked).await.map_err(|error| match error {
        CommandError::Usage(error) | CommandError::System(error) => format!("{error:#}"),
    });
    Facts {
        host: Text::new(&host),
        named_by,
        docker,
        containerd,
        file,
        settings,
        arguments: arguments.map(|bytes| words(&bytes)),
        chain,
    }
}

/// A command line as `/proc` tells it.
fn words(bytes: &[u8]) -> Vec<String> {
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

async fn ask_docker(source: &DockerSource) -> Result<EngineFacts, Silence> {
    if let Some(path) = source.host().strip_prefix("unix://") {
        reach(Path::new(path))?;
    }
    match tokio::time::timeout(PATIENCE, source.engine()).await {
        Ok(Ok(engine)) => Ok(engine),
        Ok(Err(error)) => Err(Silence::told(error)),
        Err(_) => {
            Err(Silence::Other(format!("Docker at {} does not answer", Text::new(source.host()))))
        }
    }
}

async fn ask_containerd(loaded: &Loaded) -> Result<(PathBuf, Text), Silence> {
    let address = loaded.config.containerd_address.as_deref().unwrap_or(Path::new(CONTAINERD));
    let source = ContainerdSource::new(address, Default::default());
    let error = match tokio::time::timeout(PATIENCE, source.version()).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(ContainerdError::NoSocket(_))) => return Err(Silence::Absent),
        Ok(Err(error)) => Silence::told(error),
        Err(_) => Silence::Other("containerd does not answer".to_owned()),
    };
    // An address that is there may say why itself.
    if address.exists() {
        reach(address)?;
    }
    Err(error)
}

fn reach(path: &Path) -> Result<(), Silence> {
    match UnixStream::connect(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.kind() {
            std::io::ErrorKind::NotFound => Silence::Absent,
            std::io::ErrorKind::PermissionDenied => Silence::Forbidden,
            _ => Silence::Other(format!("{}: {error}", path.display())),
        }),
    }
}

pub(super) fn judge(facts: &Facts) -> Vec<Check> {
    let of_docker = [settings(facts), file(facts), proxy(facts)];
    // Where there is no Docker its settings are nobody's.
    let is_absent = facts.docker == Err(Silence::Absent);
    let of_docker = of_docker.map(|check| match is_absent {
        true => Check::skipped(check.id, "there is no Docker"),
        false => check,
    });
    let of_containers = [containerd(facts), wrapper(facts), engine(facts), containers(facts)];
    std::iter::once(docker(facts)).chain(of_docker).chain(of_containers).collect()
}

fn docker(facts: &Facts) -> Check {
    const ID: &str = "docker.reachable";
    const REMEDY: &str = "start Docker, or name its socket: `docker.host` in seawall.toml";
    let at = format!("{} ({})", facts.host, facts.named_by);
    let silence = match &facts.docker {
        Ok(engine) => {
            let restart = match engine.has_live_restore {
                true => "containers outlive it (live-restore)",
                false => "containers end with it (no live-restore)",
            };
            return Check::ok(ID, format!("Docker {} at {at}; {restart}", engine.version));
        }
        Err(silence) => silence,
    };
    match silence {
        Silence::Forbidden => Check::unknown(ID, format!("{at} may not be used by this call")),
        Silence::Absent if facts.containerd.is_ok() => Check::warning(
            ID,
            format!("there is no Docker at {at}"),
            "only containerd's containers are looked after",
            REMEDY,
        ),
        Silence::Absent => Check::missing(
            ID,
            &[1],
            format!("there is no Docker at {at}, and no containerd"),
            "no container is known, and none gets a policy",
            REMEDY,
        ),
        Silence::Other(why) => Check::missing(
            ID,
            &[1],
            why.clone(),
            "new containers get only what containerd tells of them; what is in force stays",
            REMEDY,
        ),
    }
}

/// What a setting of dockerd's is: on its command line, else in its file.
fn setting(facts: &Facts, name: &str) -> Option<bool> {
    let flag = format!("--{name}");
    let mut said = facts.arguments.iter().flatten().filter_map(|word| {
        let value = word.strip_prefix(&flag)?;
        Some(value.is_empty() || value == "=true" || value == "=1")
    });
    said.next_back().or_else(|| facts.settings.as_ref().ok()?.get(name)?.as_bool())
}

fn settings(facts: &Facts) -> Check {
    const ID: &str = "docker.settings";
    let path = facts.file.display();
    if let Err(why) = &facts.settings {
        return Check::warning(
            ID,
            format!("{path} cannot be used: {}", Text::new(why)),
            "dockerd does not start with it, and the resolvers named in it are not known",
            "dockerd --validate --config-file FILE",
        );
    }
    if facts.docker.as_ref().is_ok_and(|engine| engine.is_rootless) {
        return Check::missing(
            ID,
            &[1, 4],
            "this Docker is rootless",
            "its containers are not protected: their networks are a user's, not the host's",
            "use Docker as root",
        );
    }
    if setting(facts, "iptables") == Some(false) {
        return Check::warning(
            ID,
            "iptables is false: Docker makes no rules of its own on the host",
            "published ports and the way out need rules of yours; seawall's, in the containers, work",
            "remove \"iptables\": false, unless you make these rules",
        );
    }
    Check::ok(ID, "Docker makes its own rules on the host, and seawall's are in the containers")
}

fn file(facts: &Facts) -> Check {
    const ID: &str = "docker.file";
    let path = facts.file.display();
    let Some(arguments) = &facts.arguments else {
        return Check::ok(ID, format!("{path}; no dockerd was found that could use another"));
    };
    match named(arguments, "--config-file") {
        Some(used) if Path::new(used) != facts.file => Check::warning(
            ID,
            format!("dockerd reads {}, seawall {path}", Text::new(used)),
            "the resolvers Docker gives to containers are not known, and the runtime wrapper is looked for in another file",
            "set docker.config in seawall.toml to dockerd's file, and restart the daemon",
        ),
        Some(_) => Check::ok(ID, format!("{path}, as dockerd's --config-file says")),
        None if facts.file == Path::new(CONFIG) => Check::ok(ID, format!("{path}")),
        None => Check::warning(
            ID,
            format!("dockerd reads {CONFIG}, seawall {path}"),
            "the resolvers Docker gives to containers are not known, and the runtime wrapper is looked for in another file",
            "remove docker.config from seawall.toml, and restart the daemon",
        ),
    }
}

/// The value of an option on a command line.
fn named<'a>(arguments: &'a [String], option: &str) -> Option<&'a str> {
    arguments.iter().enumerate().rev().find_map(|(at, word)| match word.strip_prefix(option)? {
        "" => arguments.get(at + 1).map(String::as_str),
        rest => rest.strip_prefix('='),
    })
}

fn proxy(facts: &Facts) -> Check {
    let found = match setting(facts, "userland-proxy") {
        Some(false) => "docker-proxy is off: containers see who connects to a published port",
        _ => {
            "docker-proxy is on: the host itself, and IPv6 clients of IPv4-only containers, count as the host"
        }
    };
    Check::ok("docker.proxy", found)
}

fn containerd(facts: &Facts) -> Check {
    const ID: &str = "containerd.reachable";
    const REMEDY: &str = "name its socket: `containerd.address` in seawall.toml";
    match &facts.containerd {
        Ok((path, version)) => Check::ok(ID, format!("containerd {version} at {}", path.display())),
        Err(Silence::Forbidden) => Check::unknown(ID, "its socket may not be used by this call"),
        Err(Silence::Absent) => Check::warning(
            ID,
            "there is no containerd where it is looked for",
            "without the runtime wrapper a container is programmed only after it began to run",
            REMEDY,
        ),
        Err(Silence::Other(why)) => Check::warning(
            ID,
            why.clone(),
            "without the runtime wrapper a container is programmed only after it began to run",
            REMEDY,
        ),
    }
}

const FIRST: &str =
    "a container may talk before its policy is in force, by some 20 ms in the worst case";

fn link(id: &'static str, finding: &Finding, remedy: &str) -> Check {
    let what = Text::new(&finding.what).to_string();
    match finding.is_good {
        true => Check::ok(id, what),
        false => Check::missing(id, &[1], what, FIRST, remedy),
    }
}

fn wrapper(facts: &Facts) -> Check {
    const ID: &str = "runtime.wrapper";
    match &facts.chain {
        Ok(chain) => link(ID, &chain.wrapper, "seawall runtime install"),
        Err(why) => Check::missing(
            ID,
            &[1],
            Text::new(why).to_string(),
            FIRST,
            "put the file right, then: seawall runtime install",
        ),
    }
}

fn engine(facts: &Facts) -> Check {
    const ID: &str = "runtime.engine";
    let finding = facts.chain.as_ref().ok().and_then(|chain| chain.engine.as_ref());
    match (finding, &facts.docker) {
        (Some(finding), _) => link(ID, finding, "seawall runtime install"),
        (None, Err(Silence::Forbidden)) => {
            Check::unknown(ID, "Docker may not be asked by this call")
        }
        (None, _) => Check::skipped(ID, "the engine cannot be asked"),
    }
}

fn containers(facts: &Facts) -> Check {
    const ID: &str = "runtime.containers";
    let finding = facts.chain.as_ref().ok().and_then(|chain| chain.containers.as_ref());
    match (finding, &facts.docker) {
        (Some(finding), _) => {
            link(ID, finding, "create them anew: docker compose up --force-recreate")
        }
        (None, Ok(_)) => Check::ok(ID, "there are none yet"),
        (None, Err(Silence::Forbidden)) => {
            Check::unknown(ID, "Docker may not be asked by this call")
        }
        (None, Err(_)) => Check::skipped(ID, "Docker cannot be asked"),
    }
}

#[cfg(test)]
mod tests;
