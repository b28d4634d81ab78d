//! From a job to containers that run, and the proof of it.

use std::{collections::BTreeSet, time::Duration};

use serde::Serialize;
use veil_node_api::client::ClientError;
use veil_node_api::status::{ReplicaStatus, Role, Status};
use veil_node_chain::ChainError;
use veil_node_config::job_file::JobFile;
use veil_node_containers::{Docker, Executor, Observed, Owner};
use veil_node_operator::{
    submission,
    verify::{Verifier, VerifyError},
};
use veil_protocol_spec::{
    Blake3Digest, Slot,
    scheduling::{Assignment, ClusterState, Outcome, SlotRecord},
};

use crate::{
    Devnet, DevnetError,
    wait::{Polled, describe},
};

/// For a slot, from the submission on.
const CERTIFICATE_TIMEOUT: Duration = Duration::from_secs(900);
/// For images and containers.
const CONTAINERS_TIMEOUT: Duration = Duration::from_secs(600);
/// For the root to be on chain.
const ANCHOR_TIMEOUT: Duration = Duration::from_secs(300);

/// A job's replicas, placed, verified, anchored.
#[derive(Clone, Debug, Serialize)]
pub struct Placed {
    /// The job.
    pub job: Blake3Digest,
    /// The slot that completed it.
    pub slot: Slot,
    /// Replicas that run, by their workers' own observation and by the engine's.
    pub replicas_running: usize,
    /// The records were verified here.
    pub certificate_verified: bool,
    /// The roots were read back from the chain and are the same.
    pub anchored: bool,
    /// Which replica runs where.
    pub replicas: Vec<Place>,
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Its index.
    pub replica: u16,
    /// The worker's short name.
    pub worker: String,
    /// Docker's id.
    pub container: Option<String>,
}

impl Devnet {
    /// Submits a job as the operator: on chain, then its body through a node.
    ///
    /// # Errors
    /// [`DevnetError`].
    pub async fn submit(&self, job: JobFile) -> Result<Blake3Digest, DevnetError> {
        let ask = self.any_started()?.client();
        let operator = self.operator.account().ok_or(ChainError::NoAccount)?;
        let submitted =
            submission::submit(&self.operator, self.cluster, &ask, operator, job, None).await?;
        Ok(submitted.job)
    }

    fn any_started(&self) -> Result<&crate::Node, DevnetError> {
        let node = self.nodes.iter().find(|node| node.is_started());
        node.ok_or_else(|| DevnetError::Options("no node runs".to_owned()))
    }

    /// Waits until every replica of the job runs, as its worker sees it.
    ///
    /// # Errors
    /// [`DevnetError::Deadline`] names the replicas that do not, and why.
    pub async fn await_running(
        &self,
        job: Blake3Digest,
        replicas: u16,
    ) -> Result<Vec<Place>, DevnetError> {
        self.wait("placing the job", CERTIFICATE_TIMEOUT, async || {
            let statuses = self.statuses().await;
            let placed = statuses.iter().filter_map(|(_, status)| status.as_ref()).any(|status| {
                let of_job =
                    |replica: &&ReplicaStatus| replica.job == job && replica.worker.is_some();
                status.replicas.iter().filter(of_job).count() == usize::from(replicas)
            });
            if placed {
                return Ok(Polled::Done(()));
            }
            let at: Vec<_> =
                statuses.iter().map(|(node, status)| describe(node, status.as_ref())).collect();
            Ok(Polled::Outstanding(at.join("; ")))
        })
        .await?;
        self.wait("starting the containers", CONTAINERS_TIMEOUT, async || {
            let statuses = self.statuses().await;
            let (mut places, mut missing) = (Vec::new(), Vec::new());
            for (node, status) in &statuses {
                for replica in own_replicas(status.as_ref(), node, job) {
                    let state = replica.observed.as_ref();
                    if state.is_some_and(|observed| observed.running) {
                        places.push(Place {
                            replica: replica.replica.0,
                            worker: node.name().to_owned(),
                            container: state.and_then(|observed| observed.container.clone()),
                        });
                    } else {
                        let state = state.map_or("not seen yet", |observed| &observed.state);
                        missing.push(format!("{} on {}: {state}", replica.replica, node.name()));
                    }
                }
            }
            let running: BTreeSet<_> = places.iter().map(|place| place.replica).collect();
            if missing.is_empty() && running.len() == usize::from(replicas) {
                places.sort_by_key(|place| place.replica);
                return Ok(Polled::Done(places));
            }
            let expected = (0..replicas).filter(|replica| !running.contains(replica));
            missing.extend(expected.map(|replica| format!("replica {replica}")));
            Ok(Polled::Outstanding(missing.join("; ")))
        })
        .await
    }

    /// How many replicas of the job the engine itself says run, on each worker.
    ///
    /// # Errors
    /// [`DevnetError::Docker`].
    pub async fn running_by_engine(
        &self,
        job: Blake3Digest,
    ) -> Result<Vec<(String, usize)>, DevnetError> {
        let docker = Docker::connect(&self.options.docker_socket).await?;
        let mut counts = Vec::new();
        for node in self.of_role(Role::Worker) {
            let owner = Owner { scope: self.scope(), worker: node.peer() };
            let observed = Executor::new(docker.clone(), owner).observe().await?;
            let runs = |seen: &&veil_node_containers::ObservedReplica| {
                seen.id.job == job && seen.observed == Observed::Running
            };
            counts.push((node.name().to_owned(), observed.iter().filter(runs).count()));
        }
        Ok(counts)
    }

