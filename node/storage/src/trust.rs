//! What certificates are checked against, by the slot from which it holds.

use std::collections::BTreeMap;

use veil_committee::frost::GroupVerifyingKey;
use veil_protocol_spec::{Committee, PublicIdentity, Slot, scheduling::Binding};

/// What a certificate is checked against: all of it is on chain.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Cluster, key set and epoch.
    pub binding: Binding,
    /// Size of the committee.
    pub committee: Committee,
    /// Identities of participants 1, 2, ...
    pub roster: Vec<PublicIdentity>,
    /// The committee's verifying key.
    pub group: GroupVerifyingKey,
}

/// One [`Trust`] for each epoch, under the first slot that its committee certifies.
#[derive(Clone, Debug, Default)]
pub struct TrustList(BTreeMap<Slot, Trust>);

impl TrustList {
    /// The trust in force at a slot; `None` before the first.
    #[must_use]
    pub fn at(&self, slot: Slot) -> Option<&Trust> {
        self.0.range(..=slot).next_back().map(|(_, trust)| trust)
    }
}

/// Pairs of first slot and trust, in any order.
impl FromIterator<(Slot, Trust)> for TrustList {
    fn from_iter<I: IntoIterator<Item = (Slot, Trust)>>(epochs: I) -> Self {
        Self(epochs.into_iter().collect())
    }
}
