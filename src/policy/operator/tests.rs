//! Tests of operators' files: what they say, and every problem they can have.

use std::path::Path;

use super::*;
use crate::policy::fixture::{catalogue, compose, make, operator};

fn problems(text: &str) -> String {
    let file = SourceFile { name: Path::new("a.toml"), text };
    parse(&[file], &catalogue()).expect_err("this file has problems").to_string()
}

/// The codes of all problems, in the file's order.
fn codes(text: &str) -> Vec<&'static str> {
    let file = SourceFile { name: Path::new("a.toml"), text };
    let problems = parse(&[file], &catalogue()).expect_err(text);
    problems.sorted().into_iter().map(|problem| problem.code).collect()
}

#[test]
fn a_file_says_what_it_says() {
    let policy = operator(
        r#"
[[allow]]
from    = "project:shop service:api"
to      = ["name:legacy-db", "cidr:10.20.0.0/16"]
ports   = ["postgresql", "8000-8100/tcp", "ping"]
comment = "nightly import"

[[deny]]
from = "any"
to   = "world"

[[mode]]
select = "project:shop"
mode = "enforce"

[[model]]
select = "image:registry.local/team/db"
model = "postgres"
"#,
    );
    let [allow, deny] = policy.statements.as_slice() else { panic!("{policy:?}") };
    assert_eq!(allow.place.to_string(), "policy.d/test.toml:2:1");
    assert_eq!(allow.comment.as_ref().unwrap(), "nightly import");
    let shown: Vec<_> = allow.traffic.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["5432/tcp", "8000-8100/tcp", "ping"]);
    assert_eq!((allow.from.len(), allow.to.len()), (1, 2));
    assert_eq!(deny.action, Action::Deny);
    let shown: Vec<_> = deny.traffic.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["1-65535/tcp", "1-65535/udp", "1-65535/sctp", "ping"]);
    assert_eq!(policy.modes[0].mode, Mode::Enforce);
    assert_eq!(policy.models[0].model.as_str(), "postgres");
}

#[test]
fn the_last_model_that_fits_counts_and_facts_alone_decide() {
    let policy = operator(
        r#"
[[model]]
select = ["image:registry.local/*", "network:dbs"]
model = "postgres"
[[model]]
select = "project:shop service:cache"
model = "redis"
"#,
    );
    let model = |made: crate::policy::fixture::Make| {
        policy.model_override(&made.build()).map(|(model, place)| (model.to_string(), place.line))
    };
    let own = |path| compose(path, "", 2).image("registry.local/x");
    assert_eq!(model(own("shop/db")), Some(("postgres".into(), 2)));
    assert_eq!(model(own("shop/cache")), Some(("redis".into(), 5)));
    assert_eq!(model(make("x", "").on("dbs", 2)), Some(("postgres".into(), 2)));
    assert_eq!(model(make("x", "nginx")), None);
}

