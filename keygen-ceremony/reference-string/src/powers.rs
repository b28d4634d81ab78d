//! The powers themselves: their encoding, how they are raised, and the check that they are powers.

use ark_ec::{AffineRepr, CurveGroup, VariableBaseMSM};
use ark_ff::{AdditiveGroup, BigInt, PrimeField};
use rayon::prelude::*;
use veil_protocol_spec::{
    Blake3Digest,
    domain::{self, hash_parts},
};

use crate::{
    curve::{Fr, G1Affine, G1Projective, G2Affine, G2Projective, Point, pair},
    error::Refused,
    size::Size,
};

/// The powers P_1 to P_2n of one exponent in the first group, without P_(n+1), and Q_1 to Q_n in the second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Powers {
    size: Size,
    pub(crate) first: Vec<G1Affine>,
    pub(crate) second: Vec<G2Affine>,
}

impl Powers {
    /// Step 1: "start with exponent 1".
    #[must_use]
    pub fn start(size: Size) -> Self {
        let first = vec![G1Affine::generator(); size.first()];
        Self { size, first, second: vec![G2Affine::generator(); size.n()] }
    }

    /// Reads powers; each is in its group, but they need not be powers of one exponent.
    ///
    /// # Errors
    /// [`Refused::Length`], [`Refused::Point`].
    pub fn read(size: Size, bytes: &[u8]) -> Result<Self, Refused> {
        let (given, expected) = (bytes.len(), size.bytes());
        if given != expected {
            return Err(Refused::Length { given, expected });
        }
        let (first, second) = bytes.split_at(size.first() * G1Affine::BYTES);
        let (first, second) = rayon::join(|| read_all(first, 0), || read_all(second, size.first()));
        Ok(Self { size, first: first?, second: second? })
    }

    /// The one encoding of these powers.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.size.bytes());
        self.first.iter().for_each(|point| point.write(&mut bytes));
        self.second.iter().for_each(|point| point.write(&mut bytes));
        bytes
    }

    /// How many powers there are.
    #[must_use]
    pub const fn size(&self) -> Size {
        self.size
    }

    /// Step 2: "member j raises the powers by its tau_j". P_(n+1) is never computed.
    pub(crate) fn raise(&self, tau: &Fr) -> Self {
        let n = self.size.n();
        let exponents: Vec<Fr> =
            core::iter::successors(Some(*tau), |power| Some(*power * tau)).take(2 * n).collect();
        let of_first: Vec<Fr> = [&exponents[..n], &exponents[n + 1..]].concat();
        let first: Vec<G1Projective> =
            self.first.par_iter().zip(&of_first).map(|(point, e)| point.times(e)).collect();
        let second: Vec<G2Projective> =
            self.second.par_iter().zip(&exponents).map(|(point, e)| point.times(e)).collect();
        Self {
            size: self.size,
            first: G1Projective::normalize_batch(&first),
            second: G2Projective::normalize_batch(&second),
        }
    }

    /// Step 5: that all are the powers of one exponent, by consecutive pairs with random weights of 128 bits
    /// in one equation of pairings. P_(n+1) is in none of the pairs; that P_(n+2) is the right one is a pair of
    /// its own.
    ///
    /// # Errors
    /// [`Refused::NotPowers`].
    pub fn check(&self) -> Result<(), Refused> {
        let n = self.size.n();
        let (g, h) = (G1Affine::generator(), G2Affine::generator());
        let mut weights = Weights::of(self);
        // e(g, sum w_i Q_(i+1)) = e(P_1, sum w_i Q_i) for i = 0 .. n-1, with Q_0 = h.
        let of_second = weights.take(n);
        // e(sum w_i P_(i+1), h) = e(sum w_i P_i, Q_1) for i = 0 .. 2n-1 except n and n+1, with P_0 = g.
        let of_first = weights.take(2 * n - 2);
        // e(w P_(n+2), h) = e(w P_n, Q_2).
        let across = weights.take(1)[0];
        let lower: Vec<G2Affine> =
            core::iter::once(h).chain(self.second.iter().copied().take(n - 1)).collect();
        let below: Vec<G1Affine> = core::iter::once(g)
            .chain(self.first[..n - 1].iter().copied())
            .chain(self.first[n..2 * n - 2].iter().copied())
            .collect();
        let above: Vec<G1Affine> = [&self.first[..n], &self.first[n + 1..]].concat();
        let (p, q, gap) = (self.first[0], &self.second, self.first[n]);
        let sum = |points: &[G1Affine]| G1Projective::msm_unchecked(points, &of_first);
        let ((upper2, lower2), (upper1, lower1)) = rayon::join(
            || {
                let sum = |points: &[G2Affine]| G2Projective::msm_unchecked(points, &of_second);
                (sum(&self.second), sum(&lower))
            },
            || (sum(&above), sum(&below)),
        );
        let upper1 = (upper1 + gap.times(&across)).into_affine();
        let across = self.first[n - 1].times(&across).into_affine();
        let equal = || {
            let left = pair(&g, &upper2.into_affine())? + pair(&upper1, &h)?;
            let right = pair(&p, &lower2.into_affine())?
                + pair(&lower1.into_affine(), &q[0])?
                + pair(&across, &q[1])?;
            (left == right).then_some(())
        };
        equal().ok_or(Refused::NotPowers)
    }

    /// What the weights and the labels of a string are derived from.
    pub(crate) fn digest(&self) -> Blake3Digest {
        Blake3Digest(hash_parts(domain::REFERENCE_STRING_POWERS, &[&self.to_bytes()]))
    }
}

fn read_all<P: Point>(bytes: &[u8], before: usize) -> Result<Vec<P>, Refused> {
    let read = |(i, bytes)| P::read(bytes).ok_or(Refused::Point(before + i));
    bytes.par_chunks_exact(P::BYTES).enumerate().map(read).collect()
}

/// Numbers of 128 bits that nobody could know before the powers were there.
struct Weights(blake3::OutputReader);

impl Weights {
    fn of(powers: &Powers) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(domain::REFERENCE_STRING_WEIGHTS);
        Self(hasher.update(&powers.digest().0).finalize_xof())
    }

    fn take(&mut self, count: usize) -> Vec<Fr> {
        let mut next = || {
            let (mut low, mut high) = ([0; 8], [0; 8]);
            self.0.fill(&mut low);
            self.0.fill(&mut high);
            let limbs = [u64::from_le_bytes(low), u64::from_le_bytes(high), 0, 0, 0];
            Fr::from_bigint(BigInt::new(limbs)).unwrap_or(Fr::ZERO)
        };
        (0..count).map(|_| next()).collect()
    }
}
