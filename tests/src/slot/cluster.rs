//! What surrounds the members: disks, chain, workers, evaluation; and what is checked of them.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use veil_committee_agreement::{Agreement, AgreementConfig, Timing, Validity};
use veil_committee_machine::{Millis, Verdict};
use veil_committee_slot::{
    SlotMachine,
    machine::{Evaluated, SlotConfig, SlotTiming},
    manifest::InvalidManifest,
    tries::FailedTries,
};
use veil_committee_world::{Host, Mail, Schedule};
use veil_protocol_spec::{
    Blake3Digest, KeccakDigest, ParticipantIndex, PeerIdHash, PublicIdentity, Slot, Wire,
    agreement::{Instance, record::Record},
    scheduling::{
        ClusterState, Manifest, ReferenceStringOrigin, SignedSuspicion, SlotRecord, Suspicion,
        UnixMillis,
    },
    slot::SlotEntry,
    sync::LockedManifest,
};
use veil_scheduler_plan::plan::Plan;

use super::{
    SlotBehaviour, SlotPlan, SlotReport,
    member::{Asked, Member, Need, Stored},
    messages,
    sight::{ChainView, Sight},
    workers::{MAX_AGE, Surroundings, wall},
};
use crate::{
    agreement::{binding, roster},
    fixtures,
};

/// Between two steps of the world around the members.
const TICK: Millis = 2_000;
/// Between two tries of what has no place.
const INTERVAL: Millis = 10_000;
/// Until a member considers a worker lost.
const GRACE: Millis = 20_000;
/// For fetching records.
const FETCH: Millis = 1_000;
/// For writing or validating a manifest.
const VALIDATION: Millis = 15;
/// For looking for what nobody has.
const NOBODY_HAS_IT: Millis = 3_000;
/// A validator allows samples to be this much older than a proposer.
const AGE_SLACK: Millis = 30_000;
/// Records kept for members that were away.
const KEPT_RECORDS: usize = 64;

const AGREEMENT: Timing = Timing {
    propose: 4_000,
    prevote: 500,
    precommit: 500,
    retry: 1_500,
    growth: 250,
    most: 10_000,
};
const SLOT: SlotTiming = SlotTiming { collect: 5_000, retry: 1_000, void_after: 30_000 };

struct Disk {
    slot: Vec<SlotEntry>,
    agreement: Vec<Record>,
    state: Arc<ClusterState>,
    tries: FailedTries,
    records: BTreeMap<Slot, SlotRecord>,
}

impl Disk {
    fn new() -> Self {
        Self {
            slot: Vec::new(),
            agreement: Vec::new(),
            state: Arc::default(),
            tries: FailedTries::default(),
            records: BTreeMap::new(),
        }
    }
}

pub(super) struct Cluster {
    plan: SlotPlan,
    seed: u64,
    rng: ChaCha20Rng,
    roster: Arc<Vec<PublicIdentity>>,
    disks: Vec<Disk>,
    around: Surroundings,
    suspicions: BTreeMap<(Slot, PeerIdHash, ParticipantIndex), SignedSuspicion>,
    evaluations: BTreeMap<Blake3Digest, Result<(Evaluated, Vec<u8>), String>>,
    /// Who said that it signs what.
    signers: BTreeMap<(Slot, Blake3Digest), BTreeSet<ParticipantIndex>>,
    bodies: BTreeMap<Slot, KeccakDigest>,
    decided: BTreeMap<Instance, Blake3Digest>,
    /// What members that repeat old messages have seen.
    heard: Vec<Arc<[u8]>>,
    pub(super) report: SlotReport,
}

impl Host for Cluster {
    type Machine = Member;
    type Moment = ();

