//! The shares that a member broadcasts, and what all members' shares open to.
//!
//! Step 6 (`ceremony.md`): for each key bit, \[r\] <- PRSS; locally v_j = r_j^2 + r_j, degree 2t;
//! plus a fresh PRZS share. Step 7: v opens; x is the root of X^2 + X = v with even constant
//! coefficient; \[b\] = (\[r\] - x) (-1 - 2x)^-1.
//!
//! Step 8: each body word is <mask, \[key\]> + gadget + noise share + PRZS share, degree 2t; d rows
//! are packed. The products \[s_i\]\[K_j\] of the gadget are local products of shares: they are
//! opened inside the body and never alone, so no degree reduction and no multiplication triple is
//! needed.

use rayon::prelude::*;
use veil_committee::{
    code::{Inconsistent, Opening},
    prf::SetKey,
    randomness::{NoiseShares, RandomShares, ZeroShares},
    ring::{Element, Word},
    subsets::{MemberSet, NoiseGroups},
};
use veil_protocol_spec::{Committee, ParticipantIndex};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    chunks::Chunk,
    keyset::{
        Gadget, KeyName, Layout, MaskStream, ParameterSet, Section, SectionBody, SectionKind, Width,
    },
    ntt::{NttWord, multiply_accumulate, normalize},
};

/// Keys of the sets that contain one participant.
pub type MemberKeys = Vec<(MemberSet, SetKey)>;

/// Shares of secret bits, before v is known: step 6.
///
/// # Security
/// Holds shares of r; zeroized on drop.
pub struct BitShares<const D: usize> {
    random: Vec<Element<u128, D>>,
    zeros: ZeroShares<u128, D>,
}

impl<const D: usize> Drop for BitShares<D> {
    fn drop(&mut self) {
        self.random.zeroize();
    }
}

impl<const D: usize> BitShares<D> {
    /// Draws this member's shares of one uniform element per key bit.
    #[must_use]
    pub fn draw(
        committee: Committee,
        me: ParticipantIndex,
        keys: &MemberKeys,
        bits: usize,
    ) -> Self {
        let mut random = vec![Element::ZERO(); bits];
        RandomShares::new(committee, me, keys, "bits/random").fill(0, &mut random);
        Self { random, zeros: ZeroShares::new(committee, me, keys, "bits/zero") }
    }

    /// The bytes of a chunk: v_j plus a share of zero for each of its bits.
    #[must_use]
    pub fn chunk(&self, chunk: &Chunk) -> Vec<u8> {
        let mut out: Vec<Element<u128, D>> =
            self.random[chunk.start..][..chunk.count].iter().map(|r| *r * *r + *r).collect();
        self.zeros.add_to(chunk.start as u64, &mut out);
        to_bytes(&out)
    }

    /// Turns the opened v of every bit into shares of the bit itself.
    ///
    /// # Errors
    /// The position of a v that is not r^2 + r for any r: the members did not follow the protocol.
    pub fn into_bits(
        mut self,
        opened: &[Element<u128, D>],
    ) -> Result<Zeroizing<Vec<Element<u128, D>>>, usize> {
        let mut bits = Zeroizing::new(core::mem::take(&mut self.random));
        bits.par_iter_mut().zip(opened.par_iter()).enumerate().try_for_each(
            |(i, (share, v))| {
                let x = even_root(*v).ok_or(i)?;
                let scale = (-Element::ONE() - x.shift(1)).inverse().ok_or(i)?;
                *share = (*share - x) * scale;
                Ok::<(), usize>(())
            },
        )?;
        Ok(bits)
    }
}

/// The root of X^2 + X = v whose constant coefficient is even: found modulo 2, then lifted, one bit
/// becoming two (1 + 2x is a unit). Its existence says that v = r^2 + r.
fn even_root<const D: usize>(v: Element<u128, D>) -> Option<Element<u128, D>> {
    let mut x = (0..1u8 << D)
        .step_by(2)
        .map(Element::exceptional)
        .find(|x: &Element<u128, D>| !(*x * *x + *x - v).is_unit())?;
    for _ in 0..7 {
        let slope = (Element::ONE() + x.shift(1)).inverse()?;
        x -= (x * x + x - v) * slope;
    }
    (x * x + x == v).then_some(x)
}

