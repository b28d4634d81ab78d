//! The Merkle tree that commits to what an image's manifest consists of: its root is allowed on
//! chain, and the contract checks each part by its proof (`IPolicyRegistry`).

use serde::{Deserialize, Serialize};

use super::{
    abi::{Words, keccak},
    merkle::MerkleTree,
};
use crate::{domain, ids::KeccakDigest};

/// What a part of an image is; numbered as on chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum PartKind {
    /// The image's configuration.
    Config = 0,
    /// A layer of its file system.
    Layer = 1,
    /// A signature of the image's digest.
    Signature = 2,
}

/// A part of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagePart {
    /// The role of the part.
    pub kind: PartKind,
    /// SHA-256 of its bytes, as the manifest names it; of a signature, that of the signature itself.
    pub digest: [u8; 32],
}

impl ImagePart {
    /// Its leaf:
    /// `keccak256(bytes.concat(keccak256(abi.encode(purpose, kind, digest))))`, where the purpose is
    /// Keccak-256 of [`domain::IMAGE_LEAF`] and the kind a `uint8`.
    #[must_use]
    pub fn leaf(&self) -> KeccakDigest {
        let inner = Words::purpose(domain::IMAGE_LEAF)
            .uint(u64::from(self.kind as u8))
            .bytes32(&self.digest)
            .keccak();
        keccak(inner.as_bytes())
    }
}

/// The parts of an image in their order: the configuration, then layers from the lowest on, then
/// signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageParts(Vec<ImagePart>);

/// What the chain says of an image that a cluster runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageApproval {
    /// The root of its [`ImageParts`].
    pub root: KeccakDigest,
    /// SHA-256 of the signature under that root, if one was named.
    pub signature: Option<[u8; 32]>,
}

/// Why parts do not make an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidImageParts {
    /// There are more parts than an image has.
    #[error("{0} parts: an image has at most {max}", max = ImageParts::MAX)]
    TooMany(usize),
    /// There is not exactly one configuration, or it is not first.
    #[error("an image has exactly one configuration, given first")]
    Configuration,
    /// A signature comes before a layer.
    #[error("part {0} is out of order: layers come before signatures")]
    Order(usize),
}

impl ImageParts {
    /// Most parts of an image: the limit of 127 layers that Docker has, and as many signatures.
    pub const MAX: usize = 255;

    /// Checks number and order.
    ///
    /// # Errors
    /// [`InvalidImageParts`].
    pub fn new(parts: Vec<ImagePart>) -> Result<Self, InvalidImageParts> {
        if parts.len() > Self::MAX {
            return Err(InvalidImageParts::TooMany(parts.len()));
        }
        let configurations = parts.iter().filter(|part| part.kind == PartKind::Config).count();
        if configurations != 1 || parts.first().map(|part| part.kind) != Some(PartKind::Config) {
            return Err(InvalidImageParts::Configuration);
        }
        let kinds = parts.iter().zip(parts.iter().skip(1));
        match kinds.into_iter().position(|(a, b)| a.kind > b.kind) {
            Some(before) => Err(InvalidImageParts::Order(before + 1)),
            None => Ok(Self(parts)),
        }
    }

    /// The parts in their order.
    #[must_use]
    pub fn as_slice(&self) -> &[ImagePart] {
        &self.0
    }

    /// The tree over the leaves in order; its root is what the chain allows.
    #[must_use]
    pub fn tree(&self) -> MerkleTree {
        MerkleTree::new(self.0.iter().map(ImagePart::leaf).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::verify_inclusion;

    fn part(kind: PartKind, byte: u8) -> ImagePart {
        ImagePart { kind, digest: [byte; 32] }
    }

    #[test]
    fn number_and_order_are_checked() {
        use PartKind::{Config, Layer, Signature};
        let new = |list: &[(PartKind, u8)]| {
            ImageParts::new(list.iter().map(|(kind, byte)| part(*kind, *byte)).collect())
                .map(|parts| parts.as_slice().len())
        };
        assert_eq!(new(&[(Config, 1), (Layer, 2), (Layer, 2), (Signature, 3)]), Ok(4));
        assert_eq!(new(&[]), Err(InvalidImageParts::Configuration));
        assert_eq!(new(&[(Layer, 1), (Config, 2)]), Err(InvalidImageParts::Configuration));
        assert_eq!(new(&[(Config, 1), (Config, 2)]), Err(InvalidImageParts::Configuration));
        assert_eq!(
            new(&[(Config, 1), (Signature, 2), (Layer, 3)]),
            Err(InvalidImageParts::Order(2))
        );
        assert_eq!(new(&[(Config, 1); 256]), Err(InvalidImageParts::TooMany(256)));
    }

    #[test]
    fn every_part_is_included_as_what_it_is() {
        let layers = (0..6).map(|i| part(PartKind::Layer, i));
        let list: Vec<_> = core::iter::once(part(PartKind::Config, 9)).chain(layers).collect();
        let parts = ImageParts::new(list).unwrap();
        let tree = parts.tree();
        for (i, own) in parts.as_slice().iter().enumerate() {
            let proof = tree.proof(i).unwrap();
            assert!(verify_inclusion(&tree.root(), &own.leaf(), &proof));
            let other = ImagePart { kind: PartKind::Signature, ..*own };
            assert!(!verify_inclusion(&tree.root(), &other.leaf(), &proof));
        }
    }
}
