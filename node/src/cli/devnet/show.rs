//! Progress on standard error, and the table at the end.

use std::io::{self, Write};

use veil_node_api::status::Phase;
use veil_node_devnet::{Event, Figures, Placed};
use veil_node_terminal::progress::Steps;

/// Tells what happens.
pub(super) fn on_event(progress: &Steps, event: Event<'_>) {
    match event {
        Event::Step(step) => progress.step(step),
        Event::Detail(detail) => progress.detail(detail),
        Event::Done(step, seconds) => progress.say(&format!("{step}: {seconds:.1} s")),
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
        "certificate verified here: {}; root anchored and read back: {}",
        yes(placed.certificate_verified),
        yes(placed.anchored),
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
