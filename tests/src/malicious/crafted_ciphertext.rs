//! Asks for the decryption of a ciphertext that nobody has evaluated: with a = 2^127 e_i and b = 0
//! its phase is bit i of the key, in the top bit, where no flooding reaches it.

use veil_committee::{decrypt::SquashedBlock, key_share::KeyShare};
use veil_protocol_spec::{
    codec::Bytes,
    decryption::{DecryptionMessage, DecryptionPayload, RequestContext, RequestId},
    identity::SecretIdentity,
};

/// The ciphertext whose phase is bit `i` of a key with so many bits.
///
/// # Panics
/// Unless there is such a bit.
#[must_use]
pub fn crafted(dimension: usize, i: usize) -> SquashedBlock {
    let mut mask = vec![0; dimension];
    mask[i] = 1 << 127;
    SquashedBlock { mask, body: 0 }
}

/// The attacker's own share of it, so that the request looks under way, and a call for the others'.
///
/// # Panics
/// Never: the ciphertext has the key's dimension.
#[must_use]
pub fn attack(
    share: &KeyShare,
    context: &RequestContext,
    identity: &SecretIdentity,
) -> Vec<DecryptionMessage> {
    let block = crafted(share.dimension(), 0);
    let request = RequestId::of(context, &[block.digest()]);
    let partial = share.decryptor().partial(&[block]);
    let partial = partial.expect("the ciphertext has the key's dimension");
    [DecryptionPayload::Partial(Bytes(partial)), DecryptionPayload::Request]
        .into_iter()
        .map(|payload| {
            DecryptionMessage::sign(request, share.origin().participant, payload, identity)
        })
        .collect()
}
