//! Tests of the text form: it reads well, and says nothing that differs between two hosts.

use super::*;
use crate::policy::fixture::{compose, enforce, make, shop, world, world_with};
use crate::policy::{PolicySet, Settings, UnknownTreatment};

fn shown(policies: &PolicySet) -> String {
    render(policies.policies.values())
}

#[test]
fn a_shop_reads_well() {
    let mut makes = shop("shop");
    for made in &mut makes {
        *made = made.clone().resolver("192.0.2.53");
    }
    makes.push(makes[1].clone().id("api-2").name("shop-api-2").on("shop_default", 33));
    makes.push(
        make("backup", "")
            .on("bridge", 9)
            .expose("873/tcp")
            .label("seawall.egress", "internet:443/tcp"),
    );
    makes.push(make("vpn", "wireguard").on("vpn", 2).publish("51820/udp", None));
    let statements = r#"
[[allow]]
from = "project:shop service:api"
to = ["name:legacy-db", "cidr:10.20.0.0/16"]
ports = ["postgresql", "8000-8100/tcp"]

[[deny]]
from = "project:shop service:db"
to = "internet"
"#;
    let settings = Settings { unknown: UnknownTreatment::Observe, ..enforce() };
    insta::assert_snapshot!(shown(&world_with(&makes, settings, statements).policies), @r#"
        backup (unknown)  observe  # setting `unknown`
          allow in    from host      on 873/tcp, ping  # built-in rule `host`
          allow out   to   internet  on 443/tcp        # label seawall.egress on backup

        shop/api (node)  enforce  # setting `mode`
          allow both  with related workloads   on ping                     # built-in rule `ping`
          allow in    from host                on 3000/tcp, ping           # built-in rule `host`
          allow in    from shop/web (nginx)    on 3000/tcp                 # model node, models.toml:21:1
          allow out   to   cidr:10.20.0.0/16   on 5432/tcp, 8000-8100/tcp  # operator, policy.d/test.toml:2:1
          allow out   to   dns                 on 53/tcp, 53/udp           # built-in rule `dns`
          allow out   to   shop/cache (redis)  on 6379/tcp (redis)         # model redis, models.toml:51:1
          allow out   to   shop/db (postgres)  on 5432/tcp (postgresql)    # model postgres, models.toml:31:1

        shop/cache (redis)  enforce  # setting `mode`
          allow both  with related workloads  on ping              # built-in rule `ping`
          allow in    from host               on 6379/tcp, ping    # built-in rule `host`
          allow in    from shop/api (node)    on 6379/tcp (redis)  # model redis, models.toml:51:1
          allow out   to   dns                on 53/tcp, 53/udp    # built-in rule `dns`

        shop/db (postgres)  enforce  # setting `mode`
          deny out    to   internet           on every port and ping    # operator, policy.d/test.toml:7:1
          allow both  with related workloads  on ping                   # built-in rule `ping`
          allow in    from host               on 5432/tcp, ping         # built-in rule `host`
          allow in    from shop/api (node)    on 5432/tcp (postgresql)  # model postgres, models.toml:31:1
          allow out   to   dns                on 53/tcp, 53/udp         # built-in rule `dns`

        shop/web (nginx)  enforce  # setting `mode`
          allow both  with related workloads  on ping                   # built-in rule `ping`
          allow in    from host               on 80/tcp, 443/tcp, ping  # built-in rule `host`
          allow in    from world              on 80/tcp                 # published port 80/tcp
          allow out   to   dns                on 53/tcp, 53/udp         # built-in rule `dns`
          allow out   to   shop/api (node)    on 3000/tcp               # model node, models.toml:21:1

        vpn (wireguard)  enforce  # setting `mode`
          forwards packets for others
          allow in    from host   on 51820/udp, ping  # built-in rule `host`
          allow in    from world  on 51820/udp        # published port 51820/udp
        "#);
}

#[test]
fn a_workload_that_may_do_nothing_says_so() {
    let settings = Settings { unknown: UnknownTreatment::Deny, ..enforce() };
    let world = world_with(&[make("x", "").on("n", 2)], settings, "");
    insta::assert_snapshot!(shown(&world.policies), @r#"
        x (unknown)  enforce  # setting `mode`
          nothing is allowed
        "#);
}

#[test]
fn the_text_holds_no_address_and_no_identity() {
    let one = world(&shop("shop"));
    let mut elsewhere = shop("shop");
    for (index, made) in elsewhere.iter_mut().enumerate() {
        let last = 200 - u8::try_from(index).unwrap();
        *made = made.clone().id(&format!("{:064x}", 999 - index)).on("shop_default", last);
        let service = made.workload.service.clone().unwrap();
        *made = made.clone().alias("shop_default", service.as_str());
    }
    elsewhere.reverse();
    let other = world(&elsewhere);
    assert_eq!(shown(&one.policies), shown(&other.policies));
    assert!(!shown(&one.policies).contains("172."));
    assert!(!shown(&one.policies).contains("shop-db-1"));
}

#[test]
fn hostile_names_stay_on_their_line() {
    let made = compose("shop\n  allow in   from/\u{1b}[2Jweb", "nginx", 2).publish("80/tcp", None);
    let text = shown(&world(&[made]).policies);
    assert!(!text.chars().any(|character| character.is_control() && character != '\n'), "{text:?}");
    assert_eq!(text.lines().filter(|line| !line.starts_with("  ")).count(), 1, "{text}");
}

#[test]
fn one_statement_is_one_line() {
    let world = world(&shop("shop"));
    let lines: Vec<_> = world.policy("shop-cache-1").statements.iter().map(line).collect();
    assert!(
        lines.contains(&"allow in from shop/api (node) on 6379/tcp (redis)".to_owned()),
        "{lines:?}"
    );
}

#[test]
fn json_names_every_part() {
    let world = world(&shop("shop"));
    let policy = world.policy("shop-cache-1");
    let from_api =
        world.about("shop-cache-1", crate::policy::Direction::Ingress, "shop/api (node)");
    insta::assert_json_snapshot!((policy.mode, &policy.mode_from, from_api[0]), @r#"
        [
          "enforce",
          {
            "kind": "setting",
            "key": "mode"
          },
          {
            "action": "allow",
            "direction": "ingress",
            "peer": {
              "workloads": {
                "label": "shop/api (node)",
                "members": [
                  "shop-api-1"
                ]
              }
            },
            "traffic": [
              "6379/tcp"
            ],
            "provenance": {
              "kind": "model",
              "model": "redis",
              "service": "redis",
              "place": {
                "file": "models.toml",
                "line": 51,
                "column": 1
              }
            }
          }
        ]
        "#);
}
