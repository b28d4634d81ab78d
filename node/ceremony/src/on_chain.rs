//! The contracts as the ceremony's commit point.

use async_trait::async_trait;
use veil_committee::frost::{self, GroupPublicKey};
use veil_node_chain::{
    Chain, ChainError, Endorsements, KeyPublication, ReferenceString, abort_digest,
};
use veil_protocol_spec::{
    Attempt, Blake3Digest, ClusterId, Epoch, KeccakDigest, ParticipantIndex, PeerIdHash,
    PublicIdentity, Signature, Wire,
    identity::SecretIdentity,
    publication::Publication,
    scheduling::{GroupSignature, ReferenceStringOrigin},
};

use crate::{
    commit_point::{AttemptStatus, CommitPointChain, CommitPointError, NewAttempt, Proposal},
    status::unix_seconds,
};

/// A cluster's ceremonies on chain.
#[derive(Clone)]
pub struct ChainCommitPoint {
    chain: Chain,
    cluster: ClusterId,
}

impl From<ChainError> for CommitPointError {
    fn from(error: ChainError) -> Self {
        let text = error.to_string();
        match error {
            ChainError::Unsigned(batch) => Self::Unsigned(batch),
            ChainError::Rpc { .. } => Self::Unreachable(text),
            error if error.is_transient() => Self::Unreachable(text),
            _ => Self::Refused(text),
        }
    }
}

impl ChainCommitPoint {
    /// The ceremonies of this cluster. Proposing, publishing and aborting need an account.
    #[must_use]
    pub const fn new(chain: Chain, cluster: ClusterId) -> Self {
        Self { chain, cluster }
    }

    /// The chain as of the last block that is deep enough to act on.
    async fn settled(&self) -> Result<Chain, CommitPointError> {
        Ok(self.chain.at(self.chain.settled().await?))
    }

    /// The epoch that gets the next key.
    async fn next_epoch(&self, chain: &Chain) -> Result<Epoch, CommitPointError> {
        let current = chain.current_epoch(self.cluster).await?;
        Ok(current.map_or(Epoch(0), |epoch| Epoch(epoch.0 + 1)))
    }

    async fn identities(
        &self,
        chain: &Chain,
        roster: &[PeerIdHash],
    ) -> Result<Vec<PublicIdentity>, CommitPointError> {
        Ok(chain.identities(self.cluster, roster).await?)
    }

    async fn attempt(
        &self,
        chain: &Chain,
        epoch: Epoch,
        attempt: Attempt,
    ) -> Result<(veil_node_chain::CeremonyAttempt, AttemptStatus), CommitPointError> {
        let found = chain.ceremony_attempt(self.cluster, epoch, attempt).await?;
        let found = found.ok_or(CommitPointError::NotProposed { epoch })?;
        let status = match found.status {
            veil_node_chain::AttemptStatus::Proposed => AttemptStatus::Proposed,
            veil_node_chain::AttemptStatus::Aborted => AttemptStatus::Aborted,
            veil_node_chain::AttemptStatus::Expired => AttemptStatus::Expired,
            veil_node_chain::AttemptStatus::Published => {
                let key = chain.key(self.cluster, epoch).await?.ok_or_else(|| {
                    CommitPointError::Unreachable("its key is not to be seen yet".to_owned())
                })?;
                AttemptStatus::Published {
                    transcript_root: key.transcript_root,
                    key_set: key.key_set,
                }
            }
        };
        Ok((found, status))
    }

    fn publication(&self, publication: &Publication) -> Result<KeyPublication, CommitPointError> {
        let refused = |error: &dyn core::fmt::Display| CommitPointError::Refused(error.to_string());
        let group: GroupPublicKey =
            GroupPublicKey::from_wire(&publication.group).map_err(|error| refused(&error))?;
        if publication.epoch.0 > 0 {
            return Err(refused(
                &"a later epoch's key needs the previous group's signature, which this version cannot make yet",
            ));
        }
        KeyPublication::new(
            self.chain.scope(self.cluster),
            (publication.epoch, publication.attempt),
            &group,
            publication.key_set,
            publication.transcript_root,
            ReferenceString {
                digest: publication.reference_string,
                // Derived from the transcript, like the digest: all members made it.
                origin: ReferenceStringOrigin::Committee,
            },
        )
        .map_err(|error| refused(&error))
    }
}

