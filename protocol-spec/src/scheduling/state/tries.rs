//! What was tried and told, as far as the lists of later manifests depend on it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use veil_protocol_spec_job::sampling::bits_of_try;

use crate::{
    codec::encode,
    ids::{Blake3Digest, KeccakDigest, PeerIdHash, ReplicaIndex, Slot},
    scheduling::{
        abi::keccak,
        assignment::{Assignments, Outcome},
        manifest::{MAX_PENDING, Manifest},
        submission::LEAK_WINDOW_BLOCKS,
    },
};

use super::ClusterState;

type Replica = (Blake3Digest, ReplicaIndex);

/// Most replicas whose tries are remembered; those tried longest ago are forgotten first.
pub(super) const MAX_TRIED: usize = 2 * MAX_PENDING;
/// Most jobs for which told bits are counted; of more, those that were told least are forgotten.
pub(super) const MAX_TOLD: usize = 2 * MAX_PENDING;
/// Most workers that are remembered as considered.
pub(super) const MAX_KNOWN: usize = 4096;
/// Failures are counted up to this: the pause between tries doubles up to 64 slots, or 64 slot intervals.
const MAX_FAILURES: u8 = 7;

/// One replica without a place, or on a lost worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tried {
    /// Slots that found no place for it, since something changed that could help.
    pub(super) failures: u8,
    /// All that did since it had a place: how many workers the next one asks follows from it.
    pub(super) failed: u8,
    /// The last of them.
    pub(super) slot: Slot,
    /// The worker that held it last; of a system job, the one that it is for.
    pub(super) previous: Option<PeerIdHash>,
}

/// What answers about a job's replicas have told about others' load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Told {
    pub(super) bits: u32,
    /// The block of the first of them.
    pub(super) since: u64,
}

/// What goes by lot is drawn from this block: the one that the first manifest names after the last
/// certificate that is not void.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draw {
    /// Hash of the block.
    pub block: KeccakDigest,
    /// Jobs submitted as of that block: for later ones the block was known when they were submitted.
    pub jobs_seen: u64,
}

impl Draw {
    /// From the block that the manifest names.
    #[must_use]
    pub const fn of(manifest: &Manifest) -> Self {
        Self { block: manifest.block.hash, jobs_seen: manifest.jobs_seen }
    }
}

/// See the [module documentation](self).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tries {
    pub(super) tried: BTreeMap<Replica, Tried>,
    pub(super) told: BTreeMap<Blake3Digest, Told>,
    /// Workers that slots with an outcome have considered.
    pub(super) known: BTreeSet<PeerIdHash>,
    /// The last slot in which a replica left a worker that was not lost.
    pub(super) freed: Slot,
    /// The policy of the last slot with an outcome.
    pub(super) policy: Option<KeccakDigest>,
    pub(super) draw: Option<Draw>,
}

impl ClusterState {
    /// How many slots found no place for a replica, since it had one.
    #[must_use]
    pub fn failed(&self, job: Blake3Digest, replica: ReplicaIndex) -> u8 {
        self.tries.tried.get(&(job, replica)).map_or(0, |tried| tried.failed)
    }

    /// The workers of a manifest that builds on this state that are asked after all others: no slot with an outcome
    /// has considered them, and the [draw](Self::draw) is older than this manifest, after slots that ended void. Who
    /// chose a name then knew what it would be drawn by.
    pub fn late<'a>(&'a self, manifest: &'a Manifest) -> impl Iterator<Item = PeerIdHash> + 'a {
        let senders = manifest.telemetry.iter().map(|entry| entry.sender);
        let Tries { draw, known, .. } = &self.tries;
        senders.filter(move |worker| draw.is_some() && !known.contains(worker))
    }
}

impl Tries {
    /// What was told about a job within the window that `block` is in.
    pub(super) fn told(&self, job: &Blake3Digest, block: u64) -> Told {
        let told = self.told.get(job).copied();
        let counts = |told: &Told| block < told.since.saturating_add(LEAK_WINDOW_BLOCKS);
        told.filter(counts).unwrap_or(Told { bits: 0, since: block })
    }

