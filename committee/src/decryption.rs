//! The decryption machine of one member under one key and epoch.
//!
//! Source: `decryption.md`. The algebra is in [`crate::decrypt`].
//!
//! # Roles
//! Every member runs one [`Decryptor`] for all slots of an epoch. There is no coordinator: each
//! sends its share to all and combines what it receives.
//!
//! # Messages
//! [`DecryptionMessage`]: `Partial`, the sender's share, which anyone may relay; `Request`, which
//! asks its receiver for its share and counts only from the member that signed it. No message
//! carries a ciphertext.
//!
//! # Inputs and effects
//! Inputs are those of every [`Machine`](veil_committee_machine::Machine), and
//! [`authorise`](Decryptor::authorise) and [`forget`](Decryptor::forget). The record is the
//! [`DecryptionCounter`]; the effects of its own are [`DecryptionEffect`]. The order of calls is that
//! of [every machine](veil_committee_machine#call-order).
//!
//! # Flow
//! 1. [`authorise`](Decryptor::authorise): the member has recomputed the outputs from the locked
//!    manifest. Check lock, key, epoch, size and budget; compute the share; count its blocks;
//!    persist the counter.
//! 2. `persisted`: now the share may leave, to all. If the counter cannot be stored the share stays,
//!    its blocks stay counted, and the shares of the others may complete the request.
//! 3. `Partial`: keep the first of each sender. As soon as 2t+1 agree,
//!    [`DecryptionEffect::Complete`], with [`DecryptionEffect::WrongShare`] for each share that does
//!    not; the same for one that comes later.
//! 4. `handle_timeout`: ask those whose shares are outstanding, in rounds; after some of them name them in
//!    [`DecryptionEffect::Outstanding`] and ask less and less often, without end.
//! 5. `Request`: answer with this member's share of outputs that it authorised itself; refuse
//!    anything else ([`DecryptionEffect::Refused`]) and never compute it.
//!
//! # State
//! The machine keeps open requests (at most [`MAX_OPEN`]); complete ones, for answers and to judge
//! late shares (the last [`MAX_COMPLETE`], or until [`forget`](Decryptor::forget)); what was
//! authorised in the last [`MAX_SLOTS`] slots; and shares that came before step 1 (the last
//! [`MAX_EARLY`] of each sender, only if it brought them itself; what is dropped is asked for again).
//!
//! # Restart
//! Make a new machine with the stored [`DecryptionCounter`] and authorise the slots that are not
//! certified yet again. They are counted again, on the safe side; shares are a function of the
//! outputs, so the same bytes are sent again. What earlier slots were authorised for is not stored:
//! that a slot's outputs cannot change over a restart rests on their being recomputed.
//!
//! # Caveats
//! The machine is deterministic: same inputs, same effects.
//!
//! # Example
//! A committee of one, whose share of the key is the key:
//!
//! ```
//! # use veil_committee::{
//! #     decrypt::{PartialDecryptor, SquashedBlock},
//! #     prf::SetKey, ring::Element, subsets::key_sets,
//! # };
//! # use veil_protocol_spec::{
//! #     Address, Blake3Digest, ChainId, ClusterId, Committee, Epoch, KeySetDigest, Slot,
//! #     agreement::{Instance, Lock}, decryption::RequestContext, identity::SecretIdentity,
//! #     scheduling::{Binding, ClusterScope},
//! # };
//! use veil_committee::decryption::{DecryptionEffect, Decryptor, RecomputedOutputs};
//! use veil_committee_machine::{Effect, Machine};
//! use veil_protocol_spec::decryption::DecryptionCounter;
//!
//! # let scope = ClusterScope {
//! #     chain_id: ChainId(1), contract: Address([2; 20]), cluster: ClusterId([3; 32]),
//! # };
//! # let binding = Binding { scope, key_set: KeySetDigest([4; 32]), epoch: Epoch(0) };
//! # let committee = Committee::new(1).unwrap();
//! # let me = committee.participants().next().unwrap();
//! # let identity = SecretIdentity::from_bytes(&[1; 32]).unwrap();
//! # let key = [Element::<u128, 1>::ONE(); 8];
//! # let keys: Vec<_> =
//! #     key_sets(committee).into_iter().map(|set| (set, SetKey::new([5; 32]))).collect();
//! # let (Binding { key_set, epoch, .. }, slot, manifest) = (binding, Slot(7), Blake3Digest([6; 32]));
//! # let share = PartialDecryptor::new(committee, me, &key, &keys, &key_set, epoch);
//! # let instance = Instance::manifest(slot);
//! # let digest = Lock::vote_digest(&binding, instance, 0, &manifest);
//! # let votes = vec![(me, identity.sign(&digest))];
//! # let lock = Lock { binding, instance, round: 0, value: manifest, votes };
//! let roster = vec![identity.public()];
//! let mut machine = Decryptor::new(share, identity, roster, DecryptionCounter::default()).unwrap();
//!
//! // This member evaluated the locked manifest: one block, which encrypts 5.
//! let blocks = vec![SquashedBlock { mask: vec![0; 8], body: 5 << 123 }];
//! let context = RequestContext::first(key_set, epoch, slot, manifest);
//! machine.authorise(RecomputedOutputs { context, blocks }, &lock, 0).unwrap();
//!
//! // Nothing leaves before the counter is durable.
//! let Some(Effect::Persist { id, record }) = machine.poll_effect() else { panic!() };
//! assert_eq!((record.blocks, machine.poll_effect()), (1, None));
//! machine.persisted(id);
//! assert!(matches!(machine.poll_effect(), Some(Effect::Broadcast(_))));
//! let Some(Effect::Special(DecryptionEffect::Complete(done))) = machine.poll_effect() else {
//!     panic!()
//! };
//! assert_eq!(done.combined.messages(), [5]);
//! ```

