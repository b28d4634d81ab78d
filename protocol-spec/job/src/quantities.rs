//! What a circuit computes on: 8-bit quantities of four resources, and 2-bit classes.
//!
//! # Rules of quantisation
//! | | unit | values | rounding |
//! |---|---|---|---|
//! | free CPU, memory, disk, GPUs | the cluster's [`Scale`] | 0 to 191 | down; 191 for more |
//! | request | the same | 0 to 191 | up; more is refused |
//! | latency | [`LatencyClass`] | 0 to 3 | up, to the slower class |
//! | price | set by the worker's operator | 0 to 3 | |
//! | worker's own priority | set by the worker's operator | 0 to 3 | |
//! | [`Share`] that is free | an eighth of what the worker offers | 0 to 7 | down |
//!
//! Every rounding is towards refusing: what fits in quantities fits in fact. Quantities are exact
//! in the circuit from there on; the type of a GPU is a public label (`gpu=a100`), its count a
//! quantity.
//!
//! # Why a linear unit and a cap
//! A winner's capacity shrinks by the request inside the circuit, which only a linear scale allows
//! exactly. One unit for small and large machines costs less than it seems: a worker with more
//! than 191 units free says 191 and is used all the same, since it reports again after each slot.
//! So the unit follows the jobs, not the machines: the largest job must fit into 191 units, and a
//! small job loses up to one unit to rounding. The cap of 191 instead of 255 leaves the high digit
//! 12 values of 16; the circuit uses the rest to mark workers without room, which saves two
//! bootstraps for each worker and job.
//!
//! # What a placement can leak
//! A worker's whole telemetry is one of 192^4 * 4^3 * 8 values: 39.3 bits, whatever the machine. One
//! placed replica tells at most log2(candidates + 1) bits about all candidates together; a pending
//! one tells that no candidate had room, and a job that only one worker may take tells one bit
//! about that worker, which is what the minimum of candidates in the cluster's policy is against.

use core::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use crate::resources::{CpuUnits, DiskUnits, GpuUnits, MemoryUnits, RequestTooLarge, Resources};

/// A count of the cluster's units, 0 to 191.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(try_from = "u8", into = "u8")]
pub struct Quantity(u8);

/// A number is beyond its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value} is out of range: at most {max}")]
pub struct OutOfRange {
    /// The number.
    pub value: u8,
    /// The largest of the range.
    pub max: u8,
}

impl Quantity {
    /// Largest quantity: 12 * 16 - 1.
    pub const MAX: u8 = 191;

    /// # Errors
    /// [`OutOfRange`] above [`Self::MAX`].
    pub const fn new(value: u8) -> Result<Self, OutOfRange> {
        if value > Self::MAX { Err(OutOfRange { value, max: Self::MAX }) } else { Ok(Self(value)) }
    }

    /// The number of units.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Quantity {
    type Error = OutOfRange;

    fn try_from(value: u8) -> Result<Self, OutOfRange> {
        Self::new(value)
    }
}

impl From<Quantity> for u8 {
    fn from(quantity: Quantity) -> Self {
        quantity.0
    }
}

/// A quantity of each resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantities {
    /// Units of CPU time.
    pub cpu: Quantity,
    /// Units of memory.
    pub memory: Quantity,
    /// Units of disk.
    pub disk: Quantity,
    /// Units of GPUs.
    pub gpu: Quantity,
}

impl Quantities {
    /// In the order of [`Resource::ALL`](crate::resources::Resource::ALL).
    #[must_use]
    pub const fn to_array(self) -> [u8; 4] {
        [self.cpu.0, self.memory.0, self.disk.0, self.gpu.0]
    }

    /// From counts in the order of [`Resource::ALL`](crate::resources::Resource::ALL).
    ///
    /// # Errors
    /// [`OutOfRange`] if one is above [`Quantity::MAX`].
    pub fn from_array([cpu, memory, disk, gpu]: [u8; 4]) -> Result<Self, OutOfRange> {
        Ok(Self {
            cpu: Quantity::new(cpu)?,
            memory: Quantity::new(memory)?,
            disk: Quantity::new(disk)?,
            gpu: Quantity::new(gpu)?,
        })
    }
}

macro_rules! classes {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        #[serde(try_from = "u8", into = "u8")]
        pub struct $name(u8);

        impl $name {
            /// The highest class.
            pub const MAX: u8 = 3;

            /// # Errors
            /// [`OutOfRange`] above [`Self::MAX`].
            pub const fn new(class: u8) -> Result<Self, OutOfRange> {
                if class > Self::MAX {
                    Err(OutOfRange { value: class, max: Self::MAX })
                } else {
                    Ok(Self(class))
                }
            }

            /// The class, 0 to 3.
            #[must_use]
            pub const fn get(self) -> u8 {
                self.0
            }
        }

        impl TryFrom<u8> for $name {
            type Error = OutOfRange;

            fn try_from(class: u8) -> Result<Self, OutOfRange> {
                Self::new(class)
            }
        }

        impl From<$name> for u8 {
            fn from(class: $name) -> Self {
                class.0
            }
        }
    )*};
}

