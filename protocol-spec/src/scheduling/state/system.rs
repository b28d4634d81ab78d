//! Which worker a replica of a system job is for.

use super::ClusterState;
use crate::ids::{Blake3Digest, PeerIdHash, ReplicaIndex};

impl ClusterState {
    /// Replicas of a job without a place whose predecessor had to leave first, and where that was, in order.
    pub fn homes_of(
        &self,
        job: Blake3Digest,
    ) -> impl Iterator<Item = (ReplicaIndex, PeerIdHash)> + '_ {
        let all = (job, ReplicaIndex(0))..=(job, ReplicaIndex(u16::MAX));
        self.rollouts.homes.range(all).map(|(&(_, replica), worker)| (replica, *worker))
    }

    /// Replicas of a job that found no place, and the worker that each was for, or was last at, in order.
    pub fn tried_at(
        &self,
        job: Blake3Digest,
    ) -> impl Iterator<Item = (ReplicaIndex, PeerIdHash)> + '_ {
        let all = (job, ReplicaIndex(0))..=(job, ReplicaIndex(u16::MAX));
        let tried = self.tries.tried.range(all);
        tried.filter_map(|(&(_, replica), tried)| Some((replica, tried.previous?)))
    }

    /// Replicas of a job that were given back, as long as that is remembered, and the workers that did so, in order.
    pub fn returned_of(
        &self,
        job: Blake3Digest,
    ) -> impl Iterator<Item = (ReplicaIndex, &super::Returned)> + '_ {
        let all = (job, ReplicaIndex(0))..=(job, ReplicaIndex(u16::MAX));
        self.returned.range(all).map(|(&(_, replica), returned)| (replica, returned))
    }
}
