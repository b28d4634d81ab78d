//! Which replicas their workers give back, by what these say.
//!
//! # Rules
//! 1. The word of the worker that has a replica counts, for the place that it has. What leaves or is done is not
//!    given back as well.
//! 2. It is listed when it is new to the state, and once more when it says that the replica has stopped. What else
//!    changes in it is no reason for a slot.
//! 3. A worker that the registry says is drained gives back what it has stopped, and that only: what else leaves it
//!    wants a place already. Nobody else gives back for that reason. One that was drained until the registry said
//!    otherwise gives back what it has stopped, since it has said so already, and may get it again at once.
//! 4. Of workers of one operator that are not drained, at most [`MAX_RETURNED_OF_OPERATOR`] words are remembered,
//!    and of all operators [`MAX_RETURNED`]. Others do not count until these are forgotten, but for word that
//!    a replica has stopped of which the notice counts.

use std::collections::BTreeMap;

use veil_protocol_spec::{
    Address, Blake3Digest, PeerIdHash, ReplicaIndex,
    scheduling::{
        GiveBackReason, GivenBack, LeavingReplica, MAX_GIVEN_BACK, MAX_RETURNED,
        MAX_RETURNED_OF_OPERATOR,
    },
};

use super::{Lists, NextReplicas};

impl Lists<'_> {
    /// Rule 7 of the lists.
    pub(super) fn given_back(&self, next: &mut NextReplicas) {
        if self.inputs.given_back.is_empty() {
            return;
        }
        let mut remembered: BTreeMap<Owner, usize> = BTreeMap::new();
        let mut all = 0;
        for (_, _, returned) in self.state.returned() {
            *remembered.entry(self.owner(&returned.placement.worker)).or_default() += 1;
            all += 1;
        }
        for (job, replica, placement) in self.state.replicas() {
            let worker = &placement.worker;
            let words = self.inputs.given_back.get(worker);
            let word = words.and_then(|words| {
                let at = words.binary_search_by_key(&(job, replica), GivenBack::key).ok()?;
                words.get(at).filter(|word| word.placed == placement.slot)
            });
            let Some(word) = word else { continue };
            if next.becomes_done(job, replica) || next.leaves(job, replica) {
                continue;
            }
            let is_known = self.state.is_given_back(job, replica);
            let counts = match (is_known, word.reason) {
                (true, _) => word.has_stopped,
                (false, GiveBackReason::Drained) => {
                    word.has_stopped && self.inputs.draining.contains(worker)
                }
                (false, GiveBackReason::DrainEnded) if !word.has_stopped => false,
                (false, _) => {
                    let of_operator = remembered.entry(self.owner(worker)).or_default();
                    // What replaces an older word for the replica takes no more room.
                    let new = usize::from(self.state.returned_replica(job, replica).is_none());
                    let fits = all + new <= MAX_RETURNED && *of_operator < MAX_RETURNED_OF_OPERATOR;
                    if fits {
                        (all, *of_operator) = (all + new, *of_operator + 1);
                    }
                    fits
                }
            };
            if counts && next.given_back.len() < MAX_GIVEN_BACK {
                next.given_back.push(word.clone());
            }
        }
    }

    /// Who answers for a worker's words: its operator; a worker that has left the registry, itself.
    fn owner(&self, worker: &PeerIdHash) -> Owner {
        self.inputs
            .owners
            .get(worker)
            .map_or(Owner::Nobody(*worker), |owner| Owner::Operator(*owner))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Operator(Address),
    Nobody(PeerIdHash),
}

impl NextReplicas {
    fn leaves(&self, job: Blake3Digest, replica: ReplicaIndex) -> bool {
        self.leaving.binary_search(&LeavingReplica { job, replica }).is_ok()
    }

    /// Whether a replica is given back, and whether it has stopped.
    pub(super) fn word(&self, job: Blake3Digest, replica: ReplicaIndex) -> Option<&GivenBack> {
        let at = self.given_back.binary_search_by_key(&(job, replica), GivenBack::key).ok()?;
        self.given_back.get(at)
    }
}
