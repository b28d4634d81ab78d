//! What all machines of one signing session share: whose keys count, how messages are signed and
//! opened, and what convicts a member.
//!
//! # Flow of a message that comes in
//! 1. The message is for this session, else it is skipped.
//! 2. It is from the peer that brought it, a member, else it is skipped.
//! 3. Its signature verifies, else it is skipped: anyone could have made it.
//! 4. It is well-formed on its own, else the message itself is evidence against its sender.

use std::{collections::BTreeMap, sync::Arc};

use frost_core::{
    Ciphersuite, SigningPackage, round1::SigningCommitments, round2::SignatureShare,
    verify_signature_share,
};
use veil_committee_machine::Verdict;
use veil_protocol_spec::{
    Blake3Digest, CodecError, Committee, KeccakDigest, ParticipantIndex, PublicIdentity, Wire,
    domain::{FROST_MESSAGE, hash_parts},
    identity::SecretIdentity,
};

use super::{
    EvmSuite,
    keys::{GroupPublicKey, GroupSignature, identifier},
    wire::{Body, Evidence, Payload, SignedMessage, SigningContext},
};

/// The fixed surroundings of a session, shared by its machines.
#[derive(Clone, Debug)]
pub struct SessionContext<C: Ciphersuite = EvmSuite> {
    context: SigningContext,
    group: Arc<GroupPublicKey<C>>,
    members: Vec<PublicIdentity>,
}

/// The number of identities is not that of the committee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given} member identities for a committee of {committee}")]
pub struct WrongRoster {
    /// Identities given.
    pub given: usize,
    /// The committee.
    pub committee: Committee,
}

/// Evidence that proves nothing under this context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the evidence does not prove a fault in this session")]
pub struct InvalidEvidence;

/// What a signer or a coordinator says of a message.
pub type SessionVerdict = Verdict<Skip, Box<Fault>>;

/// A member and the proof against it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("participant {culprit} is provably at fault in this session")]
pub struct Fault {
    /// The member.
    pub culprit: ParticipantIndex,
    /// The proof.
    pub evidence: Evidence,
}

/// Why a message was left aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Skip {
    /// Too long, of another version, or not a signing message.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The message is for another session.
    #[error("the message is for another session")]
    OtherSession,
    /// Not from the peer that brought it, or not from a member.
    #[error("the message is not from the member that brought it")]
    WrongSender,
    /// Not signed by the member it names.
    #[error("the message's signature does not verify")]
    BadSignature,
    /// Not for this role or this coordinator.
    #[error("the message is not for this machine")]
    NotForMe,
    /// Older than what is going on, or already taken up.
    #[error("the message is out of date or a repetition")]
    Stale,
    /// Not the message this member authorised.
    #[error("refused: this member has not authorised {asked}")]
    NotAuthorised {
        /// The message that was to be signed.
        asked: KeccakDigest,
    },
    /// A package without this member's commitment.
    #[error("refused: the signing package lacks this member's commitment")]
    CommitmentMissing,
    /// A package with another commitment of this member.
    #[error("refused: the signing package changes this member's commitment")]
    CommitmentModified,
    /// The nonce for this attempt is spent or was dropped by a restart.
    #[error("refused: the nonce for this attempt is used or lost")]
    NonceUsed,
    /// From a member already convicted in this session.
    #[error("the sender was found at fault in this session")]
    Convicted,
    /// The session has ended.
    #[error("the session is over")]
    Over,
}

/// A body whose parts have been parsed.
pub(crate) enum Parsed<C: Ciphersuite> {
    Request { message: Option<KeccakDigest> },
    Commitment(SigningCommitments<C>),
    Package { message: KeccakDigest, package: SigningPackage<C> },
    Share { message: KeccakDigest, package: Blake3Digest, share: SignatureShare<C> },
    Signature { message: KeccakDigest, signature: GroupSignature<C> },
}

impl<C: Ciphersuite> SessionContext<C> {
    /// `members` are the identities of participants 1, 2, ...
    ///
    /// # Errors
    /// [`WrongRoster`] unless there is one for each.
    pub fn new(
        context: SigningContext,
        group: Arc<GroupPublicKey<C>>,
        members: Vec<PublicIdentity>,
    ) -> Result<Self, WrongRoster> {
        let committee = group.committee();
        if members.len() != committee.n() {
            return Err(WrongRoster { given: members.len(), committee });
        }
        Ok(Self { context, group, members })
    }

    /// The context.
    #[must_use]
    pub const fn context(&self) -> &SigningContext {
        &self.context
    }

    /// The group that signs.
    #[must_use]
    pub fn group(&self) -> &GroupPublicKey<C> {
        &self.group
    }

    /// The committee.
    #[must_use]
    pub fn committee(&self) -> Committee {
        self.group.committee()
    }

    /// Whether `identity` is member `index`'s.
    pub(crate) fn is_member(&self, index: ParticipantIndex, identity: &SecretIdentity) -> bool {
        self.members.get(index.position()) == Some(&identity.public())
    }

    /// What a sender signs: the domain names the protocol, the context and group key the place.
    #[must_use]
    pub fn digest(&self, payload: &Payload) -> Blake3Digest {
        let parts: [&[u8]; 3] =
            [&self.context.to_wire(), &self.group.verifying_key_bytes(), &payload.to_wire()];
        Blake3Digest(hash_parts(FROST_MESSAGE, &parts))
    }

