//! Owns where commands get their facts: saved files, or Docker and containerd asked once.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use tokio::sync::mpsc;

use super::{CommandError, Global, load};
use crate::compile::Ruleset;
use crate::compile::guard::{Link, addresses_of, guard};
use crate::config::{Loaded, Ownership};
use crate::metadata::compose::{self, ComposeOptions, Placeholders};
use crate::metadata::containerd::ContainerdSource;
use crate::metadata::docker::DockerSource;
use crate::metadata::resolvers::{docker_resolvers, host_resolvers};
use crate::metadata::{
    Inventory, InventoryBuilder, NetworkMode, Observation, Source, Workload, WorkloadId, inspect,
};
use crate::reconcile::{Desired, Rules, desire};
use crate::runtime::docker::CONFIG;

/// Docker's socket where neither `DOCKER_HOST` nor the configuration names one.
pub(super) const DOCKER_HOST: &str = "unix:///var/run/docker.sock";
/// containerd's socket where the configuration names none.
pub(super) const CONTAINERD: &str = "/run/containerd/containerd.sock";

/// Which facts, and of which workloads.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  seawall plan --from examples/shop/compose.yaml
  docker inspect $(docker ps -q) | seawall policy --from -
  seawall plan shop/db                     the running container, as root")]
pub(super) struct FactsArgs {
    /// Read facts from a file instead of Docker: saved `docker inspect` output, a compose file, or - for standard input.
    #[arg(long, value_name = "FILE")]
    pub(super) from: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) target: TargetArgs,
}

/// Which workloads.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct TargetArgs {
    /// Only this one: container name, id, project/service, or project.
    #[arg(value_name = "TARGET")]
    target: Option<String>,
}

/// The links of each netns that could be read, by the workload whose netns it is.
type Links = BTreeMap<WorkloadId, Vec<Link>>;

/// What a command works on.
pub(super) struct Facts {
    pub(super) inventory: Inventory,
    pub(super) rules: Rules,
    pub(super) desired: Desired,
    pub(super) ownership: Ownership,
    /// Whether addresses are stand-ins because the facts come from a compose file.
    pub(super) has_placeholders: bool,
    links: Links,
}

impl Facts {
    /// The policy's table wanted of a workload's netns, for the addresses its links have, or those its runtime names.
    pub(super) fn table(&self, id: &WorkloadId) -> Option<Cow<'_, Ruleset>> {
        let table = self.desired.rulesets.get(id)?;
        let known = self.desired.guards.get(id).zip(self.links.get(id));
        let own = match known {
            Some((terms, links)) => terms.own(links, false),
            None => self.inventory.get(id)?.addresses().collect(),
        };
        Some(table.sending_from(&own))
    }

    /// The guard wanted beside it, where its links are known.
    pub(super) fn guard(&self, id: &WorkloadId) -> Option<Ruleset> {
        let (terms, links) = (self.desired.guards.get(id)?, self.links.get(id)?);
        guard(terms, links, &terms.own(links, false), self.desired.rulesets.get(id)?)
    }
}

impl TargetArgs {
    /// The workloads meant: all, or those the target names.
    pub(super) fn select<'a>(
        &self,
        inventory: &'a Inventory,
    ) -> Result<Vec<&'a Workload>, CommandError> {
        let Some(target) = &self.target else { return Ok(inventory.iter().collect()) };
        let found: Vec<&Workload> =
            inventory.iter().filter(|workload| is_named(workload, target)).collect();
        if found.is_empty() { Err(unknown(target, inventory)) } else { Ok(found) }
    }
}

/// Whether a word names a workload, or the project it belongs to.
pub(super) fn is_named(workload: &Workload, word: &str) -> bool {
    let is_id = word.len() >= 4 && workload.id.as_str().starts_with(word);
    let is_project = workload.project.as_ref().is_some_and(|project| project.name == *word);
    is_id || workload.name == *word || workload.display_name() == *word || is_project
}

/// The one workload a word names; replicas of one service count as one.
pub(super) fn find<'a>(inventory: &'a Inventory, word: &str) -> Result<&'a Workload, CommandError> {
    let mut found = inventory.iter().filter(|workload| is_named(workload, word));
    let first = found.next().ok_or_else(|| unknown(word, inventory))?;
    match found.find(|other| other.display_name() != first.display_name()) {
        None => Ok(first),
        Some(other) => Err(CommandError::Usage(anyhow!(
            "`{word}` names more than one workload ({} and {}); name one of them",
            first.display_name(),
            other.display_name()
        ))),
    }
}

pub(super) fn unknown(word: &str, inventory: &Inventory) -> CommandError {
    let names: Vec<String> =
        inventory.iter().map(|workload| workload.display_name().to_string()).collect();
    let known = if names.is_empty() { "none is known".to_owned() } else { names.join(", ") };
    let word = crate::input::Text::new(word);
    CommandError::Usage(anyhow!("no workload is called `{word}`; known: {known}"))
}

/// Gathers facts and decides everything.
pub(super) async fn gather(global: &Global, from: &[PathBuf]) -> Result<Facts, CommandError> {
    gather_with(load(global)?, from).await
}