mod authorisations;
pub mod effect;
mod machine;
mod request;

use std::collections::{BTreeMap, VecDeque};

use rayon::prelude::*;
use veil_committee_machine::{Effect, Millis, PersistId};
use veil_protocol_spec::{
    Blake3Digest, Committee, ParticipantIndex, PublicIdentity,
    agreement::{Lock, Subject},
    codec::{Bytes, Wire as _},
    decryption::{
        DecryptionCounter, DecryptionMessage, DecryptionPayload, MAX_BLOCKS_PER_REQUEST,
        RequestContext, RequestId,
    },
    evidence::WrongPartial,
    identity::SecretIdentity,
    scheduling::Binding,
};

pub use self::authorisations::MAX_SLOTS;
pub use self::effect::{
    AuthoriseError, Completion, DecryptionEffect, Evidence, Fault, InvalidEvidence,
    RecomputedOutputs, RequestStatus, Retry, Skip, WrongMembership, wrong_shares,
};
use self::{
    authorisations::Authorisations,
    request::{DecryptorEffect, Own, Request},
};
use crate::decrypt::{Flooding, PartialDecryptor};

/// Requests that may wait for other members at a time.
pub const MAX_OPEN: usize = 64;
/// Complete requests kept, so that a member may be so many openings of a slot behind; the oldest is forgotten.
pub const MAX_COMPLETE: usize = 256;
/// Blocks of complete requests kept.
pub const MAX_COMPLETE_BLOCKS: usize = 16 * MAX_BLOCKS_PER_REQUEST;
/// Requests of which a sender's early share is kept; the oldest is dropped.
pub const MAX_EARLY: usize = 64;
/// Bytes of a sender's early shares.
pub const MAX_EARLY_BYTES: usize = 4 * DecryptionMessage::MAX_BYTES;
/// Times that one member is sent the share of one request again as soon as it asks; after that it is
/// answered once in half of [`Retry::longest`].
pub const MAX_ANSWERS: u32 = 16;

