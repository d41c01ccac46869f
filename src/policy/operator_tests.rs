//! Tests of `operator`.
