//! Gossip: topics of one cluster over gossipsub.
//!
//! The author signs a message and libp2p checks the signature. The subscriber checks the content,
//! and its verdict decides whether the message is relayed. A message id covers the author:
//! otherwise a peer that repeats a message under its own name could make others drop the original as
//! a duplicate.

use std::time::Duration;

use libp2p::{
    PeerId,
    gossipsub::{
        self, IdentTopic, MessageAuthenticity, MessageId, PeerScoreParams, PeerScoreThresholds,
        TopicHash, TopicScoreParams, ValidationMode, WhitelistSubscriptionFilter,
    },
    identity::Keypair,
};

use crate::{error::NetworkError, kind::Topic};

/// A gossip frame adds this much to a message at most: author, topic, sequence number, signature.
const ENVELOPE_BYTES: usize = 1024;
/// A node that starts with at most this many registered peers sends its messages to all of them.
const MAX_FLOOD_PEERS: usize = 32;

/// The topics of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Topics([(Topic, IdentTopic, TopicHash); Topic::ALL.len()]);

impl Topics {
    pub(crate) fn new(scope: &str) -> Self {
        Self(Topic::ALL.map(|topic| {
            let name = IdentTopic::new(format!("/veil/{scope}/{topic}/1"));
            let hash = name.hash();
            (topic, name, hash)
        }))
    }

    pub(crate) fn ident(&self, topic: Topic) -> &IdentTopic {
        &self.0[topic as usize].1
    }

    pub(crate) fn find(&self, hash: &TopicHash) -> Option<Topic> {
        self.0.iter().find(|(_, _, known)| known == hash).map(|(topic, ..)| *topic)
    }
}

pub(crate) type Gossipsub =
    gossipsub::Behaviour<gossipsub::IdentityTransform, WhitelistSubscriptionFilter>;

/// Gossipsub for a cluster that has `peers` registered peers at the start; its mesh works for one to
/// a hundred.
pub(crate) fn behaviour(
    key: &Keypair,
    scope: &str,
    topics: &Topics,
    peers: usize,
) -> Result<Gossipsub, NetworkError> {
    let mut config = gossipsub::ConfigBuilder::default();
    config
        .protocol_id_prefix(format!("/veil/{scope}/meshsub"))
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        .max_transmit_size(Topic::Certificates.max_bytes() + ENVELOPE_BYTES)
        .message_id_fn(message_id)
        .flood_publish(peers <= MAX_FLOOD_PEERS)
        .duplicate_cache_time(Duration::from_secs(120))
        // A subscriber checks telemetry proofs, up to half a second of a busy CPU each: a verdict
        // may take a minute.
        .history_length(60)
        .history_gossip(3)
        .publish_queue_duration(Duration::from_secs(10))
        .forward_queue_duration(Duration::from_secs(10));
    for (topic, _, hash) in &topics.0 {
        config.max_transmit_size_for_topic(topic.max_bytes() + ENVELOPE_BYTES, hash.clone());
    }
    let config = config.build().map_err(|e| NetworkError::Gossip(e.to_string()))?;

    let allowed = topics.0.iter().map(|(_, _, hash)| hash.clone()).collect();
    let mut behaviour = Gossipsub::new_with_subscription_filter(
        MessageAuthenticity::Signed(key.clone()),
        config,
        WhitelistSubscriptionFilter(allowed),
    )
    .map_err(|e| NetworkError::Gossip(e.to_owned()))?;

    // Only rejected messages count against a peer. Several peers may share one address.
    let score = PeerScoreParams { ip_colocation_factor_weight: 0.0, ..Default::default() };
    behaviour
        .with_peer_score(score, PeerScoreThresholds::default())
        .map_err(NetworkError::Gossip)?;
    for topic in Topic::ALL {
        let params = TopicScoreParams {
            time_in_mesh_weight: 0.0,
            first_message_deliveries_weight: 0.0,
            mesh_message_deliveries_weight: 0.0,
            mesh_failure_penalty_weight: 0.0,
            invalid_message_deliveries_weight: -10.0,
            invalid_message_deliveries_decay: 0.9,
            ..Default::default()
        };
        behaviour
            .set_topic_params(topics.ident(topic).clone(), params)
            .map_err(|e| NetworkError::Gossip(e.to_owned()))?;
    }
    Ok(behaviour)
}

fn message_id(message: &gossipsub::Message) -> MessageId {
    let mut hasher = blake3::Hasher::new();
    let author = message.source.map(PeerId::to_bytes).unwrap_or_default();
    for part in [author.as_slice(), message.topic.as_str().as_bytes()] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    MessageId::new(hasher.update(&message.data).finalize().as_bytes())
}
