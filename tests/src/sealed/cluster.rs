//! What surrounds the members: the operator, the workers, and the slots.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::Arc,
};

use veil_committee_machine::Millis;
use veil_committee_sealed::open::{OpenError, Opening, Refusals};
use veil_committee_slot::{
    demand::{AllowedImages, JobDemand, NotConsidered},
    fit::Fit,
    lists::{Ended, Health, NextInputs, NextReplicas, Words, next_replicas},
};
use veil_committee_world::{Host, Schedule};
use veil_protocol_spec::{
    Blake3Digest, KeccakDigest, ParticipantIndex, PeerIdHash, ReplicaIndex, Slot,
    agreement::{Instance, Lock, SlotEnd, SlotOutcome},
    scheduling::{
        Assignment, AssignmentCertificate, Assignments, CertificateBody, ClusterPolicy,
        ClusterState, GiveBackReason, GivenBack, GroupSignature, JobSpec, Manifest, Note, Outcome,
        PendingReplica, ReferenceStringOrigin, Sampling, SlotRecord, Submission, TelemetryEntry,
        UnixMillis,
    },
    sealing::{ShareAnswer, ShareRefusal},
};

use super::{
    Found, SealedPlan,
    holder::{Answer, Holder},
    operator::{self, OPERATOR, binding, contents, identity, key, peer, submission},
};
use crate::fixtures;

/// Who has no replica.
const THIEF: u8 = 200;
const SLOT_INTERVAL: Millis = 10_000;
/// Slots of a run.
const SLOTS: u64 = 40;
/// How long a worker waits for answers.
const DEADLINE: Millis = 15_000;
const SHORTEST_PAUSE: Millis = 1_000;
const LONGEST_PAUSE: Millis = 60_000;

/// A worker's question about a replica.
struct Question<'a> {
    worker: u8,
    replica: ReplicaIndex,
    placed: Slot,
    opening: Opening<'a>,
    refusals: Refusals,
    answered: BTreeSet<ParticipantIndex>,
    is_over: bool,
    pauses: u32,
}

/// The host of the members.
pub(super) struct Cluster<'a> {
    plan: &'a SealedPlan,
    seed: u64,
    job: &'a JobSpec,
    submission: Submission,
    questions: Vec<Question<'a>>,
    words: BTreeMap<PeerIdHash, Vec<GivenBack>>,
    pub(super) state: Arc<ClusterState>,
    pub(super) found: Found,
}

impl<'a> Cluster<'a> {
    pub(super) fn new(plan: &'a SealedPlan, seed: u64, job: &'a JobSpec) -> Self {
        Self {
            plan,
            seed,
            job,
            submission: submission(job),
            questions: Vec::new(),
            words: BTreeMap::new(),
            state: Arc::default(),
            found: Found::default(),
        }
    }

    /// Plans the slots, and the thief's question.
    pub(super) fn begin(world: &mut Schedule<Self>) {
        for number in 1..=SLOTS {
            world.event(None, number * SLOT_INTERVAL, move |cluster, world| {
                cluster.slot(number, world);
            });
        }
        world.event(None, 0, |cluster, world| {
            cluster.asks(THIEF, ReplicaIndex(0), Slot(0), 0, world);
        });
    }

    // ---- slots -----------------------------------------------------------------------------

    const fn workers(&self) -> RangeInclusive<u8> {
        1..=self.plan.scenario.workers
    }

    /// What the next manifest lists.
    fn next(&self, number: u64) -> NextReplicas {
        let words: Words =
            self.words.iter().map(|(worker, words)| (*worker, words.as_slice().into())).collect();
        let (policy, images) = (ClusterPolicy::default(), AllowedImages::default());
        let demand = JobDemand::of(self.job, &policy, &images, 0);
        let inputs = NextInputs {
            submissions: &[self.submission],
            jobs: &|job| (*job == self.submission.job).then_some(demand),
            judged: None,
            lost: &BTreeMap::new(),
            draining: &BTreeSet::new(),
            telemetry: &self.workers().map(peer).collect(),
            ended: &Ended::new(),
            health: &Health::new(),
            block: number,
            policy: KeccakDigest([3; 32]),
            sampling: Sampling::default(),
            given_back: &words,
            owners: &BTreeMap::new(),
            committee: self.plan.committee,
            fit: &|_, _| Fit::Fits,
        };
        next_replicas(&self.state, &inputs)
    }

    /// Step 4: whether the proposer of a slot lists the job.
    fn lists(&self, proposer: ParticipantIndex) -> bool {
        let honest = || key(self.seed, proposer).deal(self.job, &self.submission).is_ok();
        !self.plan.absent.contains(&proposer) && (!self.plan.is_honest(proposer) || honest())
    }

