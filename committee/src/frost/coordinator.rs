//! The machine that collects commitments and shares, and names who failed.
//!
//! Source: ROAST (eprint 2022/550), with deadlines: a member that owes a share from an earlier
//! attempt is not chosen again until it has delivered it, and an attempt that completes late
//! still counts.
//!
//! # Roles
//! Any member, beside its own [`SigningSession`](super::SigningSession). What it sends to all
//! members is for that one too, and what that one sends to it reaches it like everybody else's
//! messages: the host of both hands these over ([`signing`](super::signing)).
//!
//! # Messages
//! In: `Commitment`, `Share`, `Signature` (another coordinator was faster). Out: `Request`,
//! `Package`, `Signature`.
//!
//! # Inputs and effects
//! Inputs are those of every [`Machine`], and [`authorise`](Coordinator::authorise) after
//! [`prepare`](Coordinator::prepare). It stores nothing; the effect of its own is [`SessionEffect`].
//! The order of calls is that of [every machine](veil_committee_machine#call-order).
//!
//! # Flow
//! 0. Optional, while the message is not known: [`Coordinator::prepare`] broadcasts a `Request`
//!    without a message, again and again, and gathers commitments. [`Coordinator::authorise`] names
//!    the message; with 2t+1 commitments there, one round trip is left.
//! 1. Broadcast `Request`; wait for commitments until the deadline.
//! 2. As soon as 2t+1 members that owe nothing have committed, they are the signers: send each the
//!    package. No more than 2t+1: every further signer would be one more who can stall. Of more,
//!    those that the caller knows to be ready come first.
//! 3. Check each share as it comes. A wrong one convicts its sender, with evidence.
//! 4. All shares in: aggregate, broadcast the signature, complete.
//! 5. A wrong share and nothing outstanding, or the deadline: culprits are excluded for good,
//!    the silent ones until they answer; back to 1 with the next attempt.
//! 6. Fewer than 2t+1 members left, or no attempt left: fail with their names.
//!
//! # State
//! In memory only. A member that restarts as coordinator starts at an attempt above any it used
//! before, since members answer only later attempts of the same coordinator: pass a persisted
//! restart counter times [`Timing::max_attempts`].
//!
//! # Caveats
//! Every failed attempt excludes a faulty member as long as honest ones answer within the
//! deadlines, so t+1 attempts suffice then. That a member was silent is the coordinator's word
//! only; it convicts nobody.

use core::fmt;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    sync::Arc,
};

use frost_core::{
    CheaterDetection, Ciphersuite, SigningPackage, aggregate_custom, round2::SignatureShare,
};
use veil_committee_machine::{Effect, Machine, Millis, Verdict};
use veil_protocol_spec::{Attempt, KeccakDigest, ParticipantIndex, Wire, identity::SecretIdentity};

use super::{
    EvmSuite,
    effect::{Completion, SessionEffect, SigningError},
    keys::{GroupSignature, identifier},
    session::{Fault, Parsed, SessionContext, SessionVerdict, Skip},
    wire::{Body, Evidence, Payload, SignedMessage},
};

/// How long a coordinator waits and how often it tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// For 2t+1 commitments.
    pub commit: Millis,
    /// For the shares of the chosen.
    pub share: Millis,
    /// Attempts before it gives up; t+1 are enough when honest members are in time.
    pub max_attempts: u32,
}

/// One attempt that got as far as a package.
struct Run<C: Ciphersuite> {
    signers: BTreeSet<ParticipantIndex>,
    package: SigningPackage<C>,
    /// The package as sent, for evidence.
    sent: SignedMessage,
    shares: BTreeMap<ParticipantIndex, (SignatureShare<C>, SignedMessage)>,
    /// Its deadline has passed: a signer that has not answered owes its share.
    expired: bool,
}

enum Phase {
    Collecting { commitments: BTreeMap<ParticipantIndex, Vec<u8>>, deadline: Millis },
    Signing { deadline: Millis },
    Over,
}

/// The coordinator of one session. See the [module documentation](self).
pub struct Coordinator<C: Ciphersuite = EvmSuite> {
    session: Arc<SessionContext<C>>,
    me: ParticipantIndex,
    identity: SecretIdentity,
    /// `None` in step 0.
    message: Option<KeccakDigest>,
    /// Chosen first.
    ready: BTreeSet<ParticipantIndex>,
    timing: Timing,
    attempt: Attempt,
    attempts_left: u32,
    phase: Phase,
    runs: BTreeMap<Attempt, Run<C>>,
    culprits: BTreeMap<ParticipantIndex, Evidence>,
    effects: VecDeque<Effect<Infallible, SessionEffect<C>>>,
}

