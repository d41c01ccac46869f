//! Owns the configuration file (`seawall.toml`): its keys, their defaults, and every problem in it at once.
//!
//! What the settings mean is decided where they are obeyed; which files are read is decided in [`files`].

pub mod events;
pub mod files;
pub mod modes;
mod restart;
pub mod runtime;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::input::diagnostic::SourceFile;
use crate::input::toml_doc::{Document, Located, Section};
use crate::input::{Diagnostics, Text};
use crate::policy::{DenyVerdict, DenyVerdicts, LabelTrust, Mode, Settings, UnknownTreatment};

pub use events::{EventSettings, MetricsSettings, SinkSettings};
pub use files::{Files, Loaded, Source};
pub use runtime::{Fallback, RuntimeSettings};

/// Where the configuration is looked for.
pub const DEFAULT_PATH: &str = "/etc/seawall/seawall.toml";

/// The daemon's folder, unless said otherwise.
pub const STATE_DIR: &str = "/var/lib/seawall";

/// A valid configuration. The default is that of a host with no configuration at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Config {
    /// What generation obeys.
    pub settings: Settings,
    /// `docker.host`: where Docker's API is (`unix:///var/run/docker.sock`).
    pub docker_host: Option<String>,
    /// `docker.config`: the path of dockerd's `daemon.json`.
    pub docker_config: Option<PathBuf>,
    /// `containerd.address`: the path of containerd's socket.
    pub containerd_address: Option<PathBuf>,
    /// What happens to denied packets.
    pub deny: DenyVerdicts,
    /// What the OCI runtime wrapper does.
    pub runtime: RuntimeSettings,
    /// Whether tables are made seawall's own.
    pub ownership: Ownership,
    /// What is done about chains of others that lead packets around the policy.
    pub foreign: Foreign,
    /// What is kept of what was seen, and where events go.
    pub events: EventSettings,
    /// The metrics.
    pub metrics: MetricsSettings,
}

/// Whether tables are made seawall's own, so that nobody else may change them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ownership {
    /// Where the kernel can have them stay when the daemon ends.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// What is done about chains of others, in a container's netns, that lead packets around the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Foreign {
    /// They are removed where the container enforces and could have made them itself.
    #[default]
    Remove,
    /// They are only told of.
    Report,
}

impl Config {
    /// Reads a configuration file. Keys that are not written have their defaults.
    pub fn parse(file: SourceFile<'_>) -> Result<Self, Diagnostics> {
        let mut reader = Reader { file, problems: Diagnostics::new() };
        let document = Document::parse(file, &mut reader.problems);
        let config = reader.config(&document.root());
        reader.problems.into_result(config)
    }
}

struct Reader<'a> {
    file: SourceFile<'a>,
    problems: Diagnostics,
}

