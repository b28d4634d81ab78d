//! Everything a member draws in an attempt comes from one seed, which is persisted before the first
//! message leaves: a member that restarts sends the same messages again. A fresh seed on restart
//! would be equivocation.

use veil_protocol_spec::{Attempt, CeremonyId, ParticipantIndex, domain};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The secret seed of one member in one ceremony.
///
/// # Security
/// Zeroized on drop, never printed. Destroyed at FINISH: with the transcript it would recompute
/// every erased share.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct CeremonySeed([u8; 32]);

impl CeremonySeed {
    /// Takes 32 uniform bytes from the operating system.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The seed itself, for the keystore.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// 32 bytes for one purpose of one attempt.
    #[must_use]
    pub fn derive(
        &self,
        ceremony: &CeremonyId,
        attempt: Attempt,
        purpose: &str,
        detail: &[u8],
    ) -> [u8; 32] {
        domain::hash_parts(
            domain::CEREMONY_MEMBER_RNG,
            &[&self.0, &ceremony.0, &attempt.0.to_le_bytes(), purpose.as_bytes(), detail],
        )
    }

    /// The randomness that seals the deal for one recipient.
    #[must_use]
    pub fn sealing(
        &self,
        ceremony: &CeremonyId,
        attempt: Attempt,
        recipient: ParticipantIndex,
    ) -> [u8; 32] {
        self.derive(ceremony, attempt, "seal", &[recipient.get()])
    }
}

impl core::fmt::Debug for CeremonySeed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("CeremonySeed(<redacted>)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printing_redacts() {
        assert_eq!(format!("{:?}", CeremonySeed::new([0xaa; 32])), "CeremonySeed(<redacted>)");
    }

    #[test]
    fn purposes_and_attempts_separate() {
        let seed = CeremonySeed::new([1; 32]);
        let id = CeremonyId([2; 32]);
        let base = seed.derive(&id, Attempt(0), "a", b"");
        assert_ne!(base, seed.derive(&id, Attempt(1), "a", b""));
        assert_ne!(base, seed.derive(&id, Attempt(0), "b", b""));
        assert_ne!(base, seed.derive(&CeremonyId([3; 32]), Attempt(0), "a", b""));
    }
}
