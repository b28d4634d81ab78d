//! What goes into and comes out of the decryption machine: outputs, effects, verdicts, refusals.

use veil_committee_machine::Millis;
use veil_protocol_spec::{
    Blake3Digest, CodecError, Epoch, KeySetDigest, ParticipantIndex, Slot,
    agreement::{Instance, LockError},
    committee::Committee,
    decryption::{
        DecryptionMessage, DecryptionPayload, MAX_BLOCKS_PER_REQUEST, RequestContext, RequestId,
    },
    ids::PublicIdentity,
};

use crate::decrypt::{Combined, SquashedBlock, WrongDimension, combine};

/// The squashed outputs of one slot, as this member computed them.
///
/// # Security
/// "A member decrypts only what it recomputed itself from the locked manifest, bit for bit"
/// (`decryption.md`, "What is decrypted"); "a caller-supplied squashed (or pre-squash) ciphertext is never
/// touched: with a = 2^127 e_i, b = 0 it would return bit i of the key" (there).
/// The caller that makes this value answers for that. It has no decoding on purpose: nothing that came from
/// a wire, a disk or a caller may become one, only what this process evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecomputedOutputs {
    /// What they belong to.
    pub context: RequestContext,
    /// All of the slot's output blocks, in the circuit's order.
    pub blocks: Vec<SquashedBlock>,
}

/// When members that did not answer are asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Milliseconds between the first rounds of asking; members are staggered by up to a quarter of it.
    pub interval: Millis,
    /// Rounds of asking in that interval. From then on every round has
    /// [`DecryptionEffect::Outstanding`], and twice the pause of the one before.
    pub rounds: u32,
    /// The longest pause. Asking never ends: whoever was cut off for an hour is asked soon after.
    pub longest: Millis,
}

impl Default for Retry {
    fn default() -> Self {
        Self { interval: 2_000, rounds: 10, longest: 60_000 }
    }
}

impl Retry {
    /// Milliseconds from a round to the next, after so many rounds.
    pub(super) fn pause(&self, asked: u32) -> Millis {
        let doublings = asked.saturating_sub(self.rounds);
        let grown =
            1_u64.checked_shl(doublings).map_or(Millis::MAX, |f| self.interval.saturating_mul(f));
        grown.min(self.longest.max(self.interval))
    }
}

/// What only decryption asks of its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecryptionEffect {
    /// The outputs are decrypted.
    Complete(Box<Completion>),
    /// A member's share of a request that is complete is wrong. It may be this member's own, whose
    /// key share is damaged then. [`super::Decryptor::wrong_partial`] convinces third parties.
    WrongShare {
        /// The request that the share belongs to.
        request: RequestId,
        /// The share's sender.
        culprit: ParticipantIndex,
        /// The signed share.
        evidence: Box<DecryptionMessage>,
    },
    /// For the log: a member asked for something that is not given to it.
    Refused {
        /// The member that asked.
        from: ParticipantIndex,
        /// The request it named.
        request: RequestId,
        /// The reason, as in the verdict.
        reason: Skip,
    },
    /// For the log and for `status`: these members were asked often and have not answered. They are
    /// asked again, less and less often; the request completes when enough of them answer.
    Outstanding {
        /// The request that waits.
        request: RequestId,
        /// The members that have not sent their share, in ascending order.
        participants: Vec<ParticipantIndex>,
    },
}

/// A decrypted request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The request.
    pub request: RequestId,
    /// What it belongs to.
    pub context: RequestContext,
    /// Phases (messages through [`Combined::messages`]) and the senders of wrong shares.
    pub combined: Combined,
    /// Participants whose shares agree with the outcome: 2t+1 at least.
    pub participants: Vec<ParticipantIndex>,
}

