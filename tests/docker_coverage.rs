//! Docker layer: containers that are not like others (host network, shared namespaces, privileges, hostile metadata), and their DNS.

mod harness;

use std::time::Duration;

use harness::{Container, EmptyNetns, OUTSIDE_NET4, OUTSIDE_NET6, Seawall, Stage, held, nft};

const ENFORCE: &str = "mode = \"enforce\"\nunknown = \"deny\"\n\
                       resolvers = [\"203.0.113.53\", \"2001:db8:53::53\"]";
const SLEEP: [&str; 3] = ["busybox:1", "sleep", "900"];

#[test]
fn names_resolve_through_the_configured_resolver_and_no_other() {
    let stage = Stage::take();
    let (host, shop) = (stage.host, stage.shop());
    let (api, web) = (shop.service("api"), shop.service("web"));
    // On Docker's default network there is no embedded resolver: containers ask the configured one themselves.
    let plain = host.guest(&["nginx:1.22"]);
    let unlisted = [OUTSIDE_NET4, OUTSIDE_NET6].map(|ip| ip.to_string());
    for resolver in &unlisted {
        assert!(host.resolves(&api, "outside.test", Some(resolver)), "{resolver}, without seawall");
    }
    let seawall = Seawall::start(host, ENFORCE);
    for container in [&api, &web] {
        for name in ["db", "cache", "outside.test"] {
            // web is on one network only, and does not see the stores.
            let is_visible = name.contains('.') || container.id == api.id;
            assert_eq!(
                host.resolves(container, name, None),
                is_visible,
                "{} {name}",
                container.name
            );
        }
    }
    assert!(host.resolves(&plain, "outside.test", None));
    for container in [&api, &plain] {
        for resolver in &unlisted {
            assert!(!host.resolves(container, "outside.test", Some(resolver)), "{resolver}");
        }
        for resolver in ["203.0.113.53", "2001:db8:53::53"] {
            assert!(host.resolves(container, "outside.test", Some(resolver)), "{resolver}");
        }
    }
    let denied = seawall.status_of(&api.id)["denied_out"].as_u64().unwrap();
    assert!(denied >= 2, "both families were counted: {denied}");
}

#[test]
fn dockers_own_configuration_says_which_resolvers_containers_have() {
    let stage = Stage::take();
    let host = stage.host;
    // On Docker's default network a container asks them itself.
    let plain = host.guest(&["nginx:1.22"]);
    let other = host.guest(&["--dns", &OUTSIDE_NET4.to_string(), "nginx:1.22"]);
    let _seawall = Seawall::start(host, "mode = \"enforce\"\nunknown = \"deny\"");
    for guest in [&plain, &other] {
        assert!(host.resolves(guest, "outside.test", None), "{}", guest.name);
    }
    let resolver = |guest: &Container, ip: &str| host.resolves(guest, "outside.test", Some(ip));
    let own = OUTSIDE_NET4.to_string();
    assert!(resolver(&plain, "203.0.113.53") && !resolver(&plain, &own));
    assert!(resolver(&other, &own) && !resolver(&other, "203.0.113.53"));
}

#[test]
fn the_network_of_the_host_is_never_touched() {
    let stage = Stage::take();
    let host = stage.host;
    let guest = host.guest(&[&["--network", "host"], &SLEEP[..]].concat());
    let before = nft(&host.netns(), "list tables");
    let seawall = Seawall::start(host, ENFORCE);
    let status = seawall.status_of(&guest.id);
    assert_eq!(status["coverage"], "unprotected (it uses the host's network)");
    assert_eq!(nft(&host.netns(), "list tables"), before);
    let plan = seawall.cli_ok(&["plan", &guest.name]);
    assert!(plan.contains("it uses the host's network, which is never filtered"), "{plan}");
    assert!(guest.tcp(OUTSIDE_NET4, 443).is_reached());
}

#[test]
fn containers_in_one_network_namespace_share_one_table() {
    let stage = Stage::take();
    let host = stage.host;
    host.docker_ok(&["network", "create", "--ipv6", "pod"]);
    let client = host.guest(&["--network", "pod", "nginx:1.22"]);
    let owner = host.guest(&["--network", "pod", "nginx:1.22"]);
    let member = host.guest(&["--network", &format!("container:{}", owner.id), "redis:7"]);
    let seawall = Seawall::start(host, ENFORCE);
    let programmed =
        |id: &str| seawall.changes().iter().filter(|change| change["id"] == id).count();
    assert_eq!((programmed(&owner.id), programmed(&member.id)), (1, 0));
    for container in [&*owner, &*member] {
        let coverage = seawall.status_of(&container.id)["coverage"].clone();
        assert!(!coverage.as_str().unwrap().starts_with("unprotected"), "{coverage}");
    }
    assert_eq!(owner.table(), member.table());
    // What either provides is open at the one address they have: to the host, as nobody else uses Redis.
    let own = host.netns();
    for ip in owner.ips() {
        for port in [80, 6379] {
            let to = (ip, port).into();
            let reach = || own.tcp(to, Duration::from_secs(1)).is_reached();
            harness::until("the host reaches both", Duration::from_secs(5), reach);
        }
        assert!(client.tcp(ip, 80).is_reached(), "{ip}");
        assert!(!client.tcp(ip, 6379).is_reached(), "{ip}: nginx uses no Redis");
    }
    drop((member, owner, client));
    host.docker_ok(&["network", "rm", "pod"]);
}

