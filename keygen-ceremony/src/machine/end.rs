//! How an attempt ends for a member: by its ABORT, or by the commit point's decision.

use veil_protocol_spec::ceremony::{AbortReason, Payload, Round, SignedMessage};

use super::{
    Ceremony,
    failure::{Failed, Failure},
    interface::{AbortReport, CeremonyEffect, CommitPoint, Outcome, Record, Stage},
    state::{Finished, State},
};
use crate::transcript::FinishCertificate;

/// The commit point says that the key is valid. (If it says that the attempt expired, the key share
/// is not among the records because it is void: a restart alone cannot tell.)
const NO_KEY_SHARE: &str = "FINISH was signed but the key share is missing from the records; this seat stays empty until the next epoch";

impl Ceremony {
    /// What the commit point decided. Before this member signed FINISH only expiry has an effect.
    pub fn handle_commit_point(&mut self, decision: CommitPoint) {
        let signed_root = self.log.finish_root(self.setup.me);
        match decision {
            _ if self.has_ended() => {}
            CommitPoint::Published(certificate) => {
                if let State::Finish(key) | State::AwaitCommitPoint(key) = &mut self.state
                    && signed_root == Some(certificate.root)
                    && certificate.verify(&self.setup.parameters).is_ok()
                {
                    let key = core::mem::take(key);
                    self.keep_finishes(&certificate);
                    self.complete(key, *certificate);
                }
            }
            CommitPoint::Expired if signed_root.is_some() => {
                self.fail(self.stage(), AbortReason::Expired);
            }
            CommitPoint::Expired => self.abort(AbortReason::Expired),
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, State::Completed(_) | State::Aborted)
    }

    /// Signs ABORT, unless FINISH was signed: "a member signs either ABORT or FINISH(root), persisted
    /// before sending, never both".
    pub(super) fn abort(&mut self, reason: AbortReason) {
        if !self.has_ended() && self.log.finish_root(self.setup.me).is_none() {
            self.end(Failure::Abort(reason).of(self.stage()));
        }
    }

    /// Ends the attempt after a step that failed. No step fails after FINISH.
    pub(super) fn end(&mut self, Failed { stage, failure }: Failed) {
        let reason = match failure {
            Failure::Abort(reason) => {
                let abort = Payload::Abort(reason.clone());
                match self.send_own(Round::Abort, None, abort) {
                    Ok(()) => reason,
                    Err(failure) => failure.reason(),
                }
            }
            diverged @ Failure::Diverged(_) => diverged.reason(),
        };
        self.fail(stage, reason);
    }

    /// After a restart: what was signed ends the attempt for this member, as it did before.
    pub(super) fn resume_aborted(&mut self, own: Vec<SignedMessage>, reason: AbortReason) {
        own.into_iter().for_each(|message| self.log.insert_own(message));
        if let Some(abort) = self.log.get(Round::Abort, self.setup.me).cloned() {
            self.broadcast(&abort);
        }
        self.fail(Stage::Aborted, reason);
    }

    /// The state that is left erases the secrets that it holds: everything that, with the
    /// transcript, would recompute what must not be recomputed.
    fn fail(&mut self, stage: Stage, reason: AbortReason) {
        self.state = State::Aborted;
        self.deadline = None;
        self.next_retry = None;
        if self.key_share_made {
            self.ask(CeremonyEffect::VoidKeyShare);
        }
        let evidence = core::mem::take(&mut self.evidence);
        self.ask(CeremonyEffect::Abort(Box::new(AbortReport { reason, stage, evidence })));
    }

    /// The commit point may know of a FINISH before it arrives here. It belongs to the transcript: "the
    /// FINISH signatures of all n members over one root".
    fn keep_finishes(&mut self, certificate: &FinishCertificate) {
        for message in certificate.messages(self.setup.committee()) {
            if self.log.get(Round::Finish, message.header.sender) != Some(&message) {
                self.persist(Record::Message(Box::new(message.clone())));
                self.log.insert(message);
            }
        }
    }

    fn complete(&mut self, key: Finished, certificate: FinishCertificate) {
        let Some(key_share) = &key.key_share else {
            let detail = NO_KEY_SHARE.to_owned();
            return self.fail(self.stage(), AbortReason::Local { detail });
        };
        let outcome = Outcome { key_set: key_share.origin().key_set, certificate };
        self.state = State::Completed(key);
        self.deadline = None;
        self.next_retry = None;
        self.ask(CeremonyEffect::Complete(Box::new(outcome)));
    }
}
