//! Who of the candidates of a replica is asked, and in which order equals are preferred.
//!
//! # Rules
//! 1. Candidates are ordered by a digest over the seed, the block of the draw, the job, the replica and the worker;
//!    those that are [late](PublicInputs::late) come after the others.
//! 2. The first [`candidates`](PendingReplica::candidates) of them are asked. The worker that is preferred for its
//!    level is among them.
//! 3. Policies that take equals in turn take those that are asked in turn.
//!
//! # Who could choose
//! The order of two workers depends on nothing but rule 1: not on what else waits or who else is there. So the
//! submitter cannot choose by the body of a job or by what it submits beside it, since the block comes after; the
//! proposer not by what it lists; a worker not by its name, which is older than the block, nor by staying away, which
//! takes nobody out of a sample but itself. Samples of different replicas are drawn apart from each other for that: if
//! one left out whom another one has, whoever withdraws a job would move all samples after it.

use veil_protocol_spec::{
    KeccakDigest, PeerIdHash,
    domain::{self, hash_parts},
    scheduling::{Manifest, PendingReplica},
};

use crate::inputs::PublicInputs;

/// The order of the candidates of one replica.
pub(super) struct Order<'a> {
    manifest: &'a Manifest,
    public: &'a PublicInputs,
    pending: &'a PendingReplica,
    block: KeccakDigest,
}

impl<'a> Order<'a> {
    pub(super) fn new(
        manifest: &'a Manifest,
        public: &'a PublicInputs,
        pending: &'a PendingReplica,
    ) -> Self {
        let block = public.draw_for(manifest, pending.submission);
        Self { manifest, public, pending, block }
    }

    fn sender(&self, worker: usize) -> Option<PeerIdHash> {
        self.manifest.telemetry.get(worker).map(|entry| entry.sender)
    }

    fn key(&self, worker: usize) -> (bool, [u8; 32]) {
        let sender = self.sender(worker);
        let drawn = hash_parts(
            domain::TIE_BREAK,
            &[
                self.public.seed.as_bytes(),
                self.block.as_bytes(),
                self.pending.job.as_bytes(),
                &self.pending.replica.0.to_le_bytes(),
                sender.as_ref().map_or(&[][..], |sender| sender.as_bytes()),
            ],
        );
        (sender.is_some_and(|sender| self.public.late.contains(&sender)), drawn)
    }

    /// Rules 1 and 2: those that are asked, in order; `preferred` is one of the candidates.
    pub(super) fn sample(
        &self,
        mut candidates: Vec<usize>,
        preferred: Option<usize>,
    ) -> Vec<usize> {
        candidates.sort_by_cached_key(|worker| self.key(*worker));
        candidates.truncate(self.pending.candidates.into());
        if let Some(preferred) = preferred
            && !candidates.contains(&preferred)
            && candidates.pop().is_some()
        {
            candidates.push(preferred);
        }
        candidates
    }
}

/// Rule 3: from the `turn`-th on, in the order of the telemetry.
pub(super) fn in_turn(asked: &mut [usize], turn: u64) {
    asked.sort_unstable();
    let start = turn % asked.len().max(1) as u64;
    asked.rotate_left(start as usize);
}
