//! Tests of judging Docker, containerd and the runtime wrapper.

use serde_json::json;

use super::super::check::Outcome;
use super::*;

fn finding(is_good: bool) -> Finding {
    Finding { is_good, what: "as it was found".to_owned() }
}

fn facts() -> Facts {
    Facts {
        host: Text::new("unix:///var/run/docker.sock"),
        named_by: "the default",
        docker: Ok(EngineFacts { version: Text::new("28.5"), ..EngineFacts::default() }),
        containerd: Ok(("/run/containerd/containerd.sock".into(), Text::new("2.1"))),
        file: CONFIG.into(),
        settings: Ok(Value::Null),
        arguments: Some(vec!["/usr/bin/dockerd".to_owned(), "-H".to_owned(), "fd://".to_owned()]),
        chain: Ok(Chain {
            wrapper: finding(true),
            engine: Some(finding(true)),
            containers: Some(finding(true)),
        }),
    }
}

fn results(facts: &Facts) -> Vec<(&'static str, Outcome)> {
    let checks = judge(facts);
    let is_told = |check: &&Check| !matches!(check.result, Outcome::Ok | Outcome::Skipped);
    let bad = checks.iter().filter(is_told);
    bad.map(|check| (check.id, check.result)).collect()
}

#[test]
fn a_docker_with_the_wrapper_has_nothing_to_be_told_of() {
    assert_eq!(results(&facts()), []);
}

#[test]
fn each_broken_link_before_a_container_is_told() {
    let with = |change: fn(&mut Chain)| {
        let mut facts = facts();
        change(facts.chain.as_mut().unwrap());
        results(&facts)
    };
    let missing = Outcome::Missing;
    assert_eq!(with(|chain| chain.wrapper = finding(false)), [("runtime.wrapper", missing)]);
    assert_eq!(with(|chain| chain.engine = Some(finding(false))), [("runtime.engine", missing)]);
    assert_eq!(
        with(|chain| chain.containers = Some(finding(false))),
        [("runtime.containers", missing)]
    );
    assert_eq!(with(|chain| chain.containers = None), []);
    let broken = Facts { chain: Err("no JSON".to_owned()), ..facts() };
    assert_eq!(results(&broken), [("runtime.wrapper", missing)]);
}

#[test]
fn one_engine_that_is_not_there_is_no_loss_and_two_are() {
    let chain = || Ok(Chain { wrapper: finding(true), engine: None, containers: None });
    let absent = Facts { docker: Err(Silence::Absent), chain: chain(), ..facts() };
    assert_eq!(results(&absent), [("docker.reachable", Outcome::Warning)]);
    let without = Facts { containerd: Err(Silence::Absent), ..facts() };
    assert_eq!(results(&without), [("containerd.reachable", Outcome::Warning)]);
    let both = Facts { docker: Err(Silence::Absent), containerd: Err(Silence::Absent), ..facts() };
    assert_eq!(results(&both)[0], ("docker.reachable", Outcome::Missing));
    let silent = Facts { docker: Err(Silence::Other("broken".to_owned())), ..facts() };
    assert_eq!(results(&silent)[0], ("docker.reachable", Outcome::Missing));
}

#[test]
fn what_may_not_be_asked_is_unknown() {
    let chain = Chain { wrapper: finding(true), engine: None, containers: None };
    let forbidden = Facts {
        docker: Err(Silence::Forbidden),
        containerd: Err(Silence::Forbidden),
        chain: Ok(chain),
        ..facts()
    };
    let unknown =
        ["docker.reachable", "containerd.reachable", "runtime.engine", "runtime.containers"];
    assert_eq!(results(&forbidden), unknown.map(|id| (id, Outcome::Unknown)));
}

#[test]
fn settings_are_read_from_the_command_line_first() {
    let words = |text: &str| Some(text.split(' ').map(str::to_owned).collect());
    let off = Facts { settings: Ok(json!({"iptables": false})), ..facts() };
    assert_eq!(results(&off), [("docker.settings", Outcome::Warning)]);
    let on = Facts { arguments: words("dockerd --iptables=true"), ..off.clone() };
    assert_eq!(results(&on), []);
    let flag = Facts { arguments: words("dockerd --iptables=false"), ..facts() };
    assert_eq!(results(&flag), [("docker.settings", Outcome::Warning)]);
    assert_eq!(
        setting(
            &Facts { arguments: words("dockerd --userland-proxy"), ..facts() },
            "userland-proxy"
        ),
        Some(true)
    );
    let broken = Facts { settings: Err("no".to_owned()), ..facts() };
    assert_eq!(results(&broken), [("docker.settings", Outcome::Warning)]);
    let rootless = EngineFacts { is_rootless: true, ..EngineFacts::default() };
    let rootless = Facts { docker: Ok(rootless), ..facts() };
    assert_eq!(results(&rootless), [("docker.settings", Outcome::Missing)]);
}

#[test]
fn another_file_than_dockerds_own_is_told() {
    let words = |text: &str| Some(text.split(' ').map(str::to_owned).collect());
    let told = [("docker.file", Outcome::Warning)];
    for arguments in ["dockerd --config-file /opt/d.json", "dockerd --config-file=/opt/d.json"] {
        let other = Facts { arguments: words(arguments), ..facts() };
        assert_eq!(results(&other), told, "{arguments}");
        assert_eq!(results(&Facts { file: "/opt/d.json".into(), ..other }), []);
    }
    assert_eq!(results(&Facts { file: "/opt/d.json".into(), ..facts() }), told);
    assert_eq!(results(&Facts { arguments: None, file: "/opt/d.json".into(), ..facts() }), []);
}
