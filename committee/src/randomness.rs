//! What a member derives from the keys it shares with others, without a message: shares of random
//! elements (PRSS), of zero (PRZS) and of noise; Cramer-Damgard-Ishai, TCC 2005, over Galois rings;
//! `ceremony.md` section 2.

use veil_protocol_spec::{Committee, ParticipantIndex};
use zeroize::Zeroize;

use crate::{
    prf::{Prf, SetKey},
    ring::{Element, Word},
    shamir::indicator,
    subsets::MemberSet,
};

/// Elements expanded at a time; keeps the PRF words in the first-level cache.
const BATCH: usize = 64;

/// The keys of the sets that contain one participant.
pub type SetKeys = [(MemberSet, SetKey)];

struct Source<W, const D: usize> {
    prf: Prf,
    factor: Element<W, D>,
}

fn sources<W: Word, const D: usize>(
    committee: Committee,
    me: ParticipantIndex,
    keys: &SetKeys,
    label: &str,
    scale: Element<W, D>,
) -> Vec<Source<W, D>> {
    keys.iter()
        .filter(|(set, _)| set.contains(me))
        .map(|(set, key)| Source {
            prf: Prf::new(key, label),
            factor: indicator::<W, D>(committee, *set, me) * scale,
        })
        .collect()
}

/// Shares of uniform elements, degree t: sum over A of PRF(r_A, counter) f_A(alpha_j).
pub struct RandomShares<W, const D: usize> {
    sources: Vec<Source<W, D>>,
}

impl<W: Word, const D: usize> RandomShares<W, D> {
    /// `keys` are those of the sets A that contain `me`.
    #[must_use]
    pub fn new(committee: Committee, me: ParticipantIndex, keys: &SetKeys, label: &str) -> Self {
        Self { sources: sources(committee, me, keys, label, Element::ONE()) }
    }

    /// Shares of the elements `start .. start + out.len()`.
    pub fn fill(&self, start: u64, out: &mut [Element<W, D>]) {
        out.fill(Element::ZERO());
        for source in &self.sources {
            let mut words = vec![0u128; out.len() * D];
            source.prf.fill(start * D as u64, &mut words);
            for (share, coefficients) in out.iter_mut().zip(words.chunks_exact(D)) {
                *share += element(coefficients) * source.factor;
            }
            words.zeroize();
        }
    }
}

#[inline(always)]
fn element<W: Word, const D: usize>(words: &[u128]) -> Element<W, D> {
    Element(core::array::from_fn(|i| W::truncate(words[i])))
}

/// Shares of zero, degree 2t: sum over A and l = 1..t of PRF(r_A, counter, l) alpha_j^l f_A(alpha_j).
pub struct ZeroShares<W, const D: usize> {
    sources: Vec<Source<W, D>>,
    point: Element<W, D>,
    point_bits: u8,
    t: usize,
}

impl<W: Word, const D: usize> ZeroShares<W, D> {
    /// `keys` are those of the sets A that contain `me`.
    #[must_use]
    pub fn new(committee: Committee, me: ParticipantIndex, keys: &SetKeys, label: &str) -> Self {
        let point = Element::point(me);
        Self {
            sources: sources(committee, me, keys, label, point),
            point,
            point_bits: me.get(),
            t: committee.max_faulty().get(),
        }
    }

    /// Adds shares of the zeros `start .. start + out.len()`.
    pub fn add_to(&self, start: u64, out: &mut [Element<W, D>]) {
        if self.t == 0 {
            return;
        }
        let words_per_element = self.t * D;
        let mut words = vec![0u128; BATCH * words_per_element];
        for (batch, shares) in out.chunks_mut(BATCH).enumerate() {
            let words = &mut words[..shares.len() * words_per_element];
            let first = (start + (batch * BATCH) as u64) * words_per_element as u64;
            for source in &self.sources {
                source.prf.fill(first, words);
                for (share, powers) in shares.iter_mut().zip(words.chunks_exact(words_per_element))
                {
                    // Horner in alpha_j; the last factor alpha_j is in `source.factor`.
                    let mut powers = powers.chunks_exact(D).rev();
                    let mut sum = powers.next().map_or_else(Element::ZERO, element);
                    for coefficients in powers {
                        sum = self.times_point(sum) + element(coefficients);
                    }
                    *share += sum * source.factor;
                }
            }
        }
        words.zeroize();
    }

    /// Times alpha_j, whose coefficients are bits.
    #[inline(always)]
    fn times_point(&self, value: Element<W, D>) -> Element<W, D> {
        if D == 1 {
            return value * self.point;
        }
        let mut sum = Element::ZERO();
        let mut shifted = value;
        for bit in 0..D {
            if self.point_bits >> bit & 1 == 1 {
                sum += shifted;
            }
            shifted = shifted.times_x();
        }
        sum
    }
}

/// Shares of noise, degree at most 2t: sum over G of e_G f_G(alpha_j), with e_G uniform in
/// [-bound, bound].
pub struct NoiseShares<W, const D: usize> {
    sources: Vec<Source<W, D>>,
    bound: u64,
}

impl<W: Word, const D: usize> NoiseShares<W, D> {
    /// `keys` are those of the noise groups that contain `me`; `bound` is below 2^63.
    #[must_use]
    pub fn new(
        committee: Committee,
        me: ParticipantIndex,
        keys: &SetKeys,
        label: &str,
        bound: u64,
    ) -> Self {
        debug_assert!(bound < 1 << 63);
        Self { sources: sources(committee, me, keys, label, Element::ONE()), bound }
    }

