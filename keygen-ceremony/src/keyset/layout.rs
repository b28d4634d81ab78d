//! Which words the public material is made of, and in which order.
//!
//! The order is that of the mask stream (`ceremony.md`, section 5; the top of
//! `high_level_api/xof_key_set/mod.rs` in tfhe 1.8.2). tfhe's containers hold the bodies in the
//! same order, so that a section is one contiguous vector. All arithmetic is modulo 2^w.
//!
//! A row of a section is
//!
//! `body = <mask, key> + gadget + e`
//!
//! - *word rows* (key switching): mask and key are vectors, `<,>` their inner product, the body
//!   one word;
//! - *polynomial rows* (everything else): mask and key are k polynomials of N coefficients modulo
//!   X^N + 1, `<,>` the sum of their products, the body N words.

use serde::Serialize;
use tfhe::shortint::parameters::EncryptionKeyChoice;

use super::parameters::{Component, ParameterSet};

/// Size of a word of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Width {
    /// 64 bits.
    W64,
    /// 128 bits.
    W128,
}

impl Width {
    /// w, the bits of a word.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::W64 => 64,
            Self::W128 => 128,
        }
    }

    /// w / 8, the bytes of a word.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.bits() as usize / 8
    }
}

/// A secret key, as the bits it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum KeyName {
    /// s, the small key: n bits.
    Lwe,
    /// S, the big key: k polynomials of N bits, one after the other.
    Glwe,
    /// p, of the compact public key: N bits.
    Pke,
    /// Q, of squashed ciphertexts: k polynomials of N bits, one after the other.
    Squash,
}

impl KeyName {
    /// All keys, in the order of [`Layout::key_bits`].
    pub const ALL: [Self; 4] = [Self::Lwe, Self::Glwe, Self::Pke, Self::Squash];

    /// Position in [`KeyName::ALL`].
    #[must_use]
    pub const fn position(self) -> usize {
        self as usize
    }
}

/// What the rows of a section encrypt, and under which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum SectionKind {
    /// One polynomial row under the *reversed* key p: a * rev(p) + e, rev(p)_j = p_{N-1-j}.
    CompactPublicKey,
    /// For each bit i of `input`, for each level l = `levels`..1, one word:
    /// <a, output> + input_i 2^(w - base_log l) + e.
    KeySwitch {
        /// Key that is encrypted, bit by bit.
        input: KeyName,
        /// Key that it is encrypted under, as one vector of bits.
        output: KeyName,
        /// log2 of the decomposition base.
        base_log: u32,
        /// Levels of the decomposition.
        levels: u32,
    },
    /// For each bit i of s, for each level l = `levels`..1, polynomial rows j = 0..=k:
    /// sum_c a_c K_c - s_i K_j 2^(w - base_log l) + e for j < k, and
    /// sum_c a_c K_c + s_i 2^(w - base_log l) + e (on coefficient 0) for j = k.
    Bootstrap {
        /// K, the key that s is encrypted under.
        glwe: KeyName,
        /// k, the number of polynomials of K.
        glwe_dimension: usize,
        /// log2 of the decomposition base.
        base_log: u32,
        /// Levels of the decomposition.
        levels: u32,
    },
}

/// What is added to <mask, key> + e in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gadget {
    /// Nothing: an encryption of 0.
    None,
    /// key\[bit\] * 2^shift (word rows).
    Bit {
        /// Key that is encrypted.
        key: KeyName,
        /// Index of the bit.
        bit: usize,
        /// Exponent of the gadget factor.
        shift: u32,
    },
    /// **minus** s\[bit\] * K_column(X) * 2^shift, on the whole row.
    BitTimesPoly {
        /// Index of the bit of s.
        bit: usize,
        /// Index of the polynomial of K.
        column: usize,
        /// Exponent of the gadget factor.
        shift: u32,
    },
    /// **plus** s\[bit\] * 2^shift, on coefficient 0.
    BitConstant {
        /// Index of the bit of s.
        bit: usize,
        /// Exponent of the gadget factor.
        shift: u32,
    },
}

/// One component: `rows` rows, each of `mask_words_per_row` mask words from the stream and
/// `row_len` body words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Section {
    /// The part of the key set that its rows make.
    pub component: Component,
    /// What its rows encrypt.
    pub kind: SectionKind,
    /// Size of its words.
    pub width: Width,
    /// Number of rows, in mask-stream order.
    pub rows: usize,
    /// Body words per row: 1 (word rows) or N (polynomial rows).
    pub row_len: usize,
    /// Mask words per row.
    pub mask_words_per_row: usize,
    /// Byte of the mask stream at which row 0 begins.
    pub mask_start: u64,
}

