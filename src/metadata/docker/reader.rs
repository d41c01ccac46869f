//! Owns asking Docker: containers, their images and networks, each answer turned into facts.
//!
//! An inspection blocks while its container is being started; a summary never does. Nothing here decides which
//! of them is wanted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{ListContainersOptions, ListNetworksOptions};
use futures_util::StreamExt;
use futures_util::stream;
use serde_json::{Value, json};

use super::{DockerError, ask};
use crate::input::Text;
use crate::metadata::container::{self, Surroundings};
use crate::metadata::inspect;
use crate::metadata::json::{at, entries, text};
use crate::metadata::observation::NetworkFacts;
use crate::metadata::workload::{Runtime, Workload};

/// How long a listing waits for one inspection.
const INSPECT_PATIENCE: Duration = Duration::from_secs(2);

/// How many containers a listing asks for at a time.
pub(super) const CONCURRENCY: usize = 16;

/// More images than this are forgotten and asked for again.
const IMAGES_KEPT: usize = 1024;

/// One connection and what it has learnt.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    docker: Docker,
    resolvers: Arc<BTreeSet<IpAddr>>,
    images: Arc<Mutex<BTreeMap<String, Value>>>,
    networks: Arc<Mutex<Vec<NetworkFacts>>>,
}

impl Reader {
    pub(super) fn new(docker: Docker, resolvers: BTreeSet<IpAddr>) -> Self {
        Self {
            docker,
            resolvers: Arc::new(resolvers),
            images: Arc::default(),
            networks: Arc::default(),
        }
    }

    pub(super) fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Whether a network is known already.
    pub(super) fn knows_network(&self, id: &str) -> bool {
        locked(&self.networks).iter().any(|facts| facts.key.0 == id)
    }

    /// Every network there is now; kept for reading containers.
    pub(super) async fn refresh_networks(&self) -> Result<Vec<NetworkFacts>, DockerError> {
        let networks = self
            .docker
            .list_networks(None::<ListNetworksOptions>)
            .await
            .map_err(|source| ask("list the networks", source))?;
        let mut facts = Vec::new();
        for network in networks {
            facts.extend(inspect::network(&to_value(&network)?));
        }
        locked(&self.networks).clone_from(&facts);
        Ok(facts)
    }

    /// Everything there is now.
    pub(super) async fn list(&self) -> Result<Vec<(String, Workload)>, DockerError> {
        let summaries = self.summaries(None).await?;
        let readings = stream::iter(summaries).map(|summary| async move {
            let id = text(&summary, &["Id"]).to_owned();
            let full = tokio::time::timeout(INSPECT_PATIENCE, self.inspect(&id)).await;
            let workload = match full {
                Ok(Ok(workload)) => workload?,
                // Too slow, or an answer nobody understands: better some facts than none.
                Err(_) | Ok(Err(_)) => self.summarised(&summary).await?,
            };
            Some((id, workload))
        });
        Ok(readings.buffer_unordered(CONCURRENCY).filter_map(std::future::ready).collect().await)
    }

    /// All facts of one container; none when there is no such container. Blocks while it is being started.
    pub(super) async fn inspect(&self, id: &str) -> Result<Option<Workload>, DockerError> {
        match self.docker.inspect_container(id, None).await {
            Ok(answer) => {
                let object = to_value(&answer)?;
                self.image(text(&object, &["Image"])).await;
                Ok(self.workload(&object))
            }
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            Err(source) => Err(ask("inspect a container", source)),
        }
    }

    /// The facts of one container that Docker tells without waiting; none when there is no such container.
    pub(super) async fn summary(&self, id: &str) -> Result<Option<Workload>, DockerError> {
        let summaries = self.summaries(Some(id)).await?;
        match summaries.into_iter().find(|summary| text(summary, &["Id"]) == id) {
            Some(summary) => Ok(self.summarised(&summary).await),
            None => Ok(None),
        }
    }

    /// A container's name and the runtime it was created with. None when it is gone, or being started.
    pub(super) async fn runtime_of(&self, id: &str) -> Option<(Text, Text)> {
        let asked = self.docker.inspect_container(id, None);
        let answer = tokio::time::timeout(INSPECT_PATIENCE, asked).await.ok()?.ok()?;
        let runtime = answer.host_config?.runtime?;
        Some((Text::new(answer.name?.trim_start_matches('/')), Text::new(&runtime)))
    }

    pub(super) async fn summaries(&self, id: Option<&str>) -> Result<Vec<Value>, DockerError> {
        let filters = id.map(|id| HashMap::from([("id".to_owned(), vec![id.to_owned()])]));
        let options = ListContainersOptions { all: true, filters, ..Default::default() };
        let summaries = self
            .docker
            .list_containers(Some(options))
            .await
            .map_err(|source| ask("list the containers", source))?;
        summaries.iter().map(to_value).collect()
    }

    async fn summarised(&self, summary: &Value) -> Option<Workload> {
        let image = self.image(text(summary, &["ImageID"])).await;
        self.workload(&as_inspected(summary, &image))
    }

