//! The operator: step 2 of `sealed.md`.

use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit,
    aead::{Aead, Payload},
};
use rand::{CryptoRng, RngCore};
use veil_protocol_spec::{
    Blake3Digest, Wire,
    codec::Bytes,
    domain::{
        CONTENTS_TAG, REQUEST_SEED, SEALED_PART_KEY, SEALER_KEY, SEALING_RANDOMNESS, hash_parts,
    },
    scheduling::{
        BindingMismatch, ClusterScope, ContentsError, EncryptedShare, JobSpec, RequestSeed,
        Resources, SealedContents, SealedPart,
    },
    sealing::SealingRoster,
};
use zeroize::Zeroizing;

use crate::{
    channel::{self, ChannelError},
    context::Context,
    sharing::{self, Secret},
};

/// Why a job cannot be sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// What is to be sealed.
    #[error(transparent)]
    Contents(#[from] ContentsError),
    /// The members' keys are of another cluster than the job.
    #[error("the members' sealing keys are not for this job's cluster: {0}")]
    Cluster(#[from] BindingMismatch),
    /// A member announced what is no key, and signed it.
    #[error("a member's sealing key cannot be used: {0}; leave that member out")]
    Key(#[from] ChannelError),
    /// The cipher refused, which it does only for messages of many gigabytes.
    #[error("the sealed part cannot be encrypted")]
    Cipher,
}

/// What an operator makes of its account's key for one of its jobs: nobody else can make its tags, or try contents against
/// them. All that is random in sealing follows from it, so that the same file under the same nonce, to the same members,
/// gives the same body again.
///
/// # Security
/// Zeroized on drop, never printed.
pub struct SealerKey(Zeroizing<[u8; 32]>);

impl core::fmt::Debug for SealerKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SealerKey(<redacted>)")
    }
}

impl SealerKey {
    /// What the account that submits signs for it, which it signs for nothing else and shows to nobody.
    #[must_use]
    pub fn to_sign(job: &JobSpec) -> [u8; 32] {
        let ClusterScope { chain_id, contract, cluster } = &job.scope;
        let (chain, line) = (chain_id.0.to_le_bytes(), job.line());
        let parts: [&[u8]; 4] = [&chain, contract.as_bytes(), cluster.as_bytes(), line.as_bytes()];
        hash_parts(SEALER_KEY, &parts)
    }

    /// From that signature. Accounts sign without randomness of their own (RFC 6979), so the key comes back.
    #[must_use]
    pub fn from_signature(signature: &[u8]) -> Self {
        Self(Zeroizing::new(hash_parts(SEALER_KEY, &[signature])))
    }

    /// What limits are encrypted with in a submission of a job; with other limits, or under another nonce, something else.
    #[must_use]
    pub fn request_seed(&self, nonce: u64, limits: &Resources) -> RequestSeed {
        let Resources { cpu, memory, disk, gpu } = limits;
        let units = [cpu.0, memory.0, disk.0, gpu.0].map(u16::to_le_bytes);
        let parts: [&[u8]; 3] = [&*self.0, &nonce.to_le_bytes(), units.as_flattened()];
        RequestSeed::new(hash_parts(REQUEST_SEED, &parts))
    }

    /// Of contents, whatever their request is encrypted with.
    #[must_use]
    pub fn tag(&self, contents: &SealedContents) -> Blake3Digest {
        let mut contents = contents.clone();
        if let Some(request) = &mut contents.request {
            request.seed = RequestSeed::new([0; 32]);
        }
        let encoded = Zeroizing::new(contents.to_wire());
        Blake3Digest(hash_parts(CONTENTS_TAG, &[&*self.0, &encoded]))
    }

    /// What sealing draws from: something else as soon as anything that is sealed, or whom it is sealed to, is another.
    #[must_use]
    pub fn randomness(
        &self,
        job: &JobSpec,
        contents: &SealedContents,
        roster: &SealingRoster,
    ) -> Zeroizing<[u8; 32]> {
        let encoded = Zeroizing::new(contents.to_wire());
        let (body, roster) = (job.public_digest(), roster.digest());
        let parts: [&[u8]; 4] = [&*self.0, body.as_bytes(), &encoded, roster.as_bytes()];
        Zeroizing::new(hash_parts(SEALING_RANDOMNESS, &parts))
    }
}

/// Seals `contents` for the winners of the replicas of `job`, whose own sealed part does not matter.
///
/// # Errors
/// [`SealError`]: nothing is sealed then.
pub fn seal<R: RngCore + CryptoRng>(
    job: &JobSpec,
    contents: &SealedContents,
    roster: &SealingRoster,
    key: &SealerKey,
    rng: &mut R,
) -> Result<SealedPart, SealError> {
    contents.validate(job)?;
    roster.binding().scope.check(&job.scope)?;
    deal_out(job, contents, roster, key.tag(contents), rng)
}

