//! What a worker stops that is cut off from the committee.

use std::time::Duration;

use veil_protocol_spec::scheduling::LeasePolicy;

use crate::replica::{DesiredReplica, ReplicaId};

/// The replicas whose lease is over when the last verified certificate is `age` old: to be left out
/// of the next [`reconcile`](crate::Executor::reconcile). The age must span restarts of the worker
/// and count from when the committee signed, not from when the certificate arrived.
#[must_use]
pub fn lapsed(desired: &[DesiredReplica], age: Duration) -> Vec<ReplicaId> {
    let over = |replica: &&DesiredReplica| match replica.spec.lease {
        LeasePolicy::Keep => false,
        LeasePolicy::Exclusive { seconds } => age >= Duration::from_secs(u64::from(seconds)),
    };
    desired.iter().filter(over).map(DesiredReplica::id).collect()
}
