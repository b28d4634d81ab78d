//! What the registry states in events only: nodes' keys, organisations and labels.
//!
//! # State
//! Every registration ever seen, and the block up to which they were read. It grows with the
//! registrations, and is read anew if that block is no longer in the chain.
//!
//! # Caveats
//! A key whose hash is not its peer is left out, and of an organisation the registry has a hash. Labels are as good
//! as the endpoint that gave the events.

use std::collections::HashMap;

use alloy::{primitives::B256, rpc::types::Filter, sol_types::SolEvent};
use tokio::sync::Mutex;
use tracing::warn;
use veil_contracts::node_registry::NodeRegistry::NodeRegistered;
use veil_node_chain_refusal::forms::organisation;
use veil_protocol_spec::{
    Address, ClusterId, PeerIdHash, PublicIdentity,
    scheduling::{BlockRef, Label, Organisation},
};

use crate::{address::evm, error::ChainError, point::compressed, rpc::Rpc};

/// Names the request in errors.
const REGISTRATIONS: &str = "the registrations of nodes";

/// What only the event of a registration states.
#[derive(Clone, Debug)]
pub(crate) struct Registered {
    pub(crate) identity: PublicIdentity,
    pub(crate) organisation: Option<Organisation>,
    pub(crate) labels: Vec<Label>,
}

/// Peer, and which of its registrations, counted from 1.
type Numbered = (PeerIdHash, u32);

/// The registrations of a cluster up to a block, and perhaps later ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterRegistrations {
    read_to: Option<BlockRef>,
    by_number: HashMap<Numbered, Registered>,
    keys: HashMap<PeerIdHash, PublicIdentity>,
}

/// See the [module documentation](self).
#[derive(Debug, Default)]
pub(crate) struct Registrations(Mutex<HashMap<ClusterId, ClusterRegistrations>>);

impl Registrations {
    /// The registrations of a cluster up to `block`, at least; reads those that are new.
    ///
    /// # Errors
    /// [`ChainError`].
    pub(crate) async fn up_to(
        &self,
        rpc: &Rpc,
        registry: Address,
        cluster: ClusterId,
        block: BlockRef,
    ) -> Result<ClusterRegistrations, ChainError> {
        let mut all = self.0.lock().await;
        let known = all.entry(cluster).or_default();
        if let Some(read_to) = known.read_to.filter(|read_to| *read_to != block) {
            match rpc.check_block(read_to).await {
                Ok(()) => {}
                Err(ChainError::UnknownBlock(_)) => *known = ClusterRegistrations::default(),
                Err(error) => return Err(error),
            }
        }
        let from = known.read_to.map_or(rpc.config.first_block, |read_to| read_to.number + 1);
        if from <= block.number {
            let filter = Filter::new()
                .address(evm(registry))
                .event_signature(NodeRegistered::SIGNATURE_HASH)
                .topic1(B256::from(cluster.0));
            for log in rpc.logs(REGISTRATIONS, &filter, (from, block.number)).await? {
                let event = log
                    .log_decode_validate::<NodeRegistered>()
                    .map_err(|_| ChainError::Unexpected("an event of another form"))?;
                known.record(&event.inner.data);
            }
            known.read_to = Some(block);
        }
        Ok(known.clone())
    }
}

impl ClusterRegistrations {
    /// The registration of a node that the registry lists.
    pub(crate) fn of(&self, peer: PeerIdHash, registration: u32) -> Option<&Registered> {
        self.by_number.get(&(peer, registration))
    }

    /// The key of a peer that is registered or once was.
    pub(crate) fn key(&self, peer: &PeerIdHash) -> Option<PublicIdentity> {
        self.keys.get(peer).copied()
    }

    fn record(&mut self, event: &NodeRegistered) {
        let peer = PeerIdHash(event.peer.0);
        let identity = compressed(event.identityPrefix, event.identityX);
        if PeerIdHash::of(&identity) != peer {
            warn!(%peer, "left out a registration with another peer's key");
            return;
        }
        // Labels are an operator's text: one that does not parse is left out, not refused.
        let labels = event.labels.split(',').filter_map(|label| label.parse().ok()).collect();
        let organisation = organisation(&event.organisation);
        self.keys.insert(peer, identity);
        self.by_number
            .insert((peer, event.registration), Registered { identity, organisation, labels });
    }
}
