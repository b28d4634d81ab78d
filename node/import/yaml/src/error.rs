//! Why a file is not imported.

use core::fmt;
use std::{io, path::PathBuf};

use crate::bounds::{MAX_BYTES, MAX_DEPTH, MAX_JOBS, MAX_NODES, MAX_TEXT};

/// Where something stands in a file: line and column, both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pos {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl fmt::Display for Pos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Why a file is not imported. What is only left out is no error.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum ImportError {
    /// The file is longer than any that people write.
    #[error("a file of {0} bytes: at most {max} are read", max = MAX_BYTES)]
    TooLong(usize),
    /// The text is not YAML.
    #[error("{pos}: the file is not YAML: {says}")]
    Syntax { pos: Pos, says: String },
    /// A key is there twice, of which one would be lost.
    #[error("{pos}: `{key}` is there twice: leave one")]
    Twice { pos: Pos, key: String },
    /// A key is not a text.
    #[error("{pos}: a key is a text here, and this is a list or a map")]
    Key { pos: Pos },
    /// Lists and maps within one another.
    #[error("{pos}: more than {max} levels of lists and maps", max = MAX_DEPTH)]
    TooDeep { pos: Pos },
    /// Aliases that make much of little.
    #[error(
        "{pos}: with its aliases written out the file has more than {nodes} values or {bytes} bytes; \
         write out what is meant",
        nodes = MAX_NODES, bytes = MAX_TEXT
    )]
    TooLarge { pos: Pos },
    /// There is more of something than one operator can run.
    #[error("{pos}: more than {max} services or workloads: split the file", max = MAX_JOBS)]
    TooMany { pos: Pos },
    /// A merge of what is no map.
    #[error("{pos}: `<<` takes a map, or a list of maps, by alias")]
    Merge { pos: Pos },
    /// A tag that no format of these has.
    #[error("{pos}: the tag {tag} is not known here: write the value without it")]
    Tag { pos: Pos, tag: String },
    /// There are several documents where one is expected.
    #[error("{pos}: another document begins here, and {format} has one in a file: split the file")]
    Documents { pos: Pos, format: &'static str },
    /// It is none of the formats.
    #[error(
        "this is no Compose file (`services`), no Kubernetes object (`apiVersion` and `kind`), and no Akash SDL \
         (`services`, `profiles` and `deployment`)"
    )]
    Format,
    /// A value is of another kind.
    #[error("{pos}: `{key}` must be {expected}")]
    Kind { pos: Pos, key: String, expected: &'static str },
    /// A value cannot be what it says.
    #[error("{pos}: `{key}`: {says}")]
    Value { pos: Pos, key: String, says: String },
    /// A variable cannot be put in.
    #[error("{pos}: {says}")]
    Variable { pos: Pos, says: String },
    /// A service takes over one that is not there, or itself.
    #[error("{pos}: `extends`: {says}")]
    Extends { pos: Pos, says: String },
    /// A file that is included is not there, includes itself, or says something else than others.
    #[error("{pos}: `include`: {says}")]
    Include { pos: Pos, says: String },
    /// A file that the file names cannot be read.
    #[error("{pos}: {path}: {source}")]
    File { pos: Pos, path: PathBuf, source: io::Error },
    /// A file that was named on the command line cannot be read.
    #[error("{path}: {says}")]
    Option { path: PathBuf, says: String },
    /// In another file that this one names.
    #[error("{path}: {source}")]
    In { path: PathBuf, source: Box<ImportError> },
    /// There is no such service.
    #[error("there is no service `{name}`; there are {known}")]
    NoService { name: String, known: String },
    /// There is nothing to run.
    #[error("there is nothing in it that runs: no service, no workload")]
    Nothing,
}
