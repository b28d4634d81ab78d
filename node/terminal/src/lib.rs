//! What a person at a terminal reads: tables that fit it, a view that is renewed in place, and what a
//! command waits for.
//!
//! # Role
//! The terminal is this crate's outside world: its size, its control sequences, and standard error while
//! a command waits. What is printed, and where, is the caller's business.
//!
//! # Flow, state and restart
//! [`table`] and [`view`] are functions of what they are given. [`progress`] shows what a caller tells it.
//! [`raw`] holds the terminal of standard input. [`waiting`] keeps, for the process, what it waits for, and a thread that says so. Nothing outlives the
//! process.
//!
//! # Example
//! ```
//! use veil_node_terminal::table::{Column, Table};
//!
//! let mut table = Table::new([Column::Id("job"), Column::Number("replicas")]);
//! table.row(["3f2a91c0de5577aa", "3"]);
//! let mut text = Vec::new();
//! table.write(&mut text, Some(24))?;
//! assert_eq!(text, b"job             replicas\n3f2a91c0..77aa         3\n");
//! # Ok::<(), std::io::Error>(())
//! ```

pub mod progress;
pub mod raw;
pub mod table;
pub mod view;
pub mod waiting;

use std::env;

use console::Term;

/// How large a terminal is, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: usize,
    /// Lines.
    pub lines: usize,
}

/// The size of the terminal behind standard output; none if that is a file or a pipe.
///
/// `COLUMNS`, if it is set to a number, is believed more than the terminal, as `ls` and `man` do.
#[must_use]
pub fn standard_output() -> Option<Size> {
    let (lines, columns) = Term::stdout().size_checked()?;
    let told = env::var("COLUMNS").ok().and_then(|text| text.trim().parse::<usize>().ok());
    let columns = told.filter(|told| *told > 0).unwrap_or_else(|| columns.into());
    Some(Size { columns, lines: lines.into() })
}
