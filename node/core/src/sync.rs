//! Answers peers that were away: records, telemetry, bodies of jobs, the policy's weights, digests of key files, evidence, votes; workers
//! that hand replicas over: what serves here; and workers that have won a replica of a sealed job: a member's share.
//!
//! # Flow
//! [`SyncSource::serve`] takes [`SyncRequest`]s from the network. Jobs come from the job store; everything else
//! belongs to the epoch, and is refused until there is one: an empty answer would say that nothing
//! newer exists.
//!
//! A few answers are made at a time, and fewer for one peer: who asks much waits, and not the others.
//! The network bounds how many questions of one peer are in hand.

use std::{collections::HashMap, sync::Arc};

use async_recursion::async_recursion as boxed;
use tokio::sync::{Semaphore, watch};
use veil_node_api::progress::Progress;
use veil_node_p2p::{Network, Protocol};
use veil_node_storage::jobs::Jobs;
use veil_protocol_spec::{
    PeerIdHash, Wire,
    codec::Bytes,
    sync::{SyncAnswer, SyncRequest},
};
use veil_scheduler::write_public_key;

use crate::{epoch::ActiveEpoch, sealing::NO_MEMBER};

const UNREADABLE: &str = "the evidence store cannot be read here";

/// The epoch, once its key can be used.
pub type CurrentEpoch = watch::Receiver<Option<Arc<ActiveEpoch>>>;

/// Answers made at once: each reads and encodes up to 4 MiB.
const AT_ONCE: usize = 8;
/// Of them, for one peer.
const OF_ONE_PEER: usize = 2;
/// Peers that are remembered beyond those whose questions wait.
const REMEMBERED: usize = 256;

/// Whose turn it is.
#[derive(Default)]
struct Turns(HashMap<PeerIdHash, Arc<Semaphore>>);

impl Turns {
    fn of(&mut self, peer: PeerIdHash) -> Arc<Semaphore> {
        if self.0.len() > REMEMBERED {
            self.0.retain(|_, turns| Arc::strong_count(turns) > 1);
        }
        let turns = self.0.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(OF_ONE_PEER)));
        Arc::clone(turns)
    }
}

/// What this node can hand to peers.
#[derive(Clone, Debug)]
pub struct SyncSource {
    jobs: Arc<Jobs>,
    epoch: CurrentEpoch,
    progress: Arc<Progress>,
}

impl SyncSource {
    /// Answers from these.
    #[must_use]
    pub const fn new(jobs: Arc<Jobs>, epoch: CurrentEpoch, progress: Arc<Progress>) -> Self {
        Self { jobs, epoch, progress }
    }

    /// Answers requests until it is dropped.
    #[boxed]
    pub async fn serve(self, network: Network) {
        let mut requests = network.serve(Protocol::Sync);
        let (mut turns, all) = (Turns::default(), Arc::new(Semaphore::new(AT_ONCE)));
        while let Some(request) = requests.recv().await {
            let asked = match SyncRequest::from_wire(&request.bytes) {
                Ok(asked) => asked,
                Err(error) => {
                    request.refuse_as("malformed", error.to_string());
                    continue;
                }
            };
            let (source, of_peer, all) = (self.clone(), turns.of(request.from), Arc::clone(&all));
            tokio::spawn(async move {
                // Both fail only if they are closed, which nobody does.
                let (Ok(_one), Ok(_any)) = (of_peer.acquire().await, all.acquire().await) else {
                    return;
                };
                // Reading records waits for the disk.
                let answering = tokio::task::spawn_blocking(move || match source.answer(asked) {
                    Ok(answer) => request.responder.respond(answer.to_wire()),
                    Err(reason) => request.refuse_as("not_ready", reason),
                });
                let _ = answering.await; // a failure drops the request, which refuses it
            });
        }
    }

