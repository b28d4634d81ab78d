//! What an image's manifest says of its parts.

use serde::Deserialize;
use veil_protocol_spec::{
    read_hex,
    scheduling::{ImagePart, ImageParts, PartKind},
};

use crate::error::RegistryError;

/// What a manifest of Docker or OCI says that matters here.
#[derive(Deserialize)]
struct Fields {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
}

/// What an index says: one manifest for each platform.
#[derive(Deserialize)]
struct Index {
    manifests: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    digest: String,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

/// `None` if this is the manifest of one image; of an index, the digest of that for Linux on `architecture`, if there is
/// one.
pub(crate) fn of_platform(
    bytes: &[u8],
    architecture: &str,
) -> Result<Option<Option<[u8; 32]>>, RegistryError> {
    let Ok(index) = serde_json::from_slice::<Index>(bytes) else {
        let one = serde_json::from_slice::<Fields>(bytes);
        return one.map(|_| None).map_err(|error| RegistryError::NoImage(error.to_string()));
    };
    let is_wanted = |listed: &&Listed| {
        let platform = listed.platform.as_ref();
        platform
            .is_some_and(|platform| platform.os == "linux" && platform.architecture == architecture)
    };
    let found = index.manifests.iter().find(is_wanted);
    Ok(Some(found.and_then(|listed| digest(&listed.digest))))
}

/// The 32 bytes of `sha256:` and 64 digits.
pub(crate) fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    read_hex(text.strip_prefix("sha256:")?, &mut digest).ok()?;
    Some(digest)
}

/// The parts of the image with this manifest, byte for byte as registries serve it: configuration, layers, and
/// the signature that the chain is to name.
///
/// # Errors
/// [`RegistryError::NoImage`], [`RegistryError::Parts`].
pub fn parts(manifest: &[u8], signature: Option<[u8; 32]>) -> Result<ImageParts, RegistryError> {
    let no_image = |reason: String| RegistryError::NoImage(reason);
    let fields: Fields =
        serde_json::from_slice(manifest).map_err(|error| no_image(error.to_string()))?;
    let part = |kind, descriptor: &Descriptor| {
        let wrong = || no_image(format!("{} is no digest by SHA-256", descriptor.digest));
        Ok::<_, RegistryError>(ImagePart {
            kind,
            digest: digest(&descriptor.digest).ok_or_else(wrong)?,
        })
    };
    let mut parts = vec![part(PartKind::Config, &fields.config)?];
    for layer in &fields.layers {
        parts.push(part(PartKind::Layer, layer)?);
    }
    parts.extend(signature.map(|digest| ImagePart { kind: PartKind::Signature, digest }));
    Ok(ImageParts::new(parts)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_manifest_gives_its_parts_in_order() {
        let digest = |byte: &str| format!("sha256:{}", byte.repeat(32));
        let text = json!({
            "schemaVersion": 2,
            "config": {"digest": digest("01"), "size": 1},
            "layers": [{"digest": digest("02")}, {"digest": digest("03")}],
        });
        let parts_of = |text: &serde_json::Value, signature| {
            parts(text.to_string().as_bytes(), signature).map(|parts| {
                let kinds = parts.as_slice().iter().map(|leaf| (leaf.kind, leaf.digest[0]));
                kinds.collect::<Vec<_>>()
            })
        };
        use PartKind::{Config, Layer, Signature};
        let all = [(Config, 1), (Layer, 2), (Layer, 3), (Signature, 4)];
        assert_eq!(parts_of(&text, Some([4; 32])).unwrap(), all);
        assert_eq!(parts_of(&text, None).unwrap(), all[..3]);
        let index = parts_of(&json!({"manifests": []}), None).unwrap_err();
        assert!(index.to_string().contains("one platform"), "{index}");
        let sha512 = json!({"config": {"digest": "sha512:00"}, "layers": []});
        assert!(matches!(parts_of(&sha512, None), Err(RegistryError::NoImage(_))));
        let layers = vec![json!({"digest": digest("02")}); 255];
        let many = json!({"config": {"digest": digest("01")}, "layers": layers});
        assert!(matches!(parts_of(&many, None), Err(RegistryError::Parts(_))));
    }
}