    fn slot(&mut self, number: u64, world: &mut Schedule<Self>) {
        let n = self.plan.committee.n() as u64;
        let proposer = crate::plan::member((number % n) as u8 + 1);
        let next = self.next(number);
        if matches!(
            next.not_considered.get(&self.submission.job),
            Some(NotConsidered::SealedPart { .. })
        ) {
            self.found.closed.get_or_insert(Slot(self.state.last_slot().0 + 1));
        }
        let pending = if self.lists(proposer) { next.pending } else { Vec::new() };
        if pending.is_empty() && next.given_back.is_empty() {
            return;
        }
        let slot = Slot(self.state.last_slot().0 + 1);
        let mut telemetry: Vec<_> = self
            .workers()
            .map(|worker| TelemetryEntry { sender: peer(worker), digest: Blake3Digest([5; 32]) })
            .collect();
        telemetry.sort_by_key(|entry| entry.sender);
        let manifest = Manifest {
            previous: self.state.last_certificate(),
            telemetry,
            pending,
            given_back: next.given_back,
            rollouts: next.rollouts,
            ..fixtures::manifest(binding(), slot, proposer, number)
        };
        let barred: BTreeSet<_> = self.state.barred(&manifest).collect();
        let mut assigned = Vec::new();
        for PendingReplica { job, replica, .. } in &manifest.pending {
            let of = (*job, *replica);
            let mut may: Vec<_> =
                self.workers().filter(|worker| !barred.contains(&(of, peer(*worker)))).collect();
            may.sort_by_key(|worker| {
                fixtures::draw(self.seed, "place", number << 8 | u64::from(*worker))
            });
            let outcome = may.first().map_or(Outcome::Pending, |worker| {
                self.found.placements.entry(slot).or_default().push(*worker);
                Outcome::Node(peer(*worker))
            });
            assigned.push(Assignment { job: *job, replica: *replica, outcome });
        }
        let assignments: Assignments = assigned.try_into().expect("one for each pending replica");
        world.record(|| format!("slot {slot}: {:?}", self.found.placements.get(&slot)));
        self.state = Arc::new(certified(&self.state, manifest, assignments));
        for j in self.plan.committee.participants() {
            let (delay, state) = (world.way_to_commit_point(j), Arc::clone(&self.state));
            world.input(j, delay, move |holder, _| holder.learn(state));
        }
        let has = |(worker, words): (&PeerIdHash, &mut Vec<GivenBack>)| {
            words.retain(|word| {
                let place = self.state.placement(word.job, word.replica);
                place.is_some_and(|at| at.worker == *worker && at.slot == word.placed)
            });
        };
        self.words.iter_mut().for_each(has);
        let new: Vec<_> = self.state.replicas().filter(|(.., at)| at.slot == slot).collect();
        for (_, replica, at) in new {
            let worker = operator::number(&at.worker);
            if self.plan.scenario.lying.contains(&worker) {
                self.gives_back(worker, replica, slot, world.now());
            } else if !self.found.opened.contains(&worker) {
                self.asks(worker, replica, slot, 0, world);
            }
        }
    }

    /// Step 10.
    fn gives_back(&mut self, worker: u8, replica: ReplicaIndex, placed: Slot, now: Millis) {
        let (job, until) = (self.submission.job, Some(UnixMillis(now)));
        let (reason, note) = (GiveBackReason::SealedPart, Note::default());
        let word = GivenBack { job, replica, placed, reason, until, has_stopped: true, note };
        let words = self.words.entry(peer(worker)).or_default();
        words.push(word);
        words.sort_by_key(GivenBack::key);
        self.found.reported.insert(worker);
    }

    // ---- workers ---------------------------------------------------------------------------

    /// Step 5.
    fn asks(
        &mut self,
        worker: u8,
        replica: ReplicaIndex,
        placed: Slot,
        pauses: u32,
        world: &mut Schedule<Self>,
    ) {
        let id = self.questions.len();
        let randomness = fixtures::draw(self.seed, "question", id as u64);
        let opening = Opening::new(self.job, &OPERATOR, replica, &identity(worker), &randomness)
            .expect("the part is one");
        for j in self.plan.committee.participants() {
            let (delay, asked) = (world.way_to_commit_point(j), opening.request().clone());
            let randomness =
                fixtures::draw(self.seed, "release", (id as u64) << 8 | u64::from(j.get()));
            world.input(j, delay, move |holder, _| holder.ask(id, &asked, &randomness));
        }
        self.questions.push(Question {
            worker,
            replica,
            placed,
            opening,
            refusals: Refusals::default(),
            answered: BTreeSet::new(),
            is_over: false,
            pauses,
        });
        world.event(None, DEADLINE, move |cluster, world| cluster.concludes(id, world));
    }

