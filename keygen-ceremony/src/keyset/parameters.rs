//! Named parameter sets: everything public about a key set except the key set itself.
//!
//! # Noise
//! Stock tfhe draws the noise of its keys from `TUniform` with a power-of-two bound. A committee's
//! noise is a sum over M groups of members of which the adversary misses at least r, so the
//! honest-only groups must reach the secure deviation sigma by themselves: each group draws
//! uniformly from [-B, B] with B(B+1)/3 >= sigma^2 / r, and the total variance is (M/r) sigma^2
//! (`ceremony.md`, sections 2 and 8). sigma is tfhe 1.8.2's own minimum for 132 bits of security;
//! a finer key-switching base buys the failure probability back.

use core::fmt;

use serde::Serialize;
use tfhe::{
    Config, ConfigBuilder,
    core_crypto::prelude::{
        CiphertextModulus, DecompositionBaseLog, DecompositionLevelCount, DynamicDistribution,
        GlweDimension, LweDimension, PolynomialSize,
    },
    shortint::parameters::{
        CarryModulus, ClassicPBSParameters, CompactCiphertextListExpansionKind,
        CompactPublicKeyEncryptionParameters, EncryptionKeyChoice, MaxNoiseLevel, MessageModulus,
        ModulusSwitchType, NoiseSquashingParameters, ShortintKeySwitchingParameters,
        SupportedCompactPkeZkScheme,
        noise_squashing::NoiseSquashingClassicParameters,
        v1_8::{
            V1_8_NOISE_SQUASHING_PARAM_MESSAGE_2_CARRY_2_KS_PBS_TUNIFORM_2M128,
            V1_8_PARAM_KEYSWITCH_PKE_TO_BIG_MESSAGE_2_CARRY_2_KS_PBS_TUNIFORM_2M128_ZKV2,
            V1_8_PARAM_MESSAGE_2_CARRY_2_KS_PBS_TUNIFORM_2M128,
            V1_8_PARAM_PKE_TO_BIG_MESSAGE_2_CARRY_2_KS_PBS_TUNIFORM_2M128_ZKV2,
        },
    },
};
use veil_protocol_spec::{
    Blake3Digest, Committee,
    domain::{PARAMETERS_DIGEST, hash_parts},
};
use veil_reference_string::Size;

use super::noise::{self, Bootstrap, LookUpNoise};

/// A part of the public key material, in mask-stream order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Component {
    /// What clients encrypt with: an encryption of 0 under p.
    CompactPublicKey,
    /// From S to s.
    KeySwitch,
    /// The bits of s under S.
    Bootstrap,
    /// The bits of s under Q, in 128-bit words.
    NoiseSquashing,
    /// From p to S.
    PublicKeySwitch,
}

impl Component {
    /// All of them, in mask-stream order.
    pub const ALL: [Self; 5] = [
        Self::CompactPublicKey,
        Self::KeySwitch,
        Self::Bootstrap,
        Self::NoiseSquashing,
        Self::PublicKeySwitch,
    ];

    /// Name used in labels and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CompactPublicKey => "compact-public-key",
            Self::KeySwitch => "key-switch",
            Self::Bootstrap => "bootstrap",
            Self::NoiseSquashing => "noise-squashing",
            Self::PublicKeySwitch => "public-key-switch",
        }
    }

    /// Position in [`Component::ALL`].
    #[must_use]
    pub const fn position(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CompactPublicKey => "compact public key",
            Self::KeySwitch => "key-switching key",
            Self::Bootstrap => "bootstrapping key",
            Self::NoiseSquashing => "noise-squashing key",
            Self::PublicKeySwitch => "public-key switching key",
        })
    }
}

/// How many groups draw noise (M) and how many of them every t members miss (r); the families
/// themselves are in `ceremony.md`, section 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct NoiseFamily {
    /// M, the number of groups.
    pub groups: u32,
    /// r, the groups that every t members miss; at least 1.
    pub honest: u32,
}