    fn epoch(&self) -> Result<Arc<ActiveEpoch>, &'static str> {
        self.epoch.borrow().clone().ok_or("this node is not ready: it has no key yet")
    }

    fn answer(&self, asked: SyncRequest) -> Result<SyncAnswer, &'static str> {
        Ok(match asked {
            SyncRequest::Job(digest) => {
                let kept = || self.epoch().ok()?.stores.as_ref()?.inputs.job(&digest).ok()?;
                SyncAnswer::Job(self.jobs.body(&digest).or_else(kept).map(Box::new))
            }
            SyncRequest::Records { after } => {
                let epoch = self.epoch()?;
                let answer = epoch.ledger.answer(after);
                let answer = answer.map_err(|_| "the ledger cannot be read here")?;
                let nothing = matches!(&answer, SyncAnswer::Records(records) if records.is_empty());
                if nothing && !epoch.is_up_to_date() {
                    return Err("the next certificate is being signed; ask again");
                }
                answer
            }
            SyncRequest::Telemetry(digest) => {
                let epoch = self.epoch()?;
                let found = epoch.pool().find(&digest).map(|found| found.telemetry.clone());
                let kept = || epoch.stores.as_ref()?.inputs.telemetry(&digest).ok()?;
                SyncAnswer::Telemetry(found.or_else(kept).map(Box::new))
            }
            SyncRequest::Weights(named) => {
                SyncAnswer::Weights(self.epoch()?.weights.kept(&named).map(Box::new))
            }
            SyncRequest::KeyFiles(key_set) => {
                let epoch = self.epoch()?;
                SyncAnswer::KeyFiles(epoch.files.filter(|_| epoch.binding.key_set == key_set))
            }
            SyncRequest::PublicKey(key_set) => {
                let epoch = self.epoch()?;
                let asked = (epoch.binding.key_set == key_set).then_some(&epoch.keys.public);
                let bytes = asked.map(write_public_key).transpose();
                let bytes = bytes.map_err(|_| "the public key cannot be written here")?;
                SyncAnswer::PublicKey(bytes.map(Bytes))
            }
            SyncRequest::EvidenceList => {
                let kept = self.epoch()?.evidence.list().map_err(|_| UNREADABLE)?;
                let digests = kept.iter().map(|kept| kept.digest);
                SyncAnswer::EvidenceList(digests.take(SyncAnswer::MAX_EVIDENCE).collect())
            }
            SyncRequest::Evidence(digest) => {
                let found = self.epoch()?.evidence.find(&digest).map_err(|_| UNREADABLE)?;
                SyncAnswer::Evidence(found.map(Box::new))
            }
            SyncRequest::BlocksOpened => {
                SyncAnswer::BlocksOpened(*self.epoch()?.blocks_opened.borrow())
            }
            SyncRequest::Running => {
                let mut serving = self.progress.serving();
                serving.truncate(SyncAnswer::MAX_RUNNING);
                SyncAnswer::Running(serving)
            }
            SyncRequest::SealingKey => {
                let epoch = self.epoch()?;
                let own = epoch.sealing.get().map(|own| own.announcement().clone());
                SyncAnswer::SealingKey(own.map(Box::new))
            }
            SyncRequest::Share(asked) => {
                let epoch = self.epoch()?;
                let own = epoch.sealing.get();
                let answer = own.map(|own| own.answer(&asked, &self.jobs, &epoch.ledger.state()));
                SyncAnswer::Share(answer.unwrap_or(NO_MEMBER))
            }
            SyncRequest::CertificateVotes(slot) => {
                let votes = self.epoch()?.evidence.votes(slot).map_err(|_| UNREADABLE)?;
                SyncAnswer::CertificateVotes(votes)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_that_asks_much_waits_and_is_forgotten_when_it_is_served() {
        let mut turns = Turns::default();
        let (greedy, modest) = (PeerIdHash([1; 32]), PeerIdHash([2; 32]));
        let (first, second) = (turns.of(greedy), turns.of(greedy));
        let held = (first.acquire().await.unwrap(), second.acquire().await.unwrap());
        assert!(turns.of(greedy).try_acquire().is_err());
        assert!(turns.of(modest).try_acquire().is_ok());
        for n in 0..2_000_u16 {
            let mut peer = [3; 32];
            peer[..2].copy_from_slice(&n.to_le_bytes());
            turns.of(PeerIdHash(peer));
        }
        assert!(turns.0.len() <= REMEMBERED + 1);
        assert!(turns.of(greedy).try_acquire().is_err(), "its turns are not forgotten meanwhile");
        drop(held);
        assert!(turns.of(greedy).try_acquire().is_ok());
    }
}
