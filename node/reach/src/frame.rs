//! Frames: a length, four bytes, little-endian, then an encoding.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use veil_protocol_spec::Wire;

/// Reads the next frame; nothing at the end of the stream.
///
/// # Errors
/// A stream that breaks, a frame that is too long, or none of this type.
pub async fn read<T: Wire>(from: &mut (dyn AsyncRead + Send + Unpin)) -> io::Result<Option<T>> {
    let Some(bytes) = read_bytes(from, T::MAX_BYTES).await? else { return Ok(None) };
    T::from_wire(&bytes).map(Some).map_err(|error| invalid(error.to_string()))
}

/// Writes a frame, and does not flush it.
///
/// # Errors
/// A stream that breaks.
pub async fn write<T: Wire>(to: &mut (dyn AsyncWrite + Send + Unpin), value: &T) -> io::Result<()> {
    let bytes = value.to_wire();
    let len = u32::try_from(bytes.len()).map_err(|_| invalid("too long".to_owned()))?;
    to.write_all(&[&len.to_le_bytes()[..], &bytes].concat()).await
}

/// Writes a frame that the other end is to have at once.
///
/// # Errors
/// A stream that breaks.
pub async fn send<T: Wire>(to: &mut (dyn AsyncWrite + Send + Unpin), value: &T) -> io::Result<()> {
    write(to, value).await?;
    to.flush().await
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

async fn read_bytes(
    from: &mut (dyn AsyncRead + Send + Unpin),
    max: usize,
) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0; 4];
    // The end before a frame is the end; within one it is an error.
    if from.read(&mut len[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut len[1..]).await?;
    let len = usize::try_from(u32::from_le_bytes(len)).unwrap_or(usize::MAX);
    if len > max {
        return Err(invalid(format!("a frame of {len} bytes is longer than the {max} allowed")));
    }
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes).await?;
    Ok(Some(bytes))
}
