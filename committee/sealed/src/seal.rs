//! The operator: step 2 of `sealed.md`.

use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit,
    aead::{Aead, Payload},
};
use rand::{CryptoRng, RngCore};
use veil_protocol_spec::{
    Wire,
    codec::Bytes,
    domain::{SEALED_PART_KEY, hash_parts},
    scheduling::{
        BindingMismatch, ContentsError, EncryptedShare, JobSpec, SealedContents, SealedPart,
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

/// Seals `contents` for the winners of the replicas of `job`, whose own sealed part does not matter.
///
/// # Errors
/// [`SealError`]: nothing is sealed then.
pub fn seal<R: RngCore + CryptoRng>(
    job: &JobSpec,
    contents: &SealedContents,
    roster: &SealingRoster,
    rng: &mut R,
) -> Result<SealedPart, SealError> {
    contents.validate(job)?;
    roster.binding().scope.check(&job.scope)?;
    deal_out(job, contents, roster, rng)
}

/// Deals a fresh key to the members, and seals `contents` under it, whatever they are.
pub(crate) fn deal_out<R: RngCore + CryptoRng>(
    job: &JobSpec,
    contents: &SealedContents,
    roster: &SealingRoster,
    rng: &mut R,
) -> Result<SealedPart, SealError> {
    let deal = sharing::deal(roster.committee(), rng);
    let mut part = SealedPart {
        key_set: roster.binding().key_set,
        epoch: roster.binding().epoch,
        roster: roster.digest(),
        commitments: deal.commitments,
        shares: Vec::new(),
        ciphertext: Bytes::default(),
    };
    // The submitter is the body's operator: no other may submit it.
    let context = Context::of(job, &part, &job.operator);
    part.ciphertext = Bytes(encrypt(&deal.secret, &context, contents)?);
    for (member, key) in roster.keys() {
        let Some(share) = deal.shares.get(member.position()) else { continue };
        let mut randomness = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *randomness);
        let info = context.dealt(&part.ciphertext.0, member);
        let share = channel::seal(key, &*share.to_bytes(), &info, context.as_bytes(), &randomness)?;
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
    use crate::member::SealingKey;
    use veil_protocol_spec::{ParticipantIndex, scheduling::Submission};

    /// The shares of `part`, of a committee of one, encrypted anew beside another ciphertext.
    pub(crate) fn mix(
        job: &JobSpec,
        part: SealedPart,
        ciphertext: Bytes,
        roster: &SealingRoster,
    ) -> SealedPart {
        let context = Context::of(job, &part, &job.operator);
        let member = ParticipantIndex::new(1).unwrap();
        let own = SealingKey::derive(&[1; 32], *roster.binding(), member);
        let whole = JobSpec {
            sealed: veil_protocol_spec::scheduling::Sealed::Part(Box::new(part.clone())),
            ..job.clone()
        };
        let (digest, operator) = (whole.digest(), job.operator);
        let submission =
            Submission { position: 0, job: digest, operator, leak_bits: 0, cancelled: false };
        let share = own.deal(&whole, &submission).unwrap().to_bytes();
        let info = context.dealt(&ciphertext.0, member);
        let (_, key) = roster.keys().next().unwrap();
        let share = channel::seal(key, &*share, &info, context.as_bytes(), &[4; 32]).unwrap();
        let shares = vec![EncryptedShare { member, share: Bytes(share) }];
        SealedPart { shares, ciphertext, ..part }
    }
}
