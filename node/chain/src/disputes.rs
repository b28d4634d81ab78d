//! Disputes: proofs that a member or a group signed two certificates of one slot, and challenges of what a
//! slot computed.

use std::collections::{BTreeMap, BTreeSet};

use alloy::{primitives::U256, providers::RootProvider};
use async_recursion::async_recursion as boxed;
use veil_contracts::disputes::{
    Disputes::{self, ChallengeOpened, DisputesInstance},
    IAssignmentAnchor::Certificate,
    IDisputes::{Challenge, Vote},
    IVeilContract::{CompactSignature, FrostSignature, Point},
};
use veil_protocol_spec::{
    Address, Blake3Digest, ClusterId, Epoch, PeerIdHash, PublicIdentity, Signature, Slot,
    scheduling::{AssignmentCertificate, CertificateBody, CertificateVote},
};

use crate::{
    address::evm,
    certificate::certificate_arguments,
    connection::Chain,
    error::ChainError,
    point::{Coordinates, FrostParts, compact},
    types::Mined,
};

type Contract = DisputesInstance<RootProvider>;

/// What a challenger puts up, in wei.
const BOND: u128 = 100_000_000_000_000_000;
/// `IDisputes.ChallengeStatus`: of a number that no challenge has, and of one that is not decided.
const UNKNOWN: u8 = 0;
const OPEN: u8 = 1;

/// The challenges of a cluster's slots, as far as they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Challenges {
    /// The number of the first challenge, of any cluster, that was not read yet.
    next: u64,
    /// Those of the cluster that were open, by number.
    open: BTreeMap<u64, Slot>,
}

impl Challenges {
    /// Slots of which a challenge is open.
    #[must_use]
    pub fn slots(&self) -> BTreeSet<Slot> {
        self.open.values().copied().collect()
    }
}

impl Chain {
    fn disputes(&self) -> Contract {
        Disputes::new(evm(self.contracts.disputes), self.rpc.provider.clone())
    }

    /// Proves that a member voted for two certificates of one slot. The member loses stake, of which this
    /// account may claim a part.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn report_equivocation(
        &self,
        (vote, signature): (&CertificateVote, &Signature),
        (other, other_signature): (&CertificateVote, &Signature),
        member: &PublicIdentity,
    ) -> Result<Mined, ChainError> {
        self.check_scope(&vote.scope)?;
        let Coordinates { x, y } = Coordinates::of(member)?;
        let signed = |vote: &CertificateVote, signature| {
            compact(member, &vote.digest(), signature).map(|(r, vs)| CompactSignature { r, vs })
        };
        let arguments = Vote {
            cluster: vote.scope.cluster.0.into(),
            epoch: vote.epoch.0,
            slot: vote.slot.0,
            certificate: vote.certificate.0.into(),
        };
        let request = self
            .disputes()
            .reportEquivocation(
                arguments,
                other.certificate.0.into(),
                Point { x, y },
                signed(vote, signature)?,
                signed(other, other_signature)?,
            )
            .into_transaction_request();
        self.transact("the report of an equivocation", request).await
    }

    /// Proves that a group signed two certificates of one slot, which suspends the group.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn report_group_equivocation(
        &self,
        one: &AssignmentCertificate,
        other: &AssignmentCertificate,
    ) -> Result<Mined, ChainError> {
        let (a, signature_a) = self.signed(one)?;
        let (b, signature_b) = self.signed(other)?;
        let request = self
            .disputes()
            .reportGroupEquivocation(a, signature_a, b, signature_b)
            .into_transaction_request();
        self.transact("the report of an equivocation", request).await
    }

    fn signed(
        &self,
        certificate: &AssignmentCertificate,
    ) -> Result<(Certificate, FrostSignature), ChainError> {
        let FrostParts { rx, ry, z } = FrostParts::of(&certificate.signature)?;
        Ok((self.unsigned(&certificate.body)?, FrostSignature { rx, ry, z }))
    }

    fn unsigned(&self, body: &CertificateBody) -> Result<Certificate, ChainError> {
        self.check_scope(&body.binding.scope)?;
        Ok(certificate_arguments!(Certificate, body))
    }

    /// What a member has lost in an epoch, in wei.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn lost_stake(
        &self,
        cluster: ClusterId,
        epoch: Epoch,
        peer: PeerIdHash,
    ) -> Result<U256, ChainError> {
        let contract = self.disputes();
        let call =
            || async { contract.lostBy(cluster.0.into(), epoch.0, peer.0.into()).call().await };
        self.rpc.call("a member's losses", call).await
    }

    /// Which challenges of a cluster's slots are open, from those that were known before: reads what is
    /// new, and what was open. A challenge of a block that is not settled counts already.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn open_challenges(
        &self,
        cluster: ClusterId,
        known: &Challenges,
    ) -> Result<Challenges, ChainError> {
        let mut now = Challenges { next: known.next, open: BTreeMap::new() };
        for (&id, &slot) in &known.open {
            if self.challenge(id).await?.status == OPEN {
                now.open.insert(id, slot);
            }
        }
        loop {
            let challenge = self.challenge(now.next).await?;
            if challenge.status == UNKNOWN {
                return Ok(now);
            }
            if challenge.status == OPEN && challenge.cluster == cluster.0 {
                now.open.insert(now.next, Slot(challenge.slot));
            }
            now.next += 1;
        }
    }

    async fn challenge(&self, id: u64) -> Result<Challenge, ChainError> {
        let contract = self.disputes();
        let call =
            || async { contract.challengeOf(U256::from(id)).call().block(self.rpc.at).await };
        self.rpc.call("a challenge", call).await
    }

    /// Questions what a slot computed, with a bond of 0.1 ether, and gives the challenge's number. `chain`: the
    /// slot's certificate and all later ones up to one that was anchored recently; `evidence`: digest of what
    /// re-executing it gave.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn challenge_evaluation(
        &self,
        chain: &[CertificateBody],
        evidence: Blake3Digest,
    ) -> Result<u64, ChainError> {
        let certificates = chain.iter().map(|body| self.unsigned(body));
        let certificates = certificates.collect::<Result<Vec<_>, _>>()?;
        let request = self
            .disputes()
            .challenge(certificates, evidence.0.into())
            .value(U256::from(BOND))
            .into_transaction_request();
        let receipt = self.send("the challenge of a slot", request).await?;
        let event = receipt.decoded_log::<ChallengeOpened>();
        event
            .map(|log| log.id.saturating_to())
            .ok_or(ChainError::Unexpected("a challenge without its event"))
    }

    /// Ends a challenge that governance has not decided in time; its bond goes back.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn lapse_challenge(&self, id: u64) -> Result<Mined, ChainError> {
        let request = self.disputes().lapse(U256::from(id)).into_transaction_request();
        self.transact("the end of a challenge", request).await
    }

    /// What an account may claim of rewards and bonds, in wei.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn claimable(&self, account: Address) -> Result<U256, ChainError> {
        let contract = self.disputes();
        let call = || async { contract.owedTo(evm(account)).call().await };
        self.rpc.call("what an account may claim", call).await
    }

    /// Pays an account what it may claim.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn claim(&self, account: Address) -> Result<Mined, ChainError> {
        let request = self.disputes().claim(evm(account)).into_transaction_request();
        self.transact("a claim", request).await
    }
}
