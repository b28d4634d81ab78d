//! Following the chain of certificates: by gossip, and by asking the members for what was missed.
//!
//! # Flow
//! 1. [`Follower::catch_up`] asks every member of the key's committee for the records after the last
//!    one here, until they have no more.
//! 2. [`Follower::run`] takes records from gossip. One that does not continue what is here makes it
//!    catch up, and so does an interval, so that lost gossip heals.
//!
//! # State
//! [`Follower::contact`] is when this node last knew itself up to date: 2t+1 members said that they
//! know nothing newer. At least one honest member among them would have signed a newer certificate.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use rand::{Rng, seq::SliceRandom};
use tokio::sync::{Notify, watch};
use veil_node_p2p::{Gossip, Protocol, Topic};
use veil_node_process::unix_now;
use veil_node_storage::ledger::LedgerError;
use veil_protocol_spec::{
    PeerIdHash, Wire,
    scheduling::{SlotRecord, StateError, UnixMillis},
    sync::{SyncAnswer, SyncRequest},
};

use crate::{cluster::Cluster, epoch::Epoch};

/// Between two rounds of asking while all is well.
const INTERVAL: Duration = Duration::from_secs(10);
/// Least time between two rounds, however many ask for one.
const LEAST: Duration = Duration::from_millis(250);
/// For one answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Members asked at once.
const AT_ONCE: usize = 4;

/// See the [module documentation](self).
pub struct Follower {
    cluster: Arc<Cluster>,
    epoch: Arc<Epoch>,
    behind: Notify,
    contact: watch::Sender<Option<UnixMillis>>,
}

impl core::fmt::Debug for Follower {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Follower").field("contact", &*self.contact.borrow()).finish_non_exhaustive()
    }
}

impl Follower {
    /// Asks nobody yet.
    #[must_use]
    pub fn new(cluster: &Arc<Cluster>, epoch: &Arc<Epoch>) -> Arc<Self> {
        Arc::new(Self {
            cluster: Arc::clone(cluster),
            epoch: Arc::clone(epoch),
            behind: Notify::new(),
            contact: watch::Sender::new(None),
        })
    }

    /// When this node last knew itself up to date: the time before the members were asked.
    #[must_use]
    pub fn contact(&self) -> watch::Receiver<Option<UnixMillis>> {
        self.contact.subscribe()
    }

    /// Something names a certificate that is not here: makes [`Self::run`] ask for it.
    pub fn is_behind(&self) {
        self.behind.notify_one();
    }

    /// Asks all members once. Whether 2t+1 of them said that this node is up to date.
    pub async fn catch_up(&self) -> bool {
        let asked_at = unix_now();
        let mut members: Vec<_> = self.epoch.roster.iter().map(PeerIdHash::of).collect();
        members.shuffle(&mut rand::thread_rng());
        let answers = stream::iter(members)
            .map(|member| async move { member == self.cluster.me || self.follow(member).await })
            .buffer_unordered(AT_ONCE)
            .filter(|up_to_date| std::future::ready(*up_to_date))
            .count()
            .await;
        let up_to_date = answers >= self.epoch.committee.signing_threshold().get();
        if up_to_date {
            self.contact.send_replace(Some(asked_at));
        }
        up_to_date
    }

    /// Takes records from one member until it has no more; false if it fails before.
    async fn follow(&self, member: PeerIdHash) -> bool {
        loop {
            let after = self.epoch.ledger.state().last_slot();
            let request = SyncRequest::Records { after }.to_wire();
            let network = &self.cluster.network;
            let answer = match network.request(member, Protocol::Sync, request, DEADLINE).await {
                Ok(answer) => answer,
                Err(error) => {
                    tracing::debug!(%member, %error, "no records");
                    return false;
                }
            };
            let records = match SyncAnswer::from_wire(&answer) {
                Ok(SyncAnswer::Records(records)) => records,
                Ok(_) => {
                    tracing::warn!(%member, "the member did not answer with records");
                    return false;
                }
                Err(error) => {
                    tracing::warn!(%member, %error, "records were refused");
                    return false;
                }
            };
            if records.is_empty() {
                return true;
            }
            for record in records {
                let slot = record.manifest.slot;
                if let Err(error) = self.accept(record).await {
                    // Another member may have brought a later one meanwhile; else it is to blame.
                    if self.epoch.ledger.state().last_slot() < slot {
                        tracing::warn!(%member, %slot, %error, "a record was refused");
                        return false;
                    }
                }
            }
            if self.epoch.ledger.state().last_slot() <= after {
                tracing::warn!(%member, "the member brings records that are known");
                return false;
            }
        }
    }

    async fn accept(&self, record: SlotRecord) -> Result<bool, LedgerError> {
        let ledger = Arc::clone(&self.epoch.ledger);
        let slot = record.manifest.slot;
        let accepted = tokio::task::spawn_blocking(move || ledger.accept(&record)).await;
        let Ok(accepted) = accepted else {
            // Only if the runtime is shutting down.
            std::future::pending().await
        };
        if matches!(accepted, Ok(true)) {
            tracing::info!(%slot, "certificate verified");
        }
        accepted
    }

    /// Follows until the node stops. Asks the members at once.
    pub async fn run(self: Arc<Self>) {
        let mut records = self.cluster.network.subscribe(Topic::Certificates);
        let asking = async {
            loop {
                self.catch_up().await;
                // Spread, so that the nodes of a cluster do not ask all at once.
                let wait = INTERVAL.mul_f64(rand::thread_rng().gen_range(0.75..1.25));
                tokio::time::sleep(LEAST).await;
                let _ = tokio::time::timeout(wait, self.behind.notified()).await;
            }
        };
        let listening = async {
            while let Some(gossip) = records.recv().await {
                self.hear(gossip).await;
            }
        };
        tokio::join!(asking, listening);
    }

    async fn hear(&self, gossip: Gossip) {
        let record = match SlotRecord::from_wire(&gossip.bytes) {
            Ok(record) => record,
            Err(error) => return gossip.reject(&error.to_string()),
        };
        match self.accept(record).await {
            Ok(true) => gossip.accept(),
            Ok(false) => gossip.ignore(),
            // Signed by the committee, and this node misses what lies between.
            Err(LedgerError::State(StateError::Previous { .. })) => {
                gossip.accept();
                self.is_behind();
            }
            // Signed twice: everybody should learn of it.
            Err(error @ LedgerError::Equivocation(_)) => {
                tracing::error!(%error, author = %gossip.author, "the committee is not to be trusted");
                gossip.accept();
            }
            Err(error @ (LedgerError::Storage { .. } | LedgerError::Damaged { .. })) => {
                tracing::error!(%error, "a certificate cannot be kept");
                gossip.ignore();
            }
            Err(error) => gossip.reject(&error.to_string()),
        }
    }
}
