//! The circuits without a key, on numbers: to count their look-ups, and to test them.

use super::{
    digit::{Digit, Value},
    lookup::Circuit,
    table::{EIGHTHS, ENTRIES, Table},
};

/// A number in clear: eighths of a step, 0 to 255.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clear(i64);

/// A rotation in clear: whole steps that it is turned by, and the coefficient in eighths of a step.
#[derive(Clone, Copy, Debug)]
pub struct ClearRotation {
    steps: i64,
    eighths: i64,
}

impl Value for Clear {
    type Key = ();
    type Rotation = ClearRotation;

    fn add(&mut self, other: &Self) {
        self.0 = (self.0 + other.0).rem_euclid(EIGHTHS);
    }

    fn subtract(&mut self, other: &Self) {
        self.0 = (self.0 - other.0).rem_euclid(EIGHTHS);
    }

    fn add_eighths(&mut self, eighths: i64) {
        self.0 = (self.0 + eighths).rem_euclid(EIGHTHS);
    }

    fn multiply(&mut self, factor: u32) {
        self.0 = (self.0 * i64::from(factor)).rem_euclid(EIGHTHS);
    }

    fn negate(&mut self) {
        self.0 = (-self.0).rem_euclid(EIGHTHS);
    }

    /// # Panics
    /// If the author of a circuit looks up between two entries.
    fn look_up(&self, (): &(), table: &Table) -> Self {
        self.entry(table, 0)
    }

    fn look_up_two(&self, (): &(), table: &Table, distance: usize) -> [Self; 2] {
        [0, distance as i64].map(|offset| self.entry(table, offset))
    }

    /// # Panics
    /// If the author of a circuit rotates by a place between two entries.
    fn rotate(&self, (): &(), halves: i64) -> ClearRotation {
        assert!(self.0 % 8 == 0, "a rotation between two entries");
        ClearRotation { steps: self.0 / 8, eighths: 4 * halves }
    }

    fn read(rotation: &ClearRotation, entries: usize) -> Self {
        let turned = (rotation.steps + entries as i64).rem_euclid(2 * ENTRIES as i64);
        let sign = if turned < ENTRIES as i64 { 1 } else { -1 };
        Self((sign * rotation.eighths).rem_euclid(EIGHTHS))
    }
}

impl Clear {
    fn entry(self, table: &Table, offset: i64) -> Self {
        assert!(self.0 % 8 == 0, "a look-up between two entries");
        Self(table.at(self.0 / 8 + offset).rem_euclid(EIGHTHS))
    }
}

impl Digit<Clear> {
    /// Whole steps, with the noise that a fresh ciphertext has.
    #[must_use]
    pub const fn clear(steps: u8) -> Self {
        Self::fresh(Clear(8 * steps as i64))
    }

    /// Whole steps, 0 to 31.
    #[must_use]
    pub const fn steps(&self) -> i64 {
        self.value().0 / 8
    }
}

impl Circuit<'static, Clear> {
    /// Runs on numbers.
    #[must_use]
    pub const fn in_clear() -> Self {
        Self::new(&())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "noise 26")]
    fn too_much_noise_is_refused() {
        let digit = Digit::clear(1).times(5).plus(&Digit::clear(1));
        let _ = Circuit::in_clear().refresh(&digit);
    }
}