/// Deals a fresh key to the members, and seals `contents` under it, whatever they are.
pub(crate) fn deal_out<R: RngCore + CryptoRng>(
    job: &JobSpec,
    contents: &SealedContents,
    roster: &SealingRoster,
    tag: Blake3Digest,
    rng: &mut R,
) -> Result<SealedPart, SealError> {
    let deal = sharing::deal(roster.committee(), rng);
    let mut part = SealedPart {
        key_set: roster.binding().key_set,
        epoch: roster.binding().epoch,
        roster: roster.digest(),
        tag,
        commitments: deal.commitments,
        shares: Vec::new(),
        ciphertext: Bytes::default(),
    };
    // The submitter is the body's operator: no other may submit it.
    let context = Context::of(job, &part, &job.operator);
    part.ciphertext = Bytes(encrypt(&deal.secret, &context, contents)?);
    for (member, to) in roster.keys() {
        let Some(share) = deal.shares.get(member.position()) else { continue };
        let mut randomness = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *randomness);
        let info = context.dealt(&part.ciphertext.0, member);
        let share = channel::seal(to, &*share.to_bytes(), &info, context.as_bytes(), &randomness)?;
        part.shares.push(EncryptedShare { member, share: Bytes(share) });
    }
    Ok(part)
}

/// The key of a sealed part. It encrypts one message only, so the nonce is zero.
pub(crate) fn cipher(secret: &Secret) -> ChaCha20Poly1305 {
    let key = Zeroizing::new(hash_parts(SEALED_PART_KEY, &[&*secret.expose()]));
    ChaCha20Poly1305::new(&(*key).into())
}

pub(crate) const NONCE: [u8; 12] = [0; 12];

fn encrypt(
    secret: &Secret,
    context: &Context,
    contents: &SealedContents,
) -> Result<Vec<u8>, SealError> {
    let padded = pad(contents);
    let payload = Payload { msg: &padded, aad: context.as_bytes() };
    cipher(secret).encrypt(&NONCE.into(), payload).map_err(|_| SealError::Cipher)
}

/// The encoding, a mark, and zeros up to a multiple of [`SealedPart::PADDING`].
pub(crate) fn pad(contents: &SealedContents) -> Zeroizing<Vec<u8>> {
    let encoded = Zeroizing::new(contents.to_wire());
    // Reserved at once: a buffer that grows leaves copies behind.
    let mut padded =
        Zeroizing::new(vec![0; (encoded.len() / SealedPart::PADDING + 1) * SealedPart::PADDING]);
    if let Some(room) = padded.get_mut(..encoded.len()) {
        room.copy_from_slice(&encoded);
    }
    if let Some(mark) = padded.get_mut(encoded.len()) {
        *mark = MARK;
    }
    padded
}

/// What was padded; `None` if it has no mark.
pub(crate) fn unpad(padded: &[u8]) -> Option<&[u8]> {
    let mark = padded.iter().rposition(|byte| *byte != 0)?;
    padded.get(..mark).filter(|_| padded.get(mark) == Some(&MARK))
}

const MARK: u8 = 0x80;

#[cfg(test)]
pub(crate) mod tests_only {
    //! A dealer who deals wrongly.

    use super::*;
    use crate::{member::SealingKey, sharing::Share};
    use veil_protocol_spec::{
        ParticipantIndex,
        scheduling::{Sealed, Submission},
    };

    /// Deals these bytes to a member in place of its share.
    pub(crate) fn deal(
        job: &JobSpec,
        part: &mut SealedPart,
        roster: &SealingRoster,
        member: ParticipantIndex,
        bytes: &[u8],
    ) {
        let context = Context::of(job, part, &job.operator);
        let info = context.dealt(&part.ciphertext.0, member);
        let (_, to) = roster.keys().find(|(of, _)| *of == member).unwrap();
        let share = channel::seal(to, bytes, &info, context.as_bytes(), &[4; 32]).unwrap();
        let dealt = part.shares.iter_mut().find(|dealt| dealt.member == member).unwrap();
        dealt.share = Bytes(share);
    }

    /// What a part deals to a member.
    pub(crate) fn dealt(job: &JobSpec, part: &SealedPart, own: &SealingKey) -> Share {
        let whole = JobSpec { sealed: Sealed::Part(Box::new(part.clone())), ..job.clone() };
        let (digest, operator) = (whole.digest(), job.operator);
        let submission =
            Submission { position: 0, job: digest, operator, leak_bits: 0, cancelled: false };
        own.deal(&whole, &submission).unwrap()
    }

    /// The shares of `part`, of a committee of one, encrypted anew beside another ciphertext.
    pub(crate) fn mix(
        job: &JobSpec,
        part: SealedPart,
        ciphertext: Bytes,
        roster: &SealingRoster,
    ) -> SealedPart {
        let member = ParticipantIndex::new(1).unwrap();
        let own = SealingKey::derive(&[1; 32], *roster.binding(), member);
        let share = dealt(job, &part, &own).to_bytes();
        let mut mixed = SealedPart { ciphertext, ..part };
        deal(job, &mut mixed, roster, member, &*share);
        mixed
    }
}
