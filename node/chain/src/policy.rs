//! Policies, rights and images of clusters.

use std::collections::BTreeMap;

use alloy::{primitives::B256, providers::RootProvider};
use async_recursion::async_recursion as boxed;
use serde::Serialize;
use veil_contracts::policy_registry::{
    IPolicyRegistry::Allowance as AllowanceArguments,
    PolicyRegistry::{self, PolicyRegistryInstance},
};
use veil_protocol_spec::{
    Address, ClusterId, KeccakDigest,
    scheduling::{ImageApproval, ImagePart},
};

use crate::{
    address::evm,
    connection::Chain,
    error::ChainError,
    types::{Allowance, Mined, Rights},
};

type Contract = PolicyRegistryInstance<RootProvider>;

/// The state of an image in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageStatus {
    /// The chain does not know it.
    Unknown,
    /// It will be allowed from an announced time on.
    Announced,
    /// It may run.
    Allowed,
    /// It may no longer run.
    Revoked,
}

/// An image of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterImage {
    /// Whether it may run.
    pub status: ImageStatus,
    /// The Unix time from which on it may run.
    pub allowed_from: u64,
    /// What the chain commits to.
    pub approval: ImageApproval,
}

impl Chain {
    fn policies(&self) -> Contract {
        PolicyRegistry::new(evm(self.contracts.policy_registry), self.rpc.provider.clone())
    }