impl NoiseFamily {
    /// The family of a committee, by the table of section 2.
    #[must_use]
    pub const fn of(committee: Committee) -> Self {
        let (groups, honest) = match committee.n() {
            1 => (1, 1),
            4 => (2, 1),
            7 => (7, 2),
            10 => (30, 5),
            // Committees have 1, 4, 7, 10 or 13 members by construction.
            _ => (117, 11),
        };
        Self { groups, honest }
    }

    /// M/r, by which the total variance exceeds what security needs.
    #[must_use]
    pub fn amplification(self) -> f64 {
        f64::from(self.groups) / f64::from(self.honest)
    }
}

/// sigma^2 at dimension 918, modulus 2^64: sigma = 2^43.807.
const VARIANCE_918: u128 = 236_829_225_291_821_730_763_340_468;
/// sigma^2 at dimension 2048, modulus 2^64: sigma = 2^15.680.
const VARIANCE_2048: u128 = 2_754_771_906;
/// sigma^2 at dimension 4096, modulus 2^128: sigma = 2^28.702.
const VARIANCE_4096: u128 = 190_673_181_271_632_422;
/// sigma^2 of the set that keeps no secret: small, but not zero, so that noise is exercised.
const VARIANCE_TEST: u128 = 16;

/// Name of [`ParameterSet::insecure_test`].
const INSECURE_TEST: &str = "insecure-test";
/// Name of [`ParameterSet::insecure_short`].
const INSECURE_SHORT: &str = "insecure-short";
/// Family name of [`ParameterSet::production`].
const PRODUCTION: &str = "production";

/// No parameter set has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown FHE parameters {name:?}: choose \"{PRODUCTION}\", or \"{INSECURE_TEST}\" for tests, or \"{INSECURE_SHORT}\" for tests of the ceremony alone"
)]
pub struct UnknownParameters {
    /// What was asked for.
    pub name: String,
}

/// A named, immutable set of public parameters. Two members run the same ceremony only if the
/// [`digest`](Self::digest) is the same.
///
/// # Security
/// [`ParameterSet::insecure_test`] protects nothing; check [`ParameterSet::is_insecure`] wherever
/// a real secret is at stake.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ParameterSet {
    name: &'static str,
    compute: ClassicPBSParameters,
    pke: CompactPublicKeyEncryptionParameters,
    pke_key_switching: ShortintKeySwitchingParameters,
    noise_squashing: NoiseSquashingClassicParameters,
    /// sigma^2 by [`Component::position`], in units of the component's words. Integers, so that
    /// every machine derives the same bounds.
    variances: [u128; 5],
    family: NoiseFamily,
    security_bits: u32,
}

impl ParameterSet {
    /// The production set of a committee (`ceremony.md`, section 8): tfhe 1.8.2's 2_2 set with
    /// dedicated compact public key (zero-knowledge scheme 2) and noise squashing, and a
    /// key-switching base that keeps the failure probability of one bootstrap below 2^-128 with
    /// the committee's noise.
    ///
    /// | n | key-switching base x levels | log2 p_fail |
    /// |---|---|---|
    /// | 1 | 2^4 x 4, as in stock | -138.8 |
    /// | 4 | 2^3 x 5 | -136.8 |
    /// | 7 | 2^3 x 5 | -130.5 |
    /// | 10 | 2^2 x 8 | -138.6 |
    /// | 13 | 2^2 x 8 | -129.0 |
    ///
    /// Fresh ciphertexts are switched to the **big** key S (tfhe names both directions; its
    /// meta-parameters with proofs exist for both): one level of base 2^24 leaves noise far below
    /// that of a bootstrap whatever the committee, so this component keeps the stock base, whereas
    /// a switch to the small key s would need the committee's finer base (5 to 8 levels) and would
    /// more than double its mask. The price is one more key switch for each packed block.
    #[must_use]
    pub fn production(committee: Committee) -> Self {
        let (name, base_log, levels, log2_p_fail) = match committee.n() {
            1 => ("production-n1", 4, 4, -138.8),
            4 => ("production-n4", 3, 5, -136.8),
            7 => ("production-n7", 3, 5, -130.5),
            10 => ("production-n10", 2, 8, -138.6),
            // Committees have 1, 4, 7, 10 or 13 members by construction.
            _ => ("production-n13", 2, 8, -129.0),
        };
        Self {
            name,
            compute: ClassicPBSParameters {
                ks_base_log: DecompositionBaseLog(base_log),
                ks_level: DecompositionLevelCount(levels),
                log2_p_fail,
                ..V1_8_PARAM_MESSAGE_2_CARRY_2_KS_PBS_TUNIFORM_2M128
            },
            pke: V1_8_PARAM_PKE_TO_BIG_MESSAGE_2_CARRY_2_KS_PBS_TUNIFORM_2M128_ZKV2,
            pke_key_switching:
                V1_8_PARAM_KEYSWITCH_PKE_TO_BIG_MESSAGE_2_CARRY_2_KS_PBS_TUNIFORM_2M128_ZKV2,
            noise_squashing: stock_noise_squashing(),
            variances: [VARIANCE_2048, VARIANCE_918, VARIANCE_2048, VARIANCE_4096, VARIANCE_2048],
            family: NoiseFamily::of(committee),
            security_bits: 132,
        }
    }