classes! {
    /// How far a worker is from the cluster's peers, by the median round trip: 0 up to 5 ms, 1 up
    /// to 20 ms, 2 up to 100 ms, 3 beyond or unknown.
    LatencyClass;
    /// What a worker's operator takes for it: 0 is cheapest.
    PriceClass;
    /// How much a worker's operator wants it used: 3 is preferred by `priority_round_robin`.
    WorkerPriority;
}

impl LatencyClass {
    /// Upper bounds of classes 0 to 2, in microseconds.
    pub const BOUNDS: [u64; 3] = [5_000, 20_000, 100_000];

    /// The class of a median round trip in microseconds; unknown is the slowest.
    #[must_use]
    pub fn of_micros(round_trip: Option<u64>) -> Self {
        let class = round_trip.and_then(|t| Self::BOUNDS.iter().position(|bound| t <= *bound));
        Self(class.map_or(Self::MAX, |class| class as u8))
    }
}

/// How much of a worker is free, in eighths: of CPU and memory that of which less is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(try_from = "u8", into = "u8")]
pub struct Share(u8);

impl Share {
    /// How many there are.
    pub const LEVELS: u8 = 8;
    /// The highest.
    pub const MAX: u8 = Self::LEVELS - 1;

    /// # Errors
    /// [`OutOfRange`] above [`Self::MAX`].
    pub const fn new(eighths: u8) -> Result<Self, OutOfRange> {
        if eighths > Self::MAX {
            Err(OutOfRange { value: eighths, max: Self::MAX })
        } else {
            Ok(Self(eighths))
        }
    }

    /// Of (free, all) for CPU and for memory, in any unit each; rounded down. Nothing is free of nothing.
    #[must_use]
    pub fn of(resources: [(u64, u64); 2]) -> Self {
        let eighths = |(free, all): (u64, u64)| {
            let levels = u128::from(Self::LEVELS);
            let eighths = (u128::from(free) * levels).checked_div(u128::from(all)).unwrap_or(0);
            u8::try_from(eighths).map_or(Self::MAX, |eighths| eighths.min(Self::MAX))
        };
        let [cpu, memory] = resources.map(eighths);
        Self(cpu.min(memory))
    }

    /// The eighths, 0 to 7; 7 is 7 or 8.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Share {
    type Error = OutOfRange;

    fn try_from(eighths: u8) -> Result<Self, OutOfRange> {
        Self::new(eighths)
    }
}

impl From<Share> for u8 {
    fn from(share: Share) -> Self {
        share.0
    }
}

/// Everything a worker encrypts.
///
/// # Security
/// In clear this is what the whole system keeps secret: do not log or send it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reading {
    /// What the worker has left.
    pub free: Quantities,
    /// How far it is from the cluster's peers.
    pub latency: LatencyClass,
    /// What its operator takes for it.
    pub price: PriceClass,
    /// How much its operator wants it used.
    pub priority: WorkerPriority,
    /// How much of it is free.
    pub share: Share,
}

/// The cluster's unit of each resource, in multiples of the unit of [`Resources`]; part of the
/// public policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// In units of 100 millicores.
    pub cpu: NonZeroU16,
    /// In units of 64 MiB.
    pub memory: NonZeroU16,
    /// In units of 1 GiB.
    pub disk: NonZeroU16,
    /// In GPU devices.
    pub gpu: NonZeroU16,
}

impl Scale {
    /// The units of [`Resources`] themselves: jobs of up to 19.1 cores, 11.9 GiB of memory,
    /// 191 GiB of disk and 191 GPUs.
    pub const FINEST: Self = Self {
        cpu: NonZeroU16::MIN,
        memory: NonZeroU16::MIN,
        disk: NonZeroU16::MIN,
        gpu: NonZeroU16::MIN,
    };

    /// The finest scale on which a job that asks for `largest` is possible.
    #[must_use]
    pub fn covering(largest: &Resources) -> Self {
        let unit = |fine: u16| {
            NonZeroU16::new(fine.div_ceil(u16::from(Quantity::MAX))).unwrap_or(NonZeroU16::MIN)
        };
        Self {
            cpu: unit(largest.cpu.0),
            memory: unit(largest.memory.0),
            disk: unit(largest.disk.0),
            gpu: unit(largest.gpu.0),
        }
    }

