//! The protocol of Veil as types. The text is beside this crate in `ceremony.md`, `agreement.md` and
//! `decryption.md`; a step quoted in code is a numbered step of one of those.
//!
//! Everything that crosses a wire, is hashed, signed or stored is defined here and nowhere else:
//!
//! - [`ids`]: newtypes for every index, id and digest; [`committee`]: sizes and thresholds. They
//!   are parsed at the edge; code that holds one need not check it again.
//! - [`domain`]: every domain separator of the system, in one file.
//! - [`codec`]: postcard with a version byte, a size limit before decoding, canonical encodings.
//! - [`identity`]: the secp256k1 keys members sign their messages with.
//! - [`ceremony`], [`agreement`] and [`decryption`]: the messages of the committee's protocols, and
//!   what members store of them; [`publication`]: the messages around a ceremony.
//! - [`election`]: how a committee is drawn, as the contract draws it.
//! - [`scheduling`]: `Telemetry`, `JobSpec`, `Manifest`, `AssignmentCertificate`.
//! - [`registry`]: what the chain says of a node; [`sync`]: how nodes keep up with each other.

pub mod agreement;
pub mod ceremony;
pub mod codec;
pub mod committee;
pub mod decryption;
pub mod domain;
pub mod election;
pub mod identity;
pub mod ids;
pub mod publication;
pub mod registry;
pub mod scheduling;
pub mod sync;

pub use codec::{CodecError, Wire};
pub use committee::{Committee, MaxFaulty, ReconstructionThreshold, SigningThreshold};
pub use ids::*;
