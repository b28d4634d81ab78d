//! Galois rings R = GR(2^k, D) = Z_{2^k}\[X\]/(F) for k in {64, 128}, `ceremony.md` section 1.
//!
//! F = X^D + X + 1 for D in {2, 3, 4}, irreducible modulo 2, and F = X for D = 1, where the ring is
//! Z_{2^k} itself. The exceptional points are alpha_0 = 0 and alpha_j, the polynomial whose 0/1
//! coefficients are the bits of j: two distinct ones differ by a unit, which is all that Shamir
//! sharing and Reed-Solomon decoding need of a field.

use core::{
    fmt::Debug,
    iter::Sum,
    ops::{Add, AddAssign, Mul, Neg, Sub, SubAssign},
};

use veil_protocol_spec::{Committee, ParticipantIndex};
use zeroize::Zeroize;

/// An unsigned machine word, read modulo 2^BITS.
pub trait Word:
    Copy + Default + Debug + PartialEq + Eq + Send + Sync + Zeroize + bytemuck::Pod + 'static
{
    /// k.
    const BITS: u32;
    /// k / 8.
    const BYTES: usize;
    /// One.
    const ONE: Self;
    /// Sum modulo 2^k.
    #[must_use]
    fn add(self, other: Self) -> Self;
    /// Difference modulo 2^k.
    #[must_use]
    fn sub(self, other: Self) -> Self;
    /// Product modulo 2^k.
    #[must_use]
    fn mul(self, other: Self) -> Self;
    /// Times 2^shift modulo 2^k; zero from shift = k on.
    #[must_use]
    fn shl(self, shift: u32) -> Self;
    /// Reduction modulo 2^k.
    #[must_use]
    fn truncate(value: u128) -> Self;
    /// The representative in 0..2^k.
    #[must_use]
    fn widen(self) -> u128;
    /// The word whose little-endian bytes these are.
    ///
    /// # Panics
    /// Unless there are exactly [`Word::BYTES`] of them.
    #[must_use]
    fn from_le_slice(bytes: &[u8]) -> Self;
}

macro_rules! word {
    ($t:ty) => {
        impl Word for $t {
            const BITS: u32 = <$t>::BITS;
            const BYTES: usize = (<$t>::BITS / 8) as usize;
            const ONE: Self = 1;

            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            #[inline(always)]
            fn shl(self, shift: u32) -> Self {
                self.checked_shl(shift).unwrap_or(0)
            }
            #[inline(always)]
            fn truncate(value: u128) -> Self {
                value as $t
            }
            #[inline(always)]
            fn widen(self) -> u128 {
                u128::from(self)
            }
            #[inline(always)]
            fn from_le_slice(bytes: &[u8]) -> Self {
                let mut array = [0; Self::BYTES];
                array.copy_from_slice(bytes);
                Self::from_le_bytes(array)
            }
        }
    };
}
word!(u64);
word!(u128);

/// An element of GR(2^k, D): coefficients of 1, X, .., X^(D-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Element<W, const D: usize>(pub [W; D]);

impl<W: Word, const D: usize> Default for Element<W, D> {
    fn default() -> Self {
        Self::ZERO()
    }
}

impl<W: Word, const D: usize> Zeroize for Element<W, D> {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

impl<W: Word, const D: usize> Element<W, D> {
    /// Zero.
    #[must_use]
    #[allow(non_snake_case, reason = "a constant that needs a trait call")]
    #[inline]
    pub fn ZERO() -> Self {
        Self([W::default(); D])
    }

    /// One.
    #[must_use]
    #[allow(non_snake_case, reason = "a constant that needs a trait call")]
    pub fn ONE() -> Self {
        Self::constant(W::ONE)
    }

    /// The embedding of Z_{2^k}.
    #[must_use]
    pub fn constant(word: W) -> Self {
        let mut out = Self::ZERO();
        out.0[0] = word;
        out
    }

