//! Noise of what enters a look-up, measured with the secret keys and predicted by tfhe's formulas.
//!
//! A look-up switches its input to the small key, then to modulus 2N, then rotates by it. The noise
//! that decides whether the right entry is found is what is there after both switches.

use rayon::prelude::*;
use tfhe::{
    core_crypto::prelude::{
        CiphertextModulusLog, DynamicDistribution, LweCiphertext, LweCiphertextOwned,
        LweKeyswitchKeyOwned, ModulusSwitchedLweCiphertext, keyswitch_lwe_ciphertext,
        lwe_ciphertext_centered_binary_modulus_switch,
    },
    shortint::{self, Ciphertext},
};
use veil_keygen_ceremony::keyset::{
    Component, KeyName, ParameterSet, noise::key_switch, reference::ClearKeys,
};

use crate::keys::phase;

/// Messages are multiples of this: half a step of 1/32 of the torus.
const LOG_HALF_STEP: u32 = 58;

/// One value for each point at which noise is looked at, relative to the torus.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stages {
    /// Before the look-up, under the big key.
    pub input: f64,
    /// After the switch to the small key.
    pub key_switched: f64,
    /// After the switch to modulus 2N: what the rotation sees.
    pub modulus_switched: f64,
}

impl Stages {
    /// The three values in order.
    #[must_use]
    pub const fn as_array(&self) -> [f64; 3] {
        [self.input, self.key_switched, self.modulus_switched]
    }

    const fn from_array([input, key_switched, modulus_switched]: [f64; 3]) -> Self {
        Self { input, key_switched, modulus_switched }
    }
}

/// Sees noise, because it has the keys.
pub struct Meter<'a> {
    clear: &'a ClearKeys,
    key_switching_key: &'a LweKeyswitchKeyOwned<u64>,
    log_two_n: u32,
}

impl<'a> Meter<'a> {
    /// For look-ups with accumulators of `polynomial_size` coefficients, a power of two.
    #[must_use]
    pub const fn new(
        clear: &'a ClearKeys,
        key_switching_key: &'a LweKeyswitchKeyOwned<u64>,
        polynomial_size: usize,
    ) -> Self {
        Self { clear, key_switching_key, log_two_n: polynomial_size.ilog2() + 1 }
    }

    /// The noise of one input: how far each stage is from the multiple of half a step that the input
    /// is nearest to.
    #[must_use]
    pub fn measure(&self, input: &LweCiphertextOwned<u64>) -> Stages {
        let small_key = self.clear.bits(KeyName::Lwe);
        let input_phase = phase(input, self.clear.bits(KeyName::Glwe));
        let message =
            input_phase.wrapping_add(1 << (LOG_HALF_STEP - 1)) >> LOG_HALF_STEP << LOG_HALF_STEP;

        let key = self.key_switching_key;
        let mut switched =
            LweCiphertext::new(0u64, key.output_lwe_size(), key.ciphertext_modulus());
        keyswitch_lwe_ciphertext(key, input, &mut switched);
        let switched_phase = phase(&switched, small_key);

        let coarse = lwe_ciphertext_centered_binary_modulus_switch::<u64, u64, _>(
            switched,
            CiphertextModulusLog(self.log_two_n as usize),
        );
        let positions = coarse
            .mask()
            .zip(small_key)
            .filter(|(_, bit)| **bit == 1)
            .fold(coarse.body(), |rest, (word, _)| rest.wrapping_sub(word));
        // Entries are centred half a position below their message, which the switch accounts for.
        let lost_bits = 64 - self.log_two_n;
        let coarse_phase = (positions << lost_bits).wrapping_add(1 << (lost_bits - 1));

        let distance = |phase: u64| phase.wrapping_sub(message) as i64 as f64 / 64f64.exp2();
        Stages {
            input: distance(input_phase),
            key_switched: distance(switched_phase),
            modulus_switched: distance(coarse_phase),
        }
    }
}

/// Sums over many measurements of one kind of look-up.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    count: u64,
    sums: [f64; 3],
    squares: [f64; 3],
    largest: f64,
}

impl Sample {
    /// Adds one measurement.
    pub fn add(&mut self, noise: &Stages) {
        self.count += 1;
        for ((sum, square), value) in
            self.sums.iter_mut().zip(&mut self.squares).zip(noise.as_array())
        {
            *sum += value;
            *square += value * value;
        }
        self.largest = self.largest.max(noise.modulus_switched.abs());
    }

