use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::{
    prf::SetKey,
    subsets::key_sets,
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

/// The condition of `decryption.md`, "Flooding".
#[test]
fn flooding_stays_below_half_delta_and_hides_the_noise() {
    for committee in Committee::ALL {
        let flooding = Flooding::of(committee);
        let sets = key_sets(committee).len() as u128;
        let worst = (1u128 << LOG2_NOISE) + 2 * sets * (1u128 << flooding.log2_bound());
        assert!(worst < 1 << (LOG2_DELTA - 1), "{committee}");
        let advantage =
            (flooding.budget as f64).sqrt() / 2f64.powi(flooding.statistical_bits as i32);
        assert!(advantage <= 2f64.powi(-32));
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
                opened += indicator(committee, *set, me).scale((first + second) as u128);
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
                let expected = by_the_formula(committee, me, &share, &keys, &blocks);
                assert!(decryptor.partial(&blocks).unwrap() == expected, "{committee} {count}");
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
