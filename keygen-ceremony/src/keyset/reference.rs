//! **For tests and comparisons only; never used by the ceremony.** The key set made by one party
//! from clear key bits.
//!
//! It is the oracle that the ceremony's bodies are tested against, and the stock path that its
//! cost is compared with. Its caller holds the whole secret key, which is what Veil exists to
//! avoid. The arithmetic is the definition of [`super::Layout`] taken literally: a key bit is 0
//! or 1, so a product with a key is a sum of rotated masks.

use core::fmt;

use rand::{CryptoRng, Rng as _, RngCore, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use rayon::prelude::*;
use zeroize::Zeroizing;

use super::{
    assemble::{Bodies, SectionBody},
    layout::{Gadget, KeyName, Layout, Section, SectionKind, Width},
    mask::MaskStream,
    parameters::ParameterSet,
};
use veil_committee::{decrypt::SquashedBlock, ring::Word};

/// The secret keys, in the clear.
///
/// # Security
/// Zeroized on drop, never printed. In production no party has this.
#[derive(Clone)]
pub struct ClearKeys {
    /// 0 or 1, by [`KeyName::position`].
    bits: [Zeroizing<Vec<u8>>; 4],
}

impl ClearKeys {
    /// Uniform bits for every key of `layout`.
    pub fn random(layout: &Layout, rng: &mut (impl RngCore + CryptoRng)) -> Self {
        Self {
            bits: layout
                .key_bits
                .map(|count| Zeroizing::new((0..count).map(|_| rng.gen_range(0..2)).collect())),
        }
    }

    /// Keys made of given bits (0 or 1), by [`KeyName::position`]; such as those that a test
    /// reconstructs from the shares of a ceremony.
    #[must_use]
    pub const fn from_bits(bits: [Zeroizing<Vec<u8>>; 4]) -> Self {
        Self { bits }
    }

    /// The bits of a key, each 0 or 1.
    #[must_use]
    pub fn bits(&self, key: KeyName) -> &[u8] {
        &self.bits[key.position()]
    }

    /// b - <a, Q>.
    #[must_use]
    pub fn phase(&self, block: &SquashedBlock) -> u128 {
        block.body.wrapping_sub(inner_product(&block.mask, self.bits(KeyName::Squash)))
    }
}

impl fmt::Debug for ClearKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClearKeys(<redacted>)")
    }
}

/// The bodies of all sections, with the noise of a single group (uniform in [-B, B] for r = 1)
/// drawn from `noise_seed`. Deterministic. Uses all cores; 35 billion additions at production size.
#[must_use]
pub fn bodies(
    params: &ParameterSet,
    layout: &Layout,
    public_seed: &[u8; 32],
    keys: &ClearKeys,
    noise_seed: &[u8; 32],
) -> Bodies {
    all_rows(layout, public_seed, keys, |section| {
        let bound = params.group_bound(section.component, 1) as i64;
        Some(Noise { seed: noise_seed, bound })
    })
}

/// The bodies without noise: what is left of a ceremony's bodies after subtracting these is their
/// noise.
#[must_use]
pub fn noiseless_bodies(layout: &Layout, public_seed: &[u8; 32], keys: &ClearKeys) -> Bodies {
    all_rows(layout, public_seed, keys, |_| None)
}

fn all_rows<'a>(
    layout: &Layout,
    public_seed: &[u8; 32],
    keys: &ClearKeys,
    noise: impl Fn(&Section) -> Option<Noise<'a>>,
) -> Bodies {
    let masks = MaskStream::new(public_seed);
    let section_body = |section: &Section| {
        let noise = noise(section);
        match section.width {
            Width::W64 => SectionBody::W64(rows(section, &masks, keys, noise.as_ref())),
            Width::W128 => SectionBody::W128(rows(section, &masks, keys, noise.as_ref())),
        }
    };
    Bodies { sections: layout.sections.iter().map(section_body).collect() }
}

struct Noise<'a> {
    seed: &'a [u8; 32],
    bound: i64,
}

impl Noise<'_> {
    fn add<W: Word>(&self, section: &Section, row: usize, body: &mut [W]) {
        let mut rng = ChaCha20Rng::from_seed(*self.seed);
        rng.set_stream((section.component.position() as u64) << 32 | row as u64);
        for word in body {
            *word =
                word.add(W::truncate(i128::from(rng.gen_range(-self.bound..=self.bound)) as u128));
        }
    }
}

fn rows<W: Word>(
    section: &Section,
    masks: &MaskStream,
    keys: &ClearKeys,
    noise: Option<&Noise<'_>>,
) -> Vec<W> {
    let mut bodies = vec![W::default(); section.body_words()];
    let key = Zeroizing::new(match section.kind {
        SectionKind::CompactPublicKey => {
            keys.bits(section.output_key()).iter().rev().copied().collect::<Vec<_>>()
        }
        _ => keys.bits(section.output_key()).to_vec(),
    });
    bodies
        .par_chunks_mut(section.row_len)
        .with_min_len(16 / section.row_len.min(16))
        .enumerate()
        .for_each_init(
            || (masks.clone(), vec![W::default(); section.mask_words_per_row]),
            |(stream, mask), (row, body)| {
                stream.seek(section.mask_offset(row));
                stream.fill(mask);
                if section.row_len == 1 {
                    body[0] = inner_product(mask, &key);
                } else {
                    let size = section.row_len;
                    for (polynomial, key) in mask.chunks(size).zip(key.chunks(size)) {
                        add_negacyclic_product(body, polynomial, key);
                    }
                }
                add_gadget(section, row, keys, body);
                if let Some(noise) = noise {
                    noise.add(section, row, body);
                }
            },
        );
    bodies
}

fn inner_product<W: Word>(mask: &[W], key: &[u8]) -> W {
    mask.iter().zip(key).filter(|(_, bit)| **bit == 1).fold(W::default(), |sum, (a, _)| sum.add(*a))
}

/// out += mask * key modulo X^N + 1.
fn add_negacyclic_product<W: Word>(out: &mut [W], mask: &[W], key: &[u8]) {
    for shift in (0..key.len()).filter(|&shift| key[shift] == 1) {
        let (low, high) = out.split_at_mut(shift);
        let (stay, wrap) = mask.split_at(mask.len() - shift);
        high.iter_mut().zip(stay).for_each(|(o, a)| *o = o.add(*a));
        low.iter_mut().zip(wrap).for_each(|(o, a)| *o = o.sub(*a));
    }
}

fn add_gadget<W: Word>(section: &Section, row: usize, keys: &ClearKeys, body: &mut [W]) {
    match section.gadget(row) {
        Gadget::None => {}
        Gadget::Bit { key, bit, shift } => {
            if keys.bits(key)[bit] == 1 {
                body[0] = body[0].add(W::ONE.shl(shift));
            }
        }
        Gadget::BitTimesPoly { bit, column, shift } => {
            if keys.bits(KeyName::Lwe)[bit] == 1 {
                let size = section.row_len;
                let polynomial = &keys.bits(section.output_key())[column * size..][..size];
                for (word, _) in body.iter_mut().zip(polynomial).filter(|(_, bit)| **bit == 1) {
                    *word = word.sub(W::ONE.shl(shift));
                }
            }
        }
        Gadget::BitConstant { bit, shift } => {
            if keys.bits(KeyName::Lwe)[bit] == 1 {
                body[0] = body[0].add(W::ONE.shl(shift));
            }
        }
    }
}