/// Whether v = r^2 + r for some r, as an opened value of the bits stream must be.
#[must_use]
pub fn is_bit_image<const D: usize>(v: Element<u128, D>) -> bool {
    even_root(v).is_some()
}

/// A member's shares of all key bits, in the order of [`KeyName::ALL`], modulo 2^128.
///
/// # Security
/// Zeroized on drop.
pub struct KeyBits<const D: usize> {
    shares: Zeroizing<Vec<Element<u128, D>>>,
    starts: [usize; 4],
    lens: [usize; 4],
}

impl<const D: usize> KeyBits<D> {
    /// Splits the bits among the keys.
    #[must_use]
    pub fn new(layout: &Layout, shares: Zeroizing<Vec<Element<u128, D>>>) -> Self {
        let lens = layout.key_bits;
        let mut start = 0;
        let starts = lens.map(|len| {
            start += len;
            start - len
        });
        Self { shares, starts, lens }
    }

    /// Shares of one key's bits.
    #[must_use]
    pub fn of(&self, key: KeyName) -> &[Element<u128, D>] {
        &self.shares[self.starts[key.position()]..][..self.lens[key.position()]]
    }
}

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
        keys: &KeyBits<D>,
        randomness: (&MemberKeys, &MemberKeys),
        public_seed: &[u8; 32],
    ) -> Self {
        let sections = layout
            .sections
            .iter()
            .map(|section| {
                let context = Context { committee, me, params, keys, randomness, public_seed };
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
    keys: &'a KeyBits<D>,
    /// Keys of the sets, keys of the noise groups.
    randomness: (&'a MemberKeys, &'a MemberKeys),
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
        let Context { committee, me, params, keys, randomness, public_seed } = *context;
        let shares_of = |key: KeyName| -> Zeroizing<Vec<Element<W, D>>> {
            Zeroizing::new(keys.of(key).iter().map(|share| share.truncate()).collect())
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
            noise: NoiseShares::new(committee, me, randomness.1, &format!("{label}/noise"), bound),
            zeros: ZeroShares::new(committee, me, randomness.0, &format!("{label}/zero")),
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

/// Opens chunks of the bodies stream into the words of the key set.
pub struct BodyOpening<const D: usize> {
    w64: Opening<u64, D>,
    w128: Opening<u128, D>,
}

impl<const D: usize> BodyOpening<D> {
    /// For the degree-2t sharings of a committee.
    #[must_use]
    pub fn new(committee: Committee) -> Self {
        let degree = 2 * committee.max_faulty().get();
        Self { w64: Opening::new(committee, degree), w128: Opening::new(committee, degree) }
    }

    /// Opens a chunk of all members' streams, in order, into a section's body words.
    ///
    /// # Errors
    /// The position of the first element whose shares lie on no polynomial of degree 2t.
    pub fn open(
        &self,
        section: &Section,
        chunk: &Chunk,
        shares: &[&[u8]],
        body: &mut SectionBody,
    ) -> Result<(), usize> {
        match body {
            SectionBody::W64(words) => open_into(&self.w64, section, chunk, shares, words),
            SectionBody::W128(words) => open_into(&self.w128, section, chunk, shares, words),
        }
    }
}

fn open_into<W: Word, const D: usize>(
    opening: &Opening<W, D>,
    section: &Section,
    chunk: &Chunk,
    shares: &[&[u8]],
    words: &mut [W],
) -> Result<(), usize> {
    let row_len = section.row_len;
    let first_word = chunk.start * D * row_len;
    let last_word = ((chunk.start + chunk.count) * D).min(section.rows) * row_len;
    words[first_word..last_word].par_chunks_mut(D * row_len).enumerate().try_for_each(
        |(group, rows)| {
            for i in 0..row_len {
                let at = group * row_len + i;
                let opened = open_element(opening, shares, at).map_err(|Inconsistent| at)?;
                rows.iter_mut().skip(i).step_by(row_len).zip(opened.0).for_each(|(w, o)| *w = o);
            }
            Ok(())
        },
    )
}

/// Opens element `at` of the members' chunks.
#[inline(always)]
fn open_element<W: Word, const D: usize>(
    opening: &Opening<W, D>,
    shares: &[&[u8]],
    at: usize,
) -> Result<Element<W, D>, Inconsistent> {
    let mut elements = [Element::ZERO(); veil_protocol_spec::MAX_PARTICIPANTS];
    for (element, bytes) in elements.iter_mut().zip(shares) {
        *element = read_element(bytes, at);
    }
    opening.open(&elements[..shares.len()])
}

/// Opens a chunk of the bits stream: v of each of its bits.
///
/// # Errors
/// The position of the first element whose shares lie on no polynomial of degree 2t.
pub fn open_bits<const D: usize>(
    opening: &Opening<u128, D>,
    chunk: &Chunk,
    shares: &[&[u8]],
    out: &mut Vec<Element<u128, D>>,
) -> Result<(), usize> {
    for at in 0..chunk.elements {
        out.push(open_element(opening, shares, at).map_err(|Inconsistent| at)?);
    }
    Ok(())
}

fn to_bytes<W: Word, const D: usize>(elements: &[Element<W, D>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(elements.len() * D * W::BYTES);
    for element in elements {
        for word in element.0 {
            bytes.extend_from_slice(&word.widen().to_le_bytes()[..W::BYTES]);
        }
    }
    bytes
}

#[inline(always)]
fn read_element<W: Word, const D: usize>(bytes: &[u8], at: usize) -> Element<W, D> {
    let bytes = &bytes[at * D * W::BYTES..][..D * W::BYTES];
    let mut out = Element::ZERO();
    for (word, bytes) in out.0.iter_mut().zip(bytes.chunks_exact(W::BYTES)) {
        *word = W::from_le_slice(bytes);
    }
    out
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha20Rng;
    use veil_committee::{randomness::keys_of, subsets::key_sets, with_degree};
    use veil_protocol_spec::ceremony::Stream;

    use super::*;
    use crate::{
        chunks::ChunkPlan,
        keyset::{
            Bodies,
            reference::{ClearKeys, noiseless_bodies},
        },
    };

    fn random_keys(count: usize, rng: &mut ChaCha20Rng) -> Vec<SetKey> {
        (0..count).map(|_| SetKey::new(rng.r#gen())).collect()
    }

    /// All members' computation, opened; the key bits are opened too and the bodies are compared,
    /// noise aside, with those of the same key made by one party.
    fn opened_bodies_encrypt_the_shared_key<const D: usize>(committee: Committee) {
        let params = ParameterSet::insecure_test();
        let layout = Layout::of(&params);
        let plan = ChunkPlan::new(committee, &params, &layout);
        let mut rng = ChaCha20Rng::seed_from_u64(committee.n() as u64);
        let public_seed: [u8; 32] = rng.r#gen();
        let (sets, groups) = (key_sets(committee), NoiseGroups::of(committee));
        let set_keys = random_keys(sets.len(), &mut rng);
        let group_keys = random_keys(groups.groups().len(), &mut rng);
        let keys: Vec<_> = committee
            .participants()
            .map(|me| (keys_of(&sets, me, &set_keys), keys_of(groups.groups(), me, &group_keys)))
            .collect();
        let bits = layout.total_key_bits();
        let drawn: Vec<_> = committee
            .participants()
            .zip(&keys)
            .map(|(me, keys)| BitShares::<D>::draw(committee, me, &keys.0, bits))
            .collect();
        let opening = Opening::new(committee, 2 * committee.max_faulty().get());
        let mut opened = Vec::new();
        for chunk in plan.of(Stream::Bits) {
            let bytes: Vec<_> = drawn.iter().map(|shares| shares.chunk(chunk)).collect();
            assert!(bytes.iter().all(|b| b.len() == chunk.bytes));
            let views: Vec<_> = bytes.iter().map(Vec::as_slice).collect();
            open_bits(&opening, chunk, &views, &mut opened).unwrap();
        }
        let members: Vec<_> = drawn
            .into_iter()
            .map(|shares| KeyBits::new(&layout, shares.into_bits(&opened).unwrap()))
            .collect();
        let degree_t = Opening::<u128, D>::new(committee, committee.max_faulty().get());
        let clear = KeyName::ALL.map(|key| {
            let bits: Vec<u8> = (0..layout.bits_of(key))
                .map(|i| {
                    let shares: Vec<_> = members.iter().map(|m| m.of(key)[i]).collect();
                    let bit = degree_t.open(&shares).unwrap();
                    assert!(bit == Element::ZERO() || bit == Element::ONE(), "{bit:?}");
                    bit.0[0] as u8
                })
                .collect();
            assert!(bits.contains(&0) && bits.contains(&1));
            Zeroizing::new(bits)
        });
        let producers: Vec<_> = committee
            .participants()
            .zip(&keys)
            .zip(&members)
            .map(|((me, (sets, groups)), bits)| {
                let randomness = (sets, groups);
                BodyShares::new(committee, me, &params, &layout, bits, randomness, &public_seed)
            })
            .collect();
        let opening = BodyOpening::<D>::new(committee);
        let mut bodies = Bodies::zeroed(&layout);
        for chunk in plan.of(Stream::Bodies) {
            let bytes: Vec<_> = producers.iter().map(|shares| shares.chunk(chunk)).collect();
            assert!(bytes.iter().all(|b| b.len() == chunk.bytes));
            let views: Vec<_> = bytes.iter().map(Vec::as_slice).collect();
            let section = &layout.sections[chunk.section];
            opening.open(section, chunk, &views, &mut bodies.sections[chunk.section]).unwrap();
        }
        let exact = noiseless_bodies(&layout, &public_seed, &ClearKeys::from_bits(clear));
        for ((ours, exact), section) in
            bodies.sections.iter().zip(&exact.sections).zip(&layout.sections)
        {
            let noise: Vec<i128> = match (ours, exact) {
                (SectionBody::W64(a), SectionBody::W64(b)) => {
                    a.iter().zip(b).map(|(a, b)| i128::from(a.wrapping_sub(*b) as i64)).collect()
                }
                (SectionBody::W128(a), SectionBody::W128(b)) => {
                    a.iter().zip(b).map(|(a, b)| a.wrapping_sub(*b) as i128).collect()
                }
                _ => panic!("widths differ"),
            };
            // M groups, each uniform in [-B, B]: the total variance is M B (B+1) / 3.
            let bound = i128::from(params.group_bound(section.component, groups.missed()));
            let m = groups.groups().len() as i128;
            assert!(noise.iter().all(|e| e.abs() <= m * bound), "{:?}", section.component);
            let variance = noise.iter().map(|e| (e * e) as f64).sum::<f64>() / noise.len() as f64;
            let declared = (m * bound * (bound + 1)) as f64 / 3.0;
            // Six standard deviations of the estimate, for the kurtosis of a sum of uniforms.
            let tolerance = 6.0 * (2.0 / noise.len() as f64).sqrt();
            assert!(
                (variance / declared - 1.0).abs() < tolerance,
                "{:?} {committee}: variance {variance}, declared {declared}",
                section.component
            );
        }
    }

    #[test]
    fn opened_bodies_encrypt_the_shared_key_under_every_committee() {
        for committee in Committee::ALL {
            with_degree!(committee, D => opened_bodies_encrypt_the_shared_key::<D>(committee));
        }
    }

    #[test]
    fn even_roots() {
        let mut rng = ChaCha20Rng::seed_from_u64(5);
        for _ in 0..50 {
            let r = Element::<u128, 3>([rng.r#gen(), rng.r#gen(), rng.r#gen()]);
            let x = even_root(r * r + r).unwrap();
            assert!(x == r || x == -Element::ONE() - r);
            assert_eq!(x.0[0] & 1, 0);
        }
        // x^2 + x has trace zero in the residue field, so 1 has no root for odd d.
        assert_eq!(even_root(Element::<u128, 3>::ONE()), None);
    }
}