#[test]
fn containers_with_less_or_more_than_usual_are_shown_for_what_they_are() {
    let stage = Stage::take();
    let host = stage.host;
    let run = |options: &[&str]| host.guest(&[options, &SLEEP[..]].concat());
    let cases = [
        (run(&["--network", "none"]), "enforced"),
        (run(&["--cap-add", "NET_ADMIN"]), "degraded (it holds NET_ADMIN and can change its own"),
        (run(&[]), "enforced"),
        (run(&["--cap-drop", "NET_RAW"]), "enforced"),
        (run(&["--cap-drop", "ALL"]), "enforced"),
        (run(&["--label", "seawall.mode=off"]), "unprotected (its mode is off)"),
        (run(&["--label", "seawall.mode=observe"]), "observed"),
    ];
    let seawall = Seawall::start(host, ENFORCE);
    for (guest, expected) in &cases {
        let status = seawall.status_of(&guest.id);
        let coverage = status["coverage"].as_str().unwrap();
        assert!(coverage.starts_with(expected), "{coverage}, not {expected}");
        assert_eq!(guest.table().is_some(), !coverage.starts_with("unprotected"), "{expected}");
    }
    assert!(!seawall.log().contains("ERROR"), "{}", seawall.log());
}

#[test]
fn hostile_metadata_reaches_neither_ruleset_nor_terminal() {
    let stage = Stage::take();
    let host = stage.host;
    let evil = "evil\nINJECTED\r\u{1b}[31m\"; drop '$(id)' \\ } add table inet pwned \u{9b}2J\u{202e}\u{7}";
    let long = "x\n\u{1b}]0;".repeat(2000);
    let label = |key: &str, value: &str| format!("--label={key}={value}");
    host.docker_ok(&["network", "create", "--ipv6", "hostile"]);
    let options = [
        "--network=hostile".to_owned(),
        format!("--network-alias={evil}"),
        label("com.docker.compose.project", evil),
        label("com.docker.compose.service", &format!("api{evil}")),
        label("com.docker.compose.depends_on", evil),
        label("seawall.model", evil),
        label("seawall.egress", evil),
        label("seawall.provides", &long),
        label("tag", &long),
        label("key\u{1b}[31m\";{}", evil),
        format!("--env=A={evil}"),
        format!("--env=DATABASE_URL=postgresql://u:geheim@{evil}:5432/x"),
        "--env=REDIS_URL=redis://:geheim@ca\u{1b}[31mche:6379/\u{7}".to_owned(),
        format!("--env={evil}=x"),
        format!("--env=B={long}"),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let argv = ["shop/api:1", "sh", "-c", "sleep 900", evil];
    let guest = host.guest(&[options.as_slice(), &argv].concat());
    // A neighbour in the same project, so that the hostile names stand in its statements and its sets.
    let project = label("com.docker.compose.project", evil);
    let service = label("com.docker.compose.service", "db");
    let mate =
        host.guest(&["--network=hostile", &project, &service, "postgres:15", "sleep", "900"]);
    let mut seawall = Seawall::start(host, ENFORCE);
    assert!(guest.table().is_some() && mate.table().is_some());
    let mut size = 0;
    for (command, code) in
        [("status", 0), ("end", 0), ("policy", 0), ("plan", 0), ("diff", 1), ("apply", 0)]
    {
        if command == "end" {
            seawall.stop();
            // Something to show for `diff`, and something to repair for `apply`.
            nft(&mate.netns(), "flush set inet seawall ping_in4");
            continue;
        }
        for format in ["human", "json"] {
            let output = seawall.cli(&[command, "--output", format]);
            assert_eq!(output.status.code(), Some(code), "{command}: {}", lossy(&output.stderr));
            // 10 kB of label are cut; JSON has whole texts on one line.
            let longest = lossy(&output.stdout).lines().map(str::len).max().unwrap_or_default();
            assert!(longest < 2000 || format == "json", "{command}: a line of {longest} bytes");
            for bytes in [&output.stdout, &output.stderr] {
                harmless(&format!("seawall {command} --output {format}"), &lossy(bytes));
                size += bytes.len();
            }
        }
    }
    for id in [&guest.id, &mate.id] {
        let explained = seawall.cli(&["test", id, &format!("{}:5432", mate.id)]);
        harmless("seawall test", &(lossy(&explained.stdout) + &lossy(&explained.stderr)));
        harmless("seawall resolve", &seawall.cli_ok(&["resolve", "--container", id]));
    }
    harmless("the log", &seawall.log());
    seawall.run();
    for container in [&*guest, &*mate] {
        let listed = nft(&container.netns(), "list table inet seawall");
        harmless("nft list", &listed);
        assert!(!nft(&container.netns(), "list tables").contains("pwned"));
        let text = seawall.cli_ok(&["plan", &container.id]);
        let empty = EmptyNetns::new();
        nft(&empty.netns(), &text);
        assert_eq!(held(&empty.netns()), container.table());
    }
    println!("{size} bytes printed by 10 commands, all harmless");
    drop((guest, mate));
    host.docker_ok(&["network", "rm", "hostile"]);
}

/// Nothing but text: no control characters, no line that metadata began, no secret.
fn harmless(what: &str, text: &str) {
    let is_control = |c: &char| c.is_control() && !['\n', '\t'].contains(c) || *c == '\u{202e}';
    assert_eq!(text.chars().find(is_control), None, "{what}:\n{}", text.escape_debug());
    let injected = text.lines().find(|line| line.trim_start().starts_with("INJECTED"));
    assert_eq!(injected, None, "{what}");
    assert!(!text.contains("geheim"), "{what}: a secret is printed");
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
