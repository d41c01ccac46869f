//! Owns knowledge of applications: the catalogue of models, and which model a workload is.
//!
//! Pure: `resolve(workload, catalogue, settings)` gives the same answer for the same facts, with every piece of
//! evidence it used. It never guesses: below the threshold the answer is `unknown`.

pub mod catalogue;
pub mod resolution;

pub use catalogue::{
    Audience, Catalogue, Category, Model, ModelName, Provided, Service, ServiceName,
};
pub use resolution::{Evidence, EvidenceKind, Resolution};
