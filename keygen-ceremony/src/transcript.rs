//! The public transcript of a finished attempt, and its verification by anyone, offline.
//!
//! A transcript is every broadcast message of the attempt and the two share streams of every member.
//! [`Transcript::verify`] checks all that can be checked without a secret: signatures, echoes,
//! commitments, the chunk digests, that the opened values are the interpolation of the published
//! shares, the FROST group key, the test decryption, and the FINISH signatures; it computes the key
//! set anew.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tfhe::xof_key_set::CompressedXofKeySet;
use veil_committee::{
    code::Opening,
    frost::{EvmSuite, dkg::group_public_key},
    with_degree,
};
use veil_protocol_spec::{
    Attempt, Blake3Digest, CeremonyId, Committee, KeySetDigest, ParticipantIndex, Signature, Wire,
    ceremony::{
        AbortReason, CeremonyParameters, Commit, Confirm, Contribution, Finish, Header, Payload,
        Prove, Round, SignedMessage, Stream, StreamRoot,
    },
    domain,
    identity::InvalidSignature,
};
use veil_reference_string::{First, Powers};

use crate::{
    contributions::{Context, groups_of},
    keyset::{Bodies, ParameterSet, assemble, keyset_digest},
    proof,
    reference_string::{Link, check_last},
    setup::{Setup, Timing},
    shares::{
        bits::is_bit_image,
        opening::{BodyOpening, InconsistentShares, open_bits},
    },
    store::ChunkStore,
};

/// "Root: hash over the ceremony's parameters, the attempt and the digest of every broadcast message
/// of steps 1 to 10, by round and participant."
#[must_use]
pub fn transcript_root(
    parameters: &CeremonyParameters,
    attempt: Attempt,
    messages: impl Iterator<Item = Blake3Digest>,
) -> Blake3Digest {
    let digests: Vec<u8> = messages.flat_map(|digest| digest.0).collect();
    Blake3Digest(domain::hash_parts(
        domain::TRANSCRIPT_ROOT,
        &[&parameters.to_wire(), &attempt.0.to_le_bytes(), &digests],
    ))
}

/// The FINISH signatures of all n members over one root: what makes a key valid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishCertificate {
    /// The ceremony that made the key.
    pub ceremony: CeremonyId,
    /// The attempt that finished.
    pub attempt: Attempt,
    /// The transcript's root, over which all signed.
    pub root: Blake3Digest,
    /// Signature of participant j at position j-1.
    pub signatures: Vec<Signature>,
}

impl FinishCertificate {
    /// # Errors
    /// [`InvalidSignature`] unless all n members of the ceremony signed FINISH over this root.
    pub fn verify(&self, parameters: &CeremonyParameters) -> Result<(), InvalidSignature> {
        if self.ceremony != parameters.id() || self.signatures.len() != parameters.committee.n() {
            return Err(InvalidSignature);
        }
        self.messages(parameters.committee)
            .zip(&parameters.roster)
            .try_for_each(|(message, identity)| message.verify(identity))
    }

    /// The members' FINISH messages, as they signed them.
    pub(crate) fn messages(&self, committee: Committee) -> impl Iterator<Item = SignedMessage> {
        committee.participants().zip(&self.signatures).map(|(sender, signature)| {
            let (ceremony, attempt) = (self.ceremony, self.attempt);
            let header =
                Header { ceremony, attempt, round: Round::Finish, sender, recipient: None };
            let payload = Payload::Finish(Finish { root: self.root });
            SignedMessage { header, payload, signature: *signature }
        })
    }
}

/// Every broadcast message of a finished attempt, by round and participant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transcript {
    /// What the members agreed on.
    pub parameters: CeremonyParameters,
    /// The attempt that finished.
    pub attempt: Attempt,
    /// One message of each member in each round, without deals.
    pub messages: Vec<SignedMessage>,
}

impl Wire for Transcript {
    const NAME: &'static str = "Transcript";
    const VERSION: u8 = 2;
    const MAX_BYTES: usize = 32 << 20;
}

/// Why a transcript proves nothing. Each names the message or chunk at fault: get it from another
/// member, or believe nothing of this ceremony.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum TranscriptError {
    /// The ceremony's parameters are inconsistent or unknown here.
    #[error("the ceremony's parameters: {0}")]
    Parameters(String),
    /// Not exactly one message of every member in every round, in order.
    #[error(
        "the transcript does not hold exactly one {round} message of participant {sender} where it belongs"
    )]
    Order { round: Round, sender: ParticipantIndex },
    /// A signature does not verify, or a message belongs elsewhere.
    #[error("the {round} message of participant {sender} is not signed by it for this attempt")]
    Signature { round: Round, sender: ParticipantIndex },
    /// What an honest member would have aborted for.
    #[error("{0}")]
    Invalid(AbortReason),
    /// A chunk is missing.
    #[error(
        "chunk {index} of the {stream:?} stream of participant {sender} is missing or cannot be read"
    )]
    MissingChunk { stream: Stream, sender: ParticipantIndex, index: u32 },
    /// A chunk is not the one whose digest was signed.
    #[error(
        "chunk {index} of the {stream:?} stream of participant {sender} does not match its signed root"
    )]
    WrongChunk { stream: Stream, sender: ParticipantIndex, index: u32 },
    /// FINISH was signed over another root.
    #[error("participant {0} signed FINISH over another transcript")]
    OtherRoot(ParticipantIndex),
}

