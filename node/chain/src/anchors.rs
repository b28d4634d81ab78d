//! Certificates on chain.

use alloy::{
    primitives::{B256, U256},
    providers::RootProvider,
    rpc::types::{Filter, Log},
    sol_types::SolEvent,
};
use async_recursion::async_recursion as boxed;
use veil_contracts::assignment_anchor::{
    AssignmentAnchor::{self, AssignmentAnchorInstance, CertificateAnchored},
    IAssignmentAnchor::{Assignment as AssignmentArguments, Certificate},
    IVeilContract::{CompressedPoint, FrostSignature},
};
use veil_protocol_spec::{
    ClusterId, Epoch, KeccakDigest, PeerIdHash, PublicIdentity, Slot,
    scheduling::{Assignment, AssignmentCertificate, CertificateBody, Outcome},
};

use crate::{
    address::evm,
    ceremonies::origin,
    certificate::certificate_arguments,
    connection::Chain,
    error::ChainError,
    point::FrostParts,
    types::{AnchoredCertificate, Head, Mined},
};

type Contract = AssignmentAnchorInstance<RootProvider>;

/// Names the request in errors.
const CERTIFICATES: &str = "the anchored certificates";

impl Chain {
    fn anchors(&self) -> Contract {
        AssignmentAnchor::new(evm(self.contracts.assignment_anchor), self.rpc.provider.clone())
    }

    /// Anchors a certificate. It must name [`Self::head`] as its base and be of a later slot.
    ///
    /// # Errors
    /// [`ChainError`]; [`Refusal::is_out_of_order`](crate::Refusal::is_out_of_order) if another account
    /// was faster.
    #[boxed]
    pub async fn anchor(&self, certificate: &AssignmentCertificate) -> Result<Mined, ChainError> {
        let arguments = self.arguments(&certificate.body)?;
        let FrostParts { rx, ry, z } = FrostParts::of(&certificate.signature)?;
        let binding = &certificate.body.binding;
        let (cluster, epoch) = (binding.scope.cluster, binding.epoch);
        // The contract refuses an epoch without a key, by name.
        let group_key = match self.key(cluster, epoch).await? {
            Some(key) => compressed_point(&key.group_key),
            None => CompressedPoint { x: U256::ZERO, prefix: 0 },
        };
        // It passes the call on, and pays it back.
        let request = AssignmentAnchor::new(evm(self.contracts.fee_pool), &self.rpc.provider)
            .anchor(arguments, group_key, FrostSignature { rx, ry, z })
            .into_transaction_request();
        self.transact("the anchoring of a certificate", request).await
    }

