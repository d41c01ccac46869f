//! Docker layer: from inside real containers, as root, every way out that anybody thought of. What counts is what arrives at
//! the host's end of the container's cable, with seawall and without; the table of `docs/SECURITY-MODEL.md` is what came of
//! it, and this test fails when they differ (`UPDATE_ATTACK_TABLE=1` writes it anew). `ATTACKS=mirred` tries only those with
//! that in their names, for who works on them, and ends with what it measured.

mod harness;

mod attacks {
    pub(crate) mod cell;
    pub(crate) mod mark;
    pub(crate) mod table;
    pub(crate) mod trial;
}

use attacks::cell::{Cell, attacker_program, catalogue};
use attacks::table::{Table, Verdict};
use attacks::trial::{Arrived, Trial};
use harness::{DockerHost, Seawall};

const ENFORCE: &str = "mode = \"enforce\"\nunknown = \"deny\"\n\
                       resolvers = [\"203.0.113.53\", \"2001:db8:53::53\"]";

/// What the system says where capabilities are missing.
const REFUSED: &str = "Operation not permitted";

#[test]
fn what_leaves_an_attacked_container_is_what_the_security_model_says() {
    let host = DockerHost::start();
    let program = attacker_program();
    let mut attacks = catalogue(&program);
    let only = std::env::var("ATTACKS").unwrap_or_default();
    attacks.retain(|attack| attack.name.contains(&only));
    let mut trials = Vec::new();
    for is_protected in [false, true] {
        // A new world each time: attacks leave their traces with the neighbours.
        let cell = Cell::up(&host, &program);
        let seawall = is_protected.then(|| Seawall::start(&host, ENFORCE));
        trials.push(Trial::run(&cell, seawall.as_ref(), &attacks));
        if let Some(seawall) = &seawall {
            println!("errors logged: {:?}", seawall.log_at("ERROR"));
            seawall.log_at("WARN").iter().for_each(|line| println!("{line}"));
        }
    }
    let [without, with] = <[Trial; 2]>::try_from(trials).unwrap_or_else(|_| unreachable!());
    let mut table = Table::default();
    let mut unproven = Vec::new();
    for attack in &attacks {
        for capabilities in Trial::CAPABILITIES {
            for family in attack.families.chars() {
                let key = (attack.number, capabilities, family);
                let (control, measured) = (without.of(&key), with.of(&key));
                let verdict = verdict(control, measured);
                println!(
                    "{:70} IPv{family} {capabilities:9} {:4} then {:4}: {verdict:?} ({} / {})",
                    attack.name, control.frames, measured.frames, control.said, measured.said
                );
                // The attacker says that it was done, and yet nothing arrived: then the attack proves nothing.
                if verdict == Verdict::Impossible && control.said == "done" {
                    unproven.push(format!("{} IPv{family} {capabilities}", attack.name));
                }
                table.add(attack, capabilities, verdict);
            }
        }
    }
    println!("{}", table.summary());
    assert_eq!(unproven, Vec::<String>::new(), "attacks that do not work without seawall either");
    assert!(only.is_empty(), "of some attacks no table is made");
    table.check_or_write();
}

fn verdict(control: &Arrived, measured: &Arrived) -> Verdict {
    match measured {
        // Without seawall nobody else refuses anything.
        _ if control.said.contains(REFUSED) => Verdict::Impossible,
        _ if control.frames == 0 && measured.frames == 0 => Verdict::Impossible,
        Arrived { frames: 0, .. } => Verdict::Stopped,
        Arrived { told: true, ceased: true, .. } => Verdict::Repaired,
        Arrived { told: true, .. } => Verdict::Detected,
        _ => Verdict::NotStopped,
    }
}
