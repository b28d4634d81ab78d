//! A fixed set of runs in which everything occurs at least once: each misbehaviour in each phase, each
//! hostile worker, each crash point, each refusal.

use veil_committee_world::{Conditions, Partition, When};

use super::{Demand, Outage, Phase, SlotBehaviour, SlotPlan, SlotReport, WorkerBehaviour};
use crate::plan::member;

/// Refusals and events that the runs must show, beside what is listed by misbehaviour and phase:
/// numbers and digests are left out of the sentences.
const EXPECTED: [&str; 57] = [
    "a member's clock steps",
    "a worker's clock steps",
    "appeal",
    "behind",
    "crash before a record is durable",
    "drain",
    "drain with a deadline",
    "equivocation proved",
    "fault: participant it signed two different messages for one place",
    "first run begins",
    "list of lost workers full",
    "manifest: it leaves out worker whose fresh telemetry this member has",
    "manifest: it names another list of pending replicas than this member knows",
    "manifest: it names another list of replicas that are done than this member knows",
    "manifest: it names another list of replicas that are given back than this member knows",
    "manifest: it names another list of runs than this member knows",
    "manifest: it names another previous certificate than this member knows",
    "manifest: member did not sign that worker is lost",
    "manifest: this member could not get telemetry",
    "manifest: this member could not get the block",
    "manifest: this member could not get the body of job",
    "message cut off by a partition",
    "message lost",
    "periodic job forgotten",
    "periodic job noted",
    "record completed",
    "record fetched",
    "record: the manifest builds on certificate the last one here is",
    "replica done",
    "replica drained",
    "replica given back and moved",
    "replica given back and stopped",
    "replica of a lost worker",
    "replica of the run before stopped",
    "replica withdrawn",
    "room of a run before is used",
    "room of what is done is used",
    "run follows one that is over",
    "run left out",
    "run replaces the one before",
    "skipped: AgreementMessage is malformed or truncated",
    "skipped: the message is a repetition",
    "skipped: the message is this member's own",
    "telemetry: is not a registered worker of this cluster",
    "telemetry: more often than at the least interval",
    "telemetry: sequence number of is not after",
    "telemetry: the sample of is ms ahead of this clock: check both clocks",
    "telemetry: the sample of is ms old: at most",
    "telemetry: the signature does not verify under this identity",
    "replica stopped after its notice",
    "time passed over, since a later one has come",
    "unhealthy replica given back",
    "worker counted as lost",
    "worker cut off",
    "worker dies",
    "worker leaves the registry",
    "worker lost in an outage",
];

/// Those whose crashes are listed.
const MEMBERS: [u8; 4] = [1, 2, 3, 4];

/// The runs, with their seeds.
#[must_use]
pub fn catalogue() -> Vec<(SlotPlan, u64)> {
    let mut runs = Vec::new();
    for (seed, behaviour) in (1..).zip(SlotBehaviour::ALL) {
        // Something must run before it can be forgotten, and end.
        let slots = match behaviour {
            SlotBehaviour::ForgetRunning => 12,
            SlotBehaviour::ForgetEnded | SlotBehaviour::ForgetGivenBack => 160,
            SlotBehaviour::ForgetRuns | SlotBehaviour::BogusRuns => 24,
            _ => 5,
        };
        let mut plan = SlotPlan::new(4).slots(slots).behaves(3, behaviour);
        plan.scenario.gives_back = behaviour == SlotBehaviour::ForgetGivenBack;
        if matches!(behaviour, SlotBehaviour::ForgetRuns | SlotBehaviour::BogusRuns) {
            plan = plan.periodic(255);
        }
        runs.push((plan, seed));
    }
    // The last times pass while the committee is cut in two.
    let groups = vec![vec![member(1), member(2)], vec![member(3), member(4)]];
    let partition = Partition { groups, from: 200_000, until: 400_000 };
    let periodic = SlotPlan::new(4).workers(6).jobs(12).periodic(220).gives_back();
    runs.push((periodic.slots(160).partition(partition), 53));
    let hostile = SlotPlan::new(4).workers(56).jobs(16).hostile(128);
    runs.push((hostile.clone().slots(12), 40));
    runs.push((hostile.slots(8).skew(10_000), 41));
    runs.push((SlotPlan::new(7).slots(6).workers(12).skew(100_000), 42));

    // Every member crashes once in every phase.
    for j in MEMBERS {
        let crashes = Phase::ALL
            .into_iter()
            .fold(SlotPlan::new(4), |plan, phase| plan.crash(j, When::At(phase), 3_000));
        runs.push((crashes.clone().slots(12), 60 + u64::from(j)));
        runs.push((crashes.slots(6).demand(Demand::Unplaceable), 70 + u64::from(j)));
    }
    let mut slow_disks = SlotPlan::new(4).slots(6);
    slow_disks.scenario.store = 200;
    for k in 0..12 {
        slow_disks = slow_disks.crash(1 + k % 4, When::Time(9_000 + 1_700 * u64::from(k)), 900);
    }
    runs.push((slow_disks, 45));

    runs.push((SlotPlan::new(4).slots(60).workers(12).jobs(16).gives_back(), 50));
    let groups = vec![vec![member(1), member(2), member(3)], vec![member(4)]];
    let partition = Partition { groups, from: 20_000, until: 90_000 };
    runs.push((SlotPlan::new(4).slots(12).partition(partition), 46));
    runs.push((SlotPlan::new(7).slots(6).absent(2).rough(80), 47));
    runs.push((SlotPlan::new(4).slots(60).workers(4).skew(9_000), 51));
    let mut outage = SlotPlan::new(4).slots(16).workers(330).jobs(12);
    outage.scenario.outage = Some(Outage { at: 30_000, workers: 300, away: 600_000 });
    runs.push((outage, 52));
    let slow = SlotBehaviour::Slow;
    runs.push((SlotPlan::new(4).slots(3).behaves(1, slow).behaves(2, slow), 48));
    let conditions = Conditions { latency: (100, 900), ..Conditions::default() };
    runs.push((SlotPlan::new(4).slots(4).network(conditions), 49));
    // Jobs are withdrawn while slots list them.
    runs.push((SlotPlan::drawn(6, (24, 24)).slots(40), 6));
    // More is wanted than fits: what is done makes room.
    runs.push((SlotPlan::new(4).workers(4).jobs(32).slots(60), 50));
    runs
}

/// What must have occurred in them.
#[must_use]
pub fn expected() -> Vec<String> {
    let deviations = SlotBehaviour::ALL.into_iter().flat_map(|behaviour| {
        behaviour.phases().iter().map(move |phase| format!("{behaviour:?} in {phase}"))
    });
    let workers =
        WorkerBehaviour::ALL.into_iter().map(|behaviour| format!("worker: {behaviour:?}"));
    let phases = Phase::ALL.into_iter().flat_map(|phase| {
        let crashes = MEMBERS.map(|j| format!("crash of {} in {phase}", member(j)));
        core::iter::once(format!("phase {phase}")).chain(crashes)
    });
    let rest = EXPECTED.into_iter().map(str::to_owned);
    deviations.chain(workers).chain(phases).chain(rest).collect()
}

/// All runs, added up; what has not occurred is there with a zero.
#[must_use]
pub fn run() -> SlotReport {
    let mut all = SlotReport::default();
    for (plan, seed) in catalogue() {
        all.merge(&plan.run(seed));
    }
    for what in expected() {
        all.occurred.entry(what).or_insert(0);
    }
    all
}
