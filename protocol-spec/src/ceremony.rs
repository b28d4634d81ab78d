//! Messages of the key ceremony; the numbered steps are in `ceremony.md`.
//!
//! A member sends one [`SignedMessage`] per round, to all or (deals) to one. It names ceremony,
//! attempt, round, sender and recipient, so that no message means anything elsewhere, and it is
//! signed, so that anyone may relay it. Requests and chunks are not signed: a request only asks to
//! repeat what its receiver published, and a chunk is checked against a signed [`StreamRoot`].

use serde::{Deserialize, Serialize};

use crate::{
    codec::Wire,
    committee::Committee,
    domain,
    identity::{InvalidSignature, SecretIdentity},
    ids::{
        Attempt, Blake3Digest, CeremonyId, Epoch, KeySetDigest, ParticipantIndex, PublicIdentity,
        Signature,
    },
};

/// Longest signed message: a deal or a confirmation of a committee of 13, with room.
pub const MAX_SIGNED_BYTES: usize = 256 << 10;
/// Longest chunk of a share stream.
pub const MAX_CHUNK_BYTES: usize = 2 << 20;

/// What the members of a ceremony agreed on beforehand. Its digest is the [`CeremonyId`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CeremonyParameters {
    /// Size and thresholds.
    pub committee: Committee,
    /// Name of the FHE parameter set, for people.
    pub parameters: String,
    /// Digest of the FHE parameter set.
    pub parameters_digest: Blake3Digest,
    /// Identity of participant j at position j-1.
    pub roster: Vec<PublicIdentity>,
    /// The epoch the key is for.
    pub epoch: Epoch,
    /// Whatever else the ceremony belongs to (chain, contract, cluster), hashed; or random.
    pub context: [u8; 32],
}

/// A list of identities that cannot be a roster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RosterError {
    /// Not n of them.
    #[error("a ceremony of {committee} needs {} identities, not {given}", committee.n())]
    Length {
        /// The committee.
        committee: Committee,
        /// Identities given.
        given: usize,
    },
    /// One identity twice.
    #[error("participants {0} and {1} have the same identity")]
    Duplicate(ParticipantIndex, ParticipantIndex),
}

impl CeremonyParameters {
    /// # Errors
    /// [`RosterError`] unless there are n distinct identities.
    pub fn validate(&self) -> Result<(), RosterError> {
        if self.roster.len() != self.committee.n() {
            return Err(RosterError::Length {
                committee: self.committee,
                given: self.roster.len(),
            });
        }
        for (i, a) in self.committee.participants().zip(&self.roster) {
            for (j, b) in self.committee.participants().zip(&self.roster) {
                if i < j && a == b {
                    return Err(RosterError::Duplicate(i, j));
                }
            }
        }
        Ok(())
    }

    /// The ceremony's id.
    #[must_use]
    pub fn id(&self) -> CeremonyId {
        CeremonyId(domain::hash_parts(domain::CEREMONY_ID, &[&self.to_wire()]))
    }

    /// Identity of a participant, if it is one of this committee.
    #[must_use]
    pub fn identity(&self, participant: ParticipantIndex) -> Option<&PublicIdentity> {
        self.roster.get(participant.position())
    }
}

impl Wire for CeremonyParameters {
    const NAME: &'static str = "CeremonyParameters";
    const MAX_BYTES: usize = 4096;
}

/// The communication steps in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Round {
    /// Step 1: channel keys and commitments.
    Commit,
    /// Step 2: echo of step 1.
    CommitEcho,
    /// Step 3: private contributions.
    Deal,
    /// Step 4: confirmation of the keys made from them; public seed.
    Confirm,
    /// Step 5: echo of step 4.
    ConfirmEcho,
    /// Step 6: root of the stream that opens v = r^2 + r of every key bit.
    BitsRoot,
    /// Step 7: echo of step 6; then the chunks of that stream.
    BitsRootEcho,
    /// Step 8: root of the stream that opens the public material.
    BodiesRoot,
    /// Step 9: echo of step 8; then the chunks of that stream.
    BodiesRootEcho,
    /// Step 10: key set digest and a test decryption with the new share.
    Prove,
    /// Step 11: the signature that makes the key valid, with those of all others.
    Finish,
    /// Any time before FINISH: this attempt makes no key.
    Abort,
}

impl Round {
    /// All rounds in order.
    pub const ALL: [Self; 12] = [
        Self::Commit,
        Self::CommitEcho,
        Self::Deal,
        Self::Confirm,
        Self::ConfirmEcho,
        Self::BitsRoot,
        Self::BitsRootEcho,
        Self::BodiesRoot,
        Self::BodiesRootEcho,
        Self::Prove,
        Self::Finish,
        Self::Abort,
    ];

