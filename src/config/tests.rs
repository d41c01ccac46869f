//! Tests of the configuration file and of finding the files beside it.

use std::path::Path;

use super::*;

fn parse(text: &str) -> Result<Config, Diagnostics> {
    Config::parse(SourceFile { name: Path::new("seawall.toml"), text })
}

#[test]
fn with_no_configuration_everything_is_observed_and_the_host_may_connect() {
    let config = parse("").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.settings.mode, Mode::Observe);
    assert_eq!(config.settings.unknown, UnknownTreatment::Observe);
    assert_eq!(config.settings.labels, LabelTrust::Trust);
    assert!(config.settings.host);
    assert_eq!(config.deny.ingress, DenyVerdict::Drop);
    assert_eq!(config.deny.egress, DenyVerdict::Reject);
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
        mode = "enforce"
        unknown = "deny"
        labels = "narrow"
        host = false
        resolvers = ["192.0.2.53", "2001:db8::53"]
        ownership = "off"
        foreign = "report"
        [docker]
        host = "tcp://127.0.0.1:2375"
        config = "/opt/docker.json"
        [containerd]
        address = "unix:///run/containerd/containerd.sock"
        [deny]
        ingress = "reject"
        egress = "drop"
        [runtime]
        wait_ms = 1500
        fallback = "refuse"
        "#,
    )
    .unwrap();
    let resolvers = ["192.0.2.53", "2001:db8::53"].map(|text| text.parse().unwrap());
    let wanted = Config {
        settings: Settings {
            mode: Mode::Enforce,
            unknown: UnknownTreatment::Deny,
            labels: LabelTrust::Narrow,
            host: false,
            resolvers: Some(resolvers.into()),
        },
        docker_host: Some("tcp://127.0.0.1:2375".into()),
        docker_config: Some("/opt/docker.json".into()),
        containerd_address: Some("/run/containerd/containerd.sock".into()),
        deny: DenyVerdicts { ingress: DenyVerdict::Reject, egress: DenyVerdict::Drop },
        runtime: RuntimeSettings { wait: Duration::from_millis(1500), fallback: Fallback::Refuse },
        ownership: Ownership::Off,
        foreign: Foreign::Report,
        events: EventSettings::default(),
        metrics: MetricsSettings::default(),
    };
    assert_eq!(config, wanted);
}

#[test]
fn the_example_of_the_manual_is_the_default() {
    let text = r#"
mode    = "observe"
unknown = "observe"
labels  = "trust"
host    = true
[docker]
host = "unix:///var/run/docker.sock"
[containerd]
address = "/run/containerd/containerd.sock"
[deny]
ingress = "drop"
egress  = "reject"
[runtime]
wait_ms  = 5000
fallback = "deny-all"
"#;
    let config = parse(text).unwrap();
    assert_eq!(config.settings, Settings::default());
    assert_eq!(config.deny, DenyVerdicts::default());
    assert_eq!(config.runtime, RuntimeSettings::default());
}