    fn boot(&mut self, j: ParticipantIndex, schedule: &mut Schedule<Self>) -> Option<Member> {
        if self.plan.absent.contains(&j) {
            return None;
        }
        let disk = &self.disks[j.position()];
        let committee = self.plan.committee;
        let config = AgreementConfig {
            committee,
            binding: binding(),
            roster: self.roster.to_vec(),
            timing: AGREEMENT,
        };
        let identity = fixtures::identity(self.seed, j);
        let agreement = Agreement::new(config, identity, disk.agreement.clone())
            .expect("roster, committee and identity are of one fixture");
        let config = SlotConfig { me: j, origin: ReferenceStringOrigin::Committee, timing: SLOT };
        let (state, tries) = (Arc::clone(&disk.state), disk.tries.clone());
        let slot = SlotMachine::new(config, state, tries, disk.slot.clone(), schedule.now());
        self.report.count("boot");
        Some(Member::new(j, committee, self.plan.behaviours.get(&j).copied(), slot, agreement))
    }

    fn store(&mut self, j: ParticipantIndex, record: Stored) {
        // As journals do: bytes, not memory.
        let disk = &mut self.disks[j.position()];
        match record {
            Stored::Slot(entry) => {
                let entry = SlotEntry::from_wire(&entry.to_wire()).expect("an entry reads back");
                disk.slot.push(entry);
            }
            Stored::Agreement(record) => {
                let record = Record::from_wire(&record.to_wire()).expect("a record reads back");
                disk.agreement.push(record);
            }
        }
    }

    fn special(&mut self, j: ParticipantIndex, asked: Asked, schedule: &mut Schedule<Self>) {
        match asked {
            Asked::Sight(need) => {
                let sight = self.sight(j, self.around.head(), schedule.now());
                let delay = if matches!(need, Need::Observe) { 1 } else { VALIDATION };
                schedule.input(j, delay, move |member, now| member.see(need, &sight, now));
            }
            Asked::Validate { digest, manifest, author, appeal } => {
                let validated = self.validate(j, &manifest, author, appeal, schedule.now());
                let delay = match &validated {
                    Err(InvalidManifest::Unknown(_)) => NOBODY_HAS_IT,
                    _ => VALIDATION,
                };
                if let Err(reason) = &validated {
                    self.report.refuse("manifest", &reason.to_string());
                }
                let refuses = self.plan.behaviours.get(&j) == Some(&SlotBehaviour::RefuseManifests);
                if refuses {
                    self.deviated(j, "the validation of manifests");
                }
                let valid = validated.is_ok() && !refuses;
                let validity = if valid { Validity::Valid } else { Validity::Invalid };
                schedule
                    .input(j, delay, move |member, now| member.validated(digest, validity, now));
            }
            Asked::Evaluate(locked) => self.evaluate(j, &locked, schedule),
            Asked::Finished(record) => {
                self.report.count("record completed");
                self.accept(j, *record, schedule);
            }
            Asked::Record(record) => self.accept(j, *record, schedule),
            Asked::CatchUp => {
                self.report.count("behind");
                schedule.event(Some(j), FETCH, move |cluster, schedule| cluster.fetch(j, schedule));
            }
            Asked::Convicted(culprit) => {
                self.report.count("equivocation proved");
                if self.plan.is_honest(culprit) {
                    self.report.violate(format!("{j} convicts {culprit}, which is honest"));
                }
            }
            Asked::Abstained(reason) => {
                schedule.record(|| format!("{j} abstains: {reason}"));
                self.report.count("abstained");
            }
            Asked::Deviated(phase) => self.deviated(j, phase),
            Asked::Decided(instance, value) => {
                let known = *self.decided.entry(instance).or_insert(value);
                if known != value && self.plan.is_honest(j) {
                    self.report.violate(format!("two decisions on {instance}"));
                }
            }
        }
    }

    fn leave(&mut self, mail: Mail, schedule: &mut Schedule<Self>) {
        if let Some((slot, digest)) = messages::signing_of(&mail.bytes) {
            self.signers.entry((slot, digest)).or_default().insert(mail.from);
        }
        let Some(behaviour) = self.plan.behaviours.get(&mail.from).copied() else {
            return schedule.post(mail, 0);
        };
        if self.heard.len() < 512 {
            self.heard.push(Arc::clone(&mail.bytes));
        }
        let identity = fixtures::identity(self.seed, mail.from);
        let sent = behaviour.sends(mail.to, &mail.bytes, &identity, &self.heard, &mut self.rng);
        if sent.len() != 1 || sent[0] != mail.bytes {
            self.deviated(mail.from, messages::phase(&mail.bytes));
        }
        for bytes in sent {
            schedule.post(Mail { bytes, ..mail.clone() }, 0);
        }
    }

