//! What a node does about sealed parts of jobs (`sealed.md`): a member answers with its key and its share, any node asks
//! the members for their keys on behalf of an operator.
//!
//! # State and restart
//! None: a member's key is a function of its key share.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_recursion::async_recursion as boxed;
use rand::{RngCore, rngs::OsRng};
use veil_committee_sealed::member::{Known, SealingKey};
use veil_node_storage::jobs::Jobs;
use veil_protocol_spec::{
    Blake3Digest, Committee, PeerIdHash, PublicIdentity,
    identity::SecretIdentity,
    scheduling::{Binding, ClusterState},
    sealing::{SealingKeyAnnouncement, ShareAnswer, ShareRefusal, SignedShareRequest},
    sync::{SyncAnswer, SyncRequest},
};
use zeroize::Zeroizing;

use crate::cluster::Peers;

/// For the keys of members that do not answer: 2t+1 are enough to seal to.
const KEYS_DEADLINE: Duration = Duration::from_secs(5);
/// Jobs of which it is remembered whether their shares are right.
const CHECKED: usize = 65_536;

/// A member's key, and its word for it.
#[derive(Debug)]
pub struct Sealing {
    key: SealingKey,
    announcement: SealingKeyAnnouncement,
    /// Whether the share of a job is right, of those that were looked at.
    checked: Mutex<BTreeMap<Blake3Digest, bool>>,
}

impl Sealing {
    /// Of a member that takes part, which states the digest of the cluster's public key beside its own.
    #[must_use]
    pub fn new(key: SealingKey, public_key: Blake3Digest, identity: &SecretIdentity) -> Self {
        let announcement = key.announce(public_key, identity);
        Self { key, announcement, checked: Mutex::default() }
    }

    /// Step 1.
    #[must_use]
    pub const fn announcement(&self) -> &SealingKeyAnnouncement {
        &self.announcement
    }

    /// Step 4: whether this member proposes the job: nothing is sealed in it, or the share that was dealt to this
    /// member is right. Each job is looked at once.
    #[must_use]
    pub fn proposes(&self, job: &Blake3Digest, jobs: &Jobs) -> bool {
        if let Some(known) = self.checked().get(job) {
            return *known;
        }
        // Bodies and submissions are asked for one after the other: neither may be while the other is.
        let Some(body) = jobs.body(job) else { return false };
        let submissions = jobs.submissions_of(job);
        let own = submissions.iter().find(|submission| submission.operator == body.operator);
        let is_right = match own {
            _ if body.sealed_part().is_none() => true,
            Some(submission) => match self.key.deal(&body, submission) {
                Ok(_) => true,
                Err(refusal) => {
                    tracing::warn!(%job, %refusal, "this member does not propose the job");
                    false
                }
            },
            None => return false, // the chain does not list it yet
        };
        let mut checked = self.checked();
        if checked.len() >= CHECKED {
            checked.clear();
        }
        checked.insert(*job, is_right);
        is_right
    }

    /// Whether a job that this member has looked at was dealt to it wrongly, so that it does not propose it.
    pub(crate) fn was_dealt_wrongly(&self, job: &Blake3Digest) -> bool {
        self.checked().get(job) == Some(&false)
    }

    fn checked(&self) -> MutexGuard<'_, BTreeMap<Blake3Digest, bool>> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Step 6.
    pub(crate) fn answer(
        &self,
        asked: &SignedShareRequest,
        jobs: &Jobs,
        state: &ClusterState,
    ) -> ShareAnswer {
        let job = asked.request.job;
        let (submissions, body) = (jobs.submissions_of(&job), jobs.body(&job));
        let mut randomness = Zeroizing::new([0; 32]);
        OsRng.fill_bytes(&mut *randomness);
        let known = Known { state, submissions: &submissions, body: body.as_ref() };
        let answer = self.key.answer(asked, known, &randomness);
        let (replica, worker) = (asked.request.replica, PeerIdHash::of(&asked.worker));
        match &answer {
            ShareAnswer::Released { .. } => {
                tracing::info!(%job, %replica, %worker, "released this member's share");
            }
            ShareAnswer::Refused(refusal) => {
                tracing::info!(%job, %replica, %worker, %refusal, "kept this member's share");
            }
        }
        answer
    }
}

/// What a node that is no member, or does not take part yet, answers.
pub(crate) const NO_MEMBER: ShareAnswer = ShareAnswer::Refused(ShareRefusal::NotReady);

/// The members' words for their keys, as far as they answer, `own` among them. Whoever seals checks them against the
/// chain.
#[boxed]
pub(crate) async fn announced(
    peers: &Peers,
    binding: Binding,
    (committee, roster): (Committee, &[PublicIdentity]),
    own: Option<&Sealing>,
) -> Vec<SealingKeyAnnouncement> {
    let own = own.map(|own| own.announcement().clone());
    let mut found: BTreeMap<_, _> = own.into_iter().map(|own| (own.member, own)).collect();
    if found.len() < committee.n() {
        let asking = peers.ask_members(SyncRequest::SealingKey, |peer, answer| {
            let SyncAnswer::SealingKey(Some(announcement)) = answer else { return None };
            match announcement.verify(binding, committee, roster) {
                Ok(()) => _ = found.insert(announcement.member, *announcement),
                Err(error) => tracing::warn!(%peer, %error, "a sealing key is left out"),
            }
            (found.len() >= committee.n()).then_some(())
        });
        // Those that have answered by then are enough, or the operator is told that they are not.
        let _ = tokio::time::timeout(KEYS_DEADLINE, asking).await;
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests;
