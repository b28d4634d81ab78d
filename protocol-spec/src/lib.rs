//! The protocol of Veil as types. The text is beside this crate in `ceremony.md`, `slot.md`, `agreement.md`,
//! `decryption.md`, `sealed.md`, `reach.md`, `links.md` and `anchoring.md`; a step quoted in code is a numbered step of
//! one of those.
//!
//! # Role
//! Everything that crosses a wire, is hashed, signed or stored is defined here and nowhere else:
//!
//! - [`ids`], [`committee`], [`domain`], [`codec`], [`identity`], from `veil-protocol-spec-base`: what every
//!   message is made of.
//! - [`ceremony`], [`agreement`] and [`decryption`]: the messages of the committee's protocols, and
//!   what members store of them; [`publication`]: the messages around a ceremony.
//! - [`election`]: how a committee is drawn, as the contract draws it.
//! - [`scheduling`]: `Telemetry`, `Manifest`, `AssignmentCertificate`; and `JobSpec`, from
//!   `veil-protocol-spec-job`.
//! - [`evidence`]: what shows that somebody broke the protocol.
//! - [`sealing`]: how what is sealed in a job reaches the winners of its replicas; [`reach`]: how an operator reaches
//!   its job where it runs; [`link`]: how a worker reaches a job on another for a container of its own.
//! - [`registry`]: what the chain says of a node; [`sync`]: how nodes keep up with each other, from a
//!   [`snapshot`] where they were away long; [`inputs`]: what a member keeps of a slot's inputs.
//!
//! # Flow
//! Bytes from outside meet, in this order, a size limit, a version, a structure and the canonical
//! form ([`Wire::from_wire`]), then the rules that span fields (`parse` or `validate`), then
//! signatures (`verify`). Every refusal has a name.
//!
//! # State and restart
//! None. The types that members store ([`agreement::record`], [`decryption::DecryptionCounter`],
//! [`scheduling::ClusterState`], [`scheduling::SlotRecord`]) are encoded like the messages;
//! `vectors/` pins them all.
//!
//! # Example
//! ```
//! use veil_protocol_spec::{CodecError, Slot, Wire, sync::SyncRequest};
//!
//! let request = SyncRequest::Records { after: Slot(7) };
//! let bytes = request.to_wire();
//! // Version 6, the first variant, the slot.
//! assert_eq!(bytes, [6, 0, 7]);
//! assert_eq!(SyncRequest::from_wire(&bytes), Ok(request));
//! // A second spelling of the same number is refused.
//! let refused = SyncRequest::from_wire(&[6, 0, 0x87, 0]);
//! assert_eq!(refused, Err(CodecError::NotCanonical { name: "SyncRequest" }));
//! ```

pub mod agreement;
pub mod decryption;
pub mod evidence;
pub mod inputs;
pub mod publication;
pub mod registry;
pub mod scheduling;
pub mod sealing;
pub mod slot;
pub mod snapshot;
pub mod sync;

pub use veil_protocol_spec_base::{codec, committee, domain, election, identity, ids};
pub use veil_protocol_spec_ceremony as ceremony;
pub use veil_protocol_spec_reach::{link, reach};

pub use codec::{CodecError, Wire};
pub use committee::{Committee, MaxFaulty, ReconstructionThreshold, SigningThreshold};
pub use ids::*;
