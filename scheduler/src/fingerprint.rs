//! Which circuit this build evaluates, and how.
//!
//! # What the fingerprint covers
//! The version of the circuit and of the telemetry layout, the version of tfhe and its FFT plan,
//! and the bits of one small bootstrap in 64 bits and one in 128 bits, computed on this machine
//! from fixed seeds at production polynomial sizes. The bootstraps tell machines apart whose
//! floating-point arithmetic differs.
//!
//! # What it does not cover
//! Equal bits of two small bootstraps are evidence, not proof, of equal bits everywhere. The key
//! set and the parameters are not in it; the manifest's binding names them. A change of the circuit
//! without a new [`CIRCUIT_VERSION`] goes unnoticed here; a test pins the digest of a whole
//! evaluation for that.

use std::sync::OnceLock;

use tfhe::core_crypto::{
    algorithms::{
        lwe_bootstrap_key_conversion::convert_standard_lwe_bootstrap_key_to_fourier_128, *,
    },
    commons::{
        generators::{DeterministicSeeder, EncryptionRandomGenerator, SecretRandomGenerator},
        math::random::{DefaultRandomGenerator, Seed},
    },
    prelude::*,
};
use veil_protocol_spec::{
    Blake3Digest,
    domain::{self, hash_parts},
    scheduling::CircuitId,
};

use crate::lists::LAYOUT_VERSION;

/// Version of the circuit's text: what it computes, and in which order.
pub const CIRCUIT_VERSION: u32 = CircuitId::AT_ONCE;
/// As pinned in the workspace; a test compares.
const TFHE: &str = "1.8.2";
/// The FFT plan that the workspace forces; a test compares.
const FFT: &str = "dif4";

/// Version of the [threshold circuit](veil_scheduler_plan::threshold).
pub const THRESHOLD_CIRCUIT_VERSION: u32 = CircuitId::THRESHOLDS;

/// The circuit of this build on this machine, as manifests name it.
#[must_use]
pub fn circuit_id() -> CircuitId {
    static ID: OnceLock<CircuitId> = OnceLock::new();
    *ID.get_or_init(|| id(CIRCUIT_VERSION))
}

/// The same of the [threshold circuit](veil_scheduler_plan::threshold).
#[must_use]
pub fn threshold_circuit_id() -> CircuitId {
    static ID: OnceLock<CircuitId> = OnceLock::new();
    *ID.get_or_init(|| id(THRESHOLD_CIRCUIT_VERSION))
}

fn id(version: u32) -> CircuitId {
    CircuitId {
        version,
        fingerprint: Blake3Digest(hash_parts(
            domain::CIRCUIT_FINGERPRINT,
            &[
                &version.to_le_bytes(),
                &[LAYOUT_VERSION],
                TFHE.as_bytes(),
                FFT.as_bytes(),
                &bootstrap_64(),
                &bootstrap_128(),
            ],
        )),
    }
}

/// Bits of the small key: few, so that this takes a millisecond.
const INPUT_DIMENSION: LweDimension = LweDimension(8);

struct Seeded {
    secret: SecretRandomGenerator<DefaultRandomGenerator>,
    encryption: EncryptionRandomGenerator<DefaultRandomGenerator>,
}

impl Seeded {
    /// Fixed seeds: these keys protect nothing.
    fn new() -> Self {
        let mut seeder = DeterministicSeeder::<DefaultRandomGenerator>::new(Seed(2));
        Self {
            secret: SecretRandomGenerator::new(Seed(1)),
            encryption: EncryptionRandomGenerator::new(Seed(3), &mut seeder),
        }
    }
}

