//! `veil chain image`: which images a cluster runs, and of what they consist.

use std::{fs, path::PathBuf};

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use veil_protocol_spec::{
    KeccakDigest, hex, read_hex,
    scheduling::{ImagePart, ImageParts, PartKind},
};

use super::arguments::{Connection, Where};
use crate::cli::failure::Failure;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Announce an image with the root over its parts; accounts with the right `images`.
    Allow(Allow),
    /// Revoke an image at once; accounts with the right `images`.
    Revoke(Revoke),
    /// Prove that a part is in an allowed image.
    Prove(Prove),
}

/// The image's manifest and what is added to it.
#[derive(Debug, Args)]
struct Manifest {
    /// The image's manifest, byte for byte as the registry serves it.
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// Digest of a signature of the image; may be given several times.
    #[arg(long, value_name = "sha256:HEX", value_parser = parse_digest)]
    signature: Vec<[u8; 32]>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Allow {
    #[command(flatten)]
    image: Manifest,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Revoke {
    /// The image, by digest: `sha256:...` or `name@sha256:...`.
    #[arg(long, value_name = "REFERENCE", value_parser = parse_digest)]
    image: [u8; 32],
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Prove {
    #[command(flatten)]
    image: Manifest,
    /// Digest of the part: configuration, layer or signature.
    #[arg(long, value_name = "sha256:HEX", value_parser = parse_digest)]
    part: [u8; 32],
    #[command(flatten)]
    place: Where,
}

impl Command {
    pub(super) const fn connection(&self) -> &Connection {
        match self {
            Self::Allow(a) => &a.place.connection,
            Self::Revoke(a) => &a.place.connection,
            Self::Prove(a) => &a.place.connection,
        }
    }
}

fn parse_digest(text: &str) -> Result<[u8; 32], String> {
    let digits = text.rsplit_once("sha256:").map(|(_, digits)| digits);
    let digits = digits.ok_or_else(|| format!("{text} is no digest: sha256: and 64 digits"))?;
    let mut digest = [0; 32];
    read_hex(digits, &mut digest)
        .map_err(|_| format!("{text} is no digest: sha256: and 64 hexadecimal digits"))?;
    Ok(digest)
}

fn shown(digest: [u8; 32]) -> String {
    format!("sha256:{}", hex(&digest))
}

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

impl Manifest {
    /// Digest of the manifest, and its parts in order: configuration, layers, signatures.
    fn read(&self) -> Result<([u8; 32], ImageParts), Failure> {
        let bytes = fs::read(&self.manifest).map_err(Failure::file(&self.manifest))?;
        let refused =
            |reason: String| Failure::usage(format!("{}: {reason}", self.manifest.display()));
        let fields: Fields = serde_json::from_slice(&bytes).map_err(|error| {
            refused(format!(
                "not the manifest of one image ({error}); of an index, take the manifest of one platform"
            ))
        })?;
        let part = |kind, text: &str| {
            Ok::<_, Failure>(ImagePart { kind, digest: parse_digest(text).map_err(refused)? })
        };
        let mut parts = vec![part(PartKind::Config, &fields.config.digest)?];
        for layer in &fields.layers {
            parts.push(part(PartKind::Layer, &layer.digest)?);
        }
        let signature =
            |digest: &[u8; 32]| ImagePart { kind: PartKind::Signature, digest: *digest };
        parts.extend(self.signature.iter().map(signature));
        let parts = ImageParts::new(parts).map_err(|error| refused(error.to_string()))?;
        Ok((Sha256::digest(&bytes).into(), parts))
    }
}

pub(super) async fn carry_out(command: &Command) -> Result<Value, Failure> {
    match command {
        Command::Allow(Allow { image, place }) => {
            let (manifest, parts) = image.read()?;
            let root = parts.tree().root();
            let chain = place.contract.connect(&place.connection).await?;
            let cluster = place.cluster.id();
            let mined = chain.allow_image(cluster, manifest, root).await?;
            let now = chain.image(cluster, manifest).await?;
            Ok(json!({
                "image": shown(manifest),
                "root": format!("0x{root}"),
                "parts": parts.as_slice().len(),
                "status": now.status,
                "allowed_from": now.allowed_from,
                "transaction": format!("0x{}", mined.transaction),
            }))
        }
        Command::Revoke(Revoke { image, place }) => {
            let chain = place.contract.connect(&place.connection).await?;
            let mined = chain.revoke_image(place.cluster.id(), *image).await?;
            Ok(json!({
                "image": shown(*image),
                "status": chain.image(place.cluster.id(), *image).await?.status,
                "transaction": format!("0x{}", mined.transaction),
            }))
        }
        Command::Prove(Prove { image, part, place }) => {
            let (manifest, parts) = image.read()?;
            let position = parts.as_slice().iter().position(|leaf| leaf.digest == *part);
            let leaf = position.and_then(|at| parts.as_slice().get(at));
            let none =
                || Failure::usage(format!("{} is no part of {}", shown(*part), shown(manifest)));
            let (position, leaf) = position.zip(leaf).ok_or_else(none)?;
            let proof = parts.tree().proof(position).ok_or_else(none)?;
            let chain = place.contract.connect(&place.connection).await?;
            let cluster = place.cluster.id();
            let proven = chain.verify_image_part(cluster, manifest, *leaf, &proof).await?;
            let text = |node: &KeccakDigest| format!("0x{node}");
            Ok(json!({
                "image": shown(manifest),
                "part": leaf.kind,
                "digest": shown(*part),
                "proof": proof.iter().map(text).collect::<Vec<_>>(),
                "status": chain.image(cluster, manifest).await?.status,
                "proven": proven,
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_of_images_or_of_parts() {
        let digits = "ab".repeat(32);
        for text in [format!("sha256:{digits}"), format!("localhost:5000/a@sha256:{digits}")] {
            assert_eq!(parse_digest(&text).unwrap(), [0xab; 32]);
        }
        for text in [&digits, "sha256:ab", "sha512:ab"] {
            assert!(parse_digest(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_manifest_gives_its_parts_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        let digest = |byte: &str| format!("sha256:{}", byte.repeat(32));
        let text = json!({
            "schemaVersion": 2,
            "config": {"digest": digest("01"), "size": 1},
            "layers": [{"digest": digest("02")}, {"digest": digest("03")}],
        });
        fs::write(&path, text.to_string()).unwrap();
        let manifest = Manifest { manifest: path.clone(), signature: vec![[4; 32]] };
        let (_, parts) = manifest.read().unwrap();
        let found: Vec<_> =
            parts.as_slice().iter().map(|leaf| (leaf.kind, leaf.digest[0])).collect();
        use PartKind::{Config, Layer, Signature};
        assert_eq!(found, [(Config, 1), (Layer, 2), (Layer, 3), (Signature, 4)]);
        fs::write(&path, "{\"manifests\": []}").unwrap();
        assert!(manifest.read().unwrap_err().message.contains("one platform"));
    }
}
