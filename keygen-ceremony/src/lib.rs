//! Distributed key generation for TFHE: n members end up with shares of a key that never exists
//! anywhere, and everybody with a `CompressedXofKeySet` that the stock `tfhe` library uses.
//!
//! Source: `ceremony.md` in `protocol-spec`; Cramer-Damgard-Ishai (TCC 2005), eprint 2023/815 and
//! 2025/699 (section 7 and appendix B).
//!
//! # Roles
//! A [`Ceremony`](machine::Ceremony) advances one member of one attempt. Its host carries messages,
//! keeps records and chunks, and brings the certificate to the commit point (a chain). An outsider
//! [verifies](transcript::Transcript::verify) the transcript of a finished attempt.
//!
//! # Flow
//! 1. [`setup`] checks what the members agreed on; [`seed`] is what a member draws everything from.
//! 2. [`channel`] and [`contributions`] make the keys that sets of members share.
//! 3. [`shares`], with [`ntt`] and [`chunks`], computes and opens the two share streams; [`store`]
//!    keeps them.
//! 4. `veil-reference-string` makes the string of the telemetry proofs, which is checked here.
//! 5. [`keyset`] knows tfhe's parameters and layout and assembles the key set; [`proof`] shows that
//!    every share fits it.
//! 6. [`machine`] goes through these as steps; [`transcript`] verifies them offline.
//! 7. [`blame`] tells of a failed attempt whom its signed messages prove to have deviated.
//!
//! # State and restart
//! The machine's [stage](machine::Stage) owns the secrets that it needs, and erases them when it is
//! left. A host that stored the seed before the first message and every record in order
//! [resumes](machine::Ceremony::resume) a member: it sends the same bytes again. After FINISH the
//! seed is erased, and the records alone are enough.
//!
//! # Example
//! A committee of one, with parameters that protect nothing:
//!
//! ```
//! use std::sync::Arc;
//! use veil_committee_machine::{Effect, Machine};
//! use veil_keygen_ceremony::{
//!     keyset::ParameterSet,
//!     machine::{Ceremony, CeremonyEffect, CommitPoint},
//!     seed::CeremonySeed,
//!     setup::{Setup, Timing},
//!     store::MemoryStore,
//! };
//! use veil_protocol_spec::{
//!     Attempt, Committee, Epoch, ceremony::CeremonyParameters, identity::SecretIdentity,
//! };
//!
//! let params = ParameterSet::insecure_test();
//! let identity = SecretIdentity::from_bytes(&[7; 32])?;
//! let parameters = CeremonyParameters {
//!     committee: Committee::new(1)?,
//!     parameters: params.name().to_owned(),
//!     parameters_digest: params.digest(),
//!     roster: vec![identity.public()],
//!     epoch: Epoch(0),
//!     context: [0; 32],
//! };
//! let timing = Timing { round: 60_000, retry: 1_000 };
//! let setup = Setup::new(parameters, params, Attempt(0), &identity, timing)?;
//! // From the operating system, and on disk before it is used.
//! let seed = CeremonySeed::new([1; 32]);
//! let store = Box::<MemoryStore>::default();
//! let mut member = Ceremony::new(Arc::new(setup), identity, seed, store, 0);
//! let mut records = Vec::new();
//! let outcome = loop {
//!     let Some(effect) = member.poll_effect() else {
//!         member.work(0);
//!         continue;
//!     };
//!     match effect {
//!         Effect::Persist { record, .. } => records.push(record),
//!         Effect::Send { .. } | Effect::Broadcast(_) => {} // there is nobody else
//!         Effect::Special(CeremonyEffect::Publish(certificate)) => {
//!             member.handle_commit_point(CommitPoint::Published(certificate));
//!         }
//!         Effect::Special(CeremonyEffect::Complete(outcome)) => break outcome,
//!         Effect::Special(CeremonyEffect::Abort(report)) => panic!("{}", report.reason),
//!         Effect::Special(CeremonyEffect::EraseSeed | CeremonyEffect::VoidKeyShare) => {}
//!     }
//! };
//! let key_share = member.key_share().expect("a member that completed has its share");
//! assert_eq!(key_share.origin().key_set, outcome.key_set);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod blame;
pub mod channel;
pub mod chunks;
pub mod contributions;
mod engine;
pub mod keyset;
pub mod machine;
pub mod ntt;
pub mod proof;
mod reference_string;
pub mod seed;
pub mod setup;
pub mod shares;
pub mod store;
pub mod transcript;
