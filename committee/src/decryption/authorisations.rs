//! What each recent slot was authorised for: a lock authorises one evaluation.

use std::collections::BTreeMap;

use veil_protocol_spec::{
    Blake3Digest, Slot,
    decryption::{RequestContext, RequestId},
};

use super::effect::AuthoriseError;

/// Slots of which it is known what was authorised; older ones are refused.
pub const MAX_SLOTS: usize = 4096;

/// What the last [`MAX_SLOTS`] slots were authorised for.
#[derive(Default)]
pub(super) struct Authorisations {
    by_slot: BTreeMap<Slot, (Blake3Digest, RequestId)>,
    oldest: Slot,
}

impl Authorisations {
    /// Whether these outputs are the slot's already.
    pub(super) fn check(
        &self,
        context: &RequestContext,
        id: RequestId,
    ) -> Result<bool, AuthoriseError> {
        let slot = context.slot;
        match self.by_slot.get(&slot) {
            Some((_, request)) if *request == id => Ok(true),
            Some((manifest, request)) => {
                Err(AuthoriseError::SlotTaken { slot, manifest: *manifest, request: *request })
            }
            None if slot < self.oldest => {
                Err(AuthoriseError::OldSlot { slot, oldest: self.oldest })
            }
            None => Ok(false),
        }
    }

    pub(super) fn record(&mut self, context: &RequestContext, id: RequestId) {
        self.by_slot.insert(context.slot, (context.manifest, id));
        if self.by_slot.len() > MAX_SLOTS
            && let Some((slot, _)) = self.by_slot.pop_first()
        {
            self.oldest = Slot(slot.0.saturating_add(1));
        }
    }

    /// Whether the outputs were authorised here once.
    pub(super) fn knows(&self, id: RequestId) -> bool {
        self.by_slot.values().any(|(_, request)| *request == id)
    }
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::{Epoch, KeySetDigest};

    use super::*;

    #[test]
    fn a_slot_is_taken_once_and_old_ones_are_refused() {
        let place = |slot: u64| {
            let manifest = Blake3Digest([slot as u8; 32]);
            let key_set = KeySetDigest([1; 32]);
            let context = RequestContext { key_set, epoch: Epoch(0), slot: Slot(slot), manifest };
            (context, RequestId::of(&context, &[]))
        };
        let mut authorised = Authorisations::default();
        for slot in 10..10 + MAX_SLOTS as u64 {
            let (context, id) = place(slot);
            assert_eq!(authorised.check(&context, id), Ok(false));
            authorised.record(&context, id);
            assert_eq!(authorised.check(&context, id), Ok(true));
        }
        let (context, id) = place(11);
        let (other, other_id) = (place(12).1, place(10));
        let taken =
            AuthoriseError::SlotTaken { slot: Slot(11), manifest: context.manifest, request: id };
        assert_eq!(authorised.check(&context, other), Err(taken));
        assert!(authorised.knows(other_id.1));
        let (next, next_id) = place(1 << 20);
        authorised.record(&next, next_id);
        let old = AuthoriseError::OldSlot { slot: Slot(10), oldest: Slot(11) };
        assert_eq!(authorised.check(&other_id.0, other_id.1), Err(old));
        assert_eq!(authorised.check(&context, id), Ok(true));
    }
}