/// Where a request stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestStatus {
    /// The request.
    pub request: RequestId,
    /// What it belongs to.
    pub context: RequestContext,
    /// Blocks to decrypt.
    pub blocks: usize,
    /// Members whose shares are here.
    pub received: Vec<ParticipantIndex>,
    /// Members whose shares are not; this member itself until its counter is stored.
    pub outstanding: Vec<ParticipantIndex>,
    /// Members whose shares were wrong, as far as known.
    pub culprits: Vec<ParticipantIndex>,
    /// Whether it is decrypted.
    pub complete: bool,
    /// Whether this member's share is withheld because the counter could not be stored.
    pub not_persisted: bool,
    /// Rounds of asking so far.
    pub asked: u32,
}

/// Why a message was left aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Skip {
    /// Too long, of another version, or not a decryption message.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Brought or signed by somebody outside this committee.
    #[error("participant {0} is not of this committee")]
    NotAMember(ParticipantIndex),
    /// This member's own message came back.
    #[error("the message is this member's own")]
    Own,
    /// Not signed by the member it names.
    #[error("the message's signature does not verify")]
    BadSignature,
    /// The same share was accepted before.
    #[error("the message is a repetition")]
    Duplicate,
    /// Requests count only from the member that makes them.
    #[error("refused: a request may not be relayed")]
    RelayedRequest,
    /// A share that came early is kept only if its sender brought it.
    #[error("a relayed share for outputs that are not authorised here is not kept")]
    RelayedEarly,
    /// Not what this member recomputed from a locked manifest.
    #[error("refused: this member has not recomputed these outputs from a locked manifest")]
    NotAuthorised,
    /// The outputs are decrypted and forgotten.
    #[error("these outputs were decrypted and are no longer kept")]
    Forgotten,
    /// The counter is not stored yet; the share goes to all as soon as it is.
    #[error("refused: this member's decryption counter is not stored yet")]
    NotPersisted,
    /// A bound on answers to one member.
    #[error("refused: this member has been sent the share often, and last a moment ago")]
    TooOften,
}

/// A member and the proof against it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("participant {culprit} sent two different shares for one request")]
pub struct Fault {
    /// The member.
    pub culprit: ParticipantIndex,
    /// The proof.
    pub evidence: Evidence,
}

/// Proof of a fault that convinces third parties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Two different shares for one request. The first one counts.
    TwoPartials {
        /// The share that came first.
        first: DecryptionMessage,
        /// The share that came later.
        second: DecryptionMessage,
    },
}

/// Evidence that proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the evidence does not prove a fault")]
pub struct InvalidEvidence;

impl Evidence {
    /// Checks the evidence and says against whom it is. An honest member cannot be convicted: its
    /// share is a function of the request.
    ///
    /// # Errors
    /// [`InvalidEvidence`] if it proves nothing.
    pub fn convict(&self, roster: &[PublicIdentity]) -> Result<ParticipantIndex, InvalidEvidence> {
        let Self::TwoPartials { first, second } = self;
        partial_of(first, roster)?;
        partial_of(second, roster)?;
        let same_place = (first.request, first.sender) == (second.request, second.sender);
        if same_place && first.payload != second.payload {
            Ok(first.sender)
        } else {
            Err(InvalidEvidence)
        }
    }
}

/// The share in a signed message.
fn partial_of<'m>(
    message: &'m DecryptionMessage,
    roster: &[PublicIdentity],
) -> Result<&'m [u8], InvalidEvidence> {
    let identity = roster.get(message.sender.position()).ok_or(InvalidEvidence)?;
    message.verify(identity).map_err(|_| InvalidEvidence)?;
    match &message.payload {
        DecryptionPayload::Partial(bytes) => Ok(&bytes.0),
        DecryptionPayload::Request => Err(InvalidEvidence),
    }
}

