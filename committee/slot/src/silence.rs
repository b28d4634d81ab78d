//! Whose telemetry a slot waits for.
//!
//! A slot waits for workers that are there, so that they are considered, but each of them for a while only: one
//! that never sends what counts would delay every slot.

use std::collections::{BTreeMap, BTreeSet};

use veil_committee_machine::Millis;
use veil_protocol_spec::PeerIdHash;

/// For how long a worker is waited for that is there: twice the usual interval of telemetry.
pub const PATIENCE: Millis = 60_000;

/// The workers without telemetry that counts, and since when they are there so.
#[derive(Debug, Default)]
pub struct Silence(BTreeMap<PeerIdHash, Millis>);

impl Silence {
    /// Those of the registered `workers` that are there, and that a slot waits for: `has` says whose telemetry
    /// counts. Who goes away and comes back is not waited for anew.
    pub fn awaited(
        &mut self,
        workers: &BTreeSet<PeerIdHash>,
        is_there: impl Fn(&PeerIdHash) -> bool,
        has: impl Fn(&PeerIdHash) -> bool,
        now: Millis,
    ) -> Vec<PeerIdHash> {
        self.0.retain(|worker, _| workers.contains(worker) && !has(worker));
        let silent = workers.iter().filter(|worker| is_there(worker) && !has(worker));
        let awaited = silent.filter(|worker| {
            let since = *self.0.entry(**worker).or_insert(now);
            now.saturating_sub(since) < PATIENCE
        });
        awaited.copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::worker;

    /// Finding C3: one worker that is there and sends nothing delayed every slot.
    #[test]
    fn a_worker_that_sends_nothing_is_waited_for_once() {
        let mut silence = Silence::default();
        let workers: BTreeSet<_> = [1, 2].map(worker).into();
        let mut awaited = |there: &[u8], has: &[u8], now| {
            let is = |of: &[u8], id: &PeerIdHash| of.iter().any(|byte| worker(*byte) == *id);
            silence.awaited(&workers, |id| is(there, id), |id| is(has, id), now)
        };
        assert_eq!(awaited(&[1, 2], &[], 1_000), [1, 2].map(worker));
        assert_eq!(awaited(&[1, 2], &[2], 1_000 + PATIENCE - 1), [worker(1)]);
        assert_eq!(awaited(&[1, 2], &[2], 1_000 + PATIENCE), []);
        assert_eq!(awaited(&[2], &[2], 2 * PATIENCE), []);
        assert_eq!(awaited(&[1, 2], &[2], 3 * PATIENCE), [], "it was away in between");
        // Something is assigned to worker 2, so that it proves anew; and worker 1 has sent something at last.
        assert_eq!(awaited(&[1, 2], &[1], 4 * PATIENCE), [worker(2)]);
        assert_eq!(awaited(&[1, 2], &[2], 5 * PATIENCE), [worker(1)]);
    }
}