impl From<AbortReason> for TranscriptError {
    fn from(reason: AbortReason) -> Self {
        Self::Invalid(reason)
    }
}

/// What a transcript proves.
pub struct Verified {
    /// The key set, computed from the published shares.
    pub key_set: CompressedXofKeySet,
    /// Its digest, as signed by all.
    pub digest: KeySetDigest,
    /// The FHE parameter set of the key.
    pub params: ParameterSet,
    /// All n FINISH signatures, verified.
    pub certificate: FinishCertificate,
    /// Canonical bytes of the FROST group's public key package.
    pub frost_group: Vec<u8>,
    /// The powers of the reference string that all members made, one after another.
    pub reference_string: Powers,
}

type ByRound<'a> = BTreeMap<Round, Vec<&'a SignedMessage>>;

impl Transcript {
    /// Checks everything; `progress` gets the number of chunks done and of chunks in all.
    ///
    /// # Errors
    /// [`TranscriptError`] names the first thing that is wrong.
    pub fn verify(
        &self,
        store: &mut dyn ChunkStore,
        mut progress: impl FnMut(u32, u32),
    ) -> Result<Verified, TranscriptError> {
        self.verify_with(store, &mut progress)
    }

    /// Not generic: it computes, and is to be compiled in this crate, which is optimised.
    fn verify_with(
        &self,
        store: &mut dyn ChunkStore,
        progress: &mut dyn FnMut(u32, u32),
    ) -> Result<Verified, TranscriptError> {
        let parameters = &self.parameters;
        let committee = parameters.committee;
        let params = ParameterSet::by_name(&parameters.parameters, committee)
            .map_err(|error| TranscriptError::Parameters(error.to_string()))?;
        let first = ParticipantIndex::new(1)
            .map_err(|error| TranscriptError::Parameters(error.to_string()))?;
        let timing = Timing { round: 0, retry: 0 };
        let setup = Setup::for_participant(parameters.clone(), params, self.attempt, first, timing)
            .map_err(|error| TranscriptError::Parameters(error.to_string()))?;
        let rounds = self.check_messages(&setup)?;
        check_echoes(&rounds)?;
        let (public_seed, frost_group) = check_keys(&setup, &rounds)?;
        let reference_string = check_string(&setup, &rounds)?;
        let bodies = with_degree!(committee, D => {
            open_streams::<D>(&setup, &rounds, store, progress)?
        });
        let key_set = assemble(&setup.params, public_seed, bodies)
            .map_err(|error| AbortReason::InvalidKeySet { detail: error.to_string() })?;
        let digest = keyset_digest(&key_set);
        let proofs = payloads(&rounds, Round::Prove, as_prove);
        let accused: Vec<_> =
            proofs.iter().filter(|(_, p)| p.key_set != digest).map(|(j, _)| *j).collect();
        if !accused.is_empty() {
            let detail = "another key set digest than the published shares give".to_owned();
            return Err(AbortReason::WrongProof { accused, detail }.into());
        }
        let shares: Vec<_> = proofs.iter().map(|(j, p)| (*j, p.test_share.0.as_slice())).collect();
        proof::check(committee, &shares)?;
        let certificate = self.check_finish(&setup, &rounds)?;
        Ok(Verified {
            key_set,
            digest,
            params: setup.params,
            certificate,
            frost_group,
            reference_string,
        })
    }

    /// The root that the test ciphertext of step 10 is made from: that of the rounds before PROVE.
    #[must_use]
    pub fn proof_root(&self) -> Blake3Digest {
        let before = self.messages.iter().filter(|message| message.header.round < Round::Prove);
        transcript_root(&self.parameters, self.attempt, before.map(SignedMessage::digest))
    }

