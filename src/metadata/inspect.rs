//! Owns reading saved `docker inspect` output.
//!
//! Pure. A file holds container objects, alone or in arrays, one after the other; image and network objects may stand
//! among them and complete what the containers say. All problems are reported at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use serde_json::Value;

use super::container::{self, Surroundings};
use super::json::{at, text};
use super::observation::NetworkFacts;
use super::workload::{NetworkKey, Runtime, Workload};
use crate::input::diagnostic::SourceFile;
use crate::input::{Diagnostics, Text};

/// The workloads of a saved inspect, in the file's order. `resolvers` are those of containers that have none of their own.
///
/// Problems have the codes `inspect/syntax`, `inspect/not-a-container`, `inspect/unidentified`, `inspect/duplicate`
/// and `inspect/empty`.
pub fn parse(
    file: &Path,
    bytes: &[u8],
    resolvers: &BTreeSet<IpAddr>,
) -> Result<Vec<Workload>, Diagnostics> {
    let source_text = String::from_utf8_lossy(bytes);
    // Windows shells write a byte order mark when output is redirected.
    let source_text = source_text.strip_prefix('\u{feff}').unwrap_or(&source_text);
    let source = SourceFile { name: file, text: source_text };
    let mut problems = Diagnostics::new();
    let objects = objects(source, &mut problems);
    let mut images = BTreeMap::new();
    let mut networks = Vec::new();
    let mut containers = Vec::new();
    for (offset, object) in objects {
        match kind(&object) {
            Kind::Image => {
                images.insert(text(&object, &["Id"]).to_owned(), object);
            }
            Kind::Network => networks.extend(network(&object)),
            Kind::Other => containers.push((offset, object)),
        }
    }
    let runtime = Runtime::File;
    let around =
        Surroundings { runtime: &runtime, resolvers, images: &images, networks: &networks };
    let mut workloads: Vec<Workload> = Vec::new();
    let has_containers = !containers.is_empty();
    for (offset, object) in containers {
        let problem = |code, message: String| source.problem(&(offset..offset), code, message);
        match container::workload(&object, around) {
            Ok(workload) if workloads.iter().any(|known| known.id == workload.id) => {
                problems.push(problem(
                    "inspect/duplicate",
                    format!("the container {} is here twice", workload.id.short()),
                ))
            }
            Ok(workload) => workloads.push(workload),
            Err(error) => {
                let code = match error {
                    container::ContainerError::NotAContainer => "inspect/not-a-container",
                    container::ContainerError::Unidentified => "inspect/unidentified",
                };
                problems.push(
                    problem(code, error.to_string())
                        .with_help("save containers with `docker inspect $(docker ps -aq)`"),
                );
            }
        }
    }
    if problems.is_empty() && !has_containers {
        problems.push(source.problem(&(0..0), "inspect/empty", "there is no container in here"));
    }
    container::resolve_shared(&mut workloads);
    problems.into_result(workloads)
}

/// Reads a network object (`GET /networks`, `docker network inspect`). None for what has neither id nor name.
pub fn network(object: &Value) -> Option<NetworkFacts> {
    let name = text(object, &["Name"]);
    let id = match text(object, &["Id"]) {
        "" => name,
        id => id,
    };
    if id.is_empty() {
        return None;
    }
    let configs = at(object, &["IPAM", "Config"]).as_array().map(Vec::as_slice).unwrap_or_default();
    let option = |key: &str| text(object, &["Options", key]);
    let driver = text(object, &["Driver"]);
    Some(NetworkFacts {
        key: NetworkKey(Text::new(id)),
        name: Text::new(name),
        driver: (!driver.is_empty()).then(|| Text::new(driver)),
        is_default_bridge: name == "bridge"
            || option("com.docker.network.bridge.default_bridge") == "true",
        subnets: configs
            .iter()
            .filter_map(|config| text(config, &["Subnet"]).parse().ok())
            .collect(),
        // Some versions write the gateway with a prefix length.
        gateways: configs
            .iter()
            .filter_map(|config| text(config, &["Gateway"]).split('/').next()?.parse().ok())
            .collect(),
    })
}

enum Kind {
    Image,
    Network,
    Other,
}

fn kind(object: &Value) -> Kind {
    let has = |key: &str| !at(object, &[key]).is_null();
    if has("HostConfig") || has("NetworkSettings") || has("State") {
        Kind::Other
    } else if has("RepoTags") || has("RepoDigests") || has("RootFS") {
        Kind::Image
    } else if has("IPAM") || (has("Driver") && has("Scope") && !has("Mountpoint")) {
        Kind::Network
    } else {
        Kind::Other
    }
}

/// All objects with the offset each begins at; arrays are opened.
fn objects(source: SourceFile<'_>, problems: &mut Diagnostics) -> Vec<(usize, Value)> {
    let mut objects = Vec::new();
    let mut stream = serde_json::Deserializer::from_str(source.text).into_iter::<Value>();
    loop {
        let from = stream.byte_offset();
        match stream.next() {
            None => return objects,
            Some(Ok(Value::Array(items))) => {
                let starts = item_offsets(&source.text[from..stream.byte_offset()]);
                let starts =
                    starts.into_iter().map(|start| from + start).chain(std::iter::repeat(from));
                objects.extend(starts.zip(items));
            }
            Some(Ok(object)) => {
                let blanks = source.text[from..].len() - source.text[from..].trim_start().len();
                objects.push((from + blanks, object));
            }
            Some(Err(error)) => {
                problems.push(source.problem(
                    &syntax_span(source.text, &error),
                    "inspect/syntax",
                    format!("this is no JSON: {}", cause(&error)),
                ));
                return objects;
            }
        }
    }
}

/// serde_json's message without the place, which the diagnostic tells.
fn cause(error: &serde_json::Error) -> Text {
    let message = error.to_string();
    Text::new(message.split(" at line ").next().unwrap_or(&message))
}

fn syntax_span(text: &str, error: &serde_json::Error) -> std::ops::Range<usize> {
    let line_start: usize =
        text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let mut offset = (line_start + error.column().saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset..offset
}

/// Where each item of a valid JSON array begins.
fn item_offsets(array: &str) -> Vec<usize> {
    let mut offsets = Vec::new();
    let (mut depth, mut is_string, mut is_escaped, mut awaits_item) =
        (0_usize, false, false, false);
    for (offset, byte) in array.bytes().enumerate() {
        if is_string {
            (is_string, is_escaped) = match byte {
                _ if is_escaped => (true, false),
                b'\\' => (true, true),
                other => (other != b'"', false),
            };
            continue;
        }
        if awaits_item && !byte.is_ascii_whitespace() && byte != b']' {
            offsets.push(offset);
            awaits_item = false;
        }
        match byte {
            b'"' => is_string = true,
            b'[' | b'{' => {
                depth += 1;
                awaits_item = depth == 1;
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 1 => awaits_item = true,
            _ => {}
        }
    }
    offsets
}

#[cfg(test)]
mod tests;
