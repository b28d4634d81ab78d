//! Who says that a worker is lost.

use veil_protocol_spec::scheduling::{LostWorker, SignedSuspicion, Suspicion};

use super::{InvalidManifest, LocalView};

impl LocalView<'_> {
    /// That each suspicion of a lost worker is one of a member, of this slot.
    pub(super) fn validate_lost(&self, lost: &[LostWorker]) -> Result<(), InvalidManifest> {
        for LostWorker { worker, suspicions } in lost {
            let (binding, slot, worker) = (self.binding, self.slot(), *worker);
            for &SignedSuspicion { member, lost_for, ref signature } in suspicions {
                let suspicion = Suspicion { binding, slot, worker, lost_for };
                let identity = self.roster.get(member.position());
                let signed = identity
                    .is_some_and(|id| id.verify(suspicion.digest().as_bytes(), signature).is_ok());
                if !signed {
                    return Err(InvalidManifest::Suspicion { worker, member });
                }
            }
        }
        Ok(())
    }
}