    /// The name used in logs and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::CommitEcho => "commit-echo",
            Self::Deal => "deal",
            Self::Confirm => "confirm",
            Self::ConfirmEcho => "confirm-echo",
            Self::BitsRoot => "bits-root",
            Self::BitsRootEcho => "bits-root-echo",
            Self::BodiesRoot => "bodies-root",
            Self::BodiesRootEcho => "bodies-root-echo",
            Self::Prove => "prove",
            Self::Finish => "finish",
            Self::Abort => "abort",
        }
    }

    /// The round whose messages this one echoes.
    #[must_use]
    pub const fn echoes(self) -> Option<Self> {
        match self {
            Self::CommitEcho => Some(Self::Commit),
            Self::ConfirmEcho => Some(Self::Confirm),
            Self::BitsRootEcho => Some(Self::BitsRoot),
            Self::BodiesRootEcho => Some(Self::BodiesRoot),
            _ => None,
        }
    }
}

impl core::fmt::Display for Round {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// The two large openings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// v = r^2 + r of every key bit.
    Bits,
    /// The bodies of the public material.
    Bodies,
}

impl Stream {
    /// The round that publishes the stream's root.
    #[must_use]
    pub const fn root_round(self) -> Round {
        match self {
            Self::Bits => Round::BitsRoot,
            Self::Bodies => Round::BodiesRoot,
        }
    }
}

/// What a signed message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Header {
    /// The ceremony.
    pub ceremony: CeremonyId,
    /// Its attempt.
    pub attempt: Attempt,
    /// The round.
    pub round: Round,
    /// Who signed it.
    pub sender: ParticipantIndex,
    /// For whom it is; nobody in particular if broadcast. Only deals have one.
    pub recipient: Option<ParticipantIndex>,
}

/// Bytes that serde treats as one piece.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Bytes(pub Vec<u8>);

impl core::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

/// Step 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Ephemeral X-Wing (X25519 + ML-KEM-768) encapsulation key, 1216 bytes.
    pub channel_key: Bytes,
    /// Commitments to the sender's contributions: to the key sets that contain it, then to the
    /// noise groups that contain it, each in canonical order.
    pub contributions: Vec<Blake3Digest>,
    /// Commitment to the sender's part of the public seed.
    pub public_seed: Blake3Digest,
    /// FROST DKG round 1 package; empty with n = 1.
    pub frost_round1: Bytes,
}

/// Steps 2, 5, 7 and 9: digests of the messages received from participants 1..=n.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// Position j-1 holds the digest of participant j's message.
    pub digests: Vec<Blake3Digest>,
}

/// Step 3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deal {
    /// HPKE encapsulated key and ciphertext of a [`DealPlaintext`].
    pub sealed: Bytes,
}

/// What a deal holds: contributions to all sets and groups that contain sender and recipient.
///
/// # Security
/// Secret; the holder zeroizes it.
#[derive(Serialize, Deserialize, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct DealPlaintext {
    /// Same order as the commitments, those without the recipient left out.
    pub contributions: Vec<[u8; 32]>,
    /// FROST DKG round 2 package; empty with n = 1.
    pub frost_round2: Vec<u8>,
}

impl core::fmt::Debug for DealPlaintext {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("DealPlaintext(<redacted>)")
    }
}

impl Wire for DealPlaintext {
    const NAME: &'static str = "DealPlaintext";
    const MAX_BYTES: usize = 64 << 10;
}

/// Step 4. Sending it, rather than ABORT, says: no complaint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirm {
    /// H(key) for the sender's key sets, then noise groups, in canonical order.
    pub keys: Vec<Blake3Digest>,
    /// The sender's part of the public seed.
    pub public_seed: [u8; 32],
    /// The group's public key package as the sender computed it.
    pub frost_group: Bytes,
}

/// Steps 6 and 8: commitment to a share stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRoot {
    /// Digest of every chunk, in order. The message that holds the list is the root: it is what is
    /// signed and echoed.
    pub chunks: Vec<Blake3Digest>,
}

impl StreamRoot {
    /// Digest of one chunk, bound to its place.
    #[must_use]
    pub fn chunk_digest(header: &Header, stream: Stream, index: u32, bytes: &[u8]) -> Blake3Digest {
        Blake3Digest(domain::hash_parts(
            domain::CHUNK,
            &[
                &header.ceremony.0,
                &header.attempt.0.to_le_bytes(),
                &[stream as u8, header.sender.get()],
                &index.to_le_bytes(),
                bytes,
            ],
        ))
    }
}

