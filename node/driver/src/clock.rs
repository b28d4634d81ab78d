//! The clock that machines are given the time of.

use std::time::Instant;

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

    pub(crate) fn at(&self, millis: Millis) -> Option<Instant> {
        self.0.checked_add(std::time::Duration::from_millis(millis))
    }
}
