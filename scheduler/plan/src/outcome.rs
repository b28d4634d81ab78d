//! What the committee's plaintexts mean.
//!
//! The outcome of a replica is the number of a worker, not one bit for each: with N workers it
//! takes ceil(log16(N + 1)) blocks to squash and decrypt instead of about N/4. Exactly one winner,
//! or none, is then a matter of form; a number that is no worker's can be wrong, and [`decode`]
//! refuses it.

use core::num::NonZeroU8;
use std::collections::BTreeSet;

use veil_protocol_spec::{
    Blake3Digest, ReplicaIndex,
    scheduling::{Assignment, AssignmentError, Assignments, Manifest, Outcome},
};

use crate::{
    inputs::{PlanError, PublicInputs},
    plan::Plan,
};

/// How many times a slot is evaluated and opened under [this circuit](crate::circuit): what an evaluation puts
/// out, once opened, is a public input of the next, and the digits of the last one are the outcome.
pub const CIRCUIT_STEPS: NonZeroU8 = NonZeroU8::MIN;

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
