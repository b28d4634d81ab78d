//! What surrounds the members: disks, chain, workers; and what becomes of what they ask for.

mod certificates;
mod evaluation;
mod seen;

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use veil_committee_agreement::{Agreement, AgreementConfig, Timing, Validity};
use veil_committee_machine::{Millis, Verdict};
use veil_committee_slot::{SlotMachine, machine::SlotConfig, manifest::InvalidManifest};
use veil_committee_world::{Host, Mail, Schedule};
use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex, PublicIdentity, Slot, Wire,
    agreement::{Instance, record::Record},
    evidence::Proof,
    scheduling::{ClusterState, Manifest, ReferenceStringOrigin, SlotRecord},
    slot::SlotEntry,
};

use self::{
    certificates::{Certificates, FETCH},
    evaluation::Evaluations,
};
use super::{
    Phase, SlotBehaviour, SlotPlan, SlotReport,
    member::{Asked, Member, Need, Stored},
    messages,
    properties::{self, KEPT_BYTES, KEPT_MANIFESTS, Properties, SLOT},
    sight::Suspicions,
    workers::Surroundings,
};
use crate::{
    agreement::{binding, roster},
    fixtures,
};

/// Between two steps of the world around the members.
const TICK: Millis = 2_000;
/// For writing or validating a manifest.
const VALIDATION: Millis = 15;
/// For looking for what nobody has.
const NOBODY_HAS_IT: Millis = 3_000;
/// Old messages that members keep which send them again.
const HEARD: usize = 64;

const AGREEMENT: Timing = Timing {
    propose: 4_000,
    prevote: 500,
    precommit: 500,
    retry: 1_500,
    growth: 250,
    most: 10_000,
};

#[derive(Default)]
pub(super) struct Disk {
    slot: Vec<SlotEntry>,
    /// With the bytes of each.
    agreement: Vec<(usize, Record)>,
    /// Bytes of both.
    bytes: usize,
    pub(super) state: Arc<ClusterState>,
    pub(super) records: BTreeMap<Slot, Arc<SlotRecord>>,
}

impl Disk {
    /// Records of slots that are over are of no use.
    pub(super) fn prune(&mut self, over: Slot) {
        self.slot.clear();
        self.agreement.retain(|(_, record)| record.instance.slot > over);
        self.bytes = self.agreement.iter().map(|(bytes, _)| bytes).sum();
    }
}

/// The slot whose lock an entry is.
fn locked_slot(entry: &SlotEntry) -> Option<Slot> {
    match entry {
        SlotEntry::Locked(locked) => Some(locked.manifest.slot),
        SlotEntry::Opened { .. } | SlotEntry::Ended { .. } => None,
    }
}

pub(super) struct Cluster {
    pub(super) plan: SlotPlan,
    pub(super) seed: u64,
    pub(super) rng: ChaCha20Rng,
    pub(super) roster: Arc<Vec<PublicIdentity>>,
    pub(super) disks: Vec<Disk>,
    pub(super) around: Surroundings,
    pub(super) suspicions: Suspicions,
    pub(super) evaluations: Evaluations,
    pub(super) certificates: Certificates,
    pub(super) properties: Properties,
    pub(super) decided: BTreeMap<Instance, Blake3Digest>,
    /// Slots that ended void although they had something to place.
    pub(super) void_with_work: u64,
    /// Where each member is; `None` while its process is dead.
    phases: Vec<Option<(Slot, Phase)>>,
    now: Millis,
    /// What members that repeat old messages have seen.
    heard: Vec<Arc<[u8]>>,
    pub(super) report: SlotReport,
}

