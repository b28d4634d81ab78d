use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::{
    decrypt::combine,
    frost::{Dkg, EvmSuite, dkg::Packages},
    testing::{DIMENSION, EPOCH, KEY_SET, flooding_keys, index, key_shares, secret_key},
};

/// The share of a group of one, since dealing is not offered: its bytes are opaque here.
fn frost() -> GroupKeyShare {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let alone = Committee::new(1).unwrap();
    let (secret, _) = Dkg::<EvmSuite>::start(alone, index(1), &mut rng).unwrap();
    let (secret, _) = secret.receive(&Packages::new()).unwrap();
    secret.finish(&Packages::new()).unwrap()
}

fn origin(committee: Committee, participant: ParticipantIndex) -> KeyShareOrigin {
    KeyShareOrigin {
        ceremony: CeremonyId([2; 32]),
        attempt: Attempt(1),
        committee,
        participant,
        epoch: EPOCH,
        key_set: KEY_SET,
        parameters: Blake3Digest([3; 32]),
    }
}

fn test() -> SquashedBlock {
    test_ciphertext(&KEY_SET, &Blake3Digest([4; 32]), DIMENSION)
}

fn shares(n: u8) -> Vec<KeyShare> {
    let committee = Committee::new(n).unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(n.into());
    let key = secret_key(&mut rng);
    let keys = flooding_keys(committee, &mut rng);
    with_degree!(committee, D => {
        let shares = key_shares::<D>(committee, &key, &mut rng);
        committee
            .participants()
            .zip(shares.iter().zip(keys))
            .map(|(j, (share, dec))| {
                let decryptor =
                    PartialDecryptor::new(committee, j, share, &dec, &KEY_SET, EPOCH);
                let proof = decryptor.partial(&[test()]).unwrap();
                KeyShare::new(origin(committee, j), share, dec, &frost(), proof).unwrap()
            })
            .collect()
    })
}

#[test]
fn a_stored_share_reads_back_and_is_verified() {
    for n in [1, 4, 7, 10, 13] {
        let shares = shares(n);
        for share in &shares {
            let bytes = share.to_bytes();
            let read = KeyShare::from_bytes(&bytes).unwrap();
            assert_eq!(read.origin(), share.origin());
            assert_eq!((read.dimension(), read.to_bytes()), (DIMENSION, bytes));
            assert_eq!(read.verify(&test()), Ok(()));
        }
        // The test shares lie on one polynomial.
        let committee = Committee::new(n).unwrap();
        let proofs: Vec<_> =
            shares.iter().map(|s| (s.origin().participant, s.test_share())).collect();
        assert_eq!(combine(committee, &proofs, 1).unwrap().culprits, []);
    }
}

#[test]
fn the_signing_part_is_read_for_its_member_only() {
    let alone = shares(1).remove(0);
    assert_eq!(alone.frost().unwrap().public(), frost().public());
    let first = shares(4).remove(0); // with the share of a group of one
    let wrong = FrostShareError::OtherMember { index: index(1), committee: Committee::ALL[0] };
    assert_eq!(first.frost().unwrap_err(), KeyShareError::Frost(wrong));
}

#[test]
fn every_cut_and_every_flipped_bit_is_found() {
    let bytes = shares(4)[0].to_bytes();
    for len in 0..bytes.len() {
        let error = KeyShare::from_bytes(&bytes[..len]).unwrap_err();
        let expected = match len {
            0 => matches!(error, KeyShareError::NotAKeyShare),
            _ => matches!(error, KeyShareError::Truncated { given, .. } if given == len),
        };
        assert!(expected, "{len}: {error}");
    }
    let mut damaged = bytes.clone();
    for at in 0..bytes.len() {
        for bit in [0, 7] {
            damaged[at] ^= 1 << bit;
            let error = KeyShare::from_bytes(&damaged).unwrap_err();
            let expected = match at {
                0..14 => matches!(error, KeyShareError::NotAKeyShare),
                14 => matches!(error, KeyShareError::Version { supported: 1, .. }),
                15..19 => {
                    matches!(error, KeyShareError::Truncated { .. } | KeyShareError::TooLong { .. })
                }
                _ => error == KeyShareError::Checksum,
            };
            assert!(expected, "{at}: {error}");
            damaged[at] ^= 1 << bit;
        }
    }
    let mut long = bytes.to_vec();
    long.push(0);
    let (given, expected) = (long.len(), bytes.len());
    assert_eq!(
        KeyShare::from_bytes(&long).unwrap_err(),
        KeyShareError::TooLong { given, expected }
    );
    let (given, expected) = (MAX_KEY_SHARE_BYTES + 1, MAX_KEY_SHARE_BYTES);
    let huge = vec![0; given];
    assert_eq!(
        KeyShare::from_bytes(&huge).unwrap_err(),
        KeyShareError::TooLong { given, expected }
    );
}

