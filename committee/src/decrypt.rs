//! Partial decryption of squashed TFHE blocks with noise flooding, and combining;
//! `decryption.md` steps 3 to 5.
//!
//! A squashed block is an LWE ciphertext (a, b) modulo 2^128 with phase
//! b - <a, Q> = m 2^123 + e, |e| < 2^69. Participant j computes its share of the phase and adds a
//! share of E, the sum over the key sets A of two uniforms in [-2^(69+stat), 2^(69+stat)), so that
//! what is opened says nothing about e beyond 2^-stat per uniform. E is a function of the key, the
//! epoch and the block only: decrypting the same block again reveals nothing new.
//!
//! d blocks are packed into one ring element, so a partial decryption is 16 bytes per block.

mod inner_product;

use inner_product::Vectors;
use rayon::prelude::*;
use veil_protocol_spec::{Blake3Digest, Committee, Epoch, KeySetDigest, ParticipantIndex, domain};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    code::{Decoded, NotYet, decode},
    prf::{LANES, Prf},
    randomness::SetKeys,
    ring::{Element, extension_degree},
    shamir::{indicator, lagrange},
    with_degree,
};

/// log2 of the bound on a squashed block's noise, at a tail of 2^-128 (`decryption.md`).
pub const LOG2_NOISE: u32 = 69;

/// log2 of Delta: a squashed block holds 4 bits and a padding bit.
pub const LOG2_DELTA: u32 = 123;

/// Blocks whose masks are expanded together.
const BATCH: usize = LANES;

/// From so many blocks on it is faster to fill the lanes than to use just as many.
const WORTH_ALL_LANES: usize = LANES / 3;

/// Key sets whose masks are kept together; no power of two, or the masks of one set would compete
/// for the same lines of the cache.
const SETS: usize = 60;

/// An LWE ciphertext modulo 2^128 that came out of noise squashing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SquashedBlock {
    /// a, as many words as Q has bits.
    pub mask: Vec<u128>,
    /// b.
    pub body: u128,
}

impl SquashedBlock {
    /// H(a || b), the input of the flooding PRF.
    #[must_use]
    pub fn digest(&self) -> Blake3Digest {
        let mut hasher = blake3::Hasher::new_derive_key(domain::SQUASHED_BLOCK);
        if cfg!(target_endian = "little") {
            hasher.update(bytemuck::cast_slice(&self.mask));
        } else {
            self.mask.iter().for_each(|word| {
                hasher.update(&word.to_le_bytes());
            });
        }
        hasher.update(&self.body.to_le_bytes());
        Blake3Digest(*hasher.finalize().as_bytes())
    }
}

/// How strongly a committee floods, and how much a key is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flooding {
    /// Statistical security in bits: one uniform of 2^(69+stat) hides noise of 2^69 up to 2^-stat.
    pub statistical_bits: u32,
    /// Blocks after which a key must be replaced: what they tell of their noise together stays below
    /// 2^-32 (`decryption.md`, "Budget").
    pub budget: u64,
}

impl Flooding {
    /// The profile of a committee: the largest stat for which
    /// 2^69 + 2 C(n,t) 2^(69+stat) < 2^122 = Delta / 2.
    #[must_use]
    pub const fn of(committee: Committee) -> Self {
        let (statistical_bits, log2_budget) = match committee.n() {
            0..=4 => (49, 40),
            5..=7 => (47, 36),
            8..=10 => (45, 32),
            _ => (42, 26),
        };
        Self { statistical_bits, budget: 1 << log2_budget }
    }

    const fn log2_bound(self) -> u32 {
        LOG2_NOISE + self.statistical_bits
    }
}

/// One participant's ability to decrypt partially: its share of Q and its flooding keys.
///
/// # Security
/// Zeroized on drop, never printed.
pub struct PartialDecryptor {
    committee: Committee,
    me: ParticipantIndex,
    key_set: KeySetDigest,
    epoch: Epoch,
    dimension: usize,
    /// Vector c: the coefficients of X^c in the shares of Q.
    key: Vectors,
    /// One per key set A of which this participant is a member.
    floods: Vec<Prf>,
    /// Vector c: the coefficients of X^c in f_A at this participant's point.
    factors: Vectors,
    shift: u32,
}

impl core::fmt::Debug for PartialDecryptor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PartialDecryptor({}, participant {}, <redacted>)", self.committee, self.me)
    }
}

/// A ciphertext that does not belong to this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block {block} has {given} mask words; the key has {expected}")]
pub struct WrongDimension {
    /// Position of the block.
    pub block: usize,
    /// Words it has.
    pub given: usize,
    /// Bits of Q.
    pub expected: usize,
}