    /// Signs a payload for this session.
    #[must_use]
    pub fn seal(&self, identity: &SecretIdentity, payload: Payload) -> SignedMessage {
        let signature = identity.sign(&self.digest(&payload).0);
        SignedMessage { key: self.context.key, payload, signature }
    }

    /// Steps 1 to 4 above.
    pub(crate) fn open(
        &self,
        from: ParticipantIndex,
        message: &SignedMessage,
    ) -> Result<Parsed<C>, SessionVerdict> {
        if message.payload.from != from {
            return Err(Verdict::Skip(Skip::WrongSender));
        }
        self.authenticate(message).map_err(Verdict::Skip)?;
        self.parse(&message.payload).ok_or_else(|| {
            let evidence = Evidence::Malformed(message.clone());
            Verdict::Fault(Box::new(Fault { culprit: from, evidence }))
        })
    }

    fn authenticate(&self, message: &SignedMessage) -> Result<(), Skip> {
        if message.key != self.context.key {
            return Err(Skip::OtherSession);
        }
        let identity = self.members.get(message.payload.from.position());
        let identity = identity.ok_or(Skip::WrongSender)?;
        let digest = self.digest(&message.payload);
        identity.verify(&digest.0, &message.signature).map_err(|_| Skip::BadSignature)
    }

    /// `None` if the payload is wrong by itself.
    fn parse(&self, payload: &Payload) -> Option<Parsed<C>> {
        let by_coordinator = payload.from == payload.coordinator;
        match &payload.body {
            Body::Request { message } => {
                by_coordinator.then_some(Parsed::Request { message: *message })
            }
            Body::Commitment { commitment } => parse_commitment(commitment).map(Parsed::Commitment),
            Body::Package { message, commitments } => {
                let committee = self.committee();
                let ascending = commitments.is_sorted_by(|(a, _), (b, _)| a < b);
                let members = commitments.iter().all(|(i, _)| committee.contains(*i));
                let threshold = commitments.len() == committee.signing_threshold().get();
                if !(by_coordinator && ascending && members && threshold) {
                    return None;
                }
                let parsed = commitments
                    .iter()
                    .map(|(i, bytes)| Some((identifier(*i), parse_commitment(bytes)?)))
                    .collect::<Option<BTreeMap<_, _>>>()?;
                let package = SigningPackage::new(parsed, message.as_bytes());
                Some(Parsed::Package { message: *message, package })
            }
            Body::Share { message, package, share } => {
                let share = SignatureShare::deserialize(share).ok()?;
                Some(Parsed::Share { message: *message, package: *package, share })
            }
            Body::Signature { message, signature } => {
                let signature = GroupSignature::from_bytes(signature).ok()?;
                self.group.verify(message.as_bytes(), &signature).ok()?;
                Some(Parsed::Signature { message: *message, signature })
            }
        }
    }

    /// Whether `share` of `signer` fits `package`.
    pub(crate) fn share_fits(
        &self,
        signer: ParticipantIndex,
        package: &SigningPackage<C>,
        share: &SignatureShare<C>,
    ) -> bool {
        let key = self.group.package().verifying_key();
        self.group.verifying_share(signer).is_some_and(|verifying| {
            verify_signature_share(identifier(signer), verifying, share, package, key).is_ok()
        })
    }

    /// Checks evidence and says against whom it is. Needs no state of the session, so that it
    /// convinces third parties.
    ///
    /// An honest member cannot be convicted: it signs no malformed message, a share only for a
    /// package it checked and answered rightly, and one message for each place.
    ///
    /// # Errors
    /// [`InvalidEvidence`] if it proves nothing.
    pub fn convict(&self, evidence: &Evidence) -> Result<ParticipantIndex, InvalidEvidence> {
        let authentic =
            |message: &SignedMessage| self.authenticate(message).map_err(|_| InvalidEvidence);
        match evidence {
            Evidence::Malformed(message) => {
                authentic(message)?;
                match self.parse(&message.payload) {
                    None => Ok(message.payload.from),
                    Some(_) => Err(InvalidEvidence),
                }
            }
            Evidence::BadShare { package, share } => {
                authentic(package)?;
                authentic(share)?;
                let Some(Parsed::Package { message, package: signing }) =
                    self.parse(&package.payload)
                else {
                    return Err(InvalidEvidence);
                };
                let Some(Parsed::Share { message: signed, package: digest, share: z }) =
                    self.parse(&share.payload)
                else {
                    return Err(InvalidEvidence);
                };
                // A share that names the package but another message than the package does is as
                // wrong as one that does not fit.
                let culprit = share.payload.from;
                if digest == self.digest(&package.payload)
                    && (signed != message || !self.share_fits(culprit, &signing, &z))
                {
                    Ok(culprit)
                } else {
                    Err(InvalidEvidence)
                }
            }
            Evidence::DoubleShare { first, second } => {
                authentic(first)?;
                authentic(second)?;
                match (&first.payload.body, &second.payload.body) {
                    (Body::Share { message: a, .. }, Body::Share { message: b, .. })
                        if a != b && first.payload.from == second.payload.from =>
                    {
                        Ok(first.payload.from)
                    }
                    _ => Err(InvalidEvidence),
                }
            }
        }
    }
}

/// Canonical bytes only: a commitment with two spellings would have two package digests.
fn parse_commitment<C: Ciphersuite>(bytes: &[u8]) -> Option<SigningCommitments<C>> {
    let commitment = SigningCommitments::deserialize(bytes).ok()?;
    commitment.serialize().is_ok_and(|canonical| canonical == bytes).then_some(commitment)
}
