//! The host of a machine: what the driver calls for disk and special effects.

use veil_committee_machine::{Machine, Millis};

/// What a machine needs beside messages and time: its disk, and its special effects. It is called on
/// the machine's thread, where waiting for a disk is allowed.
pub trait Host<M: Machine>: Send + 'static {
    /// Makes records durable, in order, all or none.
    ///
    /// # Errors
    /// [`HostError`]: none of them may be taken for stored.
    fn persist(&mut self, records: &[M::Record]) -> Result<(), HostError>;

    /// Carries out a special effect.
    ///
    /// # Errors
    /// [`HostError`] stops the driver.
    fn carry_out(&mut self, effect: M::Special, machine: &M) -> Result<(), HostError>;

    /// Takes the proof against a participant that the machine caught. It is logged in any case.
    fn faulted(&mut self, _fault: M::Fault) {}

    /// Looks at the machine after a round of inputs, for progress and `status`.
    fn observe(&mut self, _machine: &M, _now: Millis) {}
}

/// Why a host could not store a record or carry out an effect.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HostError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl HostError {
    /// Wraps the host's own error, whose text is kept.
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(error.into())
    }

    /// The host's own error.
    #[must_use]
    pub fn inner(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.0
    }
}
