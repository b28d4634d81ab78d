//! The signing machine of one member in one session.
//!
//! Source: FROST (RFC 9591, section 5); ROAST (eprint 2022/550) for the retries.
//!
//! # Roles
//! Every member runs a [`SigningSession`]. Any member may also run a
//! [`Coordinator`](super::Coordinator); it sees nothing secret and can only waste time.
//!
//! # Messages
//! In: `Request`, `Package`, `Signature`. Out: `Commitment`, `Share`; `Signature` to members that
//! ask after the end. See [`wire::Body`](super::wire::Body). A member that also coordinates hands what
//! it receives to both machines, and what one of them sends to the other
//! ([`signing`](super::signing)); each skips what is for the other.
//!
//! # Inputs and effects
//! Inputs are those of every [`Machine`], and [`authorise`](SigningSession::authorise). The record
//! is the [`NonceRecord`]; the effect of its own is [`SessionEffect`].
//!
//! # Flow
//! 1. [`authorise`](SigningSession::authorise): the member has checked for itself what the message
//!    stands for. What came earlier for this message is answered now.
//! 2. `Request`: draw fresh nonces, send their commitments to the coordinator. A request that names
//!    no message is answered before step 1 too: commitments do not depend on the message, and with
//!    them ready one round trip is left when it is known (RFC 9591, section 5.1, lets the first
//!    round be done in advance).
//! 3. `Package`: it must be for the authorised message and hold this member's commitment of that
//!    attempt unmodified. Sign, destroy the nonces, persist the record.
//! 4. `persisted`: now the share may leave.
//! 5. `Signature`: it verifies under the group key for the authorised message;
//!    [`SessionEffect::Complete`].
//!
//! For n = 1 the machine signs by itself in step 1 and completes in step 4.
//!
//! # State
//! Nonces live in memory only, one pair for each coordinator, and are moved out of the machine by
//! the one package they answer. After a restart make a new machine with the stored
//! [`NonceRecord`]s: the nonces are gone, packages for them are refused, requests get new ones, and
//! another message than the recorded one cannot be authorised.
//!
//! # Call order
//! That of [every machine](veil_committee_machine#call-order). Several sessions may run at once, but
//! one for each [`SigningContext`](super::SigningContext); the store refuses records that conflict
//! ([`NonceRecord::conflicts_with`]), which guards against a second one.
//!
//! # Caveats
//! A silent coordinator costs time, not safety: [`signing`](super::signing) rotates.

use core::fmt;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use frost_core::{
    Ciphersuite, SigningPackage,
    round1::{self, SigningNonces},
    round2,
};
use rand::rngs::OsRng;
use veil_committee_machine::{Effect, Machine, Millis, PersistId, Verdict};
use veil_protocol_spec::{
    Attempt, Blake3Digest, KeccakDigest, ParticipantIndex, Wire, identity::SecretIdentity,
};

use super::{
    EvmSuite,
    effect::{Completion, SessionEffect, SigningError},
    keys::{GroupKeyShare, GroupSignature, identifier},
    session::{Fault, Parsed, SessionContext, SessionVerdict, Skip},
    wire::{Body, NonceRecord, Payload, SignedMessage},
};

/// What a coordinator has been given in its latest attempt.
struct Live<C: Ciphersuite> {
    attempt: Attempt,
    /// Taken by the package they answer; `None` from then on.
    nonces: Option<SigningNonces<C>>,
    /// Sent again if the same request comes again.
    commitment: SignedMessage,
}

/// What waits for an acknowledgement.
enum Held<C: Ciphersuite> {
    Share { to: ParticipantIndex, message: SignedMessage },
    Solo(GroupSignature<C>),
}

struct Early<C: Ciphersuite> {
    requests: BTreeMap<ParticipantIndex, (Attempt, KeccakDigest)>,
    packages: BTreeMap<ParticipantIndex, EarlyPackage<C>>,
    results: BTreeMap<ParticipantIndex, (KeccakDigest, GroupSignature<C>)>,
}

/// A package whose coordinator knew the message before this member did.
struct EarlyPackage<C: Ciphersuite> {
    attempt: Attempt,
    message: KeccakDigest,
    package: SigningPackage<C>,
    digest: Blake3Digest,
}