#[test]
fn intact_nonsense_is_named() {
    let bytes = shares(4)[0].to_bytes();
    let reseal = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut content = bytes[..bytes.len() - 32].to_vec();
        change(&mut content);
        content.extend(blake3::derive_key(domain::KEY_SHARE, &content));
        KeyShare::from_bytes(&content).unwrap_err()
    };
    let committee_at = 19 + 32 + 4;
    let dimension_at = committee_at + 2 + 8 + 64;
    let first_set = dimension_at + 4 + DIMENSION * 48 + 2;
    let malformed = KeyShareError::Malformed;
    assert_eq!(reseal(&|b| b[committee_at] = 5), malformed("committee"));
    assert_eq!(reseal(&|b| b[committee_at + 1] = 0), malformed("participant"));
    assert_eq!(reseal(&|b| b[committee_at + 1] = 5), malformed("participant"));
    assert_eq!(reseal(&|b| b[committee_at + 1] = 2), malformed("list of flooding keys"));
    assert_eq!(reseal(&|b| b[first_set] = 0), malformed("list of flooding keys"));
    assert_eq!(reseal(&|b| b[dimension_at + 3] = 0xff), malformed("structure"));
    let test_length = bytes.len() - 32 - 48 - 4;
    assert_eq!(reseal(&|b| b[test_length] = 47), malformed("test share"));
    assert_eq!(reseal(&|b| b[test_length] = 49), malformed("structure"));
    let trailing = |b: &mut Vec<u8>| {
        b.push(0);
        let len = b.len() as u32 + 32;
        b[15..19].copy_from_slice(&len.to_le_bytes());
    };
    assert_eq!(reseal(&trailing), malformed("structure"));
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let committee = Committee::new(4).unwrap();
    let share = [Element::<u128, 3>::ZERO(); DIMENSION];
    let keys = flooding_keys(committee, &mut ChaCha20Rng::seed_from_u64(1)).remove(0);
    let new = |origin, share: &[_], keys: &[(MemberSet, SetKey)], len| {
        KeyShare::new::<3>(origin, share, keys.to_vec(), &frost(), vec![0; len]).map(|_| ())
    };
    let mine = origin(committee, index(1));
    assert_eq!(new(mine, &share, &keys, 48), Ok(()));
    let malformed = |what| Err(KeyShareError::Malformed(what));
    assert_eq!(new(mine, &[], &keys, 48), malformed("share of Q"));
    assert_eq!(new(mine, &share, &keys[1..], 48), malformed("list of flooding keys"));
    assert_eq!(new(mine, &share, &keys, 47), malformed("test share"));
    let stranger = origin(committee, index(5));
    assert_eq!(new(stranger, &share, &keys, 48), malformed("participant"));
    let large = origin(Committee::new(13).unwrap(), index(1));
    assert_eq!(new(large, &share, &keys, 48), malformed("ring degree"));
}

#[test]
fn a_share_from_elsewhere_is_named() {
    let share = shares(4).remove(1);
    let KeyShareOrigin { ceremony, committee, participant, key_set, .. } = *share.origin();
    assert_eq!(share.check_belongs(ceremony, committee, participant, key_set), Ok(()));

    let other = CeremonyId([9; 32]);
    let error = share.check_belongs(other, committee, participant, key_set).unwrap_err();
    assert_eq!(error, KeyShareError::OtherCeremony { expected: other, found: ceremony });
    let text = error.to_string();
    assert!(text.contains(&other.to_string()) && text.contains(&ceremony.to_string()), "{text}");

    let error = share.check_belongs(ceremony, committee, index(3), key_set).unwrap_err();
    assert!(matches!(error, KeyShareError::OtherMember { .. }), "{error}");
    let seven = Committee::new(7).unwrap();
    let error = share.check_belongs(ceremony, seven, participant, key_set).unwrap_err();
    assert!(matches!(error, KeyShareError::OtherMember { .. }), "{error}");
    let expected = KeySetDigest([9; 32]);
    let error = share.check_belongs(ceremony, committee, participant, expected).unwrap_err();
    assert_eq!(error, KeyShareError::OtherKeySet { expected, found: key_set });
}

#[test]
fn a_share_that_computes_something_else_is_not_verified() {
    let mut share = shares(4).remove(0);
    let other = test_ciphertext(&KEY_SET, &Blake3Digest([5; 32]), DIMENSION);
    assert_eq!(share.verify(&other), Err(KeyShareError::NotVerified));
    let short = test_ciphertext(&KEY_SET, &Blake3Digest([4; 32]), DIMENSION - 1);
    assert!(matches!(share.verify(&short), Err(KeyShareError::Dimension(_))));
    share.share[7] ^= 1;
    assert_eq!(share.verify(&test()), Err(KeyShareError::NotVerified));
    share.share[7] ^= 1;
    share.dec[0].1 = SetKey::new([0; 32]);
    assert_eq!(share.verify(&test()), Err(KeyShareError::NotVerified));
}

#[test]
fn the_test_ciphertext_is_bound_to_key_and_transcript() {
    let of = |key, transcript| {
        test_ciphertext(&KeySetDigest([key; 32]), &Blake3Digest([transcript; 32]), 3)
    };
    assert_eq!(of(1, 2), of(1, 2));
    assert_ne!(of(1, 2), of(1, 3));
    assert_ne!(of(1, 2), of(2, 1));
    let longer = test_ciphertext(&KeySetDigest([1; 32]), &Blake3Digest([2; 32]), 5);
    assert_eq!((&longer.mask[..3], longer.body), (&of(1, 2).mask[..], 0));
}

/// The stored form is pinned: a share written by an earlier build must stay readable. So is the
/// flooding PRF through the test share in it: another one would make stored shares unusable.
#[test]
fn the_stored_form_is_pinned() {
    let digest = blake3::hash(&shares(4)[0].to_bytes());
    assert_eq!(
        digest.to_hex().as_str(),
        "967cc51657b80488398cf296152150b418582ec5cf2ec4f45641098544e751ce"
    );
}

#[test]
fn printing_redacts() {
    let mut share = shares(4).remove(0);
    share.share.fill(0xabab_abab_abab);
    share.dec.iter_mut().for_each(|(_, key)| *key = SetKey::new([0xab; 32]));
    let printed = format!("{share:?} {share:#?}");
    assert!(printed.contains("redacted"), "{printed}");
    for secret in ["abab", "171", &0xabab_abab_abab_u64.to_string()] {
        assert!(!printed.contains(secret), "{printed}");
    }
}
