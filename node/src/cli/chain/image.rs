//! `veil chain image`: which images a cluster runs, and of what they consist.

use std::{fs, path::PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use veil_node_chain_commands::arguments::{Connection, Where};
use veil_node_registry::{ImageKey, Registry, parts};
use veil_node_terminal::waiting;
use veil_protocol_spec::{
    KeccakDigest, hex, read_hex,
    scheduling::{ImageApproval, ImageParts, PartKind, TaggedImage},
};

use crate::cli::failure::Failure;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Announce an image with the root over its parts; accounts with the right `images`.
    Allow(Allow),
    /// Show what `allow` would tell the chain, and what the chain has; no transaction.
    Show(Show),
    /// Revoke an image at once; accounts with the right `images`.
    Revoke(Revoke),
    /// Prove that a part is in an allowed image.
    Prove(Prove),
}

/// Which image, and what is added to it.
#[derive(Debug, Args)]
struct Source {
    /// The image, looked up at its registry: `name[:tag]@sha256:...`.
    #[arg(long, value_name = "REFERENCE", required_unless_present = "manifest")]
    image: Option<TaggedImage>,
    /// Its manifest instead, byte for byte as the registry serves it.
    #[arg(long, value_name = "FILE", conflicts_with = "image")]
    manifest: Option<PathBuf>,
    /// Name the signature that this public key (cosign.pub) has made, looked up at the registry.
    #[arg(long, value_name = "FILE", requires = "image", conflicts_with = "signature")]
    key: Option<PathBuf>,
    /// Name a signature by its own SHA-256.
    #[arg(long, value_name = "sha256:HEX", value_parser = parse_digest)]
    signature: Option<[u8; 32]>,
    /// A registry without TLS; those of this machine may have none.
    #[arg(long, value_name = "HOST:PORT")]
    insecure_registry: Vec<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Allow {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Show {
    #[command(flatten)]
    source: Source,
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
    source: Source,
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
            Self::Show(a) => &a.place.connection,
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

/// What the chain is told of an image.
struct Commitment {
    manifest: [u8; 32],
    parts: ImageParts,
    approval: ImageApproval,
    /// That the root commits to the signature.
    proof: Vec<KeccakDigest>,
}

impl Source {
    async fn read(&self) -> Result<Commitment, Failure> {
        let (bytes, signature) = match (&self.image, &self.manifest) {
            (Some(TaggedImage { image, .. }), _) => {
                waiting::on(format_args!("asking the registry for {image}"));
                let registry = Registry::new(self.insecure_registry.clone())?;
                let bytes = registry.manifest(image).await?;
                let signature = match &self.key {
                    Some(key) => Some(registry.signature_by(image, &ImageKey::read(key)?).await?),
                    None => self.signature,
                };
                (bytes, signature)
            }
            (None, Some(path)) => (fs::read(path).map_err(Failure::file(path))?, self.signature),
            (None, None) => return Err(Failure::usage("give --image or --manifest")),
        };
        Commitment::of(&bytes, signature)
    }
}

impl Commitment {
    fn of(manifest: &[u8], signature: Option<[u8; 32]>) -> Result<Self, Failure> {
        let parts = parts(manifest, signature)?;
        let tree = parts.tree();
        let signed = parts.as_slice().iter().position(|part| part.kind == PartKind::Signature);
        Ok(Self {
            manifest: Sha256::digest(manifest).into(),
            approval: ImageApproval { root: tree.root(), signature },
            proof: signed.and_then(|at| tree.proof(at)).unwrap_or_default(),
            parts,
        })
    }

    fn shown(&self) -> Value {
        json!({
            "image": shown(self.manifest),
            "root": format!("0x{}", self.approval.root),
            "signature": self.approval.signature.map(shown),
            "parts": self.parts.as_slice().len(),
        })
    }
}

pub(super) async fn carry_out(command: &Command) -> Result<Value, Failure> {
    match command {
        Command::Allow(Allow { source, place }) => {
            let commitment = source.read().await?;
            let Commitment { manifest, approval, proof, .. } = &commitment;
            let chain = place.contract.connect_to_send(&place.connection).await?;
            let cluster = place.cluster.id();
            let mined = chain.allow_image(cluster, *manifest, *approval, proof).await?;
            let now = chain.image(cluster, *manifest).await?;
            let mut said = commitment.shown();
            said["status"] = json!(now.status);
            said["allowed_from"] = json!(now.allowed_from);
            said["transaction"] = json!(format!("0x{}", mined.transaction));
            Ok(said)
        }
        Command::Show(Show { source, place }) => {
            let commitment = source.read().await?;
            let chain = place.contract.connect(&place.connection).await?;
            let now = chain.image(place.cluster.id(), commitment.manifest).await?;
            let mut said = commitment.shown();
            said["status"] = json!(now.status);
            said["allowed_from"] = json!(now.allowed_from);
            said["committed"] = json!(now.approval == commitment.approval);
            Ok(said)
        }
        Command::Revoke(Revoke { image, place }) => {
            let chain = place.contract.connect_to_send(&place.connection).await?;
            let mined = chain.revoke_image(place.cluster.id(), *image).await?;
            Ok(json!({
                "image": shown(*image),
                "status": chain.image(place.cluster.id(), *image).await?.status,
                "transaction": format!("0x{}", mined.transaction),
            }))
        }
        Command::Prove(Prove { source, part, place }) => {
            let Commitment { manifest, parts, .. } = source.read().await?;
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
    fn a_signature_that_is_named_is_proved_to_be_under_the_root() {
        let digest = |byte: &str| format!("sha256:{}", byte.repeat(32));
        let layers = [json!({"digest": digest("02")}), json!({"digest": digest("03")})];
        let text = json!({ "config": {"digest": digest("01")}, "layers": layers }).to_string();
        let unsigned = Commitment::of(text.as_bytes(), None).unwrap();
        assert_eq!((unsigned.parts.as_slice().len(), unsigned.proof.len()), (3, 0));
        let signed = Commitment::of(text.as_bytes(), Some([4; 32])).unwrap();
        assert_eq!(signed.manifest, unsigned.manifest);
        assert_ne!(signed.approval.root, unsigned.approval.root);
        assert_eq!(signed.proof, signed.parts.tree().proof(3).unwrap());
        assert_eq!(signed.shown()["signature"], digest("04"));
        let index = Commitment::of(b"{\"manifests\": []}", None).map(|_| ()).unwrap_err();
        assert!(index.message.contains("one platform"), "{}", index.message);
    }
}
