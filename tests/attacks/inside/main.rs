//! attacker: runs inside a container, as root, and wants out. Every frame it sends carries a mark, in its payload or as its
//! source port, so that whoever listens on the other side of the container's cable sees what got through.
//!
//! `attacker list` prints every attack; `attacker run KEY=VALUE… -- NUMBER/FAMILY…` runs some of them. It is
//! `tests/docker_attacks.rs` that starts it. What it says of itself proves nothing; only what arrives counts.

mod connection;
mod device;
mod extension;
mod follow;
mod fragment;
mod link;
mod neighbour;
mod packet;
mod protocol;
mod reach;
mod spoof;
mod tamper;
mod target;
mod transport;
mod wire;
mod xdp;

use std::error::Error;
use std::process::ExitCode;

use target::{Attempt, Family, Targets};

/// What an attack ends with: an error is what the attacker sees, and nobody's proof.
pub(crate) type Outcome = Result<(), Box<dyn Error>>;

/// One way out.
pub(crate) struct Attack {
    /// As the table of the security model calls it.
    name: &'static str,
    /// IP versions it exists in; [`Family::V4`] alone where it has none.
    families: &'static [Family],
    /// Whether the container is not the same afterwards, so that each run needs one of its own.
    spoils: bool,
    run: fn(&Attempt<'_>) -> Outcome,
}

/// IPv4 and IPv6.
pub(crate) const BOTH: &[Family] = &[Family::V4, Family::V6];
/// IPv4, or no IP at all.
pub(crate) const V4: &[Family] = &[Family::V4];
/// IPv6 only.
pub(crate) const V6: &[Family] = &[Family::V6];

impl Attack {
    /// An attack that leaves the container as it was.
    pub(crate) const fn new(
        name: &'static str,
        families: &'static [Family],
        run: fn(&Attempt<'_>) -> Outcome,
    ) -> Self {
        Self { name, families, spoils: false, run }
    }

    /// One that does not.
    pub(crate) const fn spoiling(
        name: &'static str,
        families: &'static [Family],
        run: fn(&Attempt<'_>) -> Outcome,
    ) -> Self {
        Self { name, families, spoils: true, run }
    }
}

/// All of them; the number of each is its place.
fn attacks() -> impl Iterator<Item = (u16, &'static Attack)> {
    let all = [
        transport::ATTACKS,
        protocol::ATTACKS,
        extension::ATTACKS,
        fragment::ATTACKS,
        connection::ATTACKS,
        reach::ATTACKS,
        link::ATTACKS,
        xdp::ATTACKS,
        spoof::ATTACKS,
        // What neighbours believe afterwards would spoil what comes later.
        neighbour::ATTACKS,
        tamper::ATTACKS,
        device::ATTACKS,
    ];
    (0..).zip(all.into_iter().flatten())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((verb, [])) if verb == "list" => {
            for (number, attack) in attacks() {
                let families: String =
                    attack.families.iter().map(|family| family.digit()).collect();
                let group = if attack.spoils { "spoils" } else { "leaves" };
                println!("{number}\t{families}\t{group}\t{}", attack.name);
            }
            ExitCode::SUCCESS
        }
        Some((verb, rest)) if verb == "run" => {
            let mut parts = rest.splitn(2, |argument| argument == "--");
            let targets = Targets::parse(parts.next().unwrap_or_default());
            let chosen = parts.next().unwrap_or_default();
            for (number, attack) in attacks() {
                for family in attack.families {
                    if chosen.contains(&format!("{number}/{}", family.digit())) {
                        run(number, attack, *family, &targets);
                    }
                }
            }
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: attacker list | attacker run KEY=VALUE… -- NUMBER/FAMILY…");
            ExitCode::from(2)
        }
    }
}

fn run(number: u16, attack: &Attack, family: Family, targets: &Targets) {
    let outcome = match (attack.run)(&Attempt::new(targets, family, number)) {
        Ok(()) => "done".to_owned(),
        Err(error) => error.to_string(),
    };
    println!("{number}	{}	{outcome}", family.digit());
}
