//! Owns Docker as a source of facts: where its API is, and one reading of everything.
//!
//! `watch` follows it, `reader` asks it, `runtimes` asks which OCI runtimes it has, `engine` how it runs. What an answer means is `container`'s and `inspect`'s business.

mod engine;
mod reader;
mod runtimes;
mod watch;

use std::collections::BTreeSet;
use std::net::IpAddr;

use bollard::{ClientVersion, Docker};

pub use super::resolvers::host_resolvers;
use super::workload::Workload;
use crate::input::Text;
use reader::Reader;

pub use engine::EngineFacts;
pub use runtimes::Runtimes;

/// The oldest API that tells what is needed: Docker 20.10.
pub const OLDEST_API: (usize, usize) = (1, 41);

/// What to ask for first; it is the oldest that Docker 29 still answers. Later versions add nothing read here.
const WANTED_API: (usize, usize) = (1, 44);

/// Seconds after which a request that nobody waits for any more is given up.
const REQUEST_TIMEOUT: u64 = 120;

/// Why Docker could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// The address is none that can be used.
    #[error(
        "cannot use the Docker address `{0}`; write unix:///path/to/docker.sock or tcp://host:port (without TLS)"
    )]
    Address(Text),
    /// No connection, or no answer.
    #[error("cannot connect to Docker at {host}")]
    Connect {
        /// The address.
        host: Text,
        /// Why.
        #[source]
        source: Box<bollard::errors::Error>,
    },
    /// Docker is older than 20.10.
    #[error("Docker at {host} is too old: it speaks API {found}, needed is {}.{} (Docker 20.10)", OLDEST_API.0, OLDEST_API.1)]
    TooOld {
        /// The address.
        host: Text,
        /// The version it speaks.
        found: Text,
    },
    /// A request failed.
    #[error("cannot {action} of Docker")]
    Ask {
        /// What was asked: `list the containers`.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: Box<bollard::errors::Error>,
    },
    /// The event stream ended.
    #[error("the stream of Docker's events ended")]
    StreamEnded,
}

/// Docker at one address. Nothing is connected until it is asked.
#[derive(Clone, Debug)]
pub struct DockerSource {
    host: String,
    resolvers: BTreeSet<IpAddr>,
}

impl DockerSource {
    /// Docker at `host` (`unix:///path` or `tcp://address:port`), whose containers without resolvers of their own
    /// have `resolvers` (see [`host_resolvers`]).
    pub fn new(host: &str, resolvers: BTreeSet<IpAddr>) -> Result<Self, DockerError> {
        let is_plain = ["unix:///", "tcp://", "http://"].iter().any(|s| host.starts_with(s));
        if !is_plain {
            return Err(DockerError::Address(Text::new(host)));
        }
        Ok(Self { host: host.to_owned(), resolvers })
    }

    /// Docker at `DOCKER_HOST` if that is set, else at `configured`.
    pub fn from_env(configured: &str, resolvers: BTreeSet<IpAddr>) -> Result<Self, DockerError> {
        let env = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
        let wants_tls = std::env::var("DOCKER_TLS_VERIFY").is_ok_and(|value| !value.is_empty());
        match env {
            Some(host) if wants_tls && host.starts_with("tcp://") => {
                Err(DockerError::Address(Text::new(&host)))
            }
            Some(host) => Self::new(&host, resolvers),
            None => Self::new(configured, resolvers),
        }
    }

    /// The address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Every container there is now. Containers that vanish meanwhile are left out; of one whose inspection takes longer
    /// than 2 s (it is being started) there are the facts that Docker tells without waiting.
    pub async fn list(&self) -> Result<Vec<Workload>, DockerError> {
        let reader = Reader::new(self.connect().await?, self.resolvers.clone());
        reader.refresh_networks().await?;
        let listed = reader.list().await?;
        Ok(listed.into_iter().map(|(_, workload)| workload).collect())
    }

    /// Connects and agrees on a version of the API.
    async fn connect(&self) -> Result<Docker, DockerError> {
        let host = Text::new(&self.host);
        let failed = |source| DockerError::Connect { host: host.clone(), source: Box::new(source) };
        let mut asked = WANTED_API;
        loop {
            let docker = self.client(asked).map_err(failed)?;
            let (status, message) = match docker.version().await {
                Ok(_) => return Ok(docker),
                Err(bollard::errors::Error::DockerResponseServerError { status_code, message }) => {
                    (status_code, message)
                }
                Err(error) => return Err(failed(error)),
            };
            // "client version 1.44 is too new. Maximum supported API version is 1.41", and the reverse.
            let supported = version_at_end(&message);
            match supported {
                Some(found) if found < OLDEST_API => {
                    let found = Text::new(&format!("{}.{}", found.0, found.1));
                    return Err(DockerError::TooOld { host, found });
                }
                Some(found) if found != asked && asked == WANTED_API => asked = found,
                _ => {
                    return Err(failed(bollard::errors::Error::DockerResponseServerError {
                        status_code: status,
                        message,
                    }));
                }
            }
        }
    }

    fn client(&self, (major, minor): (usize, usize)) -> Result<Docker, bollard::errors::Error> {
        let version = ClientVersion { major_version: major, minor_version: minor };
        if self.host.starts_with("unix://") {
            Docker::connect_with_unix(&self.host, REQUEST_TIMEOUT, &version)
        } else {
            Docker::connect_with_http(&self.host, REQUEST_TIMEOUT, &version)
        }
    }
}

fn ask(action: &'static str, source: bollard::errors::Error) -> DockerError {
    DockerError::Ask { action, source: Box::new(source) }
}

/// The API version at the end of Docker's message about versions.
fn version_at_end(message: &str) -> Option<(usize, usize)> {
    let (_, tail) = message.rsplit_once("API version is ")?;
    let number = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse().ok()
    };
    let (major, minor) = tail.split_once('.')?;
    Some((number(major)?, number(minor)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_are_taken() {
        for host in ["unix:///var/run/docker.sock", "tcp://127.0.0.1:2375", "http://[::1]:1"] {
            assert!(DockerSource::new(host, BTreeSet::new()).is_ok(), "{host}");
        }
        for host in ["", "/var/run/docker.sock", "https://h:2376", "ssh://h", "unix://relative"] {
            assert!(DockerSource::new(host, BTreeSet::new()).is_err(), "{host}");
        }
    }

    #[test]
    fn dockers_word_on_versions_is_understood() {
        let too_new = "client version 1.44 is too new. Maximum supported API version is 1.41";
        assert_eq!(version_at_end(too_new), Some((1, 41)));
        let too_old =
            "client version 1.44 is too old. Minimum supported API version is 1.51, please upgrade";
        assert_eq!(version_at_end(too_old), Some((1, 51)));
        assert_eq!(version_at_end("page not found"), None);
    }
}