impl<C: Ciphersuite> Coordinator<C> {
    /// Step 1.
    ///
    /// # Errors
    /// [`SigningError::WrongKey`] if `identity` is not that of member `me`.
    pub fn start(
        session: Arc<SessionContext<C>>,
        me: ParticipantIndex,
        identity: SecretIdentity,
        message: KeccakDigest,
        first_attempt: Attempt,
        timing: Timing,
        now: Millis,
    ) -> Result<Self, SigningError> {
        Self::begin(session, me, identity, Some(message), first_attempt, timing, now)
    }

    /// Step 0.
    ///
    /// # Errors
    /// [`SigningError::WrongKey`] if `identity` is not that of member `me`.
    pub fn prepare(
        session: Arc<SessionContext<C>>,
        me: ParticipantIndex,
        identity: SecretIdentity,
        first_attempt: Attempt,
        timing: Timing,
        now: Millis,
    ) -> Result<Self, SigningError> {
        Self::begin(session, me, identity, None, first_attempt, timing, now)
    }

    fn begin(
        session: Arc<SessionContext<C>>,
        me: ParticipantIndex,
        identity: SecretIdentity,
        message: Option<KeccakDigest>,
        first_attempt: Attempt,
        timing: Timing,
        now: Millis,
    ) -> Result<Self, SigningError> {
        if !session.is_member(me, &identity) {
            return Err(SigningError::WrongKey);
        }
        let mut coordinator = Self {
            session,
            me,
            identity,
            message,
            ready: BTreeSet::new(),
            timing,
            attempt: first_attempt,
            attempts_left: timing.max_attempts,
            phase: Phase::Over,
            runs: BTreeMap::new(),
            culprits: BTreeMap::new(),
            effects: VecDeque::new(),
        };
        coordinator.request(now);
        Ok(coordinator)
    }

    /// The end of step 0: what the group is to sign, and which members are known to be ready for it.
    /// Without effect if the message is known.
    pub fn authorise(
        &mut self,
        message: KeccakDigest,
        ready: impl IntoIterator<Item = ParticipantIndex>,
        now: Millis,
    ) {
        if self.message.is_some() || matches!(self.phase, Phase::Over) {
            return;
        }
        self.message = Some(message);
        self.ready = ready.into_iter().collect();
        self.choose(now);
        if matches!(self.phase, Phase::Collecting { .. }) {
            self.ask(now);
        }
    }

    /// Takes a message that member `from` brought.
    pub(super) fn receive(
        &mut self,
        from: ParticipantIndex,
        message: &SignedMessage,
        now: Millis,
    ) -> SessionVerdict {
        if matches!(self.phase, Phase::Over) {
            return Verdict::Skip(Skip::Over);
        }
        if self.culprits.contains_key(&from) {
            return Verdict::Skip(Skip::Convicted);
        }
        let Payload { coordinator, attempt, .. } = message.payload;
        let verdict = match self.session.open(from, message) {
            Ok(Parsed::Signature { message, signature }) if Some(message) == self.message => {
                self.finish(message, signature, Vec::new());
                Verdict::Valid
            }
            Ok(Parsed::Signature { message: asked, .. }) => {
                Verdict::Skip(Skip::NotAuthorised { asked })
            }
            Ok(Parsed::Commitment(_)) if coordinator == self.me => self.commitment(from, message),
            Ok(Parsed::Share { message: signed, package, share }) if coordinator == self.me => {
                match self.runs.get(&attempt) {
                    Some(run) if self.session.digest(&run.sent.payload) == package => {
                        self.share(from, attempt, signed, share, message)
                    }
                    _ => Verdict::Skip(Skip::Stale),
                }
            }
            Ok(_) => Verdict::Skip(Skip::NotForMe),
            Err(verdict) => verdict,
        };
        if let Verdict::Fault(fault) = &verdict {
            self.culprits.insert(fault.culprit, fault.evidence.clone());
        }
        self.advance(now);
        verdict
    }

    /// Members convicted so far, with the proof against each.
    #[must_use]
    pub const fn culprits(&self) -> &BTreeMap<ParticipantIndex, Evidence> {
        &self.culprits
    }

    fn threshold(&self) -> usize {
        self.session.committee().signing_threshold().get()
    }

    fn seal(&self, body: Body) -> SignedMessage {
        let payload = Payload { coordinator: self.me, attempt: self.attempt, from: self.me, body };
        self.session.seal(&self.identity, payload)
    }

    fn request(&mut self, now: Millis) {
        self.attempts_left = self.attempts_left.saturating_sub(1);
        self.phase = Phase::Collecting { commitments: BTreeMap::new(), deadline: now };
        self.ask(now);
    }