/// Step 10.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prove {
    /// Digest of the key set the sender assembled.
    pub key_set: KeySetDigest,
    /// The sender's partial decryption of the test ciphertext: one packed ring element,
    /// coefficients as little-endian 128-bit words.
    pub test_share: Bytes,
}

/// Step 11.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish {
    /// Hash over the ceremony's parameters and every broadcast message of the attempt.
    pub root: Blake3Digest,
}

/// Why a member gave an attempt up. Each names what it accuses whom of, as far as it knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum AbortReason {
    /// Nothing came in time.
    #[error("no {round} message from participants {missing:?} before the deadline")]
    Silent {
        /// In which round.
        round: Round,
        /// Who.
        missing: Vec<ParticipantIndex>,
    },
    /// A member's chunks did not come, from it or a relay.
    #[error(
        "no chunk {index} of the {stream:?} stream from participants {missing:?} before the deadline"
    )]
    Starved {
        /// Which stream.
        stream: Stream,
        /// First missing chunk.
        index: u32,
        /// Whose.
        missing: Vec<ParticipantIndex>,
    },
    /// Two different messages signed for one round.
    #[error("participant {accused} signed two different {round} messages")]
    Equivocation {
        /// Who.
        accused: ParticipantIndex,
        /// In which round.
        round: Round,
    },
    /// Participants hold different messages of one sender.
    #[error("participant {echoed_by} echoes another {round} message of participant {accused}")]
    EchoMismatch {
        /// Whose message differs.
        accused: ParticipantIndex,
        /// In which round.
        round: Round,
        /// Who echoed it.
        echoed_by: ParticipantIndex,
    },
    /// A signed message that no honest member sends.
    #[error("the {round} message of participant {accused} is invalid: {detail}")]
    InvalidMessage {
        /// Who.
        accused: ParticipantIndex,
        /// In which round.
        round: Round,
        /// What is wrong.
        detail: String,
    },
    /// A private contribution does not open its commitment.
    #[error("participant {accused} dealt a contribution that does not open its commitment")]
    WrongContribution {
        /// Who.
        accused: ParticipantIndex,
    },
    /// Members of one set hold different keys.
    #[error("participants {with:?} confirm another key of a set shared with the reporter")]
    KeyMismatch {
        /// Who confirmed something else.
        with: Vec<ParticipantIndex>,
    },
    /// A revealed part of the public seed does not open its commitment.
    #[error("participant {accused} revealed another part of the public seed than it committed to")]
    WrongSeedReveal {
        /// Who.
        accused: ParticipantIndex,
    },
    /// The shares of a packed value do not lie on one polynomial.
    #[error(
        "the shares of element {element} in chunk {index} of the {stream:?} stream are inconsistent"
    )]
    InconsistentShares {
        /// Which stream.
        stream: Stream,
        /// Which chunk.
        index: u32,
        /// Which packed value of the chunk.
        element: u32,
    },
    /// The test decryptions do not lie on one polynomial, or key set digests differ.
    #[error("the proofs of participants {accused:?} do not fit the others: {detail}")]
    WrongProof {
        /// Who stands out.
        accused: Vec<ParticipantIndex>,
        /// What is wrong.
        detail: String,
    },
    /// The opened material is no key set.
    #[error("the opened material is no valid key set: {detail}")]
    InvalidKeySet {
        /// What is wrong.
        detail: String,
    },
    /// FROST DKG failed.
    #[error("the FROST key generation failed because of participants {accused:?}: {detail}")]
    Frost {
        /// Culprits, if known.
        accused: Vec<ParticipantIndex>,
        /// What is wrong.
        detail: String,
    },
    /// Another member aborted.
    #[error("participant {by} aborted")]
    PeerAborted {
        /// Who.
        by: ParticipantIndex,
    },
    /// The attempt's deadline passed at the commit point without a publication.
    #[error("the attempt expired before its key was published")]
    Expired,
    /// This member's disk or memory failed it.
    #[error("local failure: {detail}")]
    Local {
        /// What happened.
        detail: String,
    },
}

impl AbortReason {
    /// Participants this reason points at, without proof. Empty where it points at nobody.
    #[must_use]
    pub fn accused(&self) -> Vec<ParticipantIndex> {
        match self {
            Self::Silent { missing, .. } | Self::Starved { missing, .. } => missing.clone(),
            Self::Equivocation { accused, .. }
            | Self::EchoMismatch { accused, .. }
            | Self::InvalidMessage { accused, .. }
            | Self::WrongContribution { accused }
            | Self::WrongSeedReveal { accused } => vec![*accused],
            Self::KeyMismatch { with } => with.clone(),
            Self::WrongProof { accused, .. } | Self::Frost { accused, .. } => accused.clone(),
            Self::PeerAborted { by } => vec![*by],
            Self::InconsistentShares { .. }
            | Self::InvalidKeySet { .. }
            | Self::Expired
            | Self::Local { .. } => Vec::new(),
        }
    }
}

