//! Shares of the public material's body words: step 8.

use rayon::prelude::*;
use veil_committee::{
    randomness::{NoiseShares, ZeroShares},
    ring::Element,
    subsets::NoiseGroups,
};
use veil_protocol_spec::{Committee, ParticipantIndex};
use zeroize::{Zeroize, Zeroizing};

use super::{bits::KeyBits, encoding::to_bytes, keys::StreamKeys};
use crate::{
    chunks::Chunk,
    keyset::{Gadget, KeyName, Layout, MaskStream, ParameterSet, Section, SectionKind, Width},
    ntt::{NttWord, multiply_accumulate, normalize},
};

/// Computes this member's chunks of the bodies stream: step 8.
///
/// # Security
/// Holds shares of the keys; the spectra are zeroized on drop.
pub struct BodyShares<const D: usize> {
    sections: Vec<AnySection<D>>,
}

enum AnySection<const D: usize> {
    W64(Box<SectionShares<u64, D>>),
    W128(Box<SectionShares<u128, D>>),
}

impl<const D: usize> BodyShares<D> {
    /// Prepares all sections: noise and zero sharings, transformed key shares.
    #[must_use]
    pub fn new(
        committee: Committee,
        me: ParticipantIndex,
        params: &ParameterSet,
        layout: &Layout,
        bits: &KeyBits<D>,
        keys: &StreamKeys,
        public_seed: &[u8; 32],
    ) -> Self {
        let sections = layout
            .sections
            .iter()
            .map(|section| {
                let context = Context { committee, me, params, bits, keys, public_seed };
                match section.width {
                    Width::W64 => AnySection::W64(Box::new(SectionShares::new(section, &context))),
                    Width::W128 => {
                        AnySection::W128(Box::new(SectionShares::new(section, &context)))
                    }
                }
            })
            .collect();
        Self { sections }
    }

    /// The bytes of a chunk.
    #[must_use]
    pub fn chunk(&self, chunk: &Chunk) -> Vec<u8> {
        match &self.sections[chunk.section] {
            AnySection::W64(section) => section.chunk(chunk),
            AnySection::W128(section) => section.chunk(chunk),
        }
    }
}

struct Context<'a, const D: usize> {
    committee: Committee,
    me: ParticipantIndex,
    params: &'a ParameterSet,
    bits: &'a KeyBits<D>,
    keys: &'a StreamKeys,
    public_seed: &'a [u8; 32],
}

struct SectionShares<W: NttWord, const D: usize> {
    section: Section,
    public_seed: [u8; 32],
    /// Shares of s (or of the key that is switched from), for the gadget.
    input: Zeroizing<Vec<Element<W, D>>>,
    /// Shares of the key that rows are encrypted under.
    output: Zeroizing<Vec<Element<W, D>>>,
    plan: Option<W::Plan>,
    /// For polynomial rows: the transform of coefficient m of X^c \[K_column\] at
    /// (column D + c) D + m.
    spectra: Vec<Zeroizing<Vec<u32>>>,
    noise: NoiseShares<W, D>,
    zeros: ZeroShares<W, D>,
}

impl<W: NttWord, const D: usize> SectionShares<W, D> {
    fn new(section: &Section, context: &Context<'_, D>) -> Self {
        let Context { committee, me, params, bits, keys, public_seed } = *context;
        let shares_of = |key: KeyName| -> Zeroizing<Vec<Element<W, D>>> {
            Zeroizing::new(bits.of(key).iter().map(|share| share.truncate()).collect())
        };
        let input = match section.kind {
            SectionKind::CompactPublicKey => Zeroizing::default(),
            SectionKind::KeySwitch { input, .. } => shares_of(input),
            SectionKind::Bootstrap { .. } => shares_of(KeyName::Lwe),
        };
        let mut output = shares_of(section.output_key());
        if section.kind == SectionKind::CompactPublicKey {
            output.reverse();
        }
        let (plan, spectra) = if section.is_polynomial() {
            let size = section.row_len;
            let plan =
                W::plan(size).expect("key polynomials have a power of two >= 32 coefficients");
            let spectra = output
                .chunks_exact(size)
                .flat_map(|column| (0..D).map(move |c| (column, c)))
                .flat_map(|(column, c)| (0..D).map(move |m| (column, c, m)))
                .map(|(column, c, m)| {
                    let plane: Zeroizing<Vec<W>> = Zeroizing::new(
                        column.iter().map(|share| share.times_x_power(c).0[m]).collect(),
                    );
                    let mut spectrum = Zeroizing::new(vec![0; W::PRIMES * size]);
                    W::forward(&plan, &plane, &mut spectrum);
                    normalize::<W>(&plan, &mut spectrum);
                    spectrum
                })
                .collect();
            (Some(plan), spectra)
        } else {
            (None, Vec::new())
        };
        let label = section.component.name();
        let bound = params.group_bound(section.component, NoiseGroups::of(committee).missed());
        Self {
            section: *section,
            public_seed: *public_seed,
            input,
            output,
            plan,
            spectra,
            noise: NoiseShares::new(committee, me, &keys.noise, &format!("{label}/noise"), bound),
            zeros: ZeroShares::new(committee, me, &keys.zero, &format!("{label}/zero")),
        }
    }

