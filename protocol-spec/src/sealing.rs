//! What members, operators and workers tell each other about sealed parts of jobs (`sealed.md`).

use serde::{Deserialize, Serialize};

use crate::{
    codec::{Bytes, Wire},
    committee::Committee,
    domain::{self, hash_parts},
    identity::{InvalidSignature, SecretIdentity},
    ids::{Blake3Digest, ParticipantIndex, PublicIdentity, ReplicaIndex, Signature},
    scheduling::{Binding, BindingMismatch, SealedRequest},
};

/// Bytes of an encapsulation key of X-Wing.
pub const SEALING_KEY: usize = 1216;

/// Step 1: the key that shares are encrypted to for one member in one epoch, and its word for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealingKeyAnnouncement {
    /// Cluster, key set and epoch that it is for.
    pub binding: Binding,
    /// Whose it is.
    pub member: ParticipantIndex,
    /// The encapsulation key: [`SEALING_KEY`] bytes.
    pub key: Bytes,
    /// Digest of the compact public key that telemetry and requests are encrypted with in the cluster.
    pub public_key: Blake3Digest,
    /// By the member's identity.
    pub signature: Signature,
}

impl Wire for SealingKeyAnnouncement {
    const NAME: &'static str = "SealingKeyAnnouncement";
    // Version 1 said nothing of the cluster's public key.
    const VERSION: u8 = 2;
    const MAX_BYTES: usize = 1536;
}

impl SealingKeyAnnouncement {
    /// A member's word for its key.
    #[must_use]
    pub fn new(
        binding: Binding,
        member: ParticipantIndex,
        key: Vec<u8>,
        public_key: Blake3Digest,
        identity: &SecretIdentity,
    ) -> Self {
        let digest = announcement_digest(&binding, member, &key, &public_key);
        let signature = identity.sign(&digest);
        Self { binding, member, key: Bytes(key), public_key, signature }
    }

    /// Checks it for an epoch; `identities` are those of participants 1, 2, ... as the chain names them.
    ///
    /// # Errors
    /// [`RosterError`].
    pub fn verify(
        &self,
        binding: Binding,
        committee: Committee,
        identities: &[PublicIdentity],
    ) -> Result<(), RosterError> {
        let Self { member, ref key, ref public_key, ref signature, .. } = *self;
        let seat = identities.get(member.position()).filter(|_| committee.contains(member));
        let identity = seat.ok_or(RosterError::NoMember(member))?;
        self.binding.check(&binding).map_err(|source| RosterError::Binding { member, source })?;
        if key.0.len() != SEALING_KEY {
            return Err(RosterError::Length { member, len: key.0.len() });
        }
        identity
            .verify(&announcement_digest(&binding, member, &key.0, public_key), signature)
            .map_err(|InvalidSignature| RosterError::Signature { member })
    }
}

/// What members state of a cluster's compact public key, as it is written.
#[must_use]
pub fn public_key_digest(key: &[u8]) -> Blake3Digest {
    Blake3Digest(hash_parts(domain::COMPACT_PUBLIC_KEY, &[key]))
}

fn announcement_digest(
    binding: &Binding,
    member: ParticipantIndex,
    key: &[u8],
    public_key: &Blake3Digest,
) -> [u8; 32] {
    let parts: [&[u8]; 4] = [&binding.to_bytes(), &[member.get()], key, public_key.as_bytes()];
    hash_parts(domain::SEALING_KEY_ANNOUNCEMENT, &parts)
}

/// Why announced keys cannot be sealed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum RosterError {
    /// A key is for another cluster, key set or epoch.
    #[error("the sealing key of member {member} is not for this epoch: {source}")]
    Binding { member: ParticipantIndex, source: BindingMismatch },
    /// The member did not sign it.
    #[error("the sealing key of member {member} is not signed by that member's identity")]
    Signature { member: ParticipantIndex },
    /// No member has that seat.
    #[error("there is no member {0} in this committee")]
    NoMember(ParticipantIndex),
    /// It cannot be a key.
    #[error("the sealing key of member {member} has {len} bytes in place of {SEALING_KEY}")]
    Length { member: ParticipantIndex, len: usize },
    /// One member announces two keys.
    #[error("member {0} announces two sealing keys")]
    Two(ParticipantIndex),
    /// Too few members can be sealed to.
    #[error(
        "{given} of {of} members have announced their sealing keys, and {needed} must: ask again when more of them \
         run"
    )]
    TooFew { given: usize, of: usize, needed: usize },
}

