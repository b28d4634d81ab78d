//! A member: steps 1, 4 and 6 of `sealed.md`.

use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex, PeerIdHash,
    codec::Bytes,
    identity::SecretIdentity,
    scheduling::{Binding, ClusterState, JobSpec, Submission},
    sealing::{SealingKeyAnnouncement, ShareAnswer, ShareRefusal, SignedShareRequest},
};

use crate::{
    channel::{self, ChannelKey},
    context::{self, Context},
    sharing::Share,
};

/// A member's key of one epoch: what shares of sealed jobs are encrypted to, and nothing else.
///
/// # Security
/// Zeroized on drop, never printed. Its seed comes from the member's key share, which is erased with its epoch.
#[derive(Debug)]
pub struct SealingKey {
    binding: Binding,
    member: ParticipantIndex,
    channel: ChannelKey,
}

/// What a member knows of the job that a worker asks about.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// What the newest certificate that it has adds up to.
    pub state: &'a ClusterState,
    /// Submissions as the chain lists them: of this job at least.
    pub submissions: &'a [Submission],
    /// The body of the job that the certificate names.
    pub body: Option<&'a JobSpec>,
}

impl SealingKey {
    /// The key of a member in an epoch, from a seed that nothing else is derived from.
    #[must_use]
    pub fn derive(seed: &[u8; 32], binding: Binding, member: ParticipantIndex) -> Self {
        Self { binding, member, channel: ChannelKey::derive(seed) }
    }

    /// Step 1: the member's word for its key, and for the cluster's public key.
    #[must_use]
    pub fn announce(
        &self,
        public_key: Blake3Digest,
        identity: &SecretIdentity,
    ) -> SealingKeyAnnouncement {
        let key = self.channel.public().to_vec();
        SealingKeyAnnouncement::new(self.binding, self.member, key, public_key, identity)
    }

    /// Step 4: the share that was dealt to this member, if it is for this submission and on the polynomial that was
    /// committed to.
    ///
    /// # Errors
    /// [`ShareRefusal`] says what is wrong with the deal.
    pub fn deal(&self, job: &JobSpec, submission: &Submission) -> Result<Share, ShareRefusal> {
        let part = job.sealed_part().ok_or(ShareRefusal::NothingSealed)?;
        if context::binding(job, part) != self.binding {
            return Err(ShareRefusal::SealedElsewhere);
        }
        let dealt = part.share(self.member).ok_or(ShareRefusal::NoShare)?;
        let context = Context::of(job, part, &submission.operator);
        let info = context.dealt(&part.ciphertext.0, self.member);
        let share = self.channel.open(dealt, &info, context.as_bytes());
        let share = share.map_err(|_| ShareRefusal::DealtWrongly)?;
        let share = Share::from_bytes(&share).map_err(|_| ShareRefusal::DealtWrongly)?;
        share.verify(self.member, &part.commitments).map_err(|_| ShareRefusal::DealtWrongly)?;
        Ok(share)
    }

    /// Step 6: answers a worker's question. "A member releases its share only for an assignment in the newest
    /// certificate it holds, job not cancelled, to an ephemeral key that the worker's identity signed."
    /// `randomness` is used for nothing else.
    #[must_use]
    pub fn answer(
        &self,
        asked: &SignedShareRequest,
        known: Known<'_>,
        randomness: &[u8; 32],
    ) -> ShareAnswer {
        match self.release(asked, known, randomness) {
            Ok(share) => ShareAnswer::Released { member: self.member, share: Bytes(share) },
            Err(refusal) => ShareAnswer::Refused(refusal),
        }
    }

    fn release(
        &self,
        asked: &SignedShareRequest,
        known: Known<'_>,
        randomness: &[u8; 32],
    ) -> Result<Vec<u8>, ShareRefusal> {
        let request = &asked.request;
        request.binding.check(&self.binding).map_err(|_| ShareRefusal::OtherEpoch)?;
        asked.verify().map_err(|_| ShareRefusal::Signature)?;
        let placement = known.state.placement(request.job, request.replica);
        let winner = placement.map(|placement| placement.worker);
        if winner != Some(PeerIdHash::of(&asked.worker)) {
            return Err(ShareRefusal::NotAssigned);
        }
        let body = known.body.filter(|body| body.digest() == request.job);
        let body = body.ok_or(ShareRefusal::UnknownJob)?;
        // Whoever copies a digest submits nothing: the operator that the body names must have.
        let by_operator =
            |one: &&Submission| one.job == request.job && one.operator == body.operator;
        let mut submissions = known.submissions.iter().filter(by_operator).peekable();
        submissions.peek().ok_or(ShareRefusal::UnknownJob)?;
        let submission = submissions.find(|submission| !submission.cancelled);
        let submission = submission.ok_or(ShareRefusal::Cancelled)?;
        let share = self.deal(body, submission)?;
        let part = body.sealed_part().ok_or(ShareRefusal::NothingSealed)?;
        let context = Context::of(body, part, &submission.operator);
        let info = context.released(request, self.member);
        let bytes = share.to_bytes();
        channel::seal(&request.key.0, &*bytes, &info, context.as_bytes(), randomness)
            .map_err(|_| ShareRefusal::Key)
    }
}
