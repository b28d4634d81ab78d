//! A worker's list as this circuit uses it.

use veil_protocol_spec::scheduling::{Reading, Share};

use crate::{
    circuit::{
        digit::{Digit, Value},
        in_clear::Clear,
        lookup::Circuit,
        rotated::Rotated,
        table::Table,
    },
    rules::RESOURCES,
};

/// What comparisons of a resource's digits are worth: of the first two, which almost every job asks for, so
/// that one look-up reads both.
pub(crate) const SCALES: [i64; RESOURCES] = [1, 4, 1, 1];

/// What is free of one resource.
#[derive(Clone)]
struct Free<V: Value> {
    /// Low and high digit.
    digits: [Digit<V>; 2],
    rotated: [Rotated<V>; 2],
}

/// What a worker has reported, as far as somebody asks for it.
#[derive(Clone)]
pub struct Reported<V: Value> {
    free: [Option<Free<V>>; RESOURCES],
    share: Option<Digit<V>>,
    /// Latency class + 4 * price class; absent if no job looks at it.
    pub classes: Option<Digit<V>>,
    /// Own priority, 0 to 3; absent if no job looks at it.
    pub priority: Option<Digit<V>>,
}

impl<V: Value> Default for Reported<V> {
    fn default() -> Self {
        Self { free: Default::default(), share: None, classes: None, priority: None }
    }
}

impl<V: Value> Reported<V> {
    /// Low and high digit of what is free of a resource; two look-ups.
    pub fn set_free(&mut self, circuit: &Circuit<'_, V>, resource: usize, digits: [Digit<V>; 2]) {
        let scale = SCALES[resource];
        let rotate = |digit: &Digit<V>| circuit.rotate(digit, scale).at_hand();
        let (low, high) = rayon::join(|| rotate(&digits[0]), || rotate(&digits[1]));
        self.free[resource] = Some(Free { digits, rotated: [low, high] });
    }

    /// The share digit, clamped here to what a share can be; one look-up.
    pub fn set_share(&mut self, circuit: &Circuit<'_, V>, digit: &Digit<V>) {
        let most = i64::from(Share::MAX);
        let clamped = circuit.look_up(digit, &Table::new(|x| x.min(most)));
        self.share = Some(Digit::fresh(clamped.value().clone()));
    }

    /// Whether [`Self::set_free`] was called for a resource.
    #[must_use]
    pub const fn has(&self, resource: usize) -> bool {
        self.free[resource].is_some()
    }

    fn of(&self, resource: usize) -> &Free<V> {
        self.free[resource].as_ref().expect("every requested resource is expanded")
    }

    pub(super) fn digits(&self, resource: usize) -> &[Digit<V>; 2] {
        &self.of(resource).digits
    }

    pub(super) fn rotated(&self, resource: usize) -> &[Rotated<V>; 2] {
        &self.of(resource).rotated
    }

    pub(super) fn share(&self) -> &Digit<V> {
        self.share.as_ref().expect("the share is expanded with the list")
    }

    pub(super) fn classes(&self) -> &Digit<V> {
        self.classes.as_ref().expect("classes are expanded if a job looks at them")
    }

    pub(super) fn priority(&self) -> &Digit<V> {
        self.priority.as_ref().expect("priorities are expanded if a job looks at them")
    }
}

impl Reported<Clear> {
    /// Of a reading in clear, by the look-ups that its expansion takes.
    #[must_use]
    pub fn in_clear(circuit: &Circuit<'_, Clear>, reading: &Reading) -> Self {
        let mut reported = Self::default();
        for (resource, units) in reading.free.to_array().into_iter().enumerate() {
            let digits = [Digit::clear(units & 0xf), Digit::clear(units >> 4)];
            reported.set_free(circuit, resource, digits);
        }
        reported.set_share(circuit, &Digit::clear(reading.share.get()));
        reported.classes = Some(Digit::clear(reading.latency.get() + 4 * reading.price.get()));
        reported.priority = Some(Digit::clear(reading.priority.get()));
        reported
    }
}