    fn workload(&self, object: &Value) -> Option<Workload> {
        let images = locked(&self.images);
        let networks = locked(&self.networks);
        let around = Surroundings {
            runtime: &Runtime::Docker,
            resolvers: &self.resolvers,
            images: &images,
            networks: &networks,
        };
        let mut workload = container::workload(object, around).ok()?;
        if let Some(netns) = &mut workload.netns {
            netns.inode = container::netns_inode(netns.pid);
        }
        Some(workload)
    }

    /// An image by id, asked for once; null when it cannot be had.
    async fn image(&self, id: &str) -> Value {
        if let Some(known) = locked(&self.images).get(id) {
            return known.clone();
        }
        let Ok(answer) = self.docker.inspect_image(id).await else { return Value::Null };
        let image = to_value(&answer).unwrap_or_default();
        let mut images = locked(&self.images);
        if images.len() >= IMAGES_KEPT {
            images.clear();
        }
        images.insert(id.to_owned(), image.clone());
        image
    }
}

/// A summary in the shape of an inspection; what only an inspection knows comes from the image, or is missing.
fn as_inspected(summary: &Value, image: &Value) -> Value {
    let names = at(summary, &["Names"]).as_array().map(Vec::as_slice).unwrap_or_default();
    // `/web/db` is a link's name for it, `/db` its own.
    let is_own = |name: &&str| !name.trim_start_matches('/').contains('/');
    let name = names.iter().filter_map(Value::as_str).find(is_own).unwrap_or_default();
    let mut ports = BTreeMap::<String, Vec<Value>>::new();
    let mut exposed = BTreeMap::<String, Value>::new();
    for (key, value) in entries(image, &["Config", "ExposedPorts"]) {
        exposed.insert(key.to_owned(), value.clone());
    }
    for port in at(summary, &["Ports"]).as_array().into_iter().flatten() {
        let number = |key: &str| at(port, &[key]).as_u64();
        let Some(private) = number("PrivatePort") else { continue };
        let key = format!("{private}/{}", text(port, &["Type"]));
        exposed.insert(key.clone(), json!({}));
        if let Some(public) = number("PublicPort") {
            let binding = json!({"HostIp": text(port, &["IP"]), "HostPort": public.to_string()});
            ports.entry(key).or_default().push(binding);
        }
    }
    json!({
        "Id": text(summary, &["Id"]),
        "Name": name,
        "Image": text(summary, &["ImageID"]),
        "State": {"Status": text(summary, &["State"])},
        "HostConfig": {"NetworkMode": text(summary, &["HostConfig", "NetworkMode"])},
        "Config": {
            "Image": text(summary, &["Image"]),
            "Labels": at(summary, &["Labels"]),
            "Env": at(image, &["Config", "Env"]),
            "Entrypoint": at(image, &["Config", "Entrypoint"]),
            "Cmd": at(image, &["Config", "Cmd"]),
            "ExposedPorts": exposed,
        },
        "NetworkSettings": {"Networks": at(summary, &["NetworkSettings", "Networks"]), "Ports": ports},
    })
}

fn to_value(answer: &impl serde::Serialize) -> Result<Value, DockerError> {
    serde_json::to_value(answer)
        .map_err(|error| ask("read an answer", Error::JsonSerdeError { err: error }))
}

/// A lock whose holder panicked still guards whole values.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_reads_like_an_inspection() {
        let summary = json!({
            "Id": "c1", "Names": ["/web/db", "/shop-db-1"], "Image": "postgres:16", "ImageID": "sha256:1",
            "State": "running", "HostConfig": {"NetworkMode": "shop_default"},
            "Labels": {"com.docker.compose.project": "shop", "com.docker.compose.service": "db"},
            "Ports": [{"IP": "0.0.0.0", "PrivatePort": 5432, "PublicPort": 15432, "Type": "tcp"}, {"PrivatePort": 9, "Type": "udp"}],
            "NetworkSettings": {"Networks": {"shop_default": {"NetworkID": "n1", "IPAddress": "172.20.0.2"}}}
        });
        let image = json!({"Config": {"Env": ["PGDATA=/x"], "Cmd": ["postgres"], "ExposedPorts": {"5432/tcp": {}}}});
        let images = BTreeMap::from([("sha256:1".to_owned(), image.clone())]);
        let resolvers = BTreeSet::new();
        let around = Surroundings {
            runtime: &Runtime::Docker,
            resolvers: &resolvers,
            images: &images,
            networks: &[],
        };
        let workload = container::workload(&as_inspected(&summary, &image), around).unwrap();
        assert_eq!(
            (workload.name.as_str(), workload.display_name().as_str()),
            ("shop-db-1", "shop/db")
        );
        assert_eq!(workload.image.exposed.len(), 2);
        assert!(workload.env_names.contains("PGDATA"));
        assert_eq!(workload.published.len(), 1);
        assert_eq!(workload.addresses().count(), 1);
        assert_eq!(workload.netns, None);
    }
}
