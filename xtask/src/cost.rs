//! What steps cost: wall time and CPU time.
//!
//! CPU time is that of the child processes that have ended and of theirs (`getrusage`). It hardly depends
//! on other work of the machine; wall time does. Services that outlive a step, such as a Docker engine,
//! are not counted.

use std::{
    fmt,
    ops::Sub,
    time::{Duration, Instant},
};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::{TimeVal, TimeValLike as _},
};

use crate::failed::Failed;

/// What has been used so far, or between two moments.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    wall: Duration,
    user: Duration,
    system: Duration,
}

impl Cost {
    const fn cpu(&self) -> Duration {
        self.user.saturating_add(self.system)
    }
}

impl Sub for Cost {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            wall: self.wall.saturating_sub(earlier.wall),
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wall, cpu) = (self.wall.as_secs_f64(), self.cpu().as_secs_f64());
        write!(f, "{wall:.1} s, {cpu:.1} s of CPU")
    }
}

/// Measures from its start to each reading.
pub(crate) struct Meter {
    start: Instant,
    before: Cost,
}

impl Meter {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now(), before: children() }
    }

    pub(crate) fn read(&self) -> Cost {
        let used = children() - self.before;
        Cost { wall: self.start.elapsed(), ..used }
    }
}

/// CPU time of all children so far. If the kernel refuses, figures are zero, and the run goes on.
fn children() -> Cost {
    let of = |time: TimeVal| {
        Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap_or_default())
    };
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or_else(
        |_| Cost::default(),
        |usage| Cost {
            wall: Duration::ZERO,
            user: of(usage.user_time()),
            system: of(usage.system_time()),
        },
    )
}

/// What each step of a run has cost.
pub(crate) struct CostReport {
    total: Meter,
    steps: Vec<(&'static str, Cost)>,
}

impl CostReport {
    pub(crate) fn start() -> Self {
        Self { total: Meter::start(), steps: Vec::new() }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Runs a step, and records what it costs, whether it succeeds or not.
    pub(crate) fn measure(
        &mut self,
        name: &'static str,
        step: impl FnOnce() -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let meter = Meter::start();
        let result = step();
        self.steps.push((name, meter.read()));
        result
    }
}

impl fmt::Display for CostReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, cost: &Cost| {
            writeln!(
                f,
                "{name:<24}{:>10.1}{:>10.1}{:>10.1}{:>10.1}",
                cost.wall.as_secs_f64(),
                cost.user.as_secs_f64(),
                cost.system.as_secs_f64(),
                cost.cpu().as_secs_f64(),
            )
        };
        for (name, cost) in &self.steps {
            line(name, cost)?;
        }
        line("total", &self.total.read())
    }
}

/// Above the columns of an [`CostReport`].
pub(crate) const COLUMNS: &str = "step                        wall s    user s  system s     CPU s";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::Step;

    #[test]
    fn cpu_time_of_children_is_measured() {
        let meter = Meter::start();
        let busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        Step::new("busy", "sh", &["-c", busy]).quiet().run().ok().unwrap();
        let cost = meter.read();
        assert!(cost.cpu() > Duration::from_millis(10), "{cost}");
    }

    #[test]
    fn failed_steps_are_reported() {
        let mut report = CostReport::start();
        report.measure("good", || Ok(())).ok().unwrap();
        assert!(report.measure("bad", || Err(Failed::new("bad", "so"))).is_err());
        let text = report.to_string();
        let names: Vec<_> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(names, ["good", "bad", "total"]);
        assert!(text.lines().all(|line| line.len() == COLUMNS.len()), "{text}");
    }
}
