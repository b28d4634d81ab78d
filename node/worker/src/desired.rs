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
    scheduling::{ImageReference, JobSpec, LeasePolicy},
};

use crate::{
    assigned::{Assigned, Replica},
    moves::Moves,
    unsealing::Opened,
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
                    keep.held_back.insert(id, Arc::clone(spec));
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
                        (Ok(_), Some(why)) => {
                            // Its room is reserved meanwhile.
                            keep.held_back.insert(id(key), Arc::clone(spec));
                            why.into()
                        }
                        (Err(why), _) => {
                            keep.held_back.insert(id(key), Arc::clone(spec));
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
            keep.held_back.insert(id, replica.spec);
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
mod tests {
    use std::time::Instant;

    use veil_protocol_spec::{
        Address, ChainId, ClusterId, Epoch, KeySetDigest, PeerIdHash, ReplicaIndex,
        codec::Bytes,
        scheduling::{
            ClusterScope, CpuUnits, MemoryUnits, ResourceRequest, Resources, Sealed, SealedPart,
        },
    };

    use super::*;

    fn job(nonce: u64, lease: LeasePolicy) -> Arc<JobSpec> {
        Arc::new(JobSpec {
            lease,
            ..JobSpec::new(
                ClusterScope {
                    chain_id: ChainId(1),
                    contract: Address([1; 20]),
                    cluster: ClusterId([2; 32]),
                },
                Address([3; 20]),
                nonce,
                "app".parse().unwrap(),
                format!("localhost:5000/app@sha256:{}", "ab".repeat(32)).parse().unwrap(),
                ResourceRequest::Clear(Resources {
                    cpu: CpuUnits(1),
                    memory: MemoryUnits(1),
                    ..Resources::default()
                }),
            )
        })
    }

    fn part() -> SealedPart {
        SealedPart {
            key_set: KeySetDigest([1; 32]),
            epoch: Epoch(1),
            roster: Blake3Digest([2; 32]),
            commitments: Vec::new(),
            shares: Vec::new(),
            ciphertext: Bytes::default(),
        }
    }

    /// A worker with two replicas: of slot 5, kept; of slot 7, exclusive for a minute.
    struct Worker {
        assigned: Assigned,
        bodies: BTreeMap<Blake3Digest, Arc<JobSpec>>,
        certificates: BTreeMap<Slot, KeccakDigest>,
        caught_up: bool,
        contact_age: Duration,
        revoked: bool,
        moving: Moves,
        given_back: BTreeSet<Replica>,
        contents: Opened,
        waits: Option<Replica>,
    }

    const KEPT: usize = 0;
    const EXCLUSIVE: usize = 1;

    impl Worker {
        fn new() -> (Self, [Replica; 2]) {
            let jobs = [job(1, LeasePolicy::Keep), job(2, LeasePolicy::Exclusive { seconds: 60 })];
            let replicas = [0, 1].map(|i: usize| (jobs[i].digest(), ReplicaIndex(0)));
            let here = [(replicas[KEPT], Slot(5)), (replicas[EXCLUSIVE], Slot(7))].into();
            let worker = Self {
                assigned: Assigned { slot: Slot(9), here, is_lost: false },
                bodies: jobs.into_iter().map(|job| (job.digest(), job)).collect(),
                certificates: [5, 7].map(|s| (Slot(s), KeccakDigest([s as u8; 32]))).into(),
                caught_up: true,
                contact_age: Duration::ZERO,
                revoked: false,
                moving: Moves::default(),
                given_back: BTreeSet::new(),
                contents: Err("not open"),
                waits: None,
            };
            (worker, replicas)
        }

        fn desired(&self) -> Desired {
            let Self { assigned, bodies, certificates, moving, given_back, .. } = self;
            let (caught_up, contact_age) = (self.caught_up, self.contact_age);
            let allows = &|_: &ImageReference| !self.revoked;
            Known {
                assigned,
                bodies,
                certificates,
                caught_up,
                contact_age,
                moving,
                given_back,
                allows,
                contents: &|_| self.contents.clone(),
                waits: &|replica| {
                    self.waits.filter(|waits| waits == replica).map(|_| "waits for db".to_owned())
                },
            }
            .desired()
        }
    }

    const fn id((job, replica): Replica) -> ReplicaId {
        ReplicaId { job, replica }
    }

    fn runs(desired: &Desired) -> BTreeSet<ReplicaId> {
        desired.replicas.iter().map(DesiredReplica::id).collect()
    }

    #[test]
    fn what_is_assigned_and_known_runs() {
        let (worker, replicas) = Worker::new();
        let desired = worker.desired();
        assert_eq!(runs(&desired), replicas.map(id).into());
        assert!(desired.left_out.is_empty() && desired.keep.replicas.is_empty());
        assert_eq!(desired.keep.as_of, Slot(9));
        assert_eq!(desired.included.within(&BTreeSet::new()), Slot(9));
    }

    #[test]
    fn what_waits_for_another_job_is_not_started_and_holds_its_room() {
        let (mut worker, [kept, exclusive]) = Worker::new();
        worker.waits = Some(kept);
        let desired = worker.desired();
        assert_eq!(runs(&desired), [id(exclusive)].into());
        assert_eq!(desired.left_out[&kept], "waits for db");
        assert_eq!(desired.keep.held_back.keys().collect::<Vec<_>>(), [&id(kept)]);
        assert_eq!(desired.keep.replicas, [id(kept)].into(), "one that runs already goes on");
        assert_eq!(desired.included.within(&BTreeSet::new()), Slot(9));
    }

    #[test]
    fn a_missing_body_or_certificate_is_no_reason_to_remove() {
        let (mut worker, [kept, exclusive]) = Worker::new();
        worker.bodies.remove(&kept.0);
        worker.certificates.remove(&Slot(7));
        let desired = worker.desired();
        assert_eq!(runs(&desired), BTreeSet::new());
        assert_eq!(desired.keep.replicas, [id(kept), id(exclusive)].into());
        assert_ne!(desired.left_out[&kept], desired.left_out[&exclusive]);
    }

    /// "A rebooted worker starts its containers from what it keeps"; until that is open, nothing is started or removed.
    #[test]
    fn what_is_sealed_is_opened_before_anything_starts() {
        let (mut worker, [kept, exclusive]) = Worker::new();
        let sealed =
            JobSpec { sealed: Sealed::Part(Box::new(part())), ..(*worker.bodies[&kept.0]).clone() };
        worker.bodies.insert(kept.0, Arc::new(sealed));
        let desired = worker.desired();
        assert_eq!(runs(&desired), [id(exclusive)].into());
        assert_eq!(
            (&desired.keep.replicas, &*desired.left_out[&kept]),
            (&[id(kept)].into(), "not open")
        );
        assert!(desired.keep.held_back.contains_key(&id(kept)), "its room is reserved");
        assert_eq!(desired.included.within(&BTreeSet::new()), Slot(9));
        worker.contents = Ok(Arc::default());
        let desired = worker.desired();
        let contents: Vec<_> = desired.replicas.iter().map(|of| of.contents.is_some()).collect();
        let is_sealed = |of: &DesiredReplica| of.spec.sealed_part().is_some();
        assert_eq!(contents, desired.replicas.iter().map(is_sealed).collect::<Vec<_>>());
        assert_eq!(contents.iter().filter(|has| **has).count(), 1);
        assert!(desired.left_out.is_empty());
    }

    #[test]
    fn what_moves_is_kept_and_not_started() {
        let (mut worker, [kept, exclusive]) = Worker::new();
        let before = worker.assigned.clone();
        worker.assigned.here.remove(&kept);
        let elsewhere = |_: &Replica| Some(PeerIdHash([9; 32]));
        worker.moving.follow(&before, &worker.assigned, elsewhere, |_| true, Instant::now());
        let desired = worker.desired();
        assert_eq!(runs(&desired), [id(exclusive)].into());
        assert_eq!(desired.keep.replicas, [id(kept)].into());
        assert!(desired.left_out.is_empty());
        assert_eq!(desired.included.within(&BTreeSet::new()), Slot(9));
    }

    /// "The worker's own eviction ends what it names", also before it has caught up, and what it keeps for a move.
    #[test]
    fn what_was_given_back_goes_when_its_notice_is_over() {
        let (mut worker, [kept, exclusive]) = Worker::new();
        worker.given_back = [exclusive].into();
        worker.caught_up = false;
        let desired = worker.desired();
        assert_eq!(runs(&desired), [id(kept)].into());
        assert_eq!(
            (desired.keep.given_back, desired.keep.replicas),
            ([id(exclusive)].into(), [].into())
        );
        assert_eq!(desired.left_out[&exclusive], GIVEN_BACK);
        assert_eq!(desired.included.within(&BTreeSet::new()), Slot(9), "its room is to be free");
        assert_eq!(desired.shortest_lease, None);
        worker.assigned.here.remove(&exclusive);
        let desired = worker.desired();
        assert_eq!(desired.keep.given_back, [id(exclusive)].into());
        assert!(desired.left_out.is_empty());
    }

    #[test]
    fn what_runs_of_a_revoked_image_is_stopped_and_keeps_its_room() {
        let (mut worker, replicas) = Worker::new();
        worker.revoked = true;
        let desired = worker.desired();
        assert_eq!(runs(&desired), BTreeSet::new());
        let both: BTreeSet<_> = replicas.map(id).into();
        assert_eq!((&desired.keep.revoked, &desired.keep.replicas), (&both, &both));
        assert_eq!(desired.left_out[&replicas[KEPT]], REVOKED);
        assert_eq!(desired.included.within(&BTreeSet::new()), Slot(9), "its room stays reserved");
        worker.revoked = false;
        assert_eq!(runs(&worker.desired()), both, "allowed again");
    }

    #[test]
    fn before_it_has_caught_up_a_worker_knows_no_reason_to_remove() {
        let (mut worker, replicas) = Worker::new();
        worker.caught_up = false;
        let desired = worker.desired();
        assert_eq!(desired.keep.as_of, Slot(0));
        assert_eq!(runs(&desired), replicas.map(id).into(), "what it knows of runs");
        // The data directory is empty.
        worker.assigned = Assigned::default();
        assert_eq!(worker.desired().keep.as_of, Slot(0));
    }

    #[test]
    fn telemetry_does_not_claim_a_slot_without_its_reservations() {
        let (mut worker, [kept, exclusive]) = Worker::new();
        worker.bodies.remove(&exclusive.0);
        let included = worker.desired().included;
        assert_eq!(included.within(&BTreeSet::new()), Slot(6));
        assert_eq!(included.within(&[id(kept)].into()), Slot(6));
        // Its container is here, with what it reserves in its labels.
        assert_eq!(included.within(&[id(exclusive)].into()), Slot(9));
        worker.bodies.remove(&kept.0);
        assert_eq!(worker.desired().included.within(&BTreeSet::new()), Slot(4));
        // The executor reserves the room of a lapsed replica, whether or not it has a container.
        let (mut worker, _) = Worker::new();
        worker.contact_age = Duration::from_secs(60);
        let desired = worker.desired();
        assert_eq!(desired.included.within(&BTreeSet::new()), Slot(9));
        assert!(desired.keep.held_back.contains_key(&id(exclusive)));
    }

    #[test]
    fn a_lease_ends_with_the_contact_and_only_an_exclusive_one() {
        let (mut worker, [kept, exclusive]) = Worker::new();
        worker.contact_age = Duration::from_secs(59);
        assert_eq!(runs(&worker.desired()), [id(kept), id(exclusive)].into());
        worker.contact_age = Duration::from_secs(60);
        let desired = worker.desired();
        assert_eq!(runs(&desired), [id(kept)].into());
        assert_eq!(desired.keep.replicas, [id(exclusive)].into(), "stopped, not removed");
        assert_eq!(desired.keep.held_back.keys().copied().collect::<Vec<_>>(), [id(exclusive)]);
        assert_eq!(desired.included.within(&BTreeSet::new()), Slot(9), "its room stays reserved");
        assert_eq!(desired.shortest_lease, None, "of what runs");
        worker.contact_age = Duration::ZERO;
        assert_eq!(worker.desired().shortest_lease, Some(Duration::from_secs(60)));
    }

    #[test]
    fn only_who_is_assigned_something_proves_anew() {
        let (worker, [kept, _]) = Worker::new();
        // Whether the telemetry is woken by what changes from `before` to `after`.
        let wakes = |before: &Worker, after: &Worker| {
            let (telemetry, told) = watch::channel(Some(before.desired().included));
            tell(&telemetry, &before.assigned, &after.assigned, after.desired().included);
            assert_eq!(*told.borrow(), Some(after.desired().included), "it is told all the same");
            told.has_changed().unwrap()
        };
        let later = |change: fn(&mut Worker, Replica)| {
            let (mut later, _) = Worker::new();
            later.assigned.slot = Slot(10);
            change(&mut later, kept);
            later
        };
        assert!(!wakes(&worker, &later(|_, _| {})), "a certificate that places elsewhere");
        let removed = later(|w, kept| _ = w.assigned.here.remove(&kept));
        assert!(!wakes(&worker, &removed), "room is free when the container has stopped");
        assert!(wakes(&worker, &later(|w, kept| _ = w.assigned.here.insert(kept, Slot(10)))));
        let another =
            later(|w, (job, _)| _ = w.assigned.here.insert((job, ReplicaIndex(1)), Slot(10)));
        assert!(wakes(&worker, &another));
        let lost = later(|w, _| w.assigned.is_lost = true);
        assert!(wakes(&worker, &lost) && !wakes(&lost, &lost), "it learns that it was lost");
        let missing = later(|w, _| w.bodies.clear());
        assert!(!wakes(&worker, &missing));
        assert!(wakes(&missing, &later(|_, _| {})), "the bodies have come");
        // A worker that has just started.
        let (telemetry, told) = watch::channel(None);
        tell(&telemetry, &worker.assigned, &worker.assigned, worker.desired().included);
        assert!(told.has_changed().unwrap());
    }
}
