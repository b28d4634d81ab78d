//! Pedersen's verifiable secret sharing over secp256k1.
//!
//! The secret a_0 is the constant coefficient of a polynomial a of degree t, blinded by a second polynomial b. The
//! dealer publishes C_i = a_i G + b_i H. Member j holds (a(j), b(j)), and whoever sees it checks
//! a(j) G + b(j) H = sum over i of j^i C_i.
//!
//! # Security
//! The commitments hide a perfectly: also who computes discrete logarithms learns nothing from them, so what is
//! recorded today stays closed to a quantum computer. They bind whoever cannot find the logarithm of H to the base G
//! while the job lives; H is the hash of a name, so nobody knows it. t shares are independent of the secret.

use std::sync::LazyLock;

use k256::{
    AffinePoint, ProjectivePoint, Scalar,
    elliptic_curve::{
        Field, PrimeField,
        ops::MulByGenerator,
        sec1::{FromEncodedPoint, ToEncodedPoint},
    },
};
use rand::{CryptoRng, RngCore};
use veil_protocol_spec::{
    Committee, ParticipantIndex, ShareCommitment,
    domain::{SHARE_GENERATOR, hash_parts},
};
use zeroize::{Zeroize, Zeroizing};

/// H: the first of the points with an even y-coordinate whose x-coordinates are hashes of a counter.
static H: LazyLock<ProjectivePoint> = LazyLock::new(|| {
    let points = (0_u64..).filter_map(|counter| {
        let x = hash_parts(SHARE_GENERATOR, &[&counter.to_le_bytes()]);
        let mut compressed = [2; 33];
        compressed[1..].copy_from_slice(&x);
        decode(&ShareCommitment(compressed))
    });
    // Every second hash is one.
    points.take(1).fold(ProjectivePoint::GENERATOR, |_, found| found)
});

/// One member's share: values of both polynomials.
///
/// # Security
/// Zeroized on drop, never printed.
#[derive(Clone, Zeroize)]
#[zeroize(drop)]
pub struct Share {
    value: Scalar,
    blinding: Scalar,
}

impl core::fmt::Debug for Share {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Share(<redacted>)")
    }
}

/// The secret that is shared.
///
/// # Security
/// Zeroized on drop, never printed.
#[derive(Clone, Zeroize)]
#[zeroize(drop)]
pub struct Secret(Scalar);

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret(<redacted>)")
    }
}

/// What a dealer makes.
#[derive(Debug)]
pub struct Deal {
    /// The secret.
    pub secret: Secret,
    /// Commitments to the coefficients.
    pub commitments: Vec<ShareCommitment>,
    /// The share of participant 1, 2, ...
    pub shares: Vec<Share>,
}

/// Bytes are no share, or no share of this sharing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// Another length, or a number that is no scalar.
    #[error("the bytes are no share")]
    Malformed,
    /// A commitment is no point of the curve.
    #[error("a commitment of the sealed part is no point of the curve")]
    Commitment,
    /// The share is not on the polynomial that was committed to.
    #[error("the share does not open its commitments")]
    Mismatch,
}

impl Share {
    /// Both values, big-endian.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 64]> {
        let mut bytes = Zeroizing::new([0; 64]);
        bytes[..32].copy_from_slice(&self.value.to_bytes());
        bytes[32..].copy_from_slice(&self.blinding.to_bytes());
        bytes
    }

    /// # Errors
    /// [`ShareError::Malformed`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ShareError> {
        let (value, blinding) = bytes.split_at_checked(32).ok_or(ShareError::Malformed)?;
        let (value, blinding) = (scalar(value)?, scalar(blinding)?);
        Ok(Self { value, blinding })
    }

    /// Checks it as the share of `member`.
    ///
    /// # Errors
    /// [`ShareError::Commitment`], [`ShareError::Mismatch`].
    pub fn verify(
        &self,
        member: ParticipantIndex,
        commitments: &[ShareCommitment],
    ) -> Result<(), ShareError> {
        let x = point(member);
        let mut expected = ProjectivePoint::IDENTITY;
        for commitment in commitments.iter().rev() {
            expected = expected * x + decode(commitment).ok_or(ShareError::Commitment)?;
        }
        if commit(&self.value, &self.blinding) == expected {
            Ok(())
        } else {
            Err(ShareError::Mismatch)
        }
    }
}

impl Secret {
    /// Its bytes, for the key that is derived from it.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes().into())
    }

    /// Out of t+1 shares that were verified, of different members; more are not used. `None` if there are fewer.
    #[must_use]
    pub fn recover(committee: Committee, shares: &[(ParticipantIndex, Share)]) -> Option<Self> {
        let shares = shares.get(..committee.reconstruction_threshold().get())?;
        let mut secret = Zeroizing::new(Scalar::ZERO);
        for (i, (member, share)) in shares.iter().enumerate() {
            // Lagrange at 0: product of x_j / (x_j - x_i).
            let mut coefficient = Scalar::ONE;
            for (j, (other, _)) in shares.iter().enumerate() {
                if i != j {
                    let difference = point(*other) - point(*member);
                    let inverse: Option<Scalar> = difference.invert().into();
                    coefficient *= point(*other) * inverse?;
                }
            }
            *secret += share.value * coefficient;
        }
        Some(Self(*secret))
    }
}

