//! Evidence between members: what the others keep is asked for.
//!
//! # Flow
//! 1. [`EvidenceExchange::run`] asks the members, one after the other, what evidence they keep, fetches
//!    what is not known here, and judges it like its own: a member's word counts for nothing.
//! 2. [`EvidenceExchange::run_votes`] asks the members after each certificate for the votes for it that
//!    they have. Two votes of one member, given to different members, meet there.
//!
//! # State
//! In the epoch's [`EvidenceStore`]; beside it the digests of what was asked for since the start, so that
//! what was refused, or is not kept because enough is, is not fetched again and again.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_recursion::async_recursion as boxed;
use rand::seq::SliceRandom;
use veil_node_core::{cluster::Views, epoch::ActiveEpoch};
use veil_node_p2p::{Network, Protocol};
use veil_node_storage::evidence::{EvidenceError, EvidenceStore, Kept, tell, verdict::Culprit};
use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, Slot, Wire,
    scheduling::SignedCertificateVote,
    sync::{SyncAnswer, SyncRequest},
};

/// Between two rounds of asking for evidence.
const EVIDENCE_INTERVAL: Duration = Duration::from_secs(60);
/// After a certificate, before the votes for it are asked for: by then the others have theirs.
const VOTES_DELAY: Duration = Duration::from_secs(2);
/// For one answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Pieces that are fetched from one member in one round.
const PIECES_AT_ONCE: usize = 16;
/// Digests that are remembered as asked for.
const MAX_ASKED: usize = 8192;

/// See the [module documentation](self).
#[derive(Clone)]
pub(crate) struct EvidenceExchange {
    network: Network,
    views: Views,
    epoch: Arc<ActiveEpoch>,
}

impl core::fmt::Debug for EvidenceExchange {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("EvidenceExchange").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl EvidenceExchange {
    /// Asks nobody yet.
    pub(crate) const fn new(network: Network, views: Views, epoch: Arc<ActiveEpoch>) -> Self {
        Self { network, views, epoch }
    }

    /// Asks for evidence until it is dropped.
    #[boxed]
    pub(crate) async fn run(self) {
        let mut asked = BTreeSet::new();
        loop {
            for member in self.members() {
                tokio::time::sleep(EVIDENCE_INTERVAL).await;
                if asked.len() > MAX_ASKED {
                    asked.clear();
                }
                self.ask_for_evidence(member, &mut asked).await;
            }
        }
    }

    /// Asks for votes until it is dropped.
    #[boxed]
    pub(crate) async fn run_votes(self) {
        let mut certificates = self.epoch.ledger.subscribe();
        let mut last = certificates.borrow_and_update().last_slot();
        while certificates.changed().await.is_ok() {
            tokio::time::sleep(VOTES_DELAY).await;
            let now = certificates.borrow_and_update().last_slot();
            // Catching up, nobody is asked for each of many slots.
            for slot in (last.0 + 1..=now.0).rev().take(2) {
                for member in self.members() {
                    self.ask_for_votes(member, Slot(slot)).await;
                }
            }
            last = now;
        }
    }

    /// The other members, in random order.
    fn members(&self) -> Vec<PeerIdHash> {
        let members = self.epoch.roster.iter().map(PeerIdHash::of);
        let mut members: Vec<_> = members.filter(|peer| *peer != self.network.me()).collect();
        members.shuffle(&mut rand::thread_rng());
        members
    }

    async fn ask(&self, member: PeerIdHash, request: SyncRequest) -> Option<SyncAnswer> {
        let asked =
            self.network.request(member, Protocol::Sync, request.to_wire(), ANSWER_DEADLINE);
        match asked.await.map(|answer| SyncAnswer::from_wire(&answer)) {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                tracing::warn!(%member, %error, "an answer about evidence was refused");
                None
            }
            Err(error) => {
                tracing::debug!(%member, %error, "no answer about evidence");
                None
            }
        }
    }

    async fn ask_for_evidence(&self, member: PeerIdHash, asked: &mut BTreeSet<Blake3Digest>) {
        let Some(answer) = self.ask(member, SyncRequest::EvidenceList).await else { return };
        let SyncAnswer::EvidenceList(listed) = answer else {
            tracing::warn!(%member, "the member did not answer with a list of evidence");
            return;
        };
        let here = self.stored(|store| store.list()).await.unwrap_or_default();
        let here: BTreeSet<_> = here.iter().map(|kept| kept.digest).collect();
        let new = |digest: &Blake3Digest| !here.contains(digest) && !asked.contains(digest);
        let wanted: Vec<_> = listed.into_iter().filter(new).take(PIECES_AT_ONCE).collect();
        for digest in wanted {
            asked.insert(digest);
            let answer = self.ask(member, SyncRequest::Evidence(digest)).await;
            let Some(SyncAnswer::Evidence(Some(evidence))) = answer else { continue };
            if evidence.digest() != digest {
                tracing::warn!(%member, %digest, "the member brought other evidence than it named");
                continue;
            }
            let view = self.views.current();
            let kept = self.stored(move |store| match store.judge(&evidence)?.culprit {
                // Made-up identities can sign anything.
                Culprit::Node(peer) if !view.nodes.contains_key(&peer) => Ok(Kept::Enough),
                _ => store.accept(&evidence),
            });
            match kept.await {
                Some(Kept::New(verdict)) => tell(&verdict),
                Some(Kept::Known | Kept::Enough) | None => {}
            }
        }
    }

    async fn ask_for_votes(&self, member: PeerIdHash, slot: Slot) {
        let answer = self.ask(member, SyncRequest::CertificateVotes(slot)).await;
        let Some(SyncAnswer::CertificateVotes(votes)) = answer else { return };
        let last = self.epoch.ledger.state().last_slot();
        let of_slot = |signed: &SignedCertificateVote| signed.vote.slot == slot;
        let votes: Vec<_> =
            votes.into_iter().filter(of_slot).take(self.epoch.committee.n()).collect();
        let found = self.stored(move |store| store.take_votes(&votes, last)).await;
        for evidence in found.unwrap_or_default() {
            if let Ok(verdict) = self.epoch.evidence.judge(&evidence) {
                tell(&verdict);
            }
        }
    }

    /// Does something with the store where waiting for the disk is allowed.
    async fn stored<T: Send + 'static>(
        &self,
        f: impl FnOnce(&EvidenceStore) -> Result<T, EvidenceError> + Send + 'static,
    ) -> Option<T> {
        let store = Arc::clone(&self.epoch.evidence);
        match tokio::task::spawn_blocking(move || f(&store)).await {
            Ok(Ok(done)) => Some(done),
            Ok(Err(error)) => {
                tracing::warn!(%error, "evidence or a vote is not taken");
                None
            }
            Err(_) => None, // the runtime is shutting down
        }
    }
}
