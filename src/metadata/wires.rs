//! Owns reading from labels and environment values whom a workload says it talks to.
//!
//! Environment values hold passwords. Of a value, nothing but host names and ports is kept, and where it
//! is not certain which part is the host, nothing at all.

use std::net::{IpAddr, Ipv6Addr};

use super::workload::{Wire, WireVia};
use crate::input::Text;

/// Longer values are not looked at: no list of hosts is that long.
const MAX_VALUE: usize = 4096;

/// Names of variables whose plain value may be a bare host name.
const HOST_SUFFIXES: [&str; 11] = [
    "_HOST",
    "_HOSTS",
    "_HOSTNAME",
    "_SERVER",
    "_SERVERS",
    "_ADDR",
    "_ADDRESS",
    "_URL",
    "_URI",
    "_ENDPOINT",
    "_ENDPOINTS",
];

/// Names of variables whose plain value may be a secret that looks like `host:port`.
const SECRET_MARKS: [&str; 10] =
    ["PASS", "SECRET", "TOKEN", "KEY", "AUTH", "CRED", "USER", "LOGIN", "PWD", "SALT"];

/// What a bare host name would otherwise be mistaken for.
const PLAIN_WORDS: [&str; 10] =
    ["true", "false", "yes", "no", "on", "off", "none", "null", "enabled", "disabled"];

/// The wires that an environment variable makes.
///
/// Understood are `scheme://[user:password@]host[:port]…` with several hosts or several URLs separated by commas or
/// blanks, `jdbc:` in front of that, plain `host:port` lists, and a bare `host` where the variable's name says it is one.
pub fn from_env(name: &str, value: &str) -> Vec<Wire> {
    if value.len() > MAX_VALUE {
        return Vec::new();
    }
    let value = value.trim().trim_matches(['"', '\'']);
    let hosts = if value.contains("//") { from_urls(value) } else { from_plain(name, value) };
    let via = WireVia::Env(Text::new(name));
    hosts
        .into_iter()
        .map(|(host, port)| Wire { host: Text::new(&host), port, via: via.clone() })
        .collect()
}

/// The wires of a `com.docker.compose.depends_on` label: `db:service_started:false,redis:service_healthy:true`.
pub fn from_depends_on(label: &str) -> Vec<Wire> {
    label
        .split(',')
        .filter_map(|entry| host_name(entry.split(':').next()?.trim()))
        .map(|host| Wire { host: Text::new(&host), port: None, via: WireVia::DependsOn })
        .collect()
}

/// The wire of one link: Docker's `/db:/web/alias`, or `db:alias`.
pub fn from_link(link: &str) -> Option<Wire> {
    let host = host_name(link.split(':').next()?.trim_start_matches('/'))?;
    Some(Wire { host: Text::new(&host), port: None, via: WireVia::Link })
}

type Endpoint = (String, Option<u16>);

fn from_urls(value: &str) -> Vec<Endpoint> {
    let words: Vec<_> = value.split_whitespace().collect();
    // A password with a blank in it: its first half would be taken for a port.
    if words.iter().any(|word| word.contains('@') && !word.contains("//")) {
        return Vec::new();
    }
    words.into_iter().flat_map(split_urls).flat_map(from_url).collect()
}

/// Splits at commas after which a new URL begins (`http://a,http://b`), not at those between hosts of one.
fn split_urls(word: &str) -> Vec<&str> {
    let mut urls = Vec::new();
    let mut rest = word;
    let mut from = 0;
    while let Some(comma) = rest[from..].find(',').map(|at| from + at) {
        let next = &rest[comma + 1..];
        if scheme_length(next).is_some() {
            urls.push(&rest[..comma]);
            (rest, from) = (next, 0);
        } else {
            from = comma + 1;
        }
    }
    urls.push(rest);
    urls
}

/// How many bytes `scheme://` takes, with `jdbc:` and other prefixes, or none when it does not begin so.
fn scheme_length(url: &str) -> Option<usize> {
    let slashes = url.find("//")?;
    let scheme = url[..slashes].strip_suffix(':').or_else(|| url[..slashes].strip_suffix(":@"))?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-:_".contains(&b));
    is_scheme.then_some(slashes + 2)
}

fn from_url(url: &str) -> Vec<Endpoint> {
    let Some(start) = scheme_length(url) else { return Vec::new() };
    let rest = &url[start..];
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#', ';']).unwrap_or(rest.len()));
    let hosts = match authority.rsplit_once('@') {
        Some((_, hosts)) => hosts,
        // A password with a slash in it: what stands before the slash may be part of the secret.
        None if path.contains('@') => return Vec::new(),
        None => authority,
    };
    hosts.split(',').filter_map(endpoint).collect()
}

fn from_plain(name: &str, value: &str) -> Vec<Endpoint> {
    let name = name.to_ascii_uppercase();
    if SECRET_MARKS.iter().any(|mark| name.contains(mark)) || value.contains('@') {
        return Vec::new();
    }
    let names_hosts = HOST_SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
    let read = |item: &str| {
        let item = item.trim();
        let item = if names_hosts { item.split(['/', '?', '#']).next()? } else { item };
        let (host, port) = endpoint(item)?;
        let is_certain = port.is_some() || names_hosts;
        (is_certain && !PLAIN_WORDS.contains(&host.as_str())).then_some((host, port))
    };
    // One item that is no host makes the whole value something else.
    value.split(',').map(read).collect::<Option<_>>().unwrap_or_default()
}

