//! How far this node trusts what it concludes from silence.
//!
//! After Lifeguard (Dadgar, Phillips and Currey, "Lifeguard: Local Health Awareness for More Accurate
//! Failure Detection", 2018): a node that is slow itself takes others for dead. "Each node maintains a
//! Local Health Multiplier": a score that rises with every sign that the node itself is slow and falls
//! with every probe that is answered, and by which it stretches its time-outs.
//!
//! [`Pulse`] notices that the task did not run although it was due: its machine was busy, paused or
//! asleep. Time in which it did not run is no time in which others were silent.

use std::time::Duration;

use tokio::time::Instant;

/// "Saturates at a maximum of S": Lifeguard's own choice.
const MAX_SCORE: u32 = 8;

/// The score of this node; 0 is healthy.
#[derive(Debug, Default)]
pub(super) struct LocalHealth {
    score: u32,
}

impl LocalHealth {
    /// A sign that this node is slow: it did not run, nobody answers it, or others suspect it.
    pub(super) fn worsen(&mut self) {
        self.score = (self.score + 1).min(MAX_SCORE);
    }

    /// A probe was answered in time.
    pub(super) fn improve(&mut self) {
        self.score = self.score.saturating_sub(1);
    }

    /// A time-out of this node.
    pub(super) fn stretch(&self, timeout: Duration) -> Duration {
        timeout.saturating_mul(self.score + 1)
    }
}

/// Notices when the task did not run.
#[derive(Debug)]
pub(super) struct Pulse {
    interval: Duration,
    last: Instant,
}

impl Pulse {
    /// The task is to run at least once in each interval from now on.
    pub(super) fn start(interval: Duration, now: Instant) -> Self {
        Self { interval, last: now }
    }

    /// When the task is to run again at the latest.
    pub(super) fn due(&self) -> Instant {
        self.last + self.interval
    }

    /// The task runs. If it is late by an interval, how long it did not run.
    pub(super) fn beat(&mut self, now: Instant) -> Option<Duration> {
        let gap = now.saturating_duration_since(self.last);
        self.last = now;
        (gap >= self.interval * 2).then_some(gap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs_stretch_with_the_score_and_shrink_again() {
        let (mut health, timeout) = (LocalHealth::default(), Duration::from_secs(4));
        assert_eq!(health.stretch(timeout), timeout);
        health.worsen();
        assert_eq!(health.stretch(timeout), timeout * 2);
        for _ in 0..20 {
            health.worsen();
        }
        assert_eq!(health.stretch(timeout), timeout * 9);
        for _ in 0..20 {
            health.improve();
        }
        assert_eq!(health.stretch(timeout), timeout);
    }

    #[test]
    fn a_task_that_did_not_run_is_told_for_how_long() {
        let (start, interval) = (Instant::now(), Duration::from_millis(250));
        let mut pulse = Pulse::start(interval, start);
        assert_eq!(pulse.due(), start + interval);
        assert_eq!(pulse.beat(start + interval), None);
        assert_eq!(pulse.beat(start + Duration::from_millis(251)), None);
        let back = start + Duration::from_millis(10_251);
        assert_eq!(pulse.beat(back), Some(Duration::from_secs(10)));
        assert_eq!(pulse.due(), back + interval);
    }
}
