//! One digit compared with all public numbers.

use super::{
    digit::{Digit, Value},
    table::ENTRIES,
};

/// A digit by which a constant polynomial was rotated. Each comparison that is read from it has the noise
/// of one bootstrap; they are not added up but by [`Self::below_both`].
#[derive(Clone)]
pub struct Rotated<V: Value> {
    rotation: V::Rotation,
    scale: i64,
    depth: u32,
}

impl<V: Value> Rotated<V> {
    pub(super) const fn new(rotation: V::Rotation, scale: i64, depth: u32) -> Self {
        Self { rotation, scale, depth }
    }

    /// The same as if it had been there before the circuit began.
    #[must_use]
    pub fn at_hand(self) -> Self {
        Self { depth: 0, ..self }
    }

    /// The scale if the digit is `threshold` or more, else 0. Their difference must be -16 to 15.
    #[must_use]
    pub fn at_least(&self, threshold: i64) -> Digit<V> {
        self.side(threshold, false)
    }

    /// The scale if the digit is below `threshold`, else 0. Their difference must be -16 to 15.
    #[must_use]
    pub fn below(&self, threshold: i64) -> Digit<V> {
        self.side(threshold, true)
    }

    /// How many of `threshold` and the number after it the digit is below, times the scale.
    ///
    /// # Noise
    /// Samples of one rotation are not independent: the rounding of its decompositions meets a key whose bits
    /// are 0 or 1 and not around 0, so that half of that noise is common to neighbours, less the further apart
    /// they are, and none at half a turn. Two neighbours make at most 2 (1 + 7/16), counted as 3; eight would
    /// make 26 and not 8, so nothing adds them up.
    #[must_use]
    pub fn below_both(&self, threshold: i64) -> Digit<V> {
        let both = self.below(threshold).plus(&self.below(threshold + 1));
        Digit { variance: 3, ..both }
    }

    fn side(&self, threshold: i64, below: bool) -> Digit<V> {
        let entries = ENTRIES as i64;
        let up = (-threshold).rem_euclid(2 * entries);
        let mut value = V::read(&self.rotation, (up % entries) as usize);
        // Half a turn further up is the negation.
        if (up >= entries) != below {
            value.negate();
        }
        Digit { value, variance: 1, depth: self.depth }.plus_halves(self.scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::circuit::lookup::Circuit;

    #[test]
    fn one_rotation_compares_with_every_number() {
        for scale in [1, 4, 9] {
            for x in -8..16i64 {
                let circuit = Circuit::in_clear();
                let digit = Digit::clear(0).plus_constant(x);
                let rotated = circuit.rotate(&digit, scale);
                for threshold in 0..=16i64 {
                    if !(-16..16).contains(&(x - threshold)) {
                        continue;
                    }
                    let expected = if x >= threshold { scale } else { 0 };
                    assert_eq!(rotated.at_least(threshold).steps(), expected, "{x} {threshold}");
                    assert_eq!(rotated.below(threshold).steps(), scale - expected);
                }
                assert_eq!(circuit.cost().look_ups(), 1);
            }
        }
    }
}
