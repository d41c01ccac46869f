//! Tests of what unknown images and labels are given: treatments, modes, and labels that add, take away or lie.

use super::fixture::{Make, World, compose, enforce, make, shop, world_with};
use super::statement::{Direction, Provenance};
use super::{LabelTrust, Mode, Settings, UnknownTreatment};
use Direction::Ingress;

#[test]
fn an_unknown_image_gets_the_configured_treatment() {
    let makes = [
        compose("a/job", "", 2).expose("9000/tcp").wire("api").wire("db").resolver("192.0.2.53"),
        compose("a/api", "node", 3).expose("3000/tcp").wire("job"),
        compose("a/web", "nginx", 4),
        compose("a/other", "redis", 5),
    ];
    let with = |unknown| world_with(&makes, Settings { unknown, ..enforce() }, "");
    let baseline = with(UnknownTreatment::Baseline);
    assert_eq!(baseline.policy("a-job-1").mode, Mode::Enforce);
    assert!(baseline.allows("a-api-1", "a-job-1", "9000/tcp"), "wired");
    assert!(baseline.allows("a-web-1", "a-job-1", "9000/tcp"), "a proxy uses what is exposed");
    assert!(
        !baseline.allows("a-other-1", "a-job-1", "9000/tcp"),
        "its own policy says nothing of that"
    );
    assert!(
        !baseline.about("a-job-1", Ingress, "a/other (redis)").is_empty(),
        "but the unknown's would let it"
    );
    assert!(baseline.allows("a-job-1", "a-api-1", "3000/tcp"), "wired, and for any");
    assert!(baseline.allows("a-job-1", "192.0.2.53", "53/udp"));

    let observe = with(UnknownTreatment::Observe);
    let job = observe.policy("a-job-1");
    assert_eq!(
        (job.mode, &job.mode_from),
        (Mode::Observe, &Provenance::Setting { key: "unknown" })
    );
    assert_eq!(job.statements, baseline.policy("a-job-1").statements);

    let deny = with(UnknownTreatment::Deny);
    assert!(deny.policy("a-job-1").statements.is_empty());
    assert!(!deny.peers("a-api-1").contains("a-job-1"));
    assert_eq!(deny.policy("a-job-1").mode, Mode::Enforce);
}

#[test]
fn modes_come_from_operators_then_labels_then_treatment_then_settings() {
    let unknown = |label: &str| {
        let made = make("x", "").on("n", 2);
        if label.is_empty() { made } else { made.label("seawall.mode", label) }
    };
    let known = |label: &str| {
        let mut made = unknown(label);
        made = make("x", "redis").on("n", 2).label(
            "seawall.mode",
            made.workload.labels.values().next().map_or("observe", |v| v.as_str()),
        );
        made
    };
    let decide = |made: Make, mode, labels, statements: &str| {
        let unknown = UnknownTreatment::Observe;
        let settings = Settings { mode, unknown, labels, ..Settings::default() };
        let world = world_with(&[made], settings, statements);
        let policy = world.policy("x");
        (policy.mode, policy.mode_from.to_string())
    };
    let to = |mode: Mode, from: &str| (mode, from.to_owned());
    use LabelTrust::{Ignore, Narrow, Trust};
    use Mode::{Enforce, Observe, Off};
    assert_eq!(decide(unknown(""), Enforce, Trust, ""), to(Observe, "setting `unknown`"));
    assert_eq!(decide(unknown(""), Observe, Trust, ""), to(Observe, "setting `mode`"));
    assert_eq!(decide(unknown(""), Off, Trust, ""), to(Off, "setting `mode`"), "off stays off");
    assert_eq!(decide(unknown("enforce"), Off, Trust, ""), to(Enforce, "label seawall.mode on x"));
    assert_eq!(
        decide(unknown("enforce"), Enforce, Narrow, ""),
        to(Enforce, "label seawall.mode on x")
    );
    assert_eq!(decide(known("off"), Enforce, Trust, ""), to(Off, "label seawall.mode on x"));
    assert_eq!(decide(known("off"), Enforce, Narrow, ""), to(Enforce, "setting `mode`"));
    assert_eq!(decide(known("off"), Enforce, Ignore, ""), to(Enforce, "setting `mode`"));
    let rules = "[[mode]]\nselect = \"model:unknown\"\nmode = \"off\"\n[[mode]]\nselect = \"name:x\"\nmode = \"enforce\"";
    assert_eq!(
        decide(unknown("off"), Observe, Trust, rules),
        to(Enforce, "operator, policy.d/test.toml:4:1")
    );
    let reversed = "[[mode]]\nselect = \"name:x\"\nmode = \"enforce\"\n[[mode]]\nselect = \"any\"\nmode = \"off\"";
    assert_eq!(
        decide(unknown("enforce"), Observe, Trust, reversed),
        to(Off, "operator, policy.d/test.toml:4:1")
    );
}

fn labelled(trust: LabelTrust, key: &str, value: &str, on: &str) -> World {
    let mut makes = shop("shop");
    for made in &mut makes {
        if made.workload.name == on {
            *made = made.clone().label(key, value);
        }
    }
    world_with(
        &makes,
        Settings { labels: trust, ..enforce() },
        "[[allow]]\nfrom = \"tag:edge\"\nto = \"service:db\"\nports = \"5432\"",
    )
}

