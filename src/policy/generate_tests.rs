//! Tests of generation.