impl Reader<'_> {
    fn config(&mut self, root: &Section<'_>) -> Config {
        let default = Config::default();
        let modes = [("observe", Mode::Observe), ("enforce", Mode::Enforce), ("off", Mode::Off)];
        let treatments = [
            ("observe", UnknownTreatment::Observe),
            ("baseline", UnknownTreatment::Baseline),
            ("deny", UnknownTreatment::Deny),
        ];
        let ownerships = [("auto", Ownership::Auto), ("off", Ownership::Off)];
        let foreigns = [("remove", Foreign::Remove), ("report", Foreign::Report)];
        let trusts = [
            ("trust", LabelTrust::Trust),
            ("narrow", LabelTrust::Narrow),
            ("ignore", LabelTrust::Ignore),
        ];
        let settings = Settings {
            mode: self.word(root, "mode", "config/bad-mode", &modes).unwrap_or_default(),
            unknown: self
                .word(root, "unknown", "config/bad-unknown", &treatments)
                .unwrap_or_default(),
            labels: self.word(root, "labels", "config/bad-labels", &trusts).unwrap_or_default(),
            host: root
                .boolean("host", &mut self.problems)
                .map_or(default.settings.host, |host| host.value),
            resolvers: self.resolvers(root),
        };
        let ownership = self.word(root, "ownership", "config/bad-ownership", &ownerships);
        let foreign = self.word(root, "foreign", "config/bad-foreign", &foreigns);
        let docker = root.section("docker", &mut self.problems);
        let containerd = root.section("containerd", &mut self.problems);
        let deny = root.section("deny", &mut self.problems);
        let runtime = root.section("runtime", &mut self.problems);
        let events = root.section("events", &mut self.problems);
        let metrics = root.section("metrics", &mut self.problems);
        let config = Config {
            settings,
            docker_host: docker.as_ref().and_then(|section| self.docker_host(section)),
            docker_config: docker.as_ref().and_then(|section| self.docker_config(section)),
            containerd_address: containerd.as_ref().and_then(|section| self.containerd(section)),
            deny: deny.as_ref().map_or(default.deny, |section| self.deny(section)),
            runtime: runtime.as_ref().map_or(default.runtime, |section| self.runtime(section)),
            ownership: ownership.unwrap_or_default(),
            foreign: foreign.unwrap_or_default(),
            events: events.as_ref().map_or(default.events, |section| self.events(section)),
            metrics: metrics.as_ref().map_or(default.metrics, |section| self.metrics(section)),
        };
        let sections = [docker, containerd, deny, runtime, events, metrics];
        for section in std::iter::once(root).chain(sections.iter().flatten()) {
            section.finish(&mut self.problems);
        }
        config
    }

    /// One of a few words.
    fn word<T: Copy>(
        &mut self,
        section: &Section<'_>,
        key: &'static str,
        code: &'static str,
        words: &[(&str, T)],
    ) -> Option<T> {
        let given = section.string(key, &mut self.problems)?;
        let found = words.iter().find(|(word, _)| *word == given.value).map(|(_, value)| *value);
        if found.is_none() {
            let known = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
            let help = format!("use one of: {known}");
            let message = format!("`{key}` cannot be `{}`", Text::new(given.value));
            self.problem(&given, code, message, help);
        }
        found
    }

    fn resolvers(&mut self, root: &Section<'_>) -> Option<BTreeSet<IpAddr>> {
        let listed = root.strings("resolvers", &mut self.problems)?;
        let mut resolvers = BTreeSet::new();
        for item in listed {
            match item.value.parse::<IpAddr>() {
                Ok(address) if address.is_unspecified() || address.is_multicast() => {
                    let message = format!("no resolver can have the address {address}");
                    self.problem(&item, "config/bad-resolver", message, "write its own address");
                }
                Ok(address) => {
                    resolvers.insert(address);
                }
                Err(_) => {
                    let message = format!("`{}` is not an IP address", Text::new(item.value));
                    let help = "write addresses such as \"192.0.2.53\" or \"2001:db8::53\"";
                    self.problem(&item, "config/bad-resolver", message, help);
                }
            }
        }
        Some(resolvers)
    }

    fn docker_host(&mut self, section: &Section<'_>) -> Option<String> {
        let host = section.string("host", &mut self.problems)?;
        let is_socket =
            host.value.strip_prefix("unix://").is_some_and(|path| path.starts_with('/'));
        let is_network = ["tcp://", "http://"]
            .iter()
            .any(|scheme| host.value.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
        if is_socket || is_network {
            return Some(host.value.to_owned());
        }
        let message = format!("`{}` is no address of a Docker API", Text::new(host.value));
        let help = "write \"unix:///var/run/docker.sock\" or \"tcp://127.0.0.1:2375\"";
        self.problem(&host, "config/bad-docker-host", message, help);
        None
    }

    fn docker_config(&mut self, section: &Section<'_>) -> Option<PathBuf> {
        let path = section.string("config", &mut self.problems)?;
        if path.value.starts_with('/') {
            return Some(path.value.into());
        }
        let message = format!("`{}` is not an absolute path", Text::new(path.value));
        let help =
            "write the path of dockerd's configuration file, such as \"/etc/docker/daemon.json\"";
        self.problem(&path, "config/bad-docker-config", message, help);
        None
    }

    fn containerd(&mut self, section: &Section<'_>) -> Option<PathBuf> {
        let address = section.string("address", &mut self.problems)?;
        let path = address.value.strip_prefix("unix://").unwrap_or(address.value);
        if path.starts_with('/') {
            return Some(path.into());
        }
        let message = format!("`{}` is not an absolute path", Text::new(address.value));
        let help = "write the path of the socket, such as \"/run/containerd/containerd.sock\"";
        self.problem(&address, "config/bad-containerd-address", message, help);
        None
    }

    fn deny(&mut self, section: &Section<'_>) -> DenyVerdicts {
        let default = DenyVerdicts::default();
        let words = [("drop", DenyVerdict::Drop), ("reject", DenyVerdict::Reject)];
        let mut read = |key| self.word(section, key, "config/bad-deny", &words);
        DenyVerdicts {
            ingress: read("ingress").unwrap_or(default.ingress),
            egress: read("egress").unwrap_or(default.egress),
        }
    }

    fn runtime(&mut self, section: &Section<'_>) -> RuntimeSettings {
        let default = RuntimeSettings::default();
        let words = Fallback::ALL.map(|fallback| (fallback.word(), fallback));
        let wait = section.integer("wait_ms", runtime::WAIT_MS, &mut self.problems);
        RuntimeSettings {
            wait: wait.map_or(default.wait, |given| Duration::from_millis(given.value)),
            fallback: self
                .word(section, "fallback", "config/bad-fallback", &words)
                .unwrap_or(default.fallback),
        }
    }

    fn problem(
        &mut self,
        at: &Located<&str>,
        code: &'static str,
        message: String,
        help: impl Into<String>,
    ) {
        self.problems.push(self.file.problem(&at.span, code, message).with_help(help));
    }
}

#[cfg(test)]
mod tests;
