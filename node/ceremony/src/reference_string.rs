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

/// "The reference string's origin is what the ceremony says, not what a file or participant 1 says": with
/// another one, a string of one party would pass for the committee's.
///
/// # Errors
/// [`ReferenceStringError`].
pub(crate) fn check_origin(
    named: &ReferenceString,
    origin: ReferenceStringOrigin,
) -> Result<(), ReferenceStringError> {
    if named.origin == origin {
        return Ok(());
    }
    let text =
        format!("its origin is given as {:?}, in this ceremony it is {origin:?}", named.origin);
    Err(ReferenceStringError(text))
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::Blake3Digest;

    use super::*;

    #[test]
    fn a_string_of_one_party_does_not_pass_for_the_committees() {
        use ReferenceStringOrigin::{Committee, SingleParty};
        let digest = Blake3Digest([1; 32]);
        let named = |origin| ReferenceString { digest, file: digest, bytes: 1, origin };
        assert!(check_origin(&named(SingleParty), SingleParty).is_ok());
        assert!(check_origin(&named(Committee), Committee).is_ok());
        let refused = check_origin(&named(Committee), SingleParty).unwrap_err().to_string();
        assert!(refused.contains("Committee") && refused.contains("SingleParty"), "{refused}");
        assert!(check_origin(&named(SingleParty), Committee).is_err());
    }
}
