//! Noise of what the threshold circuit adds up: comparisons that are read from one rotation share a part of its
//! noise.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rayon::prelude::*;
use veil_keygen_ceremony::keyset::{
    KeyName, Layout, ParameterSet, assemble,
    reference::{self, ClearKeys},
};
use veil_scheduler_plan::circuit::{digit::Digit, lookup::Circuit, rotated::Rotated};

use crate::{
    encrypted::{Encrypted, EncryptedDigit},
    expanded::switched,
    key::EvaluationKey,
};

/// How far a digit is from the multiple of half a step that it is nearest to, relative to the torus.
fn noise(clear: &ClearKeys, digit: &EncryptedDigit) -> f64 {
    let ciphertext = &digit.value().0.ct;
    let (mask, body) = ciphertext.get_mask_and_body();
    let key = clear.bits(KeyName::Glwe);
    let set = mask.as_ref().iter().zip(key).filter(|(_, bit)| **bit == 1);
    let phase = set.fold(*body.data, |rest, (word, _)| rest.wrapping_sub(*word));
    let nearest = phase.wrapping_add(1 << 57) >> 58 << 58;
    phase.wrapping_sub(nearest) as i64 as f64 / 64f64.exp2()
}

/// Of `samples` rotations: the variance of single comparisons, and of sums of comparisons over that.
fn measure(parameters: &ParameterSet, samples: usize) {
    let layout = Layout::of(parameters);
    let clear = ClearKeys::random(&layout, &mut StdRng::seed_from_u64(1));
    let bodies = reference::bodies(parameters, &layout, &[1; 32], &clear, &[2; 32]);
    let key_set = assemble(parameters, [1; 32], bodies).unwrap();
    let (public_key, server_key) = key_set.decompress().into_raw_parts();
    let key = EvaluationKey::new(public_key, server_key).unwrap();
    let mut rng = StdRng::seed_from_u64(3);
    let messages: Vec<u64> = (0..samples).map(|_| rng.gen_range(0..9)).collect();
    let digits: Vec<Digit<Encrypted>> = messages
        .chunks(8)
        .zip(0u128..)
        .flat_map(|(messages, seed)| {
            let list = key
                .public_key()
                .encrypt_iter_with_modulus_seeded(messages.iter().copied(), 16, &seed.to_le_bytes())
                .unwrap();
            switched(&list, &(0..messages.len()).collect::<Vec<_>>(), &key).unwrap()
        })
        .collect();
    let circuit = Circuit::new(&key);
    let rotated: Vec<Rotated<Encrypted>> =
        digits.par_iter().map(|digit| circuit.rotate(digit, 1)).collect();
    let variance = |of: &(dyn Fn(&Rotated<Encrypted>) -> EncryptedDigit + Sync)| {
        let squares = rotated.par_iter().map(|rotated| noise(&clear, &of(rotated)).powi(2));
        squares.sum::<f64>() / samples as f64
    };
    let add = |digits: Vec<EncryptedDigit>| {
        let mut digits = digits.into_iter();
        let first = digits.next().unwrap();
        digits.fold(first, |sum, digit| sum.plus(&digit))
    };
    let predicted =
        parameters.look_up_noise_with(|component| parameters.variance(component) as f64).bootstrap;
    let one = variance(&|rotated| rotated.at_least(4)) / predicted;
    let two = variance(&|rotated| rotated.below_both(3)) / predicted;
    let eight =
        variance(&|rotated| add((1..=8).map(|k| rotated.at_least(k)).collect())) / predicted;
    let deviation = (2.0 / samples as f64).sqrt();
    println!(
        "{}, {samples} rotations, in bootstraps as predicted: one comparison {one:.2}, two {two:.2}, \
         eight {eight:.2}; standard deviation of each {deviation:.2} of it",
        parameters.name()
    );
    for (found, counted) in [(one, 1.0), (two, 3.0)] {
        assert!(found <= counted * (1.15 + 4.0 * deviation), "{found} where {counted} is counted");
        assert!(found >= counted * (0.4 - 4.0 * deviation), "{found} where {counted} is counted");
    }
    // Why nothing adds up more of them.
    assert!(eight > 10.0, "{eight}");
}

#[test]
fn comparisons_from_one_rotation_have_the_noise_that_is_counted() {
    measure(&ParameterSet::insecure_test(), 800);
}

/// Minutes.
#[test]
#[ignore = "production keys and a thousand look-ups: cargo xtask test --full"]
fn the_same_with_production_keys() {
    let committee = veil_protocol_spec::Committee::new(4).unwrap();
    measure(&ParameterSet::production(committee), 1000);
}
