//! The winner: steps 5, 7 and 8 of `sealed.md`.

use chacha20poly1305::aead::{Aead, Payload};
use veil_protocol_spec::{
    Address, Committee, ParticipantIndex, ReplicaIndex, Wire,
    codec::{Bytes, CodecError},
    identity::SecretIdentity,
    scheduling::{ContentsError, JobSpec, SealedContents, SealedPart, SealedPartError},
    sealing::{ShareRefusal, ShareRequest, SignedShareRequest},
};
use zeroize::Zeroizing;

use crate::{
    channel::ChannelKey,
    context::{self, Context},
    seal::{NONCE, cipher, unpad},
    sharing::{Secret, Share},
};

/// Why a sealed part is not opened. Nothing secret is in the messages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Nothing is sealed.
    #[error("nothing is sealed in this job")]
    NothingSealed,
    /// The sealed part cannot be one.
    #[error(transparent)]
    Part(#[from] SealedPartError),
    /// Not enough members have given their shares yet.
    #[error("{given} of {needed} shares of the sealed part are here")]
    TooFew {
        /// Shares that are right.
        given: usize,
        /// t+1.
        needed: usize,
    },
    /// The shares are right and their secret opens nothing: so the operator dealt.
    #[error(
        "the sealed part was dealt wrongly: its ciphertext does not open with the key that its shares commit to; the \
         operator seals it again with `veil job submit`"
    )]
    DealtWrongly,
    /// It opens, and is no contents.
    #[error("the sealed part opens, and what is in it is malformed: {0}")]
    Malformed(CodecError),
    /// It opens, and no container can have what is in it.
    #[error("the sealed part opens, and no container can have what is in it: {0}")]
    Contents(#[from] ContentsError),
}

/// A member gave what is not its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("member {0} gave a share of the sealed part that is not its own: another's is taken")]
pub struct WrongShare(pub ParticipantIndex);

/// One worker's question about one replica, and the shares that it has got.
///
/// # Security
/// The key that is answered to is made for this question, and is gone with it.
#[derive(Debug)]
pub struct Opening<'a> {
    job: &'a JobSpec,
    part: &'a SealedPart,
    committee: Committee,
    context: Context,
    channel: ChannelKey,
    request: SignedShareRequest,
    shares: Vec<(ParticipantIndex, Share)>,
}

impl<'a> Opening<'a> {
    /// Step 5: asks for the shares of `job`, which `submitter` submitted as the chain says. `randomness` is used for
    /// nothing else.
    ///
    /// # Errors
    /// [`OpenError::NothingSealed`], [`OpenError::Part`].
    pub fn new(
        job: &'a JobSpec,
        submitter: &Address,
        replica: ReplicaIndex,
        identity: &SecretIdentity,
        randomness: &[u8; 32],
    ) -> Result<Self, OpenError> {
        let part = job.sealed_part().ok_or(OpenError::NothingSealed)?;
        part.validate()?;
        let channel = ChannelKey::derive(randomness);
        let request = ShareRequest {
            binding: context::binding(job, part),
            job: job.digest(),
            replica,
            key: Bytes(channel.public().to_vec()),
        };
        Ok(Self {
            job,
            part,
            committee: part.committee()?,
            context: Context::of(job, part, submitter),
            channel,
            request: request.sign(identity),
            shares: Vec::new(),
        })
    }

    /// What every member is asked.
    #[must_use]
    pub const fn request(&self) -> &SignedShareRequest {
        &self.request
    }

    /// Takes what a member has released; `true` as soon as there are enough.
    ///
    /// # Errors
    /// [`WrongShare`] if it is not the share of that member: the member deviates, and the others are enough.
    pub fn take(&mut self, member: ParticipantIndex, released: &[u8]) -> Result<bool, WrongShare> {
        let info = self.context.released(&self.request.request, member);
        let share = self.channel.open(released, &info, self.context.as_bytes());
        let share = share.ok().and_then(|bytes| Share::from_bytes(&bytes).ok());
        let right = |share: &Share| {
            self.committee.contains(member) && share.verify(member, &self.part.commitments).is_ok()
        };
        let share = share.filter(right).ok_or(WrongShare(member))?;
        if self.shares.iter().all(|(other, _)| *other != member) {
            self.shares.push((member, share));
        }
        Ok(self.shares.len() >= self.needed())
    }

    fn needed(&self) -> usize {
        self.committee.reconstruction_threshold().get()
    }

    /// Steps 7 and 8: opens the part, and checks what is in it against the job.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self) -> Result<SealedContents, OpenError> {
        let few = OpenError::TooFew { given: self.shares.len(), needed: self.needed() };
        let secret = Secret::recover(self.committee, &self.shares).ok_or(few)?;
        let payload = Payload { msg: &self.part.ciphertext.0, aad: self.context.as_bytes() };
        let padded = cipher(&secret).decrypt(&NONCE.into(), payload);
        let padded = padded.map(Zeroizing::new).map_err(|_| OpenError::DealtWrongly)?;
        let encoded = unpad(&padded).ok_or(OpenError::DealtWrongly)?;
        let contents = SealedContents::from_wire(encoded).map_err(OpenError::Malformed)?;
        contents.validate(self.job)?;
        Ok(contents)
    }
}

/// Why members have kept their shares, as far as that may mean that the part never opens. Of each member one answer counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Refusals {
    elsewhere: usize,
    dealt_wrongly: usize,
}

impl Refusals {
    /// A member's answer.
    pub const fn count(&mut self, refusal: ShareRefusal) {
        match refusal {
            ShareRefusal::SealedElsewhere | ShareRefusal::OtherEpoch => self.elsewhere += 1,
            // To whom nothing was dealt, the body says: an honest operator seals without t of them.
            ShareRefusal::DealtWrongly => self.dealt_wrongly += 1,
            _ => {}
        }
    }

    /// [`ShareRefusal::SealedElsewhere`] or [`ShareRefusal::DealtWrongly`], if t+1 members say so: one of them is honest.
    /// As long as fewer do it may open, if others answer.
    #[must_use]
    pub const fn agreed(&self, committee: Committee) -> Option<ShareRefusal> {
        let needed = committee.reconstruction_threshold().get();
        if self.elsewhere >= needed {
            Some(ShareRefusal::SealedElsewhere)
        } else if self.dealt_wrongly >= needed {
            Some(ShareRefusal::DealtWrongly)
        } else {
            None
        }
    }
}