impl PartialDecryptor {
    /// `share` holds this participant's share of every bit of Q; `keys` are its `dec` keys. The
    /// masks are bound to `key_set` and `epoch`.
    #[must_use]
    pub fn new<const D: usize>(
        committee: Committee,
        me: ParticipantIndex,
        share: &[Element<u128, D>],
        keys: &SetKeys,
        key_set: &KeySetDigest,
        epoch: Epoch,
    ) -> Self {
        debug_assert_eq!(D, extension_degree(committee));
        let (floods, factors): (Vec<_>, Vec<_>) = keys
            .iter()
            .filter(|(set, _)| set.contains(me))
            .map(|(set, key)| {
                let bound = key.derive(domain::FLOODING, &[&key_set.0, &epoch.0.to_le_bytes()]);
                (Prf::new(&bound, "flooding"), indicator::<u128, D>(committee, *set, me).0)
            })
            .unzip();
        let shift = 127 - Flooding::of(committee).log2_bound();
        Self {
            committee,
            me,
            key_set: *key_set,
            epoch,
            dimension: share.len(),
            key: Vectors::new(share.iter().map(|element| element.0)),
            floods,
            factors: Vectors::new(factors.iter().copied()),
            shift,
        }
    }

    /// The committee it belongs to.
    #[must_use]
    pub const fn committee(&self) -> Committee {
        self.committee
    }

    /// The participant whose share it is.
    #[must_use]
    pub const fn participant(&self) -> ParticipantIndex {
        self.me
    }

    /// The key set its masks are bound to.
    #[must_use]
    pub const fn key_set(&self) -> KeySetDigest {
        self.key_set
    }

    /// The epoch its masks are bound to.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Bits of Q, and mask words of every block.
    #[must_use]
    pub const fn dimension(&self) -> usize {
        self.dimension
    }

    /// Flooded shares of the blocks' phases, packed: ceil(len / d) ring elements of d little-endian
    /// 128-bit words each. The same blocks always give the same bytes.
    ///
    /// # Security
    /// The caller answers for where the blocks come from: a crafted one, a = 2^127 e_i and b = 0,
    /// would give bit i of Q away. [`crate::decryption`] is the only caller in production.
    ///
    /// # Errors
    /// [`WrongDimension`] names the first block that is not under this key.
    pub fn partial(&self, blocks: &[SquashedBlock]) -> Result<Vec<u8>, WrongDimension> {
        let expected = self.dimension;
        if let Some(block) = blocks.iter().position(|b| b.mask.len() != expected) {
            return Err(WrongDimension { block, given: blocks[block].mask.len(), expected });
        }
        Ok(with_degree!(self.committee, D => self.partial_degree::<D>(blocks)))
    }

    fn partial_degree<const D: usize>(&self, blocks: &[SquashedBlock]) -> Vec<u8> {
        let (mut shares, digests): (Vec<_>, Vec<_>) =
            blocks.par_iter().map(|block| (self.phase_share::<D>(block), block.digest().0)).unzip();
        shares
            .par_chunks_mut(BATCH)
            .zip(digests.par_chunks(BATCH))
            .for_each(|(shares, digests)| self.flood(digests, shares));
        let packed = shares.chunks(D).map(|shares| -> Element<u128, D> {
            shares.iter().enumerate().map(|(c, share)| share.times_x_power(c)).sum()
        });
        let bytes = packed.flat_map(|element| element.0).flat_map(u128::to_le_bytes).collect();
        shares.zeroize();
        bytes
    }

    /// b - <a, \[Q\]>.
    fn phase_share<const D: usize>(&self, block: &SquashedBlock) -> Element<u128, D> {
        Element::constant(block.body) - Element(self.key.inner_products(0, &block.mask))
    }

    /// Adds the share of E, sum over A of mask_A f_A(alpha_j), to the share of each block.
    fn flood<const D: usize>(&self, digests: &[[u8; 32]], shares: &mut [Element<u128, D>]) {
        // The top bits of a uniform word, sign-extended: uniform in [-2^b, 2^b).
        let draw = |uniform: u128| (uniform as i128 >> self.shift) as u128;
        let lanes = if digests.len() < WORTH_ALL_LANES { digests.len() } else { LANES };
        let mut inputs = digests.to_vec();
        inputs.resize(lanes, [0; 32]);
        let mut uniforms = Zeroizing::new(vec![[0u128; 2]; lanes]);
        let mut masks = Zeroizing::new(vec![[0u128; SETS]; digests.len()]);
        for (strip, floods) in self.floods.chunks(SETS).enumerate() {
            for (set, prf) in floods.iter().enumerate() {
                prf.of_digests(&inputs, &mut uniforms);
                for (masks, [first, second]) in masks.iter_mut().zip(&*uniforms) {
                    masks[set] = draw(*first).wrapping_add(draw(*second));
                }
            }
            for (share, masks) in shares.iter_mut().zip(&*masks) {
                let masks = &masks[..floods.len()];
                *share += Element(self.factors.inner_products(strip * SETS, masks));
            }
        }
    }
}

/// Phases opened from partial decryptions, and whose shares were wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Combined {
    /// m 2^123 + e + E per block.
    pub phases: Vec<u128>,
    /// Participants with a wrong share in at least one element, ascending.
    pub culprits: Vec<ParticipantIndex>,
}

