//! Container images, named by content.

use core::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// An image pinned by digest: `name@sha256:<64 lowercase hexadecimal digits>`, where the name is
/// as in the OCI distribution grammar, `[host[:port]/]path`, at most 255 characters (no IPv6
/// literal as host). A tag is refused: the registry's owner can move it, and with the digest
/// present it means nothing. What people write is a [`TaggedImage`].
///
/// ```
/// use veil_protocol_spec_job::image::ImageReference;
/// let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
/// let image: ImageReference = format!("localhost:5000/tools/busybox@sha256:{digest}").parse().unwrap();
/// assert_eq!((image.name(), image.digest_hex()), ("localhost:5000/tools/busybox", digest));
/// assert!("busybox:latest".parse::<ImageReference>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageReference(String);

/// Why a text is not an image reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// There is no `@sha256:`, or not 64 lowercase hexadecimal digits after it.
    #[error("an image must be pinned as name@sha256:<64 lowercase hexadecimal digits>")]
    NotPinned,
    /// There is a tag where only the digest counts.
    #[error("drop the image's tag: the digest alone says which image is meant")]
    Tagged,
    /// The tag has a form that registries do not accept.
    #[error(
        "an image's tag is 1 to {} characters out of A-Z a-z 0-9 _ . -, not beginning with . or -",
        ImageTag::MAX_BYTES
    )]
    Tag,
    /// The name is empty, too long, or not of a form that registries accept.
    #[error(
        "the image's name must be [host[:port]/]path in lower case, at most {} characters",
        ImageReference::MAX_NAME
    )]
    Name,
}

impl ImageReference {
    /// Longest name in bytes, host included.
    pub const MAX_NAME: usize = 255;

    /// Host and path, without the digest.
    #[must_use]
    pub fn name(&self) -> &str {
        self.split().0
    }

    /// The SHA-256 of the image's manifest: 64 hexadecimal digits.
    #[must_use]
    pub fn digest_hex(&self) -> &str {
        self.split().1
    }

    /// The SHA-256 of the image's manifest.
    #[must_use]
    pub fn digest_bytes(&self) -> [u8; 32] {
        let digits = self.digest_hex().as_bytes();
        core::array::from_fn(|i| {
            let digit = |at: usize| {
                let digit = digits.get(at).map(|digit| char::from(*digit).to_digit(16));
                digit.flatten().unwrap_or_default() as u8 // 64 digits: checked by the constructor
            };
            digit(2 * i) << 4 | digit(2 * i + 1)
        })
    }

    /// The whole reference, as `docker pull` takes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn split(&self) -> (&str, &str) {
        self.0.split_once(SEPARATOR).unwrap_or((&self.0, "")) // present: checked by the constructor
    }
}

const SEPARATOR: &str = "@sha256:";

fn is_path_component(component: &str) -> bool {
    // [a-z0-9]+ separated by one of: a dot, one or two underscores, any number of dashes.
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends = component.starts_with(alphanumeric) && component.ends_with(alphanumeric);
    ends && component.split(alphanumeric).all(|separator| {
        matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
    })
}

fn is_host(host: &str) -> bool {
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    !port.starts_with('0')
        && port.bytes().all(|b| b.is_ascii_digit())
        && port.parse::<u16>().is_ok()
}

fn check_name(name: &str) -> Result<(), ImageError> {
    if name.len() > ImageReference::MAX_NAME {
        return Err(ImageError::Name);
    }
    // As the container engines read it: a first component is a host if it looks like one.
    let path = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            if !is_host(first) {
                return Err(ImageError::Name);
            }
            rest
        }
        _ => name,
    };
    if path.split('/').all(is_path_component) {
        return Ok(());
    }
    match path.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') && before.split('/').all(is_path_component) => {
            Err(ImageError::Tagged)
        }
        _ => Err(ImageError::Name),
    }
}

impl FromStr for ImageReference {
    type Err = ImageError;

    fn from_str(s: &str) -> Result<Self, ImageError> {
        s.to_owned().try_into()
    }
}

impl TryFrom<String> for ImageReference {
    type Error = ImageError;

    fn try_from(s: String) -> Result<Self, ImageError> {
        let (name, digest) = s.split_once(SEPARATOR).ok_or(ImageError::NotPinned)?;
        let hexadecimal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if digest.len() != 64 || !digest.bytes().all(hexadecimal) {
            return Err(ImageError::NotPinned);
        }
        check_name(name)?;
        Ok(Self(s))
    }
}

impl From<ImageReference> for String {
    fn from(image: ImageReference) -> Self {
        image.0
    }
}

/// A tag, as people know a version of an image by. It selects nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageTag(String);

