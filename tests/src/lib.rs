//! The protocols of Veil in the simulated world: fault plans as data, malicious members, and the
//! properties that every run has.
//!
//! # Role
//! - [`plan`]: what goes wrong, in one vocabulary for all machines; the world itself, with its
//!   virtual time, network and event log, is [`veil_committee_world`].
//! - [`ceremony`]: one attempt of the key ceremony, with what stands for the chain; it gives a
//!   [`report::Report`]. [`disk`]: what outlives a crash.
//! - [`agreement`]: agreement on manifests, slot by slot.
//! - [`decryption`]: threshold decryption, with the shares of a simulated ceremony.
//! - [`sealed`]: what is sealed in jobs, from the deal to the report of a wrong one.
//! - [`slot`]: whole slots of a cluster, with the cleartext twin in place of the circuit.
//! - [`malicious`]: members that deviate, one file per misbehaviour.
//!
//! # Flow
//! A plan is built, run with a seed, and gives a report; the report judges itself.
//!
//! # State and restart
//! A run is a function of plan and seed: same inputs, same trace. There is no clock and no entropy in
//! here. Parameters are the insecure test set. A run that fails says its plan and seed, and the file
//! of its event log.

pub mod agreement;
pub mod ceremony;
pub mod decryption;
pub mod disk;
pub mod fixtures;
pub mod malicious;
pub mod plan;
pub mod report;
pub mod sealed;
pub mod slot;
