//! Following the chain of certificates: by gossip, and by asking the members for what was missed.
//!
//! # Flow
//! 1. [`Follower::catch_up`] asks every member of the key's committee for the records after the last
//!    one here, until they have no more. Who is far behind is given the state after the last slot in
//!    place of records: the certificate commits to it.
//! 2. [`Follower::run`] takes records from gossip. One that does not continue what is here makes it
//!    catch up, and so does an interval, so that lost gossip heals.
//!
//! # State
//! [`Follower::contact`] is when this node last knew itself up to date: 2t+1 members said that they
//! know nothing newer. At least one honest member among them would have signed a newer certificate. A
//! certificate by itself is no contact: whoever holds it back would say when it was signed.

use std::{sync::Arc, time::Duration};

use async_recursion::async_recursion as boxed;
use futures::{StreamExt, stream};
use rand::{Rng, seq::SliceRandom};
use tokio::sync::{Notify, watch};
use veil_node_p2p::{Gossip, Network, Protocol, Topic};
use veil_node_process::{Uptime, unix_now};
use veil_node_storage::ledger::LedgerError;
use veil_protocol_spec::{
    PeerIdHash, Wire,
    decryption::DecryptionCounter,
    scheduling::{SlotRecord, StateError},
    snapshot::StateSnapshot,
    sync::{SyncAnswer, SyncRequest},
};

use crate::epoch::ActiveEpoch;

/// Between two rounds of asking while all is well.
const SYNC_INTERVAL: Duration = Duration::from_secs(10);
/// Between two rounds until the first contact: members that start now refuse to answer.
const FIRST_CONTACT_INTERVAL: Duration = Duration::from_secs(1);
/// Least time between two rounds, however many callers ask for one.
const MIN_SYNC_INTERVAL: Duration = Duration::from_millis(250);
/// For one answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Members asked at once.
const ASKED_AT_ONCE: usize = 4;

/// See the [module documentation](self).
pub struct Follower {
    network: Network,
    epoch: Arc<ActiveEpoch>,
    behind: Notify,
    contact: watch::Sender<Option<Uptime>>,
}

impl core::fmt::Debug for Follower {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Follower").field("contact", &*self.contact.borrow()).finish_non_exhaustive()
    }
}

impl Follower {
    /// Asks nobody yet.
    #[must_use]
    pub fn new(network: &Network, epoch: &Arc<ActiveEpoch>) -> Arc<Self> {
        Arc::new(Self {
            network: network.clone(),
            epoch: Arc::clone(epoch),
            behind: Notify::new(),
            contact: watch::Sender::new(None),
        })
    }

    /// When this node last knew itself up to date: the time before the members were asked.
    #[must_use]
    pub fn contact(&self) -> watch::Receiver<Option<Uptime>> {
        self.contact.subscribe()
    }

    /// Something names a certificate that is not here: makes [`Self::run`] ask for it.
    pub fn is_behind(&self) {
        self.behind.notify_one();
    }

    /// Asks all members once. Whether 2t+1 of them said that this node is up to date; a member counts
    /// itself.
    #[boxed]
    pub async fn catch_up(&self) -> bool {
        let asked_at = Uptime::now();
        let me = self.network.me();
        let own = self.epoch.roster.iter().any(|member| PeerIdHash::of(member) == me);
        // "No signer denies" (`leases.md`, 3), itself included.
        let own = own && self.epoch.is_up_to_date();
        let answers = self.ask_members().await + usize::from(own);
        let up_to_date = answers >= self.epoch.committee.signing_threshold().get();
        if up_to_date {
            self.contact.send_replace(asked_at);
        }
        up_to_date
    }

    /// Asks the other members once, and takes the records that they have. How many said that this node is
    /// up to date.
    #[boxed]
    pub async fn ask_members(&self) -> usize {
        stream::iter(self.other_members())
            .map(|member| self.follow(member))
            .buffer_unordered(ASKED_AT_ONCE)
            .filter(|up_to_date| std::future::ready(*up_to_date))
            .count()
            .await
    }

    /// Asks the other members once how many blocks they have opened under the key: what those say that take
    /// part.
    #[boxed]
    pub async fn blocks_opened(&self) -> Vec<DecryptionCounter> {
        let ask = |member| async move {
            let request = SyncRequest::BlocksOpened.to_wire();
            let asked = self.network.request(member, Protocol::Sync, request, ANSWER_DEADLINE);
            match asked.await.map(|answer| SyncAnswer::from_wire(&answer)) {
                Ok(Ok(SyncAnswer::BlocksOpened(counter))) => counter,
                Ok(Ok(_)) => {
                    tracing::warn!(%member, "the member did not answer with its counter");
                    None
                }
                Ok(Err(error)) => {
                    tracing::warn!(%member, %error, "a counter was refused");
                    None
                }
                Err(error) => {
                    tracing::debug!(%member, %error, "no counter");
                    None
                }
            }
        };
        let asked = stream::iter(self.other_members()).map(ask).buffer_unordered(ASKED_AT_ONCE);
        asked.filter_map(std::future::ready).collect().await
    }

