//! What is asked next, given what was opened: public, and the same for everybody.
//!
//! # Flow
//! 1. [`Course::new`] begins with the plan's first replica.
//! 2. [`Course::stage`] says what is asked. Its answer is opened, and [`Course::opened`] told.
//! 3. When there is no stage any more, [`Course::outcome`] is what was placed where.
//!
//! # Rules
//! They are those of [`Plan`], replica by replica, with
//! - what a worker was promised in this slot added to what it must have free;
//! - its score by `spread` lowered by one for each replica that it was given in this slot, not below the
//!   lowest;
//! - no replica with an encrypted request for a worker that was given any in this slot, and none for one that
//!   was given such a replica: what it would have to have free is not a public number.

use core::cmp::Reverse;
use std::collections::BTreeMap;

use veil_protocol_spec::scheduling::{Quantity, SchedulingPolicy};

use super::{
    first::{digit_of, member},
    question::{Candidate, GROUP, Question},
};
use crate::{
    plan::Plan,
    rules::{JobRules, Need, RESOURCES},
};

/// What a worker was promised in this slot.
#[derive(Clone, Copy, Debug, Default)]
struct Promised {
    units: [u8; RESOURCES],
    replicas: u8,
    /// Whether one of them has an encrypted request.
    unknown: bool,
}

/// A slot's questions, one after the other.
#[derive(Clone, Debug)]
pub struct Course<'a> {
    plan: &'a Plan,
    step: usize,
    /// About the current step, the next one last.
    questions: Vec<Question>,
    path: Vec<usize>,
    /// By worker.
    promised: Vec<Promised>,
    /// By failure domain of the current job: its replicas placed in this slot.
    placed: Vec<u16>,
    outcome: Vec<Option<usize>>,
}

/// What is evaluated and opened next.
#[derive(Clone, Copy, Debug)]
pub struct Stage<'a> {
    /// Of which replica, and who may take it.
    pub question: &'a Question,
    /// What was opened of the question so far: members of groups, from the topmost.
    pub path: &'a [usize],
}

/// An opened digit names nobody who was asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the digit {digit} opened for replica {position} of the manifest names none of {members}")]
pub struct NobodyNamed {
    /// Position in the manifest's pending list.
    pub position: usize,
    /// The digit.
    pub digit: u8,
    /// How many were asked about.
    pub members: usize,
}

impl<'a> Course<'a> {
    /// Before anything is opened.
    #[must_use]
    pub fn new(plan: &'a Plan) -> Self {
        let mut course = Self {
            plan,
            step: 0,
            questions: Vec::new(),
            path: Vec::new(),
            promised: vec![Promised::default(); plan.workers],
            placed: Vec::new(),
            outcome: vec![None; plan.replicas],
        };
        course.ask();
        course
    }

    /// After these digits were opened, in order.
    ///
    /// # Errors
    /// [`NobodyNamed`] of the first that is no answer.
    pub fn after(
        plan: &'a Plan,
        opened: impl IntoIterator<Item = u8>,
    ) -> Result<Self, NobodyNamed> {
        let mut course = Self::new(plan);
        opened.into_iter().try_for_each(|digit| course.opened(digit))?;
        Ok(course)
    }

    /// What is opened, in order, where every replica goes to the worker that `outcome` has by position in the
    /// manifest's pending list, if that one is asked about.
    #[must_use]
    pub fn answers(plan: &'a Plan, outcome: &[Option<usize>]) -> Vec<u8> {
        let (mut course, mut answers) = (Self::new(plan), Vec::new());
        while let Some(Stage { question, path }) = course.stage() {
            let step = &plan.steps[question.step];
            let wanted = outcome.get(step.position).copied().flatten();
            let candidates = question.candidates.iter();
            let at = wanted.and_then(|wanted| candidates.clone().position(|c| c.worker == wanted));
            let digit = at.map_or(0, |at| {
                let below = question.openings() - 1 - path.len();
                let node = (0..below).fold(at, |node, _| node / GROUP);
                digit_of(question.members(path).len(), node - question.members(path).start)
            });
            answers.push(digit);
            if course.opened(digit).is_err() {
                break; // not of what `digit_of` makes
            }
        }
        answers
    }

