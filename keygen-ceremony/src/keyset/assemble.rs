//! From opened bodies to a key set that stock tfhe uses unchanged.
//!
//! Only public constructors of tfhe 1.8.2 are called; a body vector is moved into its container,
//! never copied. Every length is checked before a constructor that would panic on it.

use tfhe::{
    CompressedCompactPublicKey, CompressedServerKey, Tag,
    conformance::ParameterSetConformant,
    core_crypto::{
        commons::math::random::{CompressionSeed, Seed},
        prelude::{
            SeededLweBootstrapKey, SeededLweCompactPublicKey, SeededLweKeyswitchKey,
            SeededLweKeyswitchKeyOwned, UnsignedInteger,
        },
    },
    integer,
    shortint::{
        self,
        atomic_pattern::compressed::{
            CompressedAtomicPatternServerKey, CompressedStandardAtomicPatternServerKey,
        },
        ciphertext::MaxDegree,
        key_switching_key::KeySwitchingKeyDestinationAtomicPattern,
        noise_squashing::{
            CompressedShortint128BootstrappingKey,
            atomic_pattern::compressed::{
                CompressedAtomicPatternNoiseSquashingKey,
                standard::CompressedStandardAtomicPatternNoiseSquashingKey,
            },
        },
        parameters::ModulusSwitchType,
        server_key::{CompressedModulusSwitchConfiguration, ShortintCompressedBootstrappingKey},
    },
    xof_key_set::CompressedXofKeySet,
};

use super::{
    layout::{KeyName, Layout, Section, Width},
    mask::public_xof_seed,
    parameters::{Component, ParameterSet},
};

/// The bodies of one section, row after row in mask-stream order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SectionBody {
    /// 64-bit words.
    W64(Vec<u64>),
    /// 128-bit words.
    W128(Vec<u128>),
}

impl SectionBody {
    /// Zeros for every body word of `section`.
    #[must_use]
    pub fn zeroed(section: &Section) -> Self {
        match section.width {
            Width::W64 => Self::W64(vec![0; section.body_words()]),
            Width::W128 => Self::W128(vec![0; section.body_words()]),
        }
    }

    /// Number of words.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::W64(words) => words.len(),
            Self::W128(words) => words.len(),
        }
    }

    /// Whether there are no words.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of the words.
    #[must_use]
    pub const fn width(&self) -> Width {
        match self {
            Self::W64(_) => Width::W64,
            Self::W128(_) => Width::W128,
        }
    }

    /// The words, if they have 64 bits.
    pub const fn as_w64_mut(&mut self) -> Option<&mut Vec<u64>> {
        match self {
            Self::W64(words) => Some(words),
            Self::W128(_) => None,
        }
    }

    /// The words, if they have 128 bits.
    pub const fn as_w128_mut(&mut self) -> Option<&mut Vec<u128>> {
        match self {
            Self::W64(_) => None,
            Self::W128(words) => Some(words),
        }
    }
}

/// The bodies of a whole key set, 300 MB at production size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bodies {
    /// One for each section of the [`Layout`], in its order.
    pub sections: Vec<SectionBody>,
}

impl Bodies {
    /// Zeros of the right lengths, to be filled section by section.
    #[must_use]
    pub fn zeroed(layout: &Layout) -> Self {
        Self { sections: layout.sections.iter().map(SectionBody::zeroed).collect() }
    }
}

/// The bodies are not those of a key set with these parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum AssembleError {
    /// Some component is missing, or there are too many.
    #[error("a key set has {expected} components, but the bodies of {found} were given")]
    WrongSections { expected: usize, found: usize },
    /// Truncated, too long, or in words of the wrong size.
    #[error(
        "the {component} has {expected} body words of {} bits, but {found} of {} bits were given",
        expected_width.bits(), found_width.bits()
    )]
    WrongLength {
        component: Component,
        expected: usize,
        expected_width: Width,
        found: usize,
        found_width: Width,
    },
    /// tfhe does not accept the result under the configuration of the parameters.
    #[error("tfhe finds that the assembled key set does not conform to the parameters")]
    NotConformant,
}

