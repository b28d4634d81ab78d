//! Everything of one slot that a node needs to catch up on it: what the slot changed, and a certificate
//! that commits to the state after it. What goes on as before is not repeated.
//!
//! # Caveats
//! [`SlotRecord::verify_structure`] says that the parts belong together. That the lock's votes and
//! the certificate's group signature verify is checked where roster and group key are known; nobody
//! may act on a record before.

use serde::{Deserialize, Serialize};

use super::{
    assignment::Assignments,
    certificate::{AssignmentCertificate, CertificateBody},
    manifest::{Manifest, ManifestError},
};
use crate::{
    agreement::{Instance, Lock},
    codec::Wire,
    committee::Committee,
};

/// One slot, decided and certified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotRecord {
    /// The slot's inputs.
    pub manifest: Manifest,
    /// 2t+1 members' votes for it.
    pub lock: Lock,
    /// The outcome of each pending replica; none if the slot ended void.
    pub assignments: Assignments,
    /// The committee's signature on the outcome.
    pub certificate: AssignmentCertificate,
}

impl Wire for SlotRecord {
    const NAME: &'static str = "SlotRecord";
    // Version 1 had a lock that named a slot in place of an instance; versions 2 and 3 listed everything
    // that runs, version 2 suspicions without a time; version 4 knew nothing of replicas that are done, version
    // 5 nothing of versions of jobs, version 6 nothing of periodic jobs, version 7 nothing of samples and of sealed
    // parts that do not open.
    const VERSION: u8 = 8;
    const MAX_BYTES: usize = Manifest::MAX_BYTES
        + Lock::MAX_BYTES
        + Assignments::MAX_BYTES
        + AssignmentCertificate::MAX_BYTES;
}

/// Why the parts of a record do not belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The manifest is invalid.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The lock is for another manifest.
    #[error("the lock is for another {0} than the manifest")]
    Lock(&'static str),
    /// The certificate is for another manifest.
    #[error("the certificate is for another {0} than the manifest")]
    Certificate(&'static str),
    /// The assignments do not hash to the certificate's root.
    #[error("the assignments do not hash to the certificate's root")]
    Root,
    /// The assignments are not one for each pending replica of the manifest.
    #[error("the assignments are not those of the manifest's pending replicas")]
    Assignments,
    /// A void slot assigns something.
    #[error("the certificate says that the slot ended void, but the record has assignments")]
    Void,
    /// The certificate commits to a section for members, of which this version knows nothing.
    #[error("the certificate commits to a members' section, which is reserved: it must be zero")]
    MembersOnly,
}

impl SlotRecord {
    /// Checks that the parts belong together, digest by digest.
    ///
    /// # Errors
    /// The first link that is missing, as [`RecordError`].
    pub fn verify_structure(&self, committee: Committee) -> Result<(), RecordError> {
        let Self { manifest, lock, assignments, certificate } = self;
        manifest.validate(committee)?;
        let digest = manifest.digest();
        let body = &certificate.body;
        let links = [
            (lock.binding == manifest.binding, RecordError::Lock("cluster, key set or epoch")),
            (lock.instance == Instance::manifest(manifest.slot), RecordError::Lock("slot")),
            (lock.value == digest, RecordError::Lock("manifest")),
            (
                body.binding == manifest.binding,
                RecordError::Certificate("cluster, key set or epoch"),
            ),
            (body.slot == manifest.slot, RecordError::Certificate("slot")),
            (body.manifest == digest, RecordError::Certificate("manifest")),
            (body.previous == manifest.previous, RecordError::Certificate("predecessor")),
            (body.base == manifest.base, RecordError::Certificate("anchored certificate")),
            (body.jobs_seen == manifest.jobs_seen, RecordError::Certificate("number of jobs")),
            (body.members_only == CertificateBody::NO_SECTION, RecordError::MembersOnly),
            (body.assignments_root == assignments.tree().root(), RecordError::Root),
            (!body.is_void() || assignments.as_slice().is_empty(), RecordError::Void),
            (body.is_void() || assignments.answers(manifest), RecordError::Assignments),
        ];
        links.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, error)| Err(error))
    }
}
