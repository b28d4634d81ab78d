//! The admin's side: proposing attempts, and ending one.

use std::time::Duration;

use async_recursion::async_recursion as boxed;
use veil_keygen_ceremony::keyset::ParameterSet;
use veil_node_storage::data_dir::DataDir;
use veil_protocol_spec::{
    Attempt, Blake3Digest, Committee, Epoch, ParticipantIndex, domain, identity::SecretIdentity,
    scheduling::ClusterScope,
};

use crate::{
    commit_point::{AttemptStatus, CommitPointChain, CommitPointError, NewAttempt},
    error::CeremonyError,
    folder::AttemptFolder,
    options::ceremony_context,
};

/// What is proposed.
#[derive(Clone, Debug)]
pub struct ProposeOptions {
    /// Chain, contract and cluster.
    pub scope: ClusterScope,
    /// The cluster's committee.
    pub committee: Committee,
    /// Name of the FHE parameter set.
    pub parameters: String,
    /// Until the attempt expires.
    pub duration: Duration,
    /// Attempts to propose, one after the other; 1 proposes and returns unless `wait` is set.
    pub attempts: u32,
    /// Wait for the outcome.
    pub wait: bool,
    /// Between two looks at the chain.
    pub poll: Duration,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// The epoch.
    pub epoch: Epoch,
    /// The last attempt proposed.
    pub attempt: Attempt,
    /// Where it stood at last.
    pub status: AttemptStatus,
}

/// Proposes an attempt; if it is to wait, proposes the next one when an attempt is aborted or
/// expires, up to the number of attempts.
///
/// # Errors
/// [`CeremonyError::Proposal`] for unknown parameters, [`CeremonyError::Chain`].
pub async fn propose(
    chain: &dyn CommitPointChain,
    options: &ProposeOptions,
    mut proposed: impl FnMut(&Proposed) + Send,
) -> Result<Proposed, CeremonyError> {
    propose_all(chain, options, &mut proposed).await
}

#[boxed]
async fn propose_all(
    chain: &dyn CommitPointChain,
    options: &ProposeOptions,
    proposed: &mut (dyn FnMut(&Proposed) + Send),
) -> Result<Proposed, CeremonyError> {
    let params = ParameterSet::by_name(&options.parameters, options.committee)
        .map_err(|error| CeremonyError::Proposal(error.to_string()))?;
    let mut left = options.attempts.max(1);
    loop {
        let (epoch, attempt) = chain.next().await?;
        chain
            .propose(&NewAttempt {
                epoch,
                attempt,
                parameters: params.name().to_owned(),
                parameters_digest: params.digest(),
                context: ceremony_context(&options.scope),
                duration: options.duration,
            })
            .await?;
        let mut now = Proposed { epoch, attempt, status: AttemptStatus::Proposed };
        proposed(&now);
        if !options.wait {
            return Ok(now);
        }
        now.status = decision(chain, options, epoch, attempt).await?;
        left -= 1;
        if matches!(now.status, AttemptStatus::Published { .. }) || left == 0 {
            return Ok(now);
        }
        proposed(&now);
    }
}

/// Waits until an attempt is decided: until its deadline, and as long again for a chain that is
/// slow or away.
async fn decision(
    chain: &dyn CommitPointChain,
    options: &ProposeOptions,
    epoch: Epoch,
    attempt: Attempt,
) -> Result<AttemptStatus, CeremonyError> {
    let decided = async {
        loop {
            match chain.status(epoch, attempt).await {
                Ok(AttemptStatus::Proposed) => {}
                Ok(status) => return Ok(status),
                // Its proposal is not settled yet.
                Err(CommitPointError::NotProposed { .. }) => {}
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "the chain does not say how the attempt stands");
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(options.poll).await;
        }
    };
    let late = options.duration * 2 + Duration::from_secs(60);
    match tokio::time::timeout(late, decided).await {
        Ok(status) => Ok(status?),
        Err(_) => {
            let late = "it has not said how the attempt ended long after its deadline";
            Err(CommitPointError::Unreachable(late.to_owned()).into())
        }
    }
}

/// Ends the attempt that is open, signed by a member.
///
/// # Errors
/// [`CeremonyError::OutOfDate`] if none is open, [`CeremonyError::Proposal`] if this identity is not
/// on its roster, [`CeremonyError::Chain`].
#[boxed]
pub async fn abort(
    chain: &dyn CommitPointChain,
    identity: &SecretIdentity,
    reason: &str,
) -> Result<(Epoch, Attempt, ParticipantIndex), CeremonyError> {
    let proposal = chain.latest().await?;
    let (epoch, attempt, status) = (proposal.epoch, proposal.attempt, proposal.status);
    if status != AttemptStatus::Proposed {
        return Err(CeremonyError::OutOfDate { epoch, attempt, status });
    }
    let public = identity.public();
    let seat = proposal.roster.iter().position(|known| *known == public);
    let seat =
        seat.and_then(|i| ParticipantIndex::new(u8::try_from(i).ok()? + 1).ok()).ok_or_else(
            || CeremonyError::Proposal("this identity is not on the ceremony's roster".to_owned()),
        )?;
    let digest = Blake3Digest(domain::hash_parts(domain::CEREMONY_ABORT, &[reason.as_bytes()]));
    chain.abort(epoch, attempt, digest, seat, identity).await?;
    Ok((epoch, attempt, seat))
}

/// Puts out of use what a member that does not run has of an attempt, if the chain says that it made no
/// key: the seed is destroyed, the key share is void.
///
/// # Errors
/// [`CeremonyError::Chain`], [`CeremonyError::Files`].
#[boxed]
pub async fn give_up_failed_attempt(
    chain: &dyn CommitPointChain,
    data: &DataDir,
    (epoch, attempt, me): (Epoch, Attempt, ParticipantIndex),
) -> Result<(), CeremonyError> {
    match chain.status(epoch, attempt).await? {
        AttemptStatus::Aborted | AttemptStatus::Expired => {}
        AttemptStatus::Proposed | AttemptStatus::Published { .. } => return Ok(()),
    }
    let folder = AttemptFolder::of(data.path(), epoch, attempt, me);
    if !folder.exists() {
        return Ok(());
    }
    let path = folder.path().to_owned();
    folder.give_up().map_err(|source| CeremonyError::Files { path, source })
}
