//! Owns the settings of what is kept and told of (`[events]`), and of the metrics (`[metrics]`).

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::Serialize;

use super::Reader;
use crate::input::Text;
use crate::input::toml_doc::Section;

/// What `events.keep_days` may be.
pub const KEEP_DAYS: RangeInclusive<u64> = 1..=3650;
/// What `events.keep_rows` may be.
pub const KEEP_ROWS: RangeInclusive<u64> = 100..=1_000_000;
/// What `events.file_mib` may be.
pub const FILE_MIB: RangeInclusive<u64> = 1..=4096;
/// The port of syslog over UDP (RFC 5426).
const SYSLOG_PORT: u16 = 514;

/// What is kept of what was seen, and where events go besides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EventSettings {
    /// How many days flows, denials and events are kept.
    pub keep_days: u32,
    /// How many of each are kept.
    pub keep_rows: u32,
    /// Where events go besides.
    pub sinks: SinkSettings,
}

impl Default for EventSettings {
    fn default() -> Self {
        Self { keep_days: 30, keep_rows: 50_000, sinks: SinkSettings::default() }
    }
}

/// Where events go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SinkSettings {
    /// Whether they go to systemd's journal; none: where it is there.
    pub journald: Option<bool>,
    /// The journal's socket. No key of the configuration sets it.
    pub journald_socket: PathBuf,
    /// The file they are appended to, one JSON object a line.
    pub file: Option<PathBuf>,
    /// How large the file grows before it is begun anew, in MiB.
    pub file_mib: u32,
    /// The syslog they are sent to.
    pub syslog: Option<SyslogTarget>,
    /// The address they are posted to.
    pub webhook: Option<WebhookUrl>,
}

impl Default for SinkSettings {
    fn default() -> Self {
        Self {
            journald: None,
            journald_socket: "/run/systemd/journal/socket".into(),
            file: None,
            file_mib: 64,
            syslog: None,
            webhook: None,
        }
    }
}

/// A syslog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SyslogTarget {
    /// A unix datagram socket.
    Local(PathBuf),
    /// Over UDP.
    Udp {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
    },
}

impl SyslogTarget {
    /// `/dev/log`, `udp://HOST` or `udp://HOST:PORT`, with IPv6 addresses in brackets.
    fn parse(text: &str) -> Option<Self> {
        if text.starts_with('/') && !text.contains('\0') {
            return Some(Self::Local(text.into()));
        }
        let (host, port) = host_and_port(text.strip_prefix("udp://")?)?;
        Some(Self::Udp { host, port: port.unwrap_or(SYSLOG_PORT) })
    }
}

impl fmt::Display for SyslogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => write!(f, "{}", path.display()),
            Self::Udp { host, port } if host.contains(':') => write!(f, "udp://[{host}]:{port}"),
            Self::Udp { host, port } => write!(f, "udp://{host}:{port}"),
        }
    }
}

/// An `http://` or `https://` address. Such addresses are often secrets: what is shown of it is the host only.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    whole: String,
    shown: String,
}

