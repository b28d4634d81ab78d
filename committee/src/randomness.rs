//! What a member derives from the keys it shares with others, without a message: shares of random
//! elements (PRSS), of zero (PRZS) and of noise; Cramer-Damgard-Ishai, TCC 2005, over Galois rings;
//! `ceremony.md` section 2.

use veil_protocol_spec::{Committee, ParticipantIndex};
use zeroize::Zeroize;

use crate::{
    prf::{Prf, SetKey},
    ring::{Element, Word},
    shamir::{indicator, vanishing},
    subsets::MemberSet,
};

/// Elements expanded at a time; keeps the PRF words in the first-level cache.
const BATCH: usize = 64;

/// The keys of the sets that contain one participant.
pub type SetKeys = [(MemberSet, SetKey)];

/// What a set's value is multiplied by at a participant's point: f_A, or z_G.
type Polynomial<W, const D: usize> = fn(Committee, MemberSet, ParticipantIndex) -> Element<W, D>;

struct Source<W, const D: usize> {
    prf: Prf,
    factor: Element<W, D>,
}

fn sources<W: Word, const D: usize>(
    committee: Committee,
    me: ParticipantIndex,
    keys: &SetKeys,
    label: &str,
    polynomial: Polynomial<W, D>,
) -> Vec<Source<W, D>> {
    keys.iter()
        .filter(|(set, _)| set.contains(me))
        .map(|(set, key)| Source {
            prf: Prf::new(key, label),
            factor: polynomial(committee, *set, me),
        })
        .collect()
}

/// Adds PRF(k, counter) times the source's factor for the counters `start .. start + out.len()`.
fn add_uniform<W: Word, const D: usize>(
    sources: &[Source<W, D>],
    start: u64,
    out: &mut [Element<W, D>],
) {
    let mut words = vec![0u128; BATCH * D];
    for (batch, shares) in out.chunks_mut(BATCH).enumerate() {
        let words = &mut words[..shares.len() * D];
        let first = (start + (batch * BATCH) as u64) * D as u64;
        for source in sources {
            source.prf.fill(first, words);
            for (share, coefficients) in shares.iter_mut().zip(words.chunks_exact(D)) {
                let drawn = Element(core::array::from_fn(|i| W::truncate(coefficients[i])));
                *share += drawn * source.factor;
            }
        }
    }
    words.zeroize();
}

/// Shares of uniform elements, degree t: sum over A of PRF(r_A, counter) f_A(alpha_j).
pub struct RandomShares<W, const D: usize> {
    sources: Vec<Source<W, D>>,
}

impl<W: Word, const D: usize> RandomShares<W, D> {
    /// `keys` are those of the sets A that contain `me`.
    #[must_use]
    pub fn new(committee: Committee, me: ParticipantIndex, keys: &SetKeys, label: &str) -> Self {
        Self { sources: sources(committee, me, keys, label, indicator) }
    }

    /// Shares of the elements `start .. start + out.len()`.
    pub fn fill(&self, start: u64, out: &mut [Element<W, D>]) {
        out.fill(Element::ZERO());
        add_uniform(&self.sources, start, out);
    }
}

/// Shares of zero, degree 2t: sum over G of PRF(k_G, counter) z_G(alpha_j).
pub struct ZeroShares<W, const D: usize> {
    sources: Vec<Source<W, D>>,
}

impl<W: Word, const D: usize> ZeroShares<W, D> {
    /// `keys` are those of the zero groups G that contain `me`.
    #[must_use]
    pub fn new(committee: Committee, me: ParticipantIndex, keys: &SetKeys, label: &str) -> Self {
        Self { sources: sources(committee, me, keys, label, vanishing) }
    }

    /// Adds shares of the zeros `start .. start + out.len()`.
    pub fn add_to(&self, start: u64, out: &mut [Element<W, D>]) {
        add_uniform(&self.sources, start, out);
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
        Self { sources: sources(committee, me, keys, label, indicator), bound }
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
        subsets::{NoiseGroups, key_sets, zero_groups},
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
                let groups = zero_groups(committee);
                let (all, group_keys) = (keys(sets.len()), keys(groups.len()));
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
                    let mine = keys_of(&groups, me, &group_keys);
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

    /// Sigma is reached by what no coalition knows: whatever t members are corrupted, other keys of the
    /// noise groups that they miss move what opens by as much as these groups draw, and these are r.
    #[test]
    fn groups_of_honest_members_alone_reach_the_noise_that_security_needs() {
        for committee in Committee::ALL.into_iter().skip(1) {
            with_degree!(committee, D => {
                let (n, t) = (committee.n(), committee.max_faulty().get());
                let family = NoiseGroups::of(committee);
                let (bound, len) = (1000, 400);
                let opened = |all: &[SetKey]| -> Vec<Element<u128, D>> {
                    let members: Vec<_> = committee
                        .participants()
                        .map(|me| {
                            let mine = keys_of(family.groups(), me, all);
                            let noise =
                                NoiseShares::<u128, D>::new(committee, me, &mine, "n", bound);
                            let mut out = vec![Element::ZERO(); len];
                            noise.add_to(0, len as u64, &mut out);
                            out
                        })
                        .collect();
                    let opening = Opening::new(committee, 2 * t);
                    (0..len).map(|i| open(&opening, &members, i)).collect()
                };
                let all = keys(family.groups().len());
                let before = opened(&all);
                let coalitions: Vec<u16> =
                    (0..1u16 << n).filter(|bits| bits.count_ones() as usize == t).collect();
                for coalition in coalitions.iter().step_by(coalitions.len().div_ceil(21)) {
                    let is_missed = |group: &MemberSet| group.bits() & coalition == 0;
                    let other = family.groups().iter().zip(&all).map(|(group, key)| {
                        if is_missed(group) { key.derive("other", &[]) } else { key.clone() }
                    });
                    let after = opened(&other.collect::<Vec<_>>());
                    let moves = before.iter().zip(&after).flat_map(|(a, b)| (*b - *a).0);
                    let squares: f64 = moves.map(|word| (word as i128 as f64).powi(2)).sum();
                    // The old draw and the new one, independent of each other.
                    let variance = squares / (2 * len * D) as f64;
                    let missed = family.groups().iter().filter(|group| is_missed(group)).count();
                    assert!(missed >= family.missed() as usize);
                    let expected = missed as f64 * (bound * (bound + 1)) as f64 / 3.0;
                    assert!((variance / expected - 1.0).abs() < 0.2, "{variance} {expected}");
                }
            });
        }
    }
}
