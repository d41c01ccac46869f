//! Tests of reading saved inspects: a whole fixture, and what hostile or broken files hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::metadata::container::{Surroundings, workload};
use crate::metadata::{NetworkMode, State, WireVia, WorkloadId};

const SHOP: &str = include_str!("../../../tests/fixtures/inspect/shop.json");

fn read(text: impl AsRef<[u8]>) -> Result<Vec<Workload>, Diagnostics> {
    parse(Path::new("saved.json"), text.as_ref(), &BTreeSet::from(["9.9.9.9".parse().unwrap()]))
}

fn one(object: &Value) -> Workload {
    read(object.to_string()).unwrap().remove(0)
}

fn problems(text: impl AsRef<[u8]>) -> Vec<String> {
    let problems = read(text).unwrap_err().sorted();
    problems.iter().map(|problem| format!("{} {}", problem.place, problem.code)).collect()
}

#[test]
fn a_saved_shop_is_read_whole() {
    let workloads = read(SHOP).unwrap();
    let printed = serde_json::to_string_pretty(&workloads).unwrap();
    assert!(!printed.contains("hunter2"), "a secret was kept");
    assert_eq!(workloads.len(), 2);
    let api = &workloads[0];
    assert_eq!(api.display_name(), "shop/api");
    let image = api.image.reference.as_ref().unwrap();
    assert_eq!(image.repository, "shop/api");
    assert!(image.digest.as_ref().unwrap().starts_with("sha256:3333"));
    assert_eq!(
        api.image.labels.as_ref().unwrap()[&Text::new("org.opencontainers.image.title")],
        "shop api"
    );
    assert_eq!(
        api.image.exposed.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["3000/tcp", "9229/tcp"]
    );
    assert_eq!(api.image.cmd, ["node", "server.js", "--api-key"].map(Text::new));
    let wires: Vec<_> = api
        .wires
        .iter()
        .map(|wire| format!("{} {:?} {:?}", wire.host, wire.port, wire.via))
        .collect();
    assert_eq!(
        wires,
        [
            "cache None DependsOn",
            r#"cache None Env("CACHE_HOST")"#,
            "db None DependsOn",
            r#"db Some(5432) Env("DATABASE_URL")"#,
        ]
    );
    assert!(api.env_names.contains("SESSION_SECRET") && api.env_names.contains("EMPTY"));
    let (key, network) = api.networks.first_key_value().unwrap();
    assert!(key.0.as_str().starts_with("nnnn"));
    assert_eq!(network.driver, Some(Text::new("bridge")));
    assert!(!network.is_default_bridge);
    assert_eq!(network.addresses, ["172.20.0.3", "fd00:20::3"].map(|a| a.parse().unwrap()).into());
    assert_eq!(network.gateways, ["172.20.0.1", "fd00:20::1"].map(|a| a.parse().unwrap()).into());
    assert_eq!(network.aliases, ["shop-api-1", "api", "aaaaaaaaaaaa"].map(Text::new).into());
    let published: Vec<_> = api
        .published
        .iter()
        .map(|port| format!("{:?} {:?} {}", port.host_ip, port.host_port, port.container))
        .collect();
    assert_eq!(published, ["Some(127.0.0.1) Some(49153) 3000/tcp", "None Some(9229) 9229/tcp"]);
    assert!(api.capabilities.net_admin && !api.capabilities.net_raw);
    assert_eq!(api.resolvers, BTreeSet::from(["1.1.1.1".parse().unwrap()]));
    assert_eq!(api.state, State::Running);
    assert_eq!(api.netns, None, "a saved pid belongs to another time");

    let sidecar = &workloads[1];
    assert_eq!(sidecar.network_mode, NetworkMode::Container(api.id.clone()));
    assert!(sidecar.capabilities.privileged && sidecar.capabilities.net_admin);
    assert_eq!(sidecar.state, State::Exited);
    assert_eq!(sidecar.resolvers, BTreeSet::from(["9.9.9.9".parse().unwrap()]));
}