    /// Tiny keys for tests: generated in milliseconds, under 1 MB, correct, and **without any
    /// security**. LWE dimension 16, polynomials of 256 coefficients; every component has the
    /// shape of the n = 4 production set (k = 2 and three levels for squashing, five
    /// key-switching levels).
    ///
    /// With 16 key bits the centred modulus switch is off by at most 4.5 of the 8 steps that a
    /// wrong look-up needs, and all other noise is far below one step: evaluation cannot fail.
    #[must_use]
    pub fn insecure_test() -> Self {
        const SIZE: usize = 256;
        Self {
            name: INSECURE_TEST,
            compute: ClassicPBSParameters {
                lwe_dimension: LweDimension(16),
                glwe_dimension: GlweDimension(1),
                polynomial_size: PolynomialSize(SIZE),
                lwe_noise_distribution: DynamicDistribution::new_t_uniform(2),
                glwe_noise_distribution: DynamicDistribution::new_t_uniform(2),
                pbs_base_log: DecompositionBaseLog(23),
                pbs_level: DecompositionLevelCount(1),
                ks_base_log: DecompositionBaseLog(3),
                ks_level: DecompositionLevelCount(5),
                message_modulus: MessageModulus(4),
                carry_modulus: CarryModulus(4),
                max_noise_level: MaxNoiseLevel::new(5),
                log2_p_fail: -128.0,
                ciphertext_modulus: CiphertextModulus::new_native(),
                encryption_key_choice: EncryptionKeyChoice::Big,
                modulus_switch_noise_reduction_params:
                    ModulusSwitchType::CenteredMeanNoiseReduction,
            },
            pke: CompactPublicKeyEncryptionParameters {
                encryption_lwe_dimension: LweDimension(SIZE),
                encryption_noise_distribution: DynamicDistribution::new_t_uniform(2),
                message_modulus: MessageModulus(4),
                carry_modulus: CarryModulus(4),
                ciphertext_modulus: CiphertextModulus::new_native(),
                expansion_kind: CompactCiphertextListExpansionKind::RequiresCasting,
                zk_scheme: SupportedCompactPkeZkScheme::V2,
            },
            pke_key_switching:
                V1_8_PARAM_KEYSWITCH_PKE_TO_BIG_MESSAGE_2_CARRY_2_KS_PBS_TUNIFORM_2M128_ZKV2,
            noise_squashing: NoiseSquashingClassicParameters {
                polynomial_size: PolynomialSize(SIZE),
                glwe_noise_distribution: DynamicDistribution::new_t_uniform(2),
                ..stock_noise_squashing()
            },
            variances: [VARIANCE_TEST; 5],
            // The worst of all families: the bound below holds for every committee.
            family: NoiseFamily { groups: 117, honest: 11 },
            security_bits: 0,
        }
    }

    /// [`Self::insecure_test`] with a reference string of a few powers, which makes **no proofs**: for tests of
    /// the ceremony alone. The powers are most of its work otherwise, as their number hardly depends on the
    /// key's size.
    #[must_use]
    pub fn insecure_short() -> Self {
        Self { name: INSECURE_SHORT, ..Self::insecure_test() }
    }

