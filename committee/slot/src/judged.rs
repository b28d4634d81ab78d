//! What a manifest that is judged lists.

use std::collections::BTreeSet;

use veil_protocol_spec::{
    Blake3Digest, JobLine,
    scheduling::{LeavingReplica, RunChange},
};

/// What a manifest that is judged says itself, where its proposer may not have known everything.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    /// The jobs of which it lists replicas as pending: no others may be.
    pub pending: &'a BTreeSet<Blake3Digest>,
    /// The jobs of which it lists replicas as done.
    pub done: &'a BTreeSet<Blake3Digest>,
    /// The jobs that it lists as new versions: no others may be.
    pub versions: &'a BTreeSet<Blake3Digest>,
    /// The lines that it lists as forgotten: no others need be.
    pub forgotten: &'a [JobLine],
    /// What it says of periodic jobs: of no others needs anything be said.
    pub runs: &'a [RunChange],
    /// What it lists as leaving: of system jobs nothing more need be.
    pub leaving: &'a [LeavingReplica],
    /// Whether it is an appeal: then no others need be done either, since their bodies may not have reached
    /// the proposer.
    pub in_appeal: bool,
}