    /// The other members, in random order.
    fn other_members(&self) -> Vec<PeerIdHash> {
        let mut members: Vec<_> = self.epoch.roster.iter().map(PeerIdHash::of).collect();
        members.retain(|member| *member != self.network.me());
        members.shuffle(&mut rand::thread_rng());
        members
    }

    /// Takes records from one member until it has no more; false if it fails before.
    async fn follow(&self, member: PeerIdHash) -> bool {
        loop {
            let after = self.epoch.ledger.state().last_slot();
            let request = SyncRequest::Records { after }.to_wire();
            let asked = self.network.request(member, Protocol::Sync, request, ANSWER_DEADLINE);
            let answer = match asked.await {
                Ok(answer) => answer,
                Err(error) => {
                    tracing::debug!(%member, %error, "no records");
                    return false;
                }
            };
            let records = match SyncAnswer::from_wire(&answer) {
                Ok(SyncAnswer::Records(records)) => records,
                Ok(SyncAnswer::Snapshot(snapshot)) => {
                    if let Err(error) = self.accept_snapshot(*snapshot).await {
                        tracing::warn!(%member, %error, "a snapshot was refused");
                        return false;
                    }
                    Vec::new()
                }
                Ok(_) => {
                    tracing::warn!(%member, "the member did not answer with records");
                    return false;
                }
                Err(error) => {
                    tracing::warn!(%member, %error, "records were refused");
                    return false;
                }
            };
            let now = self.epoch.ledger.state().last_slot();
            if records.is_empty() && now <= after {
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
        let epoch = Arc::clone(&self.epoch);
        let slot = record.manifest.slot;
        let accepted = blocking(move || epoch.accept(&record)).await;
        if matches!(accepted, Ok(true)) {
            tracing::info!(%slot, "certificate verified");
        }
        accepted
    }

    async fn accept_snapshot(&self, snapshot: StateSnapshot) -> Result<bool, LedgerError> {
        let ledger = Arc::clone(&self.epoch.ledger);
        let slot = snapshot.record.manifest.slot;
        let accepted = blocking(move || ledger.accept_snapshot(&snapshot, unix_now())).await;
        if matches!(accepted, Ok(true)) {
            tracing::info!(%slot, "certificate verified; going on from the state that it commits to");
        }
        accepted
    }

    /// Follows until the node stops. Asks the members at once.
    #[boxed]
    pub async fn run(self: Arc<Self>) {
        let mut records = self.network.subscribe(Topic::Certificates);
        let asking = async {
            loop {
                self.catch_up().await;
                let interval = match *self.contact.borrow() {
                    Some(_) => SYNC_INTERVAL,
                    None => FIRST_CONTACT_INTERVAL,
                };
                // Spread: the nodes of a cluster must not ask all at once.
                let wait = interval.mul_f64(rand::thread_rng().gen_range(0.75..1.25));
                tokio::time::sleep(MIN_SYNC_INTERVAL).await;
                let _ = tokio::time::timeout(wait, self.behind.notified()).await;
            }
        };
        let listening = async {
            while let Some(gossip) = records.recv().await {
                self.on_record(gossip).await;
            }
        };
        tokio::join!(asking, listening);
    }

    async fn on_record(&self, gossip: Gossip) {
        let record = match SlotRecord::from_wire(&gossip.bytes) {
            Ok(record) => record,
            Err(error) => return gossip.reject_as("malformed", &error),
        };
        match self.accept(record).await {
            Ok(true) => gossip.accept(),
            Ok(false) => gossip.ignore(),
            // Signed by the committee, and this node misses what lies between.
            Err(LedgerError::State(StateError::Previous { .. })) => {
                gossip.accept();
                self.is_behind();
            }
            // Signed twice: every node should learn of it. The ledger keeps both records.
            Err(error @ LedgerError::Equivocation(_)) => {
                tracing::error!(%error, author = %gossip.author, "the committee is not to be trusted");
                gossip.accept();
            }
            Err(error @ (LedgerError::Storage { .. } | LedgerError::Damaged { .. })) => {
                tracing::error!(%error, "a certificate cannot be kept");
                gossip.ignore_as("not_stored");
            }
            Err(error) => gossip.reject_as(refused_as(&error), &error),
        }
    }
}

/// In metrics: why a record is refused.
const fn refused_as(error: &LedgerError) -> &'static str {
    match error {
        LedgerError::NoCommittee(_) => "no_committee",
        LedgerError::Binding(_) => "another_binding",
        LedgerError::Record(_) => "parts",
        LedgerError::Lock(_) => "not_locked",
        LedgerError::Signature { .. } => "signature",
        LedgerError::State(_) => "state",
        _ => "invalid",
    }
}

/// Waits for the disk, off the reactor.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // Only if the runtime is shutting down.
        Err(_) => std::future::pending().await,
    }
}
