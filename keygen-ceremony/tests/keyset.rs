//! A key set assembled from bodies is a key set to stock tfhe: it conforms, bootstraps, squashes,
//! and what it squashes decrypts under the raw key bits.

#![allow(clippy::unwrap_used, reason = "a failed helper fails the test")]

use std::time::Instant;

use rand::SeedableRng as _;
use tfhe::{
    CompactCiphertextList, CompactPublicKey, FheBool, FheUint8, FheUint16, Tag,
    conformance::ParameterSetConformant as _,
    core_crypto::prelude::NormalizedHammingWeightBound,
    prelude::{CiphertextList as _, FheMax, FheOrd as _, SquashNoise as _},
    set_server_key,
    xof_key_set::CompressedXofKeySet,
    zk::{CompactPkeCrs, ZkComputeLoad},
};
use veil_keygen_ceremony::keyset::{
    AssembleError, Bodies, Component, KeyName, KeySetError, Layout, ParameterSet, SectionBody,
    SquashedNoise, assemble, decode_blocks, key_set_size_limit, keyset_digest, read_key_set,
    read_key_set_with_digest,
    reference::{self, ClearKeys},
    squashed_blocks, write_key_set,
};
use veil_protocol_spec::{Committee, KeySetDigest};

const PUBLIC_SEED: [u8; 32] = [0x5e; 32];

fn reference_set(params: &ParameterSet, seed: u64) -> (ClearKeys, Bodies) {
    let layout = Layout::of(params);
    let keys = ClearKeys::random(&layout, &mut rand_chacha::ChaCha20Rng::seed_from_u64(seed));
    let bodies = reference::bodies(params, &layout, &PUBLIC_SEED, &keys, &[seed as u8; 32]);
    (keys, bodies)
}

fn decrypt(keys: &ClearKeys, value: &impl SquashedNoise) -> u128 {
    let phases: Vec<_> = squashed_blocks(value).iter().map(|b| keys.phase(b)).collect();
    decode_blocks(&phases).unwrap()
}

fn encrypt(public_key: &CompactPublicKey, values: &[u8]) -> Vec<FheUint8> {
    let mut builder = CompactCiphertextList::builder(public_key);
    for value in values {
        builder.push(*value);
    }
    let list = builder.build_packed().expand().unwrap();
    (0..values.len()).map(|i| list.get(i).unwrap().unwrap()).collect()
}

/// Evaluates, squashes and decrypts with `keys`, the clear side of `key_set`.
fn exercise(key_set: &CompressedXofKeySet, keys: &ClearKeys) {
    let (public_key, server_key) = key_set.decompress().into_raw_parts();
    set_server_key(server_key);

    let values = encrypt(&public_key, &[200, 100, 55, 0]);
    for (value, clear) in values.iter().zip([200, 100, 55, 0]) {
        assert_eq!(decrypt(keys, &value.squash_noise().unwrap()), clear);
    }
    let sum = &values[0] + &values[1];
    assert_eq!(decrypt(keys, &sum.squash_noise().unwrap()), (200 + 100) % 256);
    let product = &values[2] * &values[1];
    assert_eq!(decrypt(keys, &product.squash_noise().unwrap()), (55 * 100) % 256);
    let maximum = FheMax::max(&values[1], &values[2]);
    assert_eq!(decrypt(keys, &maximum.squash_noise().unwrap()), 100);
    for (a, b) in [(0, 1), (1, 0), (2, 2)] {
        let clear = [200, 100, 55, 0];
        let greater = values[a].gt(&values[b]);
        let expected = u128::from(clear[a] > clear[b]);
        assert_eq!(decrypt(keys, &greater.squash_noise().unwrap()), expected);
    }

    let mut builder = CompactCiphertextList::builder(&public_key);
    builder.push(true).push(0xbeef_u16);
    let list = builder.build_packed().expand().unwrap();
    let bit: FheBool = list.get(0).unwrap().unwrap();
    let word: FheUint16 = list.get(1).unwrap().unwrap();
    assert_eq!(decrypt(keys, &bit.squash_noise().unwrap()), 1);
    assert_eq!(decrypt(keys, &(!bit).squash_noise().unwrap()), 0);
    assert_eq!(decrypt(keys, &word.squash_noise().unwrap()), 0xbeef);
}