#[test]
fn what_is_missing_or_of_another_type_reads_as_unknown() {
    let workload = one(&json!({"Id": "c1", "Config": {}}));
    assert_eq!(workload.name, "c1");
    assert_eq!(workload.state, State::Created);
    assert!(!workload.capabilities.net_admin && workload.capabilities.net_raw);
    let workload = one(&json!({
        "Id": "c2", "Name": ["?"], "Image": 7, "State": "running",
        "HostConfig": {"NetworkMode": 5, "PortBindings": [], "Dns": {}, "CapAdd": "ALL"},
        "Config": {"Env": [1, {}, "A=b"], "Labels": ["x"], "ExposedPorts": ["80/tcp"]},
        "NetworkSettings": {"Networks": {"x": null, "y": 5}, "Ports": null}
    }));
    assert!(workload.env_names.contains("A"));
    assert_eq!(workload.image.exposed.len(), 1);
    assert_eq!(workload.networks.len(), 2);
    assert!(workload.capabilities.net_admin);
}

#[test]
fn a_live_container_has_the_netns_of_its_process() {
    let object = json!({"Id": "c1", "State": {"Status": "paused", "Pid": 77}});
    let (resolvers, images) = (BTreeSet::new(), BTreeMap::new());
    let around = Surroundings {
        runtime: &Runtime::Docker,
        resolvers: &resolvers,
        images: &images,
        networks: &[],
    };
    let netns = workload(&object, around).unwrap().netns.unwrap();
    assert_eq!((netns.pid, netns.path.to_str()), (77, Some("/proc/77/ns/net")));
    for state in [
        json!({"Status": "restarting", "Running": true, "Pid": 77}),
        json!({"Status": "exited", "Pid": 77}),
        json!({"Status": "running", "Pid": 0}),
        json!({"Status": "running", "Pid": -1}),
    ] {
        let object = json!({"Id": "c1", "State": state});
        assert_eq!(workload(&object, around).unwrap().netns, None, "{object}");
    }
}

#[test]
fn only_a_running_container_has_addresses() {
    let object = |status: &str| {
        json!({"Id": "c", "State": {"Status": status}, "HostConfig": {"NetworkMode": "default"},
            "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2", "Gateway": "172.17.0.1"}}}})
    };
    let running = one(&object("running"));
    let (key, bridge) = running.networks.first_key_value().unwrap();
    assert!(bridge.is_default_bridge && key.0 == "bridge");
    assert_eq!(running.addresses().count(), 1);
    assert_eq!(one(&object("exited")).addresses().count(), 0);
}

#[test]
fn host_and_none_networks_relate_nobody() {
    for mode in ["host", "none"] {
        let workload = one(&json!({"Id": "c", "State": {}, "HostConfig": {"NetworkMode": mode},
            "NetworkSettings": {"Networks": {mode: {"NetworkID": "n"}}}}));
        assert!(workload.networks.is_empty(), "{mode}");
        assert_ne!(workload.network_mode, NetworkMode::Own);
    }
}

#[test]
fn published_ports_follow_docker() {
    let ports = |object: Value| {
        let workload = one(&object);
        let line = |port: &crate::metadata::PublishedPort| {
            format!("{:?} {:?} {}", port.host_ip, port.host_port, port.container)
        };
        workload.published.iter().map(line).collect::<Vec<_>>()
    };
    let bound = |binding: Value| json!({"Id": "c", "State": {"Status": "created"}, "HostConfig": {"PortBindings": {"53/udp": [binding]}}});
    assert_eq!(ports(bound(json!({"HostIp": "::", "HostPort": "53"}))), ["None Some(53) 53/udp"]);
    assert_eq!(
        ports(bound(json!({"HostIp": "::1", "HostPort": "8000-8010"}))),
        ["Some(::1) None 53/udp"]
    );
    assert!(ports(bound(json!({"HostIp": "what?", "HostPort": "53"}))).is_empty());
    let all = json!({"Id": "c", "State": {"Status": "created"}, "HostConfig": {"PublishAllPorts": true},
        "Config": {"ExposedPorts": {"80/tcp": {}}}});
    assert_eq!(ports(all), ["None None 80/tcp"]);
}

#[test]
fn capabilities_follow_docker() {
    let read = |add: Value, drop: Value| {
        let capabilities =
            one(&json!({"Id": "c", "State": {}, "HostConfig": {"CapAdd": add, "CapDrop": drop}}))
                .capabilities;
        (capabilities.net_admin, capabilities.net_raw)
    };
    assert_eq!(read(json!(null), json!(null)), (false, true));
    assert_eq!(read(json!(null), json!(["ALL"])), (false, false));
    assert_eq!(read(json!(["CAP_NET_RAW"]), json!(["all"])), (false, true));
    assert_eq!(read(json!(["ALL"]), json!(["NET_ADMIN"])), (false, true));
    assert_eq!(read(json!(["net_admin"]), json!([])), (true, true));
}

