//! What identities and groups sign for the chain (EIP-712).
//!
//! The signing domain is `Veil`, version `1`, the chain, and the directory's address.

use alloy::{
    primitives::{Signature, U256, keccak256},
    sol_types::{Eip712Domain, SolStruct},
};
use veil_committee::frost::GroupPublicKey;
use veil_contracts::typed;
use veil_node_chain_refusal::forms::role_bits;
use veil_protocol_spec::{
    Address, Attempt, Blake3Digest, Epoch, KeccakDigest, KeySetDigest, ParticipantIndex,
    PeerIdHash, PublicIdentity,
    scheduling::{ClusterScope, MerkleTree},
};

use crate::{
    address::organisation_word,
    point::{Coordinates, InvalidPoint, point},
    types::{NodeRegistration, ReferenceString},
};

fn domain(scope: &ClusterScope) -> Eip712Domain {
    Eip712Domain {
        name: Some("Veil".into()),
        version: Some("1".into()),
        chain_id: Some(U256::from(scope.chain_id.0)),
        verifying_contract: Some(scope.contract.0.into()),
        salt: None,
    }
}

fn digest(scope: &ClusterScope, message: &impl SolStruct) -> [u8; 32] {
    message.eip712_signing_hash(&domain(scope)).0
}

/// The digest that an identity signs to be registered as a node of `operator`. `nonce`: how often it was
/// registered in the cluster before.
#[must_use]
pub fn registration_digest(
    scope: &ClusterScope,
    registration: &NodeRegistration,
    identity: &PublicIdentity,
    operator: &Address,
    nonce: u32,
) -> [u8; 32] {
    let message = typed::NodeRegistration {
        cluster: registration.cluster.0.into(),
        peer: PeerIdHash::of(identity).0.into(),
        operator: operator.0.into(),
        roles: role_bits(registration.roles),
        organisation: organisation_word(registration.organisation.as_ref()),
        labels: labels_text(registration),
        nonce,
    };
    digest(scope, &message)
}

/// The digest that a member signs to abort an attempt.
#[must_use]
pub fn abort_digest(
    scope: &ClusterScope,
    epoch: Epoch,
    attempt: Attempt,
    reason: &Blake3Digest,
) -> [u8; 32] {
    let message = typed::CeremonyAbort {
        cluster: scope.cluster.0.into(),
        epoch: epoch.0,
        attempt: attempt.0,
        reason: reason.0.into(),
    };
    digest(scope, &message)
}

/// The digest that a member signs to state that another one, in `seat`, was absent from an attempt.
#[must_use]
pub fn absence_digest(
    scope: &ClusterScope,
    (epoch, attempt): (Epoch, Attempt),
    seat: ParticipantIndex,
) -> [u8; 32] {
    let message = typed::MemberAbsence {
        cluster: scope.cluster.0.into(),
        epoch: epoch.0,
        attempt: attempt.0,
        seat: seat.get(),
    };
    digest(scope, &message)
}

/// The digest that an account signs to log in at the node that shows a certificate with this SHA-256, with a
/// challenge that it can answer until `expires` (Unix time in seconds); for itself, or for the operator that has
/// delegated this to it.
#[must_use]
pub fn login_digest(
    scope: &ClusterScope,
    certificate: &[u8; 32],
    (account, operator): (&Address, &Address),
    challenge: &[u8; 32],
    expires: u64,
) -> [u8; 32] {
    let message = typed::ApiLogin {
        cluster: scope.cluster.0.into(),
        certificate: certificate.into(),
        account: account.0.into(),
        operator: operator.0.into(),
        challenge: challenge.into(),
        expires,
    };
    digest(scope, &message)
}

/// The account whose key signed a digest: r, s and v; nobody if that is no signature.
#[must_use]
pub fn signer_of(digest: &[u8; 32], signature: &[u8; 65]) -> Option<Address> {
    let signature = Signature::from_raw_array(signature).ok()?;
    // Of two signatures that hold for the same, only one counts (EIP-2).
    let signature = signature.normalize_s().is_none().then_some(signature)?;
    let signer = signature.recover_address_from_prehash(&digest.into()).ok()?;
    Some(Address(signer.0.0))
}

/// Labels as the registry stores them.
pub(crate) fn labels_text(registration: &NodeRegistration) -> String {
    registration.labels.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// A key as a finished ceremony publishes it; its digests are what members and groups sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPublication {
    /// Chain, directory, cluster.
    pub scope: ClusterScope,
    /// The epoch that gets the key.
    pub epoch: Epoch,
    /// The attempt that made it.
    pub attempt: Attempt,
    /// The FROST group key, compressed.
    pub group_key: PublicIdentity,
    /// Root over the verifying shares.
    pub verifying_shares_root: KeccakDigest,
    /// The FHE key set.
    pub key_set: KeySetDigest,
    /// Root of the ceremony's transcript.
    pub transcript_root: Blake3Digest,
    /// The CRS of telemetry proofs.
    pub reference_string: ReferenceString,
}