    /// The cluster's active policy, empty before the first; manifests name its Keccak-256.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn cluster_policy(&self, cluster: ClusterId) -> Result<Vec<u8>, ChainError> {
        let contract = self.policies();
        let call = || async {
            contract.getClusterPolicy(cluster.0.into()).call().block(self.rpc.at).await
        };
        Ok(self.rpc.call("the cluster's policy", call).await?.to_vec())
    }

    /// The announced policy and the Unix time from which on it is active, if there is one.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn announced_policy(
        &self,
        cluster: ClusterId,
    ) -> Result<Option<(Vec<u8>, u64)>, ChainError> {
        let contract = self.policies();
        let call = || async { contract.announcedPolicy(cluster.0.into()).call().await };
        let found = self.rpc.call("the announced policy", call).await?;
        Ok((!found.policy.is_empty()).then(|| (found.policy.to_vec(), found.from)))
    }

    /// Uploads the policy; only the admin may. The first is active at once, later ones after the cluster's
    /// delay.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn set_cluster_policy(
        &self,
        cluster: ClusterId,
        policy: &[u8],
    ) -> Result<Mined, ChainError> {
        let policy = policy.to_vec().into();
        let request =
            self.policies().setClusterPolicy(cluster.0.into(), policy).into_transaction_request();
        self.transact("the change of the policy", request).await
    }

    /// Sets an account's rights and quotas; only the admin may. Narrower ones hold at once, wider ones after
    /// the cluster's delay.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn set_allowance(
        &self,
        cluster: ClusterId,
        account: Address,
        allowance: Allowance,
    ) -> Result<Mined, ChainError> {
        let arguments = AllowanceArguments {
            rights: allowance.rights.0,
            jobsPerDay: allowance.jobs_per_day,
            leakBitsPerDay: allowance.leak_bits_per_day,
        };
        let request = self
            .policies()
            .setAllowance(cluster.0.into(), evm(account), arguments)
            .into_transaction_request();
        self.transact("the change of rights", request).await
    }

    /// An account's rights and quotas. The admin has all rights, and the quotas that it was given.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn allowance(
        &self,
        cluster: ClusterId,
        account: Address,
    ) -> Result<Allowance, ChainError> {
        let contract = self.policies();
        let call = || async {
            contract.allowanceOf(cluster.0.into(), evm(account)).call().block(self.rpc.at).await
        };
        let found = self.rpc.call("an account's rights", call).await?;
        Ok(Allowance {
            rights: Rights(found.rights),
            jobs_per_day: found.jobsPerDay,
            leak_bits_per_day: found.leakBitsPerDay,
        })
    }

    /// Announces an image, or allows it at once if the cluster has no delay. `manifest`: SHA-256 of its
    /// manifest; `proof`: that a signature that is named is under the root.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn allow_image(
        &self,
        cluster: ClusterId,
        manifest: [u8; 32],
        approval: ImageApproval,
        proof: &[KeccakDigest],
    ) -> Result<Mined, ChainError> {
        let request = self
            .policies()
            .allowImage(
                cluster.0.into(),
                manifest.into(),
                approval.root.0.into(),
                approval.signature.unwrap_or_default().into(),
                proof.iter().map(|node| B256::from(node.0)).collect(),
            )
            .into_transaction_request();
        self.transact("the announcement of an image", request).await
    }

    /// Revokes an image at once.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn revoke_image(
        &self,
        cluster: ClusterId,
        manifest: [u8; 32],
    ) -> Result<Mined, ChainError> {
        let request = self
            .policies()
            .revokeImage(cluster.0.into(), manifest.into())
            .into_transaction_request();
        self.transact("the revocation of an image", request).await
    }

    /// The state of an image, and the root over its parts.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn image(
        &self,
        cluster: ClusterId,
        manifest: [u8; 32],
    ) -> Result<ClusterImage, ChainError> {
        let contract = self.policies();
        let call = || async {
            contract.imageOf(cluster.0.into(), manifest.into()).call().block(self.rpc.at).await
        };
        let found = self.rpc.call("an image", call).await?;
        Ok(ClusterImage {
            status: match found.status {
                0 => ImageStatus::Unknown,
                1 => ImageStatus::Announced,
                2 => ImageStatus::Allowed,
                3 => ImageStatus::Revoked,
                _ => return Err(ChainError::Unexpected("another status of an image")),
            },
            allowed_from: found.allowedFrom,
            approval: approval(found.root, found.signature),
        })
    }

    /// Whether the cluster may run an image: it is allowed, or no image was ever announced.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn is_image_allowed(
        &self,
        cluster: ClusterId,
        manifest: [u8; 32],
    ) -> Result<bool, ChainError> {
        let contract = self.policies();
        let call = || async {
            contract
                .isImageAllowed(cluster.0.into(), manifest.into())
                .call()
                .block(self.rpc.at)
                .await
        };
        self.rpc.call("an image", call).await
    }

    /// All images that the cluster may run, by the SHA-256 of their manifests; `None` while it may run all, until the first is
    /// announced.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn allowed_images(
        &self,
        cluster: ClusterId,
    ) -> Result<Option<BTreeMap<[u8; 32], ImageApproval>>, ChainError> {
        let contract = self.policies();
        let call =
            || async { contract.allowedImages(cluster.0.into()).call().block(self.rpc.at).await };
        let found = self.rpc.call("the images", call).await?;
        let images =
            found.images.into_iter().map(|one| (one.manifest.0, approval(one.root, one.signature)));
        Ok(found.restricted.then(|| images.collect()))
    }

    /// Asks the contract whether an image is allowed and has a part.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn verify_image_part(
        &self,
        cluster: ClusterId,
        manifest: [u8; 32],
        part: ImagePart,
        proof: &[KeccakDigest],
    ) -> Result<bool, ChainError> {
        let contract = self.policies();
        let proof: Vec<_> = proof.iter().map(|node| B256::from(node.0)).collect();
        let call = || async {
            contract
                .verifyImagePart(
                    cluster.0.into(),
                    manifest.into(),
                    part.kind as u8,
                    part.digest.into(),
                    proof.clone(),
                )
                .call()
                .await
        };
        self.rpc.call("a part of an image", call).await
    }
}

fn approval(root: B256, signature: B256) -> ImageApproval {
    ImageApproval {
        root: KeccakDigest(root.0),
        signature: (!signature.is_zero()).then_some(signature.0),
    }
}
