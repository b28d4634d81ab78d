//! The part of a job that only winners of its replicas can open.
//!
//! # What is public of it
//! [`SealedPart`] travels in the job's body: the ciphertext, a share of its key for each member, encrypted to that
//! member, and commitments to the polynomial that the shares lie on. Who reads the body learns that something is
//! sealed, and its length rounded up to [`SealedPart::PADDING`].
//!
//! Who may open it and when is in `sealed.md`; the cryptography in `committee/sealed`.

use serde::{Deserialize, Serialize};
use veil_protocol_spec_base::{
    codec::Bytes,
    committee::Committee,
    ids::{Blake3Digest, Epoch, KeySetDigest, ParticipantIndex, ShareCommitment},
};

use crate::limits;

const PADDING: usize = SealedPart::PADDING;
/// Bytes of the tag of a ciphertext.
pub const TAG: usize = 16;
/// Bytes of a share that is encrypted to a member: an encapsulated key of X-Wing, two scalars, a tag.
pub const ENCRYPTED_SHARE: usize = 1120 + 64 + TAG;
/// Longest ciphertext: what is padded ends with a mark.
const CIPHERTEXT: usize = (limits::SEALED_BYTES / PADDING + 1) * PADDING + TAG;

/// One member's share of the key, encrypted to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncryptedShare {
    /// Whose it is.
    pub member: ParticipantIndex,
    /// HPKE: encapsulated key and ciphertext; [`ENCRYPTED_SHARE`] bytes.
    pub share: Bytes,
}

/// What everybody sees of the sealed part.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedPart {
    /// The key set in force when it was sealed.
    pub key_set: KeySetDigest,
    /// The epoch of the committee that it is sealed to.
    pub epoch: Epoch,
    /// Digest of the members' keys that the shares are encrypted to.
    pub roster: Blake3Digest,
    /// The operator's tag of what is sealed: equal in versions with equal contents, and nothing else to who does not have
    /// the operator's key. Versions that differ in nothing else but how they are sealed start nothing anew.
    pub tag: Blake3Digest,
    /// Commitments to the coefficients of the polynomial that the shares lie on, t+1 of them.
    pub commitments: Vec<ShareCommitment>,
    /// The shares of at least 2t+1 members, by member, strictly ascending.
    pub shares: Vec<EncryptedShare>,
    /// The padded [`SealedContents`](crate::contents::SealedContents) under the key.
    pub ciphertext: Bytes,
}

/// Why a sealed part cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum SealedPartError {
    /// No committee has such a threshold.
    #[error("the sealed part has {0} commitments: no committee has so many; seal the job again")]
    Commitments(usize),
    /// Too few members hold a share.
    #[error(
        "the sealed part has shares for {given} of {committee} members, and at least {needed} must hold one: seal \
         the job again when more members answer"
    )]
    TooFewShares { given: usize, needed: usize, committee: usize },
    /// A share is out of place, or of no member.
    #[error("the share of member {0} in the sealed part is out of place; seal the job again")]
    Order(ParticipantIndex),
    /// A share is no encrypted share.
    #[error(
        "the share of member {member} has {len} bytes in place of {ENCRYPTED_SHARE}; seal the job again"
    )]
    ShareLength { member: ParticipantIndex, len: usize },
    /// The ciphertext is missing, cut off, or too long.
    #[error(
        "the sealed ciphertext has {0} bytes: it is cut off, or longer than {max}; seal the job again",
        max = limits::SEALED_BYTES
    )]
    Ciphertext(usize),
}

impl SealedPart {
    /// Lengths of ciphertexts are multiples of this, beside their tag: they tell no more about what is sealed.
    pub const PADDING: usize = 1024;
    /// Longest encoding.
    pub const MAX_BYTES: usize =
        32 + 10 + 32 + 32 + 1 + 5 * 33 + 1 + 13 * (1 + 2 + ENCRYPTED_SHARE) + 3 + CIPHERTEXT;

