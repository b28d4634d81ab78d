//! What each recent slot was authorised for: a lock authorises a sequence, each step of it once.

use std::collections::{BTreeMap, BTreeSet};

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
    by_slot: BTreeMap<Slot, OfSlot>,
    /// All of them.
    ids: BTreeSet<RequestId>,
    oldest: Slot,
}

/// One manifest, and the outputs of each step.
struct OfSlot {
    manifest: Blake3Digest,
    steps: BTreeMap<u16, RequestId>,
}

impl Authorisations {
    /// Whether these outputs are those of the slot's step already. That the id is another one if anything before
    /// was another keeps a slot to one sequence.
    pub(super) fn check(
        &self,
        context: &RequestContext,
        id: RequestId,
    ) -> Result<bool, AuthoriseError> {
        let RequestContext { slot, step, .. } = *context;
        let Some(of_slot) = self.by_slot.get(&slot) else {
            let oldest = self.oldest;
            return if slot < oldest {
                Err(AuthoriseError::OldSlot { slot, oldest })
            } else {
                Ok(false)
            };
        };
        let OfSlot { manifest, steps } = of_slot;
        match steps.get(&step) {
            Some(request) if *request == id => Ok(true),
            None if *manifest == context.manifest => Ok(false),
            _ => Err(AuthoriseError::SlotTaken { slot, step, manifest: *manifest }),
        }
    }

    pub(super) fn record(&mut self, context: &RequestContext, id: RequestId) {
        let new = || OfSlot { manifest: context.manifest, steps: BTreeMap::new() };
        let of_slot = self.by_slot.entry(context.slot).or_insert_with(new);
        of_slot.steps.insert(context.step, id);
        self.ids.insert(id);
        if self.by_slot.len() > MAX_SLOTS
            && let Some((slot, of_slot)) = self.by_slot.pop_first()
        {
            of_slot.steps.values().for_each(|id| _ = self.ids.remove(id));
            self.oldest = Slot(slot.0.saturating_add(1));
        }
    }

    /// Whether the outputs were authorised here once.
    pub(super) fn knows(&self, id: RequestId) -> bool {
        self.ids.contains(&id)
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
            let context = RequestContext::first(key_set, Epoch(0), Slot(slot), manifest);
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
        let taken = |step| {
            Err(AuthoriseError::SlotTaken { slot: Slot(11), step, manifest: context.manifest })
        };
        assert_eq!(authorised.check(&context, other), taken(0));
        // The sequence goes on, once, and only with what the lock is for.
        let second = RequestContext { step: 1, before: Blake3Digest([9; 32]), ..context };
        let second_id = RequestId::of(&second, &[]);
        assert_eq!(authorised.check(&second, second_id), Ok(false));
        let elsewhere = RequestContext { manifest: Blake3Digest([7; 32]), ..second };
        assert_eq!(authorised.check(&elsewhere, RequestId::of(&elsewhere, &[])), taken(1));
        authorised.record(&second, second_id);
        assert_eq!(authorised.check(&second, second_id), Ok(true));
        let otherwise = RequestContext { before: Blake3Digest([8; 32]), ..second };
        assert_eq!(authorised.check(&otherwise, RequestId::of(&otherwise, &[])), taken(1));
        assert_eq!(authorised.check(&context, id), Ok(true));
        assert!(authorised.knows(other_id.1));
        let (next, next_id) = place(1 << 20);
        authorised.record(&next, next_id);
        let old = AuthoriseError::OldSlot { slot: Slot(10), oldest: Slot(11) };
        assert_eq!(authorised.check(&other_id.0, other_id.1), Err(old));
        assert_eq!(authorised.check(&context, id), Ok(true));
    }
}
