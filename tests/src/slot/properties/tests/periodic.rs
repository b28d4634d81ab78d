//! Of periodic jobs.

use veil_protocol_spec::scheduling::{EndedReplica, Overlap, ReplicaExit, RunChange, RunStep};

use super::{super::periodic::PeriodicRuns, *};

/// Workers and a chain on which periodic jobs are wanted.
fn around() -> Surroundings {
    let scenario = SlotScenario { jobs: 60, periodic: 255, ..SlotScenario::default() };
    let rng = || ChaCha20Rng::from_seed([1; 32]);
    let mut around = Surroundings::new(1, rng(), rng(), &scenario, 4);
    around.tick(0, &ClusterState::default(), &mut SlotReport::default());
    around
}

/// A job of one replica that is run every minute, and overlaps so.
fn every_minute(around: &Surroundings, overlap: Overlap) -> Blake3Digest {
    let time = around.chain.head().time;
    let mut all = around.jobs.periodic().filter(|(job, timed)| {
        let often = timed.schedule.next(time).is_some_and(|next| next <= time + 60);
        let one = around.jobs.get(job).is_some_and(|job| job.replicas == 1);
        often && one && timed.overlap == overlap
    });
    *all.next().expect("one of many").0
}

/// A cluster that goes through slots with one job.
struct Run {
    around: Surroundings,
    job: Blake3Digest,
    state: ClusterState,
    runs: PeriodicRuns,
}

impl Run {
    /// The job is noted, and of nothing else is anything said.
    fn new(overlap: Overlap, plan: &SlotPlan) -> Self {
        let around = around();
        let job = every_minute(&around, overlap);
        let (state, runs) = (ClusterState::default(), PeriodicRuns::new(plan));
        let mut run = Self { around, job, state, runs };
        let time = run.latest();
        assert_eq!(run.slot(Some(RunStep::Noted { time })), [""; 0]);
        run
    }

    fn latest(&self) -> u64 {
        let (_, timed) = self.around.jobs.periodic().find(|(job, _)| **job == self.job).unwrap();
        timed.schedule.latest(self.around.chain.head().time).unwrap()
    }

    /// So many seconds after the beginning.
    fn at(&mut self, seconds: u64) {
        let (state, mut report) = (&self.state, SlotReport::default());
        self.around.tick(seconds * 1_000, state, &mut report);
    }

    fn manifest(&self, step: Option<RunStep>) -> Manifest {
        let slot = Slot(self.state.last_slot().0 + 1);
        let mut manifest = fixtures::manifest(binding(), slot, member(1), 1);
        manifest.previous = self.state.last_certificate();
        manifest.block = self.around.chain.head().block;
        let sender = self.around.workers[0].id;
        manifest.telemetry = vec![TelemetryEntry { sender, digest: Blake3Digest([2; 32]) }];
        manifest.runs = step.map(|step| RunChange { job: self.job, step }).into_iter().collect();
        manifest
    }

    /// What is violated of this job by a slot, which the cluster then is in.
    fn follow(&mut self, manifest: Manifest, placed: Vec<Assignment>) -> Vec<String> {
        let (record, after) = follow(&self.state, manifest, placed);
        let violations = self.check(&record, &after);
        self.state = after;
        violations
    }

    fn check(&mut self, record: &SlotRecord, after: &ClusterState) -> Vec<String> {
        let (chain, mut report) = (self.around.chain.head(), SlotReport::default());
        let states = (&self.state, after);
        self.runs.check(states, record, &self.around, Some(&chain), &mut report);
        let of_job = |violation: &String| violation.contains(&self.job.to_string());
        report.violations.into_iter().filter(of_job).collect()
    }

    fn slot(&mut self, step: Option<RunStep>) -> Vec<String> {
        self.follow(self.manifest(step), Vec::new())
    }

