//! Owns waiting: for a condition, never for a time.

use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(20);

/// The first `Some` that `attempt` gives, asked every 20 ms; panics naming `what` when `limit` has passed.
#[track_caller]
pub(crate) fn eventually<T>(
    what: &str,
    limit: Duration,
    mut attempt: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} did not happen within {limit:?}");
        std::thread::sleep(POLL);
    }
}

/// Waits until `condition` holds; panics naming `what` when `limit` has passed.
#[track_caller]
pub(crate) fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    eventually(what, limit, || condition().then_some(()));
}