impl KeyPublication {
    /// The publication of what a ceremony made.
    ///
    /// # Errors
    /// [`InvalidPoint`] for a verifying share that is not a point of secp256k1.
    pub fn new(
        scope: ClusterScope,
        (epoch, attempt): (Epoch, Attempt),
        group: &GroupPublicKey,
        key_set: KeySetDigest,
        transcript_root: Blake3Digest,
        reference_string: ReferenceString,
    ) -> Result<Self, InvalidPoint> {
        Ok(Self {
            scope,
            epoch,
            attempt,
            group_key: point(&group.verifying_key_bytes()),
            verifying_shares_root: verifying_shares_root(group)?,
            key_set,
            transcript_root,
            reference_string,
        })
    }

    fn message(&self) -> typed::KeyPublication {
        // A key that is not a point gives a digest that the chain refuses with the key.
        let key = Coordinates::of(&self.group_key);
        let (x, y) = key.map_or((U256::ZERO, U256::ZERO), |key| (key.x, key.y));
        typed::KeyPublication {
            cluster: self.scope.cluster.0.into(),
            epoch: self.epoch.0,
            attempt: self.attempt.0,
            groupKeyX: x,
            groupKeyY: y,
            verifyingSharesRoot: self.verifying_shares_root.0.into(),
            fheKeyDigest: self.key_set.0.into(),
            transcriptRoot: self.transcript_root.0.into(),
            referenceStringDigest: self.reference_string.digest.0.into(),
            referenceStringOrigin: self.reference_string.origin as u8,
        }
    }

    /// The digest that each member's identity signs.
    #[must_use]
    pub fn member_digest(&self) -> [u8; 32] {
        digest(&self.scope, &self.message())
    }

    /// The digest that the new group signs.
    #[must_use]
    pub fn possession_digest(&self) -> KeccakDigest {
        let publication = self.message().eip712_hash_struct();
        KeccakDigest(digest(&self.scope, &typed::KeyPossession { publication }))
    }

    /// The digest that the group of the epoch before signs, whose last anchored certificate is `last`.
    #[must_use]
    pub fn handover_digest(&self, last: KeccakDigest) -> KeccakDigest {
        let publication = self.message().eip712_hash_struct();
        let message = typed::KeyHandover { publication, lastCertificate: last.0.into() };
        KeccakDigest(digest(&self.scope, &message))
    }
}

/// Root over the verifying shares, participant 1 first: leaves are the EIP-712 hash of
/// `VerifyingShare(uint8 index,uint256 x,uint256 y)`, hashed once more.
///
/// # Errors
/// [`InvalidPoint`] for a share that is not a point of secp256k1.
pub fn verifying_shares_root(group: &GroupPublicKey) -> Result<KeccakDigest, InvalidPoint> {
    let mut leaves = Vec::new();
    for index in group.committee().participants() {
        let share = group.verifying_share(index).and_then(|share| share.serialize().ok());
        let Coordinates { x, y } = Coordinates::of(&point(&share.unwrap_or_default()))?;
        let leaf = typed::VerifyingShare { index: index.get(), x, y }.eip712_hash_struct();
        leaves.push(KeccakDigest(keccak256(leaf).0));
    }
    Ok(MerkleTree::new(leaves).root())
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::{
        ChainId, ClusterId, ReplicaIndex, Slot,
        reach::{Action, LogsWanted, ReachRequest},
        scheduling::CertificateVote,
    };

    use super::*;

    /// Members sign by the protocol's own encoding; the contracts have the type string of the bindings.
    #[test]
    fn a_vote_is_the_typed_data_of_the_contracts() {
        let scope = ClusterScope {
            chain_id: ChainId(31_337),
            contract: Address([0x11; 20]),
            cluster: ClusterId([0x22; 32]),
        };
        for (epoch, slot) in [(0, 1), (3, u64::MAX)] {
            let certificate = KeccakDigest([0x33; 32]);
            let vote =
                CertificateVote { scope, epoch: Epoch(epoch), slot: Slot(slot), certificate };
            let message = typed::CertificateVote {
                cluster: scope.cluster.0.into(),
                epoch,
                slot,
                certificate: certificate.0.into(),
            };
            assert_eq!(vote.digest(), message.eip712_signing_hash(&domain(&scope)).0);
        }
    }

    /// Whoever signs in a wallet sees these fields.
    #[test]
    fn a_request_to_reach_a_job_is_the_typed_data_of_the_bindings() {
        let scope = ClusterScope {
            chain_id: ChainId(31_337),
            contract: Address([0x11; 20]),
            cluster: ClusterId([0x22; 32]),
        };
        let request = ReachRequest {
            scope,
            worker: PeerIdHash([0x33; 32]),
            client: PeerIdHash([0x44; 32]),
            account: Address([0x55; 20]),
            operator: Address([0x66; 20]),
            job: Blake3Digest([0x77; 32]),
            replica: ReplicaIndex(3),
            action: Action::Logs(LogsWanted { follow: true, since: Some(7), tail: None }),
            expires: 1_800_000_000,
        };
        let message = typed::ReachRequest {
            cluster: scope.cluster.0.into(),
            worker: request.worker.0.into(),
            client: request.client.0.into(),
            account: request.account.0.into(),
            operator: request.operator.0.into(),
            job: request.job.0.into(),
            replica: 3,
            action: "logs".to_owned(),
            details: request.details().0.into(),
            expires: request.expires,
        };
        assert_eq!(request.digest(), message.eip712_signing_hash(&domain(&scope)).0);
    }
}