    /// Its replica gets a place.
    fn place(&mut self) {
        let (job, replica) = (self.job, ReplicaIndex(0));
        let mut manifest = self.manifest(None);
        manifest.pending =
            vec![PendingReplica { submission: 1, job, replica, only: None, candidates: SAMPLE }];
        let outcome = Outcome::Node(self.around.workers[0].id);
        let _ = self.follow(manifest, vec![Assignment { job, replica, outcome }]);
    }

    /// It has ended.
    fn end(&mut self) {
        let (job, replica) = (self.job, ReplicaIndex(0));
        let mut manifest = self.manifest(None);
        manifest.done = vec![EndedReplica { job, replica, exit: ReplicaExit::default() }];
        let _ = self.follow(manifest, Vec::new());
    }
}

fn one(violations: &[String], says: &str) {
    assert!(matches!(violations, [one] if one.contains(says)), "{says}: {violations:?}");
}

#[test]
fn a_time_that_is_run_twice_or_is_not_the_last_one_is_seen() {
    let mut run = Run::new(Overlap::Skip, &SlotPlan::new(4));
    run.at(60);
    let time = run.latest();
    assert_eq!(run.slot(Some(RunStep::Begins { time })), [""; 0]);
    // No state takes the same time again: what a member would have to store for that.
    let mut again = run.manifest(None);
    let (mut record, after) = follow(&run.state, again.clone(), Vec::new());
    again.runs = vec![RunChange { job: run.job, step: RunStep::Begins { time } }];
    record.manifest = again;
    let violations = run.check(&record, &after);
    assert!(violations.iter().any(|one| one.contains("again")), "{violations:?}");

    let honest = SlotPlan::new(4);
    let lies = SlotPlan::new(4).behaves(3, SlotBehaviour::BogusRuns);
    for (plan, expected) in [(honest, 1), (lies, 0)] {
        let mut run = Run::new(Overlap::Skip, &plan);
        run.at(180);
        let time = run.latest() - 60;
        let violations = run.slot(Some(RunStep::Begins { time }));
        assert_eq!(violations.len(), expected, "an appeal lets it pass: {violations:?}");
    }
}

#[test]
fn a_run_beside_another_and_one_that_is_left_out_for_none_are_seen() {
    for overlap in [Overlap::Skip, Overlap::Replace] {
        let (plan, skips) = (SlotPlan::new(4), overlap == Overlap::Skip);
        let mut run = Run::new(overlap, &plan);
        run.at(60);
        let time = run.latest();
        one(&run.slot(Some(RunStep::LeftOut { time })), "for no other");
        run.at(120);
        let time = run.latest();
        assert_eq!(run.slot(Some(RunStep::Begins { time })), [""; 0]);
        // Its replica waits for a place: it is under way.
        run.at(180);
        let time = run.latest();
        let violations = run.slot(Some(RunStep::Begins { time }));
        if skips {
            one(&violations, "beside another");
        } else {
            assert_eq!(violations, [""; 0]);
        }
        run.place();
        run.at(240);
        let time = run.latest();
        let violations = run.slot(Some(RunStep::LeftOut { time }));
        if skips {
            assert_eq!(violations, [""; 0]);
        } else {
            one(&violations, "for no other");
        }
        // It has ended.
        run.end();
        run.at(300);
        let time = run.latest();
        assert_eq!(run.slot(Some(RunStep::Begins { time })), [""; 0], "{overlap:?}");
    }
}

#[test]
fn a_time_of_which_an_honest_member_says_nothing_is_seen() {
    let deviates = SlotPlan::new(4).behaves(1, SlotBehaviour::ForgetRuns);
    for (plan, expected) in [(SlotPlan::new(4), 1), (deviates, 0)] {
        let mut run = Run::new(Overlap::Skip, &plan);
        assert_eq!(run.slot(None), [""; 0], "none has come since it is noted");
        run.at(60);
        assert_eq!(run.slot(None).len(), expected);
    }
}
