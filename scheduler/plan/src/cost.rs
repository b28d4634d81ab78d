//! What a circuit costs and how likely it fails: its look-ups, by the noise that enters them; and how many
//! replicas a slot may list for that.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use veil_protocol_spec::scheduling::Manifest;

/// Largest variance that may enter a look-up, in those of bootstraps: linear combinations of 2-norm
/// 5, for which the parameters' failure probability is computed.
pub const MAX_VARIANCE: u32 = 25;

/// Most look-ups that a slot's circuit takes: 16 minutes of two cores, 2 of sixteen.
pub const MAX_LOOK_UPS: u64 = 1 << 17;
/// Look-ups for one replica and one worker, in the costliest plan of clear requests. A test of
/// [`Plan`](crate::plan::Plan) compares it with what the circuits take.
pub const LOOK_UPS_PER_PAIR: u64 = 32;

/// What opening the outcome of a replica costs, in pairs: a member squashes up to three digits, each of which takes
/// about as long as 16 look-ups; and replicas are opened one after the other, with a round trip for each, in
/// which nothing is evaluated. 409 replicas of one candidate each, a second for each, take less than the void timer.
const PAIRS_OF_OPENING: usize = 9;

const BINS: usize = MAX_VARIANCE as usize + 1;

/// The look-ups of one run of a circuit. They depend on the public inputs alone, so
/// [`Plan::cost`](crate::plan::Plan::cost) gives them without a key.
///
/// A look-up is one key switch and one programmable bootstrap, whatever the number of its outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    by_variance: [u64; BINS],
    squashed: [u64; BINS],
    depth: u32,
}

impl Default for Cost {
    fn default() -> Self {
        Self { by_variance: [0; BINS], squashed: [0; BINS], depth: 0 }
    }
}

impl Cost {
    /// Number of look-ups.
    #[must_use]
    pub fn look_ups(&self) -> u64 {
        self.by_variance.iter().sum()
    }

    /// Most look-ups one after the other: the latency with enough cores, in bootstraps.
    #[must_use]
    pub const fn depth(&self) -> u32 {
        self.depth
    }

    /// (v, number of look-ups whose input has the variance of v bootstraps), by v.
    pub fn by_variance(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        (0..).zip(self.by_variance).filter(|(_, count)| *count > 0)
    }

    /// (v, number of output digits whose noise has the variance of v bootstraps), by v. Squashing
    /// them begins with the key switch and the rounding of a look-up, and fails as one.
    pub fn squashed_by_variance(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        (0..).zip(self.squashed).filter(|(_, count)| *count > 0)
    }

    /// The largest variance that enters a look-up or a squashing, in those of bootstraps.
    #[must_use]
    pub fn largest_variance(&self) -> u32 {
        let all = self.by_variance().chain(self.squashed_by_variance());
        all.map(|(variance, _)| variance).max().unwrap_or(0)
    }

    /// log2 of the probability that any look-up of the run, or the squashing of any output, reads a
    /// wrong entry, by the union bound. `look_up` gives log2 of that for one look-up whose input
    /// has the variance of v bootstraps: `ParameterSet::log2_p_fail_at` of the key generation
    /// crate. Minus infinity without look-ups.
    #[must_use]
    pub fn log2_failure(&self, look_up: impl Fn(f64) -> f64) -> f64 {
        let all = self.by_variance().chain(self.squashed_by_variance());
        let all: Vec<_> = all.map(|(v, count)| (count as f64).log2() + look_up(v.into())).collect();
        let largest = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if largest == f64::NEG_INFINITY {
            return largest;
        }
        largest + all.iter().map(|log2| (log2 - largest).exp2()).sum::<f64>().log2()
    }
}

/// A [`Cost`] that several threads write.
pub(crate) struct Counter {
    by_variance: [AtomicU64; BINS],
    squashed: [AtomicU64; BINS],
    depth: AtomicU32,
}

impl Counter {
    pub(crate) const fn new() -> Self {
        Self {
            by_variance: [const { AtomicU64::new(0) }; BINS],
            squashed: [const { AtomicU64::new(0) }; BINS],
            depth: AtomicU32::new(0),
        }
    }

    pub(crate) fn record_output(&self, variance: u32) {
        if let Some(bin) = self.squashed.get(variance as usize) {
            bin.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn record(&self, variance: u32, depth: u32) {
        if let Some(bin) = self.by_variance.get(variance as usize) {
            bin.fetch_add(1, Ordering::Relaxed);
        }
        self.depth.fetch_max(depth, Ordering::Relaxed);
    }

    pub(crate) fn cost(&self) -> Cost {
        let load =
            |bins: &[AtomicU64; BINS]| bins.each_ref().map(|bin| bin.load(Ordering::Relaxed));
        Cost {
            by_variance: load(&self.by_variance),
            squashed: load(&self.squashed),
            depth: self.depth.load(Ordering::Relaxed),
        }
    }
}

/// Most pairs of a replica and a candidate that is asked for it in one slot, with [what is opened](pairs_of) counted
/// in, so that its circuit takes at most [`MAX_LOOK_UPS`]. A slot with one replica may have more. `voids` is the number of slots in a row, up to the last
/// one, that ended void: each of them halves it, so that a committee whose machines are too slow for the whole comes
/// to an end all the same.
#[must_use]
pub fn most_pairs(voids: u64) -> usize {
    let pairs = (MAX_LOOK_UPS / LOOK_UPS_PER_PAIR) as usize;
    pairs.checked_shr(u32::try_from(voids).unwrap_or(u32::MAX)).unwrap_or(0)
}

/// The pairs of a replica that asks so many candidates, and its opening's.
#[must_use]
pub const fn pairs_of(asked: usize) -> usize {
    if asked == 0 { 0 } else { asked + PAIRS_OF_OPENING }
}

/// Those of a manifest's pending replicas.
#[must_use]
pub fn pairs(manifest: &Manifest) -> usize {
    manifest.pending.iter().map(|pending| pairs_of(manifest.asked(pending))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_void_slot_halves_what_the_next_one_asks() {
        assert_eq!([0, 1, 6, 12].map(most_pairs), [4096, 2048, 64, 1]);
        assert_eq!([13, 64, u64::MAX].map(most_pairs), [0; 3]);
    }

    #[test]
    fn the_union_bound_adds_probabilities() {
        let counter = Counter::new();
        for _ in 0..4 {
            counter.record(2, 1);
        }
        counter.record(25, 3);
        let cost = counter.cost();
        assert_eq!((cost.look_ups(), cost.depth()), (5, 3));
        assert_eq!(cost.by_variance().collect::<Vec<_>>(), [(2, 4), (25, 1)]);
        // 4 * 2^-10 + 2^-8 = 2^-7.
        let log2 = cost.log2_failure(|v| if v < 3.0 { -10.0 } else { -8.0 });
        assert!((log2 + 7.0).abs() < 1e-9, "{log2}");
        assert_eq!(Cost::default().log2_failure(|_| -1.0), f64::NEG_INFINITY);
    }
}
