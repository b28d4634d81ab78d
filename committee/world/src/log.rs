//! What happened in a run: its trace, and its event log for whoever has to find out why it failed.

use core::fmt::Write as _;
use std::{fs, io, path::PathBuf, sync::Arc};

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

    fn write(&self) -> io::Result<PathBuf> {
        let folder = std::env::temp_dir().join("veil-runs");
        fs::create_dir_all(&folder)?;
        let trace = &self.trace.finalize().to_hex()[..12];
        let file = folder.join(format!("{}-{trace}.log", self.name));
        // Another process may write the same run: whoever reads the file finds all of it.
        let unfinished = file.with_extension(format!("{}.part", std::process::id()));
        fs::write(&unfinished, &self.text)?;
        fs::rename(&unfinished, &file)?;
        Ok(file)
    }
}

impl Drop for Recorder {
    /// A test that panics names its log, also if the run is only halfway.
    fn drop(&mut self) {
        if std::thread::panicking() && !self.text.is_empty() {
            match self.write() {
                Ok(file) => eprintln!("event log of {}: {}", self.name, file.display()),
                Err(error) => eprintln!("event log of {}: cannot be written: {error}", self.name),
            }
        }
    }
}

/// The events of a run, in order; none if it was not recorded.
///
/// A run that fails is to name the file of its log: [`Self::write`]. If a test panics while it holds
/// the log, the log is written too and its file named on stderr.
#[derive(Clone, Debug, Default)]
pub struct EventLog(pub(crate) Arc<Recorder>);

impl EventLog {
    /// BLAKE3 over every event: two runs with one trace are one run.
    #[must_use]
    pub fn trace(&self) -> Blake3Digest {
        Blake3Digest(*self.0.trace.finalize().as_bytes())
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
