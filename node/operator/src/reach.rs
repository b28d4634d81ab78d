//! Reaching jobs: logs, commands, connections, endpoints.
//!
//! # Flow
//! 1. [`Way::open`] takes a node to go through, and the key that signs.
//! 2. [`Way::places`] says where replicas are, by a certificate that the committee of the chain has signed: a node that
//!    lies about it could put itself at the other end.
//! 3. [`Way::reach`] opens a session with the worker through the node, which carries what it cannot read.
//! 4. [`logs`], [`exec`], [`forward`] and [`endpoints`] use it.
//!
//! # Caveats
//! - The node may show an older certificate than the newest, though none from before the last one on chain. Where it
//!   says that a replica was, it was.
//! - The node says which digests a job's name stands for. Give the digest to rely on it for nothing.

pub mod endpoints;
pub mod exec;
pub mod forward;
pub mod logs;
pub mod mapping;

use std::{
    collections::BTreeSet,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use async_recursion::async_recursion as boxed;
use tokio::sync::Mutex;
use veil_node_api::{
    client::{Client, ClientError},
    status::{JobStatus, SnapshotFile},
};
use veil_node_chain::{Chain, ChainError};
use veil_node_reach::{ReachFailure, Reached, Signer, reach};
use veil_protocol_spec::{
    Address, Blake3Digest, ClusterId, CodecError, PeerIdHash, ReplicaIndex, Wire,
    reach::{Action, Refusal},
    read_hex,
    scheduling::ClusterState,
    snapshot::StateSnapshot,
};

use crate::{
    error::OperatorError,
    history::find_own,
    submission,
    verify::{Verifier, VerifyError},
};

/// A session with a node is good for a quarter of an hour.
const SESSION: Duration = Duration::from_secs(10 * 60);

/// Why a job is not reached.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the sentence of a variant says what its fields are")]
pub enum ReachError {
    /// Which job, and whose.
    #[error(transparent)]
    Operator(#[from] OperatorError),
    /// The chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The node that is gone through.
    #[error(transparent)]
    Node(#[from] ClientError),
    /// Its answer is none.
    #[error("the node's snapshot: {0}")]
    Snapshot(#[from] CodecError),
    /// Its word on where replicas are.
    #[error(
        "the node does not show where the replica is, by the committee of the chain: {0}; ask another node"
    )]
    Unverified(#[from] VerifyError),
    /// The replica is nowhere.
    #[error("no replica of `{job}` has a place now{because}; see `veil job status`")]
    NoPlace { job: String, because: String },
    /// There is no such replica.
    #[error("{0}: give a job as JOB or JOB/REPLICA, such as shop-web/0")]
    Malformed(String),
    /// The worker.
    #[error(transparent)]
    Failed(#[from] ReachFailure),
}

impl ReachError {
    /// What the worker has said, if it has.
    #[must_use]
    pub const fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Failed(ReachFailure::Refused { refusal, .. }) => Some(refusal),
            _ => None,
        }
    }
}

/// `JOB` or `JOB/REPLICA`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Name, digest, or first digits of the digest.
    pub job: String,
    /// Which replica; nothing for all, or any.
    pub replica: Option<ReplicaIndex>,
}

impl FromStr for Named {
    type Err = ReachError;

    fn from_str(text: &str) -> Result<Self, ReachError> {
        let malformed = || ReachError::Malformed(text.to_owned());
        let (job, replica) = match text.split_once('/') {
            Some((job, replica)) => {
                let replica = replica.parse().map_err(|_| malformed())?;
                (job, Some(ReplicaIndex(replica)))
            }
            None => (text, None),
        };
        if job.is_empty() {
            return Err(malformed());
        }
        Ok(Self { job: job.to_owned(), replica })
    }
}

/// Where a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its job, of the version that it is of.
    pub job: Blake3Digest,
    /// Which of the job's.
    pub replica: ReplicaIndex,
    /// The worker.
    pub worker: PeerIdHash,
    /// Whether it has ended for good; its log is there as long as its container.
    pub ended: bool,
}

/// A node to go through, and the key that signs.
pub struct Way {
    chain: Chain,
    cluster: ClusterId,
    node: Client,
    operator: Address,
    signer: Signer,
    session: Mutex<Option<(Client, Instant)>>,
}

impl core::fmt::Debug for Way {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Way").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Way {
    /// Through `node`, by the account of `chain`, to the jobs of `operator`.
    ///
    /// # Errors
    /// [`ChainError::NoAccount`].
    pub fn open(
        chain: Chain,
        cluster: ClusterId,
        node: Client,
        operator: Address,
    ) -> Result<Arc<Self>, ReachError> {
        let key = chain.account_key().ok_or(ChainError::NoAccount)?.clone();
        let signer = Signer {
            scope: chain.scope(cluster),
            account: key.address(),
            operator,
            sign: Arc::new(move |digest| key.sign(digest).map_err(|error| error.to_string())),
        };
        let session = Mutex::new(None);
        Ok(Arc::new(Self { chain, cluster, node, operator, signer, session }))
    }