    fn check_messages(&self, setup: &Setup) -> Result<ByRound<'_>, TranscriptError> {
        let mut rounds = ByRound::new();
        let mut messages = self.messages.iter();
        for round in Round::ALL {
            if matches!(round, Round::Deal | Round::Abort) {
                continue;
            }
            for sender in setup.committee().participants() {
                let message = messages
                    .next()
                    .filter(|m| m.header.round == round && m.header.sender == sender)
                    .ok_or(TranscriptError::Order { round, sender })?;
                let header = &message.header;
                let identity = self.parameters.identity(sender);
                let valid = setup.check(&header.ceremony, header.attempt).is_ok()
                    && header.recipient.is_none()
                    && message.payload.fits(round)
                    && identity.is_some_and(|identity| message.verify(identity).is_ok());
                if !valid {
                    return Err(TranscriptError::Signature { round, sender });
                }
                rounds.entry(round).or_default().push(message);
            }
        }
        match messages.next() {
            Some(extra) => {
                let Header { round, sender, .. } = extra.header;
                Err(TranscriptError::Order { round, sender })
            }
            None => Ok(rounds),
        }
    }

    fn check_finish(
        &self,
        setup: &Setup,
        rounds: &ByRound<'_>,
    ) -> Result<FinishCertificate, TranscriptError> {
        let before = rounds.range(..Round::Finish).flat_map(|(_, messages)| messages);
        let root = transcript_root(&self.parameters, self.attempt, before.map(|m| m.digest()));
        let finishes = payloads(rounds, Round::Finish, |payload| match payload {
            Payload::Finish(finish) => Some(finish),
            _ => None,
        });
        if let Some((j, _)) = finishes.iter().find(|(_, finish)| finish.root != root) {
            return Err(TranscriptError::OtherRoot(*j));
        }
        let signatures =
            rounds.get(&Round::Finish).into_iter().flatten().map(|m| m.signature).collect();
        Ok(FinishCertificate { ceremony: setup.id, attempt: self.attempt, root, signatures })
    }
}

fn payloads<'a, T>(
    rounds: &ByRound<'a>,
    round: Round,
    pick: impl Fn(&'a Payload) -> Option<&'a T>,
) -> Vec<(ParticipantIndex, &'a T)> {
    rounds
        .get(&round)
        .into_iter()
        .flatten()
        .filter_map(|message| Some((message.header.sender, pick(&message.payload)?)))
        .collect()
}

const fn as_prove(payload: &Payload) -> Option<&Prove> {
    match payload {
        Payload::Prove(prove) => Some(prove),
        _ => None,
    }
}

const fn as_root(payload: &Payload) -> Option<&StreamRoot> {
    match payload {
        Payload::StreamRoot(root) => Some(root),
        _ => None,
    }
}

fn check_echoes(rounds: &ByRound<'_>) -> Result<(), AbortReason> {
    for (round, messages) in rounds {
        let Some(of) = round.echoes() else { continue };
        let expected: Vec<_> =
            rounds.get(&of).into_iter().flatten().map(|m| (m.header.sender, m.digest())).collect();
        for message in messages {
            let Payload::Echo(echo) = &message.payload else { continue };
            let echoed_by = message.header.sender;
            if echo.digests.len() != expected.len() {
                let detail = format!("{} digests", echo.digests.len());
                return Err(AbortReason::InvalidMessage {
                    accused: echoed_by,
                    round: *round,
                    detail,
                });
            }
            let differs =
                expected.iter().zip(&echo.digests).find(|((_, mine), theirs)| mine != *theirs);
            if let Some(((accused, _), _)) = differs {
                return Err(AbortReason::EchoMismatch { accused: *accused, round: of, echoed_by });
            }
        }
    }
    Ok(())
}

/// Commitments, confirmations, public seed, FROST group key.
fn check_keys(setup: &Setup, rounds: &ByRound<'_>) -> Result<([u8; 32], Vec<u8>), TranscriptError> {
    let context: Context = setup.context();
    let commits = payloads(rounds, Round::Commit, |payload| match payload {
        Payload::Commit(commit) => Some(commit),
        _ => None,
    });
    let confirms = payloads(rounds, Round::Confirm, |payload| match payload {
        Payload::Confirm(confirm) => Some(confirm),
        _ => None,
    });
    let mut confirmed = BTreeMap::new();
    for ((j, confirm), (_, commit)) in confirms.iter().zip(&commits) {
        let (confirm, commit): (&Confirm, &Commit) = (confirm, commit);
        let groups = groups_of(setup.committee(), *j);
        if commit.contributions.len() != groups.len() || confirm.keys.len() != groups.len() {
            let detail = "another number of key sets than it belongs to".to_owned();
            return Err(
                AbortReason::InvalidMessage { accused: *j, round: Round::Confirm, detail }.into()
            );
        }
        if context.public_seed_commitment(*j, &confirm.public_seed) != commit.public_seed {
            return Err(AbortReason::WrongSeedReveal { accused: *j }.into());
        }
        for (group, key) in groups.into_iter().zip(&confirm.keys) {
            if *confirmed.entry(group).or_insert(*key) != *key {
                return Err(AbortReason::KeyMismatch { with: vec![*j] }.into());
            }
        }
    }
    let round1 = commits.iter().map(|(j, commit)| (*j, commit.frost_round1.0.clone())).collect();
    let frost =
        |accused: Vec<ParticipantIndex>, detail: String| AbortReason::Frost { accused, detail };
    let group = group_public_key::<EvmSuite>(setup.committee(), &round1)
        .map_err(|error| frost(error.culprits(), error.to_string()))?
        .to_wire();
    let others: Vec<_> =
        confirms.iter().filter(|(_, c)| c.frost_group.0 != group).map(|(j, _)| *j).collect();
    if !others.is_empty() {
        return Err(frost(others, "they confirmed another group key".to_owned()).into());
    }
    let parts: Vec<_> = confirms.iter().map(|(_, confirm)| confirm.public_seed).collect();
    Ok((context.public_seed(&parts), group))
}

