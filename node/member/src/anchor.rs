//! Bringing certificates on chain, by the rules of `anchoring.md`: one task, whatever the number of
//! slots.
//!
//! # Flow
//! 1. Whenever a slot is certified or the chain has another block, compare the chain's head with the
//!    certificates here.
//! 2. The newest certificate that names the head as its base is due when somebody waits for it, or when
//!    the policy's number of slots has passed since the head.
//! 3. Anyone may anchor it; the members take turns, another one first for each head, so that a member
//!    without an account or with a broken endpoint costs a moment and not the anchor.
//!
//! # Restart
//! Nothing is stored: head and certificates say what is due.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use tokio::time::Instant;
use veil_node_api::status::{KEPT_SLOTS, Phase};
use veil_node_chain::{Chain, ChainError, Head};
use veil_node_core::{cluster::Views, progress::Progress};
use veil_node_storage::ledger::{Ledger, LedgerError};
use veil_protocol_spec::{
    ClusterId, Committee, KeccakDigest, ParticipantIndex, Slot,
    scheduling::{AssignmentCertificate, CertificateBody, ClusterState},
};

/// Between the members' turns.
const ANCHOR_TURN: Duration = Duration::from_secs(15);
/// Tries of one member in its turn.
const RETRIES: usize = 3;

#[derive(Debug, thiserror::Error)]
enum AnchorError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("the node is stopping")]
    Stopped,
}

/// See the [module documentation](self).
pub(crate) struct Anchorer {
    pub(crate) chain: Chain,
    pub(crate) cluster: ClusterId,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) committee: Committee,
    pub(crate) me: ParticipantIndex,
    pub(crate) views: Views,
    pub(crate) progress: Arc<Progress>,
}

/// What a head says, and what is said before the first.
fn base_of(head: Option<&Head>) -> (KeccakDigest, Slot, u64) {
    head.map_or((CertificateBody::NO_PREVIOUS, Slot(0), 0), |h| (h.hash, h.slot, h.count))
}

/// Whether somebody waits for what was certified after the head: the worker of a replica placed since,
/// which confirms it.
fn is_awaited(state: &ClusterState, head: Slot) -> bool {
    state.replicas().any(|(.., placement)| placement.slot > head)
}

/// How many turns come before this member's, for the certificate after the first `anchored`.
fn turns_before(me: ParticipantIndex, committee: Committee, anchored: u64) -> u32 {
    let n = committee.n() as u64;
    ((me.position() as u64 + n - anchored % n) % n) as u32
}

