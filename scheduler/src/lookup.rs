//! Digits, and the look-ups that everything else is made of.
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
//! # Noise
//! Every digit carries the variance of its noise in units of what one bootstrap leaves, and a
//! look-up refuses more than [`MAX_VARIANCE`], which is what the parameters' failure probability
//! was computed for. The circuits are fixed before any ciphertext is seen, so running one in clear
//! runs this check for all inputs of the same shape.
//!
//! # In clear
//! Without a key the same circuit runs on clear digits by the same tables: tests compare it with
//! the cleartext twin on many inputs, and the [`Ledger`] of a plan is counted in this way.

use tfhe::{
    core_crypto::prelude::{
        Cleartext, Plaintext, lwe_ciphertext_add_assign, lwe_ciphertext_cleartext_mul_assign,
        lwe_ciphertext_opposite_assign, lwe_ciphertext_plaintext_add_assign,
        lwe_ciphertext_sub_assign,
    },
    shortint::{
        self, Ciphertext,
        ciphertext::{Degree, MaxDegree},
        server_key::{LookupTableOwned, ManyLookupTableOwned},
    },
};

use crate::{
    key::EvaluationKey,
    ledger::{Counter, Ledger},
};

/// Entries of a table: 4 bits.
const ENTRIES: usize = 16;
/// An eighth of a message step: 1/8 of 1/32 of the torus.
const EIGHTH_STEP: u32 = 56;
/// Eighths of a step in the torus.
const EIGHTHS: i64 = 256;
/// Largest variance that may enter a look-up: linear combinations of 2-norm 5.
pub(crate) const MAX_VARIANCE: u32 = 25;

#[derive(Clone)]
enum Value {
    Encrypted(Ciphertext),
    /// Eighths of a step, 0 to 255.
    Clear(i64),
}

/// A digit, encrypted unless the circuit runs in clear.
#[derive(Clone)]
pub(crate) struct Digit {
    value: Value,
    /// In units of the variance that a bootstrap leaves.
    variance: u32,
    /// Look-ups behind it.
    depth: u32,
}

impl Digit {
    /// A ciphertext fresh from a bootstrap.
    pub(crate) const fn fresh(ciphertext: Ciphertext) -> Self {
        Self { value: Value::Encrypted(ciphertext), variance: 1, depth: 0 }
    }

    /// A digit of a circuit that runs in clear, with the noise that it would have if fresh.
    pub(crate) const fn clear(value: u8) -> Self {
        Self { value: Value::Clear(8 * value as i64), variance: 1, depth: 0 }
    }

    /// `None` in clear.
    pub(crate) const fn ciphertext(&self) -> Option<&Ciphertext> {
        match &self.value {
            Value::Encrypted(ciphertext) => Some(ciphertext),
            Value::Clear(_) => None,
        }
    }

    /// Whole steps, 0 to 31; `None` if encrypted.
    #[cfg(test)]
    pub(crate) const fn in_clear(&self) -> Option<i64> {
        match &self.value {
            Value::Encrypted(_) => None,
            Value::Clear(eighths) => Some(*eighths / 8),
        }
    }

    pub(crate) const fn variance(&self) -> u32 {
        self.variance
    }

    fn combine(mut self, other: &Self, sign: i64) -> Self {
        match (&mut self.value, &other.value) {
            (Value::Encrypted(a), Value::Encrypted(b)) if sign > 0 => {
                lwe_ciphertext_add_assign(&mut a.ct, &b.ct);
            }
            (Value::Encrypted(a), Value::Encrypted(b)) => {
                lwe_ciphertext_sub_assign(&mut a.ct, &b.ct);
            }
            (Value::Clear(a), Value::Clear(b)) => *a = (*a + sign * *b).rem_euclid(EIGHTHS),
            // A circuit has a key or it has none.
            (Value::Clear(_), Value::Encrypted(_)) | (Value::Encrypted(_), Value::Clear(_)) => {
                unreachable!("a clear digit meets an encrypted one")
            }
        }
        self.variance += other.variance;
        self.depth = self.depth.max(other.depth);
        self
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        self.clone().combine(other, 1)
    }

    pub(crate) fn minus(&self, other: &Self) -> Self {
        self.clone().combine(other, -1)
    }

