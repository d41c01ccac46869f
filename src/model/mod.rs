//! Owns knowledge of applications: the catalogue of models, and which model a workload is.
//!
//! Pure: [`resolve()`] gives the same answer for the same facts, with every piece of
//! evidence it used. It never guesses: below the threshold the answer is `unknown`.

pub mod builtin;
pub mod catalogue;
mod evidence;
pub mod helper;
mod link;
pub mod lookup;
pub mod parse;
mod program;
mod read;
pub mod resolution;
pub mod resolve;
#[cfg(test)]
mod samples;

pub use builtin::BUILTIN_FILE;
pub use catalogue::{
    Audience, Catalogue, Category, Egress, EgressTarget, Model, ModelName, Provided, Service,
    ServiceName,
};
pub use helper::{Helper, HelperError};
pub use lookup::RepositoryMatch;
pub use resolution::{Evidence, EvidenceKind, Resolution};
pub use resolve::{Overrides, resolve};
