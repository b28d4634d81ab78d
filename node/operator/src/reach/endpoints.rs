//! Where a job's replicas are reached: each worker is asked.

use std::collections::BTreeSet;

use async_recursion::async_recursion as boxed;
use futures::future::join_all;
use serde::Serialize;
use veil_node_reach::{ReachFailure, frame};
use veil_protocol_spec::{
    Blake3Digest, PeerIdHash, ReplicaIndex,
    reach::{Action, Endpoints, PortEndpoint},
    scheduling::{Name, Protocol},
};

use super::{Named, Placed, ReachError, Way};

/// A port of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    /// What the job calls it.
    pub name: Name,
    /// What the program listens on.
    pub container: u16,
    /// How packets reach it.
    pub protocol: Protocol,
    /// The worker's announced address and the port there; nothing if only links and forwards lead to it.
    pub published: Option<String>,
}

/// A replica that has a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// Its job.
    pub job: Blake3Digest,
    /// What its operator calls the job.
    pub name: Option<String>,
    /// Which of the job's.
    pub replica: ReplicaIndex,
    /// Where it is.
    pub worker: PeerIdHash,
    /// Whether it runs, and passes its health check if it has one; nothing if the worker was not reached.
    pub running: Option<bool>,
    /// In words, by the worker, or why that was not reached.
    pub state: String,
    /// Each port of the job.
    pub ports: Vec<Port>,
}

/// Of one job, or of all that run.
///
/// # Errors
/// [`ReachError`]; not for a worker that is not reached.
#[boxed]
pub async fn look(way: &Way, named: Option<&Named>) -> Result<Vec<Endpoint>, ReachError> {
    let jobs = way.jobs().await?;
    let all: BTreeSet<_> = match named {
        Some(named) => [named.clone()].into_iter().map(|of| (of.job, of.replica)).collect(),
        None => jobs.iter().map(|of| (of.job.to_string(), None)).collect(),
    };
    let mut places = Vec::new();
    for (job, replica) in all {
        match way.places(&Named { job, replica }).await {
            Ok(found) => places.extend(found.into_iter().filter(|placed| !placed.ended)),
            // One of many waits for its place.
            Err(ReachError::NoPlace { .. }) if named.is_none() => {}
            Err(error) => return Err(error),
        }
    }
    let asked = places.iter().map(async |placed| {
        let name = jobs.iter().find(|of| of.job == placed.job).and_then(|of| of.name.clone());
        let Placed { job, replica, worker, .. } = *placed;
        let (running, state, ports) = match ask(way, placed).await {
            Ok(Endpoints { state, running, ports }) => {
                (Some(running), state, ports.into_iter().map(port).collect())
            }
            Err(error) => (None, error.to_string(), Vec::new()),
        };
        Endpoint { job, name, replica, worker, running, state, ports }
    });
    Ok(join_all(asked).await)
}

async fn ask(way: &Way, placed: &Placed) -> Result<Endpoints, ReachError> {
    let reached = way.reach(placed, Action::Endpoints).await?;
    let mut stream = reached.open().await?;
    match frame::read::<Endpoints>(&mut stream).await {
        Ok(Some(endpoints)) => Ok(endpoints),
        Ok(None) | Err(_) => {
            let why = "it did not say how the replica fares".to_owned();
            Err(ReachFailure::Over { worker: placed.worker, why }.into())
        }
    }
}

fn port(PortEndpoint { name, container, protocol, published }: PortEndpoint) -> Port {
    let published = published.map(|(host, port)| std::net::SocketAddr::new(host, port).to_string());
    Port { name, container: container.get(), protocol, published }
}