/// Builds the key set of `params` from its public seed and opened bodies. Moves the bodies.
///
/// # Errors
/// [`AssembleError`] if the bodies do not have the lengths and word sizes of the layout, or if
/// tfhe finds the result not conformant. The *values* are not checked: any words of the right
/// number make a key set, a wrong one decrypts to noise.
pub fn assemble(
    params: &ParameterSet,
    public_seed: [u8; 32],
    bodies: Bodies,
) -> Result<CompressedXofKeySet, AssembleError> {
    let layout = Layout::of(params);
    let mut words = CheckedBodies::new(&layout, bodies)?;
    let (compute, pke, switching) = (params.compute(), *params.pke(), *params.pke_key_switching());
    let squashing = params.noise_squashing();

    let public_key = CompressedCompactPublicKey::from_raw_parts(
        integer::CompressedCompactPublicKey::from_raw_parts(
            shortint::CompressedCompactPublicKey::from_raw_parts(
                SeededLweCompactPublicKey::from_container(
                    words.w64(Component::CompactPublicKey),
                    unused_seed(),
                    pke.ciphertext_modulus,
                ),
                pke,
            ),
        ),
        Tag::default(),
    );

    let bootstrap = SeededLweBootstrapKey::from_container(
        words.w64(Component::Bootstrap),
        compute.glwe_dimension.to_glwe_size(),
        compute.polynomial_size,
        compute.pbs_base_log,
        compute.pbs_level,
        unused_seed(),
        compute.ciphertext_modulus,
    );
    let evaluation = CompressedStandardAtomicPatternServerKey::from_raw_parts(
        seeded_key_switch(params, &layout, Component::KeySwitch, &mut words),
        ShortintCompressedBootstrappingKey::Classic {
            bsk: bootstrap,
            modulus_switch_noise_reduction_key: modulus_switch(
                compute.modulus_switch_noise_reduction_params,
            )?,
        },
        compute.encryption_key_choice.into(),
    );
    // What tfhe's private `MaxDegree::integer_radix_server_key` gives, 12 for 2_2: a block must
    // still be able to take the largest carry from the block below it.
    let full_block = compute.message_modulus.0 * compute.carry_modulus.0 - 1;
    let max_degree = MaxDegree::new(full_block - (compute.carry_modulus.0 - 1));
    let server_key = integer::CompressedServerKey::from_raw_parts(
        shortint::CompressedServerKey::from_raw_parts(
            CompressedAtomicPatternServerKey::Standard(evaluation),
            compute.message_modulus,
            compute.carry_modulus,
            max_degree,
            compute.max_noise_level,
        ),
    );

    let squashing_key = integer::noise_squashing::CompressedNoiseSquashingKey::from_raw_parts(
        shortint::noise_squashing::CompressedNoiseSquashingKey::from_raw_parts(
            CompressedAtomicPatternNoiseSquashingKey::Standard(
                CompressedStandardAtomicPatternNoiseSquashingKey::from_raw_parts(
                    CompressedShortint128BootstrappingKey::Classic {
                        bsk: SeededLweBootstrapKey::from_container(
                            words.w128(Component::NoiseSquashing),
                            squashing.glwe_dimension.to_glwe_size(),
                            squashing.polynomial_size,
                            squashing.decomp_base_log,
                            squashing.decomp_level_count,
                            unused_seed(),
                            squashing.ciphertext_modulus,
                        ),
                        modulus_switch_noise_reduction_key: modulus_switch(
                            squashing.modulus_switch_noise_reduction_params,
                        )?,
                    },
                ),
            ),
            squashing.message_modulus,
            squashing.carry_modulus,
            squashing.ciphertext_modulus,
        ),
    );

    let public_key_switch =
        integer::key_switching_key::CompressedKeySwitchingKeyMaterial::from_raw_parts(
            shortint::key_switching_key::CompressedKeySwitchingKeyMaterial::from_raw_parts(
                seeded_key_switch(params, &layout, Component::PublicKeySwitch, &mut words),
                0, // both sides are 2_2: blocks keep their scale
                switching.destination_key,
                KeySwitchingKeyDestinationAtomicPattern::Standard,
            ),
        );

    let key_set = CompressedXofKeySet::from_raw_parts(
        public_xof_seed(&public_seed),
        public_key,
        CompressedServerKey::from_raw_parts(
            server_key,
            Some(public_key_switch),
            None, // compression
            None, // decompression
            Some(squashing_key),
            None, // noise-squashing compression
            None, // re-randomization
            None, // dedicated OPRF
            None, // transciphering
            Tag::default(),
        ),
    );
    if key_set.is_conformant(&params.config()) {
        Ok(key_set)
    } else {
        Err(AssembleError::NotConformant)
    }
}