    /// The last certificate anchored, or none before the first.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn head(&self, cluster: ClusterId) -> Result<Option<Head>, ChainError> {
        let contract = self.anchors();
        let call = || async { contract.headOf(cluster.0.into()).call().block(self.rpc.at).await };
        let head = self.rpc.call("the last certificate", call).await?;
        Ok((head.count > 0).then_some(Head {
            hash: KeccakDigest(head.hash.0),
            slot: Slot(head.slot),
            epoch: Epoch(head.epoch),
            count: head.count,
        }))
    }

    /// The anchored certificate of a hash, from the events.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn anchored(
        &self,
        cluster: ClusterId,
        hash: KeccakDigest,
    ) -> Result<Option<AnchoredCertificate>, ChainError> {
        let filter = self.anchor_events(cluster).topic3(B256::from(hash.0));
        let found = self.rpc.last_log(CERTIFICATES, &filter, self.rpc.all_blocks().await?).await?;
        found.as_ref().map(anchored_certificate).transpose()
    }

    /// All anchored certificates of a cluster, oldest first.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn anchored_certificates(
        &self,
        cluster: ClusterId,
    ) -> Result<Vec<AnchoredCertificate>, ChainError> {
        let logs = self
            .rpc
            .logs(CERTIFICATES, &self.anchor_events(cluster), self.rpc.all_blocks().await?)
            .await?;
        logs.iter().map(anchored_certificate).collect()
    }

    /// Confirms that an assignment is deployed; only the operator of its worker may.
    ///
    /// `chain` is the certificate that has the assignment and all later ones up to the head, whether or
    /// not they were anchored;
    /// `proof` is [`MerkleTree::proof`](veil_protocol_spec::scheduling::MerkleTree::proof).
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn confirm_deployment(
        &self,
        chain: &[CertificateBody],
        assignment: &Assignment,
        proof: &[KeccakDigest],
    ) -> Result<Mined, ChainError> {
        let certificates = self.chain_arguments(chain)?;
        let proof = proof.iter().map(|node| node.0.into()).collect();
        let request = AssignmentAnchor::new(evm(self.contracts.fee_pool), &self.rpc.provider)
            .confirmDeployment(certificates, assignment_arguments(assignment), proof)
            .into_transaction_request();
        self.transact("the confirmation of a deployment", request).await
    }

    /// Asks the contract whether an assignment is in a certificate up to the head.
    ///
    /// # Errors
    /// [`ChainError`], also if `chain` does not lead up to the head.
    #[boxed]
    pub async fn verify_inclusion(
        &self,
        chain: &[CertificateBody],
        assignment: &Assignment,
        proof: &[KeccakDigest],
    ) -> Result<bool, ChainError> {
        let certificates = self.chain_arguments(chain)?;
        let proof: Vec<_> = proof.iter().map(|node| node.0.into()).collect();
        let contract = self.anchors();
        let leaf = assignment.leaf().0.into();
        let call = || async {
            let call = contract.verifyInclusion(certificates.clone(), leaf, proof.clone());
            call.call().block(self.rpc.at).await
        };
        self.rpc.call("an inclusion", call).await
    }

    fn chain_arguments(&self, chain: &[CertificateBody]) -> Result<Vec<Certificate>, ChainError> {
        chain.iter().map(|body| self.arguments(body)).collect()
    }

    fn arguments(&self, body: &CertificateBody) -> Result<Certificate, ChainError> {
        self.check_scope(&body.binding.scope)?;
        Ok(certificate_arguments!(Certificate, body))
    }

    fn anchor_events(&self, cluster: ClusterId) -> Filter {
        Filter::new()
            .address(evm(self.contracts.assignment_anchor))
            .event_signature(CertificateAnchored::SIGNATURE_HASH)
            .topic1(B256::from(cluster.0))
    }
}

fn anchored_certificate(log: &Log) -> Result<AnchoredCertificate, ChainError> {
    let event = log
        .log_decode_validate::<CertificateAnchored>()
        .map_err(|_| ChainError::Unexpected("an event of another form"))?;
    let data = event.inner.data;
    Ok(AnchoredCertificate {
        slot: Slot(data.slot),
        hash: KeccakDigest(data.hash.0),
        assignments_root: KeccakDigest(data.assignmentsRoot.0),
        state_root: KeccakDigest(data.stateRoot.0),
        reference_string: origin(data.referenceStringOrigin)?,
        block: log.block_number.unwrap_or_default(),
    })
}

fn compressed_point(key: &PublicIdentity) -> CompressedPoint {
    let (prefix, x) = key.0.split_at(1);
    CompressedPoint {
        x: U256::from_be_slice(x),
        prefix: prefix.first().copied().unwrap_or_default(),
    }
}

fn assignment_arguments(assignment: &Assignment) -> AssignmentArguments {
    let (outcome, worker) = match assignment.outcome {
        Outcome::Pending => (0, PeerIdHash([0; 32])),
        Outcome::Node(worker) => (1, worker),
    };
    AssignmentArguments {
        job: assignment.job.0.into(),
        replica: assignment.replica.0,
        outcome,
        worker: worker.0.into(),
    }
}