    /// Asks for the commitments of this attempt; members that have answered answer the same again.
    fn ask(&mut self, now: Millis) {
        let Phase::Collecting { deadline, .. } = &mut self.phase else { return };
        *deadline = now.saturating_add(self.timing.commit);
        self.broadcast(Body::Request { message: self.message });
    }

    fn broadcast(&mut self, body: Body) {
        let message = self.seal(body);
        self.effects.push_back(Effect::Broadcast(message.to_wire().into()));
    }

    fn commitment(&mut self, from: ParticipantIndex, message: &SignedMessage) -> SessionVerdict {
        let (Phase::Collecting { commitments, .. }, Body::Commitment { commitment }) =
            (&mut self.phase, &message.payload.body)
        else {
            return Verdict::Skip(Skip::Stale);
        };
        if message.payload.attempt != self.attempt || commitments.contains_key(&from) {
            return Verdict::Skip(Skip::Stale);
        }
        commitments.insert(from, commitment.clone());
        Verdict::Valid
    }

    /// Step 3. The caller has checked that the share answers the package of this attempt.
    fn share(
        &mut self,
        from: ParticipantIndex,
        attempt: Attempt,
        signed: KeccakDigest,
        share: SignatureShare<C>,
        message: &SignedMessage,
    ) -> SessionVerdict {
        let Some(run) = self.runs.get_mut(&attempt) else { return Verdict::Skip(Skip::Stale) };
        if !run.signers.contains(&from) || run.shares.contains_key(&from) {
            return Verdict::Skip(Skip::Stale);
        }
        if Some(signed) == self.message && self.session.share_fits(from, &run.package, &share) {
            run.shares.insert(from, (share, message.clone()));
            return Verdict::Valid;
        }
        let evidence = Evidence::BadShare { package: run.sent.clone(), share: message.clone() };
        Verdict::Fault(Box::new(Fault { culprit: from, evidence }))
    }

    /// Steps 2, 4 and 5, whichever has become possible.
    fn advance(&mut self, now: Millis) {
        if matches!(self.phase, Phase::Over) {
            return;
        }
        if let Some(run) = self.runs.values().find(|run| run.shares.len() == run.signers.len()) {
            match self.message.zip(self.aggregate(run)) {
                Some((message, (signature, shares))) => {
                    let signed = signature.as_bytes().to_vec();
                    self.broadcast(Body::Signature { message, signature: signed });
                    return self.finish(message, signature, shares);
                }
                // Every share was checked, so this is a defect of ours, not a member's fault.
                None => {
                    let attempt = run.sent.payload.attempt;
                    self.runs.remove(&attempt);
                }
            }
        }
        match &self.phase {
            Phase::Collecting { .. } => self.choose(now),
            Phase::Signing { .. } => {
                let settled = self.runs.get(&self.attempt).is_none_or(|run| {
                    let answered = |i| run.shares.contains_key(i) || self.culprits.contains_key(i);
                    run.signers.iter().all(answered)
                });
                if settled {
                    self.retry(now);
                }
            }
            Phase::Over => {}
        }
    }

    /// Step 2.
    fn choose(&mut self, now: Millis) {
        if self.eligible().count() < self.threshold() {
            let absentees: Vec<_> = self.owing().collect();
            if self.session.committee().n() - self.culprits.len() < self.threshold() {
                self.fail_too_few(absentees);
            }
            return;
        }
        let (Phase::Collecting { commitments, .. }, Some(message)) = (&self.phase, self.message)
        else {
            return;
        };
        let mut in_order: Vec<_> = self.eligible().collect();
        in_order.sort_by_key(|i| !self.ready.contains(i));
        let signers: BTreeSet<_> = in_order.into_iter().take(self.threshold()).collect();
        let chosen: Vec<_> =
            signers.iter().filter_map(|i| Some((*i, commitments.get(i)?.clone()))).collect();
        let sent = self.seal(Body::Package { message, commitments: chosen });
        // Parsing what is sent makes certain that the signers parse the same.
        let Ok(Parsed::Package { package, .. }) = self.session.open(self.me, &sent) else {
            return;
        };
        let bytes: Arc<[u8]> = sent.to_wire().into();
        for &to in &signers {
            self.effects.push_back(Effect::Send { to, bytes: Arc::clone(&bytes) });
        }
        let run = Run { signers, package, sent, shares: BTreeMap::new(), expired: false };
        self.runs.insert(self.attempt, run);
        self.phase = Phase::Signing { deadline: now.saturating_add(self.timing.share) };
    }

    /// Step 4. Aggregation verifies the signature; cheater detection is a second line behind
    /// `share_fits`.
    fn aggregate(&self, run: &Run<C>) -> Option<(GroupSignature<C>, Vec<SignedMessage>)> {
        let shares = run.shares.iter().map(|(i, (share, _))| (identifier(*i), *share)).collect();
        let group = self.session.group();
        let signature =
            aggregate_custom(&run.package, &shares, group.package(), CheaterDetection::AllCheaters)
                .ok()
                .and_then(|signature| GroupSignature::new(signature).ok())?;
        let messages = run.shares.values().map(|(_, message)| message.clone()).collect();
        Some((signature, messages))
    }