    pub(crate) fn plus_constant(&self, constant: i64) -> Self {
        self.plus_eighths(8 * constant)
    }

    /// Adds `halves` half steps.
    pub(crate) fn plus_halves(&self, halves: i64) -> Self {
        self.plus_eighths(4 * halves)
    }

    /// Adds `eighths` eighths of a step.
    pub(crate) fn plus_eighths(&self, eighths: i64) -> Self {
        let mut sum = self.clone();
        match &mut sum.value {
            Value::Encrypted(ciphertext) => {
                let plaintext = Plaintext((eighths as u64).wrapping_mul(1 << EIGHTH_STEP));
                lwe_ciphertext_plaintext_add_assign(&mut ciphertext.ct, plaintext);
            }
            Value::Clear(value) => *value = (*value + eighths).rem_euclid(EIGHTHS),
        }
        sum
    }

    pub(crate) fn times(&self, factor: u32) -> Self {
        let mut product = self.clone();
        match &mut product.value {
            Value::Encrypted(ciphertext) => {
                let clear = Cleartext(u64::from(factor));
                lwe_ciphertext_cleartext_mul_assign(&mut ciphertext.ct, clear);
            }
            Value::Clear(value) => *value = (*value * i64::from(factor)).rem_euclid(EIGHTHS),
        }
        product.variance *= factor * factor;
        product
    }

    /// `constant - self`.
    pub(crate) fn subtracted_from(&self, constant: i64) -> Self {
        let mut negated = self.clone();
        match &mut negated.value {
            Value::Encrypted(ciphertext) => lwe_ciphertext_opposite_assign(&mut ciphertext.ct),
            Value::Clear(value) => *value = (-*value).rem_euclid(EIGHTHS),
        }
        negated.plus_constant(constant)
    }
}

/// The sum, `None` of nothing.
pub(crate) fn sum<'a>(digits: impl IntoIterator<Item = &'a Digit>) -> Option<Digit> {
    let mut digits = digits.into_iter();
    let first = digits.next()?.clone();
    Some(digits.fold(first, |sum, digit| sum.plus(digit)))
}

/// What a look-up gives for 0 to 15, in eighths of a step; for -16 to -1 it gives the negation of
/// what it gives 16 further up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table([i64; ENTRIES]);

impl Table {
    /// `f(x)` whole steps for x.
    pub(crate) fn new(f: impl Fn(i64) -> i64) -> Self {
        Self::halves(|x| 2 * f(x))
    }

    /// `f(x)` half steps for x.
    pub(crate) fn halves(f: impl Fn(i64) -> i64) -> Self {
        Self::eighths(|x| 4 * f(x))
    }

    /// `f(x)` eighths of a step for x.
    pub(crate) fn eighths(f: impl Fn(i64) -> i64) -> Self {
        Self(core::array::from_fn(|x| f(x as i64)))
    }

    /// `value` whole steps at each point, which is taken modulo 32; 0 where there is none.
    ///
    /// # Panics
    /// If the table cannot be negacyclic: an error of the circuit's author, who calls this with
    /// constants.
    pub(crate) fn of_points(points: impl IntoIterator<Item = (i64, i64)>) -> Self {
        Self::of_points_in_eighths(points.into_iter().map(|(x, value)| (x, 8 * value)))
    }

    /// The same with values in eighths of a step.
    ///
    /// # Panics
    /// As of [`Self::of_points`].
    pub(crate) fn of_points_in_eighths(points: impl IntoIterator<Item = (i64, i64)>) -> Self {
        let mut entries = [None; ENTRIES];
        for (x, value) in points {
            let x = x.rem_euclid(32);
            let (entry, eighths) = if x < 16 { (x, value) } else { (x - 16, -value) };
            let eighths = eighths.rem_euclid(EIGHTHS);
            let slot = &mut entries[entry as usize];
            assert!(slot.is_none_or(|other| other == eighths), "two values at point {x}");
            *slot = Some(eighths);
        }
        Self(entries.map(Option::unwrap_or_default))
    }

    fn at(&self, steps: i64) -> i64 {
        let steps = steps.rem_euclid(32);
        let entry = self.0[(steps % 16) as usize];
        if steps < 16 { entry } else { -entry }
    }
}

