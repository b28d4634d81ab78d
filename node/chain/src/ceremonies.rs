//! Ceremonies and the keys that they publish.

use alloy::{primitives::U256, providers::RootProvider};
use async_recursion::async_recursion as boxed;
use veil_contracts::key_ceremony::{
    IKeyCeremony::{Absence, Key, Proposal as ProposalArguments, Publication},
    IVeilContract::{CompactSignature, FrostSignature, Point},
    KeyCeremony::{self, KeyCeremonyErrors, KeyCeremonyInstance},
};
use veil_node_chain_refusal::Refusal;
use veil_protocol_spec::{
    Attempt, Blake3Digest, ClusterId, Epoch, KeccakDigest, KeySetDigest, ParticipantIndex,
    PeerIdHash, PublicIdentity, Signature,
    scheduling::{GroupSignature, ReferenceStringOrigin},
};

use crate::{
    address::evm,
    connection::Chain,
    elections::ElectedCommittee,
    error::ChainError,
    point::{Coordinates, FrostParts, InvalidPoint, compact, compressed},
    typed::{KeyPublication, abort_digest, absence_digest},
    types::{
        AttemptStatus, CeremonyAttempt, Endorsements, Mined, Proposal, PublishedKey,
        ReferenceString,
    },
};

type Contract = KeyCeremonyInstance<RootProvider>;

impl Chain {
    fn ceremony(&self) -> Contract {
        KeyCeremony::new(evm(self.contracts.key_ceremony), self.rpc.provider.clone())
    }

    /// The fee pool, which passes the same calls on and pays them back.
    fn refunded(&self) -> Contract {
        KeyCeremony::new(evm(self.contracts.fee_pool), self.rpc.provider.clone())
    }

    /// Keys of the committee of an epoch and of its standbys, those that are out among them: those elected, or
    /// in an appointed cluster the first members in the registry's list. If there are too few, the
    /// contract refuses them by name.
    async fn next_committee(
        &self,
        cluster: ClusterId,
        epoch: Epoch,
    ) -> Result<Vec<Point>, ChainError> {
        let settings = self.cluster(cluster).await?;
        let keys = if settings.elected {
            match self.committee(cluster, epoch).await? {
                Some(ElectedCommittee { seats, standbys }) => {
                    self.identities(cluster, &[seats, standbys].concat()).await?
                }
                None => Vec::new(),
            }
        } else {
            let members = self.nodes(cluster).await?.into_iter().filter(|node| node.roles.member);
            let wanted = settings.committee.n() + usize::from(settings.standbys);
            members.take(wanted).map(|node| node.identity).collect()
        };
        let point = |key| Coordinates::of(key).map(|Coordinates { x, y }| Point { x, y });
        Ok(keys.iter().map(point).collect::<Result<_, _>>()?)
    }

