//! Certificates: who takes them, who lacks them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use veil_committee_machine::Millis;
use veil_committee_world::Schedule;
use veil_protocol_spec::{
    Blake3Digest, KeccakDigest, ParticipantIndex, Slot,
    scheduling::{ClusterState, SlotRecord},
};

use super::{super::messages, Cluster};

/// For fetching records.
pub(in crate::slot) const FETCH: Millis = 1_000;
/// Records kept for members that were away.
const KEPT_RECORDS: usize = 64;

/// What is known of the certificates of the last slots.
#[derive(Default)]
pub(in crate::slot) struct Certificates {
    /// Who said that it signs what.
    signers: BTreeMap<(Slot, Blake3Digest), BTreeSet<ParticipantIndex>>,
    /// What the certificate of a slot says.
    bodies: BTreeMap<Slot, KeccakDigest>,
    /// The state after the last one, computed once for all members.
    after: Option<(KeccakDigest, Arc<ClusterState>)>,
}

impl Certificates {
    pub(in crate::slot) fn signs(
        &mut self,
        member: ParticipantIndex,
        slot: Slot,
        digest: Blake3Digest,
    ) {
        self.signers.entry((slot, digest)).or_default().insert(member);
    }
}

impl Cluster {
    /// Whether 2t+1 members have signed what the certificate says.
    fn is_signed(&self, record: &SlotRecord) -> bool {
        let body = &record.certificate.body;
        let digest = Blake3Digest(*body.signing_digest().as_bytes());
        let Certificates { signers, bodies, .. } = &self.certificates;
        // Who signed what is forgotten when a slot is over.
        let known = bodies.get(&body.slot) == Some(&body.hash());
        let signers = signers.get(&(body.slot, digest)).map_or(0, BTreeSet::len);
        let needed = self.plan.committee.signing_threshold().get();
        record.certificate.signature == messages::signature(digest) && (known || signers >= needed)
    }

    pub(in crate::slot) fn accept(
        &mut self,
        j: ParticipantIndex,
        record: &Arc<SlotRecord>,
        schedule: &mut Schedule<Self>,
    ) {
        let slot = record.manifest.slot;
        if slot <= self.disks[j.position()].state.last_slot() {
            return;
        }
        match self.after(j, record) {
            Ok(after) => self.keep(j, record, after, schedule),
            Err(reason) => {
                self.report.refuse("record", &reason);
                // One before it may be missing.
                schedule.event(Some(j), FETCH, move |cluster, schedule| cluster.fetch(j, schedule));
            }
        }
    }

    /// The state after a record, if it is a certified slot that follows member `j`'s state.
    fn after(
        &mut self,
        j: ParticipantIndex,
        record: &SlotRecord,
    ) -> Result<Arc<ClusterState>, String> {
        let committee = self.plan.committee;
        let before = &self.disks[j.position()].state;
        record.verify_structure(committee).map_err(|error| error.to_string())?;
        record.lock.verify(committee, &self.roster).map_err(|error| error.to_string())?;
        if !self.is_signed(record) {
            return Err("the group did not sign".to_owned());
        }
        // One body, which names its predecessor, follows one state: it is enough that one member
        // computes it.
        let body = record.certificate.body.hash();
        let known = self.certificates.after.as_ref().filter(|(of, _)| *of == body);
        match known.filter(|_| before.last_certificate() == record.manifest.previous) {
            Some((_, after)) => Ok(Arc::clone(after)),
            None => {
                let after = Arc::new(before.follow(record).map_err(|error| error.to_string())?);
                self.certificates.after = Some((body, Arc::clone(&after)));
                Ok(after)
            }
        }
    }

    fn keep(
        &mut self,
        j: ParticipantIndex,
        record: &Arc<SlotRecord>,
        after: Arc<ClusterState>,
        schedule: &mut Schedule<Self>,
    ) {
        let slot = record.manifest.slot;
        let body = record.certificate.body.hash();
        let first = !self.certificates.bodies.contains_key(&slot);
        if *self.certificates.bodies.entry(slot).or_insert(body) != body {
            self.report.violate(format!("two certificates of slot {slot}"));
        }
        if first {
            self.ended(j, record, &after, schedule);
        }
        let disk = &mut self.disks[j.position()];
        disk.state = Arc::clone(&after);
        disk.prune(slot);
        disk.records.insert(slot, Arc::clone(record));
        while disk.records.len() > KEPT_RECORDS {
            disk.records.pop_first();
        }
        schedule.input(j, 1, move |member, now| member.certified(after, now));
    }

    /// The first certificate of a slot, at member `j`.
    fn ended(
        &mut self,
        j: ParticipantIndex,
        record: &SlotRecord,
        after: &ClusterState,
        schedule: &mut Schedule<Self>,
    ) {
        let (slot, now) = (record.manifest.slot, schedule.now());
        let Self { around, properties, report, disks, evaluations, .. } = self;
        report.ended(record, now);
        if let Err(reason) = evaluations.follows_from(record) {
            report.violate(format!("slot {slot}: {reason}"));
        }
        let before = &disks[j.position()].state;
        properties.check_change((before, after), record, around, now, report);
        properties.ended(slot, now, report);
        if record.certificate.body.is_void() && !record.manifest.pending.is_empty() {
            self.void_with_work += 1;
        }
        around.chain.certified(&record.certificate.body);
        schedule.record(|| format!("slot {slot} ends"));
        // What earlier slots needed is of no use any more.
        around.drop_bundle();
        self.suspicions.forget(slot);
        self.evaluations.clear();
        let Certificates { signers, bodies, .. } = &mut self.certificates;
        signers.retain(|(of, _), _| of.0 + 2 > slot.0);
        self.decided.retain(|instance, _| instance.slot.0 + 2 > slot.0);
        while bodies.len() > KEPT_RECORDS {
            bodies.pop_first();
        }
    }

    /// Gets the next record from whoever is reached and has it.
    pub(in crate::slot) fn fetch(&mut self, j: ParticipantIndex, schedule: &mut Schedule<Self>) {
        let next = Slot(self.disks[j.position()].state.last_slot().0 + 1);
        let now = schedule.now();
        let others = self.plan.honest().filter(|k| *k != j && self.reach(j, *k, now));
        let found = others.filter_map(|k| self.disks[k.position()].records.get(&next)).next();
        if let Some(record) = found.cloned() {
            self.report.count("record fetched");
            self.accept(j, &record, schedule);
            if self.disks[j.position()].state.last_slot() == next {
                schedule.event(Some(j), 10, move |cluster, schedule| cluster.fetch(j, schedule));
            }
        }
    }
}
