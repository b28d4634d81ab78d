//! The two groups of BLS12-446: their encoding, membership, and multiplication by the endomorphisms.

use ark_ec::{
    AdditiveGroup, AffineRepr,
    bls12::Bls12Config,
    short_weierstrass::{Affine, Projective, SWCurveConfig},
};
use ark_ff::{BigInt, BigInteger, Field, Fp6Config, Fp12Config, PrimeField, Zero};
pub(crate) use tfhe_zk_pok::curve_446::{Fq, Fq2, Fr};
use tfhe_zk_pok::{
    curve_446::{Config, Fq6Config, Fq12Config, g1, g2},
    curve_api::{Bls12_446, Curve, CurveGroupOps, PairingGroupOps, bls12_446},
    serialization::{SerializableAffine, SerializableFp, SerializableG2Affine},
};

pub(crate) type G1Affine = Affine<g1::Config>;
pub(crate) type G1Projective = Projective<g1::Config>;
pub(crate) type G2Affine = Affine<g2::Config>;
pub(crate) type G2Projective = Projective<g2::Config>;

/// Bytes of a coordinate. It has 446 bits, so the two highest are free.
const COORDINATE: usize = 56;
/// The highest bit of the last coordinate: the larger one of the two values of y.
const LARGER: u8 = 0x80;
/// |x|, the number from which the curve is made; x itself is negative.
const U: u128 = (Config::X[1] as u128) << 64 | Config::X[0] as u128;
/// Width of the signed windows.
const WINDOW: usize = 5;
/// Odd multiples in a table: 1, 3, ..., 15.
const TABLE: usize = 1 << (WINDOW - 2);

/// A point of one of the two groups.
pub(crate) trait Point: AffineRepr<ScalarField = Fr> {
    /// Length of its encoding.
    const BYTES: usize;

    /// Appends its encoding: x, little-endian, with the choice of y in the highest bit.
    fn write(&self, out: &mut Vec<u8>);

    /// The one point of which these are the encoding; `None` if it is not in the group of prime order. There
    /// is no encoding of the neutral element.
    fn read(bytes: &[u8]) -> Option<Self>;

    /// `scalar` times a point of the group of prime order.
    fn times(&self, scalar: &Fr) -> Self::Group;
}

impl Point for G1Affine {
    const BYTES: usize = COORDINATE;

    fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        write(&self.x, out);
        mark(&mut out[start..], self.y > -self.y);
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (bytes, larger) = unmark(bytes)?;
        let point = Self::get_point_from_x_unchecked(read(&bytes)?, larger)?;
        g1::Config::is_in_correct_subgroup_assuming_on_curve(&point).then_some(point)
    }

    fn times(&self, scalar: &Fr) -> G1Projective {
        // The endomorphism multiplies by -u^2 (eprint 2021/1130, section 6).
        let [d0, d1, d2, d3] = digits(scalar);
        let table = odd_multiples(G1Projective::from(*self));
        let image = table.map(|p| -G1Projective { x: p.x * g1::BETA, ..p });
        combine(&[table, image], &[join(d0, d1), join(d2, d3)])
    }
}

impl Point for G2Affine {
    const BYTES: usize = 2 * COORDINATE;

    fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        write(&self.x.c0, out);
        write(&self.x.c1, out);
        mark(&mut out[start..], self.y > -self.y);
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (bytes, larger) = unmark(bytes)?;
        let (c0, c1) = bytes.split_at_checked(COORDINATE)?;
        let point = Self::get_point_from_x_unchecked(Fq2::new(read(c0)?, read(c1)?), larger)?;
        is_in_group(&point).then_some(point)
    }

    fn times(&self, scalar: &Fr) -> G2Projective {
        // The endomorphism multiplies by x = -u.
        let next = |table: [G2Projective; TABLE]| table.map(|p| -endomorphism(p));
        let first = odd_multiples(G2Projective::from(*self));
        let second = next(first);
        let third = next(second);
        combine(&[first, second, third, next(third)], &digits(scalar).map(|d| join(d, 0)))
    }
}

/// Whether a point of the curve of G2 is in the group of prime order: the endomorphism multiplies it by
/// x (eprint 2021/1130). Such a point has an order that divides both r h1 and r h2, and the cofactors h1
/// and h2 of BLS12-446 have no common divisor.
fn is_in_group(point: &G2Affine) -> bool {
    let point = G2Projective::from(*point);
    let mut multiple = G2Projective::ZERO;
    for bit in (0..u128::BITS - U.leading_zeros()).rev() {
        multiple.double_in_place();
        if U >> bit & 1 == 1 {
            multiple += point;
        }
    }
    !point.is_zero() && endomorphism(point) == -multiple
}

