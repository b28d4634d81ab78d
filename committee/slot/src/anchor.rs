//! Anchoring as a machine: which certificate is due on chain, and when it is this member's turn
//! (`protocol-spec/anchoring.md`).
//!
//! # Roles
//! A machine beside [`SlotMachine`](crate::SlotMachine), not a stage of it: a certificate becomes due by what the
//! chain's head is, whatever the slot under way is doing, and one that was certified hours ago may be due while the
//! slot's machine has been made anew many times. The two share nothing but the certificates. The host reads chain
//! and ledger, sends the transaction, and says what came of it.
//!
//! # Flow
//! 1. Whenever a slot is certified or the chain has another block, [`AnchorMachine::observe`] compares the chain's
//!    head with the certificates.
//! 2. The newest certificate that names the head as its base is due when somebody waits for it, or when the policy's
//!    number of slots has passed since the head.
//! 3. Anyone may anchor it; the members take turns, another one first for each head, so that a member without an
//!    account or with a broken endpoint costs a moment and not the anchor. A try that fails is repeated a few times,
//!    less and less often; then the others have their turns before it is this member's again.
//!
//! # State and restart
//! In memory only: head and certificates say what is due.
//!
//! # Example
//! ```
//! # use veil_committee_slot::anchor::{AnchorConfig, AnchorEffect, AnchorMachine, AnchorSight};
//! # use veil_protocol_spec::{Committee, ParticipantIndex, Slot, scheduling::{CertificateBody, ClusterState}};
//! use veil_committee_machine::{Effect, Machine};
//!
//! # let committee = Committee::new(4).unwrap();
//! # let (me, state) = (ParticipantIndex::new(1).unwrap(), ClusterState::default());
//! let mut machine = AnchorMachine::new(AnchorConfig { me, committee, pays: true });
//! // Nothing is certified yet, so nothing is due.
//! let seen = AnchorSight { state: &state, head: None, every: 1 };
//! let bases = |_: Slot| Ok::<_, ()>(Some(CertificateBody::NO_PREVIOUS));
//! machine.observe(&seen, bases, 0).unwrap();
//! assert_eq!((machine.poll_timeout(), machine.poll_effect()), (None, None));
//! ```

#[cfg(test)]
mod tests;

use core::convert::Infallible;

use veil_committee_machine::{Effect, Machine, Millis};
use veil_protocol_spec::{
    Committee, KeccakDigest, ParticipantIndex, Slot,
    scheduling::{CertificateBody, ClusterState},
};

/// Between the members' turns.
pub const ANCHOR_TURN: Millis = 15_000;
/// How often a member repeats a try that failed, in one turn.
const RETRIES: u32 = 3;
/// Before the first repetition; it doubles with each.
const RETRY: Millis = 1_000;

/// Whose machine it is.
#[derive(Clone, Copy, Debug)]
pub struct AnchorConfig {
    /// This member.
    pub me: ParticipantIndex,
    /// The members that take turns.
    pub committee: Committee,
    /// Whether this member has an account that pays for transactions; else it only looks on.
    pub pays: bool,
}

/// The certificate that was anchored last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnchorHead {
    /// [`CertificateBody::hash`].
    pub hash: KeccakDigest,
    /// Its slot.
    pub slot: Slot,
    /// How many were anchored with it.
    pub count: u64,
}

/// What a member sees when something may have become due.
#[derive(Clone, Copy, Debug)]
pub struct AnchorSight<'a> {
    /// What follows from the certificates.
    pub state: &'a ClusterState,
    /// The chain's head; `None` before the first.
    pub head: Option<AnchorHead>,
    /// The policy's `anchor_every`.
    pub every: u16,
}

/// What anchoring asks of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnchorEffect {
    /// Send the certificate of a slot to the chain; answer with [`AnchorMachine::tried`].
    Anchor {
        /// The head that it is to follow.
        base: KeccakDigest,
        /// Which.
        slot: Slot,
    },
}

/// One member's part in anchoring; see the [module](self).
#[derive(Debug)]
pub struct AnchorMachine {
    config: AnchorConfig,
    newest: Option<Newest>,
    due: Option<Due>,
    out: Option<AnchorEffect>,
}

/// The newest certificate on a head, as of the last slot that is certified.
#[derive(Clone, Copy, Debug)]
struct Newest {
    base: KeccakDigest,
    last: Slot,
    slot: Option<Slot>,
}

