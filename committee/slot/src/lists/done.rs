//! Which replicas of batch jobs have ended, by what their workers say.

use std::collections::BTreeMap;

use veil_protocol_spec::{
    Address, Blake3Digest, ReplicaIndex,
    scheduling::{EndedReplica, LeavingReplica, MAX_DONE, MAX_DONE_OF_OPERATOR, MAX_RUNNING},
};

use super::{Lists, NextReplicas, Wanted};

impl Lists<'_> {
    /// Rule 6.
    pub(super) fn done(
        &self,
        wanted: &BTreeMap<Blake3Digest, Wanted<'_>>,
        next: &mut NextReplicas,
    ) {
        if self.inputs.ended.is_empty() {
            return;
        }
        let operators = self.operators();
        let mut kept: BTreeMap<Option<&Address>, usize> = BTreeMap::new();
        let mut all = 0;
        for (job, ..) in self.state.done() {
            *kept.entry(operators.get(&job)).or_default() += 1;
            all += 1;
        }
        for (job, replica, placement) in self.state.replicas() {
            let ended = self.inputs.ended.get(&placement.worker);
            let found = ended.and_then(|ended| {
                let at = ended.binary_search_by_key(&(job, replica), EndedReplica::key);
                ended.get(at.ok()?)
            });
            let Some((ended, wanted)) = found.zip(wanted.get(&job)) else { continue };
            let listed = self.inputs.judged.map(|judged| judged.done.contains(&job));
            match (wanted.demand, listed) {
                // "A job that is not listed is no objection": its body may be known to nobody else.
                (None, None | Some(false)) => continue,
                (None, Some(true)) => {
                    next.unknown.push(job);
                    continue;
                }
                (Some(demand), _) if !demand.is_batch => continue,
                (Some(_), Some(false)) if self.inputs.judged.is_some_and(|of| of.in_appeal) => {
                    continue;
                }
                (Some(_), _) => {}
            }
            let kept = kept.entry(operators.get(&job)).or_default();
            if all < MAX_DONE && *kept < MAX_DONE_OF_OPERATOR {
                (all, *kept) = (all + 1, *kept + 1);
                next.done.push(*ended);
            }
        }
    }

    /// Whose each job is, as far as it concerns how many of them are done: who submitted it first. The chain
    /// alone says that, so that it is the same for those who do not know its body.
    pub(super) fn operators(&self) -> BTreeMap<Blake3Digest, Address> {
        let mut first: BTreeMap<Blake3Digest, (u64, Address)> = BTreeMap::new();
        for submission in self.inputs.submissions {
            let this = (submission.position, submission.operator);
            let known = first.entry(submission.job).or_insert(this);
            *known = (*known).min(this);
        }
        first.into_iter().map(|(job, (_, operator))| (job, operator)).collect()
    }

    /// What is done of jobs that nobody wants any more needs not be remembered.
    pub(super) fn forgotten(
        &self,
        submitted: impl Fn(&Blake3Digest) -> bool,
        leaving: &mut Vec<LeavingReplica>,
    ) {
        let room = MAX_RUNNING.saturating_sub(leaving.len());
        let over = self.state.done().filter(|(job, ..)| !submitted(job));
        leaving.extend(over.map(|(job, replica, _)| LeavingReplica { job, replica }).take(room));
        leaving.sort_unstable();
    }
}

impl NextReplicas {
    pub(super) fn becomes_done(&self, job: Blake3Digest, replica: ReplicaIndex) -> bool {
        self.done.binary_search_by_key(&(job, replica), EndedReplica::key).is_ok()
    }
}
