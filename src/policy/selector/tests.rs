//! Tests of selectors: what they match, and what is no selector.

use super::*;
use crate::policy::fixture::{Make, catalogue, compose, make};

fn matches(selector: &str, made: &Make, model: &str) -> bool {
    let catalogue = catalogue();
    let workload = made.clone().build();
    let tags = [Text::new("edge")].into();
    let subject = Subject {
        workload: &workload,
        networks: &workload.networks,
        model: catalogue.models.get(model),
        tags: &tags,
    };
    selector.parse::<Selector>().unwrap().matches(&subject)
}

#[test]
fn every_term_must_match() {
    let web = compose("shop/web", "nginx", 2).label("team", "a=b").label("empty", "");
    for (selector, wanted) in [
        ("any", true),
        ("name:shop-web-1", true),
        ("name:shop-*-1", true),
        ("name:shop", false),
        ("project:shop service:web", true),
        ("project:shop service:api", false),
        ("  project:shop\tservice:w*  ", true),
        ("model:nginx", true),
        ("model:unknown", false),
        ("category:proxy", true),
        ("category:database", false),
        ("label:team", true),
        ("label:team=a=b", true),
        ("label:team=a", false),
        ("label:empty=", true),
        ("label:other", false),
        ("tag:edge", true),
        ("tag:core", false),
        ("network:shop_default", true),
        ("network:*", true),
        ("network:bridge", false),
        ("self", false),
        ("host", false),
        ("world", false),
        ("cidr:0.0.0.0/0", false),
    ] {
        assert_eq!(matches(selector, &web, "nginx"), wanted, "{selector}");
    }
    assert!(matches("model:unknown", &make("x", ""), ""));
    assert!(!matches("model:*", &make("x", ""), ""), "a pattern is about models there are");
}

#[test]
fn a_label_of_the_image_brings_nothing_and_saves_from_nothing() {
    let mut workload = make("x", "").label("tier", "front").build();
    let is_met = |workload: &Workload| {
        let (networks, tags) = (BTreeMap::new(), BTreeSet::new());
        let subject = Subject { workload, networks: &networks, model: None, tags: &tags };
        let selector: Selector = "label:tier=front".parse().unwrap();
        (selector.matches(&subject), selector.may_match(&subject))
    };
    assert_eq!(is_met(&workload), (true, true));
    workload.image.labels.get_or_insert_default().insert("tier".into(), "front".into());
    assert_eq!(is_met(&workload), (false, true));
}

#[test]
fn an_image_without_a_registry_is_docker_hubs_only() {
    let hub = make("a", "").image("postgres:16");
    let own = make("b", "").image("registry.local:5000/team/postgres:16@sha256:ab");
    for (selector, is_hub, is_own) in [
        ("image:postgres", true, false),
        ("image:postgres:16", true, false),
        ("image:postgres:15", false, false),
        ("image:*postgres", true, true),
        ("image:*/postgres", false, true),
        ("image:registry.local:5000/team/postgres", false, true),
        ("image:registry.local:5000/team/postgres:16", false, true),
        ("image:registry.local:5000/team/postgres@sha256:ab", false, true),
        ("image:registry.local:5000/*", false, true),
    ] {
        assert_eq!(matches(selector, &hub, ""), is_hub, "{selector} on Docker Hub's");
        assert_eq!(matches(selector, &own, ""), is_own, "{selector} on one's own");
    }
    assert!(!matches("image:*", &make("bare-id", ""), ""));
}

#[test]
fn a_star_stands_for_any_characters() {
    for (pattern, text, wanted) in [
        ("*", "", true),
        ("a*", "a", true),
        ("a*a", "a", false),
        ("a*a", "aa", true),
        ("*b*", "abc", true),
        ("a*b*c", "a-b-b-c", true),
        ("a*b*c", "a-c-b", false),
        ("**", "x", true),
        ("", "", true),
        ("a", "ab", false),
        ("ö*", "öl", true),
    ] {
        assert_eq!(Glob(Text::new(pattern)).matches(text), wanted, "{pattern} {text}");
    }
    let hostile = format!("{}b", "a*".repeat(100));
    assert!(!Glob(Text::new(&hostile)).matches(&"a".repeat(10_000)), "and it takes no time");
}

#[test]
fn what_is_no_selector_is_named_and_explained() {
    let cases = [
        ("", "policy/bad-selector", None),
        ("  ", "policy/bad-selector", None),
        ("shop", "policy/bad-selector", Some("host")),
        ("projekt:shop", "policy/bad-selector", Some("did you mean `project:`?")),
        ("wrld", "policy/bad-selector", Some("did you mean `world`?")),
        ("project:", "policy/bad-selector", None),
        ("label:=x", "policy/bad-selector", None),
        ("world:all", "policy/bad-selector", None),
        ("host service:web", "policy/bad-selector", None),
        ("any service:web", "policy/bad-selector", None),
        ("cidr:10.0.0.0/8 service:web", "policy/bad-selector", None),
        ("cidr:10.0.0.0/33", "policy/bad-cidr", None),
        ("cidr:ten", "policy/bad-cidr", None),
        ("cidr:", "policy/bad-cidr", None),
        ("cidr:::ffff:10.0.0.0/104", "policy/bad-cidr", None),
        ("cidr:10.20.0.5/16", "policy/bad-cidr", Some("write `cidr:10.20.0.0/16`")),
        ("cidr:2001:db8::1/32", "policy/bad-cidr", Some("write `cidr:2001:db8::/32`")),
    ];
    for (text, code, help) in cases {
        let error = text.parse::<Selector>().unwrap_err();
        assert_eq!(error.code(), code, "{text}: {error}");
        if let Some(help) = help {
            let found = error.help().unwrap_or_default();
            assert!(found.contains(help), "{text}: {found}");
        }
    }
}

#[test]
fn a_bare_address_is_a_range_of_one() {
    let one = |text: &str| text.parse::<Selector>().unwrap();
    assert_eq!(one("cidr:10.0.0.5"), one("cidr:10.0.0.5/32"));
    assert_eq!(one("cidr:2001:db8::5"), one("cidr:2001:db8::5/128"));
}

#[test]
fn a_workloads_own_selector_finds_it_again() {
    let web = compose("shop/web", "nginx", 2);
    let alone = make("legacy-db", "postgres");
    let odd = make("odd", "").name("two words");
    for made in [web, alone, odd] {
        let selector = selector_for(&made.clone().build());
        assert!(matches(&selector, &made, ""), "{selector}");
    }
}
