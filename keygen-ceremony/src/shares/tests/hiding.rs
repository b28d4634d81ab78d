//! What the members publish tells t of them nothing but the opened values: `ceremony.md` sections 2
//! and 3.
//!
//! Two worlds differ in a secret. The coalition holds the same keys and shares in both, and everybody
//! publishes the same bytes: only what the PRF gives under keys of honest members is another, and that
//! is as good as uniform. Nobody in the coalition can tell which world it is in.

use veil_committee::{
    prf::Prf,
    ring::Word,
    shamir::{indicator, random_element, vanishing},
    subsets::MemberSet,
};
use veil_protocol_spec::ParticipantIndex;

use super::*;
use crate::{chunks::Chunk, keyset::Width, shares::encoding::read_element};

/// Key bits drawn, enough for two batches of masks.
const BITS: usize = 70;

/// Coalitions of t members: all of them up to n = 7, about as many of more members.
fn coalitions(committee: Committee) -> impl Iterator<Item = u16> {
    let t = committee.max_faulty().get();
    let all = (0..1u16 << committee.n()).filter(|bits| bits.count_ones() as usize == t);
    let all: Vec<_> = all.collect();
    let step = all.len().div_ceil(21);
    all.into_iter().step_by(step)
}

/// How many times each vector makes up `target`; `None` if they do not span it.
fn solve<const D: usize>(
    vectors: &[Vec<Element<u128, D>>],
    mut target: Vec<Element<u128, D>>,
) -> Option<Vec<Element<u128, D>>> {
    type Vector<const D: usize> = Vec<Element<u128, D>>;
    let subtract = |from: &mut Vector<D>, times: Element<u128, D>, what: &Vector<D>| {
        from.iter_mut().zip(what).for_each(|(x, &y)| *x -= times * y);
    };
    // In echelon form, each with the unit that leads it and with what of `vectors` it is made of.
    let mut basis: Vec<(usize, Vector<D>, Vector<D>)> = Vec::new();
    for (i, vector) in vectors.iter().enumerate() {
        let mut rest = vector.clone();
        let mut made_of = vec![Element::ZERO(); vectors.len()];
        made_of[i] = Element::ONE();
        for (lead, earlier, earlier_of) in &basis {
            let times = rest[*lead];
            subtract(&mut rest, times, earlier);
            subtract(&mut made_of, times, earlier_of);
        }
        if let Some((lead, scale)) =
            rest.iter().enumerate().find_map(|(i, x)| Some((i, x.inverse()?)))
        {
            rest.iter_mut().chain(&mut made_of).for_each(|x| *x = *x * scale);
            basis.push((lead, rest, made_of));
        }
    }
    let mut solution = vec![Element::ZERO(); vectors.len()];
    for (lead, vector, made_of) in &basis {
        let times = target[*lead];
        subtract(&mut target, times, vector);
        made_of.iter().zip(&mut solution).for_each(|(x, sum)| *sum += times * *x);
    }
    target.iter().all(|x| *x == Element::ZERO()).then_some(solution)
}

/// Element `counter` of what a key gives under a label.
fn drawn<W: Word, const D: usize>(key: &SetKey, label: &str, counter: u64) -> Element<W, D> {
    let mut words = [0; D];
    Prf::new(key, label).fill(counter * D as u64, &mut words);
    Element(words.map(W::truncate))
}

/// Every member's share of a sum over sets of what their keys give times what `at` gives.
fn shares_of<const D: usize>(
    committee: Committee,
    sets: &[MemberSet],
    drawn: &[Element<u128, D>],
    at: impl Fn(Committee, MemberSet, ParticipantIndex) -> Element<u128, D>,
) -> Vec<Element<u128, D>> {
    let share = |j| sets.iter().zip(drawn).map(|(set, x)| *x * at(committee, *set, j)).sum();
    committee.participants().map(share).collect()
}