    /// Step 5.
    fn retry(&mut self, now: Millis) {
        if let Some(run) = self.runs.get_mut(&self.attempt) {
            run.expired = true;
        }
        let absentees: Vec<_> = self.owing().collect();
        let culprits = self.culprits.keys().copied().collect();
        let left = self.session.committee().n() - self.culprits.len() - absentees.len();
        match self.attempt.0.checked_add(1) {
            _ if left < self.threshold() => self.fail_too_few(absentees),
            Some(next) if self.attempts_left > 0 => {
                self.attempt = Attempt(next);
                self.request(now);
            }
            Some(_) | None => {
                let attempts = self.timing.max_attempts;
                self.fail(SigningError::OutOfAttempts { attempts, culprits, absentees });
            }
        }
    }

    /// Members that left a package unanswered past its deadline.
    fn owing(&self) -> impl Iterator<Item = ParticipantIndex> {
        self.session.committee().participants().filter(|i| self.owes(*i))
    }

    fn owes(&self, i: ParticipantIndex) -> bool {
        !self.culprits.contains_key(&i)
            && self
                .runs
                .values()
                .any(|run| run.expired && run.signers.contains(&i) && !run.shares.contains_key(&i))
    }

    /// Members that have committed and owe nothing.
    fn eligible(&self) -> impl Iterator<Item = ParticipantIndex> {
        let commitments = match &self.phase {
            Phase::Collecting { commitments, .. } => Some(commitments),
            Phase::Signing { .. } | Phase::Over => None,
        };
        let all = commitments.into_iter().flat_map(|commitments| commitments.keys().copied());
        all.filter(|i| !self.culprits.contains_key(i) && !self.owes(*i))
    }

    fn without_commitment(&self) -> Vec<ParticipantIndex> {
        let eligible: BTreeSet<_> = self.eligible().collect();
        let out = |i: &ParticipantIndex| !eligible.contains(i) && !self.culprits.contains_key(i);
        self.session.committee().participants().filter(out).collect()
    }

    fn finish(
        &mut self,
        message: KeccakDigest,
        signature: GroupSignature<C>,
        shares: Vec<SignedMessage>,
    ) {
        self.phase = Phase::Over;
        let completion = Completion { message, signature, shares };
        self.effects.push_back(Effect::Special(SessionEffect::Complete(Box::new(completion))));
    }

    /// Step 6.
    fn fail_too_few(&mut self, absentees: Vec<ParticipantIndex>) {
        let culprits = self.culprits.keys().copied().collect();
        self.fail(SigningError::TooFewSigners { needed: self.threshold(), culprits, absentees });
    }

    fn fail(&mut self, error: SigningError) {
        self.phase = Phase::Over;
        self.effects.push_back(Effect::Special(SessionEffect::Failed(error)));
    }
}

impl<C: Ciphersuite> Machine for Coordinator<C> {
    type Record = Infallible;
    type Special = SessionEffect<C>;
    type Skip = Skip;
    type Fault = Box<Fault>;

    fn handle(&mut self, from: ParticipantIndex, bytes: &[u8], now: Millis) -> SessionVerdict {
        match SignedMessage::from_wire(bytes) {
            Ok(message) => self.receive(from, &message, now),
            Err(error) => Verdict::Skip(error.into()),
        }
    }

    fn handle_timeout(&mut self, now: Millis) {
        match self.phase {
            Phase::Collecting { deadline, .. } if now >= deadline && self.message.is_none() => {
                self.ask(now);
            }
            Phase::Collecting { deadline, .. } if now >= deadline => {
                let absentees = self.without_commitment();
                self.fail_too_few(absentees);
            }
            Phase::Signing { deadline } if now >= deadline => self.retry(now),
            Phase::Collecting { .. } | Phase::Signing { .. } | Phase::Over => {}
        }
    }

    fn poll_timeout(&self) -> Option<Millis> {
        match self.phase {
            Phase::Collecting { deadline, .. } | Phase::Signing { deadline } => Some(deadline),
            Phase::Over => None,
        }
    }

    fn poll_effect(&mut self) -> Option<Effect<Infallible, SessionEffect<C>>> {
        self.effects.pop_front()
    }
}

impl<C: Ciphersuite> fmt::Debug for Coordinator<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, attempt) = (&self.session.context().key, self.attempt);
        write!(f, "Coordinator(member {} for {key:?}, attempt {attempt})", self.me)
    }
}
