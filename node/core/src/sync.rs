//! Answers peers that were away: records, telemetry, bodies of jobs, digests of key files, evidence, votes.
//!
//! # Flow
//! [`SyncSource::serve`] takes [`SyncRequest`]s from the network. Jobs come from the job store; everything else
//! belongs to the epoch, and is refused until there is one: an empty answer would say that nothing
//! newer exists.

use std::sync::Arc;

use async_recursion::async_recursion as boxed;
use tokio::sync::watch;
use veil_node_p2p::{Network, Protocol};
use veil_node_storage::jobs::Jobs;
use veil_protocol_spec::{
    Wire,
    codec::Bytes,
    sync::{SyncAnswer, SyncRequest},
};
use veil_scheduler::write_public_key;

use crate::epoch::ActiveEpoch;

const UNREADABLE: &str = "the evidence store cannot be read here";

/// The epoch, once its key can be used.
pub type CurrentEpoch = watch::Receiver<Option<Arc<ActiveEpoch>>>;

/// What this node can hand to peers.
#[derive(Clone, Debug)]
pub struct SyncSource {
    jobs: Arc<Jobs>,
    epoch: CurrentEpoch,
}

impl SyncSource {
    /// Answers from these.
    #[must_use]
    pub const fn new(jobs: Arc<Jobs>, epoch: CurrentEpoch) -> Self {
        Self { jobs, epoch }
    }

    /// Answers requests until it is dropped.
    #[boxed]
    pub async fn serve(self, network: Network) {
        let mut requests = network.serve(Protocol::Sync);
        while let Some(request) = requests.recv().await {
            let asked = match SyncRequest::from_wire(&request.bytes) {
                Ok(asked) => asked,
                Err(error) => {
                    request.refuse(error.to_string());
                    continue;
                }
            };
            let source = self.clone();
            // Reading records waits for the disk.
            tokio::task::spawn_blocking(move || match source.answer(asked) {
                Ok(answer) => request.responder.respond(answer.to_wire()),
                Err(reason) => request.refuse(reason),
            });
        }
    }

    fn epoch(&self) -> Result<Arc<ActiveEpoch>, &'static str> {
        self.epoch.borrow().clone().ok_or("this node is not ready: it has no key yet")
    }

    fn answer(&self, asked: SyncRequest) -> Result<SyncAnswer, &'static str> {
        Ok(match asked {
            SyncRequest::Job(digest) => SyncAnswer::Job(self.jobs.body(&digest).map(Box::new)),
            SyncRequest::Records { after } => {
                let records = self.epoch()?.ledger.records_after(after, SyncAnswer::RECORD_BYTES);
                SyncAnswer::Records(records.map_err(|_| "the ledger cannot be read here")?)
            }
            SyncRequest::Telemetry(digest) => {
                let found = self.epoch()?.pool().find(&digest);
                SyncAnswer::Telemetry(found.map(|found| Box::new(found.telemetry.clone())))
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
            SyncRequest::CertificateVotes(slot) => {
                let votes = self.epoch()?.evidence.votes(slot).map_err(|_| UNREADABLE)?;
                SyncAnswer::CertificateVotes(votes)
            }
        })
    }
}
