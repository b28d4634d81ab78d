//! Sealed parts of jobs in the simulated world: an operator deals, members release, winners open and report, slots place
//! (`sealed.md`). Operator, t members and t workers may deviate together.
//!
//! ```
//! use veil_tests::{malicious::wrong_release::WrongRelease, sealed::SealedPlan};
//!
//! let report = SealedPlan::new(4).behaves(2, WrongRelease::OffPolynomial).run(1);
//! report.assert_holds();
//! assert_eq!(report.culprits.len(), 1);
//! ```
//!
//! # What is simulated
//! - A member has its real key, and the newest state that has reached it. Questions and answers travel as
//!   slowly as everything else.
//! - A worker that gets a replica asks all members, again after growing pauses, and opens or gives back, as a node's does.
//!   A lying one gives back whatever it gets. One more worker, the thief, gets nothing, and asks from the beginning.
//! - A slot lists what the rules of the slot say, if its proposer lists the job: an honest one whose share is wrong does
//!   not. What is pending goes to a worker that is drawn, and never to one that is barred.

mod cluster;
mod holder;
mod operator;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use veil_committee_world::{EventLog, World};
use veil_protocol_spec::{ParticipantIndex, Slot, scheduling::ClusterState};

use self::cluster::Cluster;
use crate::{
    malicious::{wrong_deal::WrongDeal, wrong_release::WrongRelease},
    plan::{Plan, Scenario},
};

/// What is sealed, for whom, and who lies about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedScenario {
    /// How the operator deals; rightly if nothing is said.
    pub deal: Option<WrongDeal>,
    /// Members that had announced no key when the job was sealed.
    pub left_out: BTreeSet<ParticipantIndex>,
    /// Workers 1, 2, ...
    pub workers: u8,
    /// Those that say of whatever they get that they cannot use it.
    pub lying: BTreeSet<u8>,
    /// Replicas of the job.
    pub replicas: u16,
}

impl Default for SealedScenario {
    /// An honest operator, and honest workers.
    fn default() -> Self {
        let (left_out, lying) = (BTreeSet::new(), BTreeSet::new());
        Self { deal: None, left_out, workers: 6, lying, replicas: 2 }
    }
}

impl Scenario for SealedScenario {
    type Behaviour = WrongRelease;
    type Moment = ();
}

/// A sealed job, and what goes wrong with it.
pub type SealedPlan = Plan<SealedScenario>;

impl SealedPlan {
    /// An operator that deals so.
    #[must_use]
    pub fn deals(mut self, deal: WrongDeal) -> Self {
        self.scenario.deal = Some(deal);
        self
    }

    /// A worker that lies.
    #[must_use]
    pub fn lies(mut self, worker: u8) -> Self {
        self.scenario.lying.insert(worker);
        self
    }

    /// A member without a share.
    #[must_use]
    pub fn without_share(mut self, member: u8) -> Self {
        self.scenario.left_out.insert(crate::plan::member(member));
        self
    }

    /// Whether a member's share is right.
    #[must_use]
    pub fn has_right_share(&self, member: ParticipantIndex) -> bool {
        let scenario = &self.scenario;
        let wrong = scenario.deal.as_ref().is_some_and(|deal| deal.is_wrong_for(member));
        !wrong && !scenario.left_out.contains(&member)
    }

    /// Goes through it.
    #[must_use]
    pub fn run(&self, seed: u64) -> SealedReport {
        let job = operator::job(self, seed);
        let physics = self.physics("sealed", seed);
        let host = Cluster::new(self, seed, &job);
        let mut world = World::new(host, self.committee, physics, self.crashes.clone());
        Cluster::begin(world.schedule());
        let ended = world.run();
        let Cluster { found, state, .. } = ended.host;
        let state = (*state).clone();
        let Found {
            opened,
            reported,
            culprits,
            deviations,
            thief_opened,
            others,
            placements,
            closed,
        } = found;
        SealedReport {
            opened,
            reported,
            culprits,
            deviations,
            thief_opened,
            others,
            placements,
            closed,
            state,
            plan: self.clone(),
            seed,
            log: ended.log,
        }
    }
}

