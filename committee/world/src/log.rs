//! What happened in a run: its trace, and its event log for whoever has to find out why it failed.

use core::fmt::Write as _;
use std::{
    fs, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use veil_committee_machine::Millis;
use veil_protocol_spec::Blake3Digest;

/// A log that is written, line by line.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    name: String,
    trace: blake3::Hasher,
    text: String,
}

impl Recorder {
    pub(crate) fn new(name: String) -> Self {
        Self { name, trace: blake3::Hasher::new(), text: String::new() }
    }

    /// One event: a line in the log; time, line and bytes in the trace.
    pub(crate) fn record(&mut self, now: Millis, bytes: &[u8], event: &str) {
        let start = self.text.len();
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{now:>9} {event}");
        self.trace.update(&self.text.as_bytes()[start..]);
        self.trace.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    }

    /// What was recorded; it is named on stderr when a test that holds it panics.
    pub(crate) fn end(&mut self) -> EventLog {
        let (name, text) = (core::mem::take(&mut self.name), core::mem::take(&mut self.text));
        let trace = Blake3Digest(*self.trace.finalize().as_bytes());
        EventLog(Arc::new(Recorded { name, text, trace, written: AtomicBool::new(false) }))
    }
}

impl Drop for Recorder {
    /// A run that panics halfway has a log too: dropping it writes it.
    fn drop(&mut self) {
        if std::thread::panicking() && !self.text.is_empty() {
            drop(self.end());
        }
    }
}

/// The events of a run, in order.
///
/// A run that fails is to name the file of its log: [`Self::write`]. If a test panics while it holds
/// the log, the log is written too and its file named on stderr.
#[derive(Clone, Debug)]
pub struct EventLog(Arc<Recorded>);

#[derive(Debug)]
struct Recorded {
    name: String,
    text: String,
    trace: Blake3Digest,
    written: AtomicBool,
}

impl EventLog {
    /// BLAKE3 over every event: two runs with one trace are one run.
    #[must_use]
    pub fn trace(&self) -> Blake3Digest {
        self.0.trace
    }

    /// A line for each event: virtual milliseconds, event.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Writes the log to the folder `veil-runs` of the system's temporary folder, under the name of
    /// the run and its trace: another process that runs the same writes the same.
    ///
    /// # Errors
    /// If the folder or the file cannot be written.
    pub fn write(&self) -> io::Result<PathBuf> {
        self.0.write()
    }
}

impl Recorded {
    fn write(&self) -> io::Result<PathBuf> {
        let folder = std::env::temp_dir().join("veil-runs");
        fs::create_dir_all(&folder)?;
        let trace = &self.trace.to_string()[..12];
        let file = folder.join(format!("{}-{trace}.log", self.name));
        // Another process may write the same run: whoever reads the file finds all of it.
        let unfinished = file.with_extension(format!("{}.part", std::process::id()));
        fs::write(&unfinished, &self.text)?;
        fs::rename(&unfinished, &file)?;
        self.written.store(true, Ordering::Relaxed);
        Ok(file)
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if !std::thread::panicking() || self.written.load(Ordering::Relaxed) {
            return;
        }
        match self.write() {
            Ok(file) => eprintln!("event log of {}: {}", self.name, file.display()),
            Err(error) => eprintln!("event log of {}: cannot be written: {error}", self.name),
        }
    }
}
