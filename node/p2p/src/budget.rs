//! What a peer may still send now: a token bucket of messages and one of bytes.

use std::time::Instant;

use crate::{rates::Rate, refusal::Refusal};

#[derive(Debug)]
pub(crate) struct Budget {
    messages: f64,
    /// Negative after bytes that were sent on demand.
    bytes: f64,
    at: Instant,
}

#[allow(clippy::cast_precision_loss, reason = "a budget is no account")]
const fn count(bytes: u64) -> f64 {
    bytes as f64
}

impl Budget {
    pub(crate) fn full(rate: Rate, now: Instant) -> Self {
        Self { messages: f64::from(rate.burst), bytes: count(rate.burst_bytes), at: now }
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        let messages = self.messages + seconds * f64::from(rate.per_second);
        let bytes = self.bytes + seconds * count(rate.bytes_per_second);
        self.messages = messages.min(f64::from(rate.burst));
        self.bytes = bytes.min(count(rate.burst_bytes));
        self.at = now;
    }

    /// Takes one message of `len` bytes.
    pub(crate) fn take(&mut self, rate: Rate, len: usize, now: Instant) -> Result<(), Refusal> {
        self.fill(rate, now);
        let bytes = count(len as u64);
        if self.messages < 1.0 {
            return Err(Refusal::TooOften);
        }
        if self.bytes < bytes {
            return Err(Refusal::TooMuch);
        }
        self.messages -= 1.0;
        self.bytes -= bytes;
        Ok(())
    }

    /// Takes bytes that this node sends to the peer on demand. A debt makes the peer wait.
    pub(crate) fn charge(&mut self, rate: Rate, bytes: u64, now: Instant) {
        self.fill(rate, now);
        self.bytes -= count(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RATE: Rate = Rate { per_second: 2, burst: 3, bytes_per_second: 100, burst_bytes: 1000 };

    #[test]
    fn a_burst_is_followed_by_the_long_run_rate() {
        let start = Instant::now();
        let mut budget = Budget::full(RATE, start);
        let taken = |budget: &mut Budget, now| {
            (0..10).filter(|_| budget.take(RATE, 1, now).is_ok()).count()
        };
        assert_eq!(taken(&mut budget, start), 3);
        assert_eq!(budget.take(RATE, 1, start), Err(Refusal::TooOften));
        assert_eq!(taken(&mut budget, start + Duration::from_secs(1)), 2);
        assert_eq!(taken(&mut budget, start + Duration::from_secs(60)), 3);
    }

    #[test]
    fn bytes_count_beside_messages_and_a_debt_is_paid_first() {
        let start = Instant::now();
        let mut budget = Budget::full(RATE, start);
        assert_eq!(budget.take(RATE, 900, start), Ok(()));
        assert_eq!(budget.take(RATE, 101, start), Err(Refusal::TooMuch));
        assert_eq!(budget.take(RATE, 100, start), Ok(()));
        budget.charge(RATE, 500, start);
        let later = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(budget.take(RATE, 0, later(4)), Err(Refusal::TooMuch));
        assert_eq!(budget.take(RATE, 0, later(5)), Ok(()));
    }
}