/// What comes of it, while it goes on.
#[derive(Clone, Debug, Default)]
struct Found {
    opened: BTreeSet<u8>,
    reported: BTreeSet<u8>,
    culprits: BTreeSet<ParticipantIndex>,
    deviations: BTreeMap<WrongRelease, usize>,
    thief_opened: bool,
    others: usize,
    placements: BTreeMap<Slot, Vec<u8>>,
    closed: Option<Slot>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct SealedReport {
    /// Workers that opened what was sealed.
    pub opened: BTreeSet<u8>,
    /// Workers that gave a replica back since they could not.
    pub reported: BTreeSet<u8>,
    /// Members that gave what was not their share.
    pub culprits: BTreeSet<ParticipantIndex>,
    /// How often a member answered otherwise than an honest one would have.
    pub deviations: BTreeMap<WrongRelease, usize>,
    /// Whether somebody opened it that has no replica.
    pub thief_opened: bool,
    /// How often something else came out than was sealed.
    pub others: usize,
    /// Whom each slot gave a replica to.
    pub placements: BTreeMap<Slot, Vec<u8>>,
    /// The first slot that did not consider the job for its sealed part.
    pub closed: Option<Slot>,
    /// At the end.
    pub state: ClusterState,
    /// The plan.
    pub plan: SealedPlan,
    /// Seed of the run.
    pub seed: u64,
    /// What happened, event by event.
    pub log: EventLog,
}

impl SealedReport {
    /// What must hold and does not, whatever the operator, t members and t workers do.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let (plan, scenario) = (&self.plan, &self.plan.scenario);
        let needed = plan.committee.reconstruction_threshold().get();
        let is_right = |j: &ParticipantIndex| plan.has_right_share(*j);
        let right = plan.honest().filter(is_right).count();
        let present = plan.committee.participants().filter(|j| !plan.absent.contains(j));
        let at_most = present.filter(is_right).count();
        let dealt_wrongly = scenario.deal.as_ref().map_or(0, |deal| {
            let to = |j: &ParticipantIndex| !scenario.left_out.contains(j) && deal.is_wrong_for(*j);
            plan.honest().filter(to).count()
        });
        let ciphertext = scenario.deal.as_ref().is_none_or(WrongDeal::is_right_ciphertext);
        // Step 7: what t+1 members call wrong is, whatever others would have answered later.
        let deviating = plan.committee.participants().filter(|j| !plan.is_honest(*j)).count();
        let may_open = ciphertext && right >= needed;
        let must_open = may_open && dealt_wrongly + deviating < needed;
        let cannot_open = !ciphertext || at_most < needed;
        let is_found = !ciphertext && right >= needed || dealt_wrongly >= needed;
        let mut violations = Vec::new();
        let mut check = |holds: bool, what: &str| {
            if !holds {
                violations.push(what.to_owned());
            }
        };
        check(!self.thief_opened, "a worker without a replica opened the part");
        check(self.others == 0, "something else came out than was sealed");
        let honest = |j: &ParticipantIndex| plan.is_honest(*j);
        check(!self.culprits.iter().any(honest), "an honest member is named");
        check(
            self.closed.is_none() || scenario.deal.is_some(),
            "an honest operator's job is not considered",
        );
        if must_open {
            let lies = |worker: &u8| scenario.lying.contains(worker);
            let of_honest = self.reported.iter().all(lies);
            check(of_honest, "an honest worker reports a part that opens");
            check(self.closed.is_none(), "a job that opens is not considered");
            let placed = self.state.replicas().count();
            check(placed == usize::from(scenario.replicas), "a replica has no place");
        }
        if may_open {
            let open = |worker: &u8| self.opened.contains(worker);
            check(
                self.places().iter().all(open),
                "a replica is at a worker that has not opened it",
            );
        }
        if cannot_open {
            check(self.opened.is_empty(), "a worker opened what nobody can");
        }
        if cannot_open && is_found && !self.placements.is_empty() {
            check(self.closed.is_some(), "a job that nobody can open is placed for ever");
        }
        if let Some(closed) = self.closed {
            let later = self.placements.range(closed..).next();
            check(later.is_none(), "a job is placed after t+1 workers have reported it");
            check(self.reported.len() >= needed, "fewer than t+1 workers have made it pending");
        }
        violations
    }

    /// The workers that have the replicas at the end.
    #[must_use]
    pub fn places(&self) -> Vec<u8> {
        self.state.replicas().map(|(.., placement)| operator::number(&placement.worker)).collect()
    }

    /// Panics with all that is needed to repeat the run, unless all of it holds.
    ///
    /// # Panics
    /// If something does not.
    #[track_caller]
    pub fn assert_holds(&self) {
        let violations = self.violations();
        if !violations.is_empty() {
            let what = format!("{violations:#?}\n{:#?}", (&self.opened, &self.reported));
            self.plan.fail(&what, self.seed, &self.log);
        }
    }
}
