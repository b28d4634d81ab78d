//! Why a driver stops, or has stopped.

use crate::host::HostError;

/// Why a driver stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A record is not durable, so nothing after it may happen.
    #[error(
        "a record could not be stored, so this member stopped before sending what depends on it: {0}; mend the disk and start again"
    )]
    Persist(#[source] HostError),
    /// The host could not carry out an effect.
    #[error("{0}")]
    Effect(#[source] HostError),
    /// The machine's thread panicked.
    #[error("the machine stopped because of a defect: {0}; please report it")]
    Panicked(String),
}

/// The driver has stopped, so the machine takes no more commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the machine has stopped")]
pub struct Stopped;