    /// alpha_j: bit i of `index` is the coefficient of X^i.
    #[must_use]
    pub fn exceptional(index: u8) -> Self {
        let mut out = Self::ZERO();
        for (i, coefficient) in out.0.iter_mut().enumerate() {
            *coefficient = W::truncate(u128::from(index >> i & 1));
        }
        debug_assert!(u32::from(index) >> D == 0);
        out
    }

    /// The point of a participant.
    #[must_use]
    pub fn point(participant: ParticipantIndex) -> Self {
        Self::exceptional(participant.get())
    }

    /// Times a word.
    #[inline]
    #[must_use]
    pub fn scale(mut self, word: W) -> Self {
        self.0.iter_mut().for_each(|c| *c = c.mul(word));
        self
    }

    /// Times 2^shift.
    #[inline]
    #[must_use]
    pub fn shift(mut self, shift: u32) -> Self {
        self.0.iter_mut().for_each(|c| *c = c.shl(shift));
        self
    }

    /// Times X: X^D = -X - 1 (and X = 0 for D = 1).
    #[inline]
    #[must_use]
    pub fn times_x(self) -> Self {
        if D == 1 {
            return Self::ZERO();
        }
        let top = self.0[D - 1];
        let mut out = [W::default(); D];
        out[1..].copy_from_slice(&self.0[..D - 1]);
        out[0] = out[0].sub(top);
        out[1] = out[1].sub(top);
        Self(out)
    }

    /// Times X^power, for packing the power-th word.
    #[inline]
    #[must_use]
    pub fn times_x_power(self, power: usize) -> Self {
        (0..power).fold(self, |element, _| element.times_x())
    }

    /// Whether the element has an inverse: it is not zero modulo 2.
    #[must_use]
    pub fn is_unit(&self) -> bool {
        self.0.iter().any(|c| c.widen() & 1 == 1)
    }

    /// The inverse of a unit: modulo 2 as the power 2^D - 2, then Newton's iteration, which doubles
    /// the number of correct bits each time. `None` for a non-unit.
    #[must_use]
    pub fn inverse(self) -> Option<Self> {
        if !self.is_unit() {
            return None;
        }
        let mut x = Self::ONE();
        for bit in (0..D as u32).rev() {
            x = x * x;
            // 2^D - 2 = 0b1..10
            if bit > 0 {
                x = x * self;
            }
        }
        let two = Self::constant(W::ONE.shl(1));
        let mut correct_bits = 1;
        while correct_bits < W::BITS {
            x = x * (two - self * x);
            correct_bits *= 2;
        }
        Some(x)
    }

    /// Half of an element whose coefficients are all even, as an element of the same ring whose
    /// top bits are zero.
    pub(crate) fn halve(mut self) -> Self {
        self.0.iter_mut().for_each(|c| *c = W::truncate(c.widen() >> 1));
        self
    }
}

impl<const D: usize> Element<u128, D> {
    /// The reduction modulo 2^64; it maps a sharing of a value to a sharing of the value mod 2^64.
    #[inline]
    #[must_use]
    pub fn truncate<W: Word>(self) -> Element<W, D> {
        Element(self.0.map(W::truncate))
    }
}

impl<W: Word, const D: usize> Add for Element<W, D> {
    type Output = Self;

    #[inline(always)]
    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl<W: Word, const D: usize> AddAssign for Element<W, D> {
    #[inline(always)]
    fn add_assign(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a = a.add(b));
    }
}

impl<W: Word, const D: usize> Sub for Element<W, D> {
    type Output = Self;

    #[inline(always)]
    fn sub(mut self, other: Self) -> Self {
        self -= other;
        self
    }
}

impl<W: Word, const D: usize> SubAssign for Element<W, D> {
    #[inline(always)]
    fn sub_assign(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a = a.sub(b));
    }
}

impl<W: Word, const D: usize> Neg for Element<W, D> {
    type Output = Self;