    /// Number of measurements.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Mean of the noise, which should be near 0.
    #[must_use]
    pub fn mean(&self) -> Stages {
        Stages::from_array(self.sums.map(|sum| sum / self.count.max(1) as f64))
    }

    /// Mean square of the noise: the variance around 0, which is what a look-up suffers from.
    #[must_use]
    pub fn variance(&self) -> Stages {
        Stages::from_array(self.squares.map(|sum| sum / self.count.max(1) as f64))
    }

    /// The largest noise that a rotation saw.
    #[must_use]
    pub const fn largest(&self) -> f64 {
        self.largest
    }

    /// Standard deviation of a measured variance relative to itself, for Gaussian noise.
    #[must_use]
    pub fn uncertainty(&self) -> f64 {
        (2.0 / self.count.max(1) as f64).sqrt()
    }
}

/// Fresh ciphertexts, each what a bootstrap leaves, from which inputs of a given variance are made.
#[derive(Debug)]
pub struct Pool(Vec<LweCiphertextOwned<u64>>);

impl Pool {
    /// `count` bootstraps in chains that begin with `first`, on all cores.
    #[must_use]
    pub fn bootstrap(key: &shortint::ServerKey, first: &[Ciphertext], count: usize) -> Self {
        let identity = key.generate_lookup_table(|x| x);
        let chains = first.len().max(1);
        let made = first.par_iter().enumerate().flat_map_iter(|(chain, first)| {
            let own = count / chains + usize::from(chain < count % chains);
            let next = |previous: &Ciphertext| Some(key.apply_lookup_table(previous, &identity));
            std::iter::successors(next(first), next).take(own).map(|ciphertext| ciphertext.ct)
        });
        Self(made.collect())
    }

    /// Linear combinations with these weights, no ciphertext used twice.
    pub fn combinations<'a>(
        &'a self,
        weights: &'a [i64],
    ) -> impl Iterator<Item = LweCiphertextOwned<u64>> + 'a {
        self.0.chunks_exact(weights.len().max(1)).map(move |chunk| {
            let mut sum = chunk[0].clone();
            sum.as_mut().fill(0);
            for (ciphertext, weight) in chunk.iter().zip(weights) {
                for (sum, word) in sum.as_mut().iter_mut().zip(ciphertext.as_ref()) {
                    *sum = sum.wrapping_add(word.wrapping_mul(*weight as u64));
                }
            }
            sum
        })
    }
}

/// Weights whose squares add up to `variance`, the largest first.
#[must_use]
pub fn weights(mut variance: u32) -> Vec<i64> {
    let mut weights = Vec::new();
    while variance > 0 {
        let weight = variance.isqrt();
        weights.push(weight.into());
        variance -= weight * weight;
    }
    weights
}

/// Variance of what the first look-up of a list gets, relative to the torus: an encryption with the
/// compact public key (the key's noise times the encryptor's binary mask, the encryptor's own noise
/// times the binary key, and a word of its own), and its switch to the big key.
#[must_use]
pub fn list_input(parameters: &ParameterSet, key_variance: impl Fn(Component) -> f64) -> f64 {
    let pke = parameters.pke();
    let dimension = pke.encryption_lwe_dimension.0 as f64;
    let encryptor = match pke.encryption_noise_distribution {
        DynamicDistribution::TUniform(uniform) => {
            ((2 * uniform.bound_log2() + 1) as f64).exp2() / 6.0 + 1.0 / 6.0
        }
        DynamicDistribution::Gaussian(gaussian) => gaussian.std.powi(2) * 128f64.exp2(),
    };
    let public_key = key_variance(Component::CompactPublicKey);
    let encryption = dimension / 2.0 * (public_key + encryptor) + encryptor;
    let switch = parameters.pke_key_switching();
    let switched = key_switch(
        pke.encryption_lwe_dimension.0,
        switch.ks_base_log.0 as u32,
        switch.ks_level.0 as u32,
        key_variance(Component::PublicKeySwitch) * (-128f64).exp2(),
    );
    encryption * (-128f64).exp2() + switched
}

#[cfg(test)]
mod tests;
