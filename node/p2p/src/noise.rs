//! Noise between the two ends of a [session](crate::session): `Noise_XX_25519_AESGCM_SHA256`.
//!
//! # Flow
//! As libp2p's Noise, but for the cipher: whoever begins sends its ephemeral key; the other answers with its own, its
//! static key, and what shows whose it is, [`Claim`]; whoever began says the same of itself. Each message has two bytes
//! of length before it. The static keys are made for the session.
//!
//! AES-256-GCM is quicker than libp2p's ChaCha20-Poly1305 on processors that have instructions for it, and a message is
//! moved less often here on its way than in libp2p's module: `CONTRIBUTING.md` has what a forward carries.
//!
//! # Security
//! Nobody between the ends reads or alters a byte, leaves a message out, repeats one or swaps two: the number of each is
//! what it is encrypted under. Whoever is between can end the stream, as whoever carries TCP can, also between two
//! messages, where that looks like the end. Each direction takes a new key ([`Keys`]) long before AES-GCM wears out.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::{
    PeerId,
    identity::{Keypair, PublicKey},
};
use snow::{
    Builder, HandshakeState, TransportState,
    params::{CipherChoice, DHChoice, HashChoice},
    resolvers::{CryptoResolver, RingResolver},
    types::{Cipher, Dh, Hash, Random},
};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};
use zeroize::Zeroizing;

use crate::stream::ByteStream;

const PATTERN: &str = "Noise_XX_25519_AESGCM_SHA256";
/// What identities sign here, and nowhere else.
const DOMAIN: &[u8] = b"veil session static key 1:";
/// The longest message of Noise.
const MESSAGE: usize = 65_535;
/// Of the cipher, at the end of each message.
const TAG: usize = 16;
/// Bytes of the length before a message.
const LENGTH: usize = 2;
/// The most that one message carries.
const MOST: usize = MESSAGE - TAG;
/// Bytes that are read at once: several messages.
const READ: usize = 256 << 10;
/// Messages under one key: 4 GiB of them.
const KEY_LASTS: u64 = 1 << 16;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoiseError {
    /// The stream beneath broke, or a message does not fit.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A message is none of this handshake, or was altered.
    #[error(transparent)]
    Noise(#[from] snow::Error),
    /// The other end does not say who it is.
    #[error("the other end does not say who it is")]
    Nobody,
    /// What it says it does not prove.
    #[error("the other end does not have the key of the peer that it says it is")]
    Signature,
}

/// Diffie-Hellman on Curve25519, for snow.
struct Curve {
    secret: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl Curve {
    fn of(secret: Zeroizing<[u8; 32]>) -> Self {
        let public = x25519(*secret, X25519_BASEPOINT_BYTES);
        Self { secret, public }
    }
}

impl Dh for Curve {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, secret: &[u8]) {
        let mut bytes = Zeroizing::new([0; 32]);
        bytes.copy_from_slice(secret);
        *self = Self::of(bytes);
    }

    fn generate(&mut self, random: &mut dyn Random) {
        let mut bytes = Zeroizing::new([0; 32]);
        random.fill_bytes(bytes.as_mut_slice());
        *self = Self::of(bytes);
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.secret.as_slice()
    }

    fn dh(&self, public: &[u8], shared: &mut [u8]) -> Result<(), snow::Error> {
        let mut theirs = [0; 32];
        theirs.copy_from_slice(public.get(..32).ok_or(snow::Error::Dh)?);
        let both = Zeroizing::new(x25519(*self.secret, theirs));
        // Of a point of small order: anybody knows it.
        if both.iter().all(|byte| *byte == 0) {
            return Err(snow::Error::Dh);
        }
        shared.get_mut(..32).ok_or(snow::Error::Dh)?.copy_from_slice(both.as_slice());
        Ok(())
    }
}

/// What snow computes with: ring's, and the curve, which ring does not show.
struct Primitives;

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        RingResolver.resolve_rng()
    }

    fn resolve_dh(&self, _: &DHChoice) -> Option<Box<dyn Dh>> {
        Some(Box::new(Curve::of(Zeroizing::new([0; 32]))))
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        RingResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        RingResolver.resolve_cipher(choice)
    }
}

