//! Connections to a port of a replica, at the worker.

use std::io;

use tokio::io::{AsyncWriteExt as _, copy_bidirectional_with_sizes};
use veil_node_containers::ReplicaId;
use veil_node_p2p::ByteStream;
use veil_protocol_spec::reach::Control;

use crate::{
    frame,
    host::{Host, refusal_of},
};

/// Bytes that are read at once.
const BUFFER: usize = 64 << 10;

/// Connects, says whether it did, and carries what goes there and comes back.
pub(crate) async fn carry(
    host: &dyn Host,
    id: ReplicaId,
    port: u16,
    mut stream: ByteStream,
) -> io::Result<()> {
    let mut connection = match host.connect(&id, port).await {
        Ok(connection) => connection,
        Err(error) => {
            frame::write(&mut stream, &Control::Ended(refusal_of(&error))).await?;
            return stream.shutdown().await;
        }
    };
    frame::send(&mut stream, &Control::Accepted).await?;
    copy_bidirectional_with_sizes(&mut stream, &mut connection, BUFFER, BUFFER).await.map(drop)
}