    /// Free capacity in this scale, rounded down and capped.
    #[must_use]
    pub fn free(&self, free: &Resources) -> Quantities {
        let count = |fine: u16, unit: NonZeroU16| {
            Quantity(u8::try_from(fine / unit).map_or(Quantity::MAX, |n| n.min(Quantity::MAX)))
        };
        Quantities {
            cpu: count(free.cpu.0, self.cpu),
            memory: count(free.memory.0, self.memory),
            disk: count(free.disk.0, self.disk),
            gpu: count(free.gpu.0, self.gpu),
        }
    }

    /// A request in this scale, rounded up.
    ///
    /// # Errors
    /// [`RequestTooLarge`] if a resource takes more than 191 units.
    pub fn request(&self, request: &Resources) -> Result<Quantities, RequestTooLarge> {
        let count = |fine: u16, unit: NonZeroU16, measure: &'static str, fine_unit: u64| {
            let units = fine.div_ceil(unit.get());
            let quantity = u8::try_from(units).ok().and_then(|units| Quantity::new(units).ok());
            quantity.ok_or(RequestTooLarge {
                amount: u64::from(fine) * fine_unit,
                measure,
                max: u64::from(Quantity::MAX) * u64::from(unit.get()) * fine_unit,
            })
        };
        Ok(Quantities {
            cpu: count(request.cpu.0, self.cpu, "millicores", CpuUnits::UNIT)?,
            memory: count(request.memory.0, self.memory, "bytes of memory", MemoryUnits::UNIT)?,
            disk: count(request.disk.0, self.disk, "bytes of disk", DiskUnits::UNIT)?,
            gpu: count(request.gpu.0, self.gpu, "GPUs", GpuUnits::UNIT)?,
        })
    }
}

/// Jobs of up to 38.2 cores, 47.7 GiB of memory, 764 GiB of disk and 191 GPUs.
impl Default for Scale {
    fn default() -> Self {
        let unit = |unit| NonZeroU16::new(unit).unwrap_or(NonZeroU16::MIN);
        Self { cpu: unit(2), memory: unit(4), disk: unit(4), gpu: unit(1) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resources(cpu: u16, memory: u16, disk: u16, gpu: u16) -> Resources {
        Resources {
            cpu: CpuUnits(cpu),
            memory: MemoryUnits(memory),
            disk: DiskUnits(disk),
            gpu: GpuUnits(gpu),
        }
    }

    #[test]
    fn edges_of_the_range() {
        let scale = Scale::FINEST;
        let most = resources(191, 191, 191, 191);
        assert_eq!(scale.request(&most).unwrap().to_array(), [191; 4]);
        assert_eq!(scale.free(&resources(192, u16::MAX, 0, 191)).to_array(), [191, 191, 0, 191]);
        let refused = scale.request(&resources(1, 192, 0, 0)).unwrap_err();
        assert_eq!((refused.amount, refused.max), (192 * (64 << 20), 191 * (64 << 20)));
        assert_eq!(Quantity::new(192), Err(OutOfRange { value: 192, max: 191 }));
        assert!(Quantities::from_array([0, 0, 0, 192]).is_err());
        assert!(LatencyClass::new(4).is_err());
        assert_eq!(Scale::covering(&resources(191, 192, 0, u16::MAX)).memory.get(), 2);
    }

    #[test]
    fn latency_rounds_to_the_slower_class() {
        let class = |micros| LatencyClass::of_micros(Some(micros)).get();
        assert_eq!([0, 5_000, 5_001, 20_000, 100_000, 100_001].map(class), [0, 0, 1, 1, 2, 3]);
        assert_eq!(LatencyClass::of_micros(None).get(), 3);
    }

    proptest! {
        #[test]
        fn what_fits_in_quantities_fits(need: u16, free: u16, unit in 1u16..500) {
            let unit = NonZeroU16::new(unit).unwrap();
            let scale = Scale { cpu: unit, memory: unit, disk: unit, gpu: unit };
            let free = resources(free, free, free, free);
            if let Ok(quantity) = scale.request(&resources(need, need, need, need)) {
                let fits = quantity.cpu <= scale.free(&free).cpu;
                prop_assert!(!fits || need <= free.cpu.0);
                prop_assert!(need == 0 || quantity.cpu.get() > 0);
            } else {
                prop_assert!(need.div_ceil(unit.get()) > 191);
            }
        }

        #[test]
        fn the_largest_job_fits_its_scale(cpu: u16, memory: u16, disk: u16, gpu: u16) {
            let largest = resources(cpu, memory, disk, gpu);
            prop_assert!(Scale::covering(&largest).request(&largest).is_ok());
        }
    }
}
