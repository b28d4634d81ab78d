//! Digits: what circuits compute on.

use super::table::Table;

/// What a [`Digit`] holds: a ciphertext, or a number in clear.
///
/// Values live modulo 32 whole steps. Linear operations need no key.
pub trait Value: Clone + Send + Sync {
    /// What look-ups run under.
    type Key: Sync;
    /// A constant polynomial, rotated by a value: [`Self::rotate`].
    type Rotation: Clone + Send + Sync;

    /// Adds another value.
    fn add(&mut self, other: &Self);

    /// Subtracts another value.
    fn subtract(&mut self, other: &Self);

    /// Adds eighths of a step.
    fn add_eighths(&mut self, eighths: i64);

    /// Multiplies by a number in clear.
    fn multiply(&mut self, factor: u32);

    /// Changes the sign.
    fn negate(&mut self);

    /// Key switch and bootstrap: what `table` gives.
    fn look_up(&self, key: &Self::Key, table: &Table) -> Self;

    /// The same bootstrap read twice: what `table` gives, and what it gives `distance` entries
    /// further up.
    fn look_up_two(&self, key: &Self::Key, table: &Table, distance: usize) -> [Self; 2];

    /// Key switch and blind rotation of the polynomial whose coefficients are all `halves` half steps.
    fn rotate(&self, key: &Self::Key, halves: i64) -> Self::Rotation;

    /// What the rotation of the value x holds `entries` further up, 0 to 15: its coefficient where
    /// x + `entries` is 0 to 15 modulo 32, else the negation.
    fn read(rotation: &Self::Rotation, entries: usize) -> Self;
}

/// A value with the noise that it carries, or would carry if encrypted.
#[derive(Clone)]
pub struct Digit<V> {
    pub(super) value: V,
    /// In units of the variance that a bootstrap leaves.
    pub(super) variance: u32,
    /// Look-ups behind it.
    pub(super) depth: u32,
}

impl<V> Digit<V> {
    /// A value fresh from a bootstrap.
    pub const fn fresh(value: V) -> Self {
        Self { value, variance: 1, depth: 0 }
    }

    /// What it holds.
    pub const fn value(&self) -> &V {
        &self.value
    }

    pub(super) const fn variance(&self) -> u32 {
        self.variance
    }
}

impl<V: Value> Digit<V> {
    /// Adds a digit.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.combine(other, V::add)
    }

    /// Subtracts a digit.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.combine(other, V::subtract)
    }

    fn combine(&self, other: &Self, operation: impl Fn(&mut V, &V)) -> Self {
        let mut value = self.value.clone();
        operation(&mut value, &other.value);
        Self { value, variance: self.variance + other.variance, depth: self.depth.max(other.depth) }
    }

    /// Adds whole steps.
    #[must_use]
    pub fn plus_constant(&self, constant: i64) -> Self {
        self.plus_eighths(8 * constant)
    }

    /// Adds `halves` half steps.
    #[must_use]
    pub fn plus_halves(&self, halves: i64) -> Self {
        self.plus_eighths(4 * halves)
    }

    /// Adds `eighths` eighths of a step.
    #[must_use]
    pub fn plus_eighths(&self, eighths: i64) -> Self {
        let mut sum = self.clone();
        sum.value.add_eighths(eighths);
        sum
    }

    /// Multiplies by a number in clear, and the variance by its square.
    #[must_use]
    pub fn times(&self, factor: u32) -> Self {
        let mut product = self.clone();
        product.value.multiply(factor);
        product.variance *= factor * factor;
        product
    }

    /// `constant - self`.
    #[must_use]
    pub fn subtracted_from(&self, constant: i64) -> Self {
        let mut negated = self.clone();
        negated.value.negate();
        negated.plus_constant(constant)
    }
}

/// The sum, `None` of nothing.
pub(crate) fn sum<'a, V: Value + 'a>(
    digits: impl IntoIterator<Item = &'a Digit<V>>,
) -> Option<Digit<V>> {
    let mut digits = digits.into_iter();
    let first = digits.next()?.clone();
    Some(digits.fold(first, |sum, digit| sum.plus(digit)))
}