/// What is due.
#[derive(Clone, Copy, Debug)]
struct Due {
    base: KeccakDigest,
    /// The newest on it.
    slot: Slot,
    /// When it is this member's turn; `None` while it tries.
    at: Option<Millis>,
    /// Tries that have failed in this turn.
    failed: u32,
}

/// Whether somebody waits for what was certified after the head: the worker of a replica placed since,
/// which confirms it.
fn is_awaited(state: &ClusterState, head: Slot) -> bool {
    state.replicas().any(|(.., placement)| placement.slot > head)
}

/// The slot, up to `last` and after the head's, of the last certificate that names the head as its base.
fn newest_on<E>(
    (base, head): (KeccakDigest, Slot),
    last: Slot,
    base_of: impl Fn(Slot) -> Result<Option<KeccakDigest>, E>,
) -> Result<Option<Slot>, E> {
    for slot in (head.0 + 1..=last.0).rev().map(Slot) {
        if base_of(slot)? == Some(base) {
            return Ok(Some(slot));
        }
    }
    Ok(None)
}

impl AnchorMachine {
    /// A machine to which nothing is due yet.
    #[must_use]
    pub const fn new(config: AnchorConfig) -> Self {
        Self { config, newest: None, due: None, out: None }
    }

    /// The chain or the certificates may have changed. `base_of` says what the certificate of a slot names as its
    /// base, if it is here.
    ///
    /// # Errors
    /// What `base_of` says; then nothing is due until the next look.
    pub fn observe<E>(
        &mut self,
        seen: &AnchorSight<'_>,
        base_of: impl Fn(Slot) -> Result<Option<KeccakDigest>, E>,
        now: Millis,
    ) -> Result<(), E> {
        if !self.config.pays {
            return Ok(());
        }
        let none = AnchorHead { hash: CertificateBody::NO_PREVIOUS, slot: Slot(0), count: 0 };
        let AnchorHead { hash: base, slot: head, count } = seen.head.unwrap_or(none);
        let last = seen.state.last_slot();
        let known = self.newest.filter(|known| (known.base, known.last) == (base, last));
        let slot = match known {
            Some(known) => known.slot,
            None => match newest_on((base, head), last, base_of) {
                Ok(slot) => self.newest.insert(Newest { base, last, slot }).slot,
                Err(error) => {
                    self.nothing();
                    return Err(error);
                }
            },
        };
        let is_due =
            |slot: &Slot| is_awaited(seen.state, head) || slot.0 - head.0 >= u64::from(seen.every);
        match (slot.filter(is_due), &mut self.due) {
            (None, _) => self.nothing(),
            (Some(slot), Some(due)) if due.base == base => due.slot = slot,
            (Some(slot), _) => {
                let at = now.saturating_add(ANCHOR_TURN * self.turns_before(count));
                self.nothing();
                self.due = Some(Due { base, slot, at: Some(at), failed: 0 });
            }
        }
        Ok(())
    }

    fn nothing(&mut self) {
        (self.due, self.out) = (None, None);
    }

    /// How many turns come before this member's, for the certificate after the first `anchored`.
    fn turns_before(&self, anchored: u64) -> u64 {
        let AnchorConfig { me, committee, .. } = self.config;
        let n = committee.n() as u64;
        (me.position() as u64 + n - anchored % n) % n
    }

    /// What came of a try on this head: whether the chain took the certificate, or has taken another one. Until
    /// the head is seen to have changed, the other members have their turns.
    pub fn tried(&mut self, base: KeccakDigest, taken: bool, now: Millis) {
        let of_this = |due: &&mut Due| due.base == base && due.at.is_none();
        let Some(due) = self.due.as_mut().filter(of_this) else { return };
        let pause = if taken || due.failed == RETRIES {
            due.failed = 0;
            ANCHOR_TURN * self.config.committee.n() as u64
        } else {
            due.failed += 1;
            RETRY << (due.failed - 1)
        };
        due.at = Some(now.saturating_add(pause));
    }
}

impl Machine for AnchorMachine {
    type Record = Infallible;
    type Special = AnchorEffect;
    veil_committee_machine::no_messages!();

    fn handle_timeout(&mut self, now: Millis) {
        if let Some(due) = &mut self.due
            && due.at.take_if(|at| *at <= now).is_some()
        {
            self.out = Some(AnchorEffect::Anchor { base: due.base, slot: due.slot });
        }
    }

    fn poll_timeout(&self) -> Option<Millis> {
        self.due?.at
    }

    fn poll_effect(&mut self) -> Option<Effect<Infallible, AnchorEffect>> {
        self.out.take().map(Effect::Special)
    }
}