/// Shares a fresh secret among a committee: t+1 shares recover it, t tell nothing.
pub fn deal<R: RngCore + CryptoRng>(committee: Committee, rng: &mut R) -> Deal {
    let degree = committee.max_faulty().get();
    let mut polynomial = || {
        let mut coefficients = Zeroizing::new(vec![Scalar::ZERO; degree + 1]);
        coefficients.iter_mut().for_each(|one| *one = Scalar::random(&mut *rng));
        coefficients
    };
    let (values, blindings) = (polynomial(), polynomial());
    let commitments = values.iter().zip(blindings.iter());
    let commitments = commitments.map(|(value, blinding)| encode(&commit(value, blinding)));
    let at = |coefficients: &[Scalar], x: Scalar| {
        coefficients.iter().rev().fold(Scalar::ZERO, |sum, coefficient| sum * x + coefficient)
    };
    let share = |member| {
        let x = point(member);
        Share { value: at(&values, x), blinding: at(&blindings, x) }
    };
    Deal {
        secret: Secret(values.first().copied().unwrap_or(Scalar::ZERO)),
        commitments: commitments.collect(),
        shares: committee.participants().map(share).collect(),
    }
}

fn point(member: ParticipantIndex) -> Scalar {
    Scalar::from(u64::from(member.get()))
}

fn scalar(bytes: &[u8]) -> Result<Scalar, ShareError> {
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| ShareError::Malformed)?;
    Option::from(Scalar::from_repr(bytes.into())).ok_or(ShareError::Malformed)
}

fn commit(value: &Scalar, blinding: &Scalar) -> ProjectivePoint {
    ProjectivePoint::mul_by_generator(value) + *H * blinding
}

fn encode(point: &ProjectivePoint) -> ShareCommitment {
    let mut bytes = [0; 33];
    // The identity, which is one byte, comes out of two random scalars with probability 2^-256.
    let encoded = point.to_affine().to_encoded_point(true);
    if encoded.as_bytes().len() == bytes.len() {
        bytes.copy_from_slice(encoded.as_bytes());
    }
    ShareCommitment(bytes)
}

fn decode(commitment: &ShareCommitment) -> Option<ProjectivePoint> {
    let encoded = k256::EncodedPoint::from_bytes(commitment.as_bytes()).ok()?;
    let point: Option<AffinePoint> = AffinePoint::from_encoded_point(&encoded).into();
    point.map(ProjectivePoint::from)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    fn dealt(n: u8) -> (Committee, Deal) {
        let committee = Committee::new(n).unwrap();
        (committee, deal(committee, &mut ChaCha20Rng::seed_from_u64(u64::from(n))))
    }

    fn held(committee: Committee, deal: &Deal) -> Vec<(ParticipantIndex, Share)> {
        committee.participants().zip(deal.shares.iter().cloned()).collect()
    }

    #[test]
    fn the_second_generator_is_a_known_point_and_not_the_first() {
        assert_ne!(*H, ProjectivePoint::GENERATOR);
        assert_eq!(
            encode(&H).to_string(),
            "02e8f4533ea4afa86c6124be42177532205d883a3db9bffd40b7736dfb153ba2f3"
        );
    }

    #[test]
    fn any_shares_beyond_t_recover_the_secret_and_fewer_recover_nothing() {
        for n in [1, 4, 7, 10, 13] {
            let (committee, deal) = dealt(n);
            let threshold = committee.reconstruction_threshold().get();
            assert_eq!(deal.commitments.len(), threshold);
            let shares = held(committee, &deal);
            for (member, share) in &shares {
                assert_eq!(share.verify(*member, &deal.commitments), Ok(()));
            }
            // Every run of neighbours, round the end.
            for first in 0..shares.len() {
                let mut some = shares.clone();
                some.rotate_left(first);
                let found = Secret::recover(committee, &some[..threshold]).unwrap();
                assert_eq!(found.expose(), deal.secret.expose(), "{committee} from {first}");
                assert!(Secret::recover(committee, &some[..threshold - 1]).is_none());
            }
        }
    }

    #[test]
    fn a_share_is_one_members_of_one_sharing() {
        let (committee, deal) = dealt(7);
        let shares = held(committee, &deal);
        let (first, share) = shares[0].clone();
        assert_eq!(share.verify(shares[1].0, &deal.commitments), Err(ShareError::Mismatch));
        let changed = Share { value: share.value + Scalar::ONE, blinding: share.blinding };
        assert_eq!(changed.verify(first, &deal.commitments), Err(ShareError::Mismatch));
        let changed = Share { value: share.value, blinding: share.blinding + Scalar::ONE };
        assert_eq!(changed.verify(first, &deal.commitments), Err(ShareError::Mismatch));
        let (_, other) = dealt(10);
        assert_eq!(share.verify(first, &other.commitments[..3]), Err(ShareError::Mismatch));
        let no_point = [ShareCommitment([9; 33])];
        assert_eq!(share.verify(first, &no_point), Err(ShareError::Commitment));
    }

    #[test]
    fn bytes_that_are_no_share_are_refused_and_printing_redacts() {
        let (_, deal) = dealt(4);
        let bytes = deal.shares[0].to_bytes();
        assert_eq!(Share::from_bytes(&*bytes).unwrap().to_bytes(), bytes);
        assert_eq!(Share::from_bytes(&bytes[1..]).unwrap_err(), ShareError::Malformed);
        assert_eq!(Share::from_bytes(&[0xff; 64]).unwrap_err(), ShareError::Malformed);
        let printed = format!("{deal:?}");
        assert!(printed.contains("Share(<redacted>)") && printed.contains("Secret(<redacted>)"));
    }
}