/// One run of a circuit: the key it runs under, and what it has cost so far.
pub(crate) struct Circuit<'a> {
    /// Absent in clear.
    key: Option<&'a EvaluationKey>,
    counter: Counter,
}

impl<'a> Circuit<'a> {
    pub(crate) fn new(key: &'a EvaluationKey) -> Self {
        Self { key: Some(key), counter: Counter::new() }
    }

    /// Runs on digits in clear.
    pub(crate) fn in_clear() -> Self {
        Self { key: None, counter: Counter::new() }
    }

    pub(crate) fn ledger(&self) -> Ledger {
        self.counter.ledger()
    }

    /// Notes that `digit` will be squashed.
    ///
    /// # Panics
    /// As of [`Self::look_up`].
    pub(crate) fn output(&self, digit: &Digit) {
        assert!(digit.variance <= MAX_VARIANCE, "noise {} enters a squashing", digit.variance);
        self.counter.record_output(digit.variance);
    }

    /// Key switch and bootstrap: the fresh digit that `table` gives for `digit`.
    ///
    /// # Panics
    /// If the circuit's author lets more than [`MAX_VARIANCE`] in.
    pub(crate) fn look_up(&self, digit: &Digit, table: &Table) -> Digit {
        let depth = self.record(digit);
        let value = match (&digit.value, self.key) {
            (Value::Encrypted(ciphertext), Some(key)) => {
                let server_key = key.server_key();
                let accumulator = accumulator(server_key, table);
                Value::Encrypted(server_key.apply_lookup_table(ciphertext, &accumulator))
            }
            (Value::Clear(eighths), _) => clear(*eighths, table, 0),
            (Value::Encrypted(_), None) => unreachable!("an encrypted digit in a clear circuit"),
        };
        Digit { value, variance: 1, depth }
    }

    /// Two functions of one digit in one bootstrap: the first is what `table` gives at the digit,
    /// the second what it gives 8 further up.
    pub(crate) fn look_up_two(&self, digit: &Digit, table: &Table) -> [Digit; 2] {
        self.look_up_two_apart(8, digit, table)
    }

    /// The same with the second function `distance` entries further up.
    pub(crate) fn look_up_two_apart(
        &self,
        distance: usize,
        digit: &Digit,
        table: &Table,
    ) -> [Digit; 2] {
        let depth = self.record(digit);
        let values = match (&digit.value, self.key) {
            (Value::Encrypted(ciphertext), Some(key)) => {
                let server_key = key.server_key();
                let LookupTableOwned { acc, degree } = accumulator(server_key, table);
                let many = ManyLookupTableOwned {
                    sample_extraction_stride: acc.polynomial_size().0 / ENTRIES * distance,
                    acc,
                    input_max_degree: MaxDegree::new(ENTRIES as u64 - 1),
                    per_function_output_degree: vec![degree; 2],
                };
                let outputs = server_key.apply_many_lookup_table(ciphertext, &many);
                let outputs: [Ciphertext; 2] = match outputs.try_into() {
                    Ok(outputs) => outputs,
                    Err(_) => unreachable!("tfhe gives one output for each function"),
                };
                outputs.map(Value::Encrypted)
            }
            (Value::Clear(eighths), _) => {
                [0, distance as i64].map(|offset| clear(*eighths, table, offset))
            }
            (Value::Encrypted(_), None) => unreachable!("an encrypted digit in a clear circuit"),
        };
        values.map(|value| Digit { value, variance: 1, depth })
    }

    fn record(&self, digit: &Digit) -> u32 {
        assert!(digit.variance <= MAX_VARIANCE, "noise {} enters a look-up", digit.variance);
        self.counter.record(digit.variance, digit.depth + 1);
        digit.depth + 1
    }

    /// The same digit of 4 bits with fresh noise.
    pub(crate) fn refresh(&self, digit: &Digit) -> Digit {
        self.look_up(digit, &Table::new(|x| x))
    }

    /// `digit`, refreshed if its variance is above `limit`.
    pub(crate) fn refresh_above(&self, limit: u32, digit: Digit) -> Digit {
        if digit.variance > limit { self.refresh(&digit) } else { digit }
    }

