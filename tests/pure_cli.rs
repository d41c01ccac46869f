//! Pure layer: the binary itself, without root and without Docker: output, exit codes, and what bad input gets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::{Command, Output};

struct Run {
    code: i32,
    out: String,
    err: String,
}

fn seawall_in(folder: &Path, args: &[&str]) -> Run {
    let output: Output = Command::new(env!("CARGO_BIN_EXE_seawall"))
        .args(args)
        .current_dir(folder)
        .env_remove("SEAWALL_CONFIG")
        .env_remove("SEAWALL_SOCKET")
        .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
        .output()
        .unwrap();
    Run {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn seawall(args: &[&str]) -> Run {
    seawall_in(Path::new(env!("CARGO_MANIFEST_DIR")), args)
}

const COMPOSE: &str = "examples/shop/compose.yaml";

#[test]
fn a_plan_from_a_compose_file_needs_nothing() {
    let run = seawall(&["plan", "--from", COMPOSE]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert_eq!(run.out.matches("table inet seawall {").count(), 4);
    assert!(run.out.contains("addresses are placeholders"));
    assert!(run.err.is_empty(), "{}", run.err);
}

#[test]
fn facts_come_from_standard_input_too() {
    let file = std::fs::File::open(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/shop/inspect.json"),
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_seawall"))
        .args(["policy", "--from", "-", "shop/db"])
        .stdin(file)
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("shop/db (postgres)  observe"));
}

#[test]
fn a_test_tells_the_verdict_with_its_exit_code_and_the_line_to_add() {
    let allowed = seawall(&["test", "shop/api", "shop/db:5432/tcp", "--from", COMPOSE]);
    assert_eq!(allowed.code, 0, "{}{}", allowed.out, allowed.err);
    assert!(allowed.out.contains("model postgres, models.toml:"), "{}", allowed.out);

    let folder = configured("mode = \"enforce\"\n", &[]);
    let config = folder.path().join("seawall.toml");
    let config = config.to_str().unwrap();
    let denied =
        seawall(&["--config", config, "test", "shop/db", "shop/cache:6379", "--from", COMPOSE]);
    assert_eq!(denied.code, 1, "{}{}", denied.out, denied.err);
    assert!(denied.out.contains("no statement allows it"), "{}", denied.out);

    // The line it names does what it says.
    let start = denied.out.find("[[allow]]").unwrap();
    let statement: String =
        denied.out[start..].lines().map(|line| format!("{}\n", line.trim())).collect();
    let folder = configured("mode = \"enforce\"\n", &[("policy.d/x.toml", &statement)]);
    let config = folder.path().join("seawall.toml");
    let config = config.to_str().unwrap();
    let allowed =
        seawall(&["--config", config, "test", "shop/db", "shop/cache:6379", "--from", COMPOSE]);
    assert_eq!(allowed.code, 0, "{}{}", allowed.out, allowed.err);
    assert!(allowed.out.contains("policy.d/x.toml:1:1"), "{}", allowed.out);
}

fn configured(config: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files.iter().chain(&[("seawall.toml", config)]) {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

#[test]
fn every_problem_of_every_file_is_named_with_its_place() {
    let folder = configured(
        "mode = \"enforced\"\nhots = true\n[deny]\ningress = 3\n",
        &[
            ("models.d/a.toml", "[models.x]\ntitle = \"X\"\nprovides = [\"nosuch\"]\nport = 1\n"),
            (
                "policy.d/a.toml",
                "[[allow]]\nfrom = \"service:web\"\nto = [\"cidr:10.0.0.0/8\", \"cidr:10.1.0.0/16\"]\nports = [\"0/tcp\", \"9-3/udp\"]\n[[deny]]\nfrom = \"host\"\nto = \"world\"\n",
            ),
        ],
    );
    let run = seawall_in(folder.path(), &["--config", "seawall.toml", "check"]);
    assert_eq!(run.code, 2);
    assert!(run.out.is_empty());
    for expected in [
        "seawall.toml:1:8: error[",
        "seawall.toml:2:1: error[file/unknown-key]: unknown key `hots`",
        "did you mean `host`?",
        "seawall.toml:4:11: error[",
        "models.d/a.toml:",
        "catalogue/unknown-service",
        "policy.d/a.toml:3:",
        "policy/overlapping-cidr",
        "port 0 does not exist",
        "the range 9-3 is reversed",
        "policy.d/a.toml:5:",
    ] {
        assert!(run.err.contains(expected), "{expected} is missing in\n{}", run.err);
    }
}

#[test]
fn every_kind_of_file_names_the_key_that_was_meant() {
    let files = [
        (
            "models.d/a.toml",
            "[models.foo]\ntitle = \"Foo\"\nimage = [\"foo\"]\nsource = \"https://h\"\n",
        ),
        ("policy.d/a.toml", "[[allow]]\nfrm = \"any\"\nto = \"world\"\n[[alow]]\n"),
        ("state/modes.toml", "[[mode]]\nselct = \"project:a\"\nmode = \"off\"\n"),
    ];
    let folder = configured("mod = \"enforce\"\n[dokcer]\n[runtime]\nwait = 3\n", &files);
    let check = ["--config", "seawall.toml", "--state-dir", "state", "check"];
    let run = seawall_in(folder.path(), &check);
    assert_eq!(run.code, 2);
    for (place, meant) in [
        ("seawall.toml:1:1", "mode"),
        ("seawall.toml:2:2", "docker"),
        ("seawall.toml:4:1", "wait_ms"),
        ("models.d/a.toml:3:1", "images"),
        ("policy.d/a.toml:2:1", "from"),
        ("policy.d/a.toml:4:3", "allow"),
        ("state/modes.toml:2:1", "select"),
    ] {
        let after = run.err.split(&format!("{place}: error[file/unknown-key]")).nth(1);
        let after = after.unwrap_or_else(|| panic!("nothing at {place} in\n{}", run.err));
        let help = after.lines().nth(1).unwrap();
        assert!(help.contains(meant), "{place}: {help}");
    }
}

#[test]
fn modes_that_would_not_survive_the_next_one_are_found_by_check() {
    let modes = "[[mode]]\nselect = \"project:a\"\nmode = \"enforce\"\n\n[[deny]]\nfrom = \"any\"\nto = \"world\"\n";
    let folder = configured("", &[("state/modes.toml", modes)]);
    let check = ["--config", "seawall.toml", "--state-dir", "state", "check"];
    let run = seawall_in(folder.path(), &check);
    assert_eq!(run.code, 2);
    assert!(run.err.starts_with("state/modes.toml:5:3: error[config/bad-modes]"), "{}", run.err);
}

#[test]
fn problems_are_json_for_programs() {
    let folder = configured("mode = 1\n", &[]);
    let run = seawall_in(folder.path(), &["--config", "seawall.toml", "--output", "json", "check"]);
    assert_eq!(run.code, 2);
    let report: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(report["problems"][0]["place"]["line"], 1);
    assert!(report["problems"][0]["code"].is_string());
}

#[test]
fn no_configuration_at_all_is_good() {
    let run = seawall(&["check"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.contains("mode observe"));
}

#[test]
fn wrong_usage_is_two_and_says_what_to_do() {
    for (args, expected) in [
        (&["plan", "--from", "nosuch.yaml"][..], "cannot read nosuch.yaml"),
        (
            &["policy", "--from", COMPOSE, "shop/nosuch"],
            "known: shop/api, shop/cache, shop/db, shop/web",
        ),
        (&["test", "shop/web", "shop/db", "--from", COMPOSE], "names no port"),
        (&["test", "shop/web", "shop/db:0", "--from", COMPOSE], "`0` is not one port"),
        (&["test", "nobody", "shop/db:1", "--from", COMPOSE], "no workload is called `nobody`"),
        (&["resolve", "NOT AN IMAGE"], "is not an image reference"),
        (&["--config", "/nonexistent.toml", "check"], "does not exist"),
        (&["nosuch"], "unrecognized subcommand"),
    ] {
        let run = seawall(args);
        assert_eq!(run.code, 2, "{args:?}: {}{}", run.out, run.err);
        assert!(run.err.contains(expected), "{args:?}: {}", run.err);
    }
}

#[test]
fn without_docker_it_is_one_clear_line_and_three() {
    let folder = configured("[containerd]\naddress = \"/nonexistent/containerd.sock\"\n", &[]);
    let run = seawall_in(folder.path(), &["--config", "seawall.toml", "plan"]);
    assert_eq!(run.code, 3, "{}{}", run.out, run.err);
    assert_eq!(run.err.lines().count(), 1, "{}", run.err);
    assert!(run.err.contains("neither Docker nor containerd answers"), "{}", run.err);
}

#[test]
fn without_a_daemon_status_is_one_clear_line_and_three() {
    let run = seawall(&["--socket", "/nonexistent/s.sock", "status"]);
    assert_eq!(run.code, 3);
    assert_eq!(
        run.err,
        "seawall: no seawall daemon answers on /nonexistent/s.sock; start it with `systemctl start seawall` or `seawall run`\n"
    );
}

#[test]
fn an_image_is_resolved_with_its_evidence() {
    let run = seawall(&["resolve", "registry:5000/bitnami/postgresql:16"]);
    assert_eq!(run.code, 0);
    assert!(run.out.contains("postgres (PostgreSQL, database)"), "{}", run.out);
    assert!(run.out.contains("repository"), "{}", run.out);
    let run = seawall(&["resolve", "acme/billing", "--output", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(answer["model"], serde_json::Value::Null);
}

#[test]
fn every_command_explains_itself() {
    let help = seawall(&["--help"]);
    assert_eq!(help.code, 0);
    let commands = [
        "run",
        "check",
        "resolve",
        "policy",
        "plan",
        "diff",
        "apply",
        "status",
        "test",
        "learn",
        "suggest-group",
        "clear",
        "doctor",
        "reload",
        "completions",
    ];
    for command in commands {
        assert!(help.out.contains(&format!("\n  {command} ")), "{command} is not in --help");
        let own = seawall(&[command, "--help"]);
        assert_eq!(own.code, 0, "{command}");
        assert!(own.out.contains("Usage:"), "{command}");
    }
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let run = seawall(&["completions", shell]);
        assert_eq!(run.code, 0);
        assert!(run.out.contains("seawall"), "{shell}");
    }
}

#[test]
fn json_has_the_shape_programs_rely_on() {
    let plan = seawall(&["plan", "--from", COMPOSE, "--output", "json"]);
    let plan: serde_json::Value = serde_json::from_str(&plan.out).unwrap();
    assert_eq!(plan.as_array().unwrap().len(), 4);
    for key in ["id", "workload", "mode", "nft", "ruleset"] {
        assert!(plan[0].get(key).is_some(), "{key}");
    }
    let policy = seawall(&["policy", "--from", COMPOSE, "--output", "json"]);
    let policy: serde_json::Value = serde_json::from_str(&policy.out).unwrap();
    for key in ["workload", "label", "mode", "statements"] {
        assert!(policy[0].get(key).is_some(), "{key}");
    }
    let verdict =
        seawall(&["test", "shop/api", "shop/db:5432", "--from", COMPOSE, "--output", "json"]);
    let verdict: serde_json::Value = serde_json::from_str(&verdict.out).unwrap();
    assert_eq!(verdict["allowed"], true);
}