enum State<C: Ciphersuite> {
    /// Before step 1. What came early waits, at most one of each kind from each member.
    Idle(Early<C>),
    Signing {
        message: KeccakDigest,
        deadline: Millis,
    },
    Done {
        message: KeccakDigest,
        signature: GroupSignature<C>,
    },
    Failed,
}

/// One member in one session. See the [module documentation](self).
///
/// # Security
/// Holds nonces, each of which gives the key away if used twice; they are zeroized on drop, never
/// printed, stored or copied.
pub struct SigningSession<C: Ciphersuite = EvmSuite> {
    session: Arc<SessionContext<C>>,
    share: Arc<GroupKeyShare<C>>,
    identity: SecretIdentity,
    /// From the journal: a share for this message may have left before a restart.
    signed: Option<KeccakDigest>,
    state: State<C>,
    live: BTreeMap<ParticipantIndex, Live<C>>,
    held: BTreeMap<PersistId, Held<C>>,
    next_persist: u64,
    effects: VecDeque<Effect<NonceRecord, SessionEffect<C>>>,
}

impl<C: Ciphersuite> SigningSession<C> {
    /// `records` is what the store holds; records of other sessions are ignored.
    ///
    /// # Errors
    /// [`SigningError::WrongKey`], [`SigningError::CorruptJournal`].
    pub fn new<'r>(
        session: Arc<SessionContext<C>>,
        share: Arc<GroupKeyShare<C>>,
        identity: SecretIdentity,
        records: impl IntoIterator<Item = &'r NonceRecord>,
    ) -> Result<Self, SigningError> {
        if share.public() != session.group() || !session.is_member(share.index(), &identity) {
            return Err(SigningError::WrongKey);
        }
        let mut signed = None;
        for record in records.into_iter().filter(|r| r.context == *session.context()) {
            if signed.replace(record.message).is_some_and(|earlier| earlier != record.message) {
                return Err(SigningError::CorruptJournal);
            }
        }
        Ok(Self {
            session,
            share,
            identity,
            signed,
            state: State::Idle(Early {
                requests: BTreeMap::new(),
                packages: BTreeMap::new(),
                results: BTreeMap::new(),
            }),
            live: BTreeMap::new(),
            held: BTreeMap::new(),
            next_persist: 0,
            effects: VecDeque::new(),
        })
    }

    /// Step 1. Idempotent for the same message.
    ///
    /// # Errors
    /// [`SigningError::AlreadyAuthorised`] for a second message, by this machine or by one before
    /// a restart; [`SigningError::Over`].
    pub fn authorise(
        &mut self,
        message: KeccakDigest,
        deadline: Millis,
    ) -> Result<(), SigningError> {
        let authorised = match &self.state {
            State::Idle(_) => self.signed,
            State::Signing { message, .. } | State::Done { message, .. } => Some(*message),
            State::Failed => return Err(SigningError::Over),
        };
        if let Some(authorised) = authorised.filter(|authorised| *authorised != message) {
            return Err(SigningError::AlreadyAuthorised { authorised, asked: message });
        }
        let State::Idle(early) = &mut self.state else { return Ok(()) };
        let requests = core::mem::take(&mut early.requests);
        let packages = core::mem::take(&mut early.packages);
        let results = core::mem::take(&mut early.results);
        self.state = State::Signing { message, deadline };
        if let Some((_, signature)) = results.into_values().find(|(signed, _)| *signed == message) {
            let _ = self.complete(message, signature); // it is for this message
            return Ok(());
        }
        // "The exception is FROST signing nonces: always fresh from the operating system."
        if let Some(signature) = self.share.sign_alone(message.as_bytes(), OsRng) {
            let me = self.share.index();
            self.persist(message, me, Attempt(0), Vec::new(), Held::Solo(signature));
        } else {
            // Refused if for another message.
            for (coordinator, (attempt, asked)) in requests {
                let _ = self.request(coordinator, attempt, Some(asked));
            }
            for (coordinator, early) in packages {
                let EarlyPackage { attempt, message, package, digest } = early;
                let _ = self.package(coordinator, attempt, message, &package, digest);
            }
        }
        Ok(())
    }

    /// Takes a message that member `from` brought.
    pub(super) fn receive(
        &mut self,
        from: ParticipantIndex,
        message: &SignedMessage,
        now: Millis,
    ) -> SessionVerdict {
        let parsed = match self.session.open(from, message) {
            Ok(parsed) => parsed,
            Err(verdict) => return verdict,
        };
        self.handle_timeout(now);
        let attempt = message.payload.attempt;
        let outcome = match (parsed, &mut self.state) {
            (Parsed::Request { message: Some(asked) }, State::Idle(early)) => {
                early.requests.insert(from, (attempt, asked));
                Ok(())
            }
            (Parsed::Package { message: asked, package }, State::Idle(early)) => {
                let digest = self.session.digest(&message.payload);
                early
                    .packages
                    .insert(from, EarlyPackage { attempt, message: asked, package, digest });
                Ok(())
            }
            (Parsed::Signature { message: signed, signature }, State::Idle(early)) => {
                early.results.insert(from, (signed, signature));
                Ok(())
            }
            (Parsed::Request { message: asked }, _) => self.request(from, attempt, asked),
            (Parsed::Signature { message: signed, signature }, _) => {
                self.complete(signed, signature)
            }
            (Parsed::Package { message: asked, package }, _) => {
                let digest = self.session.digest(&message.payload);
                self.package(from, attempt, asked, &package, digest)
            }
            (Parsed::Commitment(_) | Parsed::Share { .. }, _) => Err(Skip::NotForMe),
        };
        outcome.map_or_else(Verdict::Skip, |()| Verdict::Valid)
    }

    fn fail(&mut self, error: SigningError) {
        self.end(State::Failed);
        self.effects.push_back(Effect::Special(SessionEffect::Failed(error)));
    }

    fn send(&mut self, to: ParticipantIndex, message: &SignedMessage) {
        self.effects.push_back(Effect::Send { to, bytes: message.to_wire().into() });
    }

    fn seal(&self, coordinator: ParticipantIndex, attempt: Attempt, body: Body) -> SignedMessage {
        let payload = Payload { coordinator, attempt, from: self.share.index(), body };
        self.session.seal(&self.identity, payload)
    }

    /// Step 2.
    fn request(
        &mut self,
        coordinator: ParticipantIndex,
        attempt: Attempt,
        asked: Option<KeccakDigest>,
    ) -> Result<(), Skip> {
        let message = match &self.state {
            State::Idle(_) => None,
            State::Failed => return Err(Skip::Over),
            State::Signing { message, .. } => Some(*message),
            State::Done { message, signature } if asked.is_none_or(|asked| asked == *message) => {
                let signature = signature.as_bytes().to_vec();
                let body = Body::Signature { message: *message, signature };
                let message = self.seal(coordinator, attempt, body);
                self.send(coordinator, &message);
                return Ok(());
            }
            State::Done { message, .. } => Some(*message),
        };
        if let Some(asked) = asked.filter(|asked| message != Some(*asked)) {
            return Err(Skip::NotAuthorised { asked });
        }
        if self.session.committee().n() == 1 {
            return Ok(()); // the signature is on its way already
        }
        if let Some(live) = self.live.get(&coordinator).filter(|live| live.attempt >= attempt) {
            return match (live.attempt == attempt, &live.nonces) {
                (true, Some(_)) => {
                    let message = live.commitment.clone();
                    self.send(coordinator, &message);
                    Ok(())
                }
                (true, None) => Err(Skip::NonceUsed),
                (false, _) => Err(Skip::Stale),
            };
        }
        // "The exception is FROST signing nonces: always fresh from the operating system and
        // marked used on disk before a share leaves, because replaying one with other commitments
        // gives the key away."
        let (nonces, commitment) = round1::commit(self.share.package().signing_share(), &mut OsRng);
        // The commitment to a nonce is the identity with probability 2^-256.
        let commitment = commitment.serialize().map_err(|_| Skip::NonceUsed)?;
        let commitment = self.seal(coordinator, attempt, Body::Commitment { commitment });
        self.send(coordinator, &commitment);
        self.live.insert(coordinator, Live { attempt, nonces: Some(nonces), commitment });
        Ok(())
    }

    /// Step 3. The checks that refuse come before the nonces are taken: a crafted package must not
    /// spend them.
    fn package(
        &mut self,
        coordinator: ParticipantIndex,
        attempt: Attempt,
        asked: KeccakDigest,
        package: &SigningPackage<C>,
        digest: Blake3Digest,
    ) -> Result<(), Skip> {
        let message = match &self.state {
            State::Signing { message, .. } if *message == asked => *message,
            State::Signing { .. } | State::Idle(_) => {
                return Err(Skip::NotAuthorised { asked });
            }
            State::Done { .. } | State::Failed => return Err(Skip::Over),
        };
        let live = self.live.get_mut(&coordinator).filter(|live| live.attempt == attempt);
        let live = live.ok_or(Skip::NonceUsed)?;
        let mine = live.nonces.as_ref().ok_or(Skip::NonceUsed)?.commitments();
        match package.signing_commitment(&identifier(self.share.index())) {
            None => return Err(Skip::CommitmentMissing),
            Some(theirs) if theirs != *mine => return Err(Skip::CommitmentModified),
            Some(_) => {}
        }
        let commitment = mine.serialize().map_err(|_| Skip::NonceUsed)?;
        // From here on the nonces are gone, whatever happens; they are zeroized on drop.
        let nonces = live.nonces.take().ok_or(Skip::NonceUsed)?;
        let share = round2::sign(package, &nonces, self.share.package());
        drop(nonces);
        let share = share.map_err(|_| Skip::NonceUsed)?.serialize();
        let body = Body::Share { message, package: digest, share };
        let share = self.seal(coordinator, attempt, body);
        let held = Held::Share { to: coordinator, message: share };
        self.persist(message, coordinator, attempt, commitment, held);
        Ok(())
    }

    fn persist(
        &mut self,
        message: KeccakDigest,
        coordinator: ParticipantIndex,
        attempt: Attempt,
        commitment: Vec<u8>,
        held: Held<C>,
    ) {
        let id = PersistId(self.next_persist);
        self.next_persist += 1;
        self.held.insert(id, held);
        let context = *self.session.context();
        let record = NonceRecord { context, message, coordinator, attempt, commitment };
        self.effects.push_back(Effect::Persist { id, record });
    }

    /// Step 5; `open` has verified the signature.
    fn complete(&mut self, signed: KeccakDigest, signature: GroupSignature<C>) -> Result<(), Skip> {
        match &self.state {
            State::Signing { message, .. } if *message == signed => {}
            State::Signing { .. } | State::Idle(_) => {
                return Err(Skip::NotAuthorised { asked: signed });
            }
            State::Done { .. } => return Err(Skip::Stale),
            State::Failed => return Err(Skip::Over),
        }
        self.end(State::Done { message: signed, signature: signature.clone() });
        let completion = Completion { message: signed, signature, shares: Vec::new() };
        self.effects.push_back(Effect::Special(SessionEffect::Complete(Box::new(completion))));
        Ok(())
    }

    /// Nonces and shares that have not left die with the session.
    fn end(&mut self, state: State<C>) {
        self.state = state;
        self.live.clear();
        self.held.clear();
    }
}

