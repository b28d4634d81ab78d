//! What workers have given back.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{ClusterState, Placement, StateError};
use crate::{
    ids::{Blake3Digest, MAX_PARTICIPANTS, PeerIdHash, ReplicaIndex, Slot},
    scheduling::{
        binding::UnixMillis,
        ended::EndedReplica,
        given_back::{GiveBackReason, GivenBack, Note},
        manifest::{LeavingReplica, Manifest},
        submission::LEAK_WINDOW_BLOCKS,
    },
};

/// Most replicas that a cluster remembers as given back. The word of a worker that is not drained does not count
/// beyond that.
pub const MAX_RETURNED: usize = 2048;
/// Most of them by workers of one operator, so that nobody keeps the committee busy by taking replicas and giving
/// them back. Who has more to give back drains the worker, which is on chain.
pub const MAX_RETURNED_OF_OPERATOR: usize = 256;
/// How often the wait for another try doubles, and for how many slots at most an unhealthy replica stays away.
const MAX_DOUBLINGS: u8 = 6;

/// Most workers that are remembered for each replica as unable to use what is sealed in it: t+1 of the largest
/// committee.
const MAX_CLOSED_TO: usize = (MAX_PARTICIPANTS - 1) / 3 + 1;

type Replica = (Blake3Digest, ReplicaIndex);

/// A replica that a worker gave back.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Returned {
    /// The place that was given back last.
    pub placement: Placement,
    /// The first slot whose certificate says so.
    pub slot: Slot,
    /// The block of its manifest.
    pub block: u64,
    /// Why.
    pub reason: GiveBackReason,
    /// When the worker stops it, or has stopped it.
    pub until: Option<UnixMillis>,
    /// What the worker's operator said.
    pub note: Note,
    /// How often it was given back, as long as that is remembered.
    pub times: u8,
    /// Workers that gave it back since they could not use [what is sealed](GiveBackReason::SealedPart), in strictly
    /// ascending order, as long as that is remembered; of more than t+1 the first.
    pub closed_to: Vec<PeerIdHash>,
}

impl Returned {
    /// Most bytes that one takes in the encoding of a state, with its replica.
    pub(super) const MAX_ENTRY_BYTES: usize = (32 + 3)
        + (32 + 10)
        + 10
        + 10
        + 1
        + 11
        + (1 + Note::MAX_BYTES)
        + 2
        + (1 + 32 * MAX_CLOSED_TO);

    /// Whether the worker that gave the replica back is no candidate for it in a slot, whose manifest names that
    /// block. An operator's word holds as long as it is remembered; what was unhealthy may come back after a
    /// while, since it may be unhealthy everywhere.
    #[must_use]
    pub fn bars(&self, slot: Slot, block: u64) -> bool {
        match self.reason {
            GiveBackReason::Unhealthy => {
                slot.0 < self.slot.0.saturating_add(1 << self.times.min(MAX_DOUBLINGS))
            }
            GiveBackReason::Evicted | GiveBackReason::SealedPart => self.is_remembered(block),
            // The worker may be given it again as soon as the registry says so.
            GiveBackReason::Drained | GiveBackReason::DrainEnded => false,
        }
    }

    /// Failures that giving it back again counts for: the first time for none.
    #[must_use]
    pub const fn failures(&self) -> u8 {
        self.times.saturating_sub(1)
    }

    /// The first slot that tries to place it whatever else there is to do.
    #[must_use]
    pub fn due(&self) -> Slot {
        let wait = match self.failures().min(MAX_DOUBLINGS) {
            0 => 0,
            failures => 1 << failures,
        };
        Slot(self.slot.0.saturating_add(wait))
    }

    /// "For a day, in blocks."
    const fn is_remembered(&self, block: u64) -> bool {
        block < self.block.saturating_add(LEAK_WINDOW_BLOCKS)
    }
}

/// What the manifest says of a replica that a worker gives back.
fn word(manifest: &Manifest, of: Replica) -> Option<&GivenBack> {
    let at = manifest.given_back.binary_search_by_key(&of, GivenBack::key);
    manifest.given_back.get(at.ok()?)
}

/// Whether the replica has no place any more, by its worker's word that it has stopped it.
pub(super) fn is_released(manifest: &Manifest, job: Blake3Digest, replica: ReplicaIndex) -> bool {
    word(manifest, (job, replica)).is_some_and(|word| word.has_stopped)
}