/// The keys that a job is sealed to: of 2t+1 members at least, each signed by its member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealingRoster {
    binding: Binding,
    committee: Committee,
    /// By member, ascending.
    keys: Vec<(ParticipantIndex, Vec<u8>)>,
    /// What more than t of them state of the cluster's public key.
    public_key: Option<Blake3Digest>,
}

impl SealingRoster {
    /// Checks what members have announced; `identities` are those of participants 1, 2, ... as the chain names them.
    ///
    /// # Errors
    /// [`RosterError`] for the first announcement that does not hold, or if there are too few.
    pub fn new(
        binding: Binding,
        committee: Committee,
        identities: &[PublicIdentity],
        announced: &[SealingKeyAnnouncement],
    ) -> Result<Self, RosterError> {
        let mut keys: Vec<(ParticipantIndex, Vec<u8>)> = Vec::new();
        for announcement in announced {
            announcement.verify(binding, committee, identities)?;
            let member = announcement.member;
            if keys.iter().any(|(other, _)| *other == member) {
                return Err(RosterError::Two(member));
            }
            keys.push((member, announcement.key.0.clone()));
        }
        let (given, of, needed) = (keys.len(), committee.n(), committee.signing_threshold().get());
        if given < needed {
            return Err(RosterError::TooFew { given, of, needed });
        }
        keys.sort_unstable();
        let stated =
            |key: &Blake3Digest| announced.iter().filter(|of| of.public_key == *key).count();
        let needed = committee.reconstruction_threshold().get();
        let mut public_keys = announced.iter().map(|announcement| announcement.public_key);
        let public_key = public_keys.find(|key| stated(key) >= needed);
        Ok(Self { binding, committee, keys, public_key })
    }

    /// Digest of the cluster's compact public key, as t+1 members state it: "one of them is honest". `None` if no t+1
    /// agree, which takes more than t of them to deviate.
    #[must_use]
    pub const fn public_key(&self) -> Option<Blake3Digest> {
        self.public_key
    }

    /// What it is for.
    #[must_use]
    pub const fn binding(&self) -> &Binding {
        &self.binding
    }

    /// Whose keys they are.
    #[must_use]
    pub const fn committee(&self) -> Committee {
        self.committee
    }

    /// Members and their encapsulation keys, ascending.
    pub fn keys(&self) -> impl Iterator<Item = (ParticipantIndex, &[u8])> {
        self.keys.iter().map(|(member, key)| (*member, key.as_slice()))
    }

    /// What a sealed part names.
    #[must_use]
    pub fn digest(&self) -> Blake3Digest {
        let binding = self.binding.to_bytes();
        let mut parts: Vec<&[u8]> = vec![&binding];
        let members: Vec<[u8; 1]> = self.keys.iter().map(|(member, _)| [member.get()]).collect();
        for (member, (_, key)) in members.iter().zip(&self.keys) {
            parts.extend([member.as_slice(), key]);
        }
        Blake3Digest(hash_parts(domain::SEALING_ROSTER, &parts))
    }
}

/// Step 5: a worker asks for the shares of a job of which it has a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareRequest {
    /// Cluster, key set and epoch.
    pub binding: Binding,
    /// [`JobSpec::digest`](crate::scheduling::JobSpec::digest).
    pub job: Blake3Digest,
    /// Which of its replicas is the worker's.
    pub replica: ReplicaIndex,
    /// An encapsulation key made for this question: what is answered can be opened by nobody later.
    pub key: Bytes,
}

impl ShareRequest {
    /// What the worker signs, and what the answers are bound to.
    #[must_use]
    pub fn digest(&self) -> Blake3Digest {
        let Self { binding, job, replica, key } = self;
        let parts: [&[u8]; 4] =
            [&binding.to_bytes(), job.as_bytes(), &replica.0.to_le_bytes(), &key.0];
        Blake3Digest(hash_parts(domain::SHARE_REQUEST, &parts))
    }

    /// Signs it.
    #[must_use]
    pub fn sign(self, identity: &SecretIdentity) -> SignedShareRequest {
        let signature = identity.sign(self.digest().as_bytes());
        SignedShareRequest { request: self, worker: identity.public(), signature }
    }
}

