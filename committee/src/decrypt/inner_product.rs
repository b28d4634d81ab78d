//! Sums of products modulo 2^128, of words with several vectors at once.
//!
//! With a = a0 + 2^64 a1 and q = q0 + 2^64 q1 a product is a0 q0 + 2^64 (a0 q1 + a1 q0), and with
//! 32-bit halves x of a0 and y of q0, a0 q0 = x0 y0 + 2^32 (x0 y1 + x1 y0) + 2^64 x1 y1. Everything
//! is then a 64-bit product, which the compiler vectorises, where 128-bit multiplications stay
//! scalar. Terms that count 2^64 are summed modulo 2^64. The others must not lose carries: of p we
//! sum p modulo 2^64 and, exactly, its high half p >> 32; the exact sum of the low halves follows
//! from both, as it has fewer than 64 bits.

use zeroize::Zeroizing;

/// Words taken at a time; their halves stay in the first-level cache for all vectors.
const STRIP: usize = 256;

/// Position of the less significant half in a word's memory.
const LOW: usize = if cfg!(target_endian = "little") { 0 } else { 1 };

/// Vectors of equal length, zeroized on drop: halves of their words, less significant ones first.
pub(super) struct Vectors(Vec<[Zeroizing<Vec<u64>>; 2]>);

impl Vectors {
    /// Word i of vector c is `words[i][c]`.
    pub(super) fn new<const D: usize>(words: impl Iterator<Item = [u128; D]> + Clone) -> Self {
        let halves = |c: usize, shift: u32| {
            Zeroizing::new(words.clone().map(|word| (word[c] >> shift) as u64).collect())
        };
        Self((0..D).map(|c| [halves(c, 0), halves(c, 64)]).collect())
    }

    /// Inner products of `words` with as many words of each of the D vectors, from `start` on.
    pub(super) fn inner_products<const D: usize>(&self, start: usize, words: &[u128]) -> [u128; D] {
        pulp::Arch::new().dispatch(InnerProducts { vectors: self, start, words })
    }
}

/// The call. A closure would not do: it is too large to be inlined into the code for the processor
/// at hand, and would be compiled for the least processor.
struct InnerProducts<'a, const D: usize> {
    vectors: &'a Vectors,
    start: usize,
    words: &'a [u128],
}

impl<const D: usize> pulp::WithSimd for InnerProducts<'_, D> {
    type Output = [u128; D];

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> [u128; D] {
        let mut sums = [0u128; D];
        let mut halves = [[0u64; STRIP]; 2];
        for (strip, words) in self.words.chunks(STRIP).enumerate() {
            let [a0, a1] = halves.each_mut().map(|half| &mut half[..words.len()]);
            // As pairs: with shifts of 128-bit words this loop alone would take half of the time.
            let pairs: &[[u64; 2]] = bytemuck::cast_slice(words);
            for ((a0, a1), pair) in a0.iter_mut().zip(a1.iter_mut()).zip(pairs) {
                (*a0, *a1) = (pair[LOW], pair[1 - LOW]);
            }
            let start = self.start + strip * STRIP;
            for (sum, vector) in sums.iter_mut().zip(&self.vectors.0) {
                let [q0, q1] = vector.each_ref().map(|half| &half[start..][..words.len()]);
                *sum = sum.wrapping_add(strip_sum([a0, a1], [q0, q1]));
            }
        }
        sums
    }
}

#[inline(always)]
fn strip_sum([a0, a1]: [&[u64]; 2], [q0, q1]: [&[u64]; 2]) -> u128 {
    const LOW_HALF: u64 = 0xffff_ffff;
    // Terms that count 1, 2^32 and 2^64; for the former two also the sums of their high halves.
    let (mut ones, mut ones_high) = (0u64, 0u64);
    let (mut middle, mut middle_high) = (0u64, 0u64);
    let mut top = 0u64;
    for (((a0, a1), q0), q1) in a0.iter().zip(a1).zip(q0).zip(q1) {
        let (x0, x1, y0, y1) = (a0 & LOW_HALF, a0 >> 32, q0 & LOW_HALF, q0 >> 32);
        let (p00, p01, p10) = (x0 * y0, x0 * y1, x1 * y0);
        ones = ones.wrapping_add(p00);
        ones_high += p00 >> 32;
        middle = middle.wrapping_add(p01).wrapping_add(p10);
        middle_high += (p01 >> 32) + (p10 >> 32);
        top = top
            .wrapping_add(x1 * y1)
            .wrapping_add(a0.wrapping_mul(*q1))
            .wrapping_add(a1.wrapping_mul(*q0));
    }
    let exact =
        |sum: u64, high: u64| (u128::from(high) << 32) + u128::from(sum.wrapping_sub(high << 32));
    exact(ones, ones_high)
        .wrapping_add(exact(middle, middle_high) << 32)
        .wrapping_add(u128::from(top) << 64)
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha20Rng;

    use super::*;

    #[test]
    fn sums_equal_the_formula() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        for extreme in [false, true] {
            let mut word = || if extreme { u128::MAX } else { rng.r#gen() };
            let secret: Vec<[u128; 3]> = (0..1200).map(|_| [word(), word(), word()]).collect();
            let words: Vec<u128> = (0..1000).map(|_| word()).collect();
            let vectors = Vectors::new(secret.iter().copied());
            for (start, len) in
                [(0, 1000), (200, 1000), (7, 255), (7, 256), (7, 257), (1, 1), (0, 0)]
            {
                let expected = core::array::from_fn(|c| {
                    words[..len]
                        .iter()
                        .zip(&secret[start..])
                        .fold(0u128, |sum, (a, q)| sum.wrapping_add(a.wrapping_mul(q[c])))
                });
                assert_eq!(vectors.inner_products::<3>(start, &words[..len]), expected);
            }
        }
    }
}