    fn verdict(&mut self, _mail: &Mail, verdict: Verdict<String, String>) {
        match verdict {
            Verdict::Valid => {}
            Verdict::Skip(reason) => self.report.refuse("skipped", &reason),
            Verdict::Fault(reason) => self.report.refuse("fault", &reason),
        }
    }

    fn is_over<'a>(&mut self, _machines: impl Iterator<Item = &'a Member>) -> bool {
        let last = Slot(self.plan.scenario.slots);
        self.plan.honest().all(|j| self.disks[j.position()].state.last_slot() >= last)
    }

    fn describe(bytes: &[u8]) -> Cow<'static, str> {
        messages::describe(bytes).into()
    }
}

impl Cluster {
    pub(super) fn new(plan: SlotPlan, seed: u64) -> Self {
        let rng = |purpose| ChaCha20Rng::from_seed(fixtures::draw(seed, purpose, 0));
        let scenario = &plan.scenario;
        let around = Surroundings::new(
            seed,
            rng("slot surroundings"),
            usize::from(scenario.workers),
            usize::from(scenario.jobs),
        );
        Self {
            seed,
            rng: rng("slot cluster"),
            roster: Arc::new(roster(plan.committee, seed)),
            disks: plan.committee.participants().map(|_| Disk::new()).collect(),
            around,
            suspicions: BTreeMap::new(),
            evaluations: BTreeMap::new(),
            signers: BTreeMap::new(),
            bodies: BTreeMap::new(),
            decided: BTreeMap::new(),
            heard: Vec::new(),
            report: SlotReport::default(),
            plan,
        }
    }

    fn deviated(&mut self, j: ParticipantIndex, phase: &str) {
        if let Some(behaviour) = self.plan.behaviours.get(&j) {
            self.report.misbehaved(*behaviour, phase);
        }
    }

    /// One step of the world around the members, and the next ones.
    pub(super) fn tick(&mut self, schedule: &mut Schedule<Self>) {
        let best = Arc::clone(self.best());
        self.around.tick(schedule.now(), &best);
        let there = self.plan.committee.participants().filter(|j| !self.plan.absent.contains(j));
        for j in there.collect::<Vec<_>>() {
            let sight = self.sight(j, self.around.head(), schedule.now());
            let delay = self.rng.gen_range(0..TICK / 2);
            schedule.input(j, delay, move |member, now| member.see(Need::Observe, &sight, now));
            if schedule.now().is_multiple_of(5 * TICK) {
                schedule.event(Some(j), delay, move |cluster, schedule| cluster.fetch(j, schedule));
            }
        }
        schedule.event(None, TICK, Self::tick);
    }

    /// The latest state that an honest member has.
    fn best(&self) -> &Arc<ClusterState> {
        let states = self.plan.honest().map(|j| &self.disks[j.position()].state);
        states.max_by_key(|state| state.last_slot()).expect("somebody is honest")
    }

