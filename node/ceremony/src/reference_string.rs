//! The reference string that telemetry proofs rest on. Its digest is published with the key, so it
//! must exist before that.

use std::path::Path;

use async_trait::async_trait;
use veil_keygen_ceremony::keyset::ParameterSet;
use veil_protocol_spec::{
    PublicIdentity, publication::ReferenceString, scheduling::ReferenceStringOrigin,
};

/// Where a member gets the reference string from.
///
/// # Security
/// Until the committee makes it together, one party does, and could forge proofs. A member that was
/// not told to accept that refuses to sign the publication; see
/// [`MemberOptions::insecure_reference_string`](crate::options::MemberOptions).
#[async_trait]
pub trait ReferenceStringSource: Send + Sync + 'static {
    /// Who made, or will make, the strings of this source.
    fn origin(&self) -> ReferenceStringOrigin;

    /// For participant 1: makes the string, writes it to `path` and gives it to whoever asks for its
    /// digest. If the file is there already (after a restart), that one is taken.
    ///
    /// # Errors
    /// [`ReferenceStringError`].
    async fn make(
        &self,
        params: &ParameterSet,
        path: &Path,
    ) -> Result<ReferenceString, ReferenceStringError>;

    /// For the others: gets the bytes from participant 1, checks digest and form, and writes them to
    /// `path`, unless they are there already.
    ///
    /// # Errors
    /// [`ReferenceStringError`].
    async fn fetch(
        &self,
        params: &ParameterSet,
        announced: &ReferenceString,
        from: &PublicIdentity,
        path: &Path,
    ) -> Result<(), ReferenceStringError>;
}

/// Why there is no reference string.
#[derive(Debug, thiserror::Error)]
#[error("the reference string: {0}")]
pub struct ReferenceStringError(pub String);
