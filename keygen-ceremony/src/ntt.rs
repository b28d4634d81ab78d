//! Exact products modulo 2^64 and 2^128 in Z\[X\]/(X^N + 1), by number-theoretic transforms over
//! enough 30-bit primes (5 and 10) and the Chinese remainder theorem. `tfhe-ntt` has the transforms
//! and the reconstruction; what is added here is
//!
//! - the split of a product into its halves, so that a key is transformed once and a sum of
//!   products is transformed back once, and
//! - a vectorised reduction of 128-bit words modulo ten primes, which `tfhe-ntt` does with 128-bit
//!   divisions (the larger part of the whole ceremony before).
//!
//! Coefficients are taken as unsigned integers below 2^w; with up to `MAX_TERMS` products of
//! N <= 2^12 coefficients a sum stays below half the product of the primes (2^149.9 and 2^299.9):
//! 2 w + 12 + 3 bits.

use tfhe_ntt::{native64, native128, prime32};
use veil_committee::ring::Word;

/// Products that may be summed in one spectrum.
pub const MAX_TERMS: usize = 8;

/// A word with exact transforms.
pub trait NttWord: Word {
    /// Transforms for one N.
    type Plan: Send + Sync;
    /// Primes; a spectrum is this many times N residues.
    const PRIMES: usize;

    /// The plan for polynomials of `size` coefficients; `None` if there is none for that size.
    fn plan(size: usize) -> Option<Self::Plan>;
    /// Transforms `values` (N words) into `spectrum` (PRIMES N residues).
    fn forward(plan: &Self::Plan, values: &[Self], spectrum: &mut [u32]);
    /// Transforms back; the spectrum is used up. One factor of the product must be normalised.
    fn inverse(plan: &Self::Plan, spectrum: &mut [u32], values: &mut [Self]);
    /// The transform modulo one of the primes.
    fn modulo(plan: &Self::Plan, prime: usize) -> &prime32::Plan;
}

/// acc += a b, for spectra.
pub fn multiply_accumulate<W: NttWord>(plan: &W::Plan, acc: &mut [u32], a: &[u32], b: &[u32]) {
    let size = acc.len() / W::PRIMES;
    let parts = acc.chunks_exact_mut(size).zip(a.chunks_exact(size)).zip(b.chunks_exact(size));
    for (prime, ((acc, a), b)) in parts.enumerate() {
        W::modulo(plan, prime).mul_accumulate(acc, a, b);
    }
}

/// Divides by N, which the inverse transform leaves to the caller: once, on the key's side.
pub fn normalize<W: NttWord>(plan: &W::Plan, spectrum: &mut [u32]) {
    let size = spectrum.len() / W::PRIMES;
    for (prime, part) in spectrum.chunks_exact_mut(size).enumerate() {
        W::modulo(plan, prime).normalize(part);
    }
}

/// Splits a spectrum into its residues modulo each prime.
fn split<const PRIMES: usize>(spectrum: &mut [u32]) -> [&mut [u32]; PRIMES] {
    let size = spectrum.len() / PRIMES;
    let mut parts = spectrum.chunks_exact_mut(size);
    core::array::from_fn(|_| parts.next().unwrap_or_default())
}

impl NttWord for u64 {
    type Plan = native64::Plan32;
    const PRIMES: usize = 5;

    fn plan(size: usize) -> Option<Self::Plan> {
        native64::Plan32::try_new(size)
    }

    fn forward(plan: &Self::Plan, values: &[Self], spectrum: &mut [u32]) {
        let [a, b, c, d, e] = split::<5>(spectrum);
        plan.fwd(values, a, b, c, d, e);
    }

    fn inverse(plan: &Self::Plan, spectrum: &mut [u32], values: &mut [Self]) {
        let [a, b, c, d, e] = split::<5>(spectrum);
        plan.inv(values, a, b, c, d, e);
    }

    fn modulo(plan: &Self::Plan, prime: usize) -> &prime32::Plan {
        match prime {
            0 => plan.ntt_0(),
            1 => plan.ntt_1(),
            2 => plan.ntt_2(),
            3 => plan.ntt_3(),
            _ => plan.ntt_4(),
        }
    }
}

/// Transforms for 128-bit words, with the constants of the reduction.
pub struct Plan128 {
    inner: native128::Plan32,
    reductions: [Reduction; 10],
}

impl NttWord for u128 {
    type Plan = Plan128;
    const PRIMES: usize = 10;

    fn plan(size: usize) -> Option<Self::Plan> {
        let inner = native128::Plan32::try_new(size)?;
        let reductions =
            core::array::from_fn(|prime| Reduction::new(ntt128(&inner, prime).modulus()));
        Some(Plan128 { inner, reductions })
    }

    fn forward(plan: &Self::Plan, values: &[Self], spectrum: &mut [u32]) {
        pulp::Arch::new().dispatch(|| reduce(&plan.reductions, values, spectrum));
        let size = values.len();
        for (prime, part) in spectrum.chunks_exact_mut(size).enumerate() {
            Self::modulo(plan, prime).fwd(part);
        }
    }

    fn inverse(plan: &Self::Plan, spectrum: &mut [u32], values: &mut [Self]) {
        let [a, b, c, d, e, f, g, h, i, j] = split::<10>(spectrum);
        plan.inner.inv(values, a, b, c, d, e, f, g, h, i, j);
    }

    fn modulo(plan: &Self::Plan, prime: usize) -> &prime32::Plan {
        ntt128(&plan.inner, prime)
    }
}

