//! Signatures of images, as cosign and Podman write them with a key.

use std::collections::BTreeMap;

use async_recursion::async_recursion as boxed;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use veil_protocol_spec::scheduling::{ImageApproval, ImageReference, RegistryCredentials};

use crate::{
    client::{Registry, What},
    error::RegistryError,
    key::ImageKey,
    manifest::{digest, parts},
};

const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// What the payload says that it is.
const KIND: &str = "cosign container image signature";
/// More signatures of one image are not looked at.
const MAX_SIGNATURES: usize = 64;

/// The image that holds the signatures.
#[derive(Deserialize)]
struct Signatures {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// What is signed: <https://github.com/containers/image/blob/main/docs/containers-signature.5.md>.
#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Signed,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Signed {
    #[serde(rename = "docker-manifest-digest")]
    manifest: String,
}

/// A signature, and where what it signs is.
struct Found {
    payload: [u8; 32],
    signature: Vec<u8>,
}

impl Found {
    /// None if the layer is no signature of this kind.
    fn of(layer: &Layer) -> Option<Self> {
        if layer.media_type != PAYLOAD {
            return None;
        }
        let signature = STANDARD.decode(layer.annotations.get(SIGNATURE)?).ok()?;
        Some(Self { payload: digest(&layer.digest)?, signature })
    }

    /// What the chain names.
    fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.signature).into()
    }
}

impl Registry {
    /// Checks that an image is what the chain commits to and, if the policy asks for signatures, that one of
    /// `keys` has signed it: the key that has. The registry is asked as whoever has the credentials `by`, if it wants to
    /// know.
    ///
    /// # Errors
    /// [`RegistryError`], of which [`RegistryError::WrongCredentials`] if it does not take them.
    #[boxed]
    pub async fn check<'k>(
        &self,
        image: &ImageReference,
        approval: &ImageApproval,
        keys: Option<&'k [ImageKey]>,
        by: Option<&RegistryCredentials>,
    ) -> Result<Option<&'k ImageKey>, RegistryError> {
        // 1. "What the registry serves under the digest has the digest."
        let manifest = self.manifest_as(image, by).await?;
        // 2. "Its configuration, its layers and the signature that the chain names are the parts under the root."
        let found = parts(&manifest, approval.signature)?.tree().root();
        if found != approval.root {
            return Err(RegistryError::Commitment { expected: approval.root, found });
        }
        // 3. "The registry serves that very signature, one of the worker's keys has made it, and what is signed
        //    names the image's digest."
        let Some(keys) = keys else { return Ok(None) };
        let named = approval.signature.ok_or(RegistryError::Unsigned)?;
        if keys.is_empty() {
            return Err(RegistryError::NoKeys);
        }
        let (url, all) = self.signatures(image, by).await?;
        let count = all.len();
        let found = all.into_iter().find(|found| found.digest() == named);
        let found = found.ok_or(RegistryError::OtherSignatures { url, count })?;
        self.signer(image, &found, keys, by).await.map(Some)
    }

    /// SHA-256 of the first signature of the image that `key` has made, for the chain to name.
    ///
    /// # Errors
    /// [`RegistryError`]: if there is none, the reason against the last that is served.
    #[boxed]
    pub async fn signature_by(
        &self,
        image: &ImageReference,
        key: &ImageKey,
    ) -> Result<[u8; 32], RegistryError> {
        let (url, all) = self.signatures(image, None).await?;
        let mut refused = RegistryError::NoSignature { url };
        for found in all {
            match self.signer(image, &found, core::slice::from_ref(key), None).await {
                Ok(_) => return Ok(found.digest()),
                Err(error) if !error.is_final() => return Err(error),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Which of the keys has signed that this is the image.
    async fn signer<'k>(
        &self,
        image: &ImageReference,
        found: &Found,
        keys: &'k [ImageKey],
        by: Option<&RegistryCredentials>,
    ) -> Result<&'k ImageKey, RegistryError> {
        let (url, payload) = self.blob(image, &found.payload, What::Payload, by).await?;
        let made_by = |key: &&ImageKey| key.has_signed(&payload, &found.signature);
        let key = keys.iter().find(made_by).ok_or(RegistryError::WrongKey)?;
        let Payload { critical } = serde_json::from_slice(&payload).map_err(|error| {
            RegistryError::NotSignatures { url: url.clone(), reason: error.to_string() }
        })?;
        if critical.kind != KIND {
            let reason = format!("it says that it is `{}`", critical.kind);
            return Err(RegistryError::NotSignatures { url, reason });
        }
        let signed = critical.image.manifest;
        if digest(&signed) != Some(image.digest_bytes()) {
            return Err(RegistryError::SignedOther { signed });
        }
        Ok(key)
    }

    /// Those that the registry has of an image, and where.
    async fn signatures(
        &self,
        image: &ImageReference,
        by: Option<&RegistryCredentials>,
    ) -> Result<(String, Vec<Found>), RegistryError> {
        let tag = format!("sha256-{}.sig", image.digest_hex());
        let (url, bytes) = match self.tagged(image, &tag, by).await {
            Err(RegistryError::NotServed { url, .. }) => {
                return Err(RegistryError::NoSignature { url });
            }
            found => found?,
        };
        let Signatures { layers } = serde_json::from_slice(&bytes).map_err(|error| {
            RegistryError::NotSignatures { url: url.clone(), reason: error.to_string() }
        })?;
        if layers.len() > MAX_SIGNATURES {
            let reason = format!("{} of one image, and at most {MAX_SIGNATURES}", layers.len());
            return Err(RegistryError::NotSignatures { url, reason });
        }
        Ok((url, layers.iter().filter_map(Found::of).collect()))
    }
}