/// Bodies of which each section has the word size and the length of the layout.
struct CheckedBodies {
    w64: [Vec<u64>; 5],
    w128: [Vec<u128>; 5],
}

impl CheckedBodies {
    fn new(layout: &Layout, bodies: Bodies) -> Result<Self, AssembleError> {
        let (expected, found) = (layout.sections.len(), bodies.sections.len());
        if expected != found {
            return Err(AssembleError::WrongSections { expected, found });
        }
        let mut checked = Self { w64: Default::default(), w128: Default::default() };
        for (section, body) in layout.sections.iter().zip(bodies.sections) {
            if body.len() != section.body_words() || body.width() != section.width {
                return Err(AssembleError::WrongLength {
                    component: section.component,
                    expected: section.body_words(),
                    expected_width: section.width,
                    found: body.len(),
                    found_width: body.width(),
                });
            }
            let position = section.component.position();
            match body {
                SectionBody::W64(words) => checked.w64[position] = words,
                SectionBody::W128(words) => checked.w128[position] = words,
            }
        }
        Ok(checked)
    }

    fn w64(&mut self, component: Component) -> Vec<u64> {
        core::mem::take(&mut self.w64[component.position()])
    }

    fn w128(&mut self, component: Component) -> Vec<u128> {
        core::mem::take(&mut self.w128[component.position()])
    }
}

fn seeded_key_switch(
    params: &ParameterSet,
    layout: &Layout,
    component: Component,
    words: &mut CheckedBodies,
) -> SeededLweKeyswitchKeyOwned<u64> {
    let compute = params.compute();
    let (base_log, levels) = match component {
        Component::PublicKeySwitch => {
            (params.pke_key_switching().ks_base_log, params.pke_key_switching().ks_level)
        }
        _ => (compute.ks_base_log, compute.ks_level),
    };
    let output_dimension = match layout.section(component).output_key() {
        KeyName::Lwe => compute.lwe_dimension,
        _ => compute.glwe_dimension.to_equivalent_lwe_dimension(compute.polynomial_size),
    };
    SeededLweKeyswitchKey::from_container(
        words.w64(component),
        base_log,
        levels,
        output_dimension.to_lwe_size(),
        unused_seed(),
        compute.ciphertext_modulus,
    )
}

/// The seed inside each component, which the expansion of an XOF key set ignores.
fn unused_seed() -> CompressionSeed {
    CompressionSeed::from(Seed(0))
}

/// The public side of the modulus switch: nothing, for the kinds that need no extra key.
fn modulus_switch<W: UnsignedInteger>(
    kind: ModulusSwitchType,
) -> Result<CompressedModulusSwitchConfiguration<W>, AssembleError> {
    match kind {
        ModulusSwitchType::Standard => Ok(CompressedModulusSwitchConfiguration::Standard),
        ModulusSwitchType::CenteredMeanNoiseReduction => {
            Ok(CompressedModulusSwitchConfiguration::CenteredMeanNoiseReduction)
        }
        ModulusSwitchType::DriftTechniqueNoiseReduction(_) => Err(AssembleError::NotConformant),
    }
}