impl Host for Cluster {
    type Machine = Member;
    type Moment = Phase;

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
        let records = disk.agreement.iter().map(|(_, record)| record.clone()).collect();
        let agreement = Agreement::new(config, identity, records)
            .expect("roster, committee and identity are of one fixture");
        let origin = ReferenceStringOrigin::Committee;
        let config = SlotConfig { me: j, origin, timing: SLOT };
        let state = Arc::clone(&disk.state);
        let slot = SlotMachine::new(config, state, disk.slot.clone(), schedule.now());
        self.report.count("boot");
        let behaviour = self.plan.behaviours.get(&j).copied();
        let member = Member::new(j, committee, behaviour, slot, agreement);
        self.phases[j.position()] = Some((member.slot(), member.phase()));
        Some(member)
    }

    fn crashed(&mut self, j: ParticipantIndex, machine: &Member, storing: bool) {
        self.phases[j.position()] = None;
        self.report.crashed(j, machine.phase(), storing);
        self.look_who_is_connected();
    }

    fn store(&mut self, j: ParticipantIndex, record: Stored) {
        // As journals do: bytes, not memory.
        let disk = &mut self.disks[j.position()];
        let bytes = match record {
            Stored::Slot(entry) => {
                let slot = locked_slot(&entry);
                if slot.is_some() && disk.slot.iter().any(|known| locked_slot(known) == slot) {
                    self.report.violate(format!("{j} stores a second lock of one slot"));
                }
                let wire = entry.to_wire();
                disk.slot.push(SlotEntry::from_wire(&wire).expect("an entry reads back"));
                wire.len()
            }
            Stored::Agreement(record) => {
                let wire = record.to_wire();
                let record = Record::from_wire(&wire).expect("a record reads back");
                disk.agreement.push((wire.len(), record));
                wire.len()
            }
        };
        disk.bytes += bytes;
        let report = &mut self.report;
        // A record holds one manifest at most.
        report.largest_manifest_bytes = report.largest_manifest_bytes.max(bytes);
        report.largest_journal_bytes = report.largest_journal_bytes.max(disk.bytes);
        let most = KEPT_MANIFESTS * report.largest_manifest_bytes + KEPT_BYTES;
        if disk.bytes > most {
            let bytes = disk.bytes;
            report.violate(format!("{j} has stored {bytes} bytes: at most {most}"));
        }
    }

    fn special(&mut self, j: ParticipantIndex, asked: Asked, schedule: &mut Schedule<Self>) {
        self.now = schedule.now();
        match asked {
            Asked::Sight(need) => {
                let sight = self.sight(j, self.around.chain.head(), schedule.now());
                let delay = if matches!(need, Need::Observe) { 1 } else { VALIDATION };
                schedule.input(j, delay, move |member, now| member.see(need, &sight, now));
            }
            Asked::Validate { digest, manifest, author, appeal } => {
                let valid = self.judge(j, &manifest, author, appeal, schedule.now());
                let (delay, validity) = valid;
                schedule
                    .input(j, delay, move |member, now| member.validated(digest, validity, now));
            }
            Asked::Evaluate { locked, step, opened } => {
                self.evaluate(j, &locked, (step, &opened), schedule);
            }
            Asked::Finished(record) => {
                self.report.count("record completed");
                self.accept(j, &record, schedule);
            }
            Asked::Record(record) => self.accept(j, &record, schedule),
            Asked::CatchUp => {
                self.report.count("behind");
                schedule.event(Some(j), FETCH, move |cluster, schedule| cluster.fetch(j, schedule));
            }
            Asked::Report(proof) => self.convict(j, &proof),
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
            self.certificates.signs(mail.from, slot, digest);
        }
        let Some(behaviour) = self.plan.behaviours.get(&mail.from).copied() else {
            return schedule.post(mail, 0);
        };
        if self.heard.len() < HEARD {
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

    fn moment(machine: &Member) -> Option<Phase> {
        Some(machine.phase())
    }

    fn is_over<'a>(&mut self, machines: impl Iterator<Item = &'a Member>) -> bool {
        for member in machines {
            let here = Some((member.slot(), member.phase()));
            let known = &mut self.phases[member.me().position()];
            if let Some((slot, phase)) = here.filter(|_| *known != here) {
                *known = here;
                self.report.count(&format!("phase {phase}"));
                self.properties.reached(slot, phase, self.now);
            }
        }
        let last = Slot(self.plan.scenario.slots);
        self.plan.scenario.until.is_some_and(|until| self.now >= until)
            || self.plan.honest().all(|j| self.disks[j.position()].state.last_slot() >= last)
    }

    fn describe(bytes: &[u8]) -> Cow<'static, str> {
        messages::describe(bytes).into()
    }
}

impl Cluster {
    pub(super) fn new(plan: SlotPlan, seed: u64) -> Self {
        let rng = |purpose| ChaCha20Rng::from_seed(fixtures::draw(seed, purpose, 0));
        let n = plan.committee.n();
        let (of_workers, of_jobs) = (rng("slot surroundings"), rng("slot jobs"));
        Self {
            seed,
            rng: rng("slot cluster"),
            roster: Arc::new(roster(plan.committee, seed)),
            disks: (0..n).map(|_| Disk::default()).collect(),
            around: Surroundings::new(seed, of_workers, of_jobs, &plan.scenario, n),
            suspicions: Suspicions::default(),
            evaluations: Evaluations::default(),
            certificates: Certificates::default(),
            properties: Properties::new(&plan),
            decided: BTreeMap::new(),
            void_with_work: 0,
            phases: vec![None; n],
            now: 0,
            heard: Vec::new(),
            report: SlotReport::default(),
            plan,
        }
    }

    /// A member reports what convicts another one to anybody.
    fn convict(&mut self, j: ParticipantIndex, proof: &Proof) {
        let Proof::Agreement(equivocation) = proof else {
            return self.report.violate(format!("{j} reports what nothing here can show"));
        };
        match equivocation.convict(&binding(), self.plan.committee, &self.roster) {
            Ok(culprit) if self.plan.is_honest(culprit) => {
                self.report.violate(format!("{j} convicts {culprit}, which is honest"));
            }
            Ok(_) => self.report.count("equivocation proved"),
            Err(error) => self.report.violate(format!("{j} reports what proves nothing: {error}")),
        }
    }

