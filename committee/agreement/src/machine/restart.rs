//! Taking in again what was stored of a slot before a restart.

use veil_committee_machine::{Effect, Millis};
use veil_protocol_spec::{Slot, agreement::record::Entry};

use super::Agreement;
use crate::{effect::AgreementEffect, engine::Output};

impl Agreement {
    pub(super) fn replay(&mut self, slot: Slot, entries: &[Entry], now: Millis) {
        let Some(run) = &mut self.run else { return };
        let mut decided = None;
        for entry in entries {
            match entry {
                Entry::Manifest(bytes) => {
                    // What is invalid is found so again.
                    let _ = run.hold(bytes.clone(), 0, &self.members);
                }
                Entry::Proposal(signed) => {
                    let round = signed.proposal.round;
                    run.proposals.entry(round).or_default().push(*signed);
                    if let Some(held) = run.held.get_mut(&signed.proposal.manifest)
                        && held.valid.is_none()
                    {
                        held.round = round;
                    }
                }
                Entry::Vote(vote) => drop(run.record_vote(vote)),
                Entry::Validated { manifest, valid, .. } => {
                    if let Some(held) = run.held.get_mut(manifest) {
                        held.valid = Some(*valid);
                    }
                }
                Entry::Decided(lock) => decided = Some(lock.clone()),
                Entry::Started | Entry::Polka(_) | Entry::Timeout(..) => {}
            }
        }
        if let Some(lock) = decided {
            // Stored already.
            self.conclude(lock);
            return;
        }
        let outputs = self.engine.replay(slot, entries).map(|outputs| {
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
            self.out.stage(Effect::Special(AgreementEffect::GetValue { slot, round }));
        }
    }
}
