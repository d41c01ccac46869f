//! Writes what fuzzing begins with into a folder, a folder for each target: files of this repository, and messages as the kernel
//! sends them.
//!
//! usage: fuzz-seeds FOLDER

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use seawall::compile::{Options, Ruleset};
use seawall::metadata::{Inventory, inspect};
use seawall::model::Catalogue;
use seawall::nft::{message, plan};
use seawall::policy::{Mode, OperatorPolicy, Settings};
use seawall::reconcile::{Rules, desire};

const CATALOGUE: &str = include_str!("../models.toml");
const CONFIG: &str = include_str!("../packaging/seawall.toml");
const SITE: &str = include_str!("../tests/fixtures/catalogue/site.toml");
const SAVED: &str = include_str!("../tests/fixtures/inspect/shop.json");
const COMPOSE: [&str; 2] = [
    include_str!("../tests/fixtures/compose/shop.yaml"),
    include_str!("../examples/shop/compose.yaml"),
];
/// Pages whose blocks of code are files that operators write.
const PAGES: [&str; 4] = [
    include_str!("../docs/writing-models.md"),
    include_str!("../docs/writing-policy.md"),
    include_str!("../docs/configuration.md"),
    include_str!("../docs/operating.md"),
];
const IMAGES: [&str; 6] = [
    "nginx",
    "docker.io/library/postgres:16.2-alpine",
    "registry.example.org:5000/team/db@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "[2001:db8::1]:5000/a/b-c__d.e:v1",
    "localhost/a",
    "a/b/c/d:latest@sha256:00",
];
const SPEC: &str = r#"{"process":{"args":["nginx","-g","daemon off;"],"env":["PATH=/bin","DATABASE_URL=postgres://u:p@db:5432/x"],
"capabilities":{"bounding":["CAP_NET_RAW"],"permitted":["CAP_NET_ADMIN"]}},
"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/proc/7/ns/net"}]}}"#;
const DAEMON: &str = r#"{
  // kept
  "default-runtime": "crun", "live-restore": true,
  "runtimes": {"crun": {"path": "/usr/bin/crun", "runtimeArgs": ["--debug"]}}
}"#;
const CONTAINERD: &str = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\nBinaryName = \"/usr/bin/crun\" # why\n";
const ARGUMENTS: &str = "--root\0/run/runc\0--log=/run/log.json\0--log-format\0json\0start\0a1b2c3";
const REQUESTS: [&str; 6] = [
    "GET /v1/status HTTP/1.1\r\nHost: seawall\r\n\r\n",
    "GET /v1/events?after=7&wait=true HTTP/1.1\r\nHost: seawall\r\n\r\n",
    "GET /v1/flows HTTP/1.1\r\nHost: a\r\n\r\nGET /v1/metrics HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /v1/starts HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{\"id\":\"a1\",\"pid\":77}",
    "POST /v1/modes HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n23\r\n{\"select\":\"name:a\",\"mode\":\"observe\"}\r\n0\r\n\r\n",
    "POST /v1/clear HTTP/1.0\r\n\r\n",
];