/// The same with a configuration that was read already.
pub(super) async fn gather_with(loaded: Loaded, from: &[PathBuf]) -> Result<Facts, CommandError> {
    let (inventory, has_placeholders, links) = if from.is_empty() {
        let (inventory, links) = live(&loaded).await?;
        (inventory, false, links)
    } else {
        let (inventory, has_placeholders) = read_files(from)?;
        (inventory, has_placeholders, Links::new())
    };
    let rules = Rules::from(&loaded);
    let desired = desire(&inventory, &rules);
    for problem in &desired.policies.problems {
        tracing::warn!("{problem}");
    }
    let ownership = loaded.config.ownership;
    Ok(Facts { inventory, rules, desired, ownership, has_placeholders, links })
}

impl FactsArgs {
    /// Gathers what these arguments name.
    pub(super) async fn gather(&self, global: &Global) -> Result<Facts, CommandError> {
        gather(global, &self.from).await
    }
}

/// What files say. Returns whether any of their addresses are placeholders.
fn read_files(paths: &[PathBuf]) -> Result<(Inventory, bool), CommandError> {
    let resolvers = host_resolvers();
    let mut placeholders = Placeholders::new();
    let mut has_placeholders = false;
    let mut workloads: Vec<Workload> = Vec::new();
    for path in paths {
        let bytes = read_bytes(path).map_err(CommandError::Usage)?;
        // Bytes that are no text are replaced; nothing that matters can stand in them.
        let text = String::from_utf8_lossy(&bytes);
        let is_json = text.trim_start_matches('\u{feff}').trim_start().starts_with(['[', '{']);
        workloads.extend(if is_json {
            inspect::parse(path, &bytes, &resolvers)?
        } else {
            has_placeholders = true;
            let project = folder_name(path);
            let placeholders = Some(&mut placeholders);
            compose::parse(
                path,
                &text,
                ComposeOptions { project: &project, resolvers: &resolvers, placeholders },
            )?
        });
    }
    Ok((workloads.into_iter().collect(), has_placeholders))
}

pub(super) fn read_bytes(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
        return Ok(bytes);
    }
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The name of the folder a file lies in: compose takes the project's name from it.
fn folder_name(path: &Path) -> String {
    let absolute = std::path::absolute(path).ok();
    let folder = absolute.as_deref().and_then(Path::parent).and_then(Path::file_name);
    folder.map_or("stdin".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Docker where the environment or the configuration says it is; its containers' resolvers unless they name their own.
pub(super) fn docker(
    loaded: &Loaded,
    resolvers: BTreeSet<IpAddr>,
) -> Result<DockerSource, CommandError> {
    let host = loaded.config.docker_host.as_deref().unwrap_or(DOCKER_HOST);
    DockerSource::from_env(host, resolvers).map_err(|error| CommandError::Usage(error.into()))
}

/// Starts watching Docker and containerd. Returns what they will say, and which of them are asked.
pub(super) fn watch(
    loaded: &Loaded,
) -> Result<(mpsc::Receiver<Observation>, Vec<Source>), CommandError> {
    let (sender, observations) = mpsc::channel(1024);
    let docker_config = loaded.config.docker_config.as_deref().unwrap_or(Path::new(CONFIG));
    let docker = docker(loaded, docker_resolvers(docker_config))?;
    let address = loaded.config.containerd_address.as_deref().unwrap_or(Path::new(CONTAINERD));
    let containerd = ContainerdSource::new(address, host_resolvers());
    tokio::spawn(docker.watch(sender.clone()));
    tokio::spawn(containerd.watch(sender));
    Ok((observations, vec![Source::Docker, Source::Containerd]))
}

/// Asks Docker and containerd once. It is an error when neither answers.
async fn live(loaded: &Loaded) -> Result<(Inventory, Links), CommandError> {
    super::output::progress("asking Docker and containerd …");
    let (observations, sources) = watch(loaded)?;
    let mut facts: InventoryBuilder =
        crate::reconcile::collect::collect(observations, &sources).await;
    let answers =
        sources.iter().filter_map(|source| facts.source(*source).map(|said| (source, said)));
    let errors: Vec<String> =
        answers.filter_map(|(source, said)| Some(format!("{source}: {}", said.err()?))).collect();
    if errors.len() == sources.len() {
        return Err(CommandError::System(anyhow!(
            "neither Docker nor containerd answers ({}); is one of them running, and are you root? \
             Without them: seawall plan --from FILE",
            errors.join("; ")
        )));
    }
    let links = read_links(&mut facts);
    Ok((facts.inventory().clone(), links))
}

/// The netns themselves know their addresses best; without root, Docker's word is taken. Returns their links.
fn read_links(facts: &mut InventoryBuilder) -> Links {
    let running: Vec<_> = facts
        .inventory()
        .iter()
        .filter(|one| matches!(one.network_mode, NetworkMode::Own | NetworkMode::None))
        .filter_map(|workload| {
            let held = &workload.capabilities;
            // Who can give itself addresses has those its runtime names.
            let is_told =
                (held.net_admin || held.privileged) && workload.addresses().next().is_some();
            Some((workload.id.clone(), workload.netns.as_ref()?.pid, is_told))
        })
        .collect();
    let mut found = Links::new();
    let Ok(entrance) = crate::nft::netns::Entrance::start() else { return found };
    for (id, pid, is_told) in running {
        let netns = crate::nft::Netns::of_pid(pid);
        let Ok(there) = netns.and_then(|netns| entrance.look(&netns, false)) else { continue };
        if !is_told {
            facts.set_addresses(&id, addresses_of(&there.links).into_iter().collect());
        }
        found.insert(id, there.links);
    }
    found
}
