use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::{
    prf::SetKey,
    subsets::{MemberSet, key_sets},
    testing::{DIMENSION, EPOCH, KEY_SET, encrypt, flooding_keys, key_shares, members, secret_key},
};

#[test]
fn every_number_of_partials_decrypts_and_t_culprits_are_named() {
    for committee in Committee::ALL {
        let mut rng = ChaCha20Rng::seed_from_u64(committee.n() as u64);
        let key: Vec<u128> = (0..DIMENSION).map(|_| rng.gen_range(0..2)).collect();
        let members = members(committee, &key, &mut rng);
        let messages: Vec<u8> = (0..29).map(|i| i % 16).collect();
        let blocks: Vec<_> = messages.iter().map(|m| encrypt(&key, *m, &mut rng)).collect();
        let mut partials: Vec<_> =
            members.iter().map(|m| (m.participant(), m.partial(&blocks).unwrap())).collect();
        let view = |partials: &[(ParticipantIndex, Vec<u8>)], count: usize| {
            let some: Vec<_> =
                partials.iter().rev().take(count).map(|(j, b)| (*j, b.as_slice())).collect();
            combine(committee, &some, blocks.len())
        };
        let quorum = committee.signing_threshold().get();
        for count in quorum..=committee.n() {
            let combined = view(&partials, count).unwrap();
            assert_eq!((combined.messages(), combined.culprits), (messages.clone(), vec![]));
        }
        assert!(view(&partials, quorum - 1).is_err());
        let t = committee.max_faulty().get();
        for (i, (_, bytes)) in partials[committee.n() - t..].iter_mut().enumerate() {
            // One lies about one element, one about all, one sends rubbish of another length.
            match i {
                0 => bytes[40] ^= 1,
                1 => bytes.iter_mut().for_each(|b| *b ^= 0x80),
                _ => bytes.truncate(16),
            }
        }
        let combined = view(&partials, committee.n()).unwrap();
        let culprits: Vec<_> = committee.participants().skip(committee.n() - t).collect();
        assert_eq!((combined.messages(), combined.culprits), (messages, culprits));
    }
}

/// The condition of `decryption.md`, "Flooding". How long it hides the noise: the ceremony's parameters.
#[test]
fn flooding_stays_below_half_delta() {
    for committee in Committee::ALL {
        let flooding = Flooding::of(committee);
        let sets = key_sets(committee).len() as u128;
        let worst = (1u128 << LOG2_NOISE) + 2 * sets * (1u128 << flooding.log2_bound());
        assert!(worst < 1 << (LOG2_DELTA - 1), "{committee}");
    }
}

#[test]
fn masks_depend_on_the_block_the_key_and_the_epoch_only() {
    let committee = Committee::new(4).unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let keys = [(key_sets(committee)[0], SetKey::new([3; 32]))];
    let me = committee.participants().next().unwrap();
    let decryptor = |key_set: u8, epoch: u64| {
        let share = [Element::<u128, 3>::ZERO(); DIMENSION];
        PartialDecryptor::new(
            committee,
            me,
            &share,
            &keys,
            &KeySetDigest([key_set; 32]),
            Epoch(epoch),
        )
    };
    let a = encrypt(&[0; DIMENSION], 0, &mut rng);
    let mut b = a.clone();
    b.body ^= 1;
    let partial = |d: &PartialDecryptor, block: &SquashedBlock| {
        d.partial(core::slice::from_ref(block)).unwrap()
    };
    let base = partial(&decryptor(1, 0), &a);
    assert_eq!(base, partial(&decryptor(1, 0), &a));
    assert_ne!(base, partial(&decryptor(2, 0), &a));
    assert_ne!(base, partial(&decryptor(1, 1), &a));
    // Position in the batch does not matter: the block's own share is the same.
    let batch = decryptor(1, 0).partial(&[a.clone(), b.clone(), a.clone(), a.clone()]).unwrap();
    assert_eq!(batch[48..], base[..]);
}

