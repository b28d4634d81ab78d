//! A way through this node to a worker, for operators who reach their jobs there.

use async_trait::async_trait;
use veil_node_api::relay::{Bytes, Leads, NoWay};
use veil_node_p2p::StreamKind;
use veil_protocol_spec::PeerIdHash;

use crate::report::Reporter;

#[async_trait]
impl Leads for Reporter {
    async fn lead(&self, worker: PeerIdHash) -> Result<Box<dyn Bytes>, NoWay> {
        let not_yet = || NoWay::NotNow("this node has not joined its cluster yet".to_owned());
        let network = self.joined().ok_or_else(not_yet)?.network;
        match network.open_stream(worker, StreamKind::Reach).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(NoWay::Unreachable(error.to_string())),
        }
    }
}
