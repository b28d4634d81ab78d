//! Connections to a port of a replica, at the worker.

use std::io;

use tokio::{
    io::{AsyncWriteExt as _, copy_bidirectional_with_sizes},
    net::TcpStream,
};
use veil_node_containers::ReplicaId;
use veil_node_p2p::{ByteStream, PIECE};
use veil_protocol_spec::reach::Control;

use crate::{
    frame,
    host::{Host, refusal_of},
};

/// Carries what comes on one to the other, until both ends are over.
///
/// # Errors
/// One of both breaks.
pub async fn splice(mut one: TcpStream, mut other: ByteStream) -> io::Result<()> {
    copy_bidirectional_with_sizes(&mut one, &mut other, PIECE, PIECE).await.map(drop)
}

/// Connects, says whether it did, and carries what goes there and comes back.
pub(crate) async fn carry(
    host: &dyn Host,
    id: ReplicaId,
    port: u16,
    mut stream: ByteStream,
) -> io::Result<()> {
    let connection = match host.connect(&id, port).await {
        Ok(connection) => connection,
        Err(error) => {
            frame::write(&mut stream, &Control::Ended(refusal_of(&error))).await?;
            return stream.shutdown().await;
        }
    };
    frame::send(&mut stream, &Control::Accepted).await?;
    splice(connection, stream).await
}