    /// Whether lists can be proven with the reference string of a ceremony with these parameters.
    #[must_use]
    pub fn makes_proofs(&self) -> bool {
        self.name != INSECURE_SHORT
    }

    /// How many powers the reference string has.
    ///
    /// # Panics
    /// Never: the named sets have proofs.
    #[must_use]
    pub fn reference_string(&self) -> Size {
        if !self.makes_proofs() {
            return Size::PROTOCOL_TEST;
        }
        Size::of(&self.pke).expect("the named sets have proofs, with bounded noise")
    }

    /// The set that `name` denotes for a committee: "production", "insecure-test", "insecure-short", or
    /// the full name of any, such as "production-n4".
    ///
    /// # Errors
    /// [`UnknownParameters`] for any other name; the error lists the names.
    pub fn by_name(name: &str, committee: Committee) -> Result<Self, UnknownParameters> {
        let production = Self::production(committee);
        match name {
            PRODUCTION => Ok(production),
            INSECURE_TEST => Ok(Self::insecure_test()),
            INSECURE_SHORT => Ok(Self::insecure_short()),
            full if full == production.name => Ok(production),
            _ => Err(UnknownParameters { name: name.to_owned() }),
        }
    }

    /// Full name, such as "production-n4".
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Digest of every field, noise included.
    #[must_use]
    pub fn digest(&self) -> Blake3Digest {
        let fields = postcard::to_stdvec(self).expect("plain data serializes into memory");
        Blake3Digest(hash_parts(PARAMETERS_DIGEST, &[&fields]))
    }

    /// Whether the keys protect nothing.
    #[must_use]
    pub const fn is_insecure(&self) -> bool {
        self.security_bits < 128
    }

    /// Bits of security by tfhe's estimate for these dimensions and sigma; 0 for the test set.
    #[must_use]
    pub const fn security_bits(&self) -> u32 {
        self.security_bits
    }

    /// The 2_2 evaluation parameters: s, S, the key switch between them and the bootstrap.
    #[must_use]
    pub const fn compute(&self) -> &ClassicPBSParameters {
        &self.compute
    }

    /// Parameters of the compact public key p.
    #[must_use]
    pub const fn pke(&self) -> &CompactPublicKeyEncryptionParameters {
        &self.pke
    }

    /// The key switch from p to the evaluation keys.
    #[must_use]
    pub const fn pke_key_switching(&self) -> &ShortintKeySwitchingParameters {
        &self.pke_key_switching
    }

    /// Parameters of the squashing key Q.
    #[must_use]
    pub const fn noise_squashing(&self) -> &NoiseSquashingClassicParameters {
        &self.noise_squashing
    }

    /// M and r that the failure probability was computed for.
    #[must_use]
    pub const fn noise_family(&self) -> NoiseFamily {
        self.family
    }

    /// sigma^2 of a component in units of its words: what the honest-only groups must reach.
    #[must_use]
    pub const fn variance(&self, component: Component) -> u128 {
        self.variances[component.position()]
    }

    /// B: each group draws the noise of `component` uniformly from [-B, B] when every t members
    /// miss at least `r` groups. The smallest B with B(B+1)/3 >= sigma^2 / r. An `r` of 0 counts
    /// as 1.
    #[must_use]
    pub fn group_bound(&self, component: Component, r: u32) -> u64 {
        let needed = (3 * self.variance(component)).div_ceil(u128::from(r.max(1)));
        let root = needed.isqrt();
        let bound = if root * (root + 1) >= needed { root } else { root + 1 };
        bound as u64 // below 2^46 for every set: the largest sigma is 2^43.8
    }

    /// log2 of the probability that one bootstrap of a ciphertext at the maximal noise level
    /// (linear combinations of 2-norm 5) looks up a wrong entry, for (M/r) sigma^2 of noise in
    /// every key; by the formulas of [`noise`].
    #[must_use]
    pub fn log2_p_fail(&self) -> f64 {
        self.log2_p_fail_with(|c| self.key_variance(c))
    }

    /// [`Self::log2_p_fail`] for an input with `units` times the variance that a bootstrap leaves: the
    /// sum of the squared weights of a linear combination of fresh ciphertexts.
    #[must_use]
    pub fn log2_p_fail_at(&self, units: f64) -> f64 {
        let noise = self.look_up_noise_with(|component| self.key_variance(component));
        noise.log2_p_fail(units, self.entry_half_width())
    }

