//! Owns what every outside byte passes first: text made safe to print, and files whose problems have places.
//!
//! It knows nothing of containers or firewalls. Everything that comes from images, labels, DNS or
//! operators' files is turned here into a type that cannot do harm further along
//! (security model 7: input is hostile).

pub mod diagnostic;
pub mod text;
pub mod time;
pub mod toml_doc;

pub use diagnostic::{Diagnostic, Diagnostics, Place};
pub use text::Text;
