//! The policy's encrypted weights: what this node has of them, and taking them from whoever has set the policy.
//!
//! # Rule
//! A list is taken if the chain names its digest, in force or announced, and from anybody who may post: the digest says
//! that it is the admin's. Until then nothing of it is stored, and nothing passed on.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use veil_node_api::{
    refuse,
    weights::{WeightsFile, WeightsStatus, WeightsTaken},
};
use veil_protocol_spec::{Wire as _, read_hex, scheduling::EncryptedWeights};

use super::Answers;
use crate::{epoch::weights::named, report::Joined};

pub(super) async fn list(of: Answers) -> Response {
    let (Some(Joined { views, chain, scope, .. }), Some(epoch)) = (of.joined(), of.epoch()) else {
        return refuse(StatusCode::CONFLICT, &"this node is not ready: it has no key yet");
    };
    let named = named(&views.current(), &chain, scope.cluster).await;
    let status = named.into_iter().map(|weights| {
        let because = epoch.weights.why_not(&weights).map(|refusal| refusal.to_string());
        WeightsStatus { weights, held: because.is_none(), because }
    });
    Json(status.collect::<Vec<_>>()).into_response()
}

pub(super) async fn take(of: Answers, Json(WeightsFile { wire }): Json<WeightsFile>) -> Response {
    let (Some(Joined { views, chain, scope, .. }), Some(epoch)) = (of.joined(), of.epoch()) else {
        return refuse(StatusCode::CONFLICT, &"this node is not ready: it has no key yet");
    };
    if wire.len() > 2 * EncryptedWeights::MAX_BYTES {
        return refuse(StatusCode::BAD_REQUEST, &"it is longer than weights can be");
    }
    let mut bytes = vec![0; wire.len() / 2];
    let read = read_hex(&wire, &mut bytes).map_err(|error| error.to_string());
    let list = match read
        .and_then(|()| EncryptedWeights::from_wire(&bytes).map_err(|error| error.to_string()))
    {
        Ok(list) => list,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error),
    };
    let weights = list.digest();
    if !named(&views.current(), &chain, scope.cluster).await.contains(&weights) {
        let unnamed = format!(
            "no policy that this node sees on chain names the weights {weights}: set the policy with \
             `veil chain policy set`, or wait until this node has seen its block"
        );
        return refuse(StatusCode::CONFLICT, &unnamed);
    }
    match epoch.take_weights(weights, list).await {
        Ok(_) => Json(WeightsTaken { weights }).into_response(),
        Err(refusal) => refuse(StatusCode::BAD_REQUEST, &refusal),
    }
}