    #[inline(always)]
    fn neg(self) -> Self {
        Self::ZERO() - self
    }
}

impl<W: Word, const D: usize> Mul for Element<W, D> {
    type Output = Self;

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // Schoolbook into 2D-1 coefficients (7 for the largest D), then X^D = -X - 1 from the top.
        let mut wide = [W::default(); 7];
        for (i, a) in self.0.into_iter().enumerate() {
            for (j, b) in other.0.into_iter().enumerate() {
                wide[i + j] = wide[i + j].add(a.mul(b));
            }
        }
        for i in (D..2 * D - 1).rev() {
            let top = wide[i];
            wide[i - D] = wide[i - D].sub(top);
            wide[i - D + 1] = wide[i - D + 1].sub(top);
        }
        let mut out = [W::default(); D];
        out.copy_from_slice(&wide[..D]);
        Self(out)
    }
}

impl<W: Word, const D: usize> Sum for Element<W, D> {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO(), |a, b| a + b)
    }
}

/// The extension degree for a committee: the least D in {1, 3, 4} with 2^D > n.
#[must_use]
pub const fn extension_degree(committee: Committee) -> usize {
    match committee.n() {
        0..=1 => 1,
        2..=7 => 3,
        _ => 4,
    }
}

/// Runs `$body` with `$D` bound, as a constant, to the extension degree of `$committee`.
///
/// ```
/// use veil_committee::{ring::Element, with_degree};
/// let committee = veil_protocol_spec::Committee::new(13).unwrap();
/// assert_eq!(with_degree!(committee, D => size_of::<Element<u64, D>>()), 32);
/// ```
#[macro_export]
macro_rules! with_degree {
    ($committee:expr, $D:ident => $body:expr) => {
        match $crate::ring::extension_degree($committee) {
            1 => {
                const $D: usize = 1;
                $body
            }
            3 => {
                const $D: usize = 3;
                $body
            }
            _ => {
                const $D: usize = 4;
                $body
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn laws<W: Word, const D: usize>(words: [u128; 12]) {
        let element = |at: usize| {
            let mut coefficients = [W::default(); D];
            (0..D).for_each(|i| coefficients[i] = W::truncate(words[at + i]));
            Element::<W, D>(coefficients)
        };
        let (a, b, c) = (element(0), element(4), element(8));
        assert_eq!(a * (b + c), a * b + a * c);
        assert_eq!(a * (b * c), (a * b) * c);
        assert_eq!(a * b, b * a);
        assert_eq!(a * Element::ONE(), a);
        assert_eq!(a - b + b, a);
        assert_eq!(-a + a, Element::ZERO());
        if D > 1 {
            assert_eq!(a * Element::exceptional(2), a.times_x());
        }
        assert_eq!(a.scale(b.0[0]), a * Element::constant(b.0[0]));
        match a.inverse() {
            Some(inverse) => assert_eq!(a * inverse, Element::ONE()),
            None => assert!(!a.is_unit()),
        }
    }

    proptest! {
        #[test]
        fn ring_laws(words: [u128; 12]) {
            laws::<u64, 1>(words);
            laws::<u64, 3>(words);
            laws::<u64, 4>(words);
            laws::<u128, 1>(words);
            laws::<u128, 3>(words);
            laws::<u128, 4>(words);
        }

        #[test]
        fn truncation_is_a_ring_homomorphism(a: [u128; 3], b: [u128; 3]) {
            let (a, b) = (Element(a), Element(b));
            prop_assert_eq!((a * b).truncate::<u64>(), a.truncate() * b.truncate());
        }
    }

    #[test]
    fn differences_of_exceptional_points_are_units() {
        for i in 0..16u8 {
            for j in 0..i {
                let difference =
                    Element::<u64, 4>::exceptional(i) - Element::<u64, 4>::exceptional(j);
                assert!(difference.is_unit());
            }
        }
    }
}