    /// Adds shares of packed noise: coefficient c of `out[i]` gets noise number
    /// `start + i + c * stride`.
    pub fn add_to(&self, start: u64, stride: u64, out: &mut [Element<W, D>]) {
        let mut words = vec![0u128; BATCH];
        for (batch, shares) in out.chunks_mut(BATCH).enumerate() {
            let words = &mut words[..shares.len()];
            let first = start + (batch * BATCH) as u64;
            for source in &self.sources {
                let mut packed = [Element::<W, D>::ZERO(); BATCH];
                for c in 0..D {
                    source.prf.fill(first + c as u64 * stride, words);
                    for (element, word) in packed.iter_mut().zip(&*words) {
                        element.0[c] = self.draw(*word);
                    }
                }
                for (share, noise) in shares.iter_mut().zip(packed) {
                    *share += noise * source.factor;
                }
            }
        }
        words.zeroize();
    }

    /// Maps 128 uniform bits to [-bound, bound]: the high part of their product with 2 bound + 1.
    /// Each value has probability within 2^-128 of the exact one.
    #[inline(always)]
    fn draw(&self, uniform: u128) -> W {
        let range = u128::from(2 * self.bound + 1);
        let low = ((uniform & u128::from(u64::MAX)) * range) >> 64;
        let value = ((uniform >> 64) * range + low) >> 64;
        W::truncate(value.wrapping_sub(u128::from(self.bound)))
    }
}

/// Test support: the keys that each participant holds, from one seed.
#[must_use]
pub fn keys_of(
    sets: &[MemberSet],
    me: ParticipantIndex,
    all: &[SetKey],
) -> Vec<(MemberSet, SetKey)> {
    sets.iter().zip(all).filter(|(s, _)| s.contains(me)).map(|(s, k)| (*s, k.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        code::Opening,
        subsets::{NoiseGroups, key_sets},
        with_degree,
    };

    fn keys(count: usize) -> Vec<SetKey> {
        (0..count)
            .map(|i| SetKey::new([i as u8; 32]).derive("test", &[&[(i >> 8) as u8]]))
            .collect()
    }

    /// Opens column i of the members' vectors.
    fn open<const D: usize>(
        opening: &Opening<u128, D>,
        members: &[Vec<Element<u128, D>>],
        i: usize,
    ) -> Element<u128, D> {
        opening.open(&members.iter().map(|m| m[i]).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn prss_opens_at_degree_t_and_przs_to_zero_at_degree_2t() {
        for committee in Committee::ALL {
            with_degree!(committee, D => {
                let t = committee.max_faulty().get();
                let sets = key_sets(committee);
                let all = keys(sets.len());
                let (mut random, mut zero) = (Vec::new(), Vec::new());
                for me in committee.participants() {
                    let mine = keys_of(&sets, me, &all);
                    let shares = RandomShares::<u128, D>::new(committee, me, &mine, "r");
                    let mut out = vec![Element::ZERO(); 70];
                    shares.fill(3, &mut out);
                    let mut again = vec![Element::ZERO(); 1];
                    shares.fill(72, &mut again);
                    assert_eq!(out[69], again[0]);
                    random.push(out);
                    let zeros = ZeroShares::<u128, D>::new(committee, me, &mine, "z");
                    let mut out = vec![Element::ZERO(); 70];
                    zeros.add_to(3, &mut out);
                    let mut again = vec![Element::ZERO(); 1];
                    zeros.add_to(72, &mut again);
                    assert_eq!(out[69], again[0]);
                    zero.push(out);
                }
                let (degree_t, degree_2t) = (Opening::new(committee, t), Opening::new(committee, 2 * t));
                let opened: Vec<_> = (0..70).map(|i| open(&degree_t, &random, i)).collect();
                assert!(opened.windows(2).all(|w| w[0] != w[1]));
                for i in 0..70 {
                    assert_eq!(open(&degree_2t, &zero, i), Element::ZERO());
                    if t > 0 {
                        // Of degree exactly 2t: no lower degree fits.
                        let column: Vec<_> = zero.iter().map(|m| m[i]).collect();
                        assert!(Opening::new(committee, 2 * t - 1).open(&column).is_err());
                    }
                }
            });
        }
    }

    #[test]
    fn noise_is_bounded_packed_and_has_the_stated_variance() {
        for committee in Committee::ALL {
            with_degree!(committee, D => {
                let family = NoiseGroups::of(committee);
                let all = keys(family.groups().len());
                let bound = 1000;
                let len = 4000;
                let members: Vec<_> = committee
                    .participants()
                    .map(|me| {
                        let mine = keys_of(family.groups(), me, &all);
                        let noise = NoiseShares::<u128, D>::new(committee, me, &mine, "n", bound);
                        let mut out = vec![Element::ZERO(); len];
                        noise.add_to(0, len as u64, &mut out);
                        out
                    })
                    .collect();
                let opening = Opening::new(committee, 2 * committee.max_faulty().get());
                let groups = family.groups().len() as f64;
                let mut squares = 0.0;
                for i in 0..len {
                    let opened = open(&opening, &members, i).0;
                    for word in opened {
                        let noise = word as i128;
                        assert!(noise.unsigned_abs() <= u128::from(bound) * groups as u128);
                        squares += (noise * noise) as f64;
                    }
                }
                let variance = squares / (len * D) as f64;
                let expected = groups * (bound * (bound + 1)) as f64 / 3.0;
                assert!((variance / expected - 1.0).abs() < 0.1, "{variance} {expected}");
            });
        }
    }
}