#[test]
fn an_assembled_key_set_computes_and_decrypts() {
    let params = ParameterSet::insecure_test();
    for seed in 0..5 {
        let (keys, bodies) = reference_set(&params, seed);
        let key_set = assemble(&params, PUBLIC_SEED, bodies).unwrap();
        assert!(key_set.is_conformant(&params.config()));
        exercise(&key_set, &keys);
    }
}

/// e = body - noiseless body is within the bound of a group and has the variance of sigma.
#[test]
fn the_noise_of_the_reference_is_as_declared() {
    let params = ParameterSet::insecure_test();
    let layout = Layout::of(&params);
    let (keys, bodies) = reference_set(&params, 9);
    let exact = reference::noiseless_bodies(&layout, &PUBLIC_SEED, &keys);
    for section in &layout.sections {
        let position = section.component.position();
        let noise: Vec<i64> = match (&bodies.sections[position], &exact.sections[position]) {
            (SectionBody::W64(b), SectionBody::W64(e)) => {
                b.iter().zip(e).map(|(b, e)| b.wrapping_sub(*e) as i64).collect()
            }
            (SectionBody::W128(b), SectionBody::W128(e)) => b
                .iter()
                .zip(e)
                .map(|(b, e)| i64::try_from(b.wrapping_sub(*e) as i128).unwrap())
                .collect(),
            _ => unreachable!("both have the width of the section"),
        };
        let bound = params.group_bound(section.component, 1) as i64;
        assert!(noise.iter().all(|e| e.abs() <= bound));
        let variance = noise.iter().map(|e| (e * e) as f64).sum::<f64>() / noise.len() as f64;
        let declared = (bound * (bound + 1)) as f64 / 3.0;
        assert!((variance / declared - 1.0).abs() < 0.25, "{}: {variance}", section.component);
    }
}

#[test]
fn stock_generation_accepts_the_parameters() {
    let params = ParameterSet::insecure_test();
    let (_, key_set) = CompressedXofKeySet::generate(
        params.config(),
        vec![1; 16],
        128,
        NormalizedHammingWeightBound::new(1.0).unwrap(),
        Tag::default(),
    )
    .unwrap();
    assert!(key_set.is_conformant(&params.config()));
}

/// The tiny compact public key is large enough for tfhe's proofs of well-formedness.
#[test]
fn proven_ciphertexts_are_accepted() {
    let params = ParameterSet::insecure_test();
    let (keys, bodies) = reference_set(&params, 10);
    let key_set = assemble(&params, PUBLIC_SEED, bodies).unwrap();
    let (public_key, server_key) = key_set.decompress().into_raw_parts();
    set_server_key(server_key);
    let crs = CompactPkeCrs::from_config(params.config(), 64).unwrap();
    let list = CompactCiphertextList::builder(&public_key)
        .push(0xabcd_u16)
        .build_with_proof_packed(&crs, b"metadata", ZkComputeLoad::Verify)
        .unwrap();
    assert!(list.verify_and_expand(&crs, &public_key, b"other").is_err());
    let value: FheUint16 =
        list.verify_and_expand(&crs, &public_key, b"metadata").unwrap().get(0).unwrap().unwrap();
    assert_eq!(decrypt(&keys, &value.squash_noise().unwrap()), 0xabcd);
}

#[test]
fn another_key_does_not_decrypt() {
    let params = ParameterSet::insecure_test();
    let (_, bodies) = reference_set(&params, 1);
    let (other, _) = reference_set(&params, 2);
    let (public_key, server_key) =
        assemble(&params, PUBLIC_SEED, bodies).unwrap().decompress().into_raw_parts();
    set_server_key(server_key);
    let clear = [1, 2, 3, 4, 5, 6, 7, 8];
    let wrong = encrypt(&public_key, &clear).iter().zip(clear).any(|(value, clear)| {
        let squashed = value.squash_noise().unwrap();
        let phases: Vec<_> = squashed_blocks(&squashed).iter().map(|b| other.phase(b)).collect();
        decode_blocks(&phases) != Ok(clear.into())
    });
    assert!(wrong);
}

