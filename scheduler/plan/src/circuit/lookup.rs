//! Look-ups, which everything else is made of.
//!
//! A [`Digit`] is one block of the 2_2 parameters used as a whole: a message of 4 bits below the
//! padding bit. Sums and differences of digits live modulo 32, and a look-up is negacyclic:
//! `f(x + 16) = -f(x)`. Where the padding bit may be set, a [`Table`] is written for that on
//! purpose: the borrow of a subtraction is one look-up, and a choice between two digits is one if
//! the selector moves their difference to where nothing else can be ([`Table::of_points`] refuses a
//! table for which that is not so).
//!
//! # Several outputs
//! A blind rotation gives every entry of the table at once. If the input has only m values, 16/m
//! functions fit into one table of entries of the usual width, so that the margin for noise is the
//! usual one; each function is read at its own offset ([`Circuit::look_up_two`]).
//!
//! If the polynomial is constant, what is read k entries further up is a comparison with k, so that one
//! rotation compares a digit with every public number ([`Circuit::rotate`]).
//!
//! # Noise
//! Every digit carries the variance of its noise in units of what one bootstrap leaves, and a
//! look-up refuses more than [`MAX_VARIANCE`], which is what the parameters' failure probability
//! is computed for. The circuits are fixed before any ciphertext is seen, so running one in clear
//! runs this check for all inputs of the same shape.
//!
//! # In clear
//! A circuit is written once, over any [`Value`]. On [numbers](super::in_clear) the same text runs
//! by the same tables: tests compare it with the cleartext twin on many inputs, and the [`Cost`] of
//! a plan is counted in this way.

use super::{
    digit::{Digit, Value},
    rotated::Rotated,
    table::Table,
};
use crate::cost::{Cost, Counter, MAX_VARIANCE};

/// One run of a circuit: the key that its look-ups need, and what it has cost so far.
pub struct Circuit<'a, V: Value> {
    key: &'a V::Key,
    counter: Counter,
}

impl<'a, V: Value> Circuit<'a, V> {
    /// A run that has cost nothing yet.
    pub const fn new(key: &'a V::Key) -> Self {
        Self { key, counter: Counter::new() }
    }

    /// The look-ups so far.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.counter.cost()
    }

    /// Notes that `digit` will be squashed.
    ///
    /// # Panics
    /// As of [`Self::look_up`].
    pub fn output(&self, digit: &Digit<V>) {
        assert!(digit.variance <= MAX_VARIANCE, "noise {} enters a squashing", digit.variance);
        self.counter.record_output(digit.variance);
    }

    /// Key switch and bootstrap: the fresh digit that `table` gives for `digit`.
    ///
    /// # Panics
    /// If the circuit's author lets more than [`MAX_VARIANCE`] in.
    #[must_use]
    pub fn look_up(&self, digit: &Digit<V>, table: &Table) -> Digit<V> {
        let depth = self.record(digit);
        Digit { value: digit.value.look_up(self.key, table), variance: 1, depth }
    }

    /// Two functions of one digit in one bootstrap: the first is what `table` gives at the digit,
    /// the second what it gives 8 further up.
    #[must_use]
    pub fn look_up_two(&self, digit: &Digit<V>, table: &Table) -> [Digit<V>; 2] {
        self.look_up_two_apart(8, digit, table)
    }

    /// The same with the second function `distance` entries further up.
    #[must_use]
    pub fn look_up_two_apart(
        &self,
        distance: usize,
        digit: &Digit<V>,
        table: &Table,
    ) -> [Digit<V>; 2] {
        let depth = self.record(digit);
        let values = digit.value.look_up_two(self.key, table, distance);
        values.map(|value| Digit { value, variance: 1, depth })
    }

    /// Key switch and blind rotation of a constant polynomial by `digit`, -16 to 15: all comparisons of it
    /// with public numbers at once, each of which gives `scale` or 0. One look-up.
    ///
    /// # Panics
    /// As of [`Self::look_up`].
    #[must_use]
    pub fn rotate(&self, digit: &Digit<V>, scale: i64) -> Rotated<V> {
        let depth = self.record(digit);
        Rotated::new(digit.value.rotate(self.key, scale), scale, depth)
    }

    fn record(&self, digit: &Digit<V>) -> u32 {
        assert!(digit.variance <= MAX_VARIANCE, "noise {} enters a look-up", digit.variance);
        self.counter.record(digit.variance, digit.depth + 1);
        digit.depth + 1
    }

    /// The same digit of 4 bits with fresh noise.
    #[must_use]
    pub fn refresh(&self, digit: &Digit<V>) -> Digit<V> {
        self.look_up(digit, &Table::new(|x| x))
    }

    /// `digit`, refreshed if its variance is above `limit`.
    #[must_use]
    pub fn refresh_above(&self, limit: u32, digit: Digit<V>) -> Digit<V> {
        if digit.variance > limit { self.refresh(&digit) } else { digit }
    }

    /// 1 if the difference is below 0, else 0; it must be -16 to 15.
    #[must_use]
    pub fn is_negative(&self, difference: &Digit<V>) -> Digit<V> {
        self.scaled_if_negative(difference, 1)
    }

    /// `scale` if the difference is below 0, else 0; it must be -16 to 15.
    #[must_use]
    pub fn scaled_if_negative(&self, difference: &Digit<V>, scale: i64) -> Digit<V> {
        self.look_up(difference, &Table::halves(|_| -scale)).plus_halves(scale)
    }

    /// 1 if at least one of up to 15 flags is set, times `scale`: `sum` is their sum, 0 to 15.
    #[must_use]
    pub fn any(&self, sum: &Digit<V>, scale: i64) -> Digit<V> {
        self.look_up(sum, &Table::new(|x| if x > 0 { scale } else { 0 }))
    }
}