/// Who has a static key: the public key of a peer, and its signature of the static key.
struct Claim {
    identity: PublicKey,
    signature: Vec<u8>,
}

fn signed(static_key: &[u8]) -> Vec<u8> {
    [DOMAIN, static_key].concat()
}

impl Claim {
    fn encode(&self) -> Vec<u8> {
        let key = self.identity.encode_protobuf();
        // A key of secp256k1 takes 37 bytes.
        let length = u8::try_from(key.len()).unwrap_or(u8::MAX);
        [&[length], key.as_slice(), &self.signature].concat()
    }

    /// The peer, if it is one and has `static_key`.
    fn check(bytes: &[u8], static_key: &[u8]) -> Result<PeerId, NoiseError> {
        let (length, rest) = bytes.split_first().ok_or(NoiseError::Nobody)?;
        let (key, signature) = rest.split_at_checked((*length).into()).ok_or(NoiseError::Nobody)?;
        let key = PublicKey::try_decode_protobuf(key).map_err(|_| NoiseError::Nobody)?;
        if !key.verify(&signed(static_key), signature) {
            return Err(NoiseError::Signature);
        }
        Ok(key.to_peer_id())
    }
}

async fn send(
    stream: &mut ByteStream,
    noise: &mut HandshakeState,
    payload: &[u8],
) -> Result<(), NoiseError> {
    let mut message = vec![0; LENGTH + MESSAGE];
    let (length, body) = message.split_at_mut(LENGTH);
    let written = noise.write_message(payload, body)?;
    length.copy_from_slice(&(written as u16).to_be_bytes());
    stream.write_all(&message[..LENGTH + written]).await?;
    Ok(stream.flush().await?)
}

async fn receive(
    stream: &mut ByteStream,
    noise: &mut HandshakeState,
) -> Result<Vec<u8>, NoiseError> {
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    let mut payload = vec![0; message.len()];
    let length = noise.read_message(&message, &mut payload)?;
    payload.truncate(length);
    Ok(payload)
}

/// The handshake, as the end that `begins` or as the other; who is at the other end, and what goes on from there.
pub(crate) async fn shake(
    stream: ByteStream,
    identity: &Keypair,
    prologue: &[u8],
    begins: bool,
) -> Result<(PeerId, Secured), NoiseError> {
    let mut secret = Zeroizing::new([0; 32]);
    rand::RngCore::fill_bytes(&mut rand::rngs::OsRng, secret.as_mut_slice());
    let own = Curve::of(secret);
    let signature = identity.sign(&signed(own.pubkey())).map_err(|_| NoiseError::Nobody)?;
    let claim = Claim { identity: identity.public(), signature };
    shake_as(stream, (&own, &claim), prologue, begins).await
}

async fn shake_as(
    mut stream: ByteStream,
    (own, claim): (&Curve, &Claim),
    prologue: &[u8],
    begins: bool,
) -> Result<(PeerId, Secured), NoiseError> {
    let builder = Builder::with_resolver(PATTERN.parse()?, Box::new(Primitives));
    let builder = builder.local_private_key(own.privkey()).prologue(prologue);
    let (noise, theirs) = if begins {
        let mut noise = builder.build_initiator()?;
        send(&mut stream, &mut noise, &[]).await?;
        let theirs = receive(&mut stream, &mut noise).await?;
        send(&mut stream, &mut noise, &claim.encode()).await?;
        (noise, theirs)
    } else {
        let mut noise = builder.build_responder()?;
        receive(&mut stream, &mut noise).await?;
        send(&mut stream, &mut noise, &claim.encode()).await?;
        let theirs = receive(&mut stream, &mut noise).await?;
        (noise, theirs)
    };
    let peer = Claim::check(&theirs, noise.get_remote_static().ok_or(NoiseError::Nobody)?)?;
    Ok((peer, Secured::new(stream, noise.into_transport_mode()?, KEY_LASTS)))
}

/// The keys of both directions, and how many messages went under those of now.
struct Keys {
    state: TransportState,
    sent: u64,
    received: u64,
    last: u64,
}