#[test]
fn the_test_key_set_is_small_and_fast() {
    let params = ParameterSet::insecure_test();
    assert!(Layout::of(&params).body_bytes() < 2 << 20);
    let (_, bodies) = reference_set(&params, 3);
    let key_set = assemble(&params, PUBLIC_SEED, bodies).unwrap();
    let mut stored = Vec::new();
    write_key_set(&key_set, &mut stored).unwrap();
    assert!((stored.len() as u64) <= key_set_size_limit(&params), "{} bytes", stored.len());
}

#[test]
fn bodies_of_the_wrong_shape_are_refused() {
    let params = ParameterSet::insecure_test();
    let (_, bodies) = reference_set(&params, 4);

    for component in Component::ALL {
        let mut short = bodies.clone();
        match &mut short.sections[component.position()] {
            SectionBody::W64(words) => drop(words.pop()),
            SectionBody::W128(words) => drop(words.pop()),
        }
        let error = assemble(&params, PUBLIC_SEED, short).err().unwrap();
        assert!(
            matches!(error, AssembleError::WrongLength { component: c, .. } if c == component),
            "{error}"
        );
        let mut width = bodies.clone();
        let body = &mut width.sections[component.position()];
        *body = match body {
            SectionBody::W64(words) => SectionBody::W128(vec![0; words.len()]),
            SectionBody::W128(words) => SectionBody::W64(vec![0; words.len()]),
        };
        let error = assemble(&params, PUBLIC_SEED, width).err().unwrap();
        assert!(matches!(error, AssembleError::WrongLength { .. }), "{error}");
    }
    let mut missing = bodies;
    missing.sections.pop();
    assert_eq!(
        assemble(&params, PUBLIC_SEED, missing).err().unwrap(),
        AssembleError::WrongSections { expected: 5, found: 4 }
    );
}

#[test]
fn stored_key_sets_are_read_back_and_damage_is_found() {
    let params = ParameterSet::insecure_test();
    let (keys, bodies) = reference_set(&params, 5);
    let key_set = assemble(&params, PUBLIC_SEED, bodies).unwrap();
    let digest = keyset_digest(&key_set);
    let limit = key_set_size_limit(&params);
    let mut stored = Vec::new();
    write_key_set(&key_set, &mut stored).unwrap();

    let read = read_key_set_with_digest(&stored[..], limit, &params, &digest).unwrap();
    assert_eq!(keyset_digest(&read), digest);
    exercise(&read_key_set(&stored[..], limit, &params).unwrap(), &keys);

    for len in [0, 1, 100, stored.len() / 2, stored.len() - 1] {
        let error = read_key_set(&stored[..len], limit, &params).err().unwrap();
        assert!(matches!(error, KeySetError::Malformed(_)), "{len}: {error}");
    }
    let error = read_key_set(&stored[..], stored.len() as u64 / 2, &params).err().unwrap();
    assert!(matches!(error, KeySetError::Malformed(_)), "{error}");
    let longer: Vec<u8> = stored.iter().copied().chain([0]).collect();
    let error = read_key_set(&longer[..], limit, &params).err().unwrap();
    assert!(matches!(error, KeySetError::TrailingBytes), "{error}");

    // Every byte of the headers, and some of the bodies.
    let positions = (0..300).chain((300..stored.len()).step_by(7919)).chain([stored.len() - 1]);
    for position in positions {
        let mut flipped = stored.clone();
        flipped[position] ^= 1 << (position % 8);
        let read = read_key_set_with_digest(&flipped[..], limit, &params, &digest);
        assert!(read.is_err(), "a flipped bit in byte {position} was not found");
    }
    let other = KeySetDigest([1; 32]);
    let error = read_key_set_with_digest(&stored[..], limit, &params, &other).err().unwrap();
    assert!(
        matches!(error, KeySetError::WrongDigest { expected, found }
            if expected == other && found == digest),
        "{error}"
    );
    let production = ParameterSet::production(Committee::new(4).unwrap());
    let error = read_key_set(&stored[..], limit, &production).err().unwrap();
    assert!(matches!(error, KeySetError::WrongParameters { name: "production-n4" }), "{error}");
}