    /// The node, logged in at.
    #[boxed]
    async fn session(&self) -> Result<Client, ReachError> {
        let mut session = self.session.lock().await;
        if let Some((client, since)) = &*session
            && since.elapsed() < SESSION
        {
            return Ok(client.clone());
        }
        let client =
            submission::log_in(&self.chain, self.cluster, &self.node, self.operator).await?;
        *session = Some((client.clone(), Instant::now()));
        Ok(client)
    }

    /// What the newest certificate that the node has says, checked.
    #[boxed]
    async fn state(&self) -> Result<ClusterState, ReachError> {
        let session = self.session().await?;
        let SnapshotFile { wire } = session.get("/v1/snapshot").await?;
        let mut bytes = vec![0; wire.len() / 2];
        let malformed = CodecError::Malformed { name: StateSnapshot::NAME };
        read_hex(&wire, &mut bytes).map_err(|_| malformed)?;
        let snapshot = StateSnapshot::from_wire(&bytes)?;
        let verifier = Verifier::from_chain(&self.chain, self.cluster).await??;
        Ok(verifier.newest(snapshot)?)
    }

    /// The operator's jobs that are not withdrawn, as the node has them.
    #[boxed]
    async fn jobs(&self) -> Result<Vec<JobStatus>, ReachError> {
        let jobs: Vec<JobStatus> = self.session().await?.get("/v1/jobs").await?;
        let own = |job: &JobStatus| job.operator == self.operator && !job.cancelled;
        Ok(jobs.into_iter().filter(own).collect())
    }

    /// Where replicas of a job are, by replica, those of the newest version first.
    ///
    /// # Errors
    /// [`ReachError`]; [`ReachError::NoPlace`] if there is none.
    #[boxed]
    pub async fn places(&self, named: &Named) -> Result<Vec<Placed>, ReachError> {
        let jobs = self.jobs().await?;
        let newest = find_own(&jobs, self.operator, &named.job)?;
        let name = jobs.iter().find(|of| of.job == newest).and_then(|of| of.name.as_ref());
        let by_name = name == Some(&named.job);
        let mut meant: Vec<_> = jobs
            .iter()
            .filter(|of| of.job == newest || by_name && of.name.as_ref() == name)
            .collect();
        meant.sort_by_key(|of| core::cmp::Reverse(of.position));
        let state = self.state().await?;
        let mut places = Vec::new();
        for job in &meant {
            places.extend(places_of(&state, job.job, named.replica));
        }
        places.sort_by_key(|placed| (placed.replica, placed.ended));
        if !places.is_empty() {
            return Ok(places);
        }
        let wanted = |replica| named.replica.is_none_or(|wanted| wanted == replica);
        let waits = meant.iter().flat_map(|of| &of.replicas).filter(|of| wanted(of.replica));
        let because: BTreeSet<_> = waits.filter_map(|of| of.pending_because.clone()).collect();
        let because: String = because.iter().map(|because| format!(": {because}")).collect();
        Err(ReachError::NoPlace { job: named.job.clone(), because })
    }

    /// A session with the worker of a replica.
    ///
    /// # Errors
    /// [`ReachError`].
    #[boxed]
    pub async fn reach(&self, placed: &Placed, action: Action) -> Result<Reached, ReachError> {
        let Placed { job, replica, worker, .. } = *placed;
        let stream = self.session().await?.reach(worker).await?;
        Ok(reach(stream, &self.signer, worker, (job, replica), action).await?)
    }
}

fn places_of(state: &ClusterState, job: Blake3Digest, wanted: Option<ReplicaIndex>) -> Vec<Placed> {
    let wanted = |of: &Placed| of.job == job && wanted.is_none_or(|wanted| wanted == of.replica);
    let placed = state.replicas().map(|(job, replica, placement)| Placed {
        job,
        replica,
        worker: placement.worker,
        ended: false,
    });
    let ended = state.done().map(|(job, replica, done)| Placed {
        job,
        replica,
        worker: done.placement.worker,
        ended: true,
    });
    placed.chain(ended).filter(wanted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_named_after_its_job() {
        let named = |job: &str, replica: Option<u16>| Named {
            job: job.to_owned(),
            replica: replica.map(ReplicaIndex),
        };
        assert_eq!("shop".parse::<Named>().unwrap(), named("shop", None));
        assert_eq!("shop/0".parse::<Named>().unwrap(), named("shop", Some(0)));
        for wrong in ["", "/1", "shop/", "shop/x", "shop/1/2", "shop/-1", "shop/70000"] {
            assert!(matches!(wrong.parse::<Named>(), Err(ReachError::Malformed(_))), "{wrong}");
        }
    }
}
