//! Owns which mode a workload has: operators' `[[mode]]` (the last match), then its label, then the treatment of
//! unknown workloads, then the configuration's `mode`. A workload in the host's netns is off whatever anybody says.

use super::labels;
use super::operator::OperatorPolicy;
use super::party::{Party, Standing};
use super::settings::{LabelTrust, Mode, Settings, UnknownTreatment};
use super::statement::{Policy, Provenance};

/// The mode of one workload and who says so.
pub(super) fn decide(
    party: &Party<'_>,
    operator: &OperatorPolicy,
    settings: &Settings,
) -> (Mode, Provenance) {
    if party.standing == Standing::HostNetwork {
        return (Mode::Off, Provenance::Builtin { rule: "host-network" });
    }
    if let Some(rule) = operator.mode(&party.subject()) {
        return (rule.mode, Provenance::Operator { place: rule.place.clone() });
    }
    let is_watched = party.model.is_none()
        && settings.unknown == UnknownTreatment::Observe
        && settings.mode > Mode::Observe;
    let (configured, key) =
        if is_watched { (Mode::Observe, "unknown") } else { (settings.mode, "mode") };
    match party.labels.mode {
        Some(mode) if party.labels.trust == LabelTrust::Trust || mode > configured => {
            let workload = party.workload.display_name();
            (mode, Provenance::Label { key: labels::MODE.into(), workload })
        }
        _ => (configured, Provenance::Setting { key }),
    }
}

/// The mode of a netns that several workloads share: the strictest of theirs, because a packet does not tell which of them
/// sent it, and a neighbour must not be a way out of enforcement.
pub fn netns_mode(policies: &[&Policy]) -> Mode {
    policies.iter().map(|policy| policy.mode).max().unwrap_or(Mode::Off)
}