    fn sight(&mut self, j: ParticipantIndex, chain: Arc<ChainView>, now: Millis) -> Sight {
        let state = Arc::clone(&self.disks[j.position()].state);
        let slot = Slot(state.last_slot().0 + 1);
        let mut suspicions: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        let gone = |since: Option<Millis>| since.is_some_and(|since| now >= since + GRACE);
        let lost: Vec<_> =
            self.around.workers.iter().filter(|w| gone(w.down_since)).map(|w| w.id).collect();
        for worker in lost {
            for member in self.plan.honest().collect::<Vec<_>>() {
                let seed = self.seed;
                let signed = *self.suspicions.entry((slot, worker, member)).or_insert_with(|| {
                    let suspicion = Suspicion { binding: binding(), slot, worker };
                    suspicion.sign(member, &fixtures::identity(seed, member))
                });
                suspicions.entry(worker).or_default().insert(member, signed);
            }
        }
        let mut fresh = self.around.arrived(j.get(), now, self.plan.scenario.telemetry_loss);
        fresh.retain(|c| state.telemetry_counts(&c.entry.sender, c.includes_slot));
        let up = self.around.workers.iter().filter(|worker| worker.down_since.is_none()).count();
        Sight {
            committee: self.plan.committee,
            roster: Arc::clone(&self.roster),
            silent: fresh.len() < up,
            state,
            chain,
            max_workers: 1024,
            bodies: Arc::clone(&self.around.bodies),
            fresh,
            suspicions,
            not_before: UnixMillis(wall(now).0.saturating_sub(MAX_AGE)),
            interval: INTERVAL,
        }
    }

    fn validate(
        &mut self,
        j: ParticipantIndex,
        manifest: &Manifest,
        author: ParticipantIndex,
        appeal: bool,
        now: Millis,
    ) -> Result<(), InvalidManifest> {
        let unknown = |what: &str| InvalidManifest::Unknown(what.to_owned());
        let chain = self.around.at(manifest.block).ok_or_else(|| unknown("the block"))?;
        let mut sight = self.sight(j, chain, now);
        let age = if appeal { u64::MAX } else { MAX_AGE + AGE_SLACK };
        sight.not_before = UnixMillis(wall(now).0.saturating_sub(age));
        if appeal {
            self.report.count("appeal");
            sight.fresh.clear();
        }
        sight.with(|view, _, _| view.validate_facts(manifest, author))?;
        if manifest.telemetry.iter().any(|entry| self.around.fetched(entry).is_none()) {
            return Err(unknown("telemetry"));
        }
        if !manifest.telemetry.is_empty() {
            let state = &self.disks[j.position()].state;
            Plan::new(manifest, &self.around.public(manifest, state))?;
        }
        sight.with(|view, _, _| view.validate_lists(manifest, |entry| self.around.fetched(entry)))
    }

    fn evaluate(
        &mut self,
        j: ParticipantIndex,
        locked: &LockedManifest,
        schedule: &mut Schedule<Self>,
    ) {
        let LockedManifest { manifest, lock } = locked;
        let state = Arc::clone(&self.disks[j.position()].state);
        let evaluated = self.evaluations.entry(lock.value).or_insert_with(|| {
            let public = self.around.public(manifest, &state);
            if manifest.telemetry.is_empty() {
                let digest = manifest.no_outputs();
                return Ok((Evaluated { digest, public, outputs: 0 }, Vec::new()));
            }
            let digits = self.around.twin(manifest, &public).map_err(|error| error.to_string())?;
            let digest = {
                let mut hasher = blake3::Hasher::new();
                hasher.update(lock.value.as_bytes()).update(&digits);
                Blake3Digest(*hasher.finalize().as_bytes())
            };
            Ok((Evaluated { digest, public, outputs: digits.len() }, digits))
        });
        let mut evaluated = evaluated.clone();
        if evaluated.is_err() {
            self.report.count("evaluation failed");
        }
        if let (Some(SlotBehaviour::WrongEvaluation), Ok((evaluated, digits))) =
            (self.plan.behaviours.get(&j), &mut evaluated)
        {
            evaluated.digest.0[0] ^= 1;
            digits.fill(0);
            self.deviated(j, "the evaluation");
        }
        let slow = self.plan.behaviours.get(&j) == Some(&SlotBehaviour::Slow);
        if slow {
            self.deviated(j, "the evaluation");
        }
        let delay = if slow { 60_000 } else { self.rng.gen_range(200..2_000) };
        let slot = manifest.slot;
        schedule.input(j, delay, move |member, now| member.evaluated(slot, evaluated, now));
    }

    // ---- certificates ----------------------------------------------------------------------