impl WebhookUrl {
    /// Reads an address; none for what is no such address.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain || !matches!(scheme, "http" | "https") {
            return None;
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let place = authority.rsplit('@').next().unwrap_or_default();
        host_and_port(place)?;
        Some(Self { whole: text.to_owned(), shown: format!("{scheme}://{place}") })
    }

    /// The whole address, to connect to and not to show.
    pub fn secret(&self) -> &str {
        &self.whole
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Serialize for WebhookUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MetricsSettings {
    /// Where they are served; none is nowhere.
    pub listen: Option<SocketAddr>,
}

/// `HOST`, `HOST:PORT`, `[ADDRESS]` or `[ADDRESS]:PORT`.
fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (address, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let is_host = !host.is_empty() && host.len() <= 253;
    if !is_host || !(text.starts_with('[') || host.bytes().all(is_name)) {
        return None;
    }
    let port = match port {
        Some(port) => Some(port.parse::<u16>().ok().filter(|port| *port != 0)?),
        None => None,
    };
    Some((host.to_owned(), port))
}

impl Reader<'_> {
    pub(super) fn events(&mut self, section: &Section<'_>) -> EventSettings {
        let default = EventSettings::default();
        let mut number = |key, range, default: u32| {
            let given = section.integer(key, range, &mut self.problems);
            given.and_then(|given| u32::try_from(given.value).ok()).unwrap_or(default)
        };
        EventSettings {
            keep_days: number("keep_days", KEEP_DAYS, default.keep_days),
            keep_rows: number("keep_rows", KEEP_ROWS, default.keep_rows),
            sinks: SinkSettings {
                file_mib: number("file_mib", FILE_MIB, default.sinks.file_mib),
                journald: section.boolean("journald", &mut self.problems).map(|given| given.value),
                journald_socket: default.sinks.journald_socket,
                file: self.events_file(section),
                syslog: self.syslog(section),
                webhook: self.webhook(section),
            },
        }
    }

    pub(super) fn metrics(&mut self, section: &Section<'_>) -> MetricsSettings {
        let given = section.string("listen", &mut self.problems);
        let listen = given.and_then(|given| {
            let address = given.value.parse::<SocketAddr>().ok().filter(|one| one.port() != 0);
            if address.is_none() {
                let message = format!("`{}` is no address and port", Text::new(given.value));
                let help = "write \"127.0.0.1:9797\" or \"[::1]:9797\"";
                self.problem(&given, "config/bad-metrics-listen", message, help);
            }
            address
        });
        MetricsSettings { listen }
    }

    fn events_file(&mut self, section: &Section<'_>) -> Option<PathBuf> {
        let path = section.string("file", &mut self.problems)?;
        if path.value.starts_with('/') && !path.value.ends_with('/') && !path.value.contains('\0') {
            return Some(path.value.into());
        }
        let message = format!("`{}` is not an absolute path of a file", Text::new(path.value));
        let help = "write a path such as \"/var/log/seawall/events.jsonl\"";
        self.problem(&path, "config/bad-events-file", message, help);
        None
    }

    fn syslog(&mut self, section: &Section<'_>) -> Option<SyslogTarget> {
        let given = section.string("syslog", &mut self.problems)?;
        let target = SyslogTarget::parse(given.value);
        if target.is_none() {
            let message = format!("`{}` is no syslog", Text::new(given.value));
            let help = "write \"/dev/log\", or \"udp://HOST:514\"";
            self.problem(&given, "config/bad-syslog", message, help);
        }
        target
    }

    fn webhook(&mut self, section: &Section<'_>) -> Option<WebhookUrl> {
        let given = section.string("webhook", &mut self.problems)?;
        let url = WebhookUrl::parse(given.value);
        if url.is_none() {
            // It may be a secret with a slip in it, so it is not repeated.
            let message = "`webhook` is no http:// or https:// address".to_owned();
            let help = "write \"https://HOST/PATH\"";
            self.problem(&given, "config/bad-webhook", message, help);
        }
        url
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::input::Diagnostics;
    use crate::input::diagnostic::SourceFile;

    fn parse(text: &str) -> Result<Config, Diagnostics> {
        Config::parse(SourceFile { name: Path::new("seawall.toml"), text })
    }

    #[test]
    fn every_key_of_events_and_metrics_is_read() {
        let config = parse(
            r#"
            [events]
            keep_days = 7
            keep_rows = 1000
            journald = false
            file = "/var/log/seawall/events.jsonl"
            file_mib = 8
            syslog = "udp://[2001:db8::1]"
            webhook = "https://user:pass@hooks.example:8443/T0/secret"
            [metrics]
            listen = "[::1]:9797"
            "#,
        )
        .unwrap();
        let sinks = SinkSettings {
            journald: Some(false),
            journald_socket: "/run/systemd/journal/socket".into(),
            file: Some("/var/log/seawall/events.jsonl".into()),
            file_mib: 8,
            syslog: Some(SyslogTarget::Udp { host: "2001:db8::1".into(), port: 514 }),
            webhook: WebhookUrl::parse("https://user:pass@hooks.example:8443/T0/secret"),
        };
        assert_eq!(config.events, EventSettings { keep_days: 7, keep_rows: 1000, sinks });
        assert_eq!(config.metrics.listen, Some("[::1]:9797".parse().unwrap()));
    }

    #[test]
    fn all_problems_of_events_and_metrics_are_told_at_once() {
        let text = "[events]\nkeep_days = 0\nkeep_rows = 5\njournald = \"yes\"\nfile = \"events.jsonl\"\nfile_mib = 0\n\
                    syslog = \"tcp://x\"\nwebhook = \"hxxps://x/secret\"\nkeep = 1\n[metrics]\nlisten = \":9797\"\nport = 1\n";
        insta::assert_snapshot!(parse(text).unwrap_err(), @r#"
        seawall.toml:2:13: error[file/out-of-range]: `events.keep_days` must be a whole number from 1 to 3650
        seawall.toml:3:13: error[file/out-of-range]: `events.keep_rows` must be a whole number from 100 to 1000000
        seawall.toml:4:12: error[file/wrong-type]: `events.journald` must be true or false, found string
        seawall.toml:5:8: error[config/bad-events-file]: `events.jsonl` is not an absolute path of a file
            help: write a path such as "/var/log/seawall/events.jsonl"
        seawall.toml:6:12: error[file/out-of-range]: `events.file_mib` must be a whole number from 1 to 4096
        seawall.toml:7:10: error[config/bad-syslog]: `tcp://x` is no syslog
            help: write "/dev/log", or "udp://HOST:514"
        seawall.toml:8:11: error[config/bad-webhook]: `webhook` is no http:// or https:// address
            help: write "https://HOST/PATH"
        seawall.toml:9:1: error[file/unknown-key]: unknown key `keep`
            help: known keys here: file, file_mib, journald, keep_days, keep_rows, syslog, webhook
        seawall.toml:11:10: error[config/bad-metrics-listen]: `:9797` is no address and port
            help: write "127.0.0.1:9797" or "[::1]:9797"
        seawall.toml:12:1: error[file/unknown-key]: unknown key `port`
            help: known keys here: listen
        "#);
    }

    #[test]
    fn the_secret_part_of_a_webhook_is_never_shown() {
        let url =
            WebhookUrl::parse("https://user:pass@hooks.example:8443/T0/secret?key=1").unwrap();
        let json = serde_json::to_string(&url).unwrap();
        for shown in [url.to_string(), format!("{url:?}"), json] {
            assert_eq!(shown.trim_matches('"'), "https://hooks.example:8443");
        }
        assert_eq!(url.secret(), "https://user:pass@hooks.example:8443/T0/secret?key=1");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for wrong in [
            "",
            "http://",
            "https:///x",
            "ftp://x",
            "http://a b",
            "http://x:0",
            "http://[::1",
            "https://x\n",
        ] {
            assert_eq!(WebhookUrl::parse(wrong), None, "{wrong:?}");
        }
        for wrong in ["dev/log", "udp://", "udp://x:y", "udp://a/b", "udp://::1", "host:514"] {
            assert_eq!(SyslogTarget::parse(wrong), None, "{wrong:?}");
        }
        for right in ["/dev/log", "udp://logs.example:1514", "udp://[::1]:514"] {
            assert_eq!(SyslogTarget::parse(right).unwrap().to_string(), right);
        }
    }
}
