//! Taking in again what was stored before a restart.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use veil_committee_machine::{Effect, Millis};
use veil_protocol_spec::{
    Wire,
    agreement::{
        AgreementMessage, Instance,
        record::{Entry, Record},
    },
};

use super::{Agreement, KEPT_DECISIONS};
use crate::{effect::AgreementEffect, engine::Output, value::digest_of};

/// What is stored of the last decisions, oldest first: a member that starts a later instance after a
/// restart still answers those that ask about the ones before.
pub(super) fn decisions<'a, I: Iterator<Item = &'a Record>>(
    records: impl Fn() -> I,
) -> VecDeque<(Instance, Arc<[u8]>)> {
    let mut locks = BTreeMap::new();
    for record in records() {
        let decided = record.entries.iter().filter_map(|entry| match entry {
            Entry::Decided(lock) => Some((record.instance, lock)),
            _ => None,
        });
        locks.extend(decided);
        while locks.len() > KEPT_DECISIONS {
            locks.pop_first();
        }
    }
    let mut found = BTreeMap::new();
    for Record { instance, entries, .. } in records() {
        let Some(lock) = locks.get(instance) else { continue };
        for entry in entries {
            if let Entry::Value(bytes) = entry
                && digest_of(instance.subject, bytes) == lock.value
            {
                let lock = (*lock).clone();
                let message = AgreementMessage::Decision(lock, bytes.clone()).to_wire();
                found.insert(*instance, Arc::from(message));
            }
        }
    }
    found.into_iter().collect()
}

impl Agreement {
    pub(super) fn replay(&mut self, instance: Instance, entries: &[Entry], now: Millis) {
        let Some(run) = &mut self.run else { return };
        let mut decided = None;
        for entry in entries {
            match entry {
                Entry::Value(bytes) => {
                    // What is invalid is found so again.
                    let _ = run.hold(bytes.clone(), 0, &self.members);
                }
                Entry::Proposal(signed) => {
                    let round = signed.proposal.round;
                    run.proposals.entry(round).or_default().push(*signed);
                    if let Some(held) = run.held.get_mut(&signed.proposal.value)
                        && held.valid.is_none()
                    {
                        held.round = round;
                    }
                }
                // An equivocation was reported before.
                Entry::Vote(vote) => {
                    let _ = run.record_vote(vote);
                }
                Entry::Polka(votes) => {
                    for vote in votes {
                        let _ = run.record_vote(vote);
                    }
                }
                Entry::Validated { value, valid, .. } => {
                    if let Some(held) = run.held.get_mut(value) {
                        held.valid = Some(*valid);
                    }
                }
                Entry::Decided(lock) => decided = Some(lock.clone()),
                Entry::Started | Entry::Timeout(..) => {}
            }
        }
        if let Some(lock) = decided {
            // Stored already.
            self.conclude(lock);
            return;
        }
        let outputs = self.engine.replay(instance, entries).map(|outputs| {
            let round = self.engine.round();
            let due = |output: &Output| match output {
                Output::Append(entry) => !entries.contains(entry),
                Output::Vote(vote) => vote.vote.round == round,
                Output::Proposal(signed) => signed.proposal.round == round,
                Output::Polka(_) | Output::Round(_) | Output::GetValue(_) => false,
                Output::Schedule(_) | Output::Cancel(_) | Output::CancelAll | Output::Decide(_) => {
                    true
                }
            };
            outputs.into_iter().filter(due).collect()
        });
        self.absorb(outputs, now);
        let Some(run) = self.run.as_ref().filter(|r| r.decided.is_none() && !r.abstained) else {
            return;
        };
        let open: Vec<_> =
            run.held.iter().filter(|(_, held)| held.valid.is_none()).map(|(d, _)| *d).collect();
        for digest in open {
            self.request_validation(digest, false);
        }
        if self.engine.needs_proposal() {
            let round = self.engine.round();
            self.out.stage(Effect::Special(AgreementEffect::GetValue { instance, round }));
        }
    }
}
