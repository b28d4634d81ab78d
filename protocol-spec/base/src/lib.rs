//! What every message of Veil is made of.
//!
//! # Role
//! The lowest crate of the protocol; every other one stands on it.
//!
//! - [`ids`]: newtypes for every index, id and digest; [`committee`]: sizes and thresholds. They
//!   are parsed at the edge; code that holds one need not check it again.
//! - [`domain`]: every domain separator of the system, in one file.
//! - [`codec`]: postcard with a version byte, a size limit before decoding, canonical encodings.
//! - [`election`]: how a committee is drawn, which the contract does in the same way.
//! - [`abi`]: what the chain hashes; [`binding`]: which deployment a message is for.
//! - [`identity`]: the secp256k1 keys members sign their messages with.
//!
//! # Flow, state and restart
//! None: these are values and functions of them.
//!
//! # Example
//! ```
//! use veil_protocol_spec_base::{Committee, ParticipantIndex};
//!
//! let committee = Committee::new(4).unwrap();
//! assert_eq!(committee.signing_threshold().get(), 3);
//! assert!(ParticipantIndex::new(0).is_err());
//! ```

pub mod abi;
pub mod binding;
pub mod codec;
pub mod committee;
pub mod domain;
pub mod election;
pub mod identity;
pub mod ids;
pub mod merkle;
pub mod reference_string;

pub use codec::{CodecError, Wire};
pub use committee::{Committee, MaxFaulty, ReconstructionThreshold, SigningThreshold};
pub use ids::*;