#[test]
fn all_problems_are_told_at_once_with_their_places() {
    let text = "mode = \"enforced\"\nunknown = \"maybe\"\nhots = true\nresolvers = [\"dns\", \"0.0.0.0\"]\n\
                labels = 3\n[docker]\nhost = \"docker.sock\"\n[containerd]\naddress = \"run/x\"\n\
                [deny]\ningress = \"Drop\"\negres = \"drop\"\n[runtime]\nwait_ms = 0\nfallback = \"deny\"\n";
    insta::assert_snapshot!(parse(text).unwrap_err(), @r#"
        seawall.toml:1:8: error[config/bad-mode]: `mode` cannot be `enforced`
            help: use one of: observe, enforce, off
        seawall.toml:2:11: error[config/bad-unknown]: `unknown` cannot be `maybe`
            help: use one of: observe, baseline, deny
        seawall.toml:3:1: error[file/unknown-key]: unknown key `hots`
            help: did you mean `host`?
        seawall.toml:4:14: error[config/bad-resolver]: `dns` is not an IP address
            help: write addresses such as "192.0.2.53" or "2001:db8::53"
        seawall.toml:4:21: error[config/bad-resolver]: no resolver can have the address 0.0.0.0
            help: write its own address
        seawall.toml:5:10: error[file/wrong-type]: `labels` must be a string, found integer
        seawall.toml:7:8: error[config/bad-docker-host]: `docker.sock` is no address of a Docker API
            help: write "unix:///var/run/docker.sock" or "tcp://127.0.0.1:2375"
        seawall.toml:9:11: error[config/bad-containerd-address]: `run/x` is not an absolute path
            help: write the path of the socket, such as "/run/containerd/containerd.sock"
        seawall.toml:11:11: error[config/bad-deny]: `ingress` cannot be `Drop`
            help: use one of: drop, reject
        seawall.toml:12:1: error[file/unknown-key]: unknown key `egres`
            help: did you mean `egress`?
        seawall.toml:14:11: error[file/out-of-range]: `runtime.wait_ms` must be a whole number from 1 to 60000
        seawall.toml:15:12: error[config/bad-fallback]: `fallback` cannot be `deny`
            help: use one of: deny-all, refuse, allow
        "#);
}

fn write(directory: &Path, files: &[(&str, &[u8])]) {
    for (name, text) in files {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

fn no_models(_: &[SourceFile<'_>]) -> Result<crate::model::Catalogue, Diagnostics> {
    Ok(crate::model::Catalogue::default())
}

#[test]
fn files_beside_the_configuration_are_read_in_name_order() {
    let directory = tempfile::tempdir().unwrap();
    write(
        directory.path(),
        &[
            ("seawall.toml", b"mode = \"enforce\""),
            ("models.d/20.toml", b"# twenty"),
            ("models.d/10.toml", b"# ten"),
            ("models.d/README", b"not toml"),
            ("models.d/.10.toml.swp.toml", b"\xff"),
            ("policy.d/b.toml", b"[[mode]]\nselect = \"any\"\nmode = \"off\""),
            ("policy.d/a.toml", b"[[mode]]\nselect = \"any\"\nmode = \"enforce\""),
        ],
    );
    let files = Files::read(&directory.path().join("seawall.toml"));
    let mut seen = Vec::new();
    let loaded = files
        .load(|models| {
            seen = models.iter().map(|file| file.text.to_owned()).collect();
            no_models(models)
        })
        .unwrap();
    assert_eq!(seen, ["# ten", "# twenty"]);
    assert_eq!(loaded.config.settings.mode, Mode::Enforce);
    let modes: Vec<_> = loaded.operator.modes.iter().map(|rule| rule.mode).collect();
    assert_eq!(modes, [Mode::Enforce, Mode::Off]);
}

#[test]
fn a_host_without_any_file_has_the_defaults() {
    let directory = tempfile::tempdir().unwrap();
    let loaded = Files::read(&directory.path().join("none/seawall.toml")).load(no_models).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.operator, crate::policy::OperatorPolicy::default());
}

#[test]
fn what_cannot_be_read_is_told_together_with_what_cannot_be_parsed() {
    let directory = tempfile::tempdir().unwrap();
    write(
        directory.path(),
        &[
            ("seawall.toml", b"mode = \"on\""),
            ("models.d/binary.toml", b"# fine\n\xff\xfe"),
            ("models.d/directory.toml/x", b""),
            ("policy.d/a.toml", b"[[allow]]\nfrom = \"any\""),
        ],
    );
    std::os::unix::fs::symlink("nowhere", directory.path().join("policy.d/link.toml")).unwrap();
    let files = Files::read(&directory.path().join("seawall.toml"));
    let problems = files
        .load(|_| {
            let file = SourceFile { name: Path::new("m.toml"), text: "" };
            let mut problems = Diagnostics::new();
            problems.push(file.problem(&(0..0), "catalogue/broken", "broken"));
            Err(problems)
        })
        .unwrap_err();
    let shown = problems.to_string().replace(&directory.path().display().to_string(), "ETC");
    insta::assert_snapshot!(shown, @r#"
        ETC/models.d/binary.toml:2:1: error[config/not-utf8]: the file is not UTF-8 text
            help: save it as UTF-8
        ETC/models.d/directory.toml:1:1: error[config/unreadable]: cannot read it: Is a directory (os error 21)
        ETC/policy.d/a.toml:1:1: error[policy/missing-to]: `to` is missing or empty
            help: write `any` for every workload, `world` for every address
        ETC/policy.d/link.toml:1:1: error[config/unreadable]: cannot read it: entity not found
        ETC/seawall.toml:1:8: error[config/bad-mode]: `mode` cannot be `on`
            help: use one of: observe, enforce, off
        m.toml:1:1: error[catalogue/broken]: broken
        "#);
}

#[test]
fn a_file_nobody_may_read_is_a_problem_and_not_a_default() {
    // Root reads everything, so the file that cannot be read is a directory in its place.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("seawall.toml");
    std::fs::create_dir(&path).unwrap();
    let problems = Files::read(&path).load(no_models).unwrap_err();
    assert!(
        problems.to_string().contains("seawall.toml:1:1: error[config/unreadable]"),
        "{problems}"
    );
}
