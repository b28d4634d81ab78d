//! What ties a message to one deployment: chain, contract, cluster, key set, epoch.

use serde::{Deserialize, Serialize};

use crate::{
    abi::{Words, keccak},
    ids::{
        Address, ChainId, ClusterId, Epoch, KeccakDigest, KeySetDigest, PeerIdHash, PublicIdentity,
    },
};

/// EIP-712 type of the signing domain: `contracts/src/VeilContract.sol`.
const DOMAIN_TYPE: &[u8] =
    b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";

/// Milliseconds since the Unix epoch, by the sender's clock.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

/// One cluster of one deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterScope {
    /// EIP-155 id of the EVM chain.
    pub chain_id: ChainId,
    /// The directory contract on it.
    pub contract: Address,
    /// The cluster in its registry.
    pub cluster: ClusterId,
}

/// One cluster under one key set in one epoch. A message that names another one is not for this
/// cluster, whatever its signature says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// Chain, contract and cluster.
    pub scope: ClusterScope,
    /// The active FHE key set.
    pub key_set: KeySetDigest,
    /// The committee's epoch.
    pub epoch: Epoch,
}

/// A message is for another deployment, cluster, key set or epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message names another {field} than this cluster is on")]
pub struct BindingMismatch {
    /// The first field that differs.
    pub field: &'static str,
}

impl ClusterScope {
    /// The digest that is signed of a message with this EIP-712 hash, in the domain `Veil`, version `1`, of chain and
    /// directory.
    #[must_use]
    pub fn typed_digest(&self, message: &KeccakDigest) -> [u8; 32] {
        let domain = Words::default()
            .bytes32(keccak(DOMAIN_TYPE).as_bytes())
            .bytes32(keccak(b"Veil").as_bytes())
            .bytes32(keccak(b"1").as_bytes())
            .uint(self.chain_id.0)
            .address(&self.contract)
            .keccak();
        keccak(&[&[0x19, 0x01], &domain.0[..], &message.0[..]].concat()).0
    }

    /// Checks that `self`, as a message states it, is `expected`.
    ///
    /// # Errors
    /// [`BindingMismatch`] names the first field that differs.
    pub fn check(&self, expected: &Self) -> Result<(), BindingMismatch> {
        let mismatch = |field| Err(BindingMismatch { field });
        if self.chain_id != expected.chain_id {
            return mismatch("chain");
        }
        if self.contract != expected.contract {
            return mismatch("contract");
        }
        if self.cluster != expected.cluster {
            return mismatch("cluster");
        }
        Ok(())
    }
}

impl Binding {
    /// Chain id, contract, cluster, key set and epoch as one part of a digest, integers
    /// little-endian: every field has a fixed place.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 100] {
        let Self { scope: ClusterScope { chain_id, contract, cluster }, key_set, epoch } = self;
        let mut bytes = [0; 100];
        bytes[..8].copy_from_slice(&chain_id.0.to_le_bytes());
        bytes[8..28].copy_from_slice(&contract.0);
        bytes[28..60].copy_from_slice(&cluster.0);
        bytes[60..92].copy_from_slice(&key_set.0);
        bytes[92..].copy_from_slice(&epoch.0.to_le_bytes());
        bytes
    }

    /// Checks that `self`, as a message states it, is `expected`.
    ///
    /// # Errors
    /// [`BindingMismatch`] names the first field that differs.
    pub fn check(&self, expected: &Self) -> Result<(), BindingMismatch> {
        self.scope.check(&expected.scope)?;
        if self.key_set != expected.key_set {
            return Err(BindingMismatch { field: "key set" });
        }
        if self.epoch != expected.epoch {
            return Err(BindingMismatch { field: "epoch" });
        }
        Ok(())
    }
}

/// A libp2p peer id of a secp256k1 key is the multihash `identity` (0x00) of 37 (0x25) bytes: the
/// protobuf of key type 2 (0x08 0x02) and 33 (0x21) bytes of key (0x12).
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x25, 0x08, 0x02, 0x12, 0x21];

impl PeerIdHash {
    /// Keccak-256 of the libp2p peer id of `identity`, in its binary (multihash) form. Keccak, so
    /// that the registry can compute it from the key whose possession was proved to it.
    #[must_use]
    pub fn of(identity: &PublicIdentity) -> Self {
        let mut peer_id = [0; 39];
        let (prefix, key) = peer_id.split_at_mut(PEER_ID_PREFIX.len());
        prefix.copy_from_slice(&PEER_ID_PREFIX);
        key.copy_from_slice(identity.as_bytes());
        Self(keccak(&peer_id).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding() -> Binding {
        Binding {
            scope: ClusterScope {
                chain_id: ChainId(31_337),
                contract: Address([0xc0; 20]),
                cluster: ClusterId([0xc1; 32]),
            },
            key_set: KeySetDigest([0xde; 32]),
            epoch: Epoch(2),
        }
    }

    #[test]
    fn each_differing_field_is_named() {
        type Change = fn(&mut Binding);

        let expected = binding();
        assert_eq!(expected.check(&expected), Ok(()));
        let cases: [(&str, Change); 5] = [
            ("chain", |b| b.scope.chain_id = ChainId(2)),
            ("contract", |b| b.scope.contract = Address([0; 20])),
            ("cluster", |b| b.scope.cluster = ClusterId([0; 32])),
            ("key set", |b| b.key_set = KeySetDigest([0; 32])),
            ("epoch", |b| b.epoch = Epoch(99)),
        ];
        for (field, change) in cases {
            let mut stated = expected;
            change(&mut stated);
            assert_eq!(stated.check(&expected), Err(BindingMismatch { field }));
        }
    }

    #[test]
    fn every_field_is_in_the_bytes() {
        let mut expected = 31_337u64.to_le_bytes().to_vec();
        expected.extend_from_slice(&[0xc0; 20]);
        expected.extend_from_slice(&[0xc1; 32]);
        expected.extend_from_slice(&[0xde; 32]);
        expected.extend_from_slice(&2u64.to_le_bytes());
        assert_eq!(binding().to_bytes()[..], expected);
    }

    #[test]
    fn the_peer_id_is_the_one_of_libp2p() {
        // The secp256k1 key of the libp2p peer id specification; its peer id is the multihash
        // 0x00 0x25 followed by the protobuf 0x08021221...
        let key = "037777e994e452c21604f91de093ce415f5432f701dd8cd1a7a6fea0e630bfca99";
        let mut peer_id = vec![0x00, 0x25, 0x08, 0x02, 0x12, 0x21];
        let identity: PublicIdentity = key.parse().unwrap();
        peer_id.extend_from_slice(identity.as_bytes());
        assert_eq!(PeerIdHash::of(&identity).0, keccak(&peer_id).0);
        assert_ne!(PeerIdHash::of(&identity), PeerIdHash::of(&PublicIdentity([2; 33])));
    }
}