/// Section 9 word by word, without vectors and batches.
fn by_the_formula<const D: usize>(
    committee: Committee,
    me: ParticipantIndex,
    share: &[Element<u128, D>],
    keys: &SetKeys,
    blocks: &[SquashedBlock],
    flooding: impl Fn(MemberSet, i128) -> i128,
) -> Vec<u8> {
    let shift = 127 - Flooding::of(committee).log2_bound();
    let mut bytes = Vec::new();
    for blocks in blocks.chunks(D) {
        let mut packed = Element::<u128, D>::ZERO();
        for (c, block) in blocks.iter().enumerate() {
            let mut opened = Element::constant(block.body);
            block.mask.iter().zip(share).for_each(|(a, q)| opened -= q.scale(*a));
            for (set, key) in keys {
                let key = key.derive(domain::FLOODING, &[&KEY_SET.0, &EPOCH.0.to_le_bytes()]);
                let mut uniforms = [[0; 2]];
                Prf::new(&key, "flooding").of_digests(&[block.digest().0], &mut uniforms);
                let [first, second] = uniforms[0].map(|uniform| uniform as i128 >> shift);
                let flooding = flooding(*set, first + second);
                opened += indicator(committee, *set, me).scale(flooding as u128);
            }
            packed += opened.times_x_power(c);
        }
        bytes.extend(packed.0.into_iter().flat_map(u128::to_le_bytes));
    }
    bytes
}

#[test]
fn partial_decryptions_equal_the_formula() {
    for committee in Committee::ALL {
        with_degree!(committee, D => {
            let mut rng = ChaCha20Rng::seed_from_u64(committee.n() as u64);
            let key = secret_key(&mut rng);
            let me = committee.participants().next_back().unwrap();
            let share = key_shares::<D>(committee, &key, &mut rng).swap_remove(me.position());
            let keys = flooding_keys(committee, &mut rng).swap_remove(me.position());
            let decryptor = PartialDecryptor::new(committee, me, &share, &keys, &KEY_SET, EPOCH);
            for count in [1, WORTH_ALL_LANES, BATCH + 1] {
                let blocks: Vec<_> = (0..count).map(|_| encrypt(&key, 1, &mut rng)).collect();
                let expected =
                    by_the_formula(committee, me, &share, &keys, &blocks, |_, drawn| drawn);
                assert!(decryptor.partial(&blocks).unwrap() == expected, "{committee} {count}");
            }
        });
    }
}

/// E has the variance of two uniforms for each set; what one set adds has a triangular density: half of it
/// within (2 - sqrt 2) K, a quarter beyond K.
#[test]
fn flooding_is_a_sum_of_two_uniforms_for_each_set() {
    for committee in [4, 7].map(|n| Committee::new(n).unwrap()) {
        let mut rng = ChaCha20Rng::seed_from_u64(committee.n() as u64);
        let key = secret_key(&mut rng);
        let blocks: Vec<_> = (0..2000).map(|_| encrypt(&key, 3, &mut rng)).collect();
        let members = members(committee, &key, &mut rng);
        let partials: Vec<_> =
            members.iter().map(|m| (m.participant(), m.partial(&blocks).unwrap())).collect();
        let views: Vec<_> = partials.iter().map(|(j, bytes)| (*j, bytes.as_slice())).collect();
        let phases = combine(committee, &views, blocks.len()).unwrap().phases;
        let log2_bound = Flooding::of(committee).log2_bound();
        let k = 2f64.powi(log2_bound as i32);
        let sets = key_sets(committee).len() as f64;
        let added: Vec<f64> = blocks
            .iter()
            .zip(phases)
            .map(|(block, opened)| {
                let product = block.mask.iter().zip(&key).map(|(a, q)| a.wrapping_mul(*q));
                let phase = product.fold(block.body, u128::wrapping_sub);
                opened.wrapping_sub(phase) as i128 as f64 / k
            })
            .collect();
        let count = added.len() as f64;
        assert!(added.iter().all(|e| e.abs() <= 2.0 * sets), "{committee}");
        let mean = added.iter().sum::<f64>() / count;
        let variance = added.iter().map(|e| e * e).sum::<f64>() / count;
        // Each uniform has variance K^2 / 3, and there are two for each set.
        let expected = 2.0 * sets / 3.0;
        assert!(mean.abs() < 5.0 * (expected / count).sqrt(), "{committee} {mean}");
        assert!((variance / expected - 1.0).abs() < 0.15, "{committee} {variance} {expected}");
    }
    // One set: n = 1 has no other, and draws as every set does.
    let committee = Committee::new(1).unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let key = secret_key(&mut rng);
    let blocks: Vec<_> = (0..4000).map(|_| encrypt(&key, 0, &mut rng)).collect();
    let bytes = members(committee, &key, &mut rng)[0].partial(&blocks).unwrap();
    let k = 2f64.powi(Flooding::of(committee).log2_bound() as i32);
    let added: Vec<f64> = bytes
        .chunks_exact(16)
        .map(|word| i128::from_le_bytes(*word.first_chunk().unwrap()) as f64 / k)
        .collect();
    let share =
        |within: f64| added.iter().filter(|e| e.abs() < within).count() as f64 / added.len() as f64;
    assert!((share(2.0 - 2f64.sqrt()) - 0.5).abs() < 0.04, "{}", share(2.0 - 2f64.sqrt()));
    assert!((share(1.0) - 0.75).abs() < 0.035, "{}", share(1.0));
    assert!(share(2.0) > 0.999);
}

