//! What is to run here, what stays although it cannot be told to, and what telemetry may claim to include.
//!
//! # Flow
//! The [`enforcer`](crate::enforce) puts together what it [knows](Known) and does what
//! [`Known::desired`] makes of it, which asks and waits for nothing.
//!
//! "It removes a container only against a verified certificate that says so, never for lack of knowledge."

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;
use veil_node_containers::{DesiredReplica, Keep, Placement, ReplicaId, lapsed};
use veil_protocol_spec::{
    Blake3Digest, KeccakDigest, Slot,
    scheduling::{ImageReference, JobSpec, LeasePolicy, ResourceRequest, SealedContents},
};

use crate::{
    assigned::{Assigned, Replica},
    moves::Moves,
    unsealing::{Opened, is_final},
};

/// Why what runs of a revoked image is stopped.
const REVOKED: &str = "the cluster does not allow its image any more";

/// Why what this worker has given back does not run.
const GIVEN_BACK: &str = "this worker has given it back, and its notice is over";

/// What a worker knows when it decides what is to run.
pub(crate) struct Known<'a> {
    /// What the certificates say.
    pub(crate) assigned: &'a Assigned,
    /// Bodies of the jobs, as far as they are here.
    pub(crate) bodies: &'a BTreeMap<Blake3Digest, Arc<JobSpec>>,
    /// Hashes of certificates by slot, as far as they can be read.
    pub(crate) certificates: &'a BTreeMap<Slot, KeccakDigest>,
    /// Whether the committee has said since this process began that nothing newer is known: until then,
    /// the last certificate here may be of long ago.
    pub(crate) caught_up: bool,
    /// How long ago it last said so, whichever process heard it.
    pub(crate) contact_age: Duration,
    /// What has left for other workers, and runs here until it runs there.
    pub(crate) moving: &'a Moves,
    /// What this worker has given back, with a notice that is over.
    pub(crate) given_back: &'a BTreeSet<Replica>,
    /// Whether the cluster runs an image.
    pub(crate) allows: &'a (dyn Fn(&ImageReference) -> bool + Sync),
    /// What is sealed in a job, opened, or why it is not.
    pub(crate) contents: &'a (dyn Fn(&Blake3Digest) -> Opened + Sync),
    /// Why a replica is not to be started yet.
    pub(crate) waits: &'a (dyn Fn(&Replica) -> Option<String> + Sync),
}

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Desired {
    /// What the executor is to run.
    pub(crate) replicas: Vec<DesiredReplica>,
    /// What it does with other containers.
    pub(crate) keep: Keep,
    /// Why replicas of this worker are not among those to run.
    pub(crate) left_out: BTreeMap<Replica, Cow<'static, str>>,
    /// What telemetry may claim.
    pub(crate) included: Included,
    /// The shortest lease of what is to run.
    pub(crate) shortest_lease: Option<Duration>,
}

