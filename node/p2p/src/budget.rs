//! Rate limit of a peer's requests: a token bucket.

use std::time::Instant;

/// How fast a bucket fills, and how full it gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) per_second: u32,
    pub(crate) burst: u32,
}

/// At the default timings SWIM sends some twenty messages a second between two peers.
pub(crate) const SWIM_RATE: Rate = Rate { per_second: 200, burst: 400 };

#[derive(Debug)]
pub(crate) struct Budget {
    tokens: f64,
    at: Instant,
}

impl Budget {
    pub(crate) fn full(rate: Rate, now: Instant) -> Self {
        Self { tokens: f64::from(rate.burst), at: now }
    }

    /// Takes one token; `false` if there is none.
    pub(crate) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let gained = now.duration_since(self.at).as_secs_f64() * f64::from(rate.per_second);
        self.tokens = (self.tokens + gained).min(f64::from(rate.burst));
        self.at = now;
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_followed_by_the_long_run_rate() {
        let (rate, start) = (Rate { per_second: 2, burst: 3 }, Instant::now());
        let mut budget = Budget::full(rate, start);
        let taken = |budget: &mut Budget, now| (0..10).filter(|_| budget.take(rate, now)).count();
        assert_eq!(taken(&mut budget, start), 3);
        assert_eq!(taken(&mut budget, start + Duration::from_secs(1)), 2);
        assert_eq!(taken(&mut budget, start + Duration::from_secs(60)), 3);
    }
}