/// (x, y) -> (x^p / v^2, y^p / v^3) with v = (1 + i)^((p-1)/6): the Frobenius map, seen on the twist.
fn endomorphism(point: G2Projective) -> G2Projective {
    let (v2, v3) = twist();
    let conjugate = |f: Fq2| Fq2::new(f.c0, -f.c1);
    G2Projective { x: conjugate(point.x) * v2, y: conjugate(point.y) * v3, z: conjugate(point.z) }
}

fn twist() -> (Fq2, Fq2) {
    static TWIST: std::sync::OnceLock<(Fq2, Fq2)> = std::sync::OnceLock::new();
    *TWIST.get_or_init(|| {
        let v2 = Fq6Config::FROBENIUS_COEFF_FP6_C1[1];
        let v3 = v2 * Fq12Config::FROBENIUS_COEFF_FP12_C1[1];
        // Neither is zero: they are powers of 1 + i.
        (v2.inverse().unwrap_or_default(), v3.inverse().unwrap_or_default())
    })
}

fn odd_multiples<G: AdditiveGroup>(point: G) -> [G; TABLE] {
    let double = point.double();
    let mut next = point;
    core::array::from_fn(|_| {
        let this = next;
        next += double;
        this
    })
}

/// The scalar in base u: the order of the groups is less than u^4.
fn digits(scalar: &Fr) -> [u128; 4] {
    let mut rest = scalar.into_bigint();
    core::array::from_fn(|_| {
        let mut remainder = 0_u128;
        let mut quotient = BigInt::<5>::zero();
        for bit in (0..320).rev() {
            remainder = remainder << 1 | u128::from(rest.get_bit(bit));
            quotient.mul2();
            if remainder >= U {
                remainder -= U;
                quotient.0[0] |= 1;
            }
        }
        rest = quotient;
        remainder
    })
}

/// low + high u.
fn join(low: u128, high: u128) -> BigInt<3> {
    let mut sum = BigInt::<3>::zero();
    for bit in (0..128).rev() {
        sum.mul2();
        if high >> bit & 1 == 1 {
            sum.add_with_carry(&wide(U));
        }
    }
    sum.add_with_carry(&wide(low));
    sum
}

const fn wide(value: u128) -> BigInt<3> {
    BigInt::new([value as u64, (value >> 64) as u64, 0])
}

/// The sum of multiples of points that are given by their odd multiples.
fn combine<G: AdditiveGroup, const K: usize>(
    tables: &[[G; TABLE]; K],
    scalars: &[BigInt<3>; K],
) -> G {
    let signed = scalars.map(|scalar| scalar.find_wnaf(WINDOW).unwrap_or_default());
    let length = signed.iter().map(Vec::len).max().unwrap_or(0);
    let mut sum = G::ZERO;
    for at in (0..length).rev() {
        sum.double_in_place();
        for (table, digits) in tables.iter().zip(&signed) {
            let digit = digits.get(at).copied().unwrap_or(0);
            let multiple = table[(digit.unsigned_abs() / 2) as usize];
            match digit {
                0 => {}
                1.. => sum += multiple,
                _ => sum -= multiple,
            }
        }
    }
    sum
}

fn write(coordinate: &Fq, out: &mut Vec<u8>) {
    for limb in coordinate.into_bigint().0 {
        out.extend_from_slice(&limb.to_le_bytes());
    }
}

/// `None` if the number is not below the modulus: every element has one encoding.
fn read(bytes: &[u8]) -> Option<Fq> {
    let mut limbs = [0; 7];
    for (limb, bytes) in limbs.iter_mut().zip(bytes.chunks_exact(8)) {
        *limb = u64::from_le_bytes(bytes.try_into().ok()?);
    }
    Fq::from_bigint(BigInt::new(limbs))
}

fn mark(encoding: &mut [u8], larger: bool) {
    if let Some(last) = encoding.last_mut().filter(|_| larger) {
        *last |= LARGER;
    }
}

fn unmark(encoding: &[u8]) -> Option<(Vec<u8>, bool)> {
    let mut bytes = encoding.to_vec();
    let last = bytes.last_mut()?;
    let larger = *last & LARGER != 0;
    *last &= !LARGER;
    Some((bytes, larger))
}

