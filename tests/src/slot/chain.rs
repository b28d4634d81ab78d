//! The chain of the world: blocks, and the certificates that are brought on it by the rules of
//! `anchoring.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
};

use veil_committee_machine::{Effect, Machine, Millis};
use veil_committee_slot::anchor::{
    AnchorConfig, AnchorEffect, AnchorHead, AnchorMachine, AnchorSight,
};
use veil_protocol_spec::{
    Committee, KeccakDigest, ParticipantIndex, PeerIdHash, Slot,
    scheduling::{BlockRef, CertificateBody, ClusterState, Submission},
};

use crate::fixtures;

/// Blocks whose view is kept: more than half an hour.
const KEPT_BLOCKS: usize = 1024;
/// Certificates that wait for their anchor.
const KEPT_CERTIFICATES: usize = 4096;

/// The chain as of one block.
pub(super) struct ChainView {
    pub(super) block: BlockRef,
    /// The block's time, in Unix seconds.
    pub(super) time: u64,
    pub(super) workers: Arc<BTreeSet<PeerIdHash>>,
    pub(super) submissions: Arc<Vec<Submission>>,
    /// Workers that are drained.
    pub(super) draining: Arc<BTreeSet<PeerIdHash>>,
    /// The certificate that is anchored, and its slot.
    pub(super) base: KeccakDigest,
    pub(super) anchored: Slot,
}

impl ChainView {
    /// Whether a job is to run.
    pub(super) fn wants(&self, job: &veil_protocol_spec::Blake3Digest) -> bool {
        self.submissions.iter().any(|s| s.job == *job && !s.cancelled)
    }
}

#[derive(Clone, Copy)]
struct Anchor {
    hash: KeccakDigest,
    slot: Slot,
    /// How many were anchored by then.
    count: u64,
}

pub(super) struct Chain {
    seed: u64,
    blocks: BTreeMap<u64, Arc<ChainView>>,
    head: Anchor,
    /// Certificates after the head: hash and base.
    certificates: BTreeMap<Slot, (KeccakDigest, KeccakDigest)>,
    /// The members' parts in anchoring.
    members: BTreeMap<ParticipantIndex, AnchorMachine>,
    /// In the next block.
    sent: Option<Anchor>,
    /// Certificates that were anchored: one transaction each.
    pub(super) transactions: u64,
}

impl Chain {
    pub(super) const fn new(seed: u64) -> Self {
        let head = Anchor { hash: CertificateBody::NO_PREVIOUS, slot: Slot(0), count: 0 };
        Self {
            seed,
            blocks: BTreeMap::new(),
            head,
            certificates: BTreeMap::new(),
            members: BTreeMap::new(),
            sent: None,
            transactions: 0,
        }
    }

    /// Another block, with what was sent since the last one.
    pub(super) fn mine(
        &mut self,
        workers: Arc<BTreeSet<PeerIdHash>>,
        submissions: Arc<Vec<Submission>>,
        draining: Arc<BTreeSet<PeerIdHash>>,
        time: u64,
    ) {
        if let Some(anchor) = self.sent.take() {
            self.head = anchor;
            self.transactions += 1;
            self.certificates = self.certificates.split_off(&Slot(anchor.slot.0 + 1));
        }
        let number = self.blocks.last_key_value().map_or(1, |(number, _)| number + 1);
        let hash = KeccakDigest(fixtures::draw(self.seed, "block", number));
        let (base, anchored) = (self.head.hash, self.head.slot);
        let block = BlockRef { number, hash };
        let view = ChainView { block, time, workers, submissions, draining, base, anchored };
        self.blocks.insert(number, Arc::new(view));
        while self.blocks.len() > KEPT_BLOCKS {
            self.blocks.pop_first();
        }
    }

    pub(super) fn head(&self) -> Arc<ChainView> {
        let head = self.blocks.last_key_value().map(|(_, view)| Arc::clone(view));
        head.expect("there is a block from the start")
    }

    pub(super) fn at(&self, block: BlockRef) -> Option<Arc<ChainView>> {
        self.blocks.get(&block.number).filter(|view| view.block == block).cloned()
    }

    // ---- anchors ---------------------------------------------------------------------------

    pub(super) fn certified(&mut self, body: &CertificateBody) {
        self.certificates.insert(body.slot, (body.hash(), body.base));
        while self.certificates.len() > KEPT_CERTIFICATES {
            self.certificates.pop_first();
        }
    }

    /// What the members that are there do about it by their machines.
    pub(super) fn anchor_if_due(
        &mut self,
        state: &ClusterState,
        every: u16,
        committee: Committee,
        there: impl Iterator<Item = ParticipantIndex>,
        now: Millis,
    ) {
        let Anchor { hash, slot, count } = self.head;
        let head = (count > 0).then_some(AnchorHead { hash, slot, count });
        let seen = AnchorSight { state, head, every };
        let base_of = |slot| Ok::<_, Infallible>(self.certificates.get(&slot).map(|(_, of)| *of));
        let there: BTreeSet<_> = there.collect();
        // Whose process is dead begins anew.
        self.members.retain(|j, _| there.contains(j));
        for me in there {
            let config = AnchorConfig { me, committee, pays: true };
            let machine = self.members.entry(me).or_insert_with(|| AnchorMachine::new(config));
            let Ok(()) = machine.observe(&seen, base_of, now);
            machine.handle_timeout(now);
            let Some(Effect::Special(AnchorEffect::Anchor { base, slot })) = machine.poll_effect()
            else {
                continue;
            };
            if let Some((hash, _)) = self.certificates.get(&slot)
                && self.sent.is_none()
            {
                self.sent = Some(Anchor { hash: *hash, slot, count: self.head.count + 1 });
            }
            machine.tried(base, true, now);
        }
    }

    /// Anyone may anchor what can be anchored: also the oldest certificate, at once. Whether there was
    /// one.
    pub(super) fn anchor_oldest(&mut self) -> bool {
        let base = self.head.hash;
        let mut on_base = self.certificates.iter().filter(|(_, (_, of))| *of == base);
        let (Some((&slot, &(hash, _))), true) = (on_base.next(), self.sent.is_none()) else {
            return false;
        };
        self.sent = Some(Anchor { hash, slot, count: self.head.count + 1 });
        true
    }
}