    /// Whether every replica is tried at once: "woken by what could change it".
    pub(super) fn all_wake(&self, telemetry: &BTreeSet<PeerIdHash>, policy: KeccakDigest) -> bool {
        !telemetry.is_subset(&self.known) || Some(policy) != self.policy
    }

    /// "Leak bits and tries are charged at the lock": whatever the slot ends with.
    pub(super) fn locked(&mut self, manifest: &Manifest) {
        self.draw.get_or_insert(Draw::of(manifest));
        let block = manifest.block.number;
        for pending in &manifest.pending {
            let bits = bits_of_try(manifest.asked(pending));
            if bits > 0 {
                let mut told = self.told(&pending.job, block);
                told.bits = told.bits.saturating_add(bits);
                self.told.insert(pending.job, told);
            }
        }
        self.told.retain(|_, told| block < told.since.saturating_add(LEAK_WINDOW_BLOCKS));
        if self.told.len() > MAX_TOLD {
            let by_bits: BTreeSet<_> = self.told.iter().map(|(job, t)| (t.bits, *job)).collect();
            let over = self.told.len() - MAX_TOLD;
            for (_, job) in by_bits.iter().take(over) {
                self.told.remove(job);
            }
        }
    }

    /// The slot has an outcome. `freed` says whether a replica left a worker that is not lost, `previous`
    /// where a replica was before.
    pub(super) fn decided(
        &mut self,
        manifest: &Manifest,
        assignments: &Assignments,
        freed: bool,
        previous: impl Fn(&Replica) -> Option<PeerIdHash>,
    ) {
        let telemetry: BTreeSet<_> = manifest.telemetry.iter().map(|entry| entry.sender).collect();
        let all_wake = self.all_wake(&telemetry, manifest.policy);
        for assignment in assignments.as_slice() {
            let replica = (assignment.job, assignment.replica);
            if assignment.outcome != Outcome::Pending {
                self.tried.remove(&replica);
                continue;
            }
            let before = self.tried.get(&replica);
            let anew = before.is_none_or(|tried| all_wake || tried.slot <= self.freed);
            let failures = before.filter(|_| !anew).map_or(0, |tried| tried.failures);
            let failures = failures.saturating_add(1).min(MAX_FAILURES);
            // What could help does not begin anew with few: else a replica for which there is room on one of a
            // thousand workers would ask fifteen of them for ever.
            let failed = before.map_or(0, |tried| tried.failed);
            let failed = failed.saturating_add(u8::from(!telemetry.is_empty())).min(MAX_FAILURES);
            let (slot, previous) = (manifest.slot, previous(&replica));
            let tried = Tried { failures, failed, slot, previous };
            self.tried.insert(replica, tried);
        }
        if self.tried.len() > MAX_TRIED {
            let by_slot: BTreeSet<_> = self.tried.iter().map(|(of, t)| (t.slot, *of)).collect();
            let over = self.tried.len() - MAX_TRIED;
            for (_, replica) in by_slot.iter().take(over) {
                self.tried.remove(replica);
            }
        }
        if telemetry.is_empty() {
            self.known.clear(); // nobody was asked: whoever comes wakes what waits
        } else if !telemetry.is_subset(&self.known) {
            self.known.extend(&telemetry);
            if self.known.len() > MAX_KNOWN {
                self.known = telemetry;
            }
        }
        if freed {
            self.freed = manifest.slot;
        }
        self.policy = Some(manifest.policy);
        self.draw = None;
    }

    /// Keccak-256 of the encoding; `None` if nothing was tried yet.
    pub(super) fn digest(&self) -> Option<KeccakDigest> {
        if *self == Self::default() {
            return None;
        }
        Some(keccak(&encode(self)))
    }
}
