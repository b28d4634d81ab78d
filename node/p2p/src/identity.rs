//! One key, three spellings: the project's identity, the libp2p peer id, the registry's hash.

use libp2p::{
    PeerId,
    identity::{Keypair, PublicKey, secp256k1},
};
use veil_protocol_spec::{PublicIdentity, identity::SecretIdentity};

/// Bytes that are no compressed secp256k1 point, so that no peer can have them as its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a secp256k1 public key; check the registry entry of this node")]
pub struct InvalidIdentity(pub PublicIdentity);

/// The libp2p peer id of an identity.
///
/// # Errors
/// [`InvalidIdentity`] if the bytes are no curve point.
pub fn peer_id(identity: &PublicIdentity) -> Result<PeerId, InvalidIdentity> {
    let key = secp256k1::PublicKey::try_from_bytes(identity.as_bytes())
        .map_err(|_| InvalidIdentity(*identity))?;
    Ok(PublicKey::from(key).to_peer_id())
}

/// The libp2p key pair. libp2p keeps its own copy of the key for the life of the network.
pub(crate) fn keypair(identity: &SecretIdentity) -> Option<Keypair> {
    let mut bytes = identity.expose();
    // `try_from_bytes` zeroizes what it is given.
    let secret = secp256k1::SecretKey::try_from_bytes(bytes.as_mut_slice()).ok()?;
    Some(secp256k1::Keypair::from(secret).into())
}

#[cfg(test)]
mod tests {
    use sha3::{Digest, Keccak256};
    use veil_protocol_spec::PeerIdHash;

    use super::*;

    #[test]
    fn the_three_spellings_agree() {
        let secret = SecretIdentity::from_bytes(&[7; 32]).unwrap();
        let peer = keypair(&secret).unwrap().public().to_peer_id();
        assert_eq!(peer_id(&secret.public()), Ok(peer));
        let hash = Keccak256::digest(peer.to_bytes());
        assert_eq!(PeerIdHash::of(&secret.public()).0, <[u8; 32]>::from(hash));
    }

    #[test]
    fn bytes_off_the_curve_are_no_peer() {
        let nobody = PublicIdentity([0; 33]);
        assert_eq!(peer_id(&nobody), Err(InvalidIdentity(nobody)));
    }
}
