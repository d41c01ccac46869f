//! Owns how fast something is done, by the clock and by the processor time of who does it.

use std::time::{Duration, Instant};

/// How much was done in a second, and in a second of the sender's processor time: rules are asked in the call that sends,
/// and what else the machine does is not in it.
#[derive(Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) wall: f64,
    pub(crate) processor: f64,
}

/// Does something until the time has passed; it says how much it did.
pub(crate) fn rate(time: Duration, mut once: impl FnMut() -> usize) -> Rate {
    let (began, used, mut done) = (Instant::now(), processor_time(), 0);
    while began.elapsed() < time {
        done += once();
    }
    let used = processor_time() - used;
    Rate { wall: done as f64 / began.elapsed().as_secs_f64(), processor: done as f64 / used }
}

/// Of this thread, in seconds (`schedstat`: nanoseconds on a processor come first).
fn processor_time() -> f64 {
    // What it has used since it was last put on a processor is counted when it leaves it.
    std::thread::yield_now();
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}
