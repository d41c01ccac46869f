//! Owns the table of attacks in `docs/SECURITY-MODEL.md`: what is measured must be what it says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::cell::Attack;

const BEGIN: &str =
    "<!-- attacks: written by UPDATE_ATTACK_TABLE=1 cargo test --test docker_attacks -->";
const END: &str = "<!-- attacks end -->";

/// What became of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// Nothing arrived, and without seawall it does.
    Stopped,
    /// It arrived for a moment; it was told and put right.
    Repaired,
    /// It arrived, and it was told.
    Detected,
    /// It arrived.
    NotStopped,
    /// It is not possible with these capabilities, seawall or not.
    Impossible,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Repaired => "detected, repaired",
            Self::Detected => "detected",
            Self::NotStopped => "**not stopped**",
            Self::Impossible => "–",
        }
    }
}

/// Rows in the attacker's order; in each, verdicts by capabilities and then by IP version.
#[derive(Default)]
pub(crate) struct Table(BTreeMap<u16, Row>);

struct Row {
    name: String,
    families: String,
    verdicts: BTreeMap<&'static str, Vec<Verdict>>,
}

impl Table {
    /// The next IP version's verdict.
    pub(crate) fn add(&mut self, attack: &Attack, capabilities: &'static str, verdict: Verdict) {
        let (name, families) = (attack.name.clone(), attack.families.clone());
        let row = self.0.entry(attack.number);
        let row = row.or_insert(Row { name, families, verdicts: BTreeMap::new() });
        row.verdicts.entry(capabilities).or_default().push(verdict);
    }

    /// How many of each.
    pub(crate) fn summary(&self) -> String {
        let mut counts: BTreeMap<(&str, Verdict), usize> = BTreeMap::new();
        for row in self.0.values() {
            for (capabilities, verdicts) in &row.verdicts {
                for verdict in verdicts {
                    *counts.entry((capabilities, *verdict)).or_default() += 1;
                }
            }
        }
        let line =
            |((capabilities, verdict), count)| format!("{capabilities}: {verdict:?} {count}\n");
        counts.into_iter().map(line).collect()
    }

    /// Panics unless the document says the same; or makes it say so.
    #[track_caller]
    pub(crate) fn check_or_write(&self) {
        let file = document();
        let text = std::fs::read_to_string(&file).expect("the security model can be read");
        let (before, rest) = text.split_once(BEGIN).expect("the table's place is marked");
        let (shown, after) = rest.split_once(END).expect("and its end");
        let measured = self.markdown();
        if std::env::var_os("UPDATE_ATTACK_TABLE").is_some() {
            let text = format!("{before}{BEGIN}\n\n{measured}\n{END}{after}");
            std::fs::write(&file, text).expect("the security model can be written");
            return;
        }
        let lines = |text: &str| -> Vec<String> {
            text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
        };
        let (shown, measured) = (lines(shown), lines(&measured));
        let told = |sign: &str, line: &String| format!("{sign} {line}");
        let gone = shown.iter().filter(|line| !measured.iter().any(|other| holds(line, other)));
        let new = measured.iter().filter(|line| !shown.iter().any(|other| holds(other, line)));
        let differences: Vec<String> =
            gone.map(|line| told("-", line)).chain(new.map(|line| told("+", line))).collect();
        assert!(
            differences.is_empty(),
            "{} says something else than was measured:\n{}",
            file.display(),
            differences.join("\n")
        );
    }

    fn markdown(&self) -> String {
        let head = "| attack | default capabilities | with NET_ADMIN |\n| --- | --- | --- |\n";
        let rows = self.0.values().map(|row| {
            let cell = |capabilities| {
                row.verdicts
                    .get(capabilities)
                    .map_or(String::new(), |verdicts| said(&row.families, verdicts))
            };
            format!("| {} | {} | {} |\n", row.name, cell("default"), cell("NET_ADMIN"))
        });
        std::iter::once(head.to_owned()).chain(rows).collect()
    }
}

/// One word where both IP versions fare alike.
fn said(families: &str, verdicts: &[Verdict]) -> String {
    match verdicts {
        [first, rest @ ..] if rest.iter().all(|verdict| verdict == first) => {
            first.word().to_owned()
        }
        _ => {
            let each = families.chars().zip(verdicts);
            let each = each.map(|(family, verdict)| format!("IPv{family} {}", verdict.word()));
            each.collect::<Vec<_>>().join(", ")
        }
    }
}

/// Whether a row of the document holds of one that was measured.
///
/// With `NET_ADMIN` an attacker and a repair race, and who is first is not the same every time: what was measured may be better
/// than what is said, never worse. With default capabilities nothing races, and both must be the same.
fn holds(shown: &str, measured: &str) -> bool {
    let (shown, measured) = (cells(shown), cells(measured));
    let mut pairs = shown.iter().zip(&measured).enumerate();
    shown.len() == measured.len()
        && pairs.all(|(column, (shown, measured))| {
            let harm = |said: &String| HARM.iter().position(|words| words.contains(&said.as_str()));
            shown == measured
                || (column / 2 == NET_ADMIN
                    && harm(measured).is_some()
                    && harm(measured) <= harm(shown))
        })
}

/// The column of attackers that hold `NET_ADMIN`: behind the first bar, the name and the default capabilities.
const NET_ADMIN: usize = 3;
/// From the best to the worst. Whether something was told that did not arrive, and whether it ended or went on after it was
/// told, may change from one time to the next.
const HARM: [&[&str]; 2] = [&["stopped", "detected"], &["**not stopped**"]];

/// A row's cells, and of each what it says of IPv4 and of IPv6.
fn cells(row: &str) -> Vec<String> {
    let row = row.replace(Verdict::Repaired.word(), Verdict::Detected.word());
    let each = row.split('|').map(str::trim).flat_map(|cell| match cell.split_once(", IPv6 ") {
        Some((v4, v6)) => [v4.trim_start_matches("IPv4 ").to_owned(), v6.to_owned()],
        None => [cell.to_owned(), cell.to_owned()],
    });
    each.collect()
}

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SECURITY-MODEL.md")
}
