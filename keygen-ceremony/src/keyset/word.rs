//! The two word sizes of the key material, so that code over rows is written once.

use core::fmt::Debug;

/// An unsigned word with arithmetic modulo 2^BITS: `u64` or `u128`.
pub trait Word: Copy + Debug + Default + Eq + Send + Sync + 'static {
    /// w, the size of the word in bits.
    const BITS: u32;

    /// Size of the word in bytes.
    const BYTES: usize;

    /// Sum modulo 2^w.
    #[must_use]
    fn add(self, other: Self) -> Self;

    /// Difference modulo 2^w.
    #[must_use]
    fn sub(self, other: Self) -> Self;

    /// 2^exponent; `exponent` is below w.
    #[must_use]
    fn power_of_two(exponent: u32) -> Self;

    /// The residue of a small signed number.
    #[must_use]
    fn from_signed(value: i64) -> Self;

    /// Reads a little-endian word. Bytes after the first [`Word::BYTES`] are ignored.
    ///
    /// # Panics
    /// If there are fewer than [`Word::BYTES`] bytes.
    #[must_use]
    fn from_le(bytes: &[u8]) -> Self;
}

macro_rules! word {
    ($($t:ty),*) => {$(
        impl Word for $t {
            const BITS: u32 = <$t>::BITS;
            const BYTES: usize = size_of::<$t>();

            #[inline]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }

            #[inline]
            fn sub(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }

            #[inline]
            fn power_of_two(exponent: u32) -> Self {
                1 << exponent
            }

            #[inline]
            fn from_signed(value: i64) -> Self {
                value as $t
            }

            #[inline]
            fn from_le(bytes: &[u8]) -> Self {
                let mut word = [0; size_of::<$t>()];
                word.copy_from_slice(&bytes[..Self::BYTES]);
                <$t>::from_le_bytes(word)
            }
        }
    )*};
}
word!(u64, u128);
