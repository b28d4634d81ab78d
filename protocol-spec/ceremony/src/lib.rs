//! Messages of the key ceremony; the numbered steps are in `ceremony.md`.
//!
//! A member sends one [`SignedMessage`] per round, to all or (deals) to one. It names ceremony,
//! attempt, round, sender and recipient, so that no message means anything elsewhere, and it is
//! signed, so that anyone may relay it. Requests and chunks are not signed: a request only asks to
//! repeat what its receiver published, and a chunk is checked against a signed [`StreamRoot`].

mod abort;
mod header;
mod message;
mod parameters;
mod payload;
mod round;

pub use abort::AbortReason;
pub use header::Header;
pub use message::{CeremonyMessage, ChunkId, MAX_CHUNK_BYTES, MAX_SIGNED_BYTES, SignedMessage};
pub use parameters::{CeremonyParameters, RosterError};
pub use payload::{
    Commit, Confirm, Contribution, Deal, DealPlaintext, Echo, Finish, Payload, Prove, StreamRoot,
};
pub use round::{Round, Stream};
