//! What endpoints of the chain do wrong.

use std::fmt;

use veil_protocol_spec::ChainId;

/// What an endpoint did wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It gave no answer, or one that is not JSON-RPC.
    NoAnswer(String),
    /// It answers nobody, or not this caller, for a while: what it says.
    Limited(String),
    /// It serves another chain.
    OtherChain {
        /// The chain of the other endpoints, or the configured one.
        expected: ChainId,
        /// The chain that it serves.
        found: ChainId,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer(detail) => f.write_str(detail),
            Self::Limited(says) => write!(f, "it limits requests: {says}"),
            Self::OtherChain { expected, found } => {
                write!(f, "it serves chain {found}, not {expected}")
            }
        }
    }
}

/// No endpoint answered: each one's URL and its fault.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no endpoint answers")]
pub(crate) struct NoEndpoint(pub(crate) Vec<(String, Fault)>);