    /// What is asked next; `None` at the end.
    #[must_use]
    pub fn stage(&self) -> Option<Stage<'_>> {
        let question = self.questions.last()?;
        Some(Stage { question, path: &self.path })
    }

    /// What was placed so far, by position in the manifest's pending list: the position of a worker in its
    /// telemetry, or nothing.
    #[must_use]
    pub fn outcome(&self) -> &[Option<usize>] {
        &self.outcome
    }

    /// The answer to the current stage was opened. Without a stage nothing happens.
    ///
    /// # Errors
    /// [`NobodyNamed`] if it is no answer; the course is then as before.
    pub fn opened(&mut self, digit: u8) -> Result<(), NobodyNamed> {
        let Some(question) = self.questions.last() else { return Ok(()) };
        let members = question.members(&self.path);
        if digit == 0 && self.path.is_empty() {
            self.questions.pop();
        } else {
            let count = members.len();
            let named = member(count, digit).ok_or_else(|| NobodyNamed {
                position: self.plan.steps[self.step].position,
                digit,
                members: count,
            })?;
            self.path.push(named);
            // Of one member there is nothing to ask.
            while self.path.len() < question.openings() && question.members(&self.path).len() == 1 {
                self.path.push(0);
            }
            if self.path.len() < question.openings() {
                return Ok(());
            }
            let winner = self.path.iter().fold(0, |node, member| node * GROUP + member);
            let winner = question.candidates.get(winner).map(|winner| winner.worker);
            self.path.clear();
            self.questions.clear();
            if let Some(winner) = winner {
                self.promise(winner);
            }
        }
        if self.questions.is_empty() {
            self.step += 1;
            self.ask();
        }
        Ok(())
    }

    /// Goes on to the first step from here that somebody may take.
    fn ask(&mut self) {
        while let Some(step) = self.plan.steps.get(self.step) {
            let rules = self.plan.rules(step);
            if step.first_of_job {
                self.placed = vec![0; rules.running.len()];
            }
            let mut by_level: BTreeMap<Reverse<u8>, Vec<Candidate>> = BTreeMap::new();
            for worker in step.candidates.iter().copied() {
                let placed = rules.domains.get(worker).and_then(|domain| self.placed.get(*domain));
                let placed = placed.copied().unwrap_or(0);
                let level = rules.level(worker, step.previous, placed);
                if let Some(candidate) = self.candidate(rules, worker, placed) {
                    by_level.entry(Reverse(level)).or_default().push(candidate);
                }
            }
            let of_level = |candidates| Question { step: self.step, candidates };
            self.questions = by_level.into_values().map(of_level).collect();
            self.questions.reverse();
            if !self.questions.is_empty() {
                return;
            }
            self.step += 1;
        }
    }

    /// Unless public rules alone say that the worker cannot take a replica of the job.
    fn candidate(&self, rules: &JobRules, worker: usize, placed: u16) -> Option<Candidate> {
        let Promised { units, replicas, unknown } = self.promised.get(worker)?;
        if unknown | (rules.hard && placed > 0) {
            return None;
        }
        let mut least = [0; RESOURCES];
        match rules.need {
            Need::Encrypted if *replicas > 0 => return None,
            Need::Encrypted => {}
            Need::Clear(need) => {
                for ((least, need), units) in least.iter_mut().zip(need).zip(units) {
                    let sum = need.checked_add(*units).filter(|sum| *sum <= Quantity::MAX);
                    *least = match (need, sum) {
                        (0, _) => 0,
                        (_, sum) => sum?,
                    };
                }
            }
        }
        let lowered = if rules.policy == SchedulingPolicy::Spread { *replicas } else { 0 };
        Some(Candidate { worker, least, lowered })
    }

    fn promise(&mut self, winner: usize) {
        let step = &self.plan.steps[self.step];
        let rules = self.plan.rules(step);
        self.outcome[step.position] = Some(winner);
        if let Some(placed) = rules.domains.get(winner).and_then(|d| self.placed.get_mut(*d)) {
            *placed = placed.saturating_add(1);
        }
        let Some(promised) = self.promised.get_mut(winner) else { return };
        promised.replicas = promised.replicas.saturating_add(1);
        match rules.need {
            Need::Encrypted => promised.unknown = true,
            Need::Clear(need) => {
                for (units, need) in promised.units.iter_mut().zip(need) {
                    *units = units.saturating_add(need);
                }
            }
        }
    }
}