fn main() -> io::Result<()> {
    let folder =
        std::env::args().nth(1).ok_or_else(|| io::Error::other("usage: fuzz-seeds FOLDER"))?;
    let folder = Path::new(&folder);
    let blocks: Vec<Vec<u8>> = PAGES.into_iter().flat_map(|page| blocks(page, "toml")).collect();
    let with = |texts: &[&str]| {
        texts.iter().map(|text| text.as_bytes().to_vec()).chain(blocks.iter().cloned()).collect()
    };
    let texts = |texts: &[&str]| -> Vec<Vec<u8>> {
        texts.iter().map(|text| text.as_bytes().to_vec()).collect()
    };
    let models: Vec<String> = CATALOGUE.split("\n[[").map(|part| format!("[[{part}")).collect();
    let mut catalogue: Vec<Vec<u8>> = with(&[SITE]);
    catalogue.extend(models.iter().step_by(10).map(|model| model.as_bytes().to_vec()));
    let all: [(&str, Vec<Vec<u8>>); 11] = [
        ("catalogue", catalogue),
        ("config", with(&[CONFIG, "[[mode]]\nselect = \"name:a\"\nmode = \"off\"\n"])),
        ("policy", with(&[])),
        ("inspect", texts(&[SAVED])),
        ("compose", texts(&COMPOSE)),
        ("image", texts(&IMAGES)),
        ("spec", texts(&[SPEC])),
        ("packets", packets()),
        ("messages", messages()?),
        ("socket", texts(&REQUESTS)),
        ("runtime_files", texts(&[DAEMON, CONTAINERD, ARGUMENTS])),
    ];
    for (target, seeds) in all {
        let folder = folder.join(target);
        std::fs::create_dir_all(&folder)?;
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}

/// The blocks of code of one language in a page.
fn blocks(page: &str, language: &str) -> Vec<Vec<u8>> {
    let parts = page.split("```").skip(1).step_by(2);
    parts.filter_map(|part| Some(part.strip_prefix(language)?.as_bytes().to_vec())).collect()
}

/// Every message of the ruleset of a container of the example shop, each whole and without its headers.
fn messages() -> io::Result<Vec<Vec<u8>>> {
    let ruleset = ruleset().ok_or_else(|| io::Error::other("the example shop gives no ruleset"))?;
    let bytes = message::encode(plan(None, Some(&ruleset)).operations(), Some(1)).bytes;
    let mut seeds = vec![bytes.clone(), connection()];
    let mut rest = bytes.as_slice();
    while let Some(length) = rest.first_chunk::<4>().map(|first| u32::from_ne_bytes(*first)) {
        let length = length as usize;
        let Some(message) = rest.get(..length).filter(|message| message.len() > 20) else { break };
        seeds.push(message[20..].to_vec());
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    // Of each length one: rules that differ in a number teach nothing more.
    let mut lengths = BTreeSet::new();
    seeds.retain(|seed| lengths.insert(seed.len()));
    Ok(seeds)
}

fn ruleset() -> Option<Ruleset> {
    let saved = inspect::parse(Path::new("shop.json"), SAVED.as_bytes(), &BTreeSet::new()).ok()?;
    let inventory: Inventory = saved.into_iter().collect();
    let settings = Settings { mode: Mode::Enforce, ..Settings::default() };
    let options = Options { settings, ..Options::default() };
    let catalogue = Catalogue::builtin().ok()?;
    let rules = Rules { catalogue, operator: OperatorPolicy::default(), options };
    desire(&inventory, &rules).rulesets.values().next().map(|ruleset| ruleset.as_ref().clone())
}

/// `NFULNL_MSG_PACKET` of a resolver's answer and of a denied connection, and the packets alone.
fn packets() -> Vec<Vec<u8>> {
    let question = b"\x04shop\x07example\0\0\x01\0\x01";
    let answer = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x07";
    let dns = [&b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0"[..], question, answer].concat();
    let udp = [&b"\0\x35\x9c\x40\0\x40\0\0"[..], &dns].concat();
    let v4 =
        [&b"\x45\0\0\x60\0\x01\0\0\x40\x11\0\0\xc0\0\x02\x35\xac\x11\0\x02"[..], &udp].concat();
    let addresses = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].repeat(2);
    let tcp = b"\x9c\x40\x01\xbb\0\0\0\x01\0\0\0\0\x50\x02\xff\xff\0\0\0\0";
    let extension = b"\x06\0\x01\x04\0\0\0\0";
    let v6 = [&b"\x60\0\0\0\0\x1c\0\x40"[..], &addresses, extension, tcp].concat();
    let told = |payload: &[u8], prefix: &[u8], ethertype: &[u8]| {
        let head = [ethertype, &[3, 0]].concat();
        let values = [attribute(1, &head), attribute(9, payload), attribute(10, prefix)];
        message(0x400, &values.concat())
    };
    vec![
        told(&v4, b"seawall answer\0", &[8, 0]),
        told(&v6, b"seawall deny out \0", &[0x86, 0xdd]),
        v4,
        v6,
        dns,
    ]
}

/// `IPCTNL_MSG_CT_NEW` of a new TCP connection.
fn connection() -> Vec<u8> {
    let ip = [attribute(1, &[172, 17, 0, 2]), attribute(2, &[172, 17, 0, 3])].concat();
    let ports = [attribute(1, &[6]), attribute(2, &[0x9c, 0x40]), attribute(3, &[0x15, 0x38])];
    let tuple = [attribute(0x8001, &ip), attribute(0x8002, &ports.concat())].concat();
    let values =
        [attribute(0x8001, &tuple), attribute(8, &[0, 0, 0, 1]), attribute(12, &[0, 0, 0, 9])];
    message(0x100, &values.concat())
}

/// `struct nlattr`, and padding.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// `struct nlmsghdr` and `struct nfgenmsg` of a new thing, and attributes.
fn message(kind: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(20 + attributes.len()).unwrap_or(u32::MAX);
    let flags = 0x400u16;
    let head = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes()].concat();
    [&head[..], &[0; 8], &[2, 0, 0, 0], attributes].concat()
}