    /// Step 7.
    fn answered(&mut self, j: ParticipantIndex, answer: Answer, world: &mut Schedule<Self>) {
        let Answer { question: id, answer, .. } = answer;
        let Some(answer) = answer else { return };
        let n = self.plan.committee.n();
        let question = &mut self.questions[id];
        if question.is_over || !question.answered.insert(j) {
            return;
        }
        let is_enough = match answer {
            ShareAnswer::Released { share, .. } => match question.opening.take(j, &share.0) {
                Ok(is_enough) => is_enough,
                Err(wrong) => {
                    self.found.culprits.insert(wrong.0);
                    false
                }
            },
            ShareAnswer::Refused(refusal) => {
                question.refusals.count(refusal);
                false
            }
        };
        if is_enough || question.answered.len() == n {
            self.concludes(id, world);
        }
    }

    fn concludes(&mut self, id: usize, world: &mut Schedule<Self>) {
        let question = &mut self.questions[id];
        if core::mem::replace(&mut question.is_over, true) {
            return;
        }
        let Question { worker, replica, placed, pauses, .. } = *question;
        let opened = question.opening.open();
        world.record(|| format!("worker {worker} has an end of question {id}: {}", opened.is_ok()));
        let agreed = question.refusals.agreed(self.plan.committee);
        let is_closed = match opened {
            Ok(found) => {
                self.found.others += usize::from(found != contents(self.seed));
                self.found.thief_opened |= worker == THIEF;
                self.found.opened.insert(worker);
                return;
            }
            Err(OpenError::TooFew { .. }) => agreed == Some(ShareRefusal::DealtWrongly),
            Err(_) => true,
        };
        let place = self.state.placement(self.submission.job, replica);
        let has_it = place.is_some_and(|at| at.worker == peer(worker) && at.slot == placed);
        if is_closed && has_it {
            self.gives_back(worker, replica, placed, world.now());
        } else if (has_it || worker == THIEF) && world.now() < SLOTS * SLOT_INTERVAL {
            let pause = (SHORTEST_PAUSE << pauses.min(6)).min(LONGEST_PAUSE);
            world.event(None, pause, move |cluster, world| {
                cluster.asks(worker, replica, placed, pauses + 1, world);
            });
        }
    }
}

/// The state after a slot with that outcome.
fn certified(state: &ClusterState, manifest: Manifest, assignments: Assignments) -> ClusterState {
    let after = state.apply(&manifest, &assignments).expect("the rules of the slot wrote it");
    let outcome = Some(SlotOutcome::new(Blake3Digest([5; 32]), &assignments, &after));
    let (slot, value) = (manifest.slot, manifest.digest());
    let end = SlotEnd { binding: binding(), slot, manifest: value, outcome };
    let body = CertificateBody::of(&manifest, &end, ReferenceStringOrigin::Committee, state);
    let instance = Instance::manifest(slot);
    let lock = Lock { binding: binding(), instance, round: 0, value, votes: Vec::new() };
    let certificate = AssignmentCertificate { body, signature: GroupSignature([2; 65]) };
    let record = SlotRecord { manifest, lock, assignments, certificate };
    state.follow(&record).expect("it is that slot's certificate")
}

impl Host for Cluster<'_> {
    type Machine = Holder;
    type Moment = ();

    fn boot(&mut self, j: ParticipantIndex, _: &mut Schedule<Self>) -> Option<Holder> {
        if self.plan.absent.contains(&j) {
            return None;
        }
        // A member derives its key from its key share, and has the certificates of before.
        let (job, state) = (Arc::new(self.job.clone()), Arc::clone(&self.state));
        let behaviour = self.plan.behaviours.get(&j).copied();
        let own = (key(self.seed, j), j);
        Some(Holder::new(own, job, self.submission, behaviour, state))
    }

    fn special(&mut self, j: ParticipantIndex, answer: Answer, world: &mut Schedule<Self>) {
        if let Some(how) = answer.deviates {
            *self.found.deviations.entry(how).or_default() += 1;
        }
        let late = self.plan.behaviours.get(&j).map_or(0, |how| how.delay());
        let delay = world.way_to_commit_point(j) + late;
        world.event(None, delay, move |cluster, world| cluster.answered(j, answer, world));
    }
}