    pub(super) fn deviated(&mut self, j: ParticipantIndex, phase: &str) {
        if let Some(behaviour) = self.plan.behaviours.get(&j) {
            self.report.misbehaved(*behaviour, phase);
        }
    }

    /// Whether a member's process runs.
    pub(super) fn is_up(&self, j: ParticipantIndex) -> bool {
        self.phases[j.position()].is_some()
    }

    /// Whether two members reach each other.
    pub(super) fn reach(&self, a: ParticipantIndex, b: ParticipantIndex, now: Millis) -> bool {
        let partitions = &self.plan.conditions.partitions;
        a == b || !partitions.iter().any(|partition| partition.cuts(a, b, now))
    }

    fn look_who_is_connected(&mut self) {
        let now = self.now;
        let up: Vec<_> = self.plan.honest().filter(|j| self.is_up(*j)).collect();
        let reached = |j: &ParticipantIndex| up.iter().filter(|k| self.reach(*j, **k, now)).count();
        let most = up.iter().map(reached).max().unwrap_or_default();
        if most < self.plan.committee.signing_threshold().get() {
            self.properties.apart(now);
        }
    }

    /// One step of the world around the members, and the next ones.
    pub(super) fn tick(&mut self, schedule: &mut Schedule<Self>) {
        let now = schedule.now();
        self.now = now;
        let best = Arc::clone(self.best());
        self.around.tick(now, &best, &mut self.report);
        self.anchor(&best, now);
        self.look_who_is_connected();
        let Self { properties, around, report, .. } = self;
        properties.check_end(best.last_slot(), now, report);
        properties.check_lost(&best, around, now, report);
        let there = self.plan.committee.participants().filter(|j| self.is_up(*j));
        for j in there.collect::<Vec<_>>() {
            let sight = self.sight(j, self.around.chain.head(), now);
            let delay = self.rng.gen_range(0..TICK / 2);
            schedule.input(j, delay, move |member, now| member.see(Need::Observe, &sight, now));
            if now.is_multiple_of(5 * TICK) {
                schedule.event(Some(j), delay, move |cluster, schedule| cluster.fetch(j, schedule));
            }
        }
        schedule.event(None, TICK, Self::tick);
    }

    fn anchor(&mut self, best: &ClusterState, now: Millis) {
        let Self { plan, around, phases, .. } = self;
        let is_up = |j: &ParticipantIndex| phases[j.position()].is_some();
        let deviates = |j: &ParticipantIndex| {
            plan.behaviours.get(j) == Some(&SlotBehaviour::AnchorOldest) && is_up(j)
        };
        if let Some(j) = plan.committee.participants().find(deviates)
            && around.chain.anchor_oldest()
        {
            return self.deviated(j, "the anchoring");
        }
        let every = plan.scenario.anchor_every;
        around.chain.anchor_if_due(best, every, plan.committee, plan.honest().filter(is_up), now);
    }

    /// The latest state that an honest member has.
    fn best(&self) -> &Arc<ClusterState> {
        let states = self.plan.honest().map(|j| &self.disks[j.position()].state);
        states.max_by_key(|state| state.last_slot()).expect("somebody is honest")
    }

    /// What a member says of a manifest, and after how long.
    fn judge(
        &mut self,
        j: ParticipantIndex,
        manifest: &Manifest,
        author: ParticipantIndex,
        appeal: bool,
        now: Millis,
    ) -> (Millis, Validity) {
        let validated = self.validate(j, manifest, author, appeal, now);
        let delay = match &validated {
            Err(InvalidManifest::Unknown(_)) => NOBODY_HAS_IT,
            _ => VALIDATION,
        };
        if let Err(reason) = &validated {
            self.report.refuse("manifest", &reason.to_string());
            let of_done = matches!(reason, InvalidManifest::Differs(what) if ["done", "given back", "of runs"].iter().any(|list| what.contains(list)));
            if of_done && self.plan.is_honest(author) {
                self.report.violate(format!("{j} refuses a manifest of {author}: {reason}"));
            }
        }
        let refuses = self.plan.behaviours.get(&j) == Some(&SlotBehaviour::RefuseManifests);
        if refuses {
            self.deviated(j, "the validation of manifests");
        }
        let valid = validated.is_ok() && !refuses;
        (delay, if valid { Validity::Valid } else { Validity::Invalid })
    }

    pub(super) fn into_report(mut self, now: Millis) -> SlotReport {
        let plan = &self.plan;
        let crashing = plan.crashes.iter().map(|crash| crash.participant);
        let deviating = plan.behaviours.keys().chain(&plan.absent).copied();
        let disturbing: std::collections::BTreeSet<_> = deviating.chain(crashing).collect();
        let few = disturbing.len() <= plan.committee.max_faulty().get();
        if few && plan.conditions.partitions.is_empty() {
            properties::check_void(self.void_with_work, &mut self.report);
        }
        self.report.elapsed = now;
        self.report.bodiless = self.around.jobs.bodiless;
        self.report.anchored = self.around.chain.transactions;
        self.report
    }
}