/// For every coalition: under another key, of which it holds the same shares, all members say the same,
/// if what the one key gives that only honest members hold is another by the difference in noise.
/// That is within what the key can give, and hardly less likely: `decryption.md`, "Flooding".
#[test]
fn a_coalition_sees_the_same_partial_decryptions_under_another_key() {
    for committee in Committee::ALL.into_iter().skip(1) {
        with_degree!(committee, D => {
            let mut rng = ChaCha20Rng::seed_from_u64(committee.n() as u64);
            let key = secret_key(&mut rng);
            let shares = key_shares::<D>(committee, &key, &mut rng);
            let keys = flooding_keys(committee, &mut rng);
            // The other key differs in bit 0, and the block encrypts the same under both but for noise.
            let up = 1u128.wrapping_sub(key[0] << 1);
            let mut block = encrypt(&key, 9, &mut rng);
            let noise = rng.gen_range(1..1u128 << LOG2_NOISE);
            let change = noise.wrapping_sub(block.mask[0]);
            block.mask[0] = noise;
            block.body = block.body.wrapping_add(change.wrapping_mul(key[0]));
            let most = 2 * (1i128 << Flooding::of(committee).log2_bound());
            let all: Vec<_> = committee
                .participants()
                .map(|j| {
                    let (share, keys) = (&shares[j.position()], &keys[j.position()]);
                    let decryptor =
                        PartialDecryptor::new(committee, j, share, keys, &KEY_SET, EPOCH);
                    decryptor.partial(core::slice::from_ref(&block)).unwrap()
                })
                .collect();
            let sets = key_sets(committee);
            for only_honest in sets.iter().step_by(sets.len().div_ceil(21)) {
                for j in committee.participants() {
                    let mut other = shares[j.position()].clone();
                    let moved = indicator::<u128, D>(committee, *only_honest, j).scale(up);
                    other[0] += moved;
                    // What is the coalition's is the same.
                    assert_eq!(moved == Element::ZERO(), !only_honest.contains(j));
                    let flooding = |set: MemberSet, drawn: i128| {
                        let more = if set == *only_honest { noise.wrapping_mul(up) as i128 } else { 0 };
                        assert!((drawn + more).abs() <= most);
                        drawn + more
                    };
                    let blocks = core::slice::from_ref(&block);
                    let keys = &keys[j.position()];
                    let said = by_the_formula(committee, j, &other, keys, blocks, flooding);
                    assert_eq!(said, all[j.position()], "{committee} {j}");
                }
            }
        });
    }
}

#[test]
fn a_block_under_another_key_is_refused() {
    let committee = Committee::new(1).unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let members = members(committee, &[1; DIMENSION], &mut rng);
    let block = SquashedBlock { mask: vec![0; DIMENSION + 1], body: 0 };
    assert_eq!(
        members[0].partial(&[block]),
        Err(WrongDimension { block: 0, given: DIMENSION + 1, expected: DIMENSION })
    );
}
