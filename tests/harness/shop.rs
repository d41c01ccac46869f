//! Owns a running instance of the example shop.

use std::net::SocketAddr;
use std::time::Duration;

use super::container::Container;
use super::deadline::eventually;
use super::docker_host::DockerHost;

/// How often the shop says it was visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Visits {
    /// Rows in PostgreSQL.
    pub(crate) sql: u64,
    /// The counter in Redis.
    pub(crate) redis: u64,
}

/// One instance of `examples/shop/compose.yaml`.
pub(crate) struct Shop<'h> {
    host: &'h DockerHost,
    project: String,
    port: u16,
}

impl<'h> Shop<'h> {
    /// Starts it as compose project `project`, its front door on `port`; returns when a visit succeeds.
    #[track_caller]
    pub(crate) fn up(host: &'h DockerHost, project: &str, port: u16) -> Self {
        let shop = Self { host, project: project.to_owned(), port };
        shop.compose(&["up", "-d"]);
        shop.await_visit();
        shop
    }

    /// docker-compose, on this shop; panics unless it succeeds.
    #[track_caller]
    pub(crate) fn compose(&self, args: &[&str]) -> String {
        self.host.compose_ok(&self.project, self.port, args)
    }

    /// The only container of a service, as it is now.
    #[track_caller]
    pub(crate) fn service(&self, service: &str) -> Container {
        let mut all = self.replicas(service);
        assert_eq!(all.len(), 1, "{}/{service} has other than one container", self.project);
        all.remove(0)
    }

    /// All running containers of a service.
    #[track_caller]
    pub(crate) fn replicas(&self, service: &str) -> Vec<Container> {
        let project = format!("label=com.docker.compose.project={}", self.project);
        let service = format!("label=com.docker.compose.service={service}");
        let ids = self.host.docker_ok(&["ps", "-q", "--no-trunc", "-f", &project, "-f", &service]);
        ids.lines().map(|id| self.host.container(id)).collect()
    }

    /// Visits from outside over IPv4: proxy, application, a real SQL query and a real Redis command.
    pub(crate) fn visit(&self) -> Result<Visits, String> {
        self.visit_at(SocketAddr::new(DockerHost::ADDR4, self.port))
    }

    /// The same over IPv6.
    pub(crate) fn visit6(&self) -> Result<Visits, String> {
        self.visit_at(SocketAddr::new(DockerHost::ADDR6, self.port))
    }

    /// The first visit over IPv4 that succeeds, within 30 s.
    #[track_caller]
    pub(crate) fn await_visit(&self) -> Visits {
        let mut last = String::new();
        let limit = Duration::from_secs(30);
        let attempt = || self.visit().map_err(|error| last = error).ok();
        let visits = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("a visit to the shop", limit, attempt)
        }));
        visits.unwrap_or_else(|_| panic!("the shop {} does not serve: {last}", self.project))
    }

    fn visit_at(&self, to: SocketAddr) -> Result<Visits, String> {
        let (status, body) = self
            .host
            .outside()
            .http(to, "/", Duration::from_secs(8))
            .map_err(|error| error.to_string())?;
        let value: serde_json::Value =
            serde_json::from_str(&body).map_err(|_| format!("{status}: {body}"))?;
        match (status, value["visits"].as_u64(), value["hits"].as_u64()) {
            (200, Some(sql), Some(redis)) => Ok(Visits { sql, redis }),
            _ => Err(format!("{status}: {body}")),
        }
    }
}