/// The body of a signed message; its variant must match the header's round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// Step 1.
    Commit(Commit),
    /// Steps 2, 5, 7, 9.
    Echo(Echo),
    /// Step 3.
    Deal(Deal),
    /// Step 4.
    Confirm(Confirm),
    /// Steps 6, 8.
    StreamRoot(StreamRoot),
    /// Step 10.
    Prove(Prove),
    /// Step 11.
    Finish(Finish),
    /// Instead of any later step.
    Abort(AbortReason),
}

impl Payload {
    /// Whether this is what the round carries.
    #[must_use]
    pub const fn fits(&self, round: Round) -> bool {
        match self {
            Self::Commit(_) => matches!(round, Round::Commit),
            Self::Echo(_) => round.echoes().is_some(),
            Self::Deal(_) => matches!(round, Round::Deal),
            Self::Confirm(_) => matches!(round, Round::Confirm),
            Self::StreamRoot(_) => matches!(round, Round::BitsRoot | Round::BodiesRoot),
            Self::Prove(_) => matches!(round, Round::Prove),
            Self::Finish(_) => matches!(round, Round::Finish),
            Self::Abort(_) => matches!(round, Round::Abort),
        }
    }
}

/// A message anyone can attribute and relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedMessage {
    /// What it belongs to.
    pub header: Header,
    /// What it says.
    pub payload: Payload,
    /// The sender's signature over both.
    pub signature: Signature,
}

impl Wire for SignedMessage {
    const NAME: &'static str = "SignedMessage";
    const MAX_BYTES: usize = MAX_SIGNED_BYTES;
}

impl SignedMessage {
    /// Signs a message. The same arguments always give the same bytes.
    #[must_use]
    pub fn sign(header: Header, payload: Payload, identity: &SecretIdentity) -> Self {
        let signature = identity.sign(&Self::signing_digest(&header, &payload));
        Self { header, payload, signature }
    }

    fn signing_digest(header: &Header, payload: &Payload) -> [u8; 32] {
        #[derive(Serialize)]
        struct Signed<'a>(&'a Header, &'a Payload);
        let bytes = postcard::to_stdvec(&Signed(header, payload)).unwrap_or_default();
        domain::hash_parts(domain::CEREMONY_MESSAGE, &[&bytes])
    }

    /// # Errors
    /// [`InvalidSignature`] if the signature is not `identity`'s over header and payload.
    pub fn verify(&self, identity: &PublicIdentity) -> Result<(), InvalidSignature> {
        identity.verify(&Self::signing_digest(&self.header, &self.payload), &self.signature)
    }

    /// The digest by which messages are echoed and bound into the transcript.
    #[must_use]
    pub fn digest(&self) -> Blake3Digest {
        Blake3Digest(domain::hash_parts(domain::CEREMONY_ECHO, &[&self.to_wire()]))
    }
}

/// What travels between two members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CeremonyMessage {
    /// A round's message, from its sender or a relay.
    Signed(Box<SignedMessage>),
    /// Asks for `sender`'s message of a round; whoever has it answers.
    Request {
        /// The ceremony.
        ceremony: CeremonyId,
        /// Its attempt.
        attempt: Attempt,
        /// Which round.
        round: Round,
        /// Whose message.
        sender: ParticipantIndex,
    },
    /// Asks for a chunk of `sender`'s stream; whoever has it answers.
    ChunkRequest(ChunkId),
    /// A chunk; valid if it matches the signed root.
    Chunk {
        /// Which one.
        id: ChunkId,
        /// Its bytes.
        bytes: Bytes,
    },
}

/// Names a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChunkId {
    /// The ceremony.
    pub ceremony: CeremonyId,
    /// Its attempt.
    pub attempt: Attempt,
    /// Which stream.
    pub stream: Stream,
    /// Whose.
    pub sender: ParticipantIndex,
    /// Position in the stream.
    pub index: u32,
}

impl Wire for CeremonyMessage {
    const NAME: &'static str = "CeremonyMessage";
    const MAX_BYTES: usize = MAX_CHUNK_BYTES + 128;
    // Nothing is hashed in this form: a signed message inside is checked by its signature, a chunk
    // by the digest of its bytes.
    const CHECK_CANONICAL: bool = false;
}
