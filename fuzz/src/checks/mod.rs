//! One check for each parser of what comes from outside: it is fed any bytes, and panics where what must hold does not.
//!
//! None may panic, run for ever or take much memory, and nothing that is shown to people may hold what acts on a terminal.
//! Beside that each has laws of its own, which its comment tells.

#![allow(clippy::unwrap_used, reason = "a check that does not hold panics")]
#![allow(unreachable_pub, reason = "a test includes it as a module of its own")]

mod socket;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use seawall::compile::ruleset::Chain;
use seawall::compile::{Options, Ruleset, TableFamily};
use seawall::config::{Config, modes};
use seawall::input::diagnostic::SourceFile;
use seawall::input::{Diagnostics, Text};
use seawall::metadata::compose::{ComposeOptions, Placeholders};
use seawall::metadata::containerd::spec as oci_spec;
use seawall::metadata::{ImageRef, Inventory, Workload};
use seawall::model::Catalogue;
use seawall::nft::{conntrack, conntrack_entries, decode, log, message, packet, plan, watch};
use seawall::observe::names;
use seawall::policy::{Mode, OperatorPolicy, Settings, operator, text};
use seawall::reconcile::{Rules, desire};
use seawall::runtime::{arguments, containerd, docker};

pub use socket::socket;

/// A check.
pub type Check = fn(&[u8]);

/// Every check, by the name of its target.
pub const ALL: [(&str, Check); 11] = [
    ("catalogue", catalogue),
    ("config", config),
    ("policy", policy),
    ("inspect", inspect),
    ("compose", compose),
    ("image", image),
    ("spec", spec),
    ("packets", packets),
    ("messages", messages),
    ("socket", socket),
    ("runtime_files", runtime_files),
];

/// Model files. Read well, everything is decided about a host by them.
pub fn catalogue(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Catalogue::parse(&[file(&text)]) {
        Ok(catalogue) => decide(host(), &rules(catalogue, OperatorPolicy::default())),
        Err(problems) => shown(&problems),
    }
}

/// `seawall.toml`, and the file of modes set at run time: what was read well is written and read back the same.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Config::parse(file(&text)) {
        Ok(config) => drop(config.needs_restart(&Config::default())),
        Err(problems) => shown(&problems),
    }
    if let Some(problem) = modes::check(file(&text)) {
        harmless(&problem.to_string());
    }
    if let Ok(read) = modes::read(&text)
        && let Ok(written) = modes::text(&read, Path::new("modes.toml"))
    {
        assert_eq!(
            modes::read(&written).unwrap(),
            read,
            "modes are read back as they were written"
        );
    }
}

/// Files in `policy.d`. What is right with the catalogue is right without; read well, it decides about a host.
pub fn policy(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let files = [file(&text)];
    match operator::parse(&files, builtin()) {
        Ok(operator) => {
            assert!(operator::check_without_catalogue(&files).is_empty());
            decide(host(), &rules(builtin().clone(), operator));
        }
        Err(problems) => shown(&problems),
    }
}

/// Saved `docker inspect`: the containers get policies and rulesets that can be written to the kernel.
pub fn inspect(data: &[u8]) {
    match seawall::metadata::inspect::parse(Path::new("inspect.json"), data, &resolvers()) {
        Ok(workloads) => decide_of(workloads),
        Err(problems) => shown(&problems),
    }
}

/// A compose file: the same.
pub fn compose(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (resolvers, mut placeholders) = (resolvers(), Placeholders::new());
    let options = ComposeOptions {
        project: "fuzz",
        resolvers: &resolvers,
        placeholders: Some(&mut placeholders),
    };
    match seawall::metadata::compose::parse(Path::new("compose.yaml"), &text, options) {
        Ok(workloads) => decide_of(workloads),
        Err(problems) => shown(&problems),
    }
}

/// An image reference: what was read is written and read back the same.
pub fn image(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match text.parse::<ImageRef>() {
        Ok(image) => {
            let written = image.to_string();
            harmless(&written);
            assert_eq!(written.parse::<ImageRef>().unwrap(), image, "{written}");
        }
        Err(problem) => harmless(&problem.to_string()),
    }
}

/// An OCI runtime spec, as containerd keeps it.
pub fn spec(data: &[u8]) {
    let facts = oci_spec::facts(&oci_spec::decoded(data));
    let words = facts.env_names.iter().chain(&facts.args);
    words.for_each(|word| harmless(word.as_str()));
    facts.wires.iter().for_each(|wire| harmless(wire.host.as_str()));
}

/// What NFLOG tells: messages, the packets in them, and the resolvers' answers in those.
pub fn packets(data: &[u8]) {
    for logged in log::logged(data) {
        one_packet(logged.payload);
        harmless(Text::new(&logged.prefix).as_str());
    }
    one_packet(data);
    answers(data);
}

fn one_packet(bytes: &[u8]) {
    if let Some(packet) = packet::packet(bytes) {
        assert!(bytes.len() >= packet.rest.len());
        answers(packet.rest);
    }
}

fn answers(bytes: &[u8]) {
    for (_, name) in names::answered(bytes) {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-?…".contains(c);
        assert!(name.as_str().chars().all(is_plain), "{name:?} is no name in one line with others");
    }
}