/// A point as tfhe has it.
pub(crate) fn in_first(point: &G1Affine) -> Option<bls12_446::G1Affine> {
    SerializableAffine::<SerializableFp>::uncompressed(*point).try_into().ok()
}

/// A point as tfhe has it.
pub(crate) fn in_second(point: &G2Affine) -> Option<bls12_446::G2Affine> {
    SerializableG2Affine::uncompressed(*point).try_into().ok()
}

/// tfhe's pairing.
pub(crate) fn pair(first: &G1Affine, second: &G2Affine) -> Option<<Bls12_446 as Curve>::Gt> {
    let first = bls12_446::G1::projective(in_first(first)?);
    let second = bls12_446::G2::projective(in_second(second)?);
    Some(PairingGroupOps::pairing(first, second))
}

#[cfg(test)]
mod tests {
    use ark_ec::CurveGroup;

    use super::*;

    fn scalars() -> impl Iterator<Item = Fr> {
        let small = [0_u64, 1, 2, 15, 16, 17, u64::MAX].map(Fr::from);
        let near = [-Fr::from(1_u64), -Fr::from(2_u64), Fr::from(U), Fr::from(U) * Fr::from(U)];
        let hashed = (0..40_u8).map(|i| {
            let mut bytes = [0; 64];
            blake3::Hasher::new().update(&[i]).finalize_xof().fill(&mut bytes);
            Fr::from_le_bytes_mod_order(&bytes)
        });
        small.into_iter().chain(near).chain(hashed)
    }

    #[test]
    fn multiplication_agrees_with_double_and_add() {
        let (mut g, mut h) = (G1Affine::generator(), G2Affine::generator());
        for scalar in scalars() {
            assert_eq!(g.times(&scalar), g.mul_bigint(scalar.into_bigint()), "{scalar}");
            assert_eq!(h.times(&scalar), h.mul_bigint(scalar.into_bigint()), "{scalar}");
            g = (g + g.times(&Fr::from(7_u64))).into_affine();
            h = (h + h.times(&Fr::from(7_u64))).into_affine();
        }
    }

    #[test]
    fn points_have_one_encoding() {
        for scalar in scalars().skip(1) {
            let (g, h) = (
                G1Affine::generator().times(&scalar).into_affine(),
                G2Affine::generator().times(&scalar).into_affine(),
            );
            let (mut a, mut b) = (Vec::new(), Vec::new());
            g.write(&mut a);
            h.write(&mut b);
            assert_eq!((a.len(), b.len()), (G1Affine::BYTES, G2Affine::BYTES));
            assert_eq!((G1Affine::read(&a), G2Affine::read(&b)), (Some(g), Some(h)));
            // x + p is the same coordinate, and is refused.
            let mut limbs = BigInt::<7>::new(core::array::from_fn(|i| {
                u64::from_le_bytes(a[8 * i..8 * i + 8].try_into().unwrap())
            }));
            limbs.0[6] &= u64::MAX >> 1;
            limbs.add_with_carry(&Fq::MODULUS);
            let more: Vec<u8> = limbs.0.into_iter().flat_map(u64::to_le_bytes).collect();
            assert_eq!(G1Affine::read(&more), None);
        }
    }

    #[test]
    fn points_outside_the_groups_are_refused() {
        // (0, 1) has order 3; most points of both curves have an order beyond r.
        assert_eq!(G1Affine::read(&[0; G1Affine::BYTES]), None);
        let (mut on_first, mut on_second) = (0, 0);
        for x in 1..40_u64 {
            let (x1, x2) = (Fq::from(x), Fq2::new(Fq::from(x), Fq::from(1_u64)));
            let mut bytes = Vec::new();
            write(&x1, &mut bytes);
            if let Some(point) = G1Affine::get_point_from_x_unchecked(x1, false) {
                on_first += 1;
                assert!(!point.is_in_correct_subgroup_assuming_on_curve());
                assert_eq!(G1Affine::read(&bytes), None);
            }
            write(&Fq::from(1_u64), &mut bytes);
            if let Some(point) = G2Affine::get_point_from_x_unchecked(x2, false) {
                on_second += 1;
                // By definition: r times it is not neutral.
                assert!(!point.mul_bigint(Fr::MODULUS).is_zero());
                assert_eq!(G2Affine::read(&bytes), None);
            }
        }
        assert!(on_first > 5 && on_second > 5);
        assert_eq!((G1Affine::read(&[]), G2Affine::read(&[0xff; 112])), (None, None));
    }
}
