//! Resources in the units of job specifications, container limits and samples.
//!
//! Each is a u16 count of units. A request is rounded **up** and a worker's free capacity **down**,
//! so that whatever fits in units fits. Circuits compute on the coarser
//! [`Quantities`](crate::quantities::Quantities) that a cluster's [`Scale`](crate::quantities::Scale) makes of these.
//!
//! | | unit | largest |
//! |---|---|---|
//! | CPU | 100 millicores | 6,553.5 cores |
//! | memory | 64 MiB | just under 4 TiB |
//! | disk | 1 GiB | just under 64 TiB |
//! | GPU | 1 device | 65,535 |

use core::fmt;

use serde::{Deserialize, Serialize};
/// A request is beyond what the unit can count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{amount} {measure} cannot be requested: at most {max}")]
pub struct RequestTooLarge {
    /// The requested amount, in `measure`.
    pub amount: u64,
    /// The unit of `amount` and `max`, such as `millicores`.
    pub measure: &'static str,
    /// Largest possible request.
    pub max: u64,
}

/// A resource that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// CPU time, in millicores.
    Cpu,
    /// Main memory, in bytes.
    Memory,
    /// Disk, in bytes.
    Disk,
    /// GPU devices.
    Gpu,
}

impl Resource {
    /// All of them, in the order of every list and array.
    pub const ALL: [Self; 4] = [Self::Cpu, Self::Memory, Self::Disk, Self::Gpu];

    /// Position in [`Self::ALL`].
    #[must_use]
    pub const fn position(self) -> usize {
        self as usize
    }
}

macro_rules! units {
    ($($(#[$doc:meta])* $name:ident: $unit:expr, $measure:literal;)*) => {$(
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u16);

        impl $name {
            #[doc = concat!("One unit, in ", $measure, ".")]
            pub const UNIT: u64 = $unit;

            #[doc = concat!("The fewest units that cover `amount` ", $measure, ", for requests.")]
            ///
            /// # Errors
            /// [`RequestTooLarge`] if 65,535 units do not.
            pub fn covering(amount: u64) -> Result<Self, RequestTooLarge> {
                u16::try_from(amount.div_ceil(Self::UNIT)).map(Self).map_err(|_| RequestTooLarge {
                    amount,
                    measure: $measure,
                    max: u64::from(u16::MAX) * Self::UNIT,
                })
            }

            #[doc = concat!(
                "The most units within `amount` ", $measure, ", for free capacity; beyond 65,535 \
                 units a worker counts as having 65,535."
            )]
            #[must_use]
            pub fn within(amount: u64) -> Self {
                Self(u16::try_from(amount / Self::UNIT).unwrap_or(u16::MAX))
            }

            #[doc = concat!("The quantity in ", $measure, ", for limits.")]
            #[must_use]
            pub const fn amount(self) -> u64 {
                self.0 as u64 * Self::UNIT
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{} ", $measure), self.amount())
            }
        }
    )*};
}

units! {
    /// CPU time in units of 100 millicores (a tenth of a core).
    CpuUnits: 100, "millicores";
    /// Memory in units of 64 MiB.
    MemoryUnits: 64 << 20, "bytes of memory";
    /// Disk in units of 1 GiB.
    DiskUnits: 1 << 30, "bytes of disk";
    /// GPUs, whole devices.
    GpuUnits: 1, "GPUs";
}

/// What one replica needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// CPU time, at least one unit.
    pub cpu: CpuUnits,
    /// Main memory, at least one unit.
    pub memory: MemoryUnits,
    /// Disk beside the image's own.
    pub disk: DiskUnits,
    /// GPU devices; 0 for none.
    pub gpu: GpuUnits,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_round_up_and_capacity_down() {
        assert_eq!(CpuUnits::covering(1), Ok(CpuUnits(1)));
        assert_eq!(CpuUnits::covering(101), Ok(CpuUnits(2)));
        assert_eq!(CpuUnits::within(199), CpuUnits(1));
        assert_eq!(MemoryUnits::covering(64 << 20), Ok(MemoryUnits(1)));
        assert_eq!(MemoryUnits(2).amount(), 128 << 20);
        assert_eq!(DiskUnits::within((3 << 30) - 1), DiskUnits(2));
        assert_eq!(CpuUnits(15).to_string(), "1500 millicores");
    }

    #[test]
    fn too_much_is_refused_in_a_request_and_capped_in_capacity() {
        assert_eq!(
            GpuUnits::covering(65_536),
            Err(RequestTooLarge { amount: 65_536, measure: "GPUs", max: 65_535 })
        );
        assert_eq!(GpuUnits::within(u64::MAX), GpuUnits(u16::MAX));
        assert!(CpuUnits::covering(u64::MAX).is_err());
    }

    proptest! {
        #[test]
        fn what_fits_in_units_fits(request in 0u64..1 << 42, free in 0u64..1 << 50) {
            let needed = MemoryUnits::covering(request).unwrap();
            if needed <= MemoryUnits::within(free) {
                prop_assert!(request <= free);
            }
        }
    }
}
