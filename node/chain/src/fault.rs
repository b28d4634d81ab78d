//! What endpoints of the chain do wrong.

use std::fmt;

use veil_protocol_spec::ChainId;

/// What an endpoint did wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing that is an answer.
    Silent(String),
    /// It serves another chain.
    OtherChain {
        /// That of the others, or the configured one.
        expected: ChainId,
        /// Its own.
        found: ChainId,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(detail) => f.write_str(detail),
            Self::OtherChain { expected, found } => {
                write!(f, "it serves chain {found}, not {expected}")
            }
        }
    }
}

/// No endpoint answered: each one's URL and what it did.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no endpoint answers")]
pub(crate) struct NoEndpoint(pub(crate) Vec<(String, Fault)>);
