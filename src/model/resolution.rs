//! Owns [`Resolution`]: which model a workload is, how sure that is, and why.

use serde::Serialize;

use super::catalogue::ModelName;
use crate::input::Text;

/// What kind of fact speaks for or against a model, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceKind {
    /// An operator's policy file says so.
    Operator,
    /// The label `seawall.model`, where labels are trusted.
    Label,
    /// The image's repository.
    Repository,
    /// The image's own labels (OCI title, source, base name).
    ImageLabel,
    /// Entrypoint or command.
    Command,
    /// Declared ports.
    ExposedPorts,
    /// Names of environment variables.
    Environment,
}

/// One fact for (positive weight) or against (negative weight) a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evidence {
    /// Which model it is about.
    pub model: ModelName,
    /// Its kind.
    pub kind: EvidenceKind,
    /// What was seen, in words.
    pub found: Text,
    /// Its weight, −1 to 1.
    pub weight: f64,
}

/// Which model a workload is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Resolution {
    /// The model, or `None`: unknown.
    pub model: Option<ModelName>,
    /// The score of the best candidate, 0 to 1.
    pub confidence: f64,
    /// Every piece of evidence, strongest first, for all candidates.
    pub evidence: Vec<Evidence>,
    /// Why it is unknown, when it is.
    pub reason: Option<Text>,
}
