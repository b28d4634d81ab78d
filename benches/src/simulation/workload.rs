//! What arrives at a cluster. Synthetic arrivals: many small and short jobs, few large and long ones, more by day than by
//! night.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::Amounts;

/// Seconds of a day.
const DAY: u64 = 86_400;
/// Cores and GiB of memory, GiB of disk and GPUs of a machine, and how many of eight are such.
const MIX: [(u64, u64, u64, u64, usize); 5] = [
    (8, 32, 400, 0, 3),
    (16, 64, 800, 0, 2),
    (32, 128, 1_500, 0, 1),
    (64, 512, 3_000, 0, 1),
    (48, 384, 2_000, 4, 1),
];
/// Exponents of the bounded Pareto distributions of sizes and durations.
const SIZE_TAIL: f64 = 0.8;
const DURATION_TAIL: f64 = 0.7;
/// Millicores of a job.
const MILLICORES: (f64, f64) = (100.0, 16_000.0);
/// Seconds that a job runs.
const SECONDS: (f64, f64) = (600.0, 43_200.0);
/// GiB of memory for a core, uniform in the logarithm.
const GIB_PER_CORE: (f64, f64) = (1.0, 10.0);
/// One job of so many asks for GPUs.
const GPU_JOBS: u32 = 40;
/// Largest swing of the arrival rate around its mean.
const SWING: f64 = 0.5;

/// One job of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Seconds since the start, which is midnight.
    pub at: u64,
    /// How long it runs once placed.
    pub seconds: u64,
    /// What it takes of a machine.
    pub request: Amounts,
}

/// A cluster and what arrives there.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The capacity of each machine.
    pub machines: Vec<Amounts>,
    /// Jobs in the order of their arrival.
    pub arrivals: Vec<Arrival>,
    /// Seconds from one placement to the next.
    pub slot_seconds: u64,
    /// Jobs placed in one slot at most.
    pub batch: usize,
    /// Seconds after which a waiting job is turned away.
    pub patience: u64,
    /// Seconds that are simulated.
    pub seconds: u64,
}

impl Workload {
    /// A day on `machines` machines of mixed sizes. `load` is what arrives over the day, as a
    /// multiple of what the cluster could do, by whichever of CPU and memory is asked for more. The
    /// same seed gives the same day.
    #[must_use]
    pub fn synthetic(seed: u64, machines: usize, load: f64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let cycle: Vec<_> = MIX
            .iter()
            .flat_map(|(cores, memory, disk, gpus, count)| {
                let machine = Amounts([cores * 1000, memory << 10, *disk, *gpus]);
                std::iter::repeat_n(machine, *count)
            })
            .collect();
        // A stride coprime to the cycle, so that small clusters are mixed too.
        let machines: Vec<_> = (0..machines).map(|index| cycle[index * 3 % cycle.len()]).collect();
        let total = machines.iter().fold(Amounts::default(), |sum, machine| sum.with(machine));

        let mut arrivals = Vec::new();
        let mut offered = [0.0; 2];
        while offered.iter().fold(0.0, |most: f64, share| most.max(*share)) < load {
            let arrival = arrival(&mut rng, total.0[3] > 0);
            let shares = arrival.request.shares(&total);
            let days = arrival.seconds as f64 / DAY as f64;
            offered.iter_mut().zip(shares).for_each(|(sum, share)| *sum += share * days);
            arrivals.push(arrival);
        }
        arrivals.sort_by_key(|arrival| arrival.at);
        let day = Self::placed_by_slots(machines, arrivals, DAY);
        Self { seconds: DAY, ..day }
    }

    /// Slots of half a minute, in which those wait that came up to `last`.
    pub(super) const fn placed_by_slots(
        machines: Vec<Amounts>,
        arrivals: Vec<Arrival>,
        last: u64,
    ) -> Self {
        let (slot_seconds, batch, patience) = (30, 32, 600);
        let seconds = last + patience + 2 * slot_seconds;
        Self { machines, arrivals, slot_seconds, batch, patience, seconds }
    }

    /// Slots that are simulated.
    #[must_use]
    pub const fn slots(&self) -> u64 {
        self.seconds / self.slot_seconds
    }
}

fn arrival(rng: &mut ChaCha20Rng, with_gpus: bool) -> Arrival {
    let millicores = pareto(rng, SIZE_TAIL, MILLICORES);
    let (least, most) = GIB_PER_CORE;
    let gib_per_core = least * (most / least).powf(rng.r#gen());
    let gpus = if with_gpus && rng.gen_ratio(1, GPU_JOBS) { rng.gen_range(1..=2) } else { 0 };
    let disk = rng.gen_range(0..=20);
    let memory = (millicores / 1000.0 * gib_per_core * 1024.0).ceil().max(16.0);
    Arrival {
        at: time_of_day(rng),
        seconds: pareto(rng, DURATION_TAIL, SECONDS) as u64,
        request: Amounts([millicores as u64, memory as u64, disk, gpus]),
    }
}

/// By rejection, from a rate that swings once around its mean, lowest at midnight.
fn time_of_day(rng: &mut ChaCha20Rng) -> u64 {
    loop {
        let at = rng.gen_range(0..DAY);
        let angle = core::f64::consts::TAU * at as f64 / DAY as f64;
        let rate = (1.0 - SWING * angle.cos()) / (1.0 + SWING);
        if rng.gen_bool(rate) {
            return at;
        }
    }
}

/// Bounded Pareto, by inversion.
fn pareto(rng: &mut ChaCha20Rng, tail: f64, (least, most): (f64, f64)) -> f64 {
    let u: f64 = rng.r#gen();
    least * (1.0 - u * (1.0 - (least / most).powf(tail))).powf(-1.0 / tail)
}