    /// Every slot's record up to the last, oldest first, as a node has them.
    async fn records(&self) -> Result<Vec<SlotRecord>, DevnetError> {
        let node = self.any_started()?;
        let client = node.client();
        let last = node.status().await?.last_slot;
        let mut records = Vec::new();
        for slot in 1..=last.0 {
            match client.get(&format!("/v1/slots/{slot}")).await {
                Ok(record) => records.push(record),
                // A slot that failed has none; the chain of certificates shows if one is kept back.
                Err(ClientError::Refused(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(records)
    }

    /// The records of all slots, followed one by one.
    async fn follow_all(&self) -> Result<(Verifier, Vec<SlotRecord>), DevnetError> {
        let failed = |slot| move |source| DevnetError::Verify { slot, source };
        let mut verifier =
            Verifier::from_chain(&self.admin, self.cluster).await?.map_err(failed(Slot(0)))?;
        let records = self.records().await?;
        for record in &records {
            verifier.follow(record).map_err(failed(record.manifest.slot))?;
        }
        Ok((verifier, records))
    }

    /// Verifies every certificate here, from nothing; returns the state that they lead to.
    ///
    /// # Errors
    /// [`DevnetError::Verify`].
    pub async fn verify_certificates(&self) -> Result<ClusterState, DevnetError> {
        Ok(self.follow_all().await?.0.state().clone())
    }

    /// Verifies every certificate here, waits until they are anchored, and compares what the chain
    /// has with what was verified.
    ///
    /// # Errors
    /// [`DevnetError::Verify`], [`DevnetError::Deadline`].
    pub async fn verify(
        &self,
        job: Blake3Digest,
        replicas: Vec<Place>,
    ) -> Result<Placed, DevnetError> {
        let failed = |slot| move |source| DevnetError::Verify { slot, source };
        let (verifier, records) = self.follow_all().await?;
        let places = |a: &Assignment| a.job == job && matches!(a.outcome, Outcome::Node(_));
        let assigns = |record: &&SlotRecord| record.assignments.as_slice().iter().any(places);
        let completing = records.iter().rev().find(assigns);
        let completing = completing.map_or(Slot(0), |record| record.manifest.slot);
        for place in &replicas {
            let placed = verifier.state().replicas().any(|(of, replica, placement)| {
                of == job
                    && replica.0 == place.replica
                    && self.name_of(&placement.worker) == place.worker
            });
            if !placed {
                return Err(failed(completing)(VerifyError::Published(
                    "no certificate for a container that runs",
                )));
            }
        }
        let of_engine: usize =
            self.running_by_engine(job).await?.into_iter().map(|(_, count)| count).sum();
        if of_engine != replicas.len() {
            return Err(DevnetError::Options(format!(
                "the workers see {} containers of the job running, the engine {of_engine}",
                replicas.len()
            )));
        }
        self.await_anchored(completing).await?;
        Ok(Placed {
            job,
            slot: completing,
            replicas_running: replicas.len(),
            certificate_verified: true,
            anchored: true,
            replicas,
        })
    }

    /// Waits until the chain's head is this slot or a later one, and compares.
    async fn await_anchored(&self, slot: Slot) -> Result<(), DevnetError> {
        let failed = |source| DevnetError::Verify { slot, source };
        let (chain, head) = self
            .wait("anchoring the certificate", ANCHOR_TIMEOUT, async || {
                // Head and proofs are asked for as of one block: the head moves on.
                let chain = self.admin.at(self.admin.block().await?.0);
                let known = self.any_started()?.status().await?.last_slot;
                let head = chain.head(self.cluster).await?;
                Ok(match head.filter(|head| (slot..=known).contains(&head.slot)) {
                    Some(head) => Polled::Done((chain, head)),
                    None => Polled::Outstanding(format!("the anchor of slot {slot}")),
                })
            })
            .await?;
        // The certificates up to the head, which may be younger than those verified so far.
        let (verifier, records) = self.follow_all().await?;
        let bodies = verifier.bodies().iter().filter(|of| (slot..=head.slot).contains(&of.slot));
        let bodies: Vec<_> = bodies.copied().collect();
        let Some(last) = bodies.last().filter(|last| last.hash() == head.hash) else {
            return Err(failed(VerifyError::Anchored("certificate")));
        };
        let anchored = self.admin.anchored(self.cluster, head.hash).await?;
        let anchored = anchored.ok_or_else(|| failed(VerifyError::Anchored("certificate")))?;
        let same = [
            (anchored.slot == last.slot, "slot"),
            (anchored.assignments_root == last.assignments_root, "root of assignments"),
            (anchored.state_root == last.state_root, "state root"),
            (anchored.reference_string == last.reference_string, "origin of the reference string"),
        ];
        if let Some((_, what)) = same.into_iter().find(|(same, _)| !same) {
            return Err(failed(VerifyError::Anchored(what)));
        }
        let Some(record) = records.iter().find(|record| record.manifest.slot == slot) else {
            return Ok(());
        };
        let tree = record.assignments.tree();
        for (i, assignment) in record.assignments.as_slice().iter().enumerate() {
            let proof = tree.proof(i).unwrap_or_default();
            if !chain.verify_inclusion(&bodies, assignment, &proof).await? {
                return Err(failed(VerifyError::NotOnChain(i)));
            }
        }
        Ok(())
    }
}

/// Replicas of the job that a worker says are its own.
fn own_replicas<'a>(
    status: Option<&'a Status>,
    node: &crate::Node,
    job: Blake3Digest,
) -> impl Iterator<Item = &'a ReplicaStatus> {
    let me = node.peer();
    let all = status.map_or(&[][..], |status| &status.replicas);
    all.iter().filter(move |replica| replica.job == job && replica.worker == Some(me))
}