/// One member's decryptions. See the [module documentation](self).
///
/// # Security
/// Holds the member's share of the key and its identity; zeroized on drop, never printed.
pub struct Decryptor {
    decryptor: PartialDecryptor,
    identity: SecretIdentity,
    roster: Vec<PublicIdentity>,
    retry: Retry,
    counter: DecryptionCounter,
    requests: BTreeMap<RequestId, Request>,
    complete: VecDeque<RequestId>,
    authorised: Authorisations,
    early: BTreeMap<ParticipantIndex, VecDeque<DecryptionMessage>>,
    next_persist: u64,
    effects: VecDeque<DecryptorEffect>,
}

impl Decryptor {
    /// `counter` is what was stored last for this key and epoch, or zero. `roster` holds the
    /// identities of participants 1, 2, ...
    ///
    /// # Errors
    /// [`WrongMembership`] unless the roster is the committee's and `identity` is the member's.
    pub fn new(
        decryptor: PartialDecryptor,
        identity: SecretIdentity,
        roster: Vec<PublicIdentity>,
        counter: DecryptionCounter,
    ) -> Result<Self, WrongMembership> {
        let (committee, me) = (decryptor.committee(), decryptor.participant());
        if roster.len() != committee.n() {
            return Err(WrongMembership::Roster { given: roster.len(), committee });
        }
        if roster.get(me.position()) != Some(&identity.public()) {
            return Err(WrongMembership::Identity { me });
        }
        Ok(Self {
            decryptor,
            identity,
            roster,
            retry: Retry::default(),
            counter,
            requests: BTreeMap::new(),
            complete: VecDeque::new(),
            authorised: Authorisations::default(),
            early: BTreeMap::new(),
            next_persist: 0,
            effects: VecDeque::new(),
        })
    }

    /// Asks absent members in another rhythm.
    #[must_use]
    pub const fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// The committee.
    #[must_use]
    pub const fn committee(&self) -> Committee {
        self.decryptor.committee()
    }

    /// The member that runs this machine.
    #[must_use]
    pub const fn participant(&self) -> ParticipantIndex {
        self.decryptor.participant()
    }

    /// Blocks counted so far; what is being stored is included.
    #[must_use]
    pub const fn counter(&self) -> DecryptionCounter {
        self.counter
    }

    /// Blocks the key is good for.
    #[must_use]
    pub const fn budget(&self) -> u64 {
        Flooding::of(self.committee()).budget
    }

    /// Step 1. Idempotent for the same outputs: they are counted once, and if their share was
    /// withheld because the counter could not be stored, that starts again, and so does asking.
    ///
    /// # Errors
    /// Every way in which the outputs are not to be decrypted, see [`AuthoriseError`].
    pub fn authorise(
        &mut self,
        outputs: RecomputedOutputs,
        lock: &Lock,
        now: Millis,
    ) -> Result<RequestId, AuthoriseError> {
        let RecomputedOutputs { context, blocks } = outputs;
        self.check_context(&context, lock)?;
        if !(1..=MAX_BLOCKS_PER_REQUEST).contains(&blocks.len()) {
            return Err(AuthoriseError::BlockCount { given: blocks.len() });
        }
        let digests: Vec<Blake3Digest> = blocks.par_iter().map(|block| block.digest()).collect();
        let id = RequestId::of(&context, &digests);
        let counted = self.authorised.check(&context, id)?;
        if let Some(request) = self.requests.get_mut(&id) {
            if !request.complete {
                request.asked = 0;
                request.ask_at = Some(ask_at(&self.decryptor, self.retry, 0, now));
            }
        } else {
            let open = self.requests.len() - self.complete.len();
            if open >= MAX_OPEN {
                return Err(AuthoriseError::TooManyOpen { open });
            }
        }
        if self.requests.get(&id).is_some_and(|r| !matches!(r.own, Own::NotPersisted)) {
            return Ok(id);
        }
        let (used, asked) = (self.counter.blocks, blocks.len() as u64);
        let budget = self.budget();
        let total = used.saturating_add(asked);
        if !counted && total > budget {
            return Err(AuthoriseError::Budget { used, asked, budget });
        }
        let share = self.decryptor.partial(&blocks)?;
        // Nothing fails from here on.
        if !counted {
            // "State the number of decryptions a key is good for and count them." (`decryption.md`,
            // "Flooding")
            self.counter.blocks = total;
            self.authorised.record(&context, id);
        }
        let me = self.participant();
        let share = DecryptionPayload::Partial(Bytes(share));
        let share = DecryptionMessage::sign(id, me, share, &self.identity);
        let persist = PersistId(self.next_persist);
        self.next_persist += 1;
        let first_ask = ask_at(&self.decryptor, self.retry, 0, now);
        let request = self.requests.entry(id).or_insert_with(|| {
            let mut request = Request::new(id, context, digests);
            request.ask_at = Some(first_ask);
            request
        });
        request.own = Own::Held(persist, Box::new(share));
        self.effects.push_back(Effect::Persist { id: persist, record: self.counter });
        self.accept_early(id);
        Ok(id)
    }