/// Steps 6 and 7, "the PRZS share makes what is published a uniform sharing of the opened value": the
/// world where the other root of v is r, and so the key bit is the other one.
fn the_other_bit_gives_the_same_stream<const D: usize>(committee: Committee) {
    let mut rng = ChaCha20Rng::seed_from_u64(committee.n() as u64);
    let (sets, groups) = (key_sets(committee), zero_groups(committee));
    let (set_keys, zero_keys) =
        (random_keys(sets.len(), &mut rng), random_keys(groups.len(), &mut rng));
    let chunk = Chunk { section: 0, start: 0, count: BITS, elements: BITS, bytes: BITS * D * 16 };
    let published: Vec<_> = committee
        .participants()
        .map(|me| {
            let keys = StreamKeys {
                dkg: keys_of(&sets, me, &set_keys),
                noise: Vec::new(),
                zero: keys_of(&groups, me, &zero_keys),
            };
            BitShares::<D>::draw(committee, me, &keys, BITS).chunk(&chunk)
        })
        .collect();
    let opening = Opening::new(committee, committee.max_faulty().get());
    for coalition in coalitions(committee) {
        let is_honest = |set: &MemberSet| set.bits() & coalition == 0;
        let all_honest = sets.iter().position(is_honest).unwrap();
        let honest: Vec<_> = (0..groups.len()).filter(|i| is_honest(&groups[*i])).collect();
        let spans: Vec<Vec<_>> = honest
            .iter()
            .map(|i| {
                committee.participants().map(|j| vanishing(committee, groups[*i], j)).collect()
            })
            .collect();
        for bit in [0, BITS - 1] {
            let of = |keys: &[SetKey], label| -> Vec<Element<u128, D>> {
                keys.iter().map(|key| drawn(key, label, bit as u64)).collect()
            };
            let (mut random, mut zeros) =
                (of(&set_keys, "bits/random"), of(&zero_keys, "bits/zero"));
            let mine = shares_of(committee, &sets, &random, indicator);
            let value = opening.open(&mine).unwrap();
            // The other root of X^2 + X = v, by the key that only honest members hold.
            random[all_honest] += -Element::ONE() - value - value;
            let other = shares_of(committee, &sets, &random, indicator);
            assert_eq!(opening.open(&other).unwrap(), -Element::ONE() - value);
            let image = |r: Element<u128, D>| r * r + r;
            let differ =
                mine.iter().zip(&other).map(|(r, other)| image(*r) - image(*other)).collect();
            for (i, times) in honest.iter().zip(solve(&spans, differ).unwrap()) {
                zeros[*i] += times;
            }
            let masks = shares_of(committee, &groups, &zeros, vanishing);
            for ((j, bytes), (r, mask)) in
                committee.participants().zip(&published).zip(other.iter().zip(masks))
            {
                assert_eq!(read_element::<u128, D>(bytes, bit), image(*r) + mask, "{j}");
                let is_corrupted = coalition >> j.position() & 1 == 1;
                assert_eq!(*r == mine[j.position()], is_corrupted, "{j}");
            }
        }
    }
}

#[test]
fn a_coalition_sees_the_same_bits_stream_whatever_the_bits_are() {
    for committee in Committee::ALL.into_iter().skip(1) {
        with_degree!(committee, D => the_other_bit_gives_the_same_stream::<D>(committee));
    }
}

/// The masks of step 8: another key of one zero group moves every word of every section along z_G, and
/// nothing else does. With the rank of these (`subsets.rs`) each opening is uniform but for its value.
fn every_section_is_masked<const D: usize>(committee: Committee) {
    let params = ParameterSet::insecure_test();
    let layout = Layout::of(&params);
    let plan = ChunkPlan::new(committee, &params, &layout);
    let mut rng = ChaCha20Rng::seed_from_u64(committee.n() as u64);
    let (family, groups) = (NoiseGroups::of(committee), zero_groups(committee));
    let noise_keys = random_keys(family.groups().len(), &mut rng);
    let mut zero_keys = random_keys(groups.len(), &mut rng);
    let public_seed: [u8; 32] = rng.r#gen();
    let changed = rng.gen_range(0..groups.len());
    let me = groups[changed].iter().next().unwrap();
    let shares = (0..layout.total_key_bits()).map(|_| random_element(&mut rng)).collect();
    let bits = KeyBits::<D>::new(&layout, Zeroizing::new(shares));
    let old_key = zero_keys[changed].clone();
    let producer = |zero_keys: &[SetKey]| {
        let keys = StreamKeys {
            dkg: Vec::new(),
            noise: keys_of(family.groups(), me, &noise_keys),
            zero: keys_of(&groups, me, zero_keys),
        };
        BodyShares::new(committee, me, &params, &layout, &bits, &keys, &public_seed)
    };
    let before = producer(&zero_keys);
    zero_keys[changed] = SetKey::new(rng.r#gen());
    let after = producer(&zero_keys);
    let keys = [&old_key, &zero_keys[changed]];
    for chunk in plan.of(Stream::Bodies) {
        let section = &layout.sections[chunk.section];
        let label = format!("{}/zero", section.component.name());
        let (before, after) = (before.chunk(chunk), after.chunk(chunk));
        for i in [0, chunk.elements - 1] {
            let counter = (chunk.start * section.row_len + i) as u64;
            let seen = [&*before, &*after];
            let (moved, expected) = match section.width {
                Width::W64 => {
                    let z = vanishing(committee, groups[changed], me);
                    let masks = keys.map(|key| drawn::<u64, D>(key, &label, counter) * z);
                    (difference::<u64, D>(seen.map(|s| read_element(s, i))), difference(masks))
                }
                Width::W128 => {
                    let z = vanishing(committee, groups[changed], me);
                    let masks = keys.map(|key| drawn::<u128, D>(key, &label, counter) * z);
                    (difference::<u128, D>(seen.map(|s| read_element(s, i))), difference(masks))
                }
            };
            assert_eq!(moved, expected, "{} {i}", section.component.name());
            assert_ne!(moved, vec![0; D]);
        }
    }
}

/// The second less the first, word by word.
fn difference<W: Word, const D: usize>([first, second]: [Element<W, D>; 2]) -> Vec<u128> {
    (second - first).0.iter().map(|word| word.widen()).collect()
}

#[test]
fn each_word_of_each_section_is_masked_by_the_zero_groups() {
    for committee in Committee::ALL.into_iter().skip(1) {
        with_degree!(committee, D => every_section_is_masked::<D>(committee));
    }
}