/// The certificate of the last slot up to `last` and after the head that names the head as its base.
fn newest_on<E>(
    (base, head): (KeccakDigest, Slot),
    last: Slot,
    certificate: impl Fn(Slot) -> Result<Option<AssignmentCertificate>, E>,
) -> Result<Option<AssignmentCertificate>, E> {
    for slot in (head.0 + 1..=last.0).rev() {
        let found = certificate(Slot(slot))?.filter(|found| found.body.base == base);
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The newest certificate on a head, as of the last slot here.
#[derive(Clone, Copy)]
struct Newest {
    base: KeccakDigest,
    last: Slot,
    certificate: Option<AssignmentCertificate>,
}

/// Slots that were certified while this process ran, until they are anchored or skipped.
#[derive(Default)]
struct Certified {
    last: Slot,
    since: BTreeMap<Slot, Instant>,
}

impl Certified {
    fn note(&mut self, last: Slot) {
        let now = Instant::now();
        self.since.extend((self.last.0 + 1..=last.0).map(|slot| (Slot(slot), now)));
        self.last = self.last.max(last);
        while self.since.len() > KEPT_SLOTS {
            self.since.pop_first();
        }
    }

    fn up_to(&mut self, head: Slot) -> BTreeMap<Slot, Instant> {
        let later = self.since.split_off(&Slot(head.0 + 1));
        core::mem::replace(&mut self.since, later)
    }
}

impl Anchorer {
    /// Runs until it is dropped.
    pub(crate) async fn run(self) {
        let (mut states, mut blocks) = (self.ledger.subscribe(), self.chain.changes());
        let last = states.borrow().last_slot();
        let mut certified = Certified { last, ..Certified::default() };
        let (mut reported, mut newest) = (None, None);
        // Of a base: when it is this member's turn.
        let mut due: Option<(KeccakDigest, Instant)> = None;
        loop {
            let state = Arc::clone(&states.borrow_and_update());
            blocks.borrow_and_update();
            certified.note(state.last_slot());
            match self.chain.head(self.cluster).await {
                Ok(head) => {
                    if let Some(head) = head.filter(|head| reported != Some(head.hash)) {
                        reported = Some(head.hash);
                        self.report(&head, certified.up_to(head.slot)).await;
                    }
                    let (base, ..) = base_of(head.as_ref());
                    let turn = self.turn(&state, head.as_ref(), &mut newest).await;
                    due = turn.map(|turn| match due {
                        Some((of, at)) if of == base => (base, at),
                        _ => (base, Instant::now() + turn),
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the last anchored certificate cannot be read");
                }
            }
            let its_turn = async {
                match due.filter(|_| self.chain.account().is_some()) {
                    Some((base, at)) => {
                        tokio::time::sleep_until(at).await;
                        base
                    }
                    // Without an account this member only observes.
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                changed = blocks.changed() => if changed.is_err() { return },
                base = its_turn => {
                    let backoff = ExponentialBuilder::default().with_max_times(RETRIES).with_jitter();
                    if let Err(error) = (|| self.anchor()).retry(backoff).await {
                        tracing::warn!(%error, "anchoring failed; the next member tries");
                    }
                    // Again after every member had a turn.
                    let round = ANCHOR_TURN * u32::try_from(self.committee.n()).unwrap_or(u32::MAX);
                    due = Some((base, Instant::now() + round));
                }
            }
        }
    }

    /// How long to wait for this member's turn, if a certificate is due.
    async fn turn(
        &self,
        state: &ClusterState,
        head: Option<&Head>,
        newest: &mut Option<Newest>,
    ) -> Option<Duration> {
        let (base, slot, count) = base_of(head);
        let last = state.last_slot();
        let known = newest.filter(|known| (known.base, known.last) == (base, last));
        let known = match known {
            Some(known) => known,
            None => match self.newest(base, slot, last).await {
                Ok(certificate) => *newest.insert(Newest { base, last, certificate }),
                Err(error) => {
                    tracing::warn!(%error, "the certificates to anchor cannot be read");
                    return None;
                }
            },
        };
        let passed = known.certificate?.body.slot.0 - slot.0;
        let every = self.views.current().rules_or_default().anchor_every;
        let is_due = is_awaited(state, slot) || passed >= u64::from(every);
        is_due.then(|| ANCHOR_TURN * turns_before(self.me, self.committee, count))
    }

    async fn newest(
        &self,
        base: KeccakDigest,
        head: Slot,
        last: Slot,
    ) -> Result<Option<AssignmentCertificate>, AnchorError> {
        let ledger = Arc::clone(&self.ledger);
        let reading = tokio::task::spawn_blocking(move || {
            let certificate = |slot| Ok(ledger.record(slot)?.map(|record| record.certificate));
            newest_on::<LedgerError>((base, head), last, certificate)
        });
        Ok(reading.await.map_err(|_| AnchorError::Stopped)??)
    }

    /// Anchors the newest certificate that names the head as its base.
    async fn anchor(&self) -> Result<(), AnchorError> {
        let head = self.chain.head(self.cluster).await?;
        let (base, slot, _) = base_of(head.as_ref());
        let last = self.ledger.state().last_slot();
        let Some(certificate) = self.newest(base, slot, last).await? else { return Ok(()) };
        match self.chain.anchor(&certificate).await {
            // Another member was faster.
            Err(error) if error.refusal().is_some_and(|refusal| refusal.is_out_of_order()) => {
                Ok(())
            }
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    }

    /// Says of slots that the chain's head is theirs, or after them.
    async fn report(&self, head: &Head, slots: BTreeMap<Slot, Instant>) {
        let own = self.ledger.record(head.slot).ok().flatten();
        if own.is_some_and(|record| record.certificate.body.hash() != head.hash) {
            tracing::error!(
                slot = head.slot.0,
                "the chain holds another certificate for this slot: more than t members are dishonest, or this node's ledger is of another chain"
            );
            return;
        }
        let block = match self.chain.anchored(self.cluster, head.hash).await {
            Ok(anchored) => anchored.map(|anchored| anchored.block),
            Err(error) => {
                tracing::warn!(%error, "the anchored certificate cannot be read back");
                return;
            }
        };
        tracing::info!(slot = head.slot.0, block, certificate = %head.hash, "anchored");
        for (slot, since) in slots {
            self.progress.slot(slot, |report| {
                report.phases.insert(Phase::Anchor, since.elapsed().as_secs_f64());
                report.anchored_in_block = block;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use veil_protocol_spec::{
        Address, Blake3Digest, ChainId, Epoch, KeySetDigest,
        scheduling::{Binding, ClusterScope, GroupSignature, ReferenceStringOrigin},
    };

    use super::*;

    const fn base(byte: u8) -> KeccakDigest {
        KeccakDigest([byte; 32])
    }

    fn certificate(slot: u64, base: KeccakDigest) -> AssignmentCertificate {
        let scope = ClusterScope {
            chain_id: ChainId(1),
            contract: Address([1; 20]),
            cluster: ClusterId([2; 32]),
        };
        AssignmentCertificate {
            body: CertificateBody {
                binding: Binding { scope, key_set: KeySetDigest([3; 32]), epoch: Epoch(0) },
                slot: Slot(slot),
                manifest: Blake3Digest([4; 32]),
                previous: KeccakDigest([5; 32]),
                base,
                jobs_seen: 0,
                evaluation: Blake3Digest([6; 32]),
                members_only: CertificateBody::NO_SECTION,
                assignments_root: KeccakDigest([7; 32]),
                state_root: KeccakDigest([8; 32]),
                reference_string: ReferenceStringOrigin::Committee,
            },
            signature: GroupSignature([2; 65]),
        }
    }

    /// The slot that is anchored on a head, of slots with these bases.
    fn newest(head: (u8, u64), bases: &[u8]) -> Option<u64> {
        let find = |slot: Slot| {
            let of = bases.get(slot.0 as usize - 1);
            Ok::<_, Infallible>(of.map(|of| certificate(slot.0, base(*of))))
        };
        let last = Slot(bases.len() as u64);
        let found = newest_on((base(head.0), Slot(head.1)), last, find).unwrap();
        found.map(|found| found.body.slot.0)
    }

    #[test]
    fn the_newest_certificate_on_the_head_is_anchored() {
        assert_eq!(newest((0, 0), &[]), None);
        assert_eq!(newest((0, 0), &[0, 0, 0]), Some(3), "those before it are skipped");
        // Slot 1 was anchored (9) while 2 and 3 named what was before it.
        assert_eq!(newest((9, 1), &[0, 0, 0]), None);
        assert_eq!(newest((9, 1), &[0, 0, 0, 9]), Some(4), "the next one carries on");
        assert_eq!(newest((9, 1), &[0, 0, 0, 9, 9]), Some(5));
        // The chain has replaced the block in which 3 was anchored (8).
        assert_eq!(newest((9, 1), &[0, 9, 9, 8]), Some(3));
        assert_eq!(newest((8, 3), &[0, 9, 9, 8]), Some(4));
        assert_eq!(newest((7, 6), &[0, 9, 9, 8]), None, "this member is behind");
    }

    #[test]
    fn each_head_has_another_first_member() {
        let committee = Committee::new(4).unwrap();
        for anchored in 0..9 {
            let turns: Vec<_> =
                committee.participants().map(|me| turns_before(me, committee, anchored)).collect();
            let first = turns.iter().position(|turn| *turn == 0).unwrap();
            assert_eq!(first as u64, anchored % 4);
            let mut sorted = turns;
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3]);
        }
    }

    #[test]
    fn slots_wait_for_the_head_to_pass_them() {
        let mut certified = Certified { last: Slot(4), ..Certified::default() };
        certified.note(Slot(4));
        certified.note(Slot(7));
        assert!(certified.up_to(Slot(6)).into_keys().eq([Slot(5), Slot(6)]));
        certified.note(Slot(7));
        assert!(certified.up_to(Slot(9)).into_keys().eq([Slot(7)]));
        certified.note(Slot(7 + 2 * KEPT_SLOTS as u64));
        assert_eq!(certified.since.len(), KEPT_SLOTS);
    }
}
