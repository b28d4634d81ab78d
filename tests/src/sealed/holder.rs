//! A member of the committee, as far as it holds a share of a sealed part.

use std::{collections::VecDeque, convert::Infallible, sync::Arc};

use veil_committee_machine::{Effect, Machine, Millis, no_messages};
use veil_committee_sealed::member::{Known, SealingKey};
use veil_protocol_spec::{
    ParticipantIndex,
    scheduling::{ClusterState, JobSpec, Submission},
    sealing::{ShareAnswer, SignedShareRequest},
};

use super::operator::forged;
use crate::malicious::wrong_release::WrongRelease;

/// An answer to one question.
pub(super) struct Answer {
    pub(super) question: usize,
    /// None of a member that keeps silent.
    pub(super) answer: Option<ShareAnswer>,
    /// How the member deviated, if an honest one would have said something else, or sooner.
    pub(super) deviates: Option<WrongRelease>,
}

/// A member: it answers by the newest state that has reached it.
pub(super) struct Holder {
    key: SealingKey,
    member: ParticipantIndex,
    job: Arc<JobSpec>,
    submission: Submission,
    behaviour: Option<WrongRelease>,
    state: Arc<ClusterState>,
    answers: VecDeque<Answer>,
}

impl Holder {
    pub(super) fn new(
        (key, member): (SealingKey, ParticipantIndex),
        job: Arc<JobSpec>,
        submission: Submission,
        behaviour: Option<WrongRelease>,
        state: Arc<ClusterState>,
    ) -> Self {
        Self { key, member, job, submission, behaviour, state, answers: VecDeque::new() }
    }

    /// A certificate has reached it.
    pub(super) fn learn(&mut self, state: Arc<ClusterState>) {
        if state.last_slot() > self.state.last_slot() {
            self.state = state;
        }
    }

    /// A question has reached it.
    pub(super) fn ask(
        &mut self,
        question: usize,
        asked: &SignedShareRequest,
        randomness: &[u8; 32],
    ) {
        let submissions = [self.submission];
        let (state, body) = (&*self.state, Some(&*self.job));
        let known = Known { state, submissions: &submissions, body };
        let (own, forged) = ((&self.key, self.member), |worker| forged(&asked.request, worker));
        let honest = self.key.answer(asked, known, randomness);
        let (answer, deviates) = match self.behaviour {
            None => (Some(honest), None),
            Some(how) => {
                let answer = how.instead(own, asked, known, forged, randomness);
                let deviates = how.delay() > 0 || answer.as_ref() != Some(&honest);
                (answer, Some(how).filter(|_| deviates))
            }
        };
        self.answers.push_back(Answer { question, answer, deviates });
    }
}

impl Machine for Holder {
    type Record = Infallible;
    type Special = Answer;
    no_messages!();

    fn handle_timeout(&mut self, _: Millis) {}

    fn poll_timeout(&self) -> Option<Millis> {
        None
    }

    fn poll_effect(&mut self) -> Option<Effect<Infallible, Answer>> {
        self.answers.pop_front().map(Effect::Special)
    }
}