impl Combined {
    /// The 4-bit message and padding bit of every block: the phase rounded to a multiple of Delta.
    #[must_use]
    pub fn messages(&self) -> Vec<u8> {
        let half = 1u128 << (LOG2_DELTA - 1);
        self.phases.iter().map(|p| (p.wrapping_add(half) >> LOG2_DELTA) as u8).collect()
    }
}

/// Bytes of a partial decryption of `blocks` blocks.
#[must_use]
pub const fn partial_len(committee: Committee, blocks: usize) -> usize {
    let degree = extension_degree(committee);
    blocks.div_ceil(degree) * degree * 16
}

/// Combines the partial decryptions of `blocks` blocks, in any order of participants. A partial
/// decryption of the wrong length counts as wrong.
///
/// # Errors
/// [`NotYet`] while fewer than 2t+1 agree in some element.
pub fn combine(
    committee: Committee,
    partials: &[(ParticipantIndex, &[u8])],
    blocks: usize,
) -> Result<Combined, NotYet> {
    with_degree!(committee, D => combine_degree::<D>(committee, partials, blocks))
}

fn combine_degree<const D: usize>(
    committee: Committee,
    partials: &[(ParticipantIndex, &[u8])],
    blocks: usize,
) -> Result<Combined, NotYet> {
    let len = partial_len(committee, blocks);
    let (well_formed, wrong): (Vec<_>, Vec<_>) =
        partials.iter().partition(|(_, bytes)| bytes.len() == len);
    let mut is_culprit = [false; 16];
    wrong.iter().for_each(|(j, _)| is_culprit[j.position()] = true);
    let needed = committee.signing_threshold().get();
    let received = well_formed.len();
    if received < needed {
        return Err(NotYet { needed, received });
    }
    // Shares believed so far come first: one interpolation serves all elements while the first t+1
    // are right.
    let degree = committee.max_faulty().get();
    let mut order: Vec<(ParticipantIndex, &[u8])> = well_formed;
    let mut fast = FastPath::<D>::new(&order, degree);
    let mut phases = Vec::with_capacity(blocks + D);
    for at in 0..len / (16 * D) {
        let shares: Vec<(ParticipantIndex, Element<u128, D>)> =
            order.iter().map(|(j, bytes)| (*j, read_element(bytes, at))).collect();
        let Decoded { value, wrong } = match fast.open(&shares, needed) {
            Some(decoded) => decoded,
            None => {
                let decoded = decode(committee, &shares)?;
                decoded.wrong.iter().for_each(|j| is_culprit[j.position()] = true);
                order.sort_by_key(|(j, _)| is_culprit[j.position()]);
                fast = FastPath::new(&order, degree);
                decoded
            }
        };
        wrong.iter().for_each(|j| is_culprit[j.position()] = true);
        phases.extend(value.0);
    }
    phases.truncate(blocks);
    let culprits = committee.participants().filter(|j| is_culprit[j.position()]).collect();
    Ok(Combined { phases, culprits })
}

fn read_element<const D: usize>(bytes: &[u8], at: usize) -> Element<u128, D> {
    let mut words = bytes[at * 16 * D..].chunks_exact(16);
    Element(core::array::from_fn(|_| {
        words.next().map_or(0, |word| {
            word.iter().rev().fold(0, |value, byte| value << 8 | u128::from(*byte))
        })
    }))
}

/// Interpolation through the first t+1 shares and prediction of the others.
struct FastPath<const D: usize> {
    at_zero: Vec<Element<u128, D>>,
    at_others: Vec<Vec<Element<u128, D>>>,
}

impl<const D: usize> FastPath<D> {
    fn new(order: &[(ParticipantIndex, &[u8])], degree: usize) -> Self {
        let points: Vec<_> = order.iter().map(|(j, _)| Element::point(*j)).collect();
        let (fixing, others) = points.split_at(degree + 1);
        Self {
            at_zero: lagrange(fixing, Element::ZERO()),
            at_others: others.iter().map(|at| lagrange(fixing, *at)).collect(),
        }
    }

    /// The value, if at least `needed` shares agree with the first t+1.
    fn open(
        &self,
        shares: &[(ParticipantIndex, Element<u128, D>)],
        needed: usize,
    ) -> Option<Decoded<u128, D>> {
        let dot = |coefficients: &[Element<u128, D>]| -> Element<u128, D> {
            coefficients.iter().zip(shares).map(|(l, (_, share))| *l * *share).sum()
        };
        let others = &shares[self.at_zero.len()..];
        let predicted = self.at_others.iter().map(|l| dot(l));
        let wrong: Vec<_> = predicted
            .zip(others)
            .filter(|(predicted, (_, share))| predicted != share)
            .map(|(_, (j, _))| *j)
            .collect();
        (shares.len() - wrong.len() >= needed).then(|| Decoded { value: dot(&self.at_zero), wrong })
    }
}

#[cfg(test)]
mod tests;
