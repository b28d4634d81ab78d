//! Which workers the members hold for lost.
//!
//! # Flow
//! A member whose SWIM has declared a worker down signs a suspicion for the next slot and gossips it,
//! again for every slot and as long as it lasts. t+1 of them make the worker lost in that slot.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use veil_node_core::{cluster::Views, epoch::ActiveEpoch};
use veil_node_p2p::{Gossip, Health, Network, Topic};
use veil_protocol_spec::{
    ParticipantIndex, PeerIdHash, Slot, Wire,
    identity::SecretIdentity,
    scheduling::{SignedSuspicion, Suspicion},
    sync::SuspicionMessage,
};

/// Suspicions for one slot, by worker and member.
pub(crate) type BySlot = BTreeMap<PeerIdHash, BTreeMap<ParticipantIndex, SignedSuspicion>>;

/// How often a suspicion that lasts is gossiped again, for members that missed it.
const REGOSSIP_INTERVAL: Duration = Duration::from_secs(5);

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Suspicions {
    by_slot: Mutex<BTreeMap<Slot, BySlot>>,
    changed: watch::Sender<u64>,
}

impl Default for Suspicions {
    fn default() -> Self {
        Self { by_slot: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Suspicions {
    /// Those for one slot.
    pub(crate) fn of(&self, slot: Slot) -> BySlot {
        let by_slot = self.by_slot.lock().unwrap_or_else(PoisonError::into_inner);
        by_slot.get(&slot).cloned().unwrap_or_default()
    }

    /// Tells of every new one.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Takes one whose signature was checked; those of slots before `current` are forgotten.
    fn put(&self, message: SuspicionMessage, current: Slot) {
        let mut by_slot = self.by_slot.lock().unwrap_or_else(PoisonError::into_inner);
        *by_slot = by_slot.split_off(&current);
        let SuspicionMessage { slot, worker, signed } = message;
        let by_member = by_slot.entry(slot).or_default().entry(worker).or_default();
        if by_member.insert(signed.member, signed).is_none() {
            self.changed.send_modify(|count| *count += 1);
        }
    }
}

fn next_slot(epoch: &ActiveEpoch) -> Slot {
    Slot(epoch.ledger.state().last_slot().0 + 1)
}

/// Signs and gossips suspicions of the registered workers that are down.
pub(crate) async fn suspect(
    network: Network,
    views: Views,
    identity: SecretIdentity,
    epoch: Arc<ActiveEpoch>,
    me: ParticipantIndex,
    suspicions: Arc<Suspicions>,
) {
    let mut liveness = network.liveness();
    let mut certificates = epoch.ledger.subscribe();
    loop {
        let slot = next_slot(&epoch);
        let down: Vec<PeerIdHash> = {
            let live = liveness.borrow_and_update();
            let workers = views.current().workers();
            let down = |worker: &PeerIdHash| matches!(live.get(worker), Some(Health::Down { .. }));
            workers.into_iter().filter(|worker| down(worker)).collect()
        };
        for worker in &down {
            let suspicion = Suspicion { binding: epoch.binding, slot, worker: *worker };
            let signed = suspicion.sign(me, &identity);
            let message = SuspicionMessage { slot, worker: *worker, signed };
            if !suspicions.of(slot).get(worker).is_some_and(|by| by.contains_key(&me)) {
                tracing::warn!(%worker, slot = slot.0, "this worker is down");
            }
            suspicions.put(message, slot);
            if let Err(error) = network.publish(Topic::Suspicions, message.to_wire()).await {
                tracing::debug!(%error, "a suspicion was not gossiped");
            }
        }
        tokio::select! {
            changed = liveness.changed() => if changed.is_err() { return },
            changed = certificates.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(REGOSSIP_INTERVAL), if !down.is_empty() => {}
        }
    }
}

/// Takes the others' suspicions.
pub(crate) async fn listen(network: Network, epoch: Arc<ActiveEpoch>, suspicions: Arc<Suspicions>) {
    let mut gossip = network.subscribe(Topic::Suspicions);
    while let Some(message) = gossip.recv().await {
        accept(&epoch, &suspicions, &message);
    }
}

fn accept(epoch: &ActiveEpoch, suspicions: &Suspicions, message: &Gossip) {
    let suspicion = match SuspicionMessage::from_wire(&message.bytes) {
        Ok(suspicion) => suspicion,
        Err(error) => return message.reject(&error.to_string()),
    };
    let next = next_slot(epoch);
    // A member that is one certificate behind or ahead is still right.
    if suspicion.slot < next || suspicion.slot > Slot(next.0 + 1) {
        return message.ignore();
    }
    match suspicion.verify(epoch.binding, &epoch.roster) {
        Ok(()) => {
            suspicions.put(suspicion, next);
            message.accept();
        }
        Err(error) => message.reject(&error.to_string()),
    }
}
