//! What a member sees of the cluster at one moment.

use std::{collections::BTreeMap, sync::Arc};

use veil_committee_machine::Millis;
use veil_committee_slot::{
    demand::JobDemand,
    fit::Fit,
    manifest::{LocalView, MAX_BLOCK_AGE, TelemetryRef},
};
use veil_protocol_spec::{
    Address, Blake3Digest, Committee, KeccakDigest, ParticipantIndex, PeerIdHash, PublicIdentity,
    Slot,
    scheduling::{CircuitId, ClusterState, Sampling, SignedSuspicion, Suspicion, UnixMillis},
};

use super::chain::ChainView;
use crate::{agreement::binding, fixtures};

/// The digest of the cluster's policy.
pub(super) const POLICY: KeccakDigest = KeccakDigest([0x90; 32]);
/// Between two tries of what has no place.
const INTERVAL: Millis = 10_000;
/// In which members say for how long a worker has counted as lost.
pub(super) const STEP: Millis = 30_000;

/// Suspicions for one slot, by worker and member.
pub(super) type BySlot = BTreeMap<PeerIdHash, BTreeMap<ParticipantIndex, SignedSuspicion>>;

/// The owned parts of a [`LocalView`]; members share what is the same to them.
pub(super) struct Sight {
    pub(super) committee: Committee,
    pub(super) roster: Arc<Vec<PublicIdentity>>,
    pub(super) state: Arc<ClusterState>,
    pub(super) chain: Arc<ChainView>,
    /// Number of the last block that this member knows.
    pub(super) settled: u64,
    pub(super) max_workers: usize,
    pub(super) sampling: Sampling,
    pub(super) circuit: CircuitId,
    /// What the jobs want whose body this member has, as of the block.
    pub(super) bodies: Arc<BTreeMap<Blake3Digest, JobDemand>>,
    pub(super) fresh: Vec<TelemetryRef>,
    pub(super) suspicions: Arc<BySlot>,
    pub(super) not_before: UnixMillis,
    pub(super) appeal: bool,
    pub(super) silent: bool,
    /// Whose workers these are.
    pub(super) owners: Arc<BTreeMap<PeerIdHash, Address>>,
}

impl Sight {
    pub(super) fn with<T>(&self, f: impl FnOnce(&LocalView<'_>, bool, Millis) -> T) -> T {
        let view = LocalView {
            binding: binding(),
            committee: self.committee,
            roster: &self.roster,
            state: &self.state,
            block: self.chain.block,
            settled: self.settled,
            max_block_age: MAX_BLOCK_AGE,
            base: self.chain.base,
            anchored: self.chain.anchored,
            policy: POLICY,
            max_workers: self.max_workers,
            sampling: self.sampling,
            workers: &self.chain.workers,
            draining: &self.chain.draining,
            submissions: &self.chain.submissions,
            jobs: &|job| self.bodies.get(job).copied(),
            circuit: self.circuit,
            fresh: &self.fresh,
            suspicions: &self.suspicions,
            not_before: self.not_before,
            appeal: self.appeal,
            owners: &self.owners,
            fit: &|_, _, _| Fit::Fits,
        };
        f(&view, self.silent, INTERVAL)
    }
}

/// The suspicions that members have gossiped.
#[derive(Default)]
pub(super) struct Suspicions {
    signed: BTreeMap<(Slot, Said), SignedSuspicion>,
    /// Those for a slot, as of who found whom lost: the same for all members.
    last: Option<(Slot, Vec<Said>, Arc<BySlot>)>,
    /// When the certificate was there since which a worker counts as lost.
    counted: BTreeMap<(PeerIdHash, Slot), Millis>,
}

/// Of whom a member says that it is lost, and for how many seconds it has counted so.
pub(super) type Said = (PeerIdHash, ParticipantIndex, u32);

impl Suspicions {
    pub(super) fn of(&mut self, slot: Slot, who: Vec<Said>, seed: u64) -> Arc<BySlot> {
        let same = self.last.as_ref().filter(|(of, by, _)| (of, by) == (&slot, &who));
        if let Some((_, _, known)) = same {
            return Arc::clone(known);
        }
        let mut by_slot = BySlot::new();
        for &said in &who {
            let (worker, member, lost_for) = said;
            let signed = *self.signed.entry((slot, said)).or_insert_with(|| {
                let suspicion = Suspicion { binding: binding(), slot, worker, lost_for };
                suspicion.sign(member, &fixtures::identity(seed, member))
            });
            by_slot.entry(worker).or_default().insert(member, signed);
        }
        let by_slot = Arc::new(by_slot);
        self.last = Some((slot, who, Arc::clone(&by_slot)));
        by_slot
    }

    /// Seconds since the certificate that counts a worker as lost, in steps: few suspicions are signed.
    pub(super) fn lost_for(
        &mut self,
        worker: PeerIdHash,
        state: &ClusterState,
        now: Millis,
    ) -> u32 {
        self.counted.retain(|(worker, since), _| state.lost_since(worker) == Some(*since));
        let since = state.lost_since(&worker).map(|since| (worker, since));
        let counted = since.map_or(0, |since| now - *self.counted.entry(since).or_insert(now));
        u32::try_from(counted / STEP * STEP / 1000).unwrap_or(u32::MAX)
    }

    pub(super) fn forget(&mut self, slot: Slot) {
        self.signed.retain(|(of, ..), _| *of > slot);
    }
}
