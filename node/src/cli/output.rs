//! Everything that a command prints goes through here: its result to standard output, what it says
//! on the way to standard error.
//!
//! A reader may leave early (`veil status | head`). A closed standard output ends the command
//! quietly, with the exit code that it would have had; a closed standard error is ignored.

use core::fmt;
use std::io::{self, BufWriter, ErrorKind, Write, stdout};

use serde::Serialize;
use veil_node_chain::UnsignedBatch;
pub(super) use veil_node_terminal::waiting::note;
use veil_node_terminal::{standard_output, waiting};

use super::failure::{Exit, Failure};

/// Whether anybody reads standard output. A command that goes on for long ends when nobody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    Reads,
    Left,
}

/// Prints what `write` writes.
///
/// # Errors
/// A standard output that is neither written nor closed, such as a file on a full disk.
pub(super) fn print(
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<Reader, Failure> {
    waiting::over();
    print_to(stdout().lock(), write)
}

/// The width that tables keep to: the terminal's, if there is one.
pub(super) fn width() -> Option<usize> {
    standard_output().map(|size| size.columns)
}

fn print_to(
    to: impl Write,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<Reader, Failure> {
    let mut to = BufWriter::new(to);
    match write(&mut to).and_then(|()| to.flush()) {
        Ok(()) => Ok(Reader::Reads),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Left),
        Err(error) => {
            let message = format!("standard output cannot be written: {error}");
            Err(Failure::new(Exit::Files, "output", message))
        }
    }
}

/// Prints a command's result: one JSON object if `json`, else what `text` writes for a person.
///
/// # Errors
/// As of [`print`].
pub(super) fn show(
    json: bool,
    object: &impl Serialize,
    text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<Reader, Failure> {
    print(|out| {
        if !json {
            return text(out);
        }
        serde_json::to_writer(&mut *out, object)?;
        writeln!(out)
    })
}

/// Prints transactions for others to sign, as a file for Safe's Transaction Builder: in one line if `json`.
///
/// # Errors
/// As of [`print`].
pub(super) fn unsigned(json: bool, batch: &UnsignedBatch) -> Result<Reader, Failure> {
    let file = batch.to_safe_json();
    if !json {
        note(format!("nothing was sent; to be signed: {batch}"));
    }
    show(json, &file, |out| writeln!(out, "{file:#}"))
}

/// What a command shows, for a program and for a person; as of [`show`], if it is shown more than once.
pub(super) struct Shown {
    object: String,
    text: String,
    /// How the command ends that shows it once.
    pub(super) exit: Exit,
}

impl Shown {
    /// # Errors
    /// An object that JSON has no form for: a defect.
    pub(super) fn new(
        object: &impl Serialize,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<Self, Failure> {
        let defect = |error: &dyn fmt::Display| Failure::new(Exit::Failed, "internal", error);
        let object = serde_json::to_string(object).map_err(|error| defect(&error))?;
        let mut bytes = Vec::new();
        text(&mut bytes).map_err(|error| defect(&error))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Self { object, text, exit: Exit::Done })
    }

    /// For a person.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// # Errors
    /// As of [`print`].
    pub(super) fn print(&self, json: bool) -> Result<Reader, Failure> {
        print(
            |out| {
                if json { writeln!(out, "{}", self.object) } else { write!(out, "{}", self.text) }
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, then fails.
    struct Fails(usize, ErrorKind);

    impl Write for Fails {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.0.min(bytes.len()) {
                0 => Err(self.1.into()),
                taken => {
                    self.0 -= taken;
                    Ok(taken)
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_a_reader_that_left_is_no_failure() {
        let text = |out: &mut dyn Write| writeln!(out, "one line");
        assert_eq!(print_to(Fails(9, ErrorKind::BrokenPipe), text), Ok(Reader::Reads));
        for taken in 0..9 {
            assert_eq!(print_to(Fails(taken, ErrorKind::BrokenPipe), text), Ok(Reader::Left));
            let full = print_to(Fails(taken, ErrorKind::StorageFull), text).unwrap_err();
            assert_eq!((full.exit, full.kind), (Exit::Files, "output"));
        }
    }
}