#[async_trait]
impl CommitPointChain for ChainCommitPoint {
    async fn latest(&self) -> Result<Proposal, CommitPointError> {
        let chain = self.settled().await?;
        let next = self.next_epoch(&chain).await?;
        let proposed = chain.ceremony_attempts(self.cluster, next).await?;
        let (epoch, attempt) = match (proposed.checked_sub(1), next.0.checked_sub(1)) {
            (Some(last), _) => (next, Attempt(last)),
            (None, Some(current)) => {
                let key = chain.key(self.cluster, Epoch(current)).await?;
                let key = key.ok_or(CommitPointError::NotProposed { epoch: next })?;
                (Epoch(current), key.attempt)
            }
            (None, None) => return Err(CommitPointError::NotProposed { epoch: next }),
        };
        let (found, status) = self.attempt(&chain, epoch, attempt).await?;
        Ok(Proposal {
            epoch,
            attempt,
            roster: self.identities(&chain, &found.roster).await?,
            parameters: found.parameters,
            parameters_digest: found.parameters_digest,
            context: found.context,
            deadline: found.deadline,
            status,
        })
    }

    async fn status(
        &self,
        epoch: Epoch,
        attempt: Attempt,
    ) -> Result<AttemptStatus, CommitPointError> {
        let chain = self.settled().await?;
        Ok(self.attempt(&chain, epoch, attempt).await?.1)
    }

    async fn is_over_everywhere(
        &self,
        epoch: Epoch,
        attempt: Attempt,
    ) -> Result<bool, CommitPointError> {
        for chain in self.chain.each_endpoint().await? {
            let chain = chain.at(chain.settled().await?);
            if !self.attempt(&chain, epoch, attempt).await?.1.is_over() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn settled_block(&self) -> Result<u64, CommitPointError> {
        Ok(self.chain.settled().await?.number)
    }

    async fn next(&self) -> Result<(Epoch, Attempt), CommitPointError> {
        let epoch = self.next_epoch(&self.chain).await?;
        Ok((epoch, Attempt(self.chain.ceremony_attempts(self.cluster, epoch).await?)))
    }

    async fn propose(&self, attempt: &NewAttempt) -> Result<(), CommitPointError> {
        // The chain's clock decides; a local chain's may lag behind until its next block.
        let (_, time) = self.chain.block().await?;
        let deadline = time.max(unix_seconds()) + attempt.duration.as_secs();
        let proposal = veil_node_chain::Proposal {
            cluster: self.cluster,
            epoch: attempt.epoch,
            attempt: attempt.attempt,
            parameters: attempt.parameters.clone(),
            parameters_digest: attempt.parameters_digest,
            context: attempt.context,
            deadline,
        };
        self.chain.propose_ceremony(&proposal).await?;
        Ok(())
    }

    fn publication_digest(
        &self,
        publication: &Publication,
    ) -> Result<KeccakDigest, CommitPointError> {
        Ok(KeccakDigest(self.publication(publication)?.member_digest()))
    }

    fn possession_digest(
        &self,
        publication: &Publication,
    ) -> Result<KeccakDigest, CommitPointError> {
        Ok(self.publication(publication)?.possession_digest())
    }

    async fn publish(
        &self,
        publication: &Publication,
        signatures: &[Signature],
        possession: &frost::GroupSignature,
    ) -> Result<(), CommitPointError> {
        let (epoch, attempt) = (publication.epoch, publication.attempt);
        let (found, _) = self.attempt(&self.chain, epoch, attempt).await?;
        let roster = self.identities(&self.chain, &found.roster).await?;
        let possession: [u8; 65] = possession.as_bytes().try_into().map_err(|_| {
            CommitPointError::Refused("the proof of possession has another length".to_owned())
        })?;
        let endorsements =
            Endorsements { members: signatures.to_vec(), possession: GroupSignature(possession) };
        let publication = self.publication(publication)?;
        match self.chain.publish_key(&publication, &roster, &endorsements).await {
            // Another member was faster, or it is too late: its status says which.
            Err(ChainError::Refused(refusal)) if refusal.is_attempt_over() => Ok(()),
            published => Ok(published.map(drop)?),
        }
    }

    async fn abort_costs_seat(&self) -> Result<bool, CommitPointError> {
        Ok(self.chain.cluster(self.cluster).await?.elected)
    }

    async fn abort(
        &self,
        epoch: Epoch,
        attempt: Attempt,
        reason: Blake3Digest,
        seat: ParticipantIndex,
        identity: &SecretIdentity,
    ) -> Result<(), CommitPointError> {
        let digest = abort_digest(&self.chain.scope(self.cluster), epoch, attempt, &reason);
        let signature = identity.sign(&digest);
        let member = (seat, identity.public());
        let place = (epoch, attempt);
        let ended =
            self.chain.abort_ceremony_signed(self.cluster, place, reason, member, &signature).await;
        match ended {
            Err(ChainError::Refused(refusal)) if refusal.is_attempt_over() => Ok(()),
            ended => Ok(ended.map(drop)?),
        }
    }
}
