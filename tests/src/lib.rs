//! The protocols of Veil in the simulated world: fault plans as data, malicious members, and the
//! properties that every run has.
//!
//! # Role
//! - [`plan`]: what goes wrong, in one vocabulary for all machines; the world itself, with its
//!   virtual time, network and event log, is [`veil_committee_world`].
//! - [`ceremony`]: one attempt of the key ceremony, which gives a [`report::Report`];
//!   [`commit_point`]: what stands for the chain; [`disk`]: what outlives a crash.
//! - [`agreement`]: agreement on manifests, slot by slot.
//! - [`decryption`]: threshold decryption, with the shares of a simulated ceremony.
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
pub mod commit_point;
pub mod decryption;
pub mod disk;
pub mod fixtures;
pub mod malicious;
pub mod plan;
pub mod report;

use veil_committee_world::EventLog;

/// Panics with all that is needed to repeat a run and to read it.
#[track_caller]
fn fail<S: plan::Scenario>(what: &str, plan: &plan::Plan<S>, seed: u64, log: &EventLog) -> ! {
    let log = match log.write() {
        Ok(file) => file.display().to_string(),
        Err(error) => format!("cannot be written: {error}"),
    };
    panic!("{what}\nseed {seed}, plan {}\nevent log: {log}", plan.to_json())
}
