//! Progress on standard error, and the table at the end.

use std::{
    io::{self, IsTerminal as _, Write, stderr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use veil_node_api::status::Phase;

use crate::{
    cli::output,
    devnet::{Event, Figures, Placed},
};

/// Between two lines about one step where there is no terminal.
const DETAIL_INTERVAL: Duration = Duration::from_secs(10);

/// A spinner on a terminal, lines otherwise.
pub(super) struct Progress {
    bar: ProgressBar,
    terminal: bool,
    step: Mutex<(&'static str, Option<Instant>)>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let terminal = stderr().is_terminal();
        let bar = if terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {prefix:14} {elapsed} {wide_msg}")
        {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, terminal, step: Mutex::new(("", None)) }
    }

    pub(super) fn on_event(&self, event: Event<'_>) {
        match event {
            Event::Step(step) => self.stage(step),
            Event::Detail(detail) => self.detail(detail),
            Event::Done(step, seconds) => self.say(&format!("{step}: {seconds:.1} s")),
        }
    }

    pub(super) fn stage(&self, stage: &'static str) {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = (stage, None);
        if self.terminal {
            self.bar.set_prefix(stage);
            self.bar.set_message("");
            self.bar.reset_elapsed();
        } else {
            output::note(format!("{stage} ..."));
        }
    }

    fn detail(&self, detail: &str) {
        if self.terminal {
            self.bar.set_message(detail.to_owned());
            return;
        }
        let mut step = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        if step.1.is_none_or(|last| last.elapsed() >= DETAIL_INTERVAL) {
            step.1 = Some(Instant::now());
            output::note(format!("{}: {detail}", step.0));
        }
    }

    /// A line that stays.
    pub(super) fn say(&self, line: &str) {
        self.bar.suspend(|| output::note(line));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// What a person reads at the end.
pub(super) fn write_table(
    out: &mut dyn Write,
    placed: &Placed,
    figures: &Figures,
) -> io::Result<()> {
    writeln!(out, "\njob {} is placed by slot {}:", placed.job, placed.slot)?;
    for place in &placed.replicas {
        let container = place.container.as_deref().unwrap_or("?");
        let container = container.get(..12).unwrap_or(container);
        writeln!(out, "  replica {:<3} {:<12} container {container}", place.replica, place.worker)?;
    }
    writeln!(
        out,
        "certificate verified here: {}; root anchored and read back: {}{}",
        yes(placed.certificate_verified),
        yes(placed.anchored),
        if placed.insecure_reference_string {
            "\nINSECURE reference string: made by one party"
        } else {
            ""
        }
    )?;
    writeln!(out, "\n{:<16}{:>10}", "phase", "seconds")?;
    for phase in Phase::ALL {
        let seconds = figures.phases.get(phase.name());
        let seconds = seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.3}"));
        writeln!(out, "{:<16}{seconds:>10}", phase.name())?;
    }
    if let Some(after) = figures.after_evaluation_ms {
        writeln!(out, "after evaluation: {after:.0} ms to decrypt and sign")?;
    }
    for (worker, bytes) in &figures.telemetry {
        writeln!(
            out,
            "{worker}: {} bytes of telemetry per interval; {} sent, {} received in all",
            bytes.originated_bytes_per_interval, bytes.sent_bytes, bytes.received_bytes
        )?;
    }
    for (role, memory) in &figures.memory {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        writeln!(
            out,
            "memory of a {role}: {:.2} GiB, at most {:.2} GiB",
            gib(memory.rss_bytes),
            gib(memory.peak_rss_bytes)
        )?;
    }
    writeln!(out)
}

const fn yes(yes: bool) -> &'static str {
    if yes { "yes" } else { "NO" }
}
