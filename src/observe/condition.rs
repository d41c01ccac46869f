//! Owns what is wrong now with something that works in the background: one line that an operator can act on, or nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long something that is over, and was a loss, is told of.
const TOLD: Duration = Duration::from_secs(3600);

/// The condition of one worker. Its worker writes it, others ask for it.
#[derive(Debug)]
pub(super) struct Condition {
    /// Whose, for the log.
    name: &'static str,
    /// What it works on, in the plural.
    things: &'static str,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    trouble: Option<String>,
    notice: Option<(Instant, String)>,
    loss: Option<Loss>,
    lost: u64,
}

/// Losses that followed each other.
#[derive(Debug)]
struct Loss {
    last: Instant,
    count: u64,
    why: String,
}

impl Condition {
    pub(super) fn new(name: &'static str, things: &'static str) -> Self {
        Self { name, things, state: Mutex::default() }
    }

    /// It works.
    pub(super) fn well(&self) {
        if self.state().trouble.take().is_some() {
            tracing::info!(of = self.name, "works again");
        }
    }

    /// It does not work, and tries again.
    pub(super) fn trouble(&self, what: String) {
        let mut state = self.state();
        if state.trouble.as_ref() != Some(&what) {
            tracing::warn!(of = self.name, "{what}");
            state.trouble = Some(what);
        }
    }

    /// It works, but something is gone.
    pub(super) fn notice(&self, what: String) {
        tracing::warn!(of = self.name, "{what}");
        self.state().notice = Some((Instant::now(), what));
    }

    /// Things were lost.
    pub(super) fn lose(&self, count: usize, why: &str) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let now = Instant::now();
        let mut state = self.state();
        state.lost = state.lost.saturating_add(count);
        match &mut state.loss {
            Some(loss) if now.duration_since(loss.last) < TOLD => {
                loss.last = now;
                loss.count = loss.count.saturating_add(count);
                why.clone_into(&mut loss.why);
            }
            loss => {
                tracing::warn!(of = self.name, "{} are being lost: {why}", self.things);
                *loss = Some(Loss { last: now, count, why: why.to_owned() });
            }
        }
    }

    /// How many things were lost since the start.
    pub(super) fn lost(&self) -> u64 {
        self.state().lost
    }

    /// What is wrong at `now`, in one line; what is over for an hour is not.
    pub(super) fn line(&self, now: Instant) -> Option<String> {
        let state = self.state();
        let is_told = |at: Instant| now.saturating_duration_since(at) < TOLD;
        let loss = state.loss.as_ref().filter(|loss| is_told(loss.last));
        let parts = [
            state.trouble.clone(),
            state.notice.as_ref().filter(|(at, _)| is_told(*at)).map(|(_, what)| what.clone()),
            loss.map(|loss| format!("{} {} were lost: {}", loss.count, self.things, loss.why)),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_until_it_is_over_and_losses_for_an_hour() {
        let condition = Condition::new("store", "changes");
        assert_eq!(condition.line(Instant::now()), None);
        condition.trouble("no space".to_owned());
        condition.lose(2, "too slow");
        condition.lose(3, "too slow");
        let line = condition.line(Instant::now()).unwrap();
        assert_eq!(line, "no space; 5 changes were lost: too slow");
        condition.well();
        let line = condition.line(Instant::now()).unwrap();
        assert_eq!(line, "5 changes were lost: too slow");
        assert_eq!(condition.line(Instant::now() + TOLD), None);
        assert_eq!(condition.lost(), 5);
    }
}