    fn chunk(&self, chunk: &Chunk) -> Vec<u8> {
        let row_len = self.section.row_len;
        // Polynomial rows: one group is work enough for a core. Word rows: many groups are one
        // element each.
        let groups_per_task = if self.plan.is_some() { 1 } else { chunk.count.div_ceil(16).max(1) };
        let mut out = vec![Element::<W, D>::ZERO(); chunk.elements];
        out.par_chunks_mut(groups_per_task * row_len).enumerate().for_each_init(
            || Scratch::new(self),
            |scratch, (task, out)| {
                let group = chunk.start + task * groups_per_task;
                if let Some(plan) = &self.plan {
                    self.polynomial_group(plan, scratch, group, out);
                } else {
                    for (i, element) in out.iter_mut().enumerate() {
                        self.word_group(scratch, group + i, element);
                    }
                }
                let start = (group * row_len) as u64;
                let stride = (self.section.rows.div_ceil(D) * row_len) as u64;
                self.noise.add_to(start, stride, out);
                self.zeros.add_to(start, out);
            },
        );
        to_bytes(&out)
    }

    /// The group's rows: c and the row's number.
    fn rows(&self, group: usize) -> impl Iterator<Item = (usize, usize)> {
        let rows = self.section.rows;
        (0..D).map(move |c| (c, group * D + c)).filter(move |(_, row)| *row < rows)
    }

    fn polynomial_group(
        &self,
        plan: &W::Plan,
        scratch: &mut Scratch<W, D>,
        group: usize,
        out: &mut [Element<W, D>],
    ) {
        let size = self.section.row_len;
        scratch.sums.iter_mut().for_each(|sum| sum.fill(0));
        let mut stream = MaskStream::at(&self.public_seed, self.section.mask_offset(group * D));
        for (c, _) in self.rows(group) {
            for column in 0..self.section.mask_words_per_row / size {
                stream.fill(&mut scratch.mask[..size]);
                W::forward(plan, &scratch.mask[..size], &mut scratch.spectrum);
                for (m, sum) in scratch.sums.iter_mut().enumerate() {
                    let key = &self.spectra[(column * D + c) * D + m];
                    multiply_accumulate::<W>(plan, sum, &scratch.spectrum, key);
                }
            }
        }
        for (m, sum) in scratch.sums.iter_mut().enumerate() {
            W::inverse(plan, sum, &mut scratch.mask[..size]);
            out.iter_mut().zip(&scratch.mask).for_each(|(element, word)| element.0[m] = *word);
        }
        for (c, row) in self.rows(group) {
            match self.section.gadget(row) {
                Gadget::BitTimesPoly { bit, column, shift } => {
                    let factor = self.input[bit].shift(shift).times_x_power(c);
                    let key = &self.output[column * size..][..size];
                    out.iter_mut().zip(key).for_each(|(element, k)| *element -= factor * *k);
                }
                Gadget::BitConstant { bit, shift } => {
                    out[0] += self.input[bit].shift(shift).times_x_power(c);
                }
                Gadget::None | Gadget::Bit { .. } => {}
            }
        }
    }

    fn word_group(&self, scratch: &mut Scratch<W, D>, group: usize, out: &mut Element<W, D>) {
        let mut stream = MaskStream::at(&self.public_seed, self.section.mask_offset(group * D));
        for (c, row) in self.rows(group) {
            stream.fill(&mut scratch.mask);
            let mut sum = Element::ZERO();
            for (mask, key) in scratch.mask.iter().zip(&*self.output) {
                sum += key.scale(*mask);
            }
            if let Gadget::Bit { bit, shift, .. } = self.section.gadget(row) {
                sum += self.input[bit].shift(shift);
            }
            *out += sum.times_x_power(c);
        }
    }
}

/// Working memory of one core; allocated once per chunk.
struct Scratch<W: NttWord, const D: usize> {
    mask: Vec<W>,
    spectrum: Vec<u32>,
    sums: [Vec<u32>; D],
}

impl<W: NttWord, const D: usize> Scratch<W, D> {
    fn new(shares: &SectionShares<W, D>) -> Self {
        let section = &shares.section;
        let spectrum = if shares.plan.is_some() { W::PRIMES * section.row_len } else { 0 };
        let mask = if shares.plan.is_some() { section.row_len } else { section.mask_words_per_row };
        Self {
            mask: vec![W::default(); mask],
            spectrum: vec![0; spectrum],
            sums: core::array::from_fn(|_| vec![0; spectrum]),
        }
    }
}

impl<W: NttWord, const D: usize> Drop for Scratch<W, D> {
    /// The sums, and `mask` after the inverse transform, are functions of key shares.
    fn drop(&mut self) {
        self.mask.zeroize();
        self.sums.iter_mut().for_each(Zeroize::zeroize);
    }
}