/// Each member's contribution to the reference string, and the string.
fn check_string(setup: &Setup, rounds: &ByRound<'_>) -> Result<Powers, AbortReason> {
    let contributions: Vec<(ParticipantIndex, &Contribution)> =
        payloads(rounds, Round::ReferenceString, |payload| match payload {
            Payload::ReferenceString(contribution) => Some(contribution),
            _ => None,
        });
    let messages = rounds.get(&Round::ReferenceString).into_iter().flatten();
    let (mut first, mut above) = (First::start(), None);
    for ((sender, contribution), message) in contributions.iter().zip(messages) {
        first = Link { sender: *sender, above }.check(setup, &first, contribution)?;
        above = Some((*sender, message.digest()));
    }
    check_last(setup, &contributions)
}

fn open_streams<const D: usize>(
    setup: &Setup,
    rounds: &ByRound<'_>,
    store: &mut dyn ChunkStore,
    progress: &mut dyn FnMut(u32, u32),
) -> Result<Bodies, TranscriptError> {
    let total = setup.chunks(Stream::Bits) + setup.chunks(Stream::Bodies);
    let mut done = 0;
    let opening =
        Opening::<u128, D>::new(setup.committee(), 2 * setup.committee().max_faulty().get());
    let mut opened = Vec::new();
    for (index, chunk) in (0u32..).zip(setup.plan.of(Stream::Bits)) {
        let shares = load(setup, rounds, store, Stream::Bits, index)?;
        let views: Vec<_> = shares.iter().map(Vec::as_slice).collect();
        let inconsistent = |error| inconsistent(Stream::Bits, index, error);
        opened.clear();
        open_bits(&opening, chunk, &views, &mut opened).map_err(inconsistent)?;
        if let Some(element) = opened.iter().position(|v| !is_bit_image(*v)) {
            return Err(inconsistent(InconsistentShares { element }).into());
        }
        done += 1;
        progress(done, total);
    }
    let opening = BodyOpening::<D>::new(setup.committee());
    let mut bodies = Bodies::zeroed(&setup.layout);
    for (index, chunk) in (0u32..).zip(setup.plan.of(Stream::Bodies)) {
        let shares = load(setup, rounds, store, Stream::Bodies, index)?;
        let views: Vec<_> = shares.iter().map(Vec::as_slice).collect();
        let section = &setup.layout.sections[chunk.section];
        opening
            .open(section, chunk, &views, &mut bodies.sections[chunk.section])
            .map_err(|error| inconsistent(Stream::Bodies, index, error))?;
        done += 1;
        progress(done, total);
    }
    Ok(bodies)
}

const fn inconsistent(stream: Stream, index: u32, error: InconsistentShares) -> AbortReason {
    AbortReason::InconsistentShares { stream, index, element: error.element as u32 }
}

/// One chunk of every member, checked against its root.
fn load(
    setup: &Setup,
    rounds: &ByRound<'_>,
    store: &mut dyn ChunkStore,
    stream: Stream,
    index: u32,
) -> Result<Vec<Vec<u8>>, TranscriptError> {
    let round = stream.root_round();
    let messages = rounds.get(&round).into_iter().flatten();
    let roots = payloads(rounds, round, as_root);
    let expected = setup.plan.of(stream).get(index as usize).map(|chunk| chunk.bytes);
    messages
        .zip(roots)
        .map(|(message, (sender, root))| {
            if root.chunks.len() != setup.chunks(stream) as usize {
                return Err(AbortReason::InvalidMessage {
                    accused: sender,
                    round,
                    detail: format!("{} chunks", root.chunks.len()),
                }
                .into());
            }
            let bytes = store
                .get(stream, sender, index)
                .ok()
                .flatten()
                .ok_or(TranscriptError::MissingChunk { stream, sender, index })?;
            let digest = StreamRoot::chunk_digest(&message.header, stream, index, &bytes);
            if root.chunks.get(index as usize) != Some(&digest) || expected != Some(bytes.len()) {
                return Err(TranscriptError::WrongChunk { stream, sender, index });
            }
            Ok(bytes)
        })
        .collect()
}
