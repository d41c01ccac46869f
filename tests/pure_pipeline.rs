//! Pure layer: facts → policy → ruleset for saved facts, held as snapshots, and what must be true of every one of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use seawall::compile::Options;
use seawall::config::{Config, Source};
use seawall::input::Text;
use seawall::input::diagnostic::SourceFile;
use seawall::metadata::compose::{self, ComposeOptions, Placeholders};
use seawall::metadata::{Inventory, inspect};
use seawall::model::Catalogue;
use seawall::nft::{plan, render};
use seawall::policy::{OperatorPolicy, operator, text};
use seawall::reconcile::{Desired, Rules, desire};

/// The same on every machine, unlike the host's own.
fn resolvers() -> BTreeSet<IpAddr> {
    ["192.0.2.53".parse().unwrap(), "2001:db8::53".parse().unwrap()].into()
}

fn read(path: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn saved(path: &str) -> Inventory {
    inspect::parse(Path::new(path), &read(path), &resolvers()).unwrap().into_iter().collect()
}

fn composed(path: &str, project: &str) -> Inventory {
    let text = String::from_utf8(read(path)).unwrap();
    let mut placeholders = Placeholders::new();
    let resolvers = resolvers();
    let options =
        ComposeOptions { project, resolvers: &resolvers, placeholders: Some(&mut placeholders) };
    compose::parse(Path::new(path), &text, options).unwrap().into_iter().collect()
}

fn builtin() -> Rules {
    Rules {
        catalogue: Catalogue::builtin().unwrap(),
        operator: OperatorPolicy::default(),
        options: Options::default(),
    }
}

/// The example's own configuration and policy.
fn configured() -> Rules {
    let catalogue = Catalogue::builtin().unwrap();
    let source =
        |path: &str| Source { path: path.into(), text: String::from_utf8(read(path)).unwrap() };
    let (config, policy) =
        (source("examples/shop/seawall.toml"), source("examples/shop/policy.toml"));
    let config = Config::parse(config.as_file()).unwrap();
    let operator = operator::parse(&[policy.as_file()], &catalogue).unwrap();
    Rules { catalogue, operator, options: Options { deny: config.deny, settings: config.settings } }
}

fn policy_text(desired: &Desired) -> String {
    text::render(desired.policies.policies.values())
}

fn ruleset_text(inventory: &Inventory, desired: &Desired, name: &str) -> String {
    let workload = inventory.iter().find(|workload| workload.display_name() == *name).unwrap();
    render(&desired.rulesets[&workload.id].sending_from(&workload.addresses().collect()))
}

#[test]
fn the_shop_as_a_compose_file() {
    let inventory = composed("examples/shop/compose.yaml", "shop");
    let desired = desire(&inventory, &builtin());
    insta::assert_snapshot!("shop-compose-policy", policy_text(&desired));
    insta::assert_snapshot!("shop-compose-db", ruleset_text(&inventory, &desired, "shop/db"));
}

#[test]
fn the_shop_as_it_runs_under_the_operators_policy() {
    let inventory = saved("examples/shop/inspect.json");
    let desired = desire(&inventory, &configured());
    assert!(desired.policies.problems.is_empty(), "{:?}", desired.policies.problems);
    insta::assert_snapshot!("shop-running-policy", policy_text(&desired));
    for name in ["shop/web", "shop/api", "shop/db", "shop/cache"] {
        let snapshot = format!("shop-running-{}", name.replace('/', "-"));
        insta::assert_snapshot!(snapshot, ruleset_text(&inventory, &desired, name));
    }
}

#[test]
fn a_compose_file_and_its_running_containers_have_one_policy() {
    let file = composed("examples/shop/compose.yaml", "shop");
    let running = saved("examples/shop/inspect.json");
    assert_eq!(policy_text(&desire(&file, &builtin())), policy_text(&desire(&running, &builtin())));
}

#[test]
fn the_policy_has_no_address_in_it() {
    let inventory = saved("examples/shop/inspect.json");
    let policy = policy_text(&desire(&inventory, &builtin()));
    for workload in inventory.iter() {
        for address in workload.addresses() {
            assert!(!policy.contains(&address.to_string()), "{address} in\n{policy}");
        }
        assert!(!policy.contains(workload.id.short()), "{} in\n{policy}", workload.id);
    }
}

#[test]
fn the_same_facts_give_the_same_bytes() {
    let once = || {
        let inventory = saved("examples/shop/inspect.json");
        let desired = desire(&inventory, &configured());
        desired.rulesets.values().map(|one| render(one)).collect::<String>()
            + &policy_text(&desired)
    };
    assert_eq!(once(), once());
}

#[test]
fn planning_from_a_ruleset_to_itself_changes_nothing() {
    let inventory = saved("examples/shop/inspect.json");
    for ruleset in desire(&inventory, &configured()).rulesets.values() {
        assert!(plan(Some(ruleset), Some(ruleset)).is_empty());
    }
}

#[test]
fn scaling_changes_elements_only() {
    let inventory = saved("examples/shop/inspect.json");
    let rules = configured();
    let before = desire(&inventory, &rules);
    let api = inventory.iter().find(|workload| workload.display_name() == "shop/api").unwrap();
    let mut second = api.clone();
    second.id = seawall::metadata::WorkloadId::new("file:second");
    second.name = Text::new("shop_api_2");
    for (number, network) in (10..).zip(second.networks.values_mut()) {
        network.addresses = network
            .addresses
            .iter()
            .map(|address| match address {
                IpAddr::V4(v4) => {
                    let [a, b, c, _] = v4.octets();
                    IpAddr::from([a, b, c, 200 + number])
                }
                IpAddr::V6(v6) => IpAddr::V6((u128::from(*v6) + 200).into()),
            })
            .collect();
    }
    let mut scaled = inventory.clone();
    scaled.upsert(second);
    let after = desire(&scaled, &rules);
    let mut changed = 0;
    for (owner, ruleset) in &before.rulesets {
        let transaction = plan(Some(ruleset), Some(&after.rulesets[owner]));
        assert!(transaction.is_elements_only(), "{owner}: {:?}", transaction.ops);
        assert!(!transaction.revokes, "a new replica takes nothing away");
        changed += usize::from(!transaction.is_empty());
    }
    assert!(changed >= 3, "web, db and cache learn of the new replica");
    assert_eq!(policy_text(&before), policy_text(&after));
}

#[test]
fn a_workload_that_stops_leaves_every_set() {
    let inventory = saved("examples/shop/inspect.json");
    let rules = configured();
    let api = inventory.iter().find(|workload| workload.display_name() == "shop/api").unwrap();
    let addresses: Vec<IpAddr> = api.addresses().collect();
    assert!(!addresses.is_empty());
    let mut without = inventory.clone();
    without.remove(&api.id.clone());
    for (owner, ruleset) in desire(&without, &rules).rulesets {
        for (name, set) in &ruleset.sets {
            for element in set.elements.keys().filter(|element| element.first == element.last) {
                assert!(!addresses.contains(&element.first.address), "{owner} {name} {element:?}");
            }
        }
    }
}

/// Everything a person or a program may print of hostile facts.
fn everything_printed(inventory: &Inventory, desired: &Desired) -> String {
    let rulesets = desired.rulesets.values().map(|one| render(one)).collect::<String>();
    let facts = serde_json::to_string(inventory).unwrap();
    let resolutions: String = desired
        .resolutions
        .values()
        .flat_map(|resolution| &resolution.evidence)
        .map(|piece| piece.found.to_string())
        .collect();
    rulesets + &policy_text(desired) + &facts + &resolutions
}

#[test]
fn hostile_names_and_labels_reach_neither_ruleset_nor_terminal_raw() {
    let evil = "x\u{1b}[31m\u{7}\r\n\"; drop } # \\ \u{202e} \u{0}";
    let mut objects: serde_json::Value =
        serde_json::from_slice(&read("examples/shop/inspect.json")).unwrap();
    for (number, object) in objects.as_array_mut().unwrap().iter_mut().enumerate() {
        object["Name"] = serde_json::json!(format!("/{evil}{number}"));
        let config = object["Config"].as_object_mut().unwrap();
        let labels = config["Labels"].as_object_mut().unwrap();
        labels.insert(evil.to_owned(), serde_json::json!("y".repeat(10_000)));
        labels.insert(
            "com.docker.compose.service".to_owned(),
            serde_json::json!(format!("{evil}{number}")),
        );
        labels.insert("seawall.mode".to_owned(), serde_json::json!(evil));
        labels.insert("seawall.provides".to_owned(), serde_json::json!(format!("80/tcp,{evil}")));
        config.insert(
            "Env".to_owned(),
            serde_json::json!([format!("{evil}=1"), format!("URL=http://{evil}/")]),
        );
        config.insert("Cmd".to_owned(), serde_json::json!([evil, "z".repeat(10_000)]));
    }
    let bytes = serde_json::to_vec(&objects).unwrap();
    let inventory: Inventory =
        inspect::parse(Path::new("evil.json"), &bytes, &resolvers()).unwrap().into_iter().collect();
    assert_eq!(inventory.len(), 4);
    let desired = desire(&inventory, &configured());
    let printed = everything_printed(&inventory, &desired);
    for character in ['\u{1b}', '\u{7}', '\r', '\u{202e}', '\u{0}'] {
        assert!(!printed.contains(character), "{character:?} is printed raw");
    }
    for ruleset in desired.rulesets.values() {
        let text = render(ruleset);
        assert!(
            text.lines().all(|line| line.matches('"').count() % 2 == 0),
            "quotes are closed\n{text}"
        );
        assert!(text.lines().all(|line| line.len() < 400), "nothing long gets in");
    }
    assert!(!desired.policies.problems.is_empty(), "labels that say nothing sensible are reported");
}

#[test]
fn bytes_that_are_not_utf8_are_read_and_made_harmless() {
    let mut bytes = read("examples/shop/inspect.json");
    let at = bytes.windows(10).position(|window| window == b"shop_api_1").unwrap();
    bytes[at] = 0xff;
    let found = inspect::parse(Path::new("odd.json"), &bytes, &resolvers()).unwrap();
    assert_eq!(found.len(), 4);
}

#[test]
fn the_examples_files_are_valid() {
    let rules = configured();
    assert_eq!(rules.operator.statements.len(), 3);
    let models = SourceFile { name: Path::new("none.toml"), text: "" };
    assert!(Catalogue::with_files(&[models]).is_ok());
}
