use std::time::Instant;

use veil_protocol_spec::{
    Address, ChainId, ClusterId, Epoch, KeySetDigest, PeerIdHash, ReplicaIndex,
    codec::Bytes,
    scheduling::{
        ClusterScope, CpuUnits, EncryptedRequest, MemoryUnits, ProvenList, RequestSeed, Resource,
        Resources, Scale, Sealed, SealedPart, SealedRequest,
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
        tag: Blake3Digest([3; 32]),
        commitments: Vec::new(),
        shares: Vec::new(),
        ciphertext: Bytes::default(),
    }
}

/// Without its limits nobody knows what to reserve, and a slot must not book the same room again.
#[test]
fn a_worker_that_does_not_know_what_it_was_given_counts_once_it_knows() {
    let (mut worker, [kept, exclusive]) = Worker::new();
    let mut encrypted = (*worker.bodies[&kept.0]).clone();
    encrypted.sealed = Sealed::Part(Box::new(part()));
    encrypted.request = ResourceRequest::Encrypted(EncryptedRequest {
        key_set: KeySetDigest([1; 32]),
        scale: Scale::FINEST,
        dominant: Resource::Cpu,
        commitment: Blake3Digest([2; 32]),
        list: ProvenList::new(vec![1]).unwrap(),
    });
    worker.bodies.insert(kept.0, Arc::new(encrypted));
    let nothing = BTreeSet::new();
    let desired = worker.desired();
    assert_eq!(desired.included.within(&nothing), Slot(4), "before it was placed");
    assert!(!desired.keep.held_back.contains_key(&id(kept)));
    // What will never be open takes no room, and must not keep its worker from being heard.
    worker.contents = Err(crate::unsealing::DEALT_WRONGLY);
    let desired = worker.desired();
    assert_eq!(desired.included.within(&nothing), Slot(9));
    assert_eq!(runs(&desired), [id(exclusive)].into());
    let mut contents = SealedContents::default();
    let limits = Resources { cpu: CpuUnits(7), memory: MemoryUnits(9), ..Resources::default() };
    contents.request = Some(SealedRequest { limits, seed: RequestSeed::new([1; 32]) });
    worker.contents = Ok(Arc::new(contents));
    assert_eq!(worker.desired().replicas.len(), 2);
    worker.revoked = true;
    let held = &worker.desired().keep.held_back[&id(kept)];
    assert_eq!(held.request, ResourceRequest::Clear(limits), "its room stays reserved");
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
    let another = later(|w, (job, _)| _ = w.assigned.here.insert((job, ReplicaIndex(1)), Slot(10)));
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
