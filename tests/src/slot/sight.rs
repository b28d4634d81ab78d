//! What a member sees of the cluster at one moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use veil_committee_machine::Millis;
use veil_committee_slot::manifest::{LocalView, TelemetryRef};
use veil_protocol_spec::{
    Blake3Digest, Committee, KeccakDigest, ParticipantIndex, PeerIdHash, PublicIdentity, Slot,
    scheduling::{
        BlockRef, CertificateBody, CircuitId, ClusterState, SignedSuspicion, Submission, UnixMillis,
    },
};

use crate::agreement::binding;

/// The circuit of every slot.
pub(super) const CIRCUIT: CircuitId =
    CircuitId { version: 1, fingerprint: Blake3Digest([0xcc; 32]) };
/// The digest of the cluster's policy.
pub(super) const POLICY: KeccakDigest = KeccakDigest([0x90; 32]);

/// The chain as of one block.
pub(super) struct ChainView {
    pub(super) block: BlockRef,
    pub(super) workers: BTreeSet<PeerIdHash>,
    pub(super) submissions: Vec<Submission>,
}

/// The owned parts of a [`LocalView`].
#[derive(Clone)]
pub(super) struct Sight {
    pub(super) committee: Committee,
    pub(super) roster: Arc<Vec<PublicIdentity>>,
    pub(super) state: Arc<ClusterState>,
    pub(super) chain: Arc<ChainView>,
    pub(super) max_workers: usize,
    /// Replicas of the jobs whose body this member has.
    pub(super) bodies: Arc<BTreeMap<Blake3Digest, u16>>,
    pub(super) fresh: Vec<TelemetryRef>,
    pub(super) suspicions: BTreeMap<PeerIdHash, BTreeMap<ParticipantIndex, SignedSuspicion>>,
    pub(super) not_before: UnixMillis,
    pub(super) silent: bool,
    pub(super) interval: Millis,
}

impl Sight {
    pub(super) fn with<T>(&self, f: impl FnOnce(&LocalView<'_>, bool, Millis) -> T) -> T {
        let view = LocalView {
            binding: binding(),
            committee: self.committee,
            roster: &self.roster,
            state: &self.state,
            block: self.chain.block,
            base: CertificateBody::NO_PREVIOUS,
            anchored: Slot(0),
            policy: POLICY,
            max_workers: self.max_workers,
            workers: &self.chain.workers,
            submissions: &self.chain.submissions,
            replicas: &|job| self.bodies.get(job).copied(),
            circuit: CIRCUIT,
            fresh: &self.fresh,
            suspicions: &self.suspicions,
            not_before: self.not_before,
        };
        f(&view, self.silent, self.interval)
    }
}
