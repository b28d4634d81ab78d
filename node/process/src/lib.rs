//! This process as the operating system sees it: processor time, priority, memory, the time of day, the time
//! since the machine was started.
//!
//! # Role
//! Protocol crates take time as an argument; the hosts above them read it here and nowhere else.
//!
//! # Flow, state and restart
//! Each call asks the operating system; nothing is kept. [`metrics`] is what a node counts, from zero
//! at each start. [`moment`] is how people write and read durations and moments. [`evaluation_pool`] is the threads
//! that all others go before. [`session`] is the processes of a session, of whoever began it.
//!
//! # Example
//! ```
//! use veil_node_process::{Stopwatch, peak_rss_bytes, unix_now};
//!
//! let watch = Stopwatch::start();
//! assert!(unix_now().0 > 0 && peak_rss_bytes() > 0);
//! assert!(watch.wall() >= 0.0 && watch.cpu() >= 0.0);
//! ```

pub mod evaluation_pool;
pub mod metrics;
pub mod moment;
pub mod session;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::{
    sys::{
        resource::{UsageWho, getrusage},
        time::TimeValLike,
    },
    time::{ClockId, clock_gettime},
};
use veil_protocol_spec::scheduling::UnixMillis;

/// Milliseconds since 1970 by this machine's clock; 0 if that is set before then.
#[must_use]
pub fn unix_now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Time since the machine was started. It counts while the machine is suspended, and nobody sets it: a
/// step of the time of day does not move it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uptime(pub Duration);

impl Uptime {
    /// Now; `None` if the system has no such clock.
    #[must_use]
    pub fn now() -> Option<Self> {
        clock_gettime(ClockId::CLOCK_BOOTTIME).ok().map(|time| Self(time.into()))
    }
}

/// Tells one start of the machine from the next: an [`Uptime`] means nothing after a restart of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootId(pub u128);

impl BootId {
    /// Of this start of the machine; `None` if the system does not say.
    #[must_use]
    pub fn current() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        u128::from_str_radix(&text.trim().replace('-', ""), 16).ok().map(Self)
    }
}

/// CPU time of all threads, user and system.
#[must_use]
pub fn cpu_time() -> Duration {
    getrusage(UsageWho::RUSAGE_SELF).map_or(Duration::ZERO, |usage| {
        let microseconds =
            usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        Duration::from_micros(microseconds.unsigned_abs())
    })
}

/// Largest resident set so far, in bytes.
#[must_use]
pub fn peak_rss_bytes() -> u64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.max_rss().unsigned_abs() * 1024)
}

/// By how much a thread is nicer whose work may wait.
const NICER: i32 = 10;

/// Has the system prefer all other threads to the calling one. Without effect where it refuses.
pub fn lower_thread_priority() {
    // On Linux the niceness is a thread's own.
    let _ = rustix::process::nice(NICER);
}

/// Wall and CPU time since it was started.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    wall: Instant,
    cpu: Duration,
}

impl Stopwatch {
    /// Starts.
    #[must_use]
    pub fn start() -> Self {
        Self { wall: Instant::now(), cpu: cpu_time() }
    }

    /// Wall seconds.
    #[must_use]
    pub fn wall(&self) -> f64 {
        self.wall.elapsed().as_secs_f64()
    }

    /// CPU seconds of the process.
    #[must_use]
    pub fn cpu(&self) -> f64 {
        cpu_time().saturating_sub(self.cpu).as_secs_f64()
    }
}

/// Resident memory of this process now, in bytes; 0 where the system does not say.
#[must_use]
pub fn rss_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_since_the_start_is_the_kernels_and_only_grows() {
        let kernel = || {
            let text = std::fs::read_to_string("/proc/uptime").unwrap();
            Duration::from_secs_f64(text.split_whitespace().next().unwrap().parse().unwrap())
        };
        // The kernel's figure has two digits after the point.
        let (before, now, after) = (kernel(), Uptime::now().unwrap().0, kernel());
        let digit = Duration::from_millis(10);
        assert!(before <= now + digit && now <= after + digit, "{before:?} {now:?} {after:?}");
        assert_eq!(BootId::current(), BootId::current());
        assert!(BootId::current().is_some());
    }

    #[test]
    fn a_thread_steps_back_alone() {
        let thread_priority = || rustix::process::nice(0).unwrap();
        let before = thread_priority();
        let lowered = move || {
            lower_thread_priority();
            thread_priority()
        };
        let inside = std::thread::spawn(lowered).join().unwrap();
        assert!(inside > before || before >= 19, "{inside} after {before}");
        assert_eq!(thread_priority(), before);
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(rss_bytes() > 1 << 20);
        assert!(peak_rss_bytes() >= 1 << 20);
    }
}
