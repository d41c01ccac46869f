//! Pure layer: learning through the binary itself, without root, Docker or a daemon: saved connections and saved facts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::Command;

const FLOWS: &str = "examples/shop/flows.json";
const FACTS: &str = "examples/shop/inspect.json";
const CONFIG: &str = "mode = \"enforce\"\n";

struct Run {
    code: i32,
    out: String,
    err: String,
}

/// A configuration of its own, and commands that use it.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        for (name, text) in files.iter().chain(&[("seawall.toml", CONFIG)]) {
            let path = place.path(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.path(name)).ok()
    }

    fn seawall(&self, args: &[&str]) -> Run {
        let output = Command::new(env!("CARGO_BIN_EXE_seawall"))
            .args(args)
            .arg("--config")
            .arg(self.path("seawall.toml"))
            .arg("--socket")
            .arg(self.path("none.sock"))
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
            .output()
            .unwrap();
        Run {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The same with the saved shop.
    fn offline(&self, args: &[&str]) -> Run {
        self.seawall(&[args, &["--flows", FLOWS, "--from", FACTS]].concat())
    }
}

#[test]
fn a_proposal_is_printed_with_what_it_changes() {
    let run = Place::new(&[]).offline(&["learn", "--seed", "project:shop"]);
    assert_eq!(run.code, 0, "{}", run.err);
    for expected in [
        "to = \"internet\"\nports = [\"443/tcp\"]",
        "from = \"project:shop service:db\"\nto = \"project:shop service:cache\"\nports = [\"6379/tcp\"]",
        "# Not proposed: nobody answered",
        "# Not proposed: seen fewer than 3 times",
        "+++ with the proposal",
        "+  allow in    from shop/db (postgres)",
    ] {
        assert!(run.out.contains(expected), "{expected} is missing in\n{}", run.out);
    }
    assert!(!run.out.contains("8000/tcp:"), "allowed already:\n{}", run.out);
}

#[test]
fn a_seed_is_a_selector_or_anything_a_target_is() {
    let place = Place::new(&[]);
    let first = place.offline(&["learn", "--seed", "project:shop service:api"]);
    for seed in ["shop/api", "shop_api_1", "09ea525488bc"] {
        let run = place.offline(&["learn", "--seed", seed]);
        assert_eq!((run.code, &run.out), (0, &first.out), "{seed}: {}", run.err);
    }
    for (seed, expected) in [
        ("nobody", "no workload is called `nobody`"),
        ("project:none", "no workload is called `project:none`"),
        ("proect:shop", "did you mean `project:`?"),
        ("internet", "`internet` is no workload"),
    ] {
        let run = place.offline(&["learn", "--seed", seed]);
        assert_eq!(run.code, 2, "{seed}: {}", run.out);
        assert!(run.err.contains(expected), "{seed}: {}", run.err);
    }
}

#[test]
fn what_is_written_is_applied_beside_the_configuration_and_then_nothing_is_missing() {
    let place = Place::new(&[]);
    let folder = place.path("shop proposal");
    let folder = folder.to_str().unwrap();
    let run =
        place.offline(&["learn", "--seed", "shop", "--min-connections", "2", "--write", folder]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.contains("policy.toml"), "{}", run.out);
    assert_eq!(place.read("shop proposal/models.toml"), None, "every image is known");

    let before = place.offline(&["plan", "--against-observed"]);
    assert_eq!(before.code, 1, "{}{}", before.out, before.err);
    for time in ["put in place", "was there already"] {
        let run = place.seawall(&["apply", folder]);
        assert_eq!(run.code, 0, "{}", run.err);
        assert!(run.out.contains(time) && run.out.contains("no daemon runs here"), "{}", run.out);
    }
    let installed = place.read("policy.d/learned-shop-proposal.toml");
    assert_eq!(installed, place.read("shop proposal/policy.toml"));
    assert_eq!(std::fs::read_dir(place.path("policy.d")).unwrap().count(), 1);

    let test = place.seawall(&["test", "shop/db", "shop/cache:6379", "--from", FACTS]);
    assert_eq!(test.code, 0, "{}", test.out);
    assert!(test.out.contains("learned-shop-proposal.toml:"), "{}", test.out);
    let after = place.offline(&["learn", "--seed", "shop", "--min-connections", "2"]);
    assert!(after.out.contains("nothing is missing"), "{}", after.out);
}

#[test]
fn a_different_file_is_never_overwritten() {
    let place = Place::new(&[("policy.d/learned-shop.toml", "# mine\n")]);
    let folder = place.path("shop");
    let folder = folder.to_str().unwrap();
    assert_eq!(place.offline(&["learn", "--seed", "shop", "--write", folder]).code, 0);
    let run = place.seawall(&["apply", folder]);
    assert_eq!(run.code, 2, "{}", run.out);
    assert!(run.err.contains("left as it is; remove it"), "{}", run.err);
    assert_eq!(place.read("policy.d/learned-shop.toml").as_deref(), Some("# mine\n"));

    std::fs::write(place.path("shop/policy.toml"), "# mine too\n").unwrap();
    let run = place.offline(&["learn", "--seed", "shop", "--write", folder]);
    assert_eq!(run.code, 2, "{}", run.out);
    assert_eq!(place.read("shop/policy.toml").as_deref(), Some("# mine too\n"));
}

#[test]
fn a_proposal_with_problems_changes_nothing() {
    let place = Place::new(&[
        ("bad/policy.toml", "[[allow]]\nfrom = \"service:a\"\nto = \"model:nosuch\"\n"),
        ("bad/models.toml", "[services.x]\nports = [\"1/tcp\"]\n"),
        ("empty/notes.txt", ""),
    ]);
    let run = place.seawall(&["apply", place.path("bad").to_str().unwrap()]);
    assert_eq!(run.code, 2, "{}", run.out);
    assert!(run.err.contains("policy.d/learned-bad.toml:3:"), "{}", run.err);
    assert!(!place.path("policy.d").exists() && !place.path("models.d").exists());
    let run = place.seawall(&["apply", place.path("empty").to_str().unwrap()]);
    assert_eq!(run.code, 2);
    assert!(run.err.contains("holds neither policy.toml nor models.toml"), "{}", run.err);
    let run = place.seawall(&["apply", place.path("nowhere").to_str().unwrap()]);
    assert_eq!(run.code, 2);
}

#[test]
fn a_staged_policy_is_tried_on_saved_connections() {
    let staged = "[[allow]]\nfrom = \"service:shop/api\"\nto = \"internet\"\nports = \"443/tcp\"\n\
                  [[allow]]\nfrom = \"service:shop/db\"\nto = \"internet\"\nports = \"53/udp\"\n";
    let place = Place::new(&[("staged.toml", staged)]);
    let file = place.path("staged.toml");
    let file = file.to_str().unwrap();
    let run = place.offline(&["plan", "--policy", file, "--against-observed"]);
    assert_eq!(run.code, 1, "{}", run.err);
    assert!(run.out.contains("shop/db → shop/cache: 6379/tcp"), "{}", run.out);
    assert!(!run.out.contains("pay.example") && !run.out.contains("443/tcp"), "{}", run.out);
    assert!(run.out.contains("staged.toml:5:1: nothing that was seen"), "{}", run.out);
    let run = place.offline(&["plan", "--policy", file, "--against-observed", "--output", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(answer["unused"][0]["line"], 5);
    assert_eq!(answer["refused"].as_array().unwrap().len(), 3);
    // Without it, the ruleset has it.
    let run = place.seawall(&["plan", "shop/api", "--policy", file, "--from", FACTS]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.contains("staged.toml:1:1") || run.out.contains("443"), "{}", run.out);
}

#[test]
fn groups_are_told_by_selectors() {
    let place = Place::new(&[]);
    let run = place.seawall(&["suggest-group", "shop/db", "--from", FACTS]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.contains("\n  model:postgres\n"), "{}", run.out);
    let run = place.seawall(&["suggest-group", "shop/db", "shop/web", "--from", FACTS]);
    assert_eq!(run.code, 1, "{}", run.out);
    assert!(run.out.contains("\n  project:shop service:web\n"), "{}", run.out);
    let run = place.seawall(&["suggest-group", "shop", "--from", FACTS, "--output", "json"]);
    let group: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(group["selectors"][0], "project:shop");
}

#[test]
fn json_has_the_shape_programs_rely_on() {
    let run = Place::new(&[]).offline(&["learn", "--seed", "shop", "--output", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    for key in [
        "seen",
        "seeds",
        "related",
        "models",
        "allow",
        "held",
        "unmet",
        "policy_toml",
        "models_toml",
        "diff",
        "written",
    ] {
        assert!(answer.get(key).is_some(), "{key} is missing in {}", run.out);
    }
    let allow = &answer["allow"][0];
    for key in ["from", "to", "ports", "helper", "confidence", "evidence"] {
        assert!(allow.get(key).is_some(), "{key} is missing in {allow}");
    }
    assert!(allow["confidence"].as_f64().unwrap() > 0.5, "{allow}");
}

#[test]
fn wrong_usage_is_two_and_no_daemon_is_three() {
    let place = Place::new(&[("bad.json", "{}")]);
    let bad = place.path("bad.json");
    let bad = bad.to_str().unwrap();
    for (args, expected) in [
        (
            &["learn", "--seed", "shop", "--flows", bad, "--from", FACTS][..],
            "holds no such records",
        ),
        (
            &["learn", "--seed", "shop", "--flows", "nosuch.json", "--from", FACTS],
            "cannot read nosuch.json",
        ),
        (&["learn", "--seed", "shop", "--for", "soon"], "write it as 90s, 10m or 2h"),
        (&["learn", "--flows", FLOWS], "--seed"),
        (&["learn", "--seed", "shop", "--for", "1m", "--flows", FLOWS], "cannot be used with"),
    ] {
        let run = place.seawall(args);
        assert_eq!(run.code, 2, "{args:?}: {}{}", run.out, run.err);
        assert!(run.err.contains(expected), "{args:?}: {}", run.err);
    }
    for args in [
        &["learn", "--seed", "shop", "--from", FACTS][..],
        &["learn", "--seed", "shop", "--for", "1s", "--from", FACTS],
        &["plan", "--against-observed", "--from", FACTS],
    ] {
        let run = place.seawall(args);
        assert_eq!(run.code, 3, "{args:?}: {}{}", run.out, run.err);
        assert!(run.err.contains("no seawall daemon answers"), "{}", run.err);
    }
}
