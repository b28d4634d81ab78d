//! Values and checks shared by the unit tests of this module.

use super::*;
pub(crate) use crate::codec::assert_wire;
use crate::{identity::SecretIdentity, ids::*};

pub(crate) fn binding() -> Binding {
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

pub(crate) fn secret(byte: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[byte; 32]).unwrap()
}