/// `host`, `host:port`, `[v6]:port` or a bare IPv6 address.
fn endpoint(text: &str) -> Option<Endpoint> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, rest) = bracketed.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(port_number(port)?),
            None if rest.is_empty() => None,
            None => return None,
        };
        return Some((address.to_string(), port));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some((address.to_string(), None));
    }
    match text.split_once(':') {
        Some((host, port)) => Some((host_name(host)?, Some(port_number(port)?))),
        None => Some((host_name(text)?, None)),
    }
}

fn port_number(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port != 0)
}

/// A host name as Docker and DNS allow it, in lower case without the final dot, or an address.
/// A name of digits only is none: that is a time, a version or a port.
pub(crate) fn host_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_label = |label: &str| {
        let is_edge =
            |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
        label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && is_edge(label.as_bytes().first())
            && is_edge(label.as_bytes().last())
    };
    let is_address = name.parse::<IpAddr>().is_ok();
    let is_name = name.len() <= 253
        && name.split('.').all(is_label)
        && name.bytes().any(|b| b.is_ascii_alphabetic());
    (is_address || is_name).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(name: &str, value: &str) -> Vec<String> {
        from_env(name, value)
            .into_iter()
            .map(|wire| match wire.port {
                Some(port) => format!("{} {port}", wire.host),
                None => wire.host.to_string(),
            })
            .collect()
    }

    #[test]
    fn hosts_are_found_wherever_programs_write_them() {
        let cases: &[(&str, &str, &[&str])] = &[
            ("DATABASE_URL", "postgres://app:s3cret@DB:5432/shop?sslmode=off", &["db 5432"]),
            ("X", "mongodb://u:p@a:1,b:2/db?replicaSet=r", &["a 1", "b 2"]),
            ("X", "http://a:1,http://b:2/x", &["a 1", "b 2"]),
            ("X", "amqp://u:p@a/vh,amqp://u:p@b/vh", &["a", "b"]),
            ("X", "redis://cache", &["cache"]),
            ("X", "redis://:pa,ss:wo@rd@cache:6379/0", &["cache 6379"]),
            ("X", "jdbc:postgresql://h:5432/db?password=x", &["h 5432"]),
            ("X", "jdbc:sqlserver://h:1433;user=sa;password=p@ss", &[]),
            ("X", "jdbc:sqlserver://h:1433;databaseName=x", &["h 1433"]),
            ("X", "jdbc:oracle:thin:@//h:1521/svc", &["h 1521"]),
            ("X", "http://[fd00::1]:80/", &["fd00::1 80"]),
            ("BROKERS", "kafka1:9092, kafka2:9092", &["kafka1 9092", "kafka2 9092"]),
            ("MEMCACHED", "cache:11211", &["cache 11211"]),
            ("DB_HOST", "shop_db", &["shop_db"]),
            ("DB_HOST", "10.0.0.7", &["10.0.0.7"]),
            ("db_host", "db.internal.", &["db.internal"]),
            ("API_URL", "api:8080/v1", &["api 8080"]),
            ("ES_HOSTS", "a,b", &["a", "b"]),
        ];
        for (name, value, expected) in cases {
            assert_eq!(hosts(name, value), *expected, "{name}={value}");
        }
    }

    #[test]
    fn what_is_no_host_makes_no_wire() {
        for (name, value) in [
            ("MODE", "production"),
            ("START", "10:30"),
            ("PORTS", "8080:80"),
            ("DEBUG_URL", "true"),
            ("X", "unix:///var/run/x.sock"),
            ("X", "sqlite:///data/x.db"),
            ("X", "${DB}:5432"),
            ("X", "a:0"),
            ("X", "a:65536"),
            ("X", "// a comment"),
            ("X", "sha256:9f86d081"),
            ("DB_HOST", "two words"),
            ("DB_HOST", "a\nb"),
            ("DB_HOST", "\u{1b}[31m"),
            ("DB_HOST", "-rf"),
            ("X", ""),
            ("X", "://"),
            ("X", "http://"),
        ] {
            assert!(hosts(name, value).is_empty(), "{name}={value:?}");
        }
        assert!(hosts("X_URL", &format!("http://{}", "a".repeat(10_000))).is_empty());
    }

    #[test]
    fn no_part_of_a_secret_is_taken_for_a_host() {
        for (name, value) in [
            ("BASIC_AUTH", "admin:1234"),
            ("DB_PASSWORD", "hunter:22"),
            ("API_KEY_URL", "hunter2"),
            ("X", "postgres://hunter:12/34@db/x"),
            ("X", "postgres://user:hun?ter@db/x"),
            ("X", "hunter:2@db"),
            ("X", "postgres://hunter:12 34@db/x"),
            ("SMTP_SERVER", "hunter:25@mail"),
        ] {
            assert!(hosts(name, value).is_empty(), "{name}={value}");
        }
    }

    #[test]
    fn labels_and_links_name_their_targets() {
        let wires = from_depends_on("db:service_started:false,Redis:service_healthy:true,,%:x");
        assert_eq!(wires.iter().map(|w| w.host.as_str()).collect::<Vec<_>>(), ["db", "redis"]);
        assert_eq!(from_link("/shop-db-1:/shop-web-1/db").unwrap().host, "shop-db-1");
        assert_eq!(from_link("db:database").unwrap().host, "db");
        assert_eq!(from_link("\n:x"), None);
    }
}