impl Known<'_> {
    pub(crate) fn desired(&self) -> Desired {
        let Assigned { slot, here, .. } = self.assigned;
        let id = |&(job, replica): &Replica| ReplicaId { job, replica };
        let mut keep = Keep {
            as_of: if self.caught_up { *slot } else { Slot(0) },
            replicas: BTreeSet::new(),
            held_back: BTreeMap::new(),
            revoked: BTreeSet::new(),
            given_back: self.given_back.iter().map(id).collect(),
            contact_age: self.contact_age,
        };
        let (mut replicas, mut left_out) = (Vec::new(), BTreeMap::new());
        for (key, placed) in here.iter().filter(|(key, _)| !self.given_back.contains(*key)) {
            let (spec, certificate) = (self.bodies.get(&key.0), self.certificates.get(placed));
            let why: Cow<'_, str> = match (spec, certificate) {
                (Some(spec), _) if !(self.allows)(&spec.image) => {
                    // Its room stays reserved until a certificate says that it has left.
                    let id = id(key);
                    keep.revoked.insert(id);
                    let contents = (self.contents)(&key.0).ok();
                    keep.held_back.insert(id, with_limits(spec, contents.as_deref()));
                    REVOKED.into()
                }
                (Some(spec), Some(certificate)) => {
                    let placement = Placement { slot: *placed, certificate: *certificate };
                    let sealed = spec.sealed_part().map(|_| (self.contents)(&key.0)).transpose();
                    match (sealed, (self.waits)(key)) {
                        (Ok(contents), None) => {
                            let spec = Arc::clone(spec);
                            let replica = key.1;
                            replicas.push(DesiredReplica { replica, spec, placement, contents });
                            continue;
                        }
                        (Ok(contents), Some(why)) => {
                            // Its room is reserved meanwhile.
                            keep.held_back.insert(id(key), with_limits(spec, contents.as_deref()));
                            why.into()
                        }
                        (Err(why), _) => {
                            // Its room is reserved meanwhile. How much an encrypted request takes is not known, so
                            // telemetry does not count until it is; of one that is never known, nothing ever runs.
                            if !has_encrypted_request(spec) || is_final(why) {
                                keep.held_back.insert(id(key), Arc::clone(spec));
                            }
                            why.into()
                        }
                    }
                }
                (None, _) => "no peer has the job's body".into(),
                (_, None) => "the certificate that placed it cannot be read".into(),
            };
            left_out.insert(*key, why);
        }
        let over: BTreeSet<_> = lapsed(&replicas, self.contact_age).into_iter().collect();
        let (ended, replicas): (Vec<_>, Vec<_>) =
            replicas.into_iter().partition(|replica| over.contains(&replica.id()));
        for replica in ended {
            let id = replica.id();
            left_out.insert((id.job, id.replica), "its exclusive lease is over".into());
            let spec = with_limits(&replica.spec, replica.contents.as_deref());
            keep.held_back.insert(id, spec);
        }
        keep.replicas = left_out.keys().chain(self.moving.kept()).map(id).collect();
        // The room of what is held back is reserved: a worker that counts as lost is taken back by telemetry
        // that includes its loss.
        let without_room = left_out.keys().filter(|key| !keep.held_back.contains_key(&id(key)));
        let unheld = without_room.map(|key| (id(key), here[key])).collect();
        let included = Included { slot: *slot, unheld };
        // Its room is free once its container is gone: a slot may book it before a certificate says that it has left.
        let given_back = self.given_back.iter().filter(|key| here.contains_key(*key));
        left_out.extend(given_back.map(|key| (*key, GIVEN_BACK.into())));
        let leases = replicas.iter().filter_map(|replica| match replica.spec.lease {
            LeasePolicy::Keep => None,
            LeasePolicy::Exclusive { seconds } => Some(Duration::from_secs(u64::from(seconds))),
        });
        let shortest_lease = leases.min();
        Desired { replicas, keep, left_out, included, shortest_lease }
    }
}

fn has_encrypted_request(spec: &JobSpec) -> bool {
    matches!(spec.request, ResourceRequest::Encrypted(_))
}

/// The body that a replica's room is counted by.
fn with_limits(spec: &Arc<JobSpec>, contents: Option<&SealedContents>) -> Arc<JobSpec> {
    match contents {
        Some(contents) if has_encrypted_request(spec) => Arc::new(contents.applied(spec)),
        _ => Arc::clone(spec),
    }
}

/// What telemetry may claim to include.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Included {
    /// The last slot whose replicas the executor knows, but for the following.
    slot: Slot,
    /// Replicas that the executor does not know, by the slot that placed them: unless they have a
    /// container, no room is reserved for them.
    unheld: BTreeMap<ReplicaId, Slot>,
}

impl Included {
    /// The last slot whose assignments are all within `held`: "a slot must not book the same capacity
    /// again".
    pub(crate) fn within(&self, held: &BTreeSet<ReplicaId>) -> Slot {
        let missing = self.unheld.iter().filter(|(id, _)| !held.contains(id));
        let before = missing.map(|(_, placed)| Slot(placed.0.saturating_sub(1)));
        before.min().map_or(self.slot, |before| before.min(self.slot))
    }
}

/// Tells the telemetry what it may claim to include. It is woken only if what it sent before does not count
/// any more, or counts for less than it could: something was placed here, or room can be reserved that could
/// not before. "Only assigned workers prove anew after a certificate."
pub(crate) fn tell(
    telemetry: &watch::Sender<Option<Included>>,
    before: &Assigned,
    now: &Assigned,
    included: Included,
) {
    telemetry.send_if_modified(|told| {
        let placed = now.here.iter().any(|(key, slot)| before.here.get(key) != Some(slot));
        // Telemetry of a lost worker counts if it knew.
        let lost = now.is_lost && !before.is_lost;
        let reserved = told.as_ref().is_none_or(|told| {
            told.unheld.keys().any(|replica| !included.unheld.contains_key(replica))
        });
        *told = Some(included);
        placed || lost || reserved
    });
}

#[cfg(test)]
mod tests;
