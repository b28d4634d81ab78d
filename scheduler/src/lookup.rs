//! Encrypted digits, and the look-ups that everything else is made of.
//!
//! A [`Digit`] is one block of the 2_2 parameters used as a whole: a message of 4 bits below the
//! padding bit. Sums and differences of digits live modulo 32, and a look-up is negacyclic:
//! `f(x - 16) = -f(x)`. Where the padding bit may be set, a [`Table`] is written for that on
//! purpose: the borrow of a subtraction and the sign of a difference are one look-up each.
//!
//! # Noise
//! Every digit carries the variance of its noise in units of what one bootstrap leaves, and
//! [`EvaluationKey::look_up`] refuses more than [`MAX_VARIANCE`], which is what the parameters'
//! failure probability was computed for. The circuits are fixed before any ciphertext is seen, so
//! a test that runs one runs this check for all inputs of the same shape.

use tfhe::{
    core_crypto::prelude::{
        Cleartext, Plaintext, lwe_ciphertext_add_assign, lwe_ciphertext_cleartext_mul_assign,
        lwe_ciphertext_plaintext_add_assign, lwe_ciphertext_sub_assign,
    },
    shortint::Ciphertext,
};

use crate::key::EvaluationKey;

/// Entries of a table: 4 bits.
const ENTRIES: usize = 16;
/// Half a message step: 1/2 of 1/32 of the torus.
const HALF_STEP: u32 = 58;
/// Largest variance that may enter a look-up: linear combinations of 2-norm 5.
pub(crate) const MAX_VARIANCE: u32 = 25;

/// An encrypted digit.
#[derive(Clone)]
pub(crate) struct Digit {
    ciphertext: Ciphertext,
    /// In units of the variance that a bootstrap leaves.
    variance: u32,
}

impl Digit {
    /// A ciphertext fresh from a bootstrap.
    pub(crate) const fn fresh(ciphertext: Ciphertext) -> Self {
        Self { ciphertext, variance: 1 }
    }

    pub(crate) const fn ciphertext(&self) -> &Ciphertext {
        &self.ciphertext
    }

    pub(crate) const fn variance(&self) -> u32 {
        self.variance
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        let mut sum = self.clone();
        lwe_ciphertext_add_assign(&mut sum.ciphertext.ct, &other.ciphertext.ct);
        sum.variance += other.variance;
        sum
    }

    pub(crate) fn minus(&self, other: &Self) -> Self {
        let mut difference = self.clone();
        lwe_ciphertext_sub_assign(&mut difference.ciphertext.ct, &other.ciphertext.ct);
        difference.variance += other.variance;
        difference
    }

    pub(crate) fn plus_constant(&self, constant: i64) -> Self {
        self.plus_halves(2 * constant)
    }

    /// Adds `halves` half steps.
    pub(crate) fn plus_halves(&self, halves: i64) -> Self {
        let mut sum = self.clone();
        let plaintext = Plaintext((halves as u64).wrapping_mul(1 << HALF_STEP));
        lwe_ciphertext_plaintext_add_assign(&mut sum.ciphertext.ct, plaintext);
        sum
    }

    pub(crate) fn times(&self, factor: u32) -> Self {
        let mut product = self.clone();
        let clear = Cleartext(u64::from(factor));
        lwe_ciphertext_cleartext_mul_assign(&mut product.ciphertext.ct, clear);
        product.variance *= factor * factor;
        product
    }
}

/// What a look-up gives for 0 to 15, in half steps; for -16 to -1 it gives the negation of what
/// it gives 16 further up.
pub(crate) struct Table([i64; ENTRIES]);

impl Table {
    /// `f(x)` whole steps for x.
    pub(crate) fn new(f: impl Fn(i64) -> i64) -> Self {
        Self::halves(|x| 2 * f(x))
    }

    /// `f(x)` half steps for x.
    pub(crate) fn halves(f: impl Fn(i64) -> i64) -> Self {
        Self(core::array::from_fn(|x| f(x as i64)))
    }

    /// Whether the table gives 0 everywhere, so that the look-up is not needed.
    pub(crate) fn is_zero(&self) -> bool {
        self.0 == [0; ENTRIES]
    }

    /// -1, 0 or 1: the sign of a difference of two digits.
    pub(crate) fn sign() -> Self {
        Self::new(|x| i64::from(x > 0))
    }
}

impl EvaluationKey {
    /// Key switch and bootstrap: the fresh digit that `table` gives for `digit`.
    ///
    /// # Panics
    /// If the circuit's author lets more than [`MAX_VARIANCE`] in.
    pub(crate) fn look_up(&self, digit: &Digit, table: &Table) -> Digit {
        assert!(digit.variance <= MAX_VARIANCE, "noise {} enters a look-up", digit.variance);
        let server_key = self.server_key();
        let mut accumulator = server_key.generate_lookup_table(|_| 0);
        let mut body = accumulator.acc.get_mut_body();
        let body = body.as_mut();
        let width = body.len() / ENTRIES;
        for (entry, halves) in body.chunks_mut(width).zip(&table.0) {
            entry.fill((*halves as u64).wrapping_mul(1 << HALF_STEP));
        }
        // An entry is centred on its message: its lower half lies below, and for 0 that is past
        // the end of the polynomial, where the sign turns.
        let (first, _) = body.split_at_mut(width / 2);
        first.iter_mut().for_each(|word| *word = word.wrapping_neg());
        body.rotate_left(width / 2);
        Digit::fresh(server_key.apply_lookup_table(digit.ciphertext(), &accumulator))
    }

    /// The same digit with fresh noise.
    pub(crate) fn refresh(&self, digit: &Digit) -> Digit {
        self.look_up(digit, &Table::new(|x| x))
    }

    /// `digit`, refreshed if its variance is above `limit`.
    pub(crate) fn refresh_above(&self, limit: u32, digit: Digit) -> Digit {
        if digit.variance > limit { self.refresh(&digit) } else { digit }
    }
}
