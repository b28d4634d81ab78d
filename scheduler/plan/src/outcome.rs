//! What the committee's plaintexts mean.
//!
//! The outcome of a replica is the number of a worker, not one bit for each: with N workers it
//! takes ceil(log16(N + 1)) blocks to squash and decrypt instead of about N/4. Exactly one winner,
//! or none, is then a matter of form; a number that is no worker's can be wrong, and [`decode`]
//! refuses it. Where replica after replica is opened, it is the number among those that were asked
//! ([`Course`]).

use std::collections::BTreeSet;

use veil_protocol_spec::{
    Blake3Digest, ReplicaIndex,
    scheduling::{Assignment, AssignmentError, Assignments, CircuitId, Manifest, Outcome},
};

use crate::{
    inputs::{PlanError, PublicInputs},
    plan::Plan,
    threshold::course::{Course, NobodyNamed},
};

/// Why decrypted blocks are not an outcome of the manifest. Nothing is assigned then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum DecodeError {
    /// The manifest cannot be evaluated.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The blocks are not as many as the circuit puts out.
    #[error("{found} decrypted blocks, the circuit puts out {expected}: wrong request decrypted?")]
    Count { found: usize, expected: usize },
    /// A block has more than 4 bits.
    #[error("decrypted block {0} is no digit of 4 bits")]
    Digit(usize),
    /// The manifest has no worker of this number, which counts from 1.
    #[error("replica {replica} of job {job} is assigned to worker number {number}: there is none")]
    NoSuchWorker { job: Blake3Digest, replica: ReplicaIndex, number: usize },
    /// The worker must not take the replica, by public rules.
    #[error("replica {replica} of job {job} is assigned to worker number {number}, no candidate")]
    NoCandidate { job: Blake3Digest, replica: ReplicaIndex, number: usize },
    /// Two replicas of a job that keeps them apart are in one failure domain.
    #[error("two replicas of job {job} are assigned to worker number {number} against its rules")]
    Together { job: Blake3Digest, number: usize },
    /// The manifest names a replica twice.
    #[error(transparent)]
    Assignments(#[from] AssignmentError),
    /// An answer that names nobody who was asked about.
    #[error(transparent)]
    NobodyNamed(#[from] NobodyNamed),
    /// What was opened does not lead to it.
    #[error("the manifest's circuit has no such outcome: it is of another manifest")]
    NotReached,
}

/// The assignments that stand for what was opened of a slot, step by step, under the circuit that its manifest names.
///
/// # Errors
/// [`DecodeError`] if it is no outcome of this manifest; never a partial result.
pub fn read(
    manifest: &Manifest,
    public: &PublicInputs,
    opened: &[Vec<u8>],
) -> Result<Assignments, DecodeError> {
    if manifest.circuit.version != CircuitId::THRESHOLDS {
        return decode(manifest, public, &opened.concat());
    }
    let plan = Plan::new(manifest, public)?;
    let mut course = Course::new(&plan);
    for digits in opened {
        let &[digit] = digits.as_slice() else {
            return Err(DecodeError::Count { found: digits.len(), expected: 1 });
        };
        if course.stage().is_none() {
            return Err(DecodeError::NotReached);
        }
        course.opened(digit)?;
    }
    // Without telemetry nothing is asked, and all stay pending.
    if course.stage().is_some() {
        return Err(DecodeError::NotReached);
    }
    let outcomes = course.outcome().iter().zip(&manifest.pending).map(|(worker, pending)| {
        let entry = worker.and_then(|worker| manifest.telemetry.get(worker));
        let outcome = entry.map_or(Outcome::Pending, |entry| Outcome::Node(entry.sender));
        Assignment { job: pending.job, replica: pending.replica, outcome }
    });
    let mut assignments: Vec<_> = outcomes.collect();
    assignments.sort_unstable_by_key(|assignment| (assignment.job, assignment.replica));
    Ok(assignments.try_into()?)
}

/// What was opened of a slot that ended so, step by step: winners are public, and everything that is opened
/// follows from them. Whoever evaluates a slot again needs no more than its record.
///
/// # Errors
/// [`DecodeError`] if the slot cannot have ended so.
pub fn openings(
    manifest: &Manifest,
    public: &PublicInputs,
    assignments: &Assignments,
) -> Result<Vec<Vec<u8>>, DecodeError> {
    let plan = Plan::new(manifest, public)?;
    let placed: Vec<_> = manifest
        .pending
        .iter()
        .map(|pending| {
            let found = assignments.as_slice().iter().find(|assignment| {
                (assignment.job, assignment.replica) == (pending.job, pending.replica)
            });
            let Outcome::Node(worker) = found?.outcome else { return None };
            manifest.telemetry.binary_search_by_key(&worker, |entry| entry.sender).ok()
        })
        .collect();
    let opened = if manifest.circuit.version == CircuitId::THRESHOLDS {
        Course::answers(&plan, &placed).into_iter().map(|digit| vec![digit]).collect()
    } else {
        Vec::from([encode(&plan, &placed)])
    };
    // What names another worker than those that were asked leads elsewhere.
    if read(manifest, public, &opened)? == *assignments {
        Ok(opened)
    } else {
        Err(DecodeError::NotReached)
    }
}

/// The assignments that decrypted output blocks, each 0 to 15, stand for.
///
/// # Errors
/// [`DecodeError`] if they are not an outcome of this manifest; never a partial result.
pub fn decode(
    manifest: &Manifest,
    public: &PublicInputs,
    blocks: &[u8],
) -> Result<Assignments, DecodeError> {
    let plan = Plan::new(manifest, public)?;
    let (found, expected) = (blocks.len(), plan.output_digits());
    if found != expected {
        return Err(DecodeError::Count { found, expected });
    }
    if let Some(index) = blocks.iter().position(|digit| *digit > 0xf) {
        return Err(DecodeError::Digit(index));
    }
    let mut steps: Vec<_> = plan.steps.iter().collect();
    steps.sort_unstable_by_key(|step| step.position);
    let mut numbers = blocks.chunks(plan.digits_per_replica());
    let mut taken = BTreeSet::new();
    let mut assignments = Vec::with_capacity(steps.len());
    for (step, pending) in steps.into_iter().zip(&manifest.pending) {
        let (job, replica) = (pending.job, pending.replica);
        let digits =
            if step.candidates.is_empty() { None } else { numbers.next() }.unwrap_or_default();
        let number = digits.iter().rev().fold(0, |number, digit| number << 4 | usize::from(*digit));
        let outcome = match number.checked_sub(1) {
            None => Outcome::Pending,
            Some(worker) => {
                let entry = manifest.telemetry.get(worker).ok_or(DecodeError::NoSuchWorker {
                    job,
                    replica,
                    number,
                })?;
                if !step.candidates.contains(&worker) {
                    return Err(DecodeError::NoCandidate { job, replica, number });
                }
                if plan.rules(step).hard && !taken.insert((job, plan.rules(step).domains[worker])) {
                    return Err(DecodeError::Together { job, number });
                }
                Outcome::Node(entry.sender)
            }
        };
        assignments.push(Assignment { job, replica, outcome });
    }
    assignments.sort_unstable_by_key(|assignment| (assignment.job, assignment.replica));
    Ok(assignments.try_into()?)
}

/// The digits that the circuit puts out where its [twin](crate::cleartext::place) finds `outcome`: what
/// [`decode`] reads back.
#[must_use]
pub fn encode(plan: &Plan, outcome: &[Option<usize>]) -> Vec<u8> {
    let mut steps: Vec<_> = plan.steps.iter().collect();
    steps.sort_unstable_by_key(|step| step.position);
    let evaluated = steps.into_iter().filter(|step| !step.candidates.is_empty());
    let number =
        |position: usize| outcome.get(position).copied().flatten().map_or(0, |worker| worker + 1);
    evaluated
        .flat_map(|step| {
            let number = number(step.position);
            (0..plan.digits_per_replica()).map(move |k| ((number >> (4 * k)) & 0xf) as u8)
        })
        .collect()
}
