//! What the registry tells in events only: nodes' keys, organisations and labels.
//!
//! # State
//! Every registration ever seen, and up to which block. It grows with the registrations, and is read
//! anew if that block is no longer in the chain.
//!
//! # Caveats
//! A key belongs to its peer, or is left out: the peer is its hash. Organisation and labels are as
//! good as the endpoint that told them.

use std::collections::HashMap;

use alloy::{primitives::B256, rpc::types::Filter, sol_types::SolEvent};
use tokio::sync::Mutex;
use tracing::warn;
use veil_contracts::node_registry::NodeRegistry::NodeRegistered;
use veil_protocol_spec::{
    Address, ClusterId, PeerIdHash, PublicIdentity,
    registry::Roles,
    scheduling::{BlockRef, Label},
};

use crate::{address::evm, error::ChainError, point::compressed, rpc::Rpc, types::roles_of};

const WHAT: &str = "the registrations of nodes";

/// What was told when a node was registered.
#[derive(Clone, Debug)]
pub(crate) struct Registered {
    pub(crate) identity: PublicIdentity,
    pub(crate) organisation: String,
    pub(crate) labels: Vec<Label>,
}

/// A place in the order of registration is given once, members and other workers counted apart.
type Place = (PeerIdHash, bool, u32);

#[derive(Clone, Debug, Default)]
struct Of {
    upto: Option<BlockRef>,
    by_place: HashMap<Place, Registered>,
    keys: HashMap<PeerIdHash, PublicIdentity>,
}

/// See the [module documentation](self).
#[derive(Debug, Default)]
pub(crate) struct Registrations(Mutex<HashMap<ClusterId, Of>>);

/// The registrations of a cluster up to a block, and perhaps later ones.
pub(crate) struct Known(Of);

impl Known {
    pub(crate) fn of(&self, peer: PeerIdHash, roles: Roles, position: u32) -> Option<&Registered> {
        self.0.by_place.get(&(peer, roles.member, position))
    }

    /// The key of a peer that is registered or once was.
    pub(crate) fn key(&self, peer: &PeerIdHash) -> Option<PublicIdentity> {
        self.0.keys.get(peer).copied()
    }
}

impl Registrations {
    /// What the registry's events state up to `block`; reads those that are new.
    pub(crate) async fn up_to(
        &self,
        rpc: &Rpc,
        registry: Address,
        cluster: ClusterId,
        block: BlockRef,
    ) -> Result<Known, ChainError> {
        let mut all = self.0.lock().await;
        let known = all.entry(cluster).or_default();
        if let Some(upto) = known.upto.filter(|upto| *upto != block) {
            match rpc.check_block(upto).await {
                Ok(()) => {}
                Err(ChainError::UnknownBlock(_)) => *known = Of::default(),
                Err(error) => return Err(error),
            }
        }
        let from = known.upto.map_or(rpc.config.first_block, |upto| upto.number + 1);
        if from <= block.number {
            let filter = Filter::new()
                .address(evm(registry))
                .event_signature(NodeRegistered::SIGNATURE_HASH)
                .topic1(B256::from(cluster.0));
            for log in rpc.logs(WHAT, &filter, (from, block.number)).await? {
                let event = log
                    .log_decode_validate::<NodeRegistered>()
                    .map_err(|_| ChainError::Unexpected("an event of another form"))?;
                known.record(&event.inner.data);
            }
            known.upto = Some(block);
        }
        Ok(Known(known.clone()))
    }
}

impl Of {
    fn record(&mut self, event: &NodeRegistered) {
        let peer = PeerIdHash(event.peer.0);
        let identity = compressed(event.identityPrefix, event.identityX);
        if PeerIdHash::of(&identity) != peer {
            warn!(%peer, "a registration with another peer's key is left out");
            return;
        }
        // Labels are an operator's text: what is no label is left out, not refused.
        let labels = event.labels.split(',').filter_map(|label| label.parse().ok()).collect();
        let organisation = event.organisation.iter().take_while(|byte| **byte != 0);
        let organisation = organisation
            .map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '?' })
            .collect();
        self.keys.insert(peer, identity);
        self.by_place.insert(
            (peer, roles_of(event.roles).member, event.position),
            Registered { identity, organisation, labels },
        );
    }
}
