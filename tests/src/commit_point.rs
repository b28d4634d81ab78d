//! What stands for the chain: the first valid certificate before the deadline wins.

use veil_committee_machine::Millis;
use veil_keygen_ceremony::{machine::CommitPoint, transcript::FinishCertificate};
use veil_protocol_spec::{Attempt, ceremony::CeremonyParameters};

/// The commit point of one attempt.
#[derive(Debug)]
pub struct SimulatedChain {
    parameters: CeremonyParameters,
    attempt: Attempt,
    deadline: Millis,
    decision: Option<CommitPoint>,
}

/// Why a publication changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another was first, or the deadline has passed.
    #[error("the attempt is decided")]
    Decided,
    /// Of another attempt, or not signed by all.
    #[error("the certificate is not valid")]
    Invalid,
}

impl SimulatedChain {
    /// An attempt that nobody has published anything for.
    #[must_use]
    pub const fn new(parameters: CeremonyParameters, attempt: Attempt, deadline: Millis) -> Self {
        Self { parameters, attempt, deadline, decision: None }
    }

    /// Somebody publishes a certificate.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn publish(&mut self, certificate: FinishCertificate, now: Millis) -> Result<(), Refused> {
        if certificate.attempt != self.attempt || certificate.verify(&self.parameters).is_err() {
            return Err(Refused::Invalid);
        }
        if self.decision.is_some() || now >= self.deadline {
            return Err(Refused::Decided);
        }
        self.decision = Some(CommitPoint::Published(Box::new(certificate)));
        Ok(())
    }

    /// The deadline has come. Whether that decides the attempt.
    pub fn expire(&mut self) -> bool {
        let decides = self.decision.is_none();
        self.decision.get_or_insert(CommitPoint::Expired);
        decides
    }

    /// What was decided.
    #[must_use]
    pub const fn decision(&self) -> Option<&CommitPoint> {
        self.decision.as_ref()
    }
}