impl ClusterState {
    /// Every replica that was given back and is remembered, in order.
    pub fn returned(&self) -> impl Iterator<Item = (Blake3Digest, ReplicaIndex, &Returned)> + '_ {
        self.returned.iter().map(|(&(job, replica), returned)| (job, replica, returned))
    }

    /// How a replica was given back last, if that is remembered.
    #[must_use]
    pub fn returned_replica(&self, job: Blake3Digest, replica: ReplicaIndex) -> Option<&Returned> {
        self.returned.get(&(job, replica))
    }

    /// Whether its worker gives back the place that a replica has.
    #[must_use]
    pub fn is_given_back(&self, job: Blake3Digest, replica: ReplicaIndex) -> bool {
        let placement = self.placement(job, replica);
        self.returned_replica(job, replica).map(|returned| returned.placement) == placement
            && placement.is_some()
    }

    /// How a pending replica of a manifest that builds on this state was given back last, by that manifest too.
    #[must_use]
    pub fn returned_with(
        &self,
        words: &[GivenBack],
        (slot, block): (Slot, u64),
        of: Replica,
    ) -> Option<Returned> {
        let known = self.returned.get(&of).filter(|known| known.is_remembered(block));
        let at = words.binary_search_by_key(&of, GivenBack::key).ok();
        let word = at.and_then(|at| words.get(at));
        let placement = self.replicas.get(&of).copied();
        let Some((word, placement)) = word.zip(placement) else { return known.cloned() };
        // Word that it has stopped follows on word of the notice.
        if known.is_some_and(|known| known.placement == placement) {
            return known.cloned();
        }
        // A drain is no reason to come back later, or not to come back to the worker.
        if word.reason == GiveBackReason::Drained {
            return known.cloned();
        }
        let times = known.map_or(0, |known| known.times).saturating_add(1);
        let GivenBack { reason, until, note, .. } = word.clone();
        let mut closed_to = known.map_or_else(Vec::new, |known| known.closed_to.clone());
        if reason == GiveBackReason::SealedPart
            && closed_to.len() < MAX_CLOSED_TO
            && let Err(at) = closed_to.binary_search(&placement.worker)
        {
            closed_to.insert(at, placement.worker);
        }
        Some(Returned { placement, slot, block, reason, until, note, times, closed_to })
    }

    /// The different workers that say of a job that they cannot use what is sealed in it, in a slot whose manifest
    /// names that block and lists these words. What one of them says of several replicas counts once.
    #[must_use]
    pub fn closed_to(
        &self,
        words: &[GivenBack],
        at: (Slot, u64),
        job: Blake3Digest,
    ) -> BTreeSet<PeerIdHash> {
        let said = words.iter().filter(|word| word.job == job).map(|word| word.replica);
        let replicas: BTreeSet<_> =
            self.returned_of(job).map(|(replica, _)| replica).chain(said).collect();
        let returned = replicas
            .into_iter()
            .filter_map(|replica| self.returned_with(words, at, (job, replica)));
        returned.flat_map(|returned| returned.closed_to).collect()
    }

    /// Whether the worker that gave a replica back is no candidate for it in the next slot, whose manifest names that
    /// block: as if slots that ended void had not been.
    #[must_use]
    pub fn is_barred_by(&self, returned: &Returned, block: u64) -> bool {
        returned.bars(Slot(self.last_decided().0 + 1), block)
    }

    /// Workers that are no candidates for a pending replica of a manifest that builds on this state, since they
    /// gave it back.
    pub fn barred<'a>(
        &'a self,
        manifest: &'a Manifest,
    ) -> impl Iterator<Item = (Replica, PeerIdHash)> + 'a {
        let (at, block) = ((manifest.slot, manifest.block.number), manifest.block.number);
        let jobs: BTreeSet<_> = manifest.pending.iter().map(|pending| pending.job).collect();
        let closed_to = |job| (job, self.closed_to(&manifest.given_back, at, job));
        let closed_to: BTreeMap<_, _> = jobs.into_iter().map(closed_to).collect();
        manifest.pending.iter().flat_map(move |pending| {
            let of = (pending.job, pending.replica);
            let returned = self.returned_with(&manifest.given_back, at, of);
            let returned = returned.filter(|returned| self.is_barred_by(returned, block));
            let mut barred = closed_to.get(&pending.job).cloned().unwrap_or_default();
            barred.extend(returned.map(|returned| returned.placement.worker));
            barred.into_iter().map(move |worker| (of, worker))
        })
    }

    /// What is remembered after a slot; what has stopped is taken out of `replicas`.
    pub(super) fn returned_after(
        &self,
        manifest: &Manifest,
        replicas: &mut BTreeMap<Replica, Placement>,
    ) -> Result<BTreeMap<Replica, Returned>, StateError> {
        let (slot, block) = (manifest.slot, manifest.block.number);
        let mut returned = self.returned.clone();
        for word in &manifest.given_back {
            let (job, replica) = word.key();
            let has = self.placement(job, replica).is_some_and(|has| has.slot == word.placed);
            if !has {
                return Err(StateError::NotRunning { job, replica });
            }
            if let Some(after) = self.returned_with(&manifest.given_back, (slot, block), word.key())
            {
                returned.insert(word.key(), after);
            }
            if word.has_stopped {
                replicas.remove(&word.key());
            }
        }
        returned.retain(|&(job, replica), returned| {
            let leaves = manifest.leaving.binary_search(&LeavingReplica { job, replica }).is_ok();
            let done =
                manifest.done.binary_search_by_key(&(job, replica), EndedReplica::key).is_ok();
            let has = replicas.get(&(job, replica)) == Some(&returned.placement);
            !leaves && !done && (has || returned.is_remembered(block))
        });
        if returned.len() > MAX_RETURNED {
            return Err(StateError::TooManyReturned(returned.len()));
        }
        Ok(returned)
    }
}
