//! Shares of the secret key bits: steps 6 to 8.

use rayon::prelude::*;
use veil_committee::{
    randomness::{RandomShares, ZeroShares},
    ring::Element,
};
use veil_protocol_spec::{Committee, ParticipantIndex};
use zeroize::{Zeroize, Zeroizing};

use super::{encoding::to_bytes, keys::StreamKeys};
use crate::{
    chunks::Chunk,
    keyset::{KeyName, Layout},
};

/// Why opened values give no shares of key bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeriveError {
    /// The bits stream is not open to its end.
    #[error(
        "{opened} of {expected} key bits are opened: open every chunk of the bits stream first"
    )]
    NotOpened {
        /// Values given.
        opened: usize,
        /// Key bits in all.
        expected: usize,
    },
    /// A value is not r^2 + r for any r, so the members did not follow the protocol.
    #[error("the value opened for key bit {bit} is not r^2 + r for any r: start another attempt")]
    NoRoot {
        /// Position of the key bit, from zero.
        bit: usize,
    },
}

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
        keys: &StreamKeys,
        bits: usize,
    ) -> Self {
        let mut random = vec![Element::ZERO(); bits];
        RandomShares::new(committee, me, &keys.dkg, "bits/random").fill(0, &mut random);
        Self { random, zeros: ZeroShares::new(committee, me, &keys.zero, "bits/zero") }
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
    /// [`DeriveError`]; the shares are erased.
    pub fn into_bits(
        mut self,
        opened: &[Element<u128, D>],
    ) -> Result<Zeroizing<Vec<Element<u128, D>>>, DeriveError> {
        if opened.len() != self.random.len() {
            let (opened, expected) = (opened.len(), self.random.len());
            return Err(DeriveError::NotOpened { opened, expected });
        }
        let mut bits = Zeroizing::new(core::mem::take(&mut self.random));
        bits.par_iter_mut().zip(opened.par_iter()).enumerate().try_for_each(
            |(bit, (share, v))| {
                let no_root = DeriveError::NoRoot { bit };
                let x = even_root(*v).ok_or(no_root)?;
                let scale = (-Element::ONE() - x.shift(1)).inverse().ok_or(no_root)?;
                *share = (*share - x) * scale;
                Ok::<(), DeriveError>(())
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

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha20Rng;
    use veil_committee::{prf::SetKey, randomness::keys_of, subsets::key_sets};

    use super::*;

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

    /// Shares of bits that are not opened would be shares of r, which nothing tells from shares of bits.
    #[test]
    fn bits_come_only_from_a_stream_that_is_open_to_its_end() {
        let (committee, me) = (Committee::ALL[1], ParticipantIndex::new(1).unwrap());
        let sets = key_sets(committee);
        let all: Vec<_> = (0..sets.len() as u8).map(|i| SetKey::new([i; 32])).collect();
        let keys =
            StreamKeys { dkg: keys_of(&sets, me, &all), noise: Vec::new(), zero: Vec::new() };
        let draw = || BitShares::<3>::draw(committee, me, &keys, 5);
        let fits = vec![Element::ZERO(); 5];
        assert_eq!(draw().into_bits(&fits).map(|bits| bits.len()), Ok(5));
        for opened in [0, 4, 6] {
            let given = vec![Element::ZERO(); opened];
            let expected = DeriveError::NotOpened { opened, expected: 5 };
            assert_eq!(draw().into_bits(&given).err(), Some(expected));
        }
        let mut wrong = fits;
        wrong[3] = Element::ONE();
        assert_eq!(draw().into_bits(&wrong).err(), Some(DeriveError::NoRoot { bit: 3 }));
    }
}