    /// 1 if the difference is below 0, else 0; it must be -16 to 15.
    pub(crate) fn is_negative(&self, difference: &Digit) -> Digit {
        self.scaled_if_negative(difference, 1)
    }

    /// `scale` if the difference is below 0, else 0; it must be -16 to 15.
    pub(crate) fn scaled_if_negative(&self, difference: &Digit, scale: i64) -> Digit {
        self.look_up(difference, &Table::halves(|_| -scale)).plus_halves(scale)
    }

    /// 1 if at least one of up to 15 flags is set, times `scale`: `sum` is their sum, 0 to 15.
    pub(crate) fn any(&self, sum: &Digit, scale: i64) -> Digit {
        self.look_up(sum, &Table::new(|x| if x > 0 { scale } else { 0 }))
    }
}

fn clear(eighths: i64, table: &Table, offset: i64) -> Value {
    assert!(eighths % 8 == 0, "a look-up between two entries");
    Value::Clear(table.at(eighths / 8 + offset).rem_euclid(EIGHTHS))
}

fn accumulator(server_key: &shortint::ServerKey, table: &Table) -> LookupTableOwned {
    let mut accumulator = server_key.generate_lookup_table(|_| 0);
    accumulator.degree = Degree::new(ENTRIES as u64 - 1);
    let mut body = accumulator.acc.get_mut_body();
    let body = body.as_mut();
    let width = body.len() / ENTRIES;
    for (entry, eighths) in body.chunks_mut(width).zip(&table.0) {
        entry.fill((*eighths as u64).wrapping_mul(1 << EIGHTH_STEP));
    }
    // An entry is centred on its message: its lower half lies below, and for 0 that is past
    // the end of the polynomial, where the sign turns.
    let (first, _) = body.split_at_mut(width / 2);
    first.iter_mut().for_each(|word| *word = word.wrapping_neg());
    body.rotate_left(width / 2);
    accumulator
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "two values")]
    fn a_table_that_is_not_negacyclic_is_refused() {
        Table::of_points([(3, 1), (19, 1)]);
    }

    #[test]
    #[should_panic(expected = "noise 26")]
    fn too_much_noise_is_refused() {
        let digit = Digit::clear(1).times(5).plus(&Digit::clear(1));
        Circuit::in_clear().refresh(&digit);
    }

    /// Every entry, both signs, one and two outputs: encrypted as in clear.
    #[test]
    fn look_ups_are_negacyclic_and_read_where_they_should() {
        let (clear, key) = crate::tests::keys();
        let list = key
            .public_key()
            .encrypt_iter_with_modulus_seeded((0..16).map(|x| x as u64), 1 << 4, &[1; 16])
            .unwrap();
        let casting_mode =
            shortint::parameters::ShortintCompactCiphertextListCastingMode::CastIfNecessary {
                casting_key: key.casting_key(),
                functions: None,
            };
        let encrypted: Vec<_> =
            list.expand(casting_mode).unwrap().into_iter().map(Digit::fresh).collect();
        let table =
            Table::new(|x| [3, 0, 7, 1, 14, 15, 2, 9, 8, 0, 5, 6, 4, 13, 12, 11][x as usize]);
        let (fhe, twin) = (Circuit::new(&key), Circuit::in_clear());
        for x in 0..16u8 {
            for shift in [0, -16, -5] {
                let inputs = [encrypted[usize::from(x)].clone(), Digit::clear(x)];
                let [e, c] = inputs.map(|digit| digit.plus_constant(shift));
                let one = (fhe.look_up(&e, &table), twin.look_up(&c, &table));
                let two = (fhe.look_up_two(&e, &table), twin.look_up_two(&c, &table));
                let pairs = [
                    one,
                    (two.0[0].clone(), two.1[0].clone()),
                    (two.0[1].clone(), two.1[1].clone()),
                ];
                for (encrypted, expected) in pairs {
                    let found = crate::tests::decrypt(&clear, &key, &encrypted);
                    // Squashing is negacyclic too: 16 + x becomes -x.
                    let expected = expected.in_clear().unwrap();
                    let expected = if expected < 16 { expected } else { (16 - expected) & 31 };
                    assert_eq!(found, expected, "{x} {shift}");
                }
            }
        }
    }
}
