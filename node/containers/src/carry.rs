//! Who carries the connections of links, which is somebody else's concern.

use std::{fmt, io, net::SocketAddrV4, sync::Arc};

use veil_protocol_spec::scheduling::JobSpec;

use crate::replica::ReplicaId;

/// A link of a replica, and where its container connects to.
#[derive(Clone, Debug)]
pub struct LinkPoint {
    /// Which replica.
    pub of: ReplicaId,
    /// Its job.
    pub spec: Arc<JobSpec>,
    /// Which of the job's links.
    pub index: usize,
    /// The interface that connections come in from.
    pub bridge: String,
    /// Where they are on their way to.
    pub at: SocketAddrV4,
}

/// Carries the connections of links.
pub trait Carry: Send + Sync {
    /// The port of this machine at which connections of this link are taken from now on, and taken from its interface
    /// only. The same for the same link, as long as it is kept.
    ///
    /// # Errors
    /// What the system says.
    fn listen(&self, point: &LinkPoint) -> io::Result<u16>;

    /// Ends the links of other replicas.
    fn retain(&self, keep: &dyn Fn(&ReplicaId) -> bool);
}

/// Who carries the connections of links, if somebody does.
#[derive(Clone, Default)]
pub struct Links(Option<Arc<dyn Carry>>);

impl Links {
    /// They are carried by `carry`.
    #[must_use]
    pub fn by(carry: Arc<dyn Carry>) -> Self {
        Self(Some(carry))
    }

    pub(crate) fn carry(&self) -> Option<&dyn Carry> {
        self.0.as_deref()
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Links").field(&self.0.is_some()).finish()
    }
}
