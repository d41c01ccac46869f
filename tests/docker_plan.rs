//! Docker layer: what is planned is what the kernel holds, every difference is shown and repaired, and clearing leaves nothing.

mod harness;

use std::collections::BTreeMap;

use harness::{Container, EmptyNetns, Seawall, Stage, held, nft};
use seawall::compile::Ruleset;

const ENFORCE: &str = "mode = \"enforce\"\nunknown = \"deny\"\n\
                       resolvers = [\"203.0.113.53\", \"2001:db8:53::53\"]";
const SERVICES: [&str; 4] = ["web", "api", "db", "cache"];

#[test]
fn the_planned_text_loads_with_nft_into_what_seawall_commits() {
    let stage = Stage::take();
    let shop = stage.shop();
    let seawall = Seawall::prepare(stage.host, ENFORCE);
    let mut planned = BTreeMap::new();
    for service in SERVICES {
        // As a person would do it: the text that is printed.
        let text = seawall.cli_ok(&["plan", &shop.service(service).name]);
        let empty = EmptyNetns::new();
        nft(&empty.netns(), &text);
        planned.insert(service, held(&empty.netns()).unwrap());
    }
    seawall.cli_ok(&["apply"]);
    let mut elements = 0;
    for (service, ruleset) in planned {
        assert_eq!(shop.service(service).table(), Some(ruleset.clone()), "{service}");
        elements += ruleset.sets.values().map(|set| set.elements.len()).sum::<usize>();
    }
    println!("4 planned texts load into the committed rulesets, {elements} elements in all");
}

#[test]
fn diff_shows_exactly_what_somebody_changed_and_apply_repairs_it() {
    let stage = Stage::take();
    let db = stage.shop().service("db");
    let api = stage.shop().service("api");
    let seawall = Seawall::prepare(stage.host, ENFORCE);
    seawall.cli_ok(&["apply"]);
    no_difference(&seawall);
    let good = db.table();
    let ip = api.ips_shared_with(&db)[0];
    let element = format!("{ip} . tcp . 5432");
    let removed = format!("delete element inet seawall in4 {{ {element} }}");
    let added = "add element inet seawall in4 { 192.0.2.7 . tcp . 22 }";
    let cases: [(&str, Vec<(char, &str)>); 6] = [
        ("add rule inet seawall transit accept", vec![('-', "accept")]),
        (&removed, vec![('+', &element)]),
        (added, vec![('-', "192.0.2.7 . tcp . 22")]),
        (
            "flush chain inet seawall deny_ingress",
            vec![('+', "seawall deny in "), ('+', "all of them, logged or not"), ('+', "drop")],
        ),
        (
            "chain inet seawall ingress { policy accept; }",
            vec![('-', "policy accept"), ('+', "policy drop")],
        ),
        (
            "add chain inet seawall side { type filter hook input priority -5; }",
            vec![('-', "chain side"), ('-', "priority -5"), ('-', "}")],
        ),
    ];
    for (edit, expected) in cases {
        nft(&db.netns(), edit);
        let output = seawall.cli(&["diff"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{edit}: {text}");
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with(['+', '-']))
            .filter(|line| !line.starts_with("---") && !line.starts_with("+++"))
            .filter(|line| !["+", "-"].contains(&line.trim()))
            .collect();
        assert_eq!(lines.len(), expected.len(), "{edit}:\n{text}");
        for (line, (sign, words)) in lines.iter().zip(&expected) {
            assert!(line.starts_with(*sign) && line.contains(words), "{edit}: {line} in\n{text}");
        }
        assert!(text.starts_with("shop/db (postgres) ("), "{text}");
        assert_eq!(text.matches("--- in the kernel").count(), 1, "only the db:\n{text}");
        seawall.cli_ok(&["apply"]);
        no_difference(&seawall);
        assert_eq!(db.table(), good, "{edit}");
        println!("`{edit}`: {} lines shown, repaired", lines.len());
    }
}

#[test]
fn clearing_leaves_nothing_of_seawall_and_all_of_docker() {
    let stage = Stage::take();
    let (host, shop) = (stage.host, stage.shop());
    let intruder = host.guest(&["--network", "shop_backend", "busybox:1", "sleep", "900"]);
    let containers: Vec<Container> = host.containers();
    let before: Vec<String> = containers.iter().map(dockers_nat).collect();
    assert!(before.iter().any(|nat| nat.contains("127.0.0.11")), "Docker's own DNS: {before:?}");
    let db = shop.service("db");
    let reach =
        || db.ips_shared_with(&intruder).iter().all(|ip| intruder.tcp(*ip, 5432).is_reached());
    assert!(reach());

    let mut seawall = Seawall::start(host, ENFORCE);
    assert!(!reach());
    assert_eq!(containers.iter().map(dockers_nat).collect::<Vec<_>>(), before);
    assert!(containers.iter().all(|container| container.table().is_some()));
    seawall.stop();
    assert!(!reach(), "a daemon that ends leaves its policy in force");
    let said = seawall.clear(host);
    assert!(said.contains(&format!("from {} of", containers.len())), "{said}");
    assert!(reach(), "as before");
    for (container, nat) in containers.iter().zip(&before) {
        assert_eq!(container.table(), None::<Ruleset>);
        let all = nft(&container.netns(), "list ruleset");
        assert!(!all.contains("seawall"), "{all}");
        assert_eq!(&dockers_nat(container), nat, "{}", container.name);
    }
    let lookup = host.exec_in(&shop.service("api"), &["getent", "hosts", "db"]);
    assert!(lookup.status.success(), "names still resolve");
    shop.visit().unwrap();
    assert!(seawall.clear(host).contains("from 0 of"), "clearing twice");
    println!("{}", said.trim());
}

/// Everything that is not seawall's in the netns, without counters.
fn dockers_nat(container: &Container) -> String {
    let all = nft(&container.netns(), "list tables");
    let tables = all.lines().filter(|table| !table.contains("seawall"));
    let lists = tables.map(|table| nft(&container.netns(), &format!("list {table}")));
    let text: String = lists.collect();
    let words = text.split_whitespace().collect::<Vec<_>>();
    let mut kept = Vec::new();
    let mut skip = 0;
    for word in words {
        // `counter packets 1 bytes 60`
        skip = if word == "counter" { 5 } else { skip };
        if skip == 0 {
            kept.push(word);
        }
        skip = usize::saturating_sub(skip, 1);
    }
    kept.join(" ")
}

fn no_difference(seawall: &Seawall) {
    let output = seawall.cli(&["diff"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!((output.status.code(), text.as_ref()), (Some(0), ""), "{text}");
}
