//! Whether and when a container that has ended is started again.
//!
//! Only the worker does it: an engine would start containers when the machine starts, before the rules are in
//! force that keep them from it, and before it is known whether an exclusive lease holds. What is counted is in
//! the record, which outlives the worker's process; when a run began and ended is the engine's to say.

use std::time::Duration;

use veil_protocol_spec::scheduling::{RestartMode, RestartPolicy};

use crate::{observe::Seen, record::Restarts};

/// Before a restart without a delay of its own: engines do the same.
const SHORTEST: Duration = Duration::from_millis(100);
/// However often it has ended soon.
const LONGEST: Duration = Duration::from_secs(60);
/// A run as long makes the pauses short again.
const LONG_RUN_MILLIS: u64 = 10_000;

/// How long a pause, and when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// Milliseconds of Unix time.
    pub(crate) at: u64,
    pub(crate) pause: Duration,
}

fn millis(seconds: impl Into<u64>) -> u64 {
    seconds.into().saturating_mul(1000)
}

/// When a container that ended as `seen` is started again; nothing if it is done, or has failed as often as
/// its job allows.
pub(crate) fn due(policy: RestartPolicy, seen: &Seen, before: Option<Restarts>) -> Option<Due> {
    let failed = seen.exit.code != 0 || before.is_some_and(|before| before.was_unhealthy);
    let is_wanted = match policy.mode {
        RestartMode::Never => false,
        RestartMode::OnFailure => failed,
        RestartMode::Always => true,
    };
    let ended = seen.finished.unwrap_or(0);
    let counted = before.map_or(0, |before| within(policy, before, ended)) + seen.restarts;
    if !is_wanted || policy.attempts.is_some_and(|attempts| counted >= u64::from(attempts)) {
        return None;
    }
    let pause = match policy.delay_seconds {
        0 => {
            let doublings = before.map_or(0, |before| short_runs(seen, before)).min(20);
            LONGEST.min(SHORTEST * (1 << doublings))
        }
        seconds => Duration::from_secs(seconds.into()),
    };
    let at = ended.saturating_add(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
    Some(Due { at, pause })
}

/// Restarts that count when a run ends: by the time of its end, so that looking later finds the same.
fn within(policy: RestartPolicy, before: Restarts, ended: u64) -> u64 {
    let interval = millis(policy.interval_seconds);
    let is_over = interval > 0 && ended >= before.interval_began.saturating_add(interval);
    if is_over { 0 } else { before.in_interval }
}

/// Runs in a row that ended soon, before the one that has ended now.
fn short_runs(seen: &Seen, before: Restarts) -> u32 {
    let (Some(began), Some(ended)) = (seen.started, seen.finished) else {
        return before.short_runs;
    };
    if ended.saturating_sub(began) < LONG_RUN_MILLIS { before.short_runs } else { 0 }
}

/// What is to be recorded when it has been started again at `now`.
pub(crate) fn recorded(
    policy: RestartPolicy,
    seen: &Seen,
    before: Option<Restarts>,
    now: u64,
    new: Restarts,
) -> Restarts {
    let Some(before) = before else {
        let in_interval = seen.restarts + 1;
        let count = in_interval;
        return Restarts { count, in_interval, interval_began: now, short_runs: 1, ..new };
    };
    let counted = within(policy, before, seen.finished.unwrap_or(0));
    let interval_began = if counted == 0 { now } else { before.interval_began };
    Restarts {
        count: before.count.saturating_add(seen.restarts).saturating_add(1),
        in_interval: counted.saturating_add(seen.restarts).saturating_add(1),
        interval_began,
        short_runs: short_runs(seen, before).saturating_add(1),
        ..new
    }
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::{Blake3Digest, ReplicaIndex, Slot};

    use super::*;
    use crate::{observe::Exit, replica::ReplicaId};

    fn ended(code: i64, began: u64, ended: u64) -> Seen {
        Seen {
            status: None,
            health: None,
            exit: Exit { code, out_of_memory: false },
            restarts: 0,
            started: Some(began),
            finished: Some(ended),
        }
    }

    fn policy(mode: RestartMode, attempts: Option<u16>) -> RestartPolicy {
        RestartPolicy { mode, attempts, ..RestartPolicy::default() }
    }

    fn new() -> Restarts {
        let id = ReplicaId { job: Blake3Digest([1; 32]), replica: ReplicaIndex(0) };
        Restarts::new(id, Slot(1), Exit::default())
    }

    fn after(policy: RestartPolicy, seen: &Seen, before: Option<Restarts>) -> Restarts {
        recorded(policy, seen, before, seen.finished.unwrap(), new())
    }

    #[test]
    fn exits_are_handled_by_policy() {
        let times = |count| (count > 0).then(|| Restarts { in_interval: count, ..new() });
        let on_failure = policy(RestartMode::OnFailure, Some(2));
        for (policy, code, restarts, expected) in [
            (policy(RestartMode::Never, None), 1, 0, false),
            (policy(RestartMode::Always, None), 0, 1000, true),
            (policy(RestartMode::Always, Some(2)), 0, 1, true),
            (policy(RestartMode::Always, Some(2)), 0, 2, false),
            (policy(RestartMode::OnFailure, None), 1, 1000, true),
            (policy(RestartMode::OnFailure, Some(0)), 1, 0, false),
            (on_failure, 0, 0, false),
            (on_failure, 137, 1, true),
            (on_failure, 137, 2, false),
        ] {
            let found = due(policy, &ended(code, 0, 5), times(restarts));
            assert_eq!(found.is_some(), expected, "{policy:?} {code} {restarts}");
        }
        // What was stopped for its bad health has failed, however it ended.
        let unhealthy = Some(Restarts { was_unhealthy: true, ..new() });
        assert!(due(on_failure, &ended(0, 0, 5), unhealthy).is_some());
    }

    #[test]
    fn pauses_double_while_runs_are_short() {
        let always = policy(RestartMode::Always, None);
        let (mut before, mut now) = (None, 0);
        for expected in [100, 200, 400, 800] {
            let seen = ended(1, now, now + 50);
            let due = due(always, &seen, before).unwrap();
            assert_eq!(
                due,
                Due { at: now + 50 + expected, pause: Duration::from_millis(expected) }
            );
            before = Some(after(always, &seen, before));
            now = due.at;
        }
        for _ in 0..40 {
            before = Some(after(always, &ended(1, now, now + 1), before));
        }
        assert_eq!(due(always, &ended(1, 0, 1), before).unwrap().pause, LONGEST);
        assert_eq!(due(always, &ended(1, 0, 10_000), before).unwrap().pause, SHORTEST);
        let delayed = RestartPolicy { delay_seconds: 15, ..always };
        assert_eq!(due(delayed, &ended(1, 0, 1), before).unwrap().at, 15_001);
    }

    #[test]
    fn attempts_are_counted_anew_after_the_interval_and_not_after_giving_up() {
        let limited =
            RestartPolicy { interval_seconds: 60, ..policy(RestartMode::Always, Some(2)) };
        let first = after(limited, &ended(1, 0, 1_000), None);
        let second = after(limited, &ended(1, 1_000, 30_000), Some(first));
        assert_eq!((second.count, second.in_interval), (2, 2));
        assert_eq!(due(limited, &ended(1, 30_000, 60_999), Some(second)), None);
        let later = ended(1, 30_000, 61_000);
        assert!(due(limited, &later, Some(second)).is_some());
        let third = after(limited, &later, Some(second));
        assert_eq!((third.count, third.in_interval, third.interval_began), (3, 1, 61_000));
        // Without an interval they are counted for ever.
        let ever = policy(RestartMode::Always, Some(2));
        assert_eq!(due(ever, &ended(1, 30_000, u64::MAX), Some(second)), None);
    }
}