/// What nf_tables and connection tracking tell. What is read of a table can be changed into any other.
pub fn messages(data: &[u8]) {
    let mut reader = watch::Reader::new(7);
    reader.nftables(data);
    if let Some(committer) = reader.take().others {
        harmless(&committer.to_string());
    }
    conntrack::told(data).for_each(drop);
    conntrack_entries::told_of_an_end(data);
    for family in [TableFamily::Inet, TableFamily::Netdev] {
        let read = table(family, data);
        harmless(&seawall::nft::render(&read));
        for (from, to) in [(Some(&read), None), (None, Some(&read)), (Some(&read), Some(closed()))]
        {
            let transaction = plan(from, to);
            transaction.described().for_each(|line| harmless(&line));
            message::encode(transaction.operations(), Some(1));
        }
    }
}

/// A table of one of each object that the bytes may be read as.
fn table(family: TableFamily, data: &[u8]) -> Ruleset {
    let mut table = Ruleset::empty(family);
    decode::table(data);
    table.helpers.extend(decode::helper(data));
    table.chains.extend(decode::chain(family, data));
    if let Some((chain, rule, _)) = decode::rule(data) {
        let none = Chain { base: None, rules: Arc::default() };
        let chain = table.chains.entry(chain).or_insert(none);
        chain.rules = Arc::new(vec![rule]);
    }
    if let (name, Some(mut set)) = decode::set(data) {
        decode::elements(data, &mut set);
        table.sets.insert(name, set);
    }
    table
}

/// Docker's `daemon.json`, containerd's configuration, and a runtime's arguments. What was put in is there and comes out again,
/// and all the rest stays.
pub fn runtime_files(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let path = Path::new("/usr/bin/seawall");
    if let Ok(before) = docker::Setup::read(&text) {
        let installed = docker::install(&text, "seawall", path, true).unwrap();
        let setup = docker::Setup::read(&installed).unwrap();
        assert_eq!(setup.path("seawall"), path.to_str());
        assert_eq!(setup.default.as_deref(), Some("seawall"));
        let former = before.default.as_deref().filter(|name| *name != "seawall");
        let removed = docker::uninstall(&installed, "seawall", former).unwrap();
        let mut kept = before.clone();
        kept.paths.retain(|(name, _)| name != "seawall");
        kept.with_arguments.retain(|name| name != "seawall");
        kept.default = former.map(str::to_owned);
        assert_eq!(docker::Setup::read(&removed).unwrap(), kept, "{installed}\n{removed}");
        docker::release(&installed, "seawall", former).unwrap();
    }
    if let Ok((set, former)) = containerd::set_program(&text, Some(path)) {
        let former_path = former.as_deref().map(Path::new);
        let (back, ours) = containerd::set_program(&set, former_path).unwrap();
        assert_eq!(ours.as_deref(), path.to_str());
        let (_, again) = containerd::set_program(&back, Some(path)).unwrap();
        assert_eq!(again, former, "{set}\n{back}");
    }
    let words = data.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec()));
    let words: Vec<OsString> = words.collect();
    let read = arguments::Invocation::read(&words);
    assert!(read.globals <= words.len());
    assert!(read.starts().is_none_or(|id| !id.contains('/')));
}

fn file(text: &str) -> SourceFile<'_> {
    SourceFile { name: Path::new("fuzz.toml"), text }
}

fn builtin() -> &'static Catalogue {
    static CATALOGUE: OnceLock<Catalogue> = OnceLock::new();
    CATALOGUE.get_or_init(|| Catalogue::builtin().unwrap())
}

fn resolvers() -> BTreeSet<IpAddr> {
    BTreeSet::from([IpAddr::from([192, 0, 2, 53])])
}

fn rules(catalogue: Catalogue, operator: OperatorPolicy) -> Rules {
    let settings = Settings { mode: Mode::Enforce, ..Settings::default() };
    Rules { catalogue, operator, options: Options { settings, ..Options::default() } }
}

/// The example shop, running.
fn host() -> &'static Inventory {
    static HOST: OnceLock<Inventory> = OnceLock::new();
    HOST.get_or_init(|| {
        let saved = include_bytes!("../../../tests/fixtures/inspect/shop.json");
        let name = Path::new("shop.json");
        seawall::metadata::inspect::parse(name, saved, &resolvers()).unwrap().into_iter().collect()
    })
}

/// A ruleset of the example shop.
fn closed() -> &'static Ruleset {
    static CLOSED: OnceLock<Ruleset> = OnceLock::new();
    CLOSED.get_or_init(|| {
        let desired = desire(host(), &rules(builtin().clone(), OperatorPolicy::default()));
        desired.rulesets.values().next().unwrap().as_ref().clone()
    })
}

fn decide_of(workloads: Vec<Workload>) {
    let rules = rules(builtin().clone(), OperatorPolicy::default());
    decide(&workloads.into_iter().collect(), &rules);
}

/// Decides everything, and writes it as it would be sent and shown.
fn decide(inventory: &Inventory, rules: &Rules) {
    let desired = desire(inventory, rules);
    harmless(&text::render(desired.policies.policies.values()));
    for ruleset in desired.rulesets.values() {
        let transaction = plan(None, Some(ruleset));
        message::encode(transaction.operations(), None);
        harmless(&seawall::nft::render(ruleset));
    }
}

fn shown(problems: &Diagnostics) {
    assert!(!problems.is_empty(), "refused without a reason");
    harmless(&problems.to_string());
}

/// What people are shown has lines and tabs, and nothing else that acts on a terminal.
fn harmless(text: &str) {
    let acts = |c: &char| c.is_control() && !"\n\t".contains(*c);
    assert_eq!(text.chars().find(acts), None, "{text:?}");
}
