//! Chaos layer: daemons killed, tables flushed, sources missing or slow. Nothing leaks, no allowed connection is lost, and
//! nothing denied ever becomes possible (security model 2).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

mod chaos {
    mod broken;
    mod crash;
    mod cut;
    mod dockerd;
    mod load;
    mod missing;
    mod reload;
    mod slow_docker;
    mod storm;
    mod tamper;

    /// Everything is enforced.
    const ENFORCE: &str = "mode = \"enforce\"";
    /// As where the kernel has no tables that are owned and stay.
    const PLAIN: &str = "ownership = \"off\"";
}
