//! What a member signs with its own identity for the one certificate of a slot that it helps to sign:
//! `slot.md`, step 10. The contracts judge two of them (`contracts/src/interfaces/IDisputes.sol`).

use serde::{Deserialize, Serialize};

use super::{
    abi::{Words, keccak},
    binding::{Binding, ClusterScope},
    certificate::CertificateBody,
};
use crate::{
    codec::Wire,
    identity::{InvalidSignature, SecretIdentity},
    ids::{Epoch, KeccakDigest, ParticipantIndex, PublicIdentity, Signature, Slot},
};

/// EIP-712 type of a vote: `contracts/src/Disputes.sol`.
const VOTE_TYPE: &[u8] =
    b"CertificateVote(bytes32 cluster,uint64 epoch,uint64 slot,bytes32 certificate)";

/// A member's vote for a certificate, the only one of its slot that the member takes part in signing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateVote {
    /// Chain, directory, cluster.
    pub scope: ClusterScope,
    /// The epoch.
    pub epoch: Epoch,
    /// The slot.
    pub slot: Slot,
    /// [`CertificateBody::hash`].
    pub certificate: KeccakDigest,
}

impl CertificateVote {
    /// The vote for a certificate.
    #[must_use]
    pub fn of(body: &CertificateBody) -> Self {
        let Binding { scope, epoch, .. } = body.binding;
        Self { scope, epoch, slot: body.slot, certificate: body.hash() }
    }

    /// The digest that the member's identity signs: EIP-712, in the domain `Veil`, version `1`, of chain
    /// and directory.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let message = Words::default()
            .bytes32(keccak(VOTE_TYPE).as_bytes())
            .bytes32(self.scope.cluster.as_bytes())
            .uint(self.epoch.0)
            .uint(self.slot.0)
            .bytes32(self.certificate.as_bytes())
            .keccak();
        self.scope.typed_digest(&message)
    }

    /// Signs as `member`, whose secret key `secret` must be.
    #[must_use]
    pub fn sign(self, member: ParticipantIndex, secret: &SecretIdentity) -> SignedCertificateVote {
        SignedCertificateVote { member, signature: secret.sign(&self.digest()), vote: self }
    }
}

/// A signed [`CertificateVote`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedCertificateVote {
    /// The signed part.
    pub vote: CertificateVote,
    /// The member that votes.
    pub member: ParticipantIndex,
    /// Its, over [`CertificateVote::digest`].
    pub signature: Signature,
}

impl Wire for SignedCertificateVote {
    const NAME: &'static str = "SignedCertificateVote";
    // Version, three u64, contract, cluster, certificate, member, signature.
    const MAX_BYTES: usize = 1 + 3 * 10 + 20 + 32 + 32 + 1 + 64;
}

/// Why a vote does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VoteError {
    /// It is of another chain, contract or cluster, or of another epoch.
    #[error("the vote is of another cluster or epoch")]
    Binding,
    /// The member that it names did not sign it.
    #[error(transparent)]
    Signature(#[from] InvalidSignature),
}

impl SignedCertificateVote {
    /// Checks whose it is. `roster` holds the identities of participants 1, 2, ...
    ///
    /// # Errors
    /// [`VoteError`].
    pub fn verify(&self, binding: &Binding, roster: &[PublicIdentity]) -> Result<(), VoteError> {
        if (self.vote.scope, self.vote.epoch) != (binding.scope, binding.epoch) {
            return Err(VoteError::Binding);
        }
        let identity = roster.get(self.member.position()).ok_or(InvalidSignature)?;
        Ok(identity.verify(&self.vote.digest(), &self.signature)?)
    }

    /// Whether both are by one member, for one slot of one epoch, and for two certificates.
    #[must_use]
    pub fn contradicts(&self, other: &Self) -> bool {
        let place = |of: &Self| (of.member, of.vote.scope, of.vote.epoch, of.vote.slot);
        place(self) == place(other) && self.vote.certificate != other.vote.certificate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{Address, ChainId, ClusterId},
        scheduling::arbitrary::{assert_wire, binding, secret},
    };

    fn vote() -> CertificateVote {
        let Binding { scope, epoch, .. } = binding();
        CertificateVote { scope, epoch, slot: Slot(7), certificate: KeccakDigest([9; 32]) }
    }

    #[test]
    fn only_the_exact_bytes_decode_and_the_longest_is_allowed() {
        let member = ParticipantIndex::new(13).unwrap();
        assert_wire(&vote().sign(member, &secret(1)));
        let mut longest = vote();
        longest.scope.chain_id = ChainId(u64::MAX);
        (longest.epoch, longest.slot) = (Epoch(u64::MAX), Slot(u64::MAX));
        let longest = longest.sign(member, &secret(1));
        assert_eq!(longest.to_wire().len(), SignedCertificateVote::MAX_BYTES);
        assert_eq!(SignedCertificateVote::from_wire(&longest.to_wire()), Ok(longest));
    }

    #[test]
    fn every_field_changes_what_is_signed() {
        let changes: [fn(&mut CertificateVote); 6] = [
            |v| v.scope.chain_id = ChainId(1),
            |v| v.scope.contract = Address([1; 20]),
            |v| v.scope.cluster = ClusterId([1; 32]),
            |v| v.epoch = Epoch(9),
            |v| v.slot = Slot(8),
            |v| v.certificate = KeccakDigest([8; 32]),
        ];
        for change in changes {
            let mut other = vote();
            change(&mut other);
            assert_ne!(other.digest(), vote().digest());
        }
    }

    #[test]
    fn a_vote_counts_for_its_member_cluster_and_epoch_only() {
        let roster = [secret(1).public(), secret(2).public()];
        let [first, second] = [1, 2].map(|j| ParticipantIndex::new(j).unwrap());
        let signed = vote().sign(first, &secret(1));
        assert_eq!(signed.verify(&binding(), &roster), Ok(()));
        let other = Binding { epoch: Epoch(3), ..binding() };
        assert_eq!(signed.verify(&other, &roster), Err(VoteError::Binding));
        let of_second = SignedCertificateVote { member: second, ..signed };
        let forged = Err(VoteError::Signature(InvalidSignature));
        assert_eq!(of_second.verify(&binding(), &roster), forged);
        assert_eq!(signed.verify(&binding(), &[]), forged);
    }

    #[test]
    fn two_votes_of_one_member_for_one_slot_contradict_each_other() {
        let [first, second] = [1, 2].map(|j| ParticipantIndex::new(j).unwrap());
        let signed = vote().sign(first, &secret(1));
        let other = CertificateVote { certificate: KeccakDigest([8; 32]), ..vote() };
        assert!(signed.contradicts(&other.sign(first, &secret(1))));
        assert!(!signed.contradicts(&signed));
        assert!(!signed.contradicts(&other.sign(second, &secret(2))));
        let later = CertificateVote { slot: Slot(8), ..other };
        assert!(!signed.contradicts(&later.sign(first, &secret(1))));
    }
}