    /// Whether 2t+1 members have signed what the certificate says.
    fn is_signed(&self, record: &SlotRecord) -> bool {
        let body = &record.certificate.body;
        let digest = Blake3Digest(*body.signing_digest().as_bytes());
        let signers = self.signers.get(&(body.slot, digest)).map_or(0, BTreeSet::len);
        let needed = self.plan.committee.signing_threshold().get();
        record.certificate.signature == messages::signature(digest) && signers >= needed
    }

    fn accept(&mut self, j: ParticipantIndex, record: SlotRecord, schedule: &mut Schedule<Self>) {
        let slot = record.manifest.slot;
        let committee = self.plan.committee;
        let state = &self.disks[j.position()].state;
        if slot <= state.last_slot() {
            return;
        }
        let verified = record.verify_structure(committee).map_err(|error| error.to_string());
        let verified = verified.and_then(|()| {
            record.lock.verify(committee, &self.roster).map_err(|error| error.to_string())
        });
        let signed = self.is_signed(&record);
        let after = verified.and_then(|()| {
            let signed = if signed { Ok(()) } else { Err("the group did not sign") };
            signed?;
            state.follow(&record).map_err(|error| error.to_string())
        });
        match after {
            Ok(after) => self.keep(j, record, after, schedule),
            Err(reason) => {
                self.report.refuse("record", &reason);
                schedule.event(Some(j), FETCH, move |cluster, schedule| cluster.fetch(j, schedule));
            }
        }
    }

    fn keep(
        &mut self,
        j: ParticipantIndex,
        record: SlotRecord,
        after: ClusterState,
        schedule: &mut Schedule<Self>,
    ) {
        let slot = record.manifest.slot;
        let body = record.certificate.body.hash();
        let first = !self.bodies.contains_key(&slot);
        if *self.bodies.entry(slot).or_insert(body) != body {
            self.report.violate(format!("two certificates of slot {slot}"));
        }
        if first {
            self.report.ended(&record, schedule.now());
            schedule.record(|| format!("slot {slot} ends"));
            // What earlier slots needed is of no use any more.
            self.suspicions.retain(|(of, ..), _| *of > slot);
            self.signers.retain(|(of, _), _| of.0 + 2 > slot.0);
            self.evaluations.clear();
            self.decided.retain(|instance, _| instance.slot.0 + 2 > slot.0);
            while self.bodies.len() > KEPT_RECORDS {
                self.bodies.pop_first();
            }
        }
        let disk = &mut self.disks[j.position()];
        disk.state = Arc::new(after);
        disk.tries.record(&record.manifest, &record.assignments);
        disk.slot.clear();
        disk.agreement.retain(|record| record.instance.slot > slot);
        disk.records.insert(slot, record.clone());
        while disk.records.len() > KEPT_RECORDS {
            disk.records.pop_first();
        }
        let state = Arc::clone(&disk.state);
        schedule.input(j, 1, move |member, now| member.certified(state, &[record], now));
    }

    /// Gets the next record from whoever is reached and has it.
    fn fetch(&mut self, j: ParticipantIndex, schedule: &mut Schedule<Self>) {
        let next = Slot(self.disks[j.position()].state.last_slot().0 + 1);
        let (plan, now) = (&self.plan, schedule.now());
        let cut = |k| plan.conditions.partitions.iter().any(|partition| partition.cuts(j, k, now));
        let reached = |k: &ParticipantIndex| *k != j && !cut(*k);
        let mut others = plan.honest().filter(reached);
        let found = others.find_map(|k| self.disks[k.position()].records.get(&next).cloned());
        drop(others);
        if let Some(record) = found {
            self.report.count("record fetched");
            self.accept(j, record, schedule);
            schedule.event(Some(j), 10, move |cluster, schedule| cluster.fetch(j, schedule));
        }
    }

    pub(super) fn ended(mut self) -> SlotReport {
        self.report.bodiless = self.around.bodiless;
        let stored = self.disks.iter().map(|disk| disk.slot.len() + disk.agreement.len());
        self.report.largest_journal = stored.max().unwrap_or_default();
        self.report
    }
}