/// A worker's question, with its word for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedShareRequest {
    /// The question.
    pub request: ShareRequest,
    /// Who asks.
    pub worker: PublicIdentity,
    /// By that identity, over [`ShareRequest::digest`].
    pub signature: Signature,
}

impl Wire for SignedShareRequest {
    const NAME: &'static str = "SignedShareRequest";
    const MAX_BYTES: usize = 1536;
}

impl SignedShareRequest {
    /// # Errors
    /// [`InvalidSignature`] unless the worker signed the question.
    pub fn verify(&self) -> Result<(), InvalidSignature> {
        self.worker.verify(self.request.digest().as_bytes(), &self.signature)
    }
}

/// Why a member gives its share to nobody, or not to this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum ShareRefusal {
    /// It is no member that takes part, or not yet.
    #[error("it does not take part yet")]
    NotReady,
    /// The question is for another cluster, key set or epoch.
    #[error("the question is for another epoch than its own")]
    OtherEpoch,
    /// The question is not signed by who asks.
    #[error("the question is not signed by the worker that it names")]
    Signature,
    /// The newest certificate that it has assigns the replica to nobody, or to another worker.
    #[error("the newest certificate that it has does not assign this replica to this worker")]
    NotAssigned,
    /// The operator has withdrawn the job.
    #[error("the job is cancelled")]
    Cancelled,
    /// It does not have the job's body, or the chain does not list the job.
    #[error("it does not have the job yet")]
    UnknownJob,
    /// Nothing is sealed.
    #[error("nothing is sealed in this job")]
    NothingSealed,
    /// The part was sealed to another committee, or under another key set.
    #[error("the job is sealed to the committee of another epoch: submit it again")]
    SealedElsewhere,
    /// Nothing was dealt to it.
    #[error("no share was dealt to it")]
    NoShare,
    /// What was dealt to it does not open for this submission, or is not on the polynomial that was committed to.
    #[error("its share was dealt wrongly: it does not open for this submission")]
    DealtWrongly,
    /// What is to be answered to is no key.
    #[error("the question names no key that can be answered to")]
    Key,
}

impl ShareRefusal {
    /// In metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotReady => "not_ready",
            Self::OtherEpoch => "other_epoch",
            Self::Signature => "signature",
            Self::NotAssigned => "not_assigned",
            Self::Cancelled => "cancelled",
            Self::UnknownJob => "unknown_job",
            Self::NothingSealed => "nothing_sealed",
            Self::SealedElsewhere => "sealed_elsewhere",
            Self::NoShare => "no_share",
            Self::DealtWrongly => "dealt_wrongly",
            Self::Key => "key",
        }
    }
}

/// Step 6: what a member answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShareAnswer {
    /// Its share, encrypted to the key of the question.
    Released {
        /// Whose it is.
        member: ParticipantIndex,
        /// HPKE: encapsulated key and ciphertext.
        share: Bytes,
    },
    /// It keeps its share.
    Refused(ShareRefusal),
}

/// What requests are encrypted with in a cluster, as a node has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncryptionKeys {
    /// The compact public key, of which t+1 members [state](SealingRoster::public_key) the digest.
    pub public_key: Bytes,
    /// The reference string of its proofs, whose digest is on chain.
    pub reference_string: Bytes,
}

