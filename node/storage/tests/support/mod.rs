//! What the tests of several stores share.

use veil_protocol_spec::{
    Address, ChainId, ClusterId, Epoch, KeySetDigest,
    scheduling::{Binding, ClusterScope},
};

/// Of the cluster that the tests are about.
pub(crate) const fn binding() -> Binding {
    Binding {
        scope: ClusterScope {
            chain_id: ChainId(31_337),
            contract: Address([1; 20]),
            cluster: ClusterId([2; 32]),
        },
        key_set: KeySetDigest([3; 32]),
        epoch: Epoch(0),
    }
}
