//! Who the messages of the vectors are of and for.

use veil_protocol_spec::{
    Address, ChainId, ClusterId, Epoch, KeySetDigest,
    identity::SecretIdentity,
    scheduling::{Binding, ClusterScope},
};

pub(crate) fn binding() -> Binding {
    Binding {
        scope: ClusterScope {
            chain_id: ChainId(31_337),
            contract: Address([0x11; 20]),
            cluster: ClusterId([0x22; 32]),
        },
        key_set: KeySetDigest([0x33; 32]),
        epoch: Epoch(4),
    }
}

pub(crate) fn secret(byte: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[byte; 32]).unwrap()
}