#[test]
fn the_digest_depends_on_seed_and_bodies() {
    let params = ParameterSet::insecure_test();
    let (_, bodies) = reference_set(&params, 6);
    let digest = |seed, bodies| keyset_digest(&assemble(&params, seed, bodies).unwrap());
    let original = digest(PUBLIC_SEED, bodies.clone());
    assert_eq!(original, digest(PUBLIC_SEED, bodies.clone()));
    assert_ne!(original, digest([0; 32], bodies.clone()));
    for component in Component::ALL {
        let mut changed = bodies.clone();
        match &mut changed.sections[component.position()] {
            SectionBody::W64(words) => words[0] ^= 1,
            SectionBody::W128(words) => words[0] ^= 1,
        }
        assert_ne!(original, digest(PUBLIC_SEED, changed), "{component}");
    }
}

#[test]
fn clear_keys_are_bits_and_not_printed() {
    let (keys, _) = reference_set(&ParameterSet::insecure_test(), 7);
    for key in KeyName::ALL {
        assert!(keys.bits(key).iter().all(|bit| *bit <= 1));
        assert!(keys.bits(key).contains(&0) && keys.bits(key).contains(&1));
    }
    assert_eq!(format!("{keys:?}"), "ClearKeys(<redacted>)");
}

/// The n = 4 production set, made by one party: about a minute and 2 GB.
#[test]
#[ignore = "production size"]
#[allow(clippy::disallowed_methods, reason = "a measurement")]
fn a_production_key_set_computes_and_decrypts() {
    let params = ParameterSet::production(Committee::new(4).unwrap());
    let layout = Layout::of(&params);
    println!("bodies {} bytes, masks {} bytes", layout.body_bytes(), layout.mask_bytes());
    let start = Instant::now();
    let (keys, bodies) = reference_set(&params, 8);
    println!("reference bodies: {:?}", start.elapsed());
    let start = Instant::now();
    let key_set = assemble(&params, PUBLIC_SEED, bodies).unwrap();
    println!("assembly: {:?}", start.elapsed());
    let start = Instant::now();
    let digest = keyset_digest(&key_set);
    println!("digest: {:?}", start.elapsed());
    let start = Instant::now();
    let mut stored = Vec::new();
    write_key_set(&key_set, &mut stored).unwrap();
    println!("writing {} bytes: {:?}", stored.len(), start.elapsed());
    let start = Instant::now();
    let limit = key_set_size_limit(&params);
    drop(key_set);
    let key_set = read_key_set_with_digest(&stored[..], limit, &params, &digest).unwrap();
    println!("reading: {:?}", start.elapsed());
    drop(stored);
    let start = Instant::now();
    exercise(&key_set, &keys);
    println!("decompression and evaluation: {:?}", start.elapsed());

    // The reference draws the noise of one group with r = 1, as a committee of one does.
    let (public_key, _) = key_set.decompress().into_raw_parts();
    let values = encrypt(&public_key, &[0; 16]);
    let noise: Vec<f64> = values
        .iter()
        .flat_map(|value| squashed_blocks(&value.squash_noise().unwrap()))
        .map(|block| keys.phase(&block) as i128 as f64)
        .collect();
    let variance = noise.iter().map(|e| e * e).sum::<f64>() / noise.len() as f64;
    let (measured, expected) = (
        variance.log2() / 2.0,
        ParameterSet::production(Committee::new(1).unwrap()).log2_squashed_deviation(),
    );
    println!("squashed noise: sigma 2^{measured:.2}, by formula 2^{expected:.2}");
    assert!((measured - expected).abs() < 0.8);
}

/// What the ceremony is compared with: tfhe's own generation under the same configuration.
#[test]
#[ignore = "production size"]
#[allow(clippy::disallowed_methods, reason = "a measurement")]
fn stock_generation_at_production_size() {
    for n in [1, 4, 7, 10, 13] {
        let params = ParameterSet::production(Committee::new(n).unwrap());
        let start = Instant::now();
        let (_, key_set) = CompressedXofKeySet::generate(
            params.config(),
            vec![1; 16],
            128,
            NormalizedHammingWeightBound::new(1.0).unwrap(),
            Tag::default(),
        )
        .unwrap();
        println!("{}: stock generation {:?}", params.name(), start.elapsed());
        assert!(key_set.is_conformant(&params.config()));
    }
}
