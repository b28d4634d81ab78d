//! The clock that machines are given the time of.

use std::time::{Duration, Instant};

use veil_committee_machine::Millis;

/// Milliseconds since some start, never backwards. Machines of one process may share one.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts at zero now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Milliseconds since the start.
    #[must_use]
    pub fn now(&self) -> Millis {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits until it is that late; for ever without a time, or with one that never comes.
    pub async fn reach(self, at: Option<Millis>) {
        match at.and_then(|at| self.0.checked_add(Duration::from_millis(at))) {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    }
}