    /// "No partial decryption leaves before the 2t+1 lock is seen." (`decryption.md`, step 2)
    fn check_context(&self, context: &RequestContext, lock: &Lock) -> Result<(), AuthoriseError> {
        let key_set = self.decryptor.key_set();
        if context.key_set != key_set {
            return Err(AuthoriseError::OtherKeySet { mine: key_set, asked: context.key_set });
        }
        let epoch = self.decryptor.epoch();
        if context.epoch != epoch {
            return Err(AuthoriseError::OtherEpoch { mine: epoch, asked: context.epoch });
        }
        let Lock { binding: Binding { key_set, epoch, .. }, instance, value, .. } = *lock;
        // The end of a slot opens nothing, whatever its value is.
        if instance.subject != Subject::Manifest {
            return Err(AuthoriseError::NoManifest(instance));
        }
        let locked =
            RequestContext { key_set, epoch, slot: instance.slot, manifest: value, ..*context };
        if locked != *context {
            let RequestContext { key_set, epoch, slot, manifest, .. } = locked;
            return Err(AuthoriseError::OtherLock { key_set, epoch, slot, manifest });
        }
        Ok(lock.verify(self.committee(), &self.roster)?)
    }

    /// Drops a request and all shares of it, complete or not; a share that has not left stays here.
    /// What its slot was authorised for is still known.
    pub fn forget(&mut self, request: RequestId) {
        self.requests.remove(&request);
        self.complete.retain(|id| *id != request);
    }

    /// Where every request kept stands, by slot.
    #[must_use]
    pub fn status(&self) -> Vec<RequestStatus> {
        let mut status: Vec<_> =
            self.requests.values().map(|request| request.status(self.committee())).collect();
        status.sort_by_key(|request| request.context.slot);
        status
    }

    /// The signed shares of a request, this member's included, by sender: with them
    /// [`wrong_shares`] convicts the senders of wrong ones.
    pub fn partials(&self, request: RequestId) -> impl Iterator<Item = &DecryptionMessage> {
        self.requests.get(&request).into_iter().flat_map(Request::partials)
    }

    /// What convinces third parties of [`DecryptionEffect::WrongShare`]; nothing if the member's share of
    /// the request was not found wrong here.
    #[must_use]
    pub fn wrong_partial(
        &self,
        request: RequestId,
        culprit: ParticipantIndex,
    ) -> Option<WrongPartial> {
        self.requests.get(&request)?.wrong_partial(culprit, self.committee())
    }
}

/// When to ask next, after so many rounds: members are staggered, so that one that was away is not asked
/// by all at once.
fn ask_at(decryptor: &PartialDecryptor, retry: Retry, asked: u32, now: Millis) -> Millis {
    let (position, pause) = (decryptor.participant().position() as u64, retry.pause(asked));
    let stagger = pause.saturating_mul(position) / (4 * decryptor.committee().n() as u64);
    now.saturating_add(pause).saturating_add(stagger)
}

impl core::fmt::Debug for Decryptor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Decryptor(member {} of {}, <redacted>)", self.participant(), self.committee())
    }
}

#[cfg(test)]
mod tests;
