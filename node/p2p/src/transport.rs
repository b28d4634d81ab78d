//! How bytes go over TCP: Noise, and yamux over it, with few calls of the kernel.

use futures::io::BufReader;
use libp2p::{
    PeerId, Transport,
    core::{muxing::StreamMuxerBox, transport::Boxed, upgrade::Version},
    identity::Keypair,
    noise, tcp,
};

use crate::muxer::Yamux;

/// Bytes that are read at once: Noise asks for 8 KB.
const READ: usize = 64 << 10;

/// The transport, under a node's identity.
///
/// # Errors
/// The identity cannot sign for Noise.
pub(crate) fn tcp(key: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .map(|socket, _| BufReader::with_capacity(READ, socket))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key)?)
        .multiplex(Yamux);
    Ok(tcp.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))).boxed())
}