/// Evidence that an operator has encrypted another request than it has sealed: limits and seed that its job commits to. Who
/// has the job checks the commitment, encrypts again, and sees that the list is another. There is none against an operator
/// whose list agrees, so nobody can be asked for its limits in the name of evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrongRequest {
    /// The job, which the chain says who submitted.
    pub job: Blake3Digest,
    /// What a winner has found in its sealed part.
    pub opened: SealedRequest,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        codec::assert_wire,
        ids::Epoch,
        scheduling::arbitrary::{binding, secret},
    };

    fn index(member: u8) -> ParticipantIndex {
        ParticipantIndex::new(member).unwrap()
    }

    fn identities() -> Vec<PublicIdentity> {
        (1..=4).map(|i| secret(i).public()).collect()
    }

    const PUBLIC: Blake3Digest = Blake3Digest([0x70; 32]);

    fn announced(member: u8) -> SealingKeyAnnouncement {
        states(member, PUBLIC)
    }

    fn states(member: u8, public_key: Blake3Digest) -> SealingKeyAnnouncement {
        let key = vec![member; SEALING_KEY];
        SealingKeyAnnouncement::new(binding(), index(member), key, public_key, &secret(member))
    }

    fn roster(announced: &[SealingKeyAnnouncement]) -> Result<SealingRoster, RosterError> {
        SealingRoster::new(binding(), Committee::new(4).unwrap(), &identities(), announced)
    }

    #[test]
    fn a_roster_is_what_2t_plus_1_members_signed_for_this_epoch() {
        let all: Vec<_> = (1..=4).map(announced).collect();
        let whole = roster(&all).unwrap();
        let reversed: Vec<_> = all.iter().rev().cloned().collect();
        assert_eq!(roster(&reversed).unwrap().digest(), whole.digest(), "in any order");
        assert_eq!(whole.keys().count(), 4);
        let three = roster(&all[1..]).unwrap();
        assert_ne!(three.digest(), whole.digest());
        let few = RosterError::TooFew { given: 2, of: 4, needed: 3 };
        assert_eq!(roster(&all[2..]), Err(few));
        assert_wire(&all[0]);
    }

    #[test]
    fn the_clusters_public_key_is_what_t_plus_1_members_state() {
        let found = |stated: [u8; 4]| {
            let all: Vec<_> =
                (1..).zip(stated).map(|(i, key)| states(i, Blake3Digest([key; 32]))).collect();
            roster(&all).unwrap().public_key().map(|key| key.0[0])
        };
        assert_eq!(found([7, 7, 7, 7]), Some(7));
        assert_eq!(found([9, 7, 7, 7]), Some(7), "one of four lies");
        assert_eq!(found([9, 8, 7, 6]), None);
    }

    #[test]
    fn what_a_member_did_not_announce_for_this_epoch_is_refused_by_name() {
        let with = |wrong: SealingKeyAnnouncement| {
            let mut all: Vec<_> = (1..=4).map(announced).collect();
            all[0] = wrong;
            roster(&all)
        };
        let member = index(1);
        let forged = SealingKeyAnnouncement::new(
            binding(),
            member,
            vec![9; SEALING_KEY],
            PUBLIC,
            &secret(2),
        );
        assert_eq!(with(forged), Err(RosterError::Signature { member }));
        let mut changed = announced(1);
        changed.key.0[7] ^= 1;
        assert_eq!(with(changed), Err(RosterError::Signature { member }));
        let mut changed = announced(1);
        changed.public_key.0[7] ^= 1;
        assert_eq!(with(changed), Err(RosterError::Signature { member }));
        let mut later = binding();
        later.epoch = Epoch(later.epoch.0 + 1);
        let key = vec![1; SEALING_KEY];
        let later = SealingKeyAnnouncement::new(later, member, key, PUBLIC, &secret(1));
        assert!(matches!(with(later), Err(RosterError::Binding { .. })));
        let short = SealingKeyAnnouncement::new(binding(), member, vec![1; 32], PUBLIC, &secret(1));
        assert_eq!(with(short), Err(RosterError::Length { member, len: 32 }));
        assert_eq!(with(announced(2)), Err(RosterError::Two(index(2))));
        let outsider = SealingKeyAnnouncement { member: index(5), ..announced(1) };
        assert_eq!(with(outsider), Err(RosterError::NoMember(index(5))));
    }

    #[test]
    fn a_question_counts_for_its_job_replica_key_and_worker_only() {
        let request = ShareRequest {
            binding: binding(),
            job: Blake3Digest([1; 32]),
            replica: ReplicaIndex(2),
            key: Bytes(vec![3; SEALING_KEY]),
        };
        let signed = request.sign(&secret(1));
        assert_eq!(signed.verify(), Ok(()));
        assert_wire(&signed);
        type Change = fn(&mut SignedShareRequest);
        let changes: [Change; 5] = [
            |s| s.request.binding.epoch.0 += 1,
            |s| s.request.job.0[0] ^= 1,
            |s| s.request.replica.0 += 1,
            |s| s.request.key.0[0] ^= 1,
            |s| s.worker = secret(2).public(),
        ];
        for (i, change) in changes.into_iter().enumerate() {
            let mut changed = signed.clone();
            change(&mut changed);
            assert_eq!(changed.verify(), Err(InvalidSignature), "{i}");
        }
    }
}