    /// The committee that it is sealed to, by the number of commitments.
    ///
    /// # Errors
    /// [`SealedPartError::Commitments`].
    pub fn committee(&self) -> Result<Committee, SealedPartError> {
        let len = self.commitments.len();
        Committee::ALL
            .into_iter()
            .find(|committee| committee.reconstruction_threshold().get() == len)
            .ok_or(SealedPartError::Commitments(len))
    }

    /// The share that is encrypted to a member.
    #[must_use]
    pub fn share(&self, member: ParticipantIndex) -> Option<&[u8]> {
        let share = self.shares.iter().find(|share| share.member == member)?;
        Some(&share.share.0)
    }

    /// Checks what can be seen without any key.
    ///
    /// # Errors
    /// [`SealedPartError`].
    pub fn validate(&self) -> Result<(), SealedPartError> {
        let committee = self.committee()?;
        let mut last = 0;
        for EncryptedShare { member, share } in &self.shares {
            if member.get() <= last || !committee.contains(*member) {
                return Err(SealedPartError::Order(*member));
            }
            if share.0.len() != ENCRYPTED_SHARE {
                return Err(SealedPartError::ShareLength { member: *member, len: share.0.len() });
            }
            last = member.get();
        }
        let (given, needed) = (self.shares.len(), committee.signing_threshold().get());
        if given < needed {
            return Err(SealedPartError::TooFewShares { given, needed, committee: committee.n() });
        }
        let len = self.ciphertext.0.len();
        let padded = len.checked_sub(TAG).filter(|padded| *padded > 0 && len <= CIPHERTEXT);
        match padded.filter(|padded| padded.is_multiple_of(PADDING)) {
            Some(_) => Ok(()),
            None => Err(SealedPartError::Ciphertext(len)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(member: u8) -> ParticipantIndex {
        ParticipantIndex::new(member).unwrap()
    }

    fn part() -> SealedPart {
        SealedPart {
            key_set: KeySetDigest([1; 32]),
            epoch: Epoch(2),
            roster: Blake3Digest([3; 32]),
            tag: Blake3Digest([4; 32]),
            commitments: vec![ShareCommitment([2; 33]); 2],
            shares: (1..=3)
                .map(|i| EncryptedShare {
                    member: index(i),
                    share: Bytes(vec![i; ENCRYPTED_SHARE]),
                })
                .collect(),
            ciphertext: Bytes(vec![7; PADDING + TAG]),
        }
    }

    #[test]
    fn every_part_that_cannot_be_one_is_refused_by_name() {
        assert_eq!(part().validate(), Ok(()));
        type Change = fn(&mut SealedPart);
        let cases: [(Change, SealedPartError); 9] = [
            (|p| p.commitments.clear(), SealedPartError::Commitments(0)),
            (
                |p| p.commitments = vec![ShareCommitment([2; 33]); 6],
                SealedPartError::Commitments(6),
            ),
            (
                |p| _ = p.shares.pop(),
                SealedPartError::TooFewShares { given: 2, needed: 3, committee: 4 },
            ),
            (|p| p.shares.swap(0, 1), SealedPartError::Order(index(1))),
            (|p| p.shares[1].member = index(1), SealedPartError::Order(index(1))),
            (|p| p.shares[2].member = index(5), SealedPartError::Order(index(5))),
            (
                |p| _ = p.shares[0].share.0.pop(),
                SealedPartError::ShareLength { member: index(1), len: ENCRYPTED_SHARE - 1 },
            ),
            (|p| p.ciphertext.0.clear(), SealedPartError::Ciphertext(0)),
            (|p| _ = p.ciphertext.0.pop(), SealedPartError::Ciphertext(PADDING + TAG - 1)),
        ];
        for (i, (change, expected)) in cases.into_iter().enumerate() {
            let mut changed = part();
            change(&mut changed);
            assert_eq!(changed.validate(), Err(expected), "{i}");
        }
    }
}
