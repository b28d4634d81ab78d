//! What is wrong with a job file, and where.

use core::{fmt, ops::Range};

use super::quantity::QuantityError;

/// What is wrong with a key or its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum Reason {
    /// The text is not TOML.
    #[error("the file is not TOML: {0}")]
    Syntax(String),
    /// No job file has such a key, nor one that resembles it.
    #[error("there is no such key; known here: {known}")]
    Unknown { known: String },
    /// No job file has such a key; another one resembles it.
    #[error("there is no such key; did you mean `{0}`?")]
    Misspelt(String),
    /// It is said in another way.
    #[error("there is no such key; write {0}")]
    Elsewhere(&'static str),
    /// The key is reserved, and has no value but its default.
    #[error("not supported yet: {what}; leave it out, or write {default}")]
    Reserved { what: &'static str, default: &'static str },
    /// The key must be there.
    #[error("it is missing; write such as {0}")]
    Missing(&'static str),
    /// Two keys say the same.
    #[error("it is given twice: as `{0}`, too")]
    Twice(String),
    /// The value is of another kind.
    #[error("a {found} is here, and {expected} is expected")]
    Kind { found: &'static str, expected: &'static str },
    /// A number is out of range.
    #[error("{value} is out of range: {min} to {max} are possible")]
    Range { value: String, min: u64, max: u64 },
    /// A quantity does not parse.
    #[error(transparent)]
    Quantity(#[from] QuantityError),
    /// A word is none of those that are possible.
    #[error("{word:?} is not possible here: {possible}")]
    Word { word: String, possible: String },
    /// The value's type refuses it.
    #[error("{0}")]
    Value(String),
    /// The key makes sense only beside another value.
    #[error("it has a meaning only with {0}")]
    Without(&'static str),
}

/// One thing that is wrong with a job file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key, with those of its sections before it; empty if the file as a whole is meant.
    pub key: String,
    /// What is wrong.
    pub reason: Reason,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, key, reason } = self;
        write!(f, "line {line}, column {column}: ")?;
        if key.is_empty() { write!(f, "{reason}") } else { write!(f, "`{key}`: {reason}") }
    }
}

/// Everything that is wrong with a job file, in the order of its lines; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// Problems while they are found.
#[derive(Debug)]
pub(super) struct Found<'a> {
    text: &'a str,
    problems: Vec<(usize, Problem)>,
}

impl<'a> Found<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, problems: Vec::new() }
    }

    pub(super) fn push(&mut self, key: &str, at: &Range<usize>, reason: Reason) {
        let before = self.text.get(..at.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        self.problems.push((at.start, Problem { line, column, key: key.to_owned(), reason }));
    }

    /// `value`, or the problems if there are any.
    pub(super) fn unless_any<T>(
        mut self,
        value: impl FnOnce() -> Option<T>,
    ) -> Result<T, Problems> {
        self.problems.sort_by_key(|(at, _)| *at);
        let problems: Vec<_> = self.problems.into_iter().map(|(_, problem)| problem).collect();
        match value().filter(|_| problems.is_empty()) {
            Some(value) => Ok(value),
            None => Err(Problems(problems)),
        }
    }
}
