//! The bounds that [`JobSpec::validate`](crate::job::JobSpec::validate) applies.

use core::ops::RangeInclusive;

/// Replicas of one job.
pub const REPLICAS: RangeInclusive<u16> = 1..=1024;
/// Runs of one replica of a batch job.
pub const ATTEMPTS: RangeInclusive<u16> = 1..=100;
/// Entries of `command` and of `args`, each.
pub const ARGUMENTS: usize = 64;
/// Bytes of one entry.
pub const ARGUMENT_BYTES: usize = 4096;
/// Bytes of all entries of `command`, `args` and the health check's command.
pub const ALL_ARGUMENTS_BYTES: usize = 16 * 1024;
/// Labels in `allow` and in `deny`, each.
pub const LABELS: usize = 32;
/// Organisations, start conditions, volumes and tmpfs folders, each.
pub const ENTRIES: usize = 32;
/// Ports and links, each: services that open a port for whatever they start publish ranges of 50.
pub const PORTS: usize = 64;
/// Bytes of one sealed file.
pub const SEALED_FILE_BYTES: usize = 256 * 1024;
/// Bytes of all sealed variables, names and values: a program that starts can be given no single one of 128 KiB.
pub const SEALED_VARIABLES_BYTES: usize = 64 * 1024;
/// Bytes of what is sealed: the largest file, or files that have as much together, and 64 KiB of everything else
/// (variables, arguments, credentials, paths).
pub const SEALED_BYTES: usize = SEALED_FILE_BYTES + 64 * 1024;
/// Variables and files in the sealed part, each.
pub const SEALED_ENTRIES: usize = 256;
/// Bytes of a variable's name.
pub const VARIABLE_NAME_BYTES: usize = 255;
/// Most processes and threads of a container.
pub const PIDS: RangeInclusive<u32> = 1..=65_536;
/// Seconds between a container's stop signal and its kill.
pub const STOP_SECONDS: RangeInclusive<u16> = 0..=300;
/// Seconds of an exclusive lease. Shorter than half a minute, one late slot would stop the job.
pub const LEASE_SECONDS: RangeInclusive<u32> = 30..=86_400;
/// Restarts within the restart policy's interval.
pub const RESTARTS: RangeInclusive<u16> = 0..=1000;
/// Seconds of the restart policy's interval.
pub const RESTART_INTERVAL_SECONDS: RangeInclusive<u32> = 0..=86_400;
/// Seconds before a restart.
pub const RESTART_DELAY_SECONDS: RangeInclusive<u16> = 0..=3600;
/// Seconds between two probes; a probe's timeout may be no longer than that.
pub const PROBE_SECONDS: RangeInclusive<u16> = 1..=3600;
/// Failed probes in a row that make a replica unhealthy.
pub const PROBE_RETRIES: RangeInclusive<u16> = 1..=100;
/// Bytes of the path of an HTTP probe.
pub const PROBE_PATH_BYTES: usize = 1024;
/// Seconds of an update's waits.
pub const UPDATE_SECONDS: RangeInclusive<u16> = 0..=3600;