    /// Proposes an attempt and freezes its roster; only the cluster's admin may. The roster is the elected
    /// committee, or in an appointed cluster the first members, with a standby in the place of each that has
    /// forfeited its seat or, elected, has left.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn propose_ceremony(&self, proposal: &Proposal) -> Result<Mined, ChainError> {
        let arguments = ProposalArguments {
            cluster: proposal.cluster.0.into(),
            epoch: proposal.epoch.0,
            attempt: proposal.attempt.0,
            parameters: proposal.parameters.clone(),
            parametersDigest: proposal.parameters_digest.0.into(),
            context: proposal.context.into(),
            deadline: proposal.deadline,
        };
        let identities = self.next_committee(proposal.cluster, proposal.epoch).await?;
        let request = self.ceremony().propose(arguments, identities).into_transaction_request();
        self.transact("the proposal of a ceremony", request).await
    }

    /// Ends an attempt that has not published; only the members' operators may, whose seats an elected committee
    /// gives to standbys, and the admin of an appointed one.
    ///
    /// # Errors
    /// [`ChainError`]; [`Refusal::is_attempt_over`] if it is over already.
    #[boxed]
    pub async fn abort_ceremony(
        &self,
        cluster: ClusterId,
        epoch: Epoch,
        attempt: Attempt,
        reason: Blake3Digest,
    ) -> Result<Mined, ChainError> {
        let request = self
            .ceremony()
            .abort(cluster.0.into(), epoch.0, attempt.0, reason.0.into())
            .into_transaction_request();
        self.transact("the abort of a ceremony", request).await
    }

    /// The same with a member's signature over [`abort_digest`]; anyone may send it.
    ///
    /// # Errors
    /// As [`Self::abort_ceremony`].
    #[boxed]
    pub async fn abort_ceremony_signed(
        &self,
        cluster: ClusterId,
        (epoch, attempt): (Epoch, Attempt),
        reason: Blake3Digest,
        (seat, identity): (ParticipantIndex, PublicIdentity),
        signature: &Signature,
    ) -> Result<Mined, ChainError> {
        let digest = abort_digest(&self.scope(cluster), epoch, attempt, &reason);
        let (r, vs) = compact(&identity, &digest, signature)?;
        let Coordinates { x, y } = Coordinates::of(&identity)?;
        let request = self
            .ceremony()
            .abortSigned(
                cluster.0.into(),
                epoch.0,
                attempt.0,
                reason.0.into(),
                seat.get(),
                Point { x, y },
                CompactSignature { r, vs },
            )
            .into_transaction_request();
        self.transact("the abort of a ceremony", request).await
    }

    /// Takes the epoch's seat from a member that was absent from the last attempt, which failed.
    /// `witnesses`: t+1 other members by ascending seat, with their signatures over
    /// [`absence_digest`].
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn replace_seat(
        &self,
        cluster: ClusterId,
        (epoch, attempt): (Epoch, Attempt),
        seat: ParticipantIndex,
        witnesses: &[(ParticipantIndex, PublicIdentity, Signature)],
    ) -> Result<Mined, ChainError> {
        let digest = absence_digest(&self.scope(cluster), (epoch, attempt), seat);
        let absences = witnesses
            .iter()
            .map(|(seat, identity, signature)| {
                let Coordinates { x, y } = Coordinates::of(identity)?;
                let (r, vs) = compact(identity, &digest, signature)?;
                Ok(Absence {
                    seat: seat.get(),
                    identity: Point { x, y },
                    signature: CompactSignature { r, vs },
                })
            })
            .collect::<Result<Vec<_>, InvalidPoint>>()?;
        let request = self
            .ceremony()
            .replaceSeat(cluster.0.into(), epoch.0, attempt.0, seat.get(), absences)
            .into_transaction_request();
        self.transact("the replacement of a seat", request).await
    }

    /// Publishes a key with all signatures: the first one is in force then, a later one when it is activated
    /// ([`Self::activate_key`]). `roster` is the attempt's, as identities in the order
    /// of seats.
    ///
    /// # Errors
    /// [`ChainError`]; [`Refusal::is_attempt_over`] if the attempt is over already.
    #[boxed]
    pub async fn publish_key(
        &self,
        publication: &KeyPublication,
        roster: &[PublicIdentity],
        endorsements: &Endorsements,
    ) -> Result<Mined, ChainError> {
        self.check_scope(&publication.scope)?;
        let digest = publication.member_digest();
        let signatures = roster
            .iter()
            .zip(&endorsements.members)
            .map(|(identity, signature)| {
                compact(identity, &digest, signature).map(|(r, vs)| CompactSignature { r, vs })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let Coordinates { x, y } = Coordinates::of(&publication.group_key)?;
        let arguments = Publication {
            cluster: publication.scope.cluster.0.into(),
            epoch: publication.epoch.0,
            attempt: publication.attempt.0,
            groupKey: Point { x, y },
            verifyingSharesRoot: publication.verifying_shares_root.0.into(),
            fheKeyDigest: publication.key_set.0.into(),
            transcriptRoot: publication.transcript_root.0.into(),
            referenceStringDigest: publication.reference_string.digest.0.into(),
            referenceStringOrigin: publication.reference_string.origin as u8,
        };
        let possession = frost(&endorsements.possession)?;
        let request =
            self.refunded().publish(arguments, signatures, possession).into_transaction_request();
        self.transact("the publication of a key", request).await
    }

    /// Puts an epoch's published key in force. `last` is the last certificate that was anchored, and `handover`
    /// the signature of the group before over
    /// [`KeyPublication::handover_digest`]; none in a succession.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn activate_key(
        &self,
        cluster: ClusterId,
        epoch: Epoch,
        last: KeccakDigest,
        handover: Option<&GroupSignature>,
    ) -> Result<Mined, ChainError> {
        let signature = match handover {
            Some(signature) => frost(signature)?,
            None => FrostSignature { rx: U256::ZERO, ry: U256::ZERO, z: U256::ZERO },
        };
        let request = self
            .refunded()
            .activate(cluster.0.into(), epoch.0, last.0.into(), signature)
            .into_transaction_request();
        self.transact("the activation of a key", request).await
    }

    /// How many attempts were proposed for an epoch: the number of the next one.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn ceremony_attempts(
        &self,
        cluster: ClusterId,
        epoch: Epoch,
    ) -> Result<u32, ChainError> {
        let contract = self.ceremony();
        let call = || async {
            contract.attempts(cluster.0.into(), epoch.0).call().block(self.rpc.at).await
        };
        self.rpc.call("the number of attempts", call).await
    }

    /// Who holds a seat of the committee whose key was published for an epoch; nothing if no key was, or there is no such
    /// seat.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn participant(
        &self,
        cluster: ClusterId,
        epoch: Epoch,
        seat: ParticipantIndex,
    ) -> Result<Option<PublicIdentity>, ChainError> {
        let Some(key) = self.key(cluster, epoch).await? else { return Ok(None) };
        let attempt = self.ceremony_attempt(cluster, epoch, key.attempt).await?;
        let peer = attempt.and_then(|attempt| attempt.roster.get(seat.position()).copied());
        let Some(peer) = peer else { return Ok(None) };
        Ok(self.identities(cluster, &[peer]).await?.first().copied())
    }

    /// Where an attempt stands, or nothing if it was not proposed.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn ceremony_attempt(
        &self,
        cluster: ClusterId,
        epoch: Epoch,
        attempt: Attempt,
    ) -> Result<Option<CeremonyAttempt>, ChainError> {
        let contract = self.ceremony();
        let call = || async {
            contract.attemptOf(cluster.0.into(), epoch.0, attempt.0).call().block(self.rpc.at).await
        };
        let found = match self.rpc.call("the attempt", call).await {
            Ok(found) => found,
            Err(ChainError::Refused(Refusal::Ceremony(KeyCeremonyErrors::UnknownAttempt(_)))) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        Ok(Some(CeremonyAttempt {
            status: match found.status {
                1 => AttemptStatus::Proposed,
                2 => AttemptStatus::Aborted,
                3 => AttemptStatus::Expired,
                4 => AttemptStatus::Published,
                _ => return Err(ChainError::Unexpected("another status of an attempt")),
            },
            deadline: found.deadline,
            parameters: found.parameters,
            parameters_digest: Blake3Digest(found.parametersDigest.0),
            context: found.context.0,
            roster: found.roster.iter().map(|peer| PeerIdHash(peer.0)).collect(),
        }))
    }

    /// The active epoch, or none before the first key.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn current_epoch(&self, cluster: ClusterId) -> Result<Option<Epoch>, ChainError> {
        let contract = self.ceremony();
        let call = || async { contract.epochs(cluster.0.into()).call().block(self.rpc.at).await };
        Ok(self.rpc.call("the epoch", call).await?.checked_sub(1).map(Epoch))
    }

    /// The key of an epoch, if it has one.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn key(
        &self,
        cluster: ClusterId,
        epoch: Epoch,
    ) -> Result<Option<PublishedKey>, ChainError> {
        let contract = self.ceremony();
        let call =
            || async { contract.keyOf(cluster.0.into(), epoch.0).call().block(self.rpc.at).await };
        match self.rpc.call("the key", call).await {
            Ok(key) => published(epoch, &key).map(Some),
            Err(ChainError::Refused(Refusal::Ceremony(KeyCeremonyErrors::NoKey(_)))) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The active key, if there is one.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn current_key(
        &self,
        cluster: ClusterId,
    ) -> Result<Option<PublishedKey>, ChainError> {
        match self.current_epoch(cluster).await? {
            Some(epoch) => self.key(cluster, epoch).await,
            None => Ok(None),
        }
    }
}

fn frost(signature: &GroupSignature) -> Result<FrostSignature, ChainError> {
    let FrostParts { rx, ry, z } = FrostParts::of(signature)?;
    Ok(FrostSignature { rx, ry, z })
}

/// The origin of the CRS that the contracts give a number.
pub(crate) const fn origin(number: u8) -> Result<ReferenceStringOrigin, ChainError> {
    match number {
        0 => Ok(ReferenceStringOrigin::Committee),
        _ => Err(ChainError::Unexpected("a reference string that the committee did not make")),
    }
}

fn published(epoch: Epoch, key: &Key) -> Result<PublishedKey, ChainError> {
    Ok(PublishedKey {
        epoch,
        attempt: Attempt(key.attempt),
        group_key: compressed(key.groupKeyPrefix, key.groupKeyX),
        verifying_shares_root: KeccakDigest(key.verifyingSharesRoot.0),
        key_set: KeySetDigest(key.fheKeyDigest.0),
        transcript_root: Blake3Digest(key.transcriptRoot.0),
        reference_string: ReferenceString {
            digest: Blake3Digest(key.referenceStringDigest.0),
            origin: origin(key.referenceStringOrigin)?,
        },
        published_at: key.publishedAt,
    })
}
