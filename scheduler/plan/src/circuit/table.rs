//! What a look-up gives.

/// Entries of a table: 4 bits.
pub const ENTRIES: usize = 16;
/// Eighths of a step in the torus.
pub const EIGHTHS: i64 = 256;

/// What a look-up gives for 0 to 15, in eighths of a step; for -16 to -1 it gives the negation of
/// what it gives 16 further up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table([i64; ENTRIES]);

impl Table {
    /// `f(x)` whole steps for x.
    #[must_use]
    pub fn new(f: impl Fn(i64) -> i64) -> Self {
        Self::halves(|x| 2 * f(x))
    }

    /// `f(x)` half steps for x.
    #[must_use]
    pub fn halves(f: impl Fn(i64) -> i64) -> Self {
        Self::eighths(|x| 4 * f(x))
    }

    /// `f(x)` eighths of a step for x.
    #[must_use]
    pub fn eighths(f: impl Fn(i64) -> i64) -> Self {
        Self(core::array::from_fn(|x| f(x as i64)))
    }

    /// `value` whole steps at each point, which is taken modulo 32; 0 where there is none.
    ///
    /// # Panics
    /// If the table cannot be negacyclic: an error of the circuit's author, who calls this with
    /// constants.
    #[must_use]
    pub fn of_points(points: impl IntoIterator<Item = (i64, i64)>) -> Self {
        Self::of_points_in_eighths(points.into_iter().map(|(x, value)| (x, 8 * value)))
    }

    /// The same with values in eighths of a step.
    ///
    /// # Panics
    /// As of [`Self::of_points`].
    #[must_use]
    pub fn of_points_in_eighths(points: impl IntoIterator<Item = (i64, i64)>) -> Self {
        let mut entries = [None; ENTRIES];
        for (x, value) in points {
            let x = x.rem_euclid(32);
            let (entry, eighths) = if x < 16 { (x, value) } else { (x - 16, -value) };
            let eighths = eighths.rem_euclid(EIGHTHS);
            let value = &mut entries[entry as usize];
            assert!(value.is_none_or(|other| other == eighths), "two values at point {x}");
            *value = Some(eighths);
        }
        Self(entries.map(Option::unwrap_or_default))
    }

    /// What it gives for 0 to 15, in eighths of a step.
    #[must_use]
    pub const fn entries(&self) -> &[i64; ENTRIES] {
        &self.0
    }

    /// What it gives at a point, which is taken modulo 32, in eighths of a step.
    #[must_use]
    pub const fn at(&self, steps: i64) -> i64 {
        let steps = steps.rem_euclid(32);
        let entry = self.0[(steps % 16) as usize];
        if steps < 16 { entry } else { -entry }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "two values")]
    fn a_table_that_is_not_negacyclic_is_refused() {
        let _ = Table::of_points([(3, 1), (19, 1)]);
    }
}