#[test]
fn a_helper_is_written_or_comes_with_its_service_and_is_never_denied() {
    let policy = operator(
        r#"
[[allow]]
from   = "service:shop/api"
to     = "name:files"
ports  = ["2100-2101/tcp", "ftp"]
helper = "ftp"
[[allow]]
from  = "any"
to    = "any"
ports = ["tftp", "ftp", "redis", "21/tcp"]
[[deny]]
from  = "any"
to    = "any"
ports = "ftp"
"#,
    );
    let shown = |number: usize| {
        let traffic = &policy.statements[number].traffic;
        traffic.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(shown(0), ["21/tcp with helper ftp", "2100-2101/tcp with helper ftp"]);
    let wanted = ["21/tcp", "6379/tcp", "21/tcp with helper ftp", "69/udp with helper tftp"];
    assert_eq!(shown(1), wanted);
    assert_eq!(shown(2), ["21/tcp"]);
}

#[test]
fn every_problem_has_its_code() {
    let statement = |rest: &str| format!("[[allow]]\n{rest}\n");
    let ends = "from = \"any\"\nto = \"any\"\n";
    for (text, wanted) in [
        ("[[allow]]", vec!["policy/missing-from", "policy/missing-to"]),
        ("[[allow]]\nfrom = []\nto = \"any\"", vec!["policy/missing-from"]),
        ("[[mode]]", vec!["policy/missing-mode", "policy/missing-select"]),
        ("[[model]]", vec!["policy/missing-model", "policy/missing-select"]),
        (&statement(&format!("{ends}ports = []")), vec!["policy/missing-ports"]),
        (
            &statement(&format!("{ends}ports = [\"0/tcp\", \"80/gre\", \"-\"]")),
            vec!["policy/bad-port"; 3],
        ),
        (&statement(&format!("{ends}ports = \"exposed\"")), vec!["policy/bad-port"]),
        (&statement(&format!("{ends}ports = \"postgres\"")), vec!["policy/unknown-service"]),
        (&statement(&format!("{ends}port = \"80\"")), vec!["file/unknown-key"]),
        (
            &statement(&format!("{ends}ports = \"21/tcp\"\nhelper = \"irc\"")),
            vec!["policy/bad-helper"],
        ),
        (&statement(&format!("{ends}helper = \"ftp\"")), vec!["policy/bad-helper"]),
        (
            &statement(&format!(
                "{ends}ports = [\"21/udp\", \"0/tcp\", \"ping\"]\nhelper = \"ftp\""
            )),
            vec!["policy/bad-helper", "policy/bad-port", "policy/bad-helper"],
        ),
        (
            &statement(&format!("{ends}ports = [\"tftp\", \"redis\"]\nhelper = \"ftp\"")),
            vec!["policy/bad-helper"],
        ),
        (
            &format!("[[deny]]\n{ends}ports = \"21/tcp\"\nhelper = \"ftp\"\n"),
            vec!["policy/bad-helper"],
        ),
        (
            &statement("from = \"model:postgrs\"\nto = \"category:databases\""),
            vec!["policy/unknown-model", "policy/unknown-category"],
        ),
        (
            &statement("from = \"host\"\nto = [\"world\", \"cidr:10.0.0.0/8\"]"),
            vec!["policy/entity-to-entity"],
        ),
        (&statement("from = \"self\"\nto = \"self\""), vec!["policy/bad-selector"]),
        (&statement("from = \"self\"\nto = \"host\""), vec!["policy/bad-selector"]),
        (&statement("from = \"dns\"\nto = \"any\""), vec!["policy/bad-selector"]),
        (
            &statement("from = \"any\"\nto = [\"cidr:10.0.0.0/8\", \"cidr:10.1.0.0/16\"]"),
            vec!["policy/overlapping-cidr"],
        ),
        (
            &statement("from = \"any\"\nto = [\"cidr:10.0.0.1\", \"cidr:10.0.0.1/32\"]"),
            vec!["policy/overlapping-cidr"],
        ),
        (
            &statement(
                "from = \"any\"\nto = [\"cidr:0.0.0.0/0\", \"cidr:::/0\", \"cidr:2001:db8::/32\"]",
            ),
            vec!["policy/overlapping-cidr"],
        ),
        (&statement("from = \"any\"\nto = \"cidr:10.0.0.1/8\""), vec!["policy/bad-cidr"]),
        (&statement("from = 3\nto = \"any\""), vec!["file/wrong-type"]),
        (
            "[[mode]]\nselect = \"world\"\nmode = \"on\"",
            vec!["policy/bad-selector", "policy/bad-mode"],
        ),
        ("[[model]]\nselect = \"model:nginx\"\nmodel = \"nginx\"", vec!["policy/bad-selector"]),
        ("[[model]]\nselect = \"any\"\nmodel = \"Nginx\"", vec!["policy/unknown-model"]),
        ("[[alow]]\n", vec!["file/unknown-key"]),
        ("[allow]\n", vec!["file/wrong-type"]),
        ("[[allow]\n", vec!["file/syntax"]),
    ] {
        let mut found = codes(text);
        let mut wanted = wanted;
        found.sort_unstable();
        wanted.sort_unstable();
        found.dedup_by(|a, b| a == b && *a == "file/syntax");
        if wanted == ["file/syntax"] {
            assert!(found.contains(&"file/syntax"), "{text}");
            continue;
        }
        assert_eq!(found, wanted, "{text}\n{}", problems(text));
    }
}

#[test]
fn ranges_that_do_not_share_addresses_may_stand_together() {
    let policy = operator(
        "[[allow]]\nfrom = \"any\"\nto = [\"cidr:0.0.0.0/0\", \"cidr:::/0\"]\n\
         [[deny]]\nfrom = \"any\"\nto = [\"cidr:10.0.0.0/9\", \"cidr:10.128.0.0/9\"]\n\
         [[deny]]\nfrom = [\"any\", \"cidr:10.0.0.0/8\"]\nto = [\"any\", \"cidr:10.0.0.0/8\"]",
    );
    assert_eq!(policy.statements.len(), 3);
}

#[test]
fn all_problems_of_a_file_are_told_at_once_with_their_places() {
    let text = r#"
[[allow]]
from  = "projekt:shop"
to    = ["name:db", "cidr:10.20.0.5/16", "cidr:10.0.0.0/8", "cidr:10.1.0.0/16"]
ports = ["postgrsql", "99999/tcp"]

[[deny]]
from = "world"
to   = "internet"

[[mode]]
select = "model:ngnix"
mode   = "enforced"
"#;
    insta::assert_snapshot!(problems(text), @r#"
        a.toml:3:9: error[policy/bad-selector]: `projekt:shop` is no selector term
            help: did you mean `project:`?
        a.toml:4:21: error[policy/bad-cidr]: `10.20.0.5/16` has bits set beyond its prefix
            help: write `cidr:10.20.0.0/16` for the range, or `cidr:10.20.0.5` for the one address
        a.toml:4:61: error[policy/overlapping-cidr]: 10.1.0.0/16 overlaps 10.0.0.0/8 in the same list
            help: keep the wider one
        a.toml:5:10: error[policy/unknown-service]: the catalogue has no service `postgrsql`
            help: did you mean `postgresql`?
        a.toml:5:23: error[policy/bad-port]: `99999` is not a port; ports go from 1 to 65535
            help: write 5432/tcp, 8000-8100/udp or a service's name
        a.toml:7:1: error[policy/entity-to-entity]: neither end is a workload, so this statement does nothing
            help: name a workload in `from` or in `to`, or `any`
        a.toml:12:10: error[policy/unknown-model]: the catalogue has no model `ngnix`
            help: did you mean `nginx`?
        a.toml:13:10: error[policy/bad-mode]: `enforced` is no mode
            help: use off, observe or enforce
        "#);
}

#[test]
fn without_a_catalogue_names_are_left_for_later() {
    let text = "[[allow]]\nfrom = \"model:x\"\nto = \"any\"\nports = \"whatever\"\n[[mode]]\nselect = \"any\"\nmode = \"on\"";
    let file = SourceFile { name: Path::new("a.toml"), text };
    let found: Vec<_> =
        check_without_catalogue(&[file]).sorted().into_iter().map(|problem| problem.code).collect();
    assert_eq!(found, ["policy/bad-mode"]);
}