impl Section {
    /// What is added on top of <mask, key> + e in `row`, counted from 0 in mask-stream order.
    #[must_use]
    pub fn gadget(&self, row: usize) -> Gadget {
        let shift = |base_log: u32, level: u32| self.width.bits() - base_log * level;
        match self.kind {
            SectionKind::CompactPublicKey => Gadget::None,
            SectionKind::KeySwitch { input, base_log, levels, .. } => Gadget::Bit {
                key: input,
                bit: row / levels as usize,
                shift: shift(base_log, levels - (row % levels as usize) as u32),
            },
            SectionKind::Bootstrap { glwe_dimension, base_log, levels, .. } => {
                let (matrix, column) = (row / (glwe_dimension + 1), row % (glwe_dimension + 1));
                let bit = matrix / levels as usize;
                let shift = shift(base_log, levels - (matrix % levels as usize) as u32);
                if column < glwe_dimension {
                    Gadget::BitTimesPoly { bit, column, shift }
                } else {
                    Gadget::BitConstant { bit, shift }
                }
            }
        }
    }

    /// The key that the rows are encrypted under. For the compact public key it acts reversed.
    #[must_use]
    pub const fn output_key(&self) -> KeyName {
        match self.kind {
            SectionKind::CompactPublicKey => KeyName::Pke,
            SectionKind::KeySwitch { output, .. } => output,
            SectionKind::Bootstrap { glwe, .. } => glwe,
        }
    }

    /// Whether rows are polynomials (rather than single words).
    #[must_use]
    pub const fn is_polynomial(&self) -> bool {
        !matches!(self.kind, SectionKind::KeySwitch { .. })
    }

    /// Byte of the mask stream at which `row` begins.
    #[must_use]
    pub fn mask_offset(&self, row: usize) -> u64 {
        self.mask_start + (row * self.mask_words_per_row * self.width.bytes()) as u64
    }

    /// Words of all bodies.
    #[must_use]
    pub const fn body_words(&self) -> usize {
        self.rows * self.row_len
    }

    /// Bytes of all bodies.
    #[must_use]
    pub const fn body_bytes(&self) -> u64 {
        (self.body_words() * self.width.bytes()) as u64
    }

    /// Words of all masks.
    #[must_use]
    pub const fn mask_words(&self) -> usize {
        self.rows * self.mask_words_per_row
    }

    /// Bytes of all masks.
    #[must_use]
    pub const fn mask_bytes(&self) -> u64 {
        (self.mask_words() * self.width.bytes()) as u64
    }
}

/// The sections of a parameter set, in mask-stream order, without gaps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Layout {
    /// One section for each [`Component`], in the order of [`Component::ALL`].
    pub sections: Vec<Section>,
    /// Bits of each key, by [`KeyName::position`].
    pub key_bits: [usize; 4],
}

impl Layout {
    /// The layout of a parameter set.
    #[must_use]
    pub fn of(params: &ParameterSet) -> Self {
        let (compute, squash) = (params.compute(), params.noise_squashing());
        let (small, size) = (compute.lwe_dimension.0, compute.polynomial_size.0);
        let big = compute.glwe_dimension.0 * size;
        let pke = params.pke().encryption_lwe_dimension.0;
        let squash_size = squash.polynomial_size.0;
        let squash_bits = squash.glwe_dimension.0 * squash_size;
        let key_bits = [small, big, pke, squash_bits];

        let bits = |key: KeyName| key_bits[key.position()];
        let key_switch = |component, input, output, base_log: usize, levels: usize| Section {
            component,
            kind: SectionKind::KeySwitch {
                input,
                output,
                base_log: base_log as u32,
                levels: levels as u32,
            },
            width: Width::W64,
            rows: bits(input) * levels,
            row_len: 1,
            mask_words_per_row: bits(output),
            mask_start: 0,
        };
        let bootstrap =
            |component, glwe, k: usize, base_log: usize, levels: usize, width| Section {
                component,
                kind: SectionKind::Bootstrap {
                    glwe,
                    glwe_dimension: k,
                    base_log: base_log as u32,
                    levels: levels as u32,
                },
                width,
                rows: small * levels * (k + 1),
                row_len: bits(glwe) / k,
                mask_words_per_row: bits(glwe),
                mask_start: 0,
            };
        let switching = params.pke_key_switching();
        let mut sections = vec![
            Section {
                component: Component::CompactPublicKey,
                kind: SectionKind::CompactPublicKey,
                width: Width::W64,
                rows: 1,
                row_len: pke,
                mask_words_per_row: pke,
                mask_start: 0,
            },
            key_switch(
                Component::KeySwitch,
                KeyName::Glwe,
                KeyName::Lwe,
                compute.ks_base_log.0,
                compute.ks_level.0,
            ),
            bootstrap(
                Component::Bootstrap,
                KeyName::Glwe,
                compute.glwe_dimension.0,
                compute.pbs_base_log.0,
                compute.pbs_level.0,
                Width::W64,
            ),
            bootstrap(
                Component::NoiseSquashing,
                KeyName::Squash,
                squash.glwe_dimension.0,
                squash.decomp_base_log.0,
                squash.decomp_level_count.0,
                Width::W128,
            ),
            key_switch(
                Component::PublicKeySwitch,
                KeyName::Pke,
                match switching.destination_key {
                    EncryptionKeyChoice::Big => KeyName::Glwe,
                    EncryptionKeyChoice::Small => KeyName::Lwe,
                },
                switching.ks_base_log.0,
                switching.ks_level.0,
            ),
        ];
        let mut start = 0;
        for section in &mut sections {
            section.mask_start = start;
            start += section.mask_bytes();
        }
        Self { sections, key_bits }
    }

