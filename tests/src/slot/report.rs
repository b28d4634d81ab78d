//! What happened in a run.

use std::collections::BTreeMap;

use serde::Serialize;
use veil_committee_machine::Millis;
use veil_protocol_spec::{
    ParticipantIndex, Wire,
    scheduling::{Outcome, SlotRecord},
};

use super::{Phase, SlotBehaviour, WorkerBehaviour};

/// Most violations that are told.
const TOLD: usize = 20;

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SlotReport {
    /// Slots with a certificate.
    pub slots_ended: u64,
    /// Of those, the ones that had something to place.
    pub with_work: u64,
    /// Replicas that were placed.
    pub placed: u64,
    /// Slots that ended void.
    pub void: u64,
    /// Slots by the version of their circuit.
    pub circuits: BTreeMap<u32, u64>,
    /// Most openings of a slot.
    pub most_openings: usize,
    /// Whether slots stopped before as many had ended as were wanted.
    pub halted: bool,
    /// What must not happen and did.
    pub violations: Vec<String>,
    /// How often each misbehaviour in each phase, each crash point, each refusal and each event
    /// occurred.
    pub occurred: BTreeMap<String, u64>,
    /// Digests that were submitted without a body.
    pub bodiless: u64,
    /// Certificates that were brought on chain.
    pub anchored: u64,
    /// The longest that a replica was without a worker, from the loss to the certificate, while there
    /// was room; virtual milliseconds.
    pub longest_loss_ms: Millis,
    /// The longest slot, from the first member in it to the first certificate; virtual milliseconds.
    pub longest_slot_ms: Millis,
    /// Bytes of the largest record.
    pub largest_record_bytes: usize,
    /// Bytes of the largest manifest.
    pub largest_manifest_bytes: usize,
    /// Most bytes that a member had stored of slots that were not over, and of the last decisions.
    pub largest_journal_bytes: usize,
    /// Virtual milliseconds.
    pub elapsed: Millis,
    /// Hash of everything that happened, if it was recorded.
    pub trace: Option<String>,
}

impl SlotReport {
    pub(super) fn count(&mut self, what: &str) {
        self.add(what, 1);
    }

    pub(super) fn add(&mut self, what: &str, times: u64) {
        match self.occurred.get_mut(what) {
            Some(count) => *count += times,
            None => drop(self.occurred.insert(what.to_owned(), times)),
        }
    }

    /// What has not occurred is not there: a run says no zero of what nobody asked of it.
    pub(super) fn add_if_any(&mut self, what: &str, times: u64) {
        if times > 0 {
            self.add(what, times);
        }
    }

    pub(super) fn misbehaved(&mut self, behaviour: SlotBehaviour, phase: &str) {
        self.count(&format!("{behaviour:?} in {phase}"));
    }

    pub(super) fn worker_misbehaved(&mut self, behaviour: WorkerBehaviour) {
        self.count(&format!("worker: {behaviour:?}"));
    }

    pub(super) fn crashed(&mut self, j: ParticipantIndex, phase: Phase, storing: bool) {
        self.count(&format!("crash of {j} in {phase}"));
        if storing {
            self.count("crash before a record is durable");
        }
    }

    /// Counts a refusal by its kind: numbers and digests left out.
    pub(super) fn refuse(&mut self, what: &str, reason: &str) {
        let is_word = |word: &&str| !word.chars().any(|c| c.is_ascii_digit());
        let words: Vec<_> = reason.split(' ').filter(is_word).collect();
        self.count(&format!("{what}: {}", words.join(" ")));
    }

    pub(super) fn violate(&mut self, what: String) {
        if self.violations.len() < TOLD {
            self.violations.push(what);
        }
    }

    pub(super) fn ended(&mut self, record: &SlotRecord, now: Millis) {
        self.slots_ended += 1;
        self.elapsed = now;
        let outcomes = record.assignments.as_slice().iter();
        let placed = outcomes.filter(|assignment| assignment.outcome != Outcome::Pending);
        self.placed += placed.count() as u64;
        self.void += u64::from(record.certificate.body.is_void());
        *self.circuits.entry(record.manifest.circuit.version).or_default() += 1;
        self.with_work += u64::from(!record.manifest.pending.is_empty());
        self.largest_record_bytes = self.largest_record_bytes.max(record.to_wire().len());
    }

    /// Adds what happened in another run.
    pub fn merge(&mut self, other: &Self) {
        self.slots_ended += other.slots_ended;
        self.with_work += other.with_work;
        self.placed += other.placed;
        self.void += other.void;
        for (version, slots) in &other.circuits {
            *self.circuits.entry(*version).or_default() += slots;
        }
        self.most_openings = self.most_openings.max(other.most_openings);
        self.halted |= other.halted;
        self.violations.extend(other.violations.iter().cloned());
        for (what, times) in &other.occurred {
            self.add(what, *times);
        }
        self.bodiless += other.bodiless;
        self.anchored += other.anchored;
        self.longest_loss_ms = self.longest_loss_ms.max(other.longest_loss_ms);
        self.longest_slot_ms = self.longest_slot_ms.max(other.longest_slot_ms);
        self.largest_record_bytes = self.largest_record_bytes.max(other.largest_record_bytes);
        self.largest_manifest_bytes = self.largest_manifest_bytes.max(other.largest_manifest_bytes);
        self.largest_journal_bytes = self.largest_journal_bytes.max(other.largest_journal_bytes);
        self.elapsed += other.elapsed;
    }
}