impl Keys {
    fn seal(&mut self, plain: &[u8], message: &mut [u8]) -> Result<usize, snow::Error> {
        let length = self.state.write_message(plain, message)?;
        self.sent += 1;
        if self.sent == self.last {
            self.sent = 0;
            self.state.rekey_outgoing();
        }
        Ok(length)
    }

    fn open(&mut self, message: &[u8], plain: &mut [u8]) -> Result<usize, snow::Error> {
        let length = self.state.read_message(message, plain)?;
        self.received += 1;
        if self.received == self.last {
            self.received = 0;
            self.state.rekey_incoming();
        }
        Ok(length)
    }
}

/// Bytes of a buffer that nobody has taken yet.
struct Waiting {
    bytes: Box<[u8]>,
    from: usize,
    to: usize,
}

impl Waiting {
    fn new(capacity: usize) -> Self {
        Self { bytes: vec![0; capacity].into_boxed_slice(), from: 0, to: 0 }
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.from..self.to]
    }

    /// These many are taken.
    fn take(&mut self, taken: usize) {
        self.from += taken;
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        }
    }
}

/// A stream that only its two ends read.
pub(crate) struct Secured {
    stream: ByteStream,
    keys: Keys,
    /// Read, and not decrypted.
    messages: Waiting,
    /// Decrypted.
    plain: Waiting,
    /// For the next message.
    saying: Vec<u8>,
    /// The last message, as far as it is not written.
    sealed: Waiting,
}

impl Secured {
    fn new(stream: ByteStream, state: TransportState, last: u64) -> Self {
        Self {
            stream,
            keys: Keys { state, sent: 0, received: 0, last },
            messages: Waiting::new(READ),
            plain: Waiting::new(MESSAGE),
            saying: Vec::new(),
            sealed: Waiting::new(LENGTH + MESSAGE),
        }
    }

    /// The next message, if it is there wholly.
    fn message(&self) -> Option<&[u8]> {
        let (length, rest) = self.messages.rest().split_first_chunk::<LENGTH>()?;
        rest.get(..u16::from_be_bytes(*length).into())
    }

    /// Reads until there is a whole message; false at the end.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.message().is_none() {
            let Waiting { bytes, from, to } = &mut self.messages;
            if bytes.len() - *from < LENGTH + MESSAGE {
                bytes.copy_within(*from..*to, 0);
                (*from, *to) = (0, *to - *from);
            }
            let mut into = ReadBuf::new(&mut bytes[*to..]);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut into))?;
            match into.filled().len() {
                0 if from == to => return Poll::Ready(Ok(false)),
                0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                read => *to += read,
            }
        }
        Poll::Ready(Ok(true))
    }

    fn poll_write_sealed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.sealed.rest().is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, self.sealed.rest()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sealed.take(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Seals what is to be said, once the message before it is written.
    fn poll_seal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_sealed(cx))?;
        let (length, message) = self.sealed.bytes.split_at_mut(LENGTH);
        let sealed = self.keys.seal(&self.saying, message).map_err(io::Error::other)?;
        length.copy_from_slice(&(sealed as u16).to_be_bytes());
        self.sealed.to = LENGTH + sealed;
        self.saying.clear();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        while this.plain.rest().is_empty() {
            if !ready!(this.poll_message(cx))? {
                return Poll::Ready(Ok(0));
            }
            let Some(message) = this.message() else { continue };
            let taken = LENGTH + message.len();
            let (keys, messages) = (&mut this.keys, &this.messages.rest()[LENGTH..taken]);
            let opened = keys.open(messages, &mut this.plain.bytes);
            let opened = opened.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            this.plain.to = opened;
            this.messages.take(taken);
        }
        let plain = this.plain.rest();
        let read = plain.len().min(into.len());
        into[..read].copy_from_slice(&plain[..read]);
        this.plain.take(read);
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.saying.len() == MOST {
            ready!(this.poll_seal(cx))?;
        }
        let taken = bytes.len().min(MOST - this.saying.len());
        this.saying.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.saying.is_empty() {
            ready!(this.poll_seal(cx))?;
        }
        ready!(this.poll_write_sealed(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