    /// Number of bits of a key.
    #[must_use]
    pub const fn bits_of(&self, key: KeyName) -> usize {
        self.key_bits[key.position()]
    }

    /// Number of bits of all keys together.
    #[must_use]
    pub fn total_key_bits(&self) -> usize {
        self.key_bits.iter().sum()
    }

    /// The section of a component.
    ///
    /// # Panics
    /// Only if `sections`, a public field, was changed so that the component is missing.
    #[must_use]
    pub fn section(&self, component: Component) -> &Section {
        &self.sections[component.position()]
    }

    /// Bytes of all bodies.
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        self.sections.iter().map(Section::body_bytes).sum()
    }

    /// Bytes of the mask stream that are consumed.
    #[must_use]
    pub fn mask_bytes(&self) -> u64 {
        self.sections.iter().map(Section::mask_bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::Committee;

    use super::*;

    fn production() -> Layout {
        Layout::of(&ParameterSet::production(Committee::new(4).unwrap()))
    }

    #[test]
    fn sizes_are_those_of_the_design() {
        let layout = production();
        assert_eq!(layout.key_bits, [918, 2048, 2048, 4096]);
        assert_eq!(layout.total_key_bits(), 9110);
        let bytes = |c| layout.section(c).body_bytes();
        assert_eq!(bytes(Component::CompactPublicKey), 2048 * 8);
        assert_eq!(bytes(Component::KeySwitch), 2048 * 5 * 8);
        assert_eq!(bytes(Component::Bootstrap), 918 * 2 * 2048 * 8);
        assert_eq!(bytes(Component::NoiseSquashing), 918 * 3 * 3 * 2048 * 16);
        assert_eq!(bytes(Component::PublicKeySwitch), 2048 * 8);
    }

    #[test]
    fn sections_are_in_order_and_without_gaps() {
        for params in
            [ParameterSet::insecure_test(), ParameterSet::production(Committee::new(13).unwrap())]
        {
            let layout = Layout::of(&params);
            let mut next = 0;
            for (section, component) in layout.sections.iter().zip(Component::ALL) {
                assert_eq!(section.component, component);
                assert_eq!(section.mask_offset(0), next);
                next = section.mask_offset(section.rows);
                let key = layout.bits_of(section.output_key());
                assert_eq!(section.mask_words_per_row, key);
                assert!(section.row_len == 1 || key.is_multiple_of(section.row_len));
            }
            assert_eq!(layout.mask_bytes(), next);
        }
    }

    #[test]
    fn gadgets_follow_the_table() {
        let layout = production();
        assert_eq!(layout.section(Component::CompactPublicKey).gadget(0), Gadget::None);

        let ksk = layout.section(Component::KeySwitch);
        let bit = |bit, shift| Gadget::Bit { key: KeyName::Glwe, bit, shift };
        assert_eq!(ksk.gadget(0), bit(0, 64 - 15));
        assert_eq!(ksk.gadget(4), bit(0, 64 - 3));
        assert_eq!(ksk.gadget(5), bit(1, 64 - 15));
        assert_eq!(ksk.gadget(ksk.rows - 1), bit(2047, 61));

        let bsk = layout.section(Component::Bootstrap);
        assert_eq!(bsk.gadget(6), Gadget::BitTimesPoly { bit: 3, column: 0, shift: 41 });
        assert_eq!(bsk.gadget(7), Gadget::BitConstant { bit: 3, shift: 41 });

        let squash = layout.section(Component::NoiseSquashing);
        let product = |bit, column, shift| Gadget::BitTimesPoly { bit, column, shift };
        assert_eq!(squash.gadget(0), product(0, 0, 128 - 72));
        assert_eq!(squash.gadget(1), product(0, 1, 128 - 72));
        assert_eq!(squash.gadget(2), Gadget::BitConstant { bit: 0, shift: 128 - 72 });
        assert_eq!(squash.gadget(3), product(0, 0, 128 - 48));
        assert_eq!(squash.gadget(9), product(1, 0, 128 - 72));
        assert_eq!(
            squash.gadget(squash.rows - 1),
            Gadget::BitConstant { bit: 917, shift: 128 - 24 }
        );

        let pke = layout.section(Component::PublicKeySwitch);
        assert_eq!(pke.gadget(9), Gadget::Bit { key: KeyName::Pke, bit: 9, shift: 40 });
    }
}