#[test]
fn shared_netns_is_found_by_id_part_of_it_or_name() {
    let other = "dddddddddddd0000000000000000000000000000000000000000000000000001";
    for wanted in [other, "dddddddddddd", "owner"] {
        let text = json!([
            {"Id": "member", "State": {}, "HostConfig": {"NetworkMode": format!("container:{wanted}")}},
            {"Id": other, "Name": "/owner", "State": {}}
        ]);
        let workloads = read(text.to_string()).unwrap();
        assert_eq!(
            workloads[0].network_mode,
            NetworkMode::Container(WorkloadId::new(other)),
            "{wanted}"
        );
    }
    let alone =
        one(&json!({"Id": "m", "State": {}, "HostConfig": {"NetworkMode": "container:gone"}}));
    assert_eq!(alone.network_mode, NetworkMode::Container(WorkloadId::new("gone")));
}

#[test]
fn hostile_strings_become_harmless() {
    let evil = "a\n\u{1b}]0;x\u{7}\u{202e}\"; drop";
    let workload = one(&json!({
        "Id": evil, "Name": format!("/{evil}"), "State": {"Status": "running"},
        "Config": {"Image": evil, "Env": [format!("{evil}={evil}"), format!("BIG={}", "x".repeat(10_000)), evil],
            "Labels": {evil: "y".repeat(10_000), "com.docker.compose.project": evil, "com.docker.compose.depends_on": evil},
            "Entrypoint": [evil], "Cmd": [evil]},
        "HostConfig": {"Links": [evil], "NetworkMode": format!("container:{evil}")},
        "NetworkSettings": {"Networks": {evil: {"NetworkID": evil, "Aliases": [evil], "IPAddress": evil}}}
    }));
    let printed = format!("{workload:?}");
    assert!(!printed.contains(['\n', '\u{1b}', '\u{7}', '\u{202e}']), "{printed}");
    assert!(printed.len() < 10_000, "a huge value was kept");
    assert_eq!(workload.image.reference, None);
    assert!(workload.wires.iter().all(|wire| !matches!(wire.via, WireVia::Link)));
}

#[test]
fn bytes_that_are_not_utf8_are_read() {
    let mut bytes = br#"{"Id":"c","Name":"/na"#.to_vec();
    bytes.extend(b"\xff\xfe");
    bytes.extend(br#"me","State":{}}"#);
    assert_eq!(read(bytes).unwrap()[0].name, "na\u{fffd}\u{fffd}me");
}

#[test]
fn every_problem_is_reported_at_its_place() {
    let text = "[\n  {\"Id\": \"a\", \"State\": {}},\n  {\"Mountpoint\": \"/v\"},\n  [5, {}],\n  \"],[\", {\"State\": {}}\n]\n {\"Id\": \"a\", \"State\": {}}";
    assert_eq!(
        problems(text),
        [
            "saved.json:3:3 inspect/not-a-container",
            "saved.json:4:3 inspect/not-a-container",
            "saved.json:5:3 inspect/not-a-container",
            "saved.json:5:10 inspect/unidentified",
            "saved.json:7:2 inspect/duplicate",
        ]
    );
    assert_eq!(problems("[{\"Id\": \"a\",\n  oops}]"), ["saved.json:2:3 inspect/syntax"]);
    assert_eq!(problems("{\"Id\""), ["saved.json:1:5 inspect/syntax"]);
    assert_eq!(problems(""), ["saved.json:1:1 inspect/empty"]);
    assert_eq!(problems("[]"), ["saved.json:1:1 inspect/empty"]);
    assert_eq!(problems("5"), ["saved.json:1:1 inspect/not-a-container"]);
}

#[test]
fn the_images_own_variables_and_labels_wire_it_to_nobody() {
    let labels = json!({"com.docker.compose.depends_on": "cache:service_started:false"});
    let image = json!({"Id": "sha256:1", "RepoTags": [],
        "Config": {"Env": ["A_URL=http://db:1"], "Labels": labels}});
    let container = json!({"Id": "1", "Name": "/x", "Image": "sha256:1", "HostConfig": {},
        "Config": {"Env": ["A_URL=http://db:1", "B_URL=http://api:2"], "Labels": labels}});
    let read = read(json!([image, container]).to_string()).unwrap();
    let hosts: Vec<_> = read[0].wires.iter().map(|wire| wire.host.as_str()).collect();
    assert_eq!(hosts, ["api"]);
    assert!(read[0].env_names.contains("A_URL"), "a name is still known");
}