fn bootstrap_64() -> Vec<u8> {
    let mut random = Seeded::new();
    let modulus = CiphertextModulus::new_native();
    let noise = DynamicDistribution::new_t_uniform(17);
    let small =
        allocate_and_generate_new_binary_lwe_secret_key(INPUT_DIMENSION, &mut random.secret);
    let big = allocate_and_generate_new_binary_glwe_secret_key(
        GlweDimension(1),
        PolynomialSize(2048),
        &mut random.secret,
    );
    let standard = allocate_and_generate_new_lwe_bootstrap_key(
        &small,
        &big,
        DecompositionBaseLog(23),
        DecompositionLevelCount(1),
        noise,
        modulus,
        &mut random.encryption,
    );
    let mut fourier = FourierLweBootstrapKey::new(
        standard.input_lwe_dimension(),
        standard.glwe_size(),
        standard.polynomial_size(),
        standard.decomposition_base_log(),
        standard.decomposition_level_count(),
    );
    convert_standard_lwe_bootstrap_key_to_fourier(&standard, &mut fourier);
    let input: LweCiphertextOwned<u64> = allocate_and_encrypt_new_lwe_ciphertext(
        &small,
        Plaintext(1 << 60),
        noise,
        modulus,
        &mut random.encryption,
    );
    let mut table =
        GlweCiphertext::new(0, standard.glwe_size(), standard.polynomial_size(), modulus);
    for (i, word) in table.get_mut_body().as_mut().iter_mut().enumerate() {
        *word = (i as u64) << 48;
    }
    let mut output = LweCiphertext::new(
        0,
        big.clone().into_lwe_secret_key().lwe_dimension().to_lwe_size(),
        modulus,
    );
    programmable_bootstrap_lwe_ciphertext(&input, &mut output, &table, &fourier);
    output.as_ref().iter().flat_map(|word: &u64| word.to_le_bytes()).collect()
}

fn bootstrap_128() -> Vec<u8> {
    let mut random = Seeded::new();
    let modulus = CiphertextModulus::new_native();
    let small: LweSecretKeyOwned<u128> =
        allocate_and_generate_new_binary_lwe_secret_key(INPUT_DIMENSION, &mut random.secret);
    let big = allocate_and_generate_new_binary_glwe_secret_key(
        GlweDimension(2),
        PolynomialSize(2048),
        &mut random.secret,
    );
    let standard = allocate_and_generate_new_lwe_bootstrap_key(
        &small,
        &big,
        DecompositionBaseLog(24),
        DecompositionLevelCount(3),
        DynamicDistribution::new_t_uniform(30),
        modulus,
        &mut random.encryption,
    );
    let mut fourier = Fourier128LweBootstrapKey::new(
        standard.input_lwe_dimension(),
        standard.glwe_size(),
        standard.polynomial_size(),
        standard.decomposition_base_log(),
        standard.decomposition_level_count(),
    );
    convert_standard_lwe_bootstrap_key_to_fourier_128(&standard, &mut fourier);
    let input = LweCiphertext::from_container(
        (0..=INPUT_DIMENSION.0 as u64).map(|i| (i + 1) << 59).collect::<Vec<u64>>(),
        CiphertextModulus::new_native(),
    );
    let mut table =
        GlweCiphertext::new(0, standard.glwe_size(), standard.polynomial_size(), modulus);
    for (i, word) in table.get_mut_body().as_mut().iter_mut().enumerate() {
        *word = (i as u128) << 112;
    }
    let mut output = LweCiphertext::new(
        0,
        big.clone().into_lwe_secret_key().lwe_dimension().to_lwe_size(),
        modulus,
    );
    programmable_bootstrap_f128_lwe_ciphertext(&input, &mut output, &table, &fourier);
    output.as_ref().iter().flat_map(|word: &u128| word.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constants_are_what_the_workspace_pins() {
        let manifest = include_str!("../../Cargo.toml");
        assert!(manifest.contains(&format!("tfhe = {{ version = \"={TFHE}\"")));
        assert!(manifest.contains(&format!("experimental-force_fft_algo_{FFT}")));
    }

    #[test]
    fn the_bootstraps_give_the_same_bits_again() {
        assert_eq!(bootstrap_64(), bootstrap_64());
        assert_eq!(bootstrap_128(), bootstrap_128());
        assert_ne!(bootstrap_64(), vec![0; bootstrap_64().len()]);
    }
}