/// The senders of wrong shares among signed shares of one request, for third parties: no key and no
/// ciphertext is needed, since 2t+1 shares that agree hold t+1 honest ones, which fix the rest.
///
/// # Errors
/// [`InvalidEvidence`] unless all are authentic, of one request and by distinct members, and 2t+1
/// of them agree.
pub fn wrong_shares(
    committee: Committee,
    roster: &[PublicIdentity],
    messages: &[DecryptionMessage],
) -> Result<Vec<ParticipantIndex>, InvalidEvidence> {
    let request = messages.first().ok_or(InvalidEvidence)?.request;
    let mut shares: Vec<(ParticipantIndex, &[u8])> = Vec::with_capacity(messages.len());
    for message in messages {
        let sender = message.sender;
        let known = !committee.contains(sender) || shares.iter().any(|(j, _)| *j == sender);
        if known || message.request != request {
            return Err(InvalidEvidence);
        }
        shares.push((sender, partial_of(message, roster)?));
    }
    // The right length is that of the 2t+1 that agree: the median is one of theirs.
    let mut lengths: Vec<usize> = shares.iter().map(|(_, bytes)| bytes.len()).collect();
    lengths.sort_unstable();
    let blocks = lengths.get(lengths.len() / 2).ok_or(InvalidEvidence)? / 16;
    let combined = combine(committee, &shares, blocks).map_err(|_| InvalidEvidence)?;
    if combined.phases.is_empty() { Err(InvalidEvidence) } else { Ok(combined.culprits) }
}

/// Why outputs are not decrypted. Nothing was computed and nothing counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum AuthoriseError {
    /// The outputs are under another key than this member's share.
    #[error("the outputs are under key set {asked}; this member's key share is of {mine}")]
    OtherKeySet { mine: KeySetDigest, asked: KeySetDigest },
    /// The outputs are of another committee than this member's.
    #[error("the outputs are of epoch {asked}; this member's key share is of epoch {mine}")]
    OtherEpoch { mine: Epoch, asked: Epoch },
    /// The votes are for no manifest.
    #[error("the lock is for {0}; only one for a manifest opens outputs")]
    NoManifest(Instance),
    /// The votes are for another manifest, slot, epoch or key set.
    #[error(
        "the lock is for manifest {manifest} in slot {slot} of epoch {epoch} under key set {key_set}, \
         not for the one these outputs come from"
    )]
    OtherLock { key_set: KeySetDigest, epoch: Epoch, slot: Slot, manifest: Blake3Digest },
    /// The votes do not make a lock.
    #[error("no decryption without a locked manifest: {0}")]
    Lock(#[from] LockError),
    /// Nothing to decrypt, or too much at once.
    #[error("{given} blocks in one request; 1 to {MAX_BLOCKS_PER_REQUEST} are possible")]
    BlockCount { given: usize },
    /// A block has another size than blocks under this key.
    #[error(transparent)]
    Dimension(#[from] WrongDimension),
    /// "A lock authorises one evaluation": these are the manifest and outputs authorised in the slot.
    #[error(
        "step {step} of slot {slot} is taken by other outputs of manifest {manifest}, and a lock authorises one \
         sequence: if the manifest is the same, this build does not evaluate bit for bit; if \
         not, more than t members voted twice"
    )]
    SlotTaken { slot: Slot, step: u16, manifest: Blake3Digest },
    /// The slot is too long ago to know what was authorised in it.
    #[error("slot {slot} is too old: outputs are decrypted from slot {oldest} on")]
    OldSlot { slot: Slot, oldest: Slot },
    /// The key is used up; the numbers are blocks.
    #[error(
        "this key has decrypted {used} of {budget} blocks and {asked} more would exceed that: \
         reshare, or make a new key"
    )]
    Budget { used: u64, asked: u64, budget: u64 },
    /// Too many requests wait for other members.
    #[error("{open} requests wait for other members' shares already: forget one first")]
    TooManyOpen { open: usize },
}

/// A roster or identity that is not the key share's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum WrongMembership {
    /// The roster does not have n identities.
    #[error("{given} member identities for a committee of {committee}")]
    Roster { given: usize, committee: Committee },
    /// The identity is another member's.
    #[error("the identity is not participant {me}'s in the roster")]
    Identity { me: ParticipantIndex },
}
