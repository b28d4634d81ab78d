//! The check of a placement by somebody who trusts nothing but the chain.
//!
//! # Flow
//! [`Verifier::from_chain`] reads roster and group key; [`Verifier::follow`] takes the slots' records
//! in order and checks each: its parts belong together, 2t+1 members locked the manifest, the group
//! signed the certificate, it continues the chain of certificates from nothing, and every assignment
//! is a leaf under the signed root.

use async_recursion::async_recursion as boxed;
use veil_committee::frost::{GroupVerifyingKey, InvalidGroupSignature};
use veil_node_chain::{Chain, ChainError};
use veil_node_core::cluster::View;
use veil_protocol_spec::{
    ClusterId, Committee, PublicIdentity, Slot,
    agreement::LockError,
    scheduling::{
        Binding, BindingMismatch, CertificateBody, ClusterState, RecordError, SlotRecord,
        StateError, verify_inclusion,
    },
    snapshot::{SnapshotError, StateSnapshot},
};

/// Why a record is not what the cluster decided.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The chain publishes no key, or none that can be one.
    #[error("the chain publishes {0}")]
    Published(&'static str),
    /// Another cluster, key set or epoch.
    #[error(transparent)]
    Binding(#[from] BindingMismatch),
    /// Its parts do not belong together.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The group's signature.
    #[error(transparent)]
    Signature(#[from] InvalidGroupSignature),
    /// The chain of certificates.
    #[error(transparent)]
    State(#[from] StateError),
    /// A state that is not the one after its record.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A newer certificate is anchored.
    #[error("slot {found} is older than slot {anchored}, which is anchored")]
    Stale {
        /// Of the record.
        found: Slot,
        /// Of the chain.
        anchored: Slot,
    },
    /// A leaf that is not under the root.
    #[error("assignment {0} is not under the signed root")]
    Inclusion(usize),
    /// The chain has something else.
    #[error("the chain anchors another {0}")]
    Anchored(&'static str),
    /// The contract does not find an assignment.
    #[error("the contract does not find assignment {0} under the anchored root")]
    NotOnChain(usize),
}

/// What the chain says, and what the records followed so far come to.
#[derive(Debug)]
pub struct Verifier {
    binding: Binding,
    committee: Committee,
    roster: Vec<PublicIdentity>,
    group: GroupVerifyingKey,
    anchored: Slot,
    state: ClusterState,
    bodies: Vec<CertificateBody>,
}

impl Verifier {
    /// Reads what is needed, at the last block.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn from_chain(
        chain: &Chain,
        cluster: ClusterId,
    ) -> Result<Result<Self, VerifyError>, ChainError> {
        let (block, _) = chain.block().await?;
        let view = View::read(chain, cluster, block).await?;
        let Some(key) = view.key else { return Ok(Err(VerifyError::Published("no key"))) };
        if view.roster.len() != view.committee.n() {
            return Ok(Err(VerifyError::Published("an incomplete committee")));
        }
        let Ok(group) = GroupVerifyingKey::new(&key.group_key) else {
            return Ok(Err(VerifyError::Published("a group key that is no point of the curve")));
        };
        let scope = chain.scope(cluster);
        let anchored = view.head.map_or(Slot(0), |head| head.slot);
        Ok(Ok(Self {
            anchored,
            binding: Binding { scope, key_set: key.key_set, epoch: key.epoch },
            committee: view.committee,
            roster: view.roster,
            group,
            state: ClusterState::default(),
            bodies: Vec::new(),
        }))
    }

    /// The state after a record, without those before it: the certificate commits to it. The chain tells what it is at
    /// least as new as.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn newest(&self, snapshot: StateSnapshot) -> Result<ClusterState, VerifyError> {
        let record = &snapshot.record;
        self.check(record)?;
        let found = record.certificate.body.slot;
        if found < self.anchored {
            return Err(VerifyError::Stale { found, anchored: self.anchored });
        }
        Ok(snapshot.certified()?)
    }

    /// Whether the committee of the chain signed a record.
    fn check(&self, record: &SlotRecord) -> Result<(), VerifyError> {
        record.manifest.binding.check(&self.binding)?;
        record.verify_structure(self.committee)?;
        record.lock.verify(self.committee, &self.roster)?;
        Ok(self.group.verify(&record.certificate)?)
    }

    /// Checks the next record.
    ///
    /// # Errors
    /// [`VerifyError`]; what was followed before stays.
    pub fn follow(&mut self, record: &SlotRecord) -> Result<(), VerifyError> {
        self.check(record)?;
        let tree = record.assignments.tree();
        for (i, assignment) in record.assignments.as_slice().iter().enumerate() {
            let included = tree.proof(i).is_some_and(|proof| {
                let root = &record.certificate.body.assignments_root;
                verify_inclusion(root, &assignment.leaf(), &proof)
            });
            if !included {
                return Err(VerifyError::Inclusion(i));
            }
        }
        self.state = self.state.follow(record)?;
        self.bodies.push(record.certificate.body);
        Ok(())
    }

    /// What runs where after the records followed.
    #[must_use]
    pub const fn state(&self) -> &ClusterState {
        &self.state
    }

    /// The certificates followed, oldest first.
    #[must_use]
    pub fn bodies(&self) -> &[CertificateBody] {
        &self.bodies
    }
}
