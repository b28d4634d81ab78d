//! Which replica, and what is to run.

use core::fmt;
use std::sync::Arc;

use veil_protocol_spec::{
    Blake3Digest, KeccakDigest, ReplicaIndex, Slot,
    scheduling::{JobSpec, Resources, SealedArguments, SealedContents},
};

use crate::{error::ReplicaError, image::Puller};

/// One replica of one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaId {
    /// [`JobSpec::digest`].
    pub job: Blake3Digest,
    /// Which of its replicas.
    pub replica: ReplicaIndex,
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.job, self.replica)
    }
}

/// What placed a replica here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The slot.
    pub slot: Slot,
    /// Digest of the slot's certificate.
    pub certificate: KeccakDigest,
}

/// A replica that is to run here.
#[derive(Clone, Debug)]
pub struct DesiredReplica {
    /// Which of the job's replicas.
    pub replica: ReplicaIndex,
    /// The job, validated.
    pub spec: Arc<JobSpec>,
    /// What says so.
    pub placement: Placement,
    /// What is sealed in the job, opened; nothing if nothing is.
    pub contents: Option<Arc<SealedContents>>,
}

impl DesiredReplica {
    /// The replica's name in the cluster.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        ReplicaId { job: self.spec.digest(), replica: self.replica }
    }

    /// What it gets, whether the body says so or what is sealed in it.
    pub(crate) fn limits(&self) -> Result<Resources, ReplicaError> {
        let closed = SealedContents::default();
        let contents = self.contents.as_deref().unwrap_or(&closed);
        contents.limits(&self.spec).ok_or(ReplicaError::Request)
    }

    /// Who pulls its image.
    pub(crate) fn puller(&self) -> Puller {
        self.contents.as_ref()?.registry.as_ref().map(|_| self.spec.digest())
    }

    fn arguments(&self) -> Option<&SealedArguments> {
        self.contents.as_ref()?.arguments.as_ref()
    }

    /// What it runs in place of the image's entry point.
    pub(crate) fn command(&self) -> &[String] {
        self.arguments().map_or(&self.spec.command, |sealed| &sealed.command)
    }

    /// What it gives that in place of the image's arguments.
    pub(crate) fn args(&self) -> &[String] {
        self.arguments().map_or(&self.spec.args, |sealed| &sealed.args)
    }
}
