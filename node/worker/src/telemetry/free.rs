//! From what a host has to what it offers.

use veil_node_config::offer::{CpuMeasure, Kept, Offer};
use veil_protocol_spec::scheduling::{
    CpuUnits, DiskUnits, GpuUnits, MemoryUnits, Resources, Share,
};

/// One resource of the host: what there is, and what others than the worker's containers use.
#[derive(Clone, Copy)]
pub(super) struct Level {
    pub(super) total: u64,
    pub(super) others: u64,
}

/// The host's resources: millicores, bytes, bytes, devices.
#[derive(Clone, Copy)]
pub(super) struct Host {
    pub(super) cpu: Level,
    pub(super) memory: Level,
    pub(super) disk: Level,
    /// Devices that nobody else uses.
    pub(super) gpus: u64,
}

/// What is free in whole units, rounded down.
pub(super) fn free(offer: &Offer, host: &Host, reserved: &Resources) -> Resources {
    let Kept { cpu_millicores, memory_bytes, disk_bytes } = offer.reserve;
    let cpu_others = match offer.cpu_measure {
        CpuMeasure::Load => host.cpu.others,
        CpuMeasure::Reservations => 0,
    };
    let cpu = Level { others: cpu_others, ..host.cpu };
    Resources {
        cpu: CpuUnits::within(left(
            cpu,
            offer.cpu_millicores,
            cpu_millicores,
            reserved.cpu.amount(),
        )),
        memory: MemoryUnits::within(left(
            host.memory,
            offer.memory_bytes,
            memory_bytes,
            reserved.memory.amount(),
        )),
        disk: DiskUnits::within(left(
            host.disk,
            offer.disk_bytes,
            disk_bytes,
            reserved.disk.amount(),
        )),
        gpu: GpuUnits::within(host.gpus.min(offer.gpus).saturating_sub(reserved.gpu.amount())),
    }
}

/// How much of what the worker would offer without any work is in `free`.
pub(super) fn share(offer: &Offer, host: &Host, free: &Resources) -> Share {
    let Kept { cpu_millicores, memory_bytes, .. } = offer.reserve;
    let most = |level: Level, offered: u64, kept: u64| {
        left(Level { others: 0, ..level }, offered, kept, 0)
    };
    Share::of([
        (free.cpu.amount(), most(host.cpu, offer.cpu_millicores, cpu_millicores)),
        (free.memory.amount(), most(host.memory, offer.memory_bytes, memory_bytes)),
    ])
}

fn left(host: Level, offered: u64, kept: u64, reserved: u64) -> u64 {
    let lent = host.total.saturating_sub(kept);
    let unused = lent.saturating_sub(host.others);
    offered.min(unused).min(lent).saturating_sub(reserved)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn host(total: u64, others: u64) -> Host {
        let level = |unit| Level { total: total * unit, others: others * unit };
        Host { cpu: level(1000), memory: level(GIB), disk: level(GIB), gpus: 8 }
    }

    fn reserved(cores: u64) -> Resources {
        Resources {
            cpu: CpuUnits::covering(cores * 1000).unwrap(),
            memory: MemoryUnits::covering(cores * GIB).unwrap(),
            disk: DiskUnits::covering(cores * GIB).unwrap(),
            gpu: GpuUnits(0),
        }
    }

    fn offer(most: u64, kept: u64) -> Offer {
        Offer {
            cpu_millicores: most * 1000,
            memory_bytes: most * GIB,
            disk_bytes: most * GIB,
            gpus: 0,
            reserve: Kept {
                cpu_millicores: kept * 1000,
                memory_bytes: kept * GIB,
                disk_bytes: kept * GIB,
            },
            cpu_measure: CpuMeasure::Load,
        }
    }

    #[test]
    fn what_is_kept_used_or_reserved_is_not_free_and_the_offer_is_a_cap() {
        // (total, others, most, kept, reserved) -> free
        for ((total, others, most, kept, held), expected) in [
            ((16, 0, 100, 0, 0), 16),
            ((16, 0, 100, 1, 0), 15),
            ((16, 4, 100, 1, 0), 11),
            ((16, 4, 100, 1, 3), 8),
            ((16, 4, 5, 1, 3), 2),
            ((16, 15, 5, 1, 0), 0),
            ((16, 20, 100, 0, 0), 0),
            ((2, 0, 100, 3, 0), 0),
            ((16, 0, 4, 0, 5), 0),
        ] {
            let found = free(&offer(most, kept), &host(total, others), &reserved(held));
            assert_eq!(found, reserved(expected), "{total} {others} {most} {kept} {held}");
        }
    }

    #[test]
    fn the_share_is_of_what_is_offered_and_the_smaller_one_counts() {
        // (total, others, most, kept, reserved) -> eighths
        for ((total, others, most, kept, held), eighths) in [
            ((16, 0, 100, 0, 0), 7),
            ((16, 0, 100, 0, 8), 4),
            ((16, 0, 8, 0, 4), 4),
            ((17, 0, 100, 1, 13), 1),
            ((16, 9, 100, 0, 0), 3),
            ((16, 16, 100, 0, 0), 0),
            ((2, 0, 100, 3, 0), 0),
        ] {
            let (offer, host) = (offer(most, kept), host(total, others));
            let found = share(&offer, &host, &free(&offer, &host, &reserved(held)));
            assert_eq!(found.get(), eighths, "{total} {others} {most} {kept} {held}");
        }
        let (offer, host) = (offer(16, 0), host(16, 0));
        let little_memory = Resources { memory: reserved(2).memory, ..reserved(12) };
        assert_eq!(share(&offer, &host, &little_memory).get(), 1);
    }

    #[test]
    fn by_reservations_the_load_of_others_does_not_count_for_cpu() {
        let offer = Offer { cpu_measure: CpuMeasure::Reservations, ..offer(100, 1) };
        let found = free(&offer, &host(16, 16), &reserved(3));
        assert_eq!((found.cpu, found.memory), (reserved(12).cpu, MemoryUnits(0)));
    }

    #[test]
    fn gpus_are_whole_devices_below_the_offer_less_the_reserved() {
        let held = Resources { gpu: GpuUnits(2), ..Resources::default() };
        for (offered, expected) in [(u64::MAX, 6), (5, 3), (1, 0)] {
            let offer = Offer { gpus: offered, ..offer(100, 0) };
            assert_eq!(free(&offer, &host(16, 0), &held).gpu, GpuUnits(expected));
        }
    }

    #[test]
    fn part_of_a_unit_is_not_free() {
        let mut host = host(1, 0);
        host.cpu.total = 1099;
        host.memory.total = (65 << 20) - 1;
        let found = free(&offer(100, 0), &host, &Resources::default());
        assert_eq!((found.cpu, found.memory), (CpuUnits(10), MemoryUnits(1)));
    }
}