impl<C: Ciphersuite> Machine for SigningSession<C> {
    type Record = NonceRecord;
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
        if self.poll_timeout().is_some_and(|deadline| now >= deadline) {
            self.fail(SigningError::Deadline);
        }
    }

    fn poll_timeout(&self) -> Option<Millis> {
        match self.state {
            State::Signing { deadline, .. } => Some(deadline),
            State::Idle(_) | State::Done { .. } | State::Failed => None,
        }
    }

    fn poll_effect(&mut self) -> Option<Effect<NonceRecord, SessionEffect<C>>> {
        self.effects.pop_front()
    }

    /// Step 4. Unknown ids, and those of a session that has ended meanwhile, are ignored.
    fn persisted(&mut self, id: PersistId) {
        match self.held.remove(&id) {
            Some(Held::Share { to, message }) => self.send(to, &message),
            Some(Held::Solo(signature)) => {
                let State::Signing { message, .. } = self.state else { return };
                let bytes = signature.as_bytes().to_vec();
                let body = Body::Signature { message, signature: bytes };
                let result = self.seal(self.share.index(), Attempt(0), body);
                self.effects.push_back(Effect::Broadcast(result.to_wire().into()));
                let _ = self.complete(message, signature);
            }
            None => {}
        }
    }

    /// The store has refused the record or cannot be written: the share stays here and the session
    /// ends with [`SigningError::NotPersisted`].
    fn persist_failed(&mut self, id: PersistId) -> bool {
        if self.held.contains_key(&id) {
            self.fail(SigningError::NotPersisted);
        }
        true
    }
}

impl<C: Ciphersuite> fmt::Debug for SigningSession<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.session.context().key;
        write!(f, "SigningSession(member {} for {key:?}, <redacted>)", self.share.index())
    }
}

#[cfg(test)]
mod tests;