    /// [`Self::log2_p_fail`] for keys of which each component has the given variance, in units of
    /// its words.
    #[must_use]
    pub fn log2_p_fail_with(&self, key_variance: impl Fn(Component) -> f64) -> f64 {
        let norm = self.compute.max_noise_level.get() as f64;
        self.look_up_noise_with(key_variance).log2_p_fail(norm * norm, self.entry_half_width())
    }

    /// Half of 1/(2 * 16) of the torus: an entry of a look-up table for 4 bits and the padding.
    fn entry_half_width(&self) -> f64 {
        0.5 / (2 * self.compute.message_modulus.0 * self.compute.carry_modulus.0) as f64
    }

    /// (M/r) sigma^2 of a component in units of its words: what the committee's keys carry.
    #[must_use]
    pub fn key_variance(&self, component: Component) -> f64 {
        self.variance(component) as f64 * self.family.amplification()
    }

    /// Where the noise of a look-up comes from, for keys of which each component has the given
    /// variance, in units of its words.
    #[must_use]
    pub fn look_up_noise_with(&self, key_variance: impl Fn(Component) -> f64) -> LookUpNoise {
        let torus = |c| key_variance(c) * (-128f64).exp2();
        let compute = &self.compute;
        let bootstrap = Bootstrap {
            input_dimension: compute.lwe_dimension.0,
            glwe_dimension: compute.glwe_dimension.0,
            polynomial_size: compute.polynomial_size.0,
            base_log: compute.pbs_base_log.0 as u32,
            levels: compute.pbs_level.0 as u32,
            mantissa_bits: 53,
            modulus_log: 64,
        };
        LookUpNoise {
            bootstrap: bootstrap.variance(torus(Component::Bootstrap)),
            key_switch: noise::key_switch(
                compute.glwe_dimension.0 * compute.polynomial_size.0,
                compute.ks_base_log.0 as u32,
                compute.ks_level.0 as u32,
                torus(Component::KeySwitch),
            ),
            modulus_switch: noise::centered_modulus_switch(
                compute.lwe_dimension.0,
                compute.polynomial_size.0,
            ),
        }
    }

    /// log2 of the standard deviation of a squashed ciphertext's noise, in units of its 128-bit
    /// words: what flooding must drown.
    #[must_use]
    pub fn log2_squashed_deviation(&self) -> f64 {
        let squashing = &self.noise_squashing;
        let bootstrap = Bootstrap {
            input_dimension: self.compute.lwe_dimension.0,
            glwe_dimension: squashing.glwe_dimension.0,
            polynomial_size: squashing.polynomial_size.0,
            base_log: squashing.decomp_base_log.0 as u32,
            levels: squashing.decomp_level_count.0 as u32,
            mantissa_bits: 106,
            modulus_log: 128,
        };
        let key = self.key_variance(Component::NoiseSquashing);
        128.0 + bootstrap.variance(key * (-256f64).exp2()).log2() / 2.0
    }

    /// The configuration that tfhe checks conformance against, and that stock key generation of
    /// the same shape takes.
    #[must_use]
    pub fn config(&self) -> Config {
        ConfigBuilder::with_custom_parameters(self.compute)
            .use_dedicated_compact_public_key_parameters((self.pke, self.pke_key_switching))
            .enable_noise_squashing(NoiseSquashingParameters::Classic(self.noise_squashing))
            .use_dedicated_oprf_key(false)
            .build()
    }
}

fn stock_noise_squashing() -> NoiseSquashingClassicParameters {
    match V1_8_NOISE_SQUASHING_PARAM_MESSAGE_2_CARRY_2_KS_PBS_TUNIFORM_2M128 {
        NoiseSquashingParameters::Classic(classic) => classic,
        // The constant is the classic variant; the pinned version of tfhe makes it stay so.
        NoiseSquashingParameters::MultiBit(_) => unreachable!("pinned tfhe, classic squashing"),
    }
}

#[cfg(test)]
mod tests;
