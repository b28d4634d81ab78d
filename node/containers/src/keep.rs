//! What becomes of a container that is not desired.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use veil_protocol_spec::{Slot, scheduling::JobSpec};

use crate::{labels::Labels, replica::ReplicaId};

/// What a worker knows of the containers that it does not desire. "It removes a container only against a
/// verified certificate that says so, never for lack of knowledge (an exclusive replica is stopped, not
/// removed, when its lease lapses; a revoked image and the worker's own eviction end what they name)."
#[derive(Clone, Debug)]
pub struct Keep {
    /// The last slot whose certificate the worker has verified: what a later one placed here is not
    /// in what it desires, and stays all the same.
    pub as_of: Slot,
    /// Replicas that are assigned here, but cannot be desired because something of them is missing, or
    /// because their lease is over.
    pub replicas: BTreeSet<ReplicaId>,
    /// Bodies of those that only may not run now: their room stays reserved, whether or not they have a
    /// container; of a body with an encrypted request, none.
    pub held_back: BTreeMap<ReplicaId, Arc<JobSpec>>,
    /// Those of them whose image the cluster does not allow any more.
    pub revoked: BTreeSet<ReplicaId>,
    /// What this worker has given back, with a notice that is over: it goes, whatever the certificates say.
    pub given_back: BTreeSet<ReplicaId>,
    /// How long ago the committee was last in contact: an exclusive lease ends, whatever is known of
    /// the replica.
    pub contact_age: Duration,
}

/// See [`Keep`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// As it is.
    Stays,
    /// Stopped, and started again if it is desired again.
    Stops,
    /// Removed.
    Goes,
}

impl Keep {
    /// Everything is known: whatever is not desired goes.
    pub const NOTHING: Self = Self {
        as_of: Slot(u64::MAX),
        replicas: BTreeSet::new(),
        held_back: BTreeMap::new(),
        revoked: BTreeSet::new(),
        given_back: BTreeSet::new(),
        contact_age: Duration::ZERO,
    };

    /// What becomes of a container that is not desired.
    pub(crate) fn fate(&self, labels: &Labels) -> Fate {
        // "The worker's own eviction ends what it names."
        if self.given_back.contains(&labels.id) {
            return Fate::Goes;
        }
        if labels.slot <= self.as_of && !self.replicas.contains(&labels.id) {
            return Fate::Goes;
        }
        // "Revocation stops what runs."
        if self.revoked.contains(&labels.id) {
            return Fate::Stops;
        }
        let is_over = |lease| self.contact_age >= lease;
        if labels.lease.is_some_and(is_over) { Fate::Stops } else { Fate::Stays }
    }
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::{
        Blake3Digest, ReplicaIndex,
        scheduling::{CpuUnits, Resources},
    };

    use super::*;
    use crate::place::Unshared;

    const ID: ReplicaId = ReplicaId { job: Blake3Digest([1; 32]), replica: ReplicaIndex(0) };
    const LEASE: Duration = Duration::from_secs(60);

    fn container(lease: Option<Duration>) -> Labels {
        let reserved = Resources { cpu: CpuUnits(1), ..Resources::default() };
        let unshared = Unshared::default();
        Labels { id: ID, slot: Slot(7), lease, reserved, unshared }
    }

    fn keep(as_of: u64, age: Duration) -> Keep {
        Keep { as_of: Slot(as_of), contact_age: age, ..Keep::NOTHING }
    }

    #[test]
    fn only_a_certificate_removes_and_only_a_lease_stops() {
        let (plain, exclusive) = (container(None), container(Some(LEASE)));
        let here = Keep { replicas: [ID].into(), ..keep(9, Duration::ZERO) };
        for (what, keep, of_plain, of_exclusive) in [
            ("placed elsewhere or cancelled", keep(7, Duration::ZERO), Fate::Goes, Fate::Goes),
            ("the same, out of contact", keep(7, Duration::MAX), Fate::Goes, Fate::Goes),
            ("of a later slot", keep(6, Duration::ZERO), Fate::Stays, Fate::Stays),
            ("nothing known, no contact", keep(0, Duration::MAX), Fate::Stays, Fate::Stops),
            ("assigned here", here.clone(), Fate::Stays, Fate::Stays),
            (
                "assigned here, out of contact",
                Keep { contact_age: LEASE, ..here.clone() },
                Fate::Stays,
                Fate::Stops,
            ),
            (
                "assigned here, its image revoked",
                Keep { revoked: [ID].into(), ..here.clone() },
                Fate::Stops,
                Fate::Stops,
            ),
            (
                "assigned here and given back",
                Keep { given_back: [ID].into(), ..here },
                Fate::Goes,
                Fate::Goes,
            ),
            (
                "given back, nothing known",
                Keep { given_back: [ID].into(), ..keep(0, Duration::MAX) },
                Fate::Goes,
                Fate::Goes,
            ),
        ] {
            assert_eq!(keep.fate(&plain), of_plain, "{what}");
            assert_eq!(keep.fate(&exclusive), of_exclusive, "{what}, exclusive");
        }
    }
}
