//! Owns asking Docker which OCI runtimes it knows, and which of them its containers use.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bollard::query_parameters::EventsOptions;
use futures_util::{StreamExt, stream};

use super::reader::Reader;
use super::{DockerError, DockerSource, ask};
use crate::input::Text;
use crate::metadata::json::text;

/// What Docker says of OCI runtimes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runtimes {
    /// Docker's version.
    pub version: Text,
    /// Which one containers get that ask for none.
    pub default: Text,
    /// All it knows, by name.
    pub known: BTreeSet<Text>,
}

impl DockerSource {
    /// Asks for the runtimes.
    pub async fn runtimes(&self) -> Result<Runtimes, DockerError> {
        let docker = self.connect().await?;
        let info = docker.info().await.map_err(|source| ask("ask the runtimes", source))?;
        let known = info.runtimes.unwrap_or_default();
        Ok(Runtimes {
            version: Text::new(&info.server_version.unwrap_or_default()),
            default: Text::new(&info.default_runtime.unwrap_or_default()),
            known: known.keys().map(|name| Text::new(name)).collect(),
        })
    }

    /// Waits until Docker tells that it has read its configuration again, later than `since` (since 1970); at most `limit`.
    /// Returns whether it told. A configuration it does not like is not told of.
    pub async fn has_reloaded(
        &self,
        since: Duration,
        limit: Duration,
    ) -> Result<bool, DockerError> {
        let docker = self.connect().await?;
        let is_reload = [("type", "daemon"), ("event", "reload")];
        let filters = is_reload.map(|(key, value)| (key.to_owned(), vec![value.to_owned()]));
        let options = EventsOptions {
            since: Some(format!("{}.{:09}", since.as_secs(), since.subsec_nanos())),
            filters: Some(HashMap::from(filters)),
            ..Default::default()
        };
        let mut events = docker.events(Some(options));
        match tokio::time::timeout(limit, events.next()).await {
            Err(_) | Ok(None) => Ok(false),
            Ok(Some(Ok(_))) => Ok(true),
            Ok(Some(Err(source))) => Err(ask("follow the events", source)),
        }
    }

    /// The containers there are, running or not, each with its name and the runtime it was created with.
    pub async fn containers_runtimes(&self) -> Result<Vec<(Text, Text)>, DockerError> {
        let reader = Reader::new(self.connect().await?, BTreeSet::new());
        let summaries = reader.summaries(None).await?;
        let asked = stream::iter(summaries).map(|summary| {
            let reader = &reader;
            async move { reader.runtime_of(text(&summary, &["Id"])).await }
        });
        let mut found: Vec<_> = asked
            .buffer_unordered(super::reader::CONCURRENCY)
            .filter_map(std::future::ready)
            .collect()
            .await;
        found.sort();
        Ok(found)
    }
}
