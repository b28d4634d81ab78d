//! What a sealed part is bound to. Each binding answers an attack; `protocol-spec/sealed.md` lists them.

use veil_protocol_spec::{
    Address, ParticipantIndex,
    domain::{DEALT_SHARE, RELEASED_SHARE, SEALED_CONTEXT, hash_parts},
    scheduling::{Binding, JobSpec, SealedPart},
    sealing::ShareRequest,
};

/// Cluster, key set, epoch, the members' keys, the tag of the contents, the submitter, name and nonce, the public body, and the commitments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context([u8; 32]);

impl Context {
    /// Of a job that `submitter` submitted, as the chain says and not the body: "else another operator submits the
    /// victim's sealed part as its own and reads it".
    #[must_use]
    pub fn of(job: &JobSpec, part: &SealedPart, submitter: &Address) -> Self {
        let mut commitments = Vec::with_capacity(part.commitments.len() * 33);
        part.commitments.iter().for_each(|one| commitments.extend_from_slice(one.as_bytes()));
        Self(hash_parts(
            SEALED_CONTEXT,
            &[
                &binding(job, part).to_bytes(),
                part.roster.as_bytes(),
                part.tag.as_bytes(),
                submitter.as_bytes(),
                job.name.as_str().as_bytes(),
                &job.nonce.to_le_bytes(),
                job.public_digest().as_bytes(),
                &commitments,
            ],
        ))
    }

    /// The associated data of the ciphertext, and of every share.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The HPKE info string of the share that is dealt to a member, of a part with this ciphertext.
    #[must_use]
    pub fn dealt(&self, ciphertext: &[u8], member: ParticipantIndex) -> [u8; 32] {
        hash_parts(DEALT_SHARE, &[&self.0, ciphertext, &[member.get()]])
    }

    /// The HPKE info string of the share that a member gives to who asked.
    #[must_use]
    pub fn released(&self, request: &ShareRequest, member: ParticipantIndex) -> [u8; 32] {
        hash_parts(RELEASED_SHARE, &[&self.0, request.digest().as_bytes(), &[member.get()]])
    }
}

/// The cluster of a job, under the key set and in the epoch that it is sealed for.
#[must_use]
pub fn binding(job: &JobSpec, part: &SealedPart) -> Binding {
    Binding { scope: job.scope, key_set: part.key_set, epoch: part.epoch }
}