#[test]
fn trusted_labels_add() {
    let world = labelled(LabelTrust::Trust, "seawall.provides", "9187/tcp", "shop-db-1");
    assert!(world.allows("shop-api-1", "shop-db-1", "9187/tcp"), "it is wired to it");
    assert!(world.allows("shop-web-1", "shop-db-1", "9187/tcp"), "it uses what is exposed");
    assert!(world.allows("host", "shop-db-1", "9187/tcp"));
    assert!(world.allows("shop-api-1", "shop-db-1", "5432/tcp"), "and what was there stays");
    let world = labelled(LabelTrust::Trust, "seawall.uses", "api", "shop-cache-1");
    assert!(world.allows("shop-cache-1", "shop-api-1", "3000/tcp"));
    let provenance = &world.about("shop-api-1", Ingress, "shop/cache (redis)");
    assert!(
        provenance.iter().any(|s| s.provenance.to_string() == "label seawall.uses on shop/cache")
    );
    let world = labelled(
        LabelTrust::Trust,
        "seawall.egress",
        "internet:443/tcp,cidr:10.9.0.0/16:22",
        "shop-db-1",
    );
    assert!(world.allows("shop-db-1", "1.1.1.1", "443/tcp"));
    assert!(world.allows("shop-db-1", "10.9.1.1", "22/tcp"));
    assert!(!world.allows("shop-db-1", "10.8.1.1", "22/tcp"));
    let world = labelled(LabelTrust::Trust, "seawall.tag", "edge", "shop-web-1");
    assert!(world.allows("shop-web-1", "shop-db-1", "5432/tcp"));
}

#[test]
fn where_both_ends_are_labelled_the_servers_label_is_named() {
    let makes = [
        compose("a/x", "redis", 2).label("seawall.uses", "y"),
        compose("a/y", "redis", 3).label("seawall.provides", "9100/tcp"),
    ];
    let world = world_with(&makes, enforce(), "");
    assert!(world.allows("a-x-1", "a-y-1", "9100/tcp"));
    let shown: Vec<_> = world
        .about("a-y-1", Ingress, "a/x (redis)")
        .iter()
        .map(|statement| statement.provenance.to_string())
        .collect();
    assert!(shown.contains(&"label seawall.provides on a/y".to_owned()), "{shown:?}");
    assert!(!shown.contains(&"label seawall.uses on a/x".to_owned()), "{shown:?}");
}

#[test]
fn a_label_cannot_make_a_server_serve_whom_its_model_does_not_admit() {
    let world = labelled(LabelTrust::Trust, "seawall.uses", "db, postgresql", "shop-web-1");
    assert!(!world.allows("shop-web-1", "shop-db-1", "5432/tcp"));
}

#[test]
fn narrowing_and_ignored_labels_add_nothing() {
    for trust in [LabelTrust::Narrow, LabelTrust::Ignore] {
        for (key, value, on) in [
            ("seawall.provides", "postgresql,9187/tcp,1-65535/tcp", "shop-db-1"),
            ("seawall.uses", "api,db,exposed,http,redis", "shop-cache-1"),
            ("seawall.egress", "world:1-65535/tcp,cidr:0.0.0.0/0:22", "shop-db-1"),
            ("seawall.tag", "edge", "shop-web-1"),
            ("seawall.mode", "off", "shop-web-1"),
        ] {
            let plain = labelled(LabelTrust::Ignore, "unrelated", "x", on);
            let labelled = labelled(trust, key, value, on);
            assert_eq!(
                labelled.policies.policies, plain.policies.policies,
                "{key} under {trust:?}"
            );
        }
    }
}

#[test]
fn narrowing_labels_take_away_what_they_do_not_list() {
    let narrow = |key, value, on| labelled(LabelTrust::Narrow, key, value, on);
    for none in ["", "redis", "5433/tcp"] {
        let world = narrow("seawall.provides", none, "shop-db-1");
        assert!(!world.allows("shop-api-1", "shop-db-1", "5432/tcp"), "{none}");
        assert!(!world.allows("host", "shop-db-1", "5432/tcp"), "{none}");
    }
    let world = narrow("seawall.provides", "5000-6000/tcp", "shop-db-1");
    assert!(world.allows("shop-api-1", "shop-db-1", "5432/tcp"));
    assert!(!world.allows("shop-api-1", "shop-db-1", "5433/tcp"));
    let world = narrow("seawall.uses", "peer:db", "shop-api-1");
    assert!(world.allows("shop-api-1", "shop-db-1", "5432/tcp"));
    assert!(!world.allows("shop-api-1", "shop-cache-1", "6379/tcp"));
    let egress = |label: Option<&str>| {
        let mut mail = make("mail", "postfix").on("n", 2);
        if let Some(label) = label {
            mail = mail.label("seawall.egress", label);
        }
        world_with(&[mail], Settings { labels: LabelTrust::Narrow, ..enforce() }, "")
    };
    assert!(egress(None).allows("mail", "10.1.1.1", "25/tcp"));
    let world = egress(Some("cidr:10.0.0.0/8:1-1024/tcp"));
    assert!(world.allows("mail", "10.1.1.1", "25/tcp"));
    assert!(!world.allows("mail", "11.1.1.1", "25/tcp"));
    assert!(!world.allows("mail", "10.1.1.1", "26/tcp"), "the model knows of no such port");
    assert!(!world.allows("mail", "10.1.1.1", "53/udp"), "not listed");
    assert!(egress(Some("")).policy("mail").statements.iter().all(|s| s.direction == Ingress));
}

#[test]
fn a_malformed_label_is_reported_and_changes_nothing() {
    let plain = labelled(LabelTrust::Trust, "unrelated", "x", "shop-db-1");
    let world = labelled(LabelTrust::Trust, "seawall.provides", "5432/tcp; drop", "shop-db-1");
    assert_eq!(world.problem_codes(), ["label/malformed"]);
    assert_eq!(world.policies.policies, plain.policies.policies);
}
