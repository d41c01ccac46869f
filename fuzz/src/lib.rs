//! What is fuzzed, and what must hold of it. `tests/pure_fuzz.rs` includes the same checks and runs them over what was kept.

pub mod checks;
