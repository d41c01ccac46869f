//! Docker layer: an application nobody knows is observed, a policy is proposed from what it did, applied, and enforced.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::time::Duration;

use harness::{Seawall, Stage, until};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn an_unknown_application_works_in_enforce_by_what_was_learnt_and_nothing_more() {
    let stage = Stage::take();
    let (host, shop) = (stage.host, stage.shop());
    let (db, cache) = (shop.service("db"), shop.service("cache"));
    let homemade = host.guest(&["--network", "shop_backend", "busybox:1", "sleep", "900"]);
    let settings = "mode = \"observe\"\nunknown = \"deny\"\nresolvers = [\"203.0.113.53\"]";
    let seawall = Seawall::start(host, settings);
    let database = db.ips_shared_with(&homemade)[0];
    for _ in 0..5 {
        assert!(homemade.tcp(database, 5432).is_reached(), "observed");
    }
    // Once is not enough to become policy.
    let other = cache.ips_shared_with(&homemade)[0];
    assert!(homemade.tcp(other, 6379).is_reached());
    let count = |port: &str| {
        let flows = seawall.json(&["flows", &homemade.name]);
        let flows = flows.as_array().cloned().unwrap_or_default();
        let own = flows.iter().filter(|flow| flow["carried"] == port && flow["end"] == "client");
        own.map(|flow| flow["connections"].as_u64().unwrap()).sum::<u64>()
    };
    until("what it did is on record", SOON, || count("5432/tcp") >= 5 && count("6379/tcp") >= 1);

    let folder = tempfile::Builder::new().prefix("swall-").tempdir().unwrap();
    let path = folder.path().join("homemade");
    let seed = format!("name:{}", homemade.name);
    let written = path.to_str().unwrap();
    let told = seawall.cli_ok(&["learn", "--seed", &seed, "--write", written]);
    let policy = std::fs::read_to_string(path.join("policy.toml")).unwrap();
    println!("{told}");
    let is_stated =
        |text: &str| policy.lines().any(|line| line.contains(text) && !line.starts_with('#'));
    assert!(is_stated("5432/tcp") || is_stated("postgresql"), "{policy}");
    assert!(!is_stated("6379/tcp") && !is_stated("\"redis\""), "one-off: {policy}");
    assert!(homemade.tcp(database, 5432).is_reached(), "nothing is applied yet");

    seawall.cli_ok(&["mode", "any", "enforce"]);
    assert!(!homemade.tcp(database, 5432).is_reached(), "enforced without the proposal");
    seawall.cli_ok(&["apply", written]);
    assert!(homemade.tcp(database, 5432).is_reached(), "it is in force when the command returns");
    assert!(!homemade.tcp(other, 6379).is_reached(), "an extra connection is denied");
    let explained = || seawall.cli_ok(&["explain", &homemade.name]);
    until("it is explained", SOON, || explained().contains("on 6379/tcp: denied"));
    let text = explained();
    assert!(text.contains("[[allow]]") && text.contains("ports = \"6379/tcp\""), "{text}");
}
