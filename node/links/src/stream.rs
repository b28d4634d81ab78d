//! What bytes go through.

use tokio::io::{AsyncRead, AsyncWrite};

/// Anything that bytes go through in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}
