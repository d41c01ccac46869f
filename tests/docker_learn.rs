//! Docker layer: an application nobody knows is observed, a policy is proposed from what it did, applied, and enforced.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use harness::{Probe, Seawall, Stage, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

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
    let count = |port: &str| connections(&seawall, &homemade.name, port);
    until("what it did is on record", SOON, || count("5432/tcp") >= 5 && count("6379/tcp") >= 1);

    // What would be denied is listed by names before anything is learnt.
    let would_be = || seawall.cli_ok(&["explain", &homemade.name]);
    let line = format!("{} → shop/db on 5432/tcp: would be denied at {0}", homemade.name);
    until("it is listed by name", SOON, || would_be().contains(&line));

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

#[test]
fn learning_watches_for_a_while_says_so_and_loses_nothing_when_it_is_interrupted() {
    let stage = Stage::take();
    let (host, shop) = (stage.host, stage.shop());
    let db = shop.service("db");
    let homemade = host.guest(&["--network", "shop_backend", "busybox:1", "sleep", "900"]);
    let seawall = Seawall::start(host, "mode = \"observe\"\nresolvers = [\"203.0.113.53\"]");
    let database = db.ips_shared_with(&homemade)[0];
    assert_eq!(homemade.tcp(database, 22), Probe::Refused, "before it is watched");
    let on_record = |carried: &str| connections(&seawall, &homemade.name, carried);
    until("it is on record", SOON, || on_record("22/tcp") > 0);
    let seed = format!("name:{}", homemade.name);
    let begin = |lasts: &str| {
        let mut learn = seawall.cli_command(&["learn", "--seed", &seed, "--for", lasts]);
        let mut learn = learn.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut told = BufReader::new(learn.stderr.take().unwrap());
        let mut line = String::new();
        told.read_line(&mut line).unwrap();
        assert!(line.starts_with("watching what is said, "), "{line}");
        for _ in 0..5 {
            assert!(homemade.tcp(database, 5432).is_reached());
        }
        (learn, told)
    };
    let proposed = |learn: Child| {
        let output = learn.wait_with_output().unwrap();
        assert!(output.status.success(), "{:?}", output.status);
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(told.contains("# ---- policy.toml") && told.contains("5432/tcp"), "{told}");
        assert!(!told.contains("22/tcp"), "what was before is not part of it: {told}");
    };
    let (learn, _told) = begin("3s");
    proposed(learn);

    let before = on_record("5432/tcp");
    let (learn, _told) = begin("1h");
    until("they are on record", SOON, || on_record("5432/tcp") >= before + 5);
    kill(Pid::from_raw(learn.id().cast_signed()), Signal::SIGINT).unwrap();
    proposed(learn);
}

/// How many connections of a client's are on record.
fn connections(seawall: &Seawall, client: &str, carried: &str) -> u64 {
    let flows = seawall.json(&["flows", client]);
    let flows = flows.as_array().cloned().unwrap_or_default();
    let own = flows.iter().filter(|flow| flow["carried"] == carried && flow["end"] == "client");
    own.map(|flow| flow["connections"].as_u64().unwrap()).sum()
}