fn ntt128(plan: &native128::Plan32, prime: usize) -> &prime32::Plan {
    match prime {
        0 => plan.ntt_0(),
        1 => plan.ntt_1(),
        2 => plan.ntt_2(),
        3 => plan.ntt_3(),
        4 => plan.ntt_4(),
        5 => plan.ntt_5(),
        6 => plan.ntt_6(),
        7 => plan.ntt_7(),
        8 => plan.ntt_8(),
        _ => plan.ntt_9(),
    }
}

/// Bits of a limb, and limbs of a 128-bit word.
const LIMB: u32 = 26;
const LIMBS: usize = 5;

/// Montgomery reduction of sum limb_i 2^(26 i) modulo an odd prime p < 2^30.
struct Reduction {
    p: u32,
    /// -1/p modulo 2^32.
    negative_inverse: u32,
    /// 2^(26 i + 32) modulo p.
    weights: [u32; LIMBS],
}

impl Reduction {
    fn new(p: u32) -> Self {
        // Newton: an odd p is its own inverse modulo 8.
        let inverse = (0..4).fold(p, |x, _| x.wrapping_mul(2u32.wrapping_sub(p.wrapping_mul(x))));
        let mut power = (1u64 << 32) % u64::from(p);
        let weights = core::array::from_fn(|_| {
            let weight = power as u32;
            power = (power << LIMB) % u64::from(p);
            weight
        });
        Self { p, negative_inverse: inverse.wrapping_neg(), weights }
    }
}

/// Coefficients whose limbs are held at a time.
const STRIP: usize = 256;

#[inline(always)]
fn reduce(reductions: &[Reduction; 10], values: &[u128], spectrum: &mut [u32]) {
    let size = values.len();
    let mut limbs = [[0u32; STRIP]; LIMBS];
    for (strip, values) in values.chunks(STRIP).enumerate() {
        for (i, value) in values.iter().enumerate() {
            for (limb, row) in limbs.iter_mut().enumerate() {
                row[i] = (value >> (LIMB * limb as u32)) as u32 & ((1 << LIMB) - 1);
            }
        }
        let [l0, l1, l2, l3, l4] = &limbs;
        for (reduction, residues) in reductions.iter().zip(spectrum.chunks_exact_mut(size)) {
            let residues = &mut residues[strip * STRIP..][..values.len()];
            let p = reduction.p;
            let [w0, w1, w2, w3, w4] = reduction.weights.map(u64::from);
            for (i, residue) in residues.iter_mut().enumerate() {
                // Below 5 2^56 < 2^32 p, as the Montgomery step asks.
                let sum = u64::from(l0[i]) * w0
                    + u64::from(l1[i]) * w1
                    + u64::from(l2[i]) * w2
                    + u64::from(l3[i]) * w3
                    + u64::from(l4[i]) * w4;
                let multiple = (sum as u32).wrapping_mul(reduction.negative_inverse);
                let reduced = ((sum + u64::from(multiple) * u64::from(p)) >> 32) as u32;
                *residue = reduced.min(reduced.wrapping_sub(p));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha20Rng;

    use super::*;

    fn schoolbook<W: Word>(a: &[W], b: &[W]) -> Vec<W> {
        let size = a.len();
        let mut out = vec![W::default(); size];
        for (i, x) in a.iter().enumerate() {
            for (j, y) in b.iter().enumerate() {
                let product = x.mul(*y);
                let at = (i + j) % size;
                out[at] = if i + j < size { out[at].add(product) } else { out[at].sub(product) };
            }
        }
        out
    }

    /// The largest sum that may occur: all coefficients -1 = 2^w - 1, `MAX_TERMS` terms.
    fn products_are_exact<W: NttWord>(size: usize, extreme: bool, seed: u64) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let plan = W::plan(size).unwrap();
        let mut poly = || -> Vec<W> {
            (0..size)
                .map(|_| if extreme { W::truncate(u128::MAX) } else { W::truncate(rng.r#gen()) })
                .collect()
        };
        let mut acc = vec![0; W::PRIMES * size];
        let mut expected = vec![W::default(); size];
        let (mut a_hat, mut b_hat) = (acc.clone(), acc.clone());
        for _ in 0..MAX_TERMS {
            let (a, b) = (poly(), poly());
            W::forward(&plan, &a, &mut a_hat);
            W::forward(&plan, &b, &mut b_hat);
            normalize::<W>(&plan, &mut b_hat);
            multiply_accumulate::<W>(&plan, &mut acc, &a_hat, &b_hat);
            expected.iter_mut().zip(schoolbook(&a, &b)).for_each(|(e, p)| *e = e.add(p));
        }
        let mut out = vec![W::default(); size];
        W::inverse(&plan, &mut acc, &mut out);
        assert!(out == expected, "size {size} extreme {extreme}");
    }

    #[test]
    fn products_equal_the_schoolbook() {
        for size in [256, 2048] {
            for extreme in [false, true] {
                products_are_exact::<u64>(size, extreme, 1);
                products_are_exact::<u128>(size, extreme, 2);
            }
        }
    }

    #[test]
    fn reduction_agrees_with_division() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let plan = u128::plan(256).unwrap();
        let values: Vec<u128> =
            (0..256).map(|i| if i < 2 { u128::MAX * (i as u128) } else { rng.r#gen() }).collect();
        let mut residues = vec![0; 10 * 256];
        reduce(&plan.reductions, &values, &mut residues);
        for (prime, part) in residues.chunks_exact(256).enumerate() {
            let p = u128::from(u128::modulo(&plan, prime).modulus());
            assert!(part.iter().zip(&values).all(|(r, v)| u128::from(*r) == v % p));
        }
    }
}
