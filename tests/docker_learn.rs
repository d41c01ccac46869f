//! Docker layer: a proposal from what was seen of real containers, and its way into force through a running daemon.

mod harness;

use harness::{DockerHost, Lab, Probe, STORE, Seawall};
use serde_json::{Value, json};

/// The workload, as the daemon would name it in a record.
fn party(name: &str, selector: &str) -> Value {
    json!({ "kind": "workload", "name": name, "model": null, "selector": selector })
}

/// Nine connections of the intruder to the store, as they were seen at one end.
fn flow(end: &str) -> Value {
    json!({
        "end": end,
        "client": party("intruder", "name:intruder"),
        "server": party("lab/store", "project:lab service:store"),
        "carried": format!("{STORE}/tcp"),
        "master": null,
        "said": "would_deny",
        "first_us": 1_795_597_200_000_000_u64,
        "last_us": 1_795_600_800_000_000_u64,
        "connections": 9,
        "unanswered": 0,
        "packets_out": 45,
        "bytes_out": 2700,
        "packets_in": 36,
        "bytes_in": 18_000,
    })
}

#[test]
fn an_applied_proposal_is_in_force_when_the_command_returns() {
    let host = DockerHost::start();
    let lab = Lab::up(&host);
    let seawall = Seawall::start(&host, "mode = \"enforce\"\nunknown = \"baseline\"");
    seawall.settled();
    let reaches = || lab.store_ips().into_iter().map(|ip| lab.intruder.tcp(ip, STORE));
    assert!(reaches().all(|probe| !probe.is_reached()));

    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (flows, proposal) = (folder.path().join("flows.json"), folder.path().join("lab"));
    let records = json!([flow("client"), flow("server")]).to_string();
    std::fs::write(&flows, records).expect("a file can be written");
    let (flows, proposal) = (flows.display().to_string(), proposal.display().to_string());
    let learned =
        seawall.json(&["learn", "--seed", "intruder", "--flows", &flows, "--write", &proposal]);
    assert_eq!(learned["allow"][0]["to"][0], "project:lab service:store", "{learned:#}");
    assert_eq!(learned["unmet"], json!([]), "{learned:#}");
    assert!(reaches().all(|probe| !probe.is_reached()), "learning changes nothing");

    let applied = seawall.json(&["apply", &proposal]);
    assert!(reaches().all(|probe| probe == Probe::Reached), "{applied:#}");
    assert_eq!(applied["reloaded"], true);
    let changed: Vec<&str> = applied["changes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|change| change["workload"].as_str())
        .collect();
    assert!(changed.contains(&"intruder"), "{applied:#}");

    // What the daemon could not read is not put in place.
    let broken = folder.path().join("broken");
    std::fs::create_dir(&broken).expect("a folder can be made");
    std::fs::write(broken.join("policy.toml"), "[[allow]]\nfrom = \"x\"\n")
        .expect("a file can be written");
    let refused = seawall.cli(&["apply", &broken.display().to_string()]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(seawall.settled()["configuration_error"].is_null());
    assert!(reaches().all(|probe| probe == Probe::Reached));
}
