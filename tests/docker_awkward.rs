//! Docker layer: containers that share, change or lack networks, that crash, pause and get other names, and that are more than others.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

mod awkward {
    mod lives;
    mod networks;
    mod shared;
    mod users;

    /// Everything is enforced, and what no model knows is denied.
    const ENFORCE: &str = "mode = \"enforce\"\nunknown = \"deny\"\n\
                           resolvers = [\"203.0.113.53\", \"2001:db8:53::53\"]";
}
