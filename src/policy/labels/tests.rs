//! Tests of how `seawall.*` labels are read.

use super::*;
use crate::policy::fixture::{catalogue, make};

fn read_one(key: &str, value: &str, trust: LabelTrust) -> (Labels, Vec<LabelProblem>) {
    let workload = make("web", "nginx").label(key, value).build();
    let mut problems = Vec::new();
    let labels = read(&workload, &"web (nginx)".into(), &catalogue(), trust, &mut problems);
    (labels, problems)
}

#[test]
fn well_formed_labels_are_understood() {
    let labels = |key, value| {
        let (labels, problems) = read_one(key, value, LabelTrust::Trust);
        assert!(problems.is_empty(), "{key}={value}: {problems:?}");
        labels
    };
    assert_eq!(labels(MODE, " enforce ").mode, Some(Mode::Enforce));
    let provides = labels(PROVIDES, "8080/tcp, http,exposed ,53/udp").provides.unwrap();
    assert_eq!(provides.services, ["exposed", "http"].map(String::from).into());
    assert_eq!(provides.ports, ["8080/tcp", "53/udp"].map(|text| text.parse().unwrap()).into());
    let uses = labels(USES, "redis, Db-1, peer:http, service:smtp").uses.unwrap();
    assert_eq!(uses.services, ["redis", "smtp"].map(String::from).into());
    assert_eq!(uses.peers, ["redis", "Db-1", "http"].map(String::from).into());
    let egress = labels(
        EGRESS,
        "internet:443/tcp,world:53/udp,cidr:10.0.0.0/8:5432,cidr:2001:db8::/32:ping",
    )
    .egress
    .unwrap();
    let shown: Vec<_> =
        egress.iter().map(|item| format!("{} {}", Peer::from(item.to), item.traffic)).collect();
    let wanted =
        ["internet 443/tcp", "world 53/udp", "cidr:10.0.0.0/8 5432/tcp", "cidr:2001:db8::/32 ping"];
    assert_eq!(shown, wanted);
    assert_eq!(labels(TAG, "edge, b.2").tags, ["b.2", "edge"].map(Text::new).into());
    assert_eq!(labels(PROVIDES, "  ").provides, Some(Provides::default()), "an empty list");
}

#[test]
fn malformed_labels_are_reported_and_have_no_effect() {
    let long = "80/tcp,".repeat(2000);
    for (key, value) in [
        (MODE, "Enforce"),
        (MODE, ""),
        (MODE, "enforce, off"),
        (PROVIDES, "8080/tcp,,"),
        (PROVIDES, "8080/tcp;9090/tcp"),
        (PROVIDES, "0/tcp"),
        (PROVIDES, "9-3/tcp"),
        (PROVIDES, "postgrsql"),
        (PROVIDES, long.as_str()),
        (PROVIDES, "80/tcp\nseawall.mode=off"),
        (USES, "two words"),
        (USES, "service:nothing"),
        (USES, "peer:"),
        (USES, "\u{1b}[31mdb"),
        (EGRESS, "internet"),
        (EGRESS, "internet:"),
        (EGRESS, "internet:http"),
        (EGRESS, "host:80/tcp"),
        (EGRESS, "10.0.0.0/8:443/tcp"),
        (EGRESS, "cidr:10.0.0.1/8:443/tcp"),
        (EGRESS, "cidr:2001:db8::/32"),
        (EGRESS, "cidr:0.0.0.0/0:1-99999/tcp"),
        (TAG, "a b"),
    ] {
        let (labels, problems) = read_one(key, value, LabelTrust::Trust);
        assert_eq!(problems.len(), 1, "{key}={value}");
        assert_eq!(problems[0].code, "label/malformed", "{key}={value}");
        assert!(!problems[0].to_string().chars().any(char::is_control), "{key}={value}");
        assert!(labels.mode.is_none() && labels.provides.is_none() && labels.uses.is_none());
        assert!(labels.egress.is_none() && labels.tags.is_empty());
    }
}

#[test]
fn a_misspelt_label_is_reported_with_the_nearest_one() {
    let (_, problems) = read_one("seawall.provide", "80/tcp", LabelTrust::Trust);
    insta::assert_snapshot!(problems[0], @"web (nginx): label seawall.provide: warning[label/unknown]: there is no such label; did you mean seawall.provides?");
    let (_, problems) = read_one("seawall.model", "postgres", LabelTrust::Trust);
    assert!(problems.is_empty(), "that one is read elsewhere");
}

#[test]
fn ignored_labels_are_not_even_parsed() {
    let (labels, problems) = read_one(MODE, "nonsense", LabelTrust::Ignore);
    assert!(problems.is_empty() && labels.mode.is_none());
}

#[test]
fn a_label_that_comes_with_the_image_is_not_believed() {
    for trust in [LabelTrust::Trust, LabelTrust::Narrow] {
        let mut workload = make("web", "nginx").label(EGRESS, "world:1-65535/tcp").build();
        workload
            .image
            .labels
            .get_or_insert_default()
            .insert(EGRESS.into(), "world:1-65535/tcp".into());
        let mut problems = Vec::new();
        let labels = read(&workload, &"web".into(), &catalogue(), trust, &mut problems);
        assert!(labels.egress.is_none());
        assert_eq!(problems[0].code, "label/from-image");
        // The operator's own value counts, whatever the image says.
        workload.labels.insert(EGRESS.into(), "internet:443/tcp".into());
        let labels = read(&workload, &"web".into(), &catalogue(), trust, &mut Vec::new());
        assert_eq!(labels.egress.unwrap().len(), 1);
    }
}

#[test]
fn where_the_images_own_labels_are_not_known_no_label_is_believed() {
    let mut workload = make("web", "nginx").label(MODE, "off").build();
    let mode = |workload: &Workload| {
        read(workload, &"web".into(), &catalogue(), LabelTrust::Trust, &mut Vec::new()).mode
    };
    assert!(mode(&workload).is_some());
    workload.image.labels = None;
    assert!(mode(&workload).is_none(), "containerd copies image labels to containers as well");
    workload.runtime = crate::metadata::Runtime::File;
    assert!(mode(&workload).is_some(), "a file for a dry run is taken as it is");
}

#[test]
fn tags_are_read_only_where_labels_are_trusted() {
    assert!(!read_one(TAG, "edge", LabelTrust::Trust).0.tags.is_empty());
    assert!(read_one(TAG, "edge", LabelTrust::Narrow).0.tags.is_empty());
}
