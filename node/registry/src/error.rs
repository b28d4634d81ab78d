//! What can go wrong with a registry, and with what it serves.

use veil_protocol_spec::{KeccakDigest, scheduling::InvalidImageParts};

/// What can go wrong with a registry, and with what it serves.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum RegistryError {
    /// It does not answer, or fails.
    #[error("{url}: {reason}; see whether this machine reaches the registry")]
    Unreachable { url: String, reason: String },
    /// It wants fewer requests. The words are those that engines use.
    #[error("{url}: toomanyrequests; Retry-After: {seconds}")]
    Limited { url: String, seconds: u64 },
    /// It does not have it, or not for everybody.
    #[error("{url}: HTTP status {status}: not there, or not without a password; push it again")]
    NotServed { url: String, status: u16 },
    /// It does not know the user, or its password.
    #[error(
        "{url}: the registry refuses the password of `{username}`: `docker login` again, or correct \
         registry.username and registry.password"
    )]
    WrongCredentials { url: String, username: String },
    /// It serves more than anything that is asked for may have.
    #[error("{url}: longer than {max} bytes, which is no {what} of an image")]
    TooLarge { url: String, what: &'static str, max: usize },
    /// What it serves does not have the digest.
    #[error("{url}: what the registry serves has another digest")]
    WrongContent { url: String },
    /// It serves something else than the manifest of one image.
    #[error(
        "not the manifest of one image ({0}); of an index, take the digest of one platform's \
         manifest: `docker buildx imagetools inspect` shows it"
    )]
    NoImage(String),
    /// No registry has an image of that name.
    #[error(
        "{0} is no image: a name is [host[:port]/]path in lower case, with a tag behind a colon"
    )]
    NoName(String),
    /// It is not there for this kind of machine.
    #[error(
        "{url}: there is no image for linux/{architecture}: name another architecture, or another tag"
    )]
    NoPlatform { url: String, architecture: String },
    /// The manifest names what no image consists of.
    #[error(transparent)]
    Parts(#[from] InvalidImageParts),
    /// The parts are not those that the chain commits to.
    #[error(
        "its manifest, configuration, layers and signature have the root 0x{found}, and the chain \
         allows 0x{expected}: allow it anew with `veil chain image allow`"
    )]
    Commitment { expected: KeccakDigest, found: KeccakDigest },
    /// The policy asks for signatures, and the worker has no key to check them with.
    #[error(
        "the cluster runs signed images only, and this worker has no key: name the public key in \
         `worker.image_keys`"
    )]
    NoKeys,
    /// The chain commits to no signature.
    #[error(
        "the chain commits to no signature of it: allow it anew with `veil chain image allow --key`"
    )]
    Unsigned,
    /// No signature is served.
    #[error(
        "the registry serves no signature of it at {url}: sign it again with `cosign sign --key`"
    )]
    NoSignature { url: String },
    /// Others are served only.
    #[error(
        "none of the {count} signatures that the registry serves at {url} is the one that the \
         chain commits to: allow it anew with `veil chain image allow --key`"
    )]
    OtherSignatures { url: String, count: usize },
    /// What is served as signatures cannot be understood.
    #[error("what the registry serves as signatures at {url} is none: {reason}")]
    NotSignatures { url: String, reason: String },
    /// No key that is given has made it.
    #[error("no key that is given here (`worker.image_keys`, `--key`) has made its signature")]
    WrongKey,
    /// A good signature, of another image.
    #[error("its signature is of another image, {signed}")]
    SignedOther { signed: String },
}

impl RegistryError {
    /// Whether who has a password may get another answer: registries do not say of everything that it is there.
    #[must_use]
    pub(crate) const fn may_want_credentials(&self) -> bool {
        matches!(self, Self::NotServed { status: 401 | 403 | 404, .. } | Self::Limited { .. })
    }

    /// Whether asking again brings the same, as long as the chain says the same.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        !matches!(self, Self::Unreachable { .. } | Self::Limited { .. })
    }
}