impl ImageTag {
    /// Longest tag.
    pub const MAX_BYTES: usize = 128;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ImageTag {
    type Error = ImageError;

    fn try_from(text: String) -> Result<Self, ImageError> {
        let valid = (1..=Self::MAX_BYTES).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
            && !text.starts_with(['.', '-']);
        if valid { Ok(Self(text)) } else { Err(ImageError::Tag) }
    }
}

impl From<ImageTag> for String {
    fn from(tag: ImageTag) -> Self {
        tag.0
    }
}

/// An image as people write it: `name[:tag]@sha256:<digest>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaggedImage {
    /// What is run.
    pub image: ImageReference,
    /// What people call it.
    pub tag: Option<ImageTag>,
}

impl FromStr for TaggedImage {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let (name, digest) = text.split_once(SEPARATOR).ok_or(ImageError::NotPinned)?;
        // A colon before the last slash is that of a port.
        let slash = name.rfind('/').map_or(0, |at| at + 1);
        match name.get(slash..).and_then(|last| last.split_once(':')) {
            None => Ok(Self { image: text.parse()?, tag: None }),
            Some((last, tag)) => {
                let folders = name.get(..slash).unwrap_or_default();
                let image = format!("{folders}{last}{SEPARATOR}{digest}").parse()?;
                Ok(Self { image, tag: Some(tag.to_owned().try_into()?) })
            }
        }
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str) -> Result<ImageReference, ImageError> {
        format!("{name}@sha256:{}", "ab".repeat(32)).parse()
    }

    #[test]
    fn names_that_registries_accept() {
        for name in [
            "busybox",
            "library/busybox",
            "localhost/app",
            "localhost:5000/app",
            "registry.example.org/team/app",
            "Registry.example.org:443/a/b/c",
            "10.0.0.1:5000/a-b/c__d/e.f--g",
        ] {
            assert_eq!(parse(name).map(|i| i.name().to_owned()), Ok(name.to_owned()));
            assert_eq!(parse(name).map(|i| i.digest_bytes()), Ok([0xab; 32]));
        }
    }

    #[test]
    fn names_that_they_do_not() {
        for name in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a/B",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a b",
            "a@b",
            "a.b:0/c",
            "a.b:99999/c",
            "a.b:+1/c",
            "-a.b/c",
            "a..b/c",
            "a.b/",
            "a\0",
            "é",
        ] {
            assert_eq!(parse(name), Err(ImageError::Name), "{name:?}");
        }
        assert!(parse(&"a".repeat(255)).is_ok());
        assert_eq!(parse(&"a".repeat(256)), Err(ImageError::Name));
    }

    #[test]
    fn a_tag_is_named_as_the_reason() {
        for name in ["busybox:latest", "localhost:5000/app:1", "a/b:V1.2_x"] {
            assert_eq!(parse(name), Err(ImageError::Tagged), "{name:?}");
        }
    }

    #[test]
    fn a_tag_beside_the_digest_is_kept_for_people() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let parse = |name: &str| format!("{name}@{digest}").parse::<TaggedImage>();
        for (name, tag) in [("busybox", "latest"), ("localhost:5000/a/b", "1.4"), ("a.b/c", "_V-1")]
        {
            let tagged = parse(&format!("{name}:{tag}")).unwrap();
            assert_eq!(tagged.image, format!("{name}@{digest}").parse().unwrap());
            assert_eq!(tagged.tag.as_ref().map(ImageTag::as_str), Some(tag));
            assert_eq!(parse(name).unwrap(), TaggedImage { tag: None, ..tagged });
        }
        for wrong in ["a:", "a:.1", "a:-1", "a:b:c", &format!("a:{}", "b".repeat(129))] {
            assert_eq!(parse(wrong), Err(ImageError::Tag), "{wrong}");
        }
        assert_eq!(parse("a:b/c"), Err(ImageError::Name));
        assert_eq!("a:b".parse::<TaggedImage>(), Err(ImageError::NotPinned));
    }

    #[test]
    fn only_a_full_lowercase_digest_pins() {
        let digest = "ab".repeat(32);
        for wrong in [
            "busybox".to_owned(),
            "busybox:latest".to_owned(),
            format!("busybox@sha512:{digest}"),
            format!("busybox@sha256:{}", digest.to_uppercase()),
            format!("busybox@sha256:{}", &digest[1..]),
            format!("busybox@sha256:{digest}0"),
            format!("busybox@sha256:{digest}@sha256:{digest}"),
        ] {
            assert_eq!(wrong.parse::<ImageReference>(), Err(ImageError::NotPinned), "{wrong}");
        }
    }
}
