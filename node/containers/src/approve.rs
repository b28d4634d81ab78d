//! Whether an image is what its cluster allows, which somebody else finds out.

use std::{fmt, sync::Arc};

use futures::future::BoxFuture;
use veil_protocol_spec::scheduling::{ImageReference, RegistryCredentials};
use zeroize::Zeroizing;

use crate::error::ReplicaError;

type Answer = BoxFuture<'static, Result<(), ReplicaError>>;
type Login = Option<Zeroizing<RegistryCredentials>>;
type Ask = dyn Fn(ImageReference, Login) -> Answer + Send + Sync;

/// Asked before an image is pulled, and again before a container is made of one that is here.
#[derive(Clone)]
pub struct Approve(Arc<Ask>);

impl Approve {
    /// What `ask` refuses is neither pulled nor run. It gets the credentials of the job that the image is for, if the job has
    /// any.
    pub fn new(ask: impl Fn(ImageReference, Login) -> Answer + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    pub(crate) fn ask(&self, image: &ImageReference, by: Option<&RegistryCredentials>) -> Answer {
        (self.0)(image.clone(), by.cloned().map(Zeroizing::new))
    }
}

/// Every image is.
impl Default for Approve {
    fn default() -> Self {
        Self::new(|_, _| Box::pin(async { Ok(()) }))
    }
}

impl fmt::Debug for Approve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Approve")
    }
}
