//! What callers read from and write to the chain, in the types of the protocol.

use serde::{Deserialize, Serialize};
use veil_protocol_spec::{
    Address, Attempt, Blake3Digest, ClusterId, Committee, Epoch, KeccakDigest, KeySetDigest,
    ParticipantIndex, PeerIdHash, PublicIdentity, Signature, Slot,
    registry::{Delegation, Eligibility, Roles},
    scheduling::{GroupSignature, Label, Organisation, ReferenceStringOrigin},
};

/// An account's rights in a cluster, as the contracts' bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rights(pub u32);

impl Rights {
    /// No right.
    pub const NONE: Self = Self(0);
    /// Submit jobs.
    pub const SUBMIT: Self = Self(1);
    /// Allow and revoke images.
    pub const IMAGES: Self = Self(2);

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are among these.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// An account's rights in a cluster, and its quotas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Allowance {
    /// The rights.
    pub rights: Rights,
    /// Jobs on one day (UTC).
    pub jobs_per_day: u32,
    /// Bits that the placement of these jobs may reveal about others' load, on one day.
    pub leak_bits_per_day: u32,
}

impl Allowance {
    /// No right, no quota.
    pub const NONE: Self = Self { rights: Rights::NONE, jobs_per_day: 0, leak_bits_per_day: 0 };

    /// The right to submit jobs, with the largest quotas.
    #[must_use]
    pub const fn submit_freely() -> Self {
        Self { rights: Rights::SUBMIT, jobs_per_day: u32::MAX, leak_bits_per_day: u32::MAX }
    }
}

/// What an operator has used of its quotas on this day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct JobUsage {
    /// Jobs submitted.
    pub jobs: u32,
    /// Bits stated.
    pub leak_bits: u32,
}

/// The settings with which a cluster is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Distinguishes the clusters of one admin.
    pub salt: [u8; 32],
    /// Size of the committee.
    pub committee: Committee,
    /// Spares behind the committee.
    pub standbys: u8,
    /// Most seats and standby seats of one organisation; 0 for no limit.
    pub seats_per_organisation: u8,
    /// Whether workers may register without the admin's approval. Members never may.
    pub open_to_workers: bool,
    /// Whether committees are elected by stake; if not, they are the first members in the registry's list.
    pub elected: bool,
    /// Longest time between slots while work is pending.
    pub slot_millis: u64,
    /// Least active stake of a member to be elected, in wei.
    pub member_stake: u128,
    /// Seconds from the announcement of wider rights, or of another policy, until it is active.
    pub widening_delay: u32,
    /// Scheduling policy, opaque to the chain; empty for none.
    pub policy: Vec<u8>,
}

impl ClusterSettings {
    /// An appointed committee without spares; workers join without approval; changes are active at once; a
    /// slot every 10 s.
    #[must_use]
    pub const fn new(committee: Committee) -> Self {
        Self {
            salt: [0; 32],
            committee,
            standbys: 0,
            seats_per_organisation: 0,
            open_to_workers: true,
            elected: false,
            slot_millis: 10_000,
            member_stake: 0,
            widening_delay: 0,
            policy: Vec::new(),
        }
    }
}

/// A registered cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The account that may change it.
    pub admin: Address,
    /// Size of the committee.
    pub committee: Committee,
    /// Spares behind the committee.
    pub standbys: u8,
    /// Most seats of one organisation; 0 for no limit.
    pub seats_per_organisation: u8,
    /// Whether workers may register without the admin's approval.
    pub open_to_workers: bool,
    /// Whether committees are elected.
    pub elected: bool,
    /// Longest time between slots while work is pending.
    pub slot_millis: u64,
    /// Least active stake of a member to be elected, in wei.
    pub member_stake: u128,
    /// Seconds from the announcement of wider rights, or of another policy, until it is active.
    pub widening_delay: u32,
}

/// What a node is registered with, beside its identity and its operator's account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRegistration {
    /// The cluster to join.
    pub cluster: ClusterId,
    /// The roles that it asks for.
    pub roles: Roles,
    /// The organisation that runs it, as the admin approved it; `None` for nobody in particular.
    pub organisation: Option<Organisation>,
    /// Public labels.
    pub labels: Vec<Label>,
    /// Stake that is sent along, in wei.
    pub stake: u128,
}

/// What a cluster's admin admits a peer as; a registration uses it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeApproval {
    /// The account that may register it.
    pub operator: Address,
    /// All of its roles.
    pub roles: Roles,
    /// The organisation that runs it; `None` for nobody in particular.
    pub organisation: Option<Organisation>,
    /// Last second (Unix time) in which it can be used.
    pub valid_until: u64,
}

/// A key that may act for an operator, or could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelegatedKey {
    /// Its account.
    pub key: Address,
    /// What the delegation is worth.
    pub delegation: Delegation,
}

/// A node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredNode {
    /// Hash of its peer id.
    pub peer: PeerIdHash,
    /// Its key.
    pub identity: PublicIdentity,
    /// The roles that it is registered for.
    pub roles: Roles,
    /// The account that registered it.
    pub operator: Address,
    /// The organisation that runs it, as the admin approved it; `None` if nobody vouches for it.
    pub organisation: Option<Organisation>,
    /// Public labels.
    pub labels: Vec<Label>,
    /// Place in the registry's list, members and other workers apart; it changes when others leave.
    pub position: u32,
    /// All of its stake, in wei.
    pub stake: u128,
    /// What it is given, if it is a worker.
    pub eligibility: Eligibility,
    /// Its seat in an appointed committee: the first n members in the registry's list. `None` where
    /// committees are elected ([`crate::ElectedCommittee`]). The seats of an attempt are
    /// [`CeremonyAttempt::roster`].
    pub seat: Option<ParticipantIndex>,
    /// When it stops what is left, in Unix seconds, if it is drained and has a deadline.
    pub drain_deadline: Option<u64>,
}

/// The proposal of a ceremony's attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The cluster.
    pub cluster: ClusterId,
    /// The epoch that gets a key: 0 for the first, then one more each time.
    pub epoch: Epoch,
    /// 0 for the epoch's first attempt, then one more each time.
    pub attempt: Attempt,
    /// Name of the FHE parameter set.
    pub parameters: String,
    /// Digest of the parameter set.
    pub parameters_digest: Blake3Digest,
    /// The context in the ceremony's parameters.
    pub context: [u8; 32],
    /// Last second (Unix time) for publication.
    pub deadline: u64,
}

/// Where an attempt stands. The last three are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptStatus {
    /// It may still be published.
    Proposed,
    /// A participant ended it.
    Aborted,
    /// Its deadline has passed.
    Expired,
    /// It made the epoch's key.
    Published,
}

/// A proposed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CeremonyAttempt {
    /// Where it stands.
    pub status: AttemptStatus,
    /// Last second (Unix time) for publication.
    pub deadline: u64,
    /// Name of the FHE parameter set.
    pub parameters: String,
    /// Digest of the parameter set.
    pub parameters_digest: Blake3Digest,
    /// The context in the ceremony's parameters.
    pub context: [u8; 32],
    /// Participant j at position j-1.
    pub roster: Vec<PeerIdHash>,
}

/// The reference string (CRS) of telemetry proofs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReferenceString {
    /// Digest of its bytes.
    pub digest: Blake3Digest,
    /// Who made it.
    pub origin: ReferenceStringOrigin,
}

/// The signatures that make a key valid on chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endorsements {
    /// Signature of participant j at position j-1, over
    /// [`KeyPublication::member_digest`](crate::KeyPublication::member_digest).
    pub members: Vec<Signature>,
    /// Signature by the new group over
    /// [`KeyPublication::possession_digest`](crate::KeyPublication::possession_digest).
    pub possession: GroupSignature,
}

/// The key of an epoch, active now or before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedKey {
    /// Its epoch.
    pub epoch: Epoch,
    /// The attempt that made it.
    pub attempt: Attempt,
    /// The FROST group key, compressed.
    pub group_key: PublicIdentity,
    /// Root over the verifying shares.
    pub verifying_shares_root: KeccakDigest,
    /// The FHE key set.
    pub key_set: KeySetDigest,
    /// Root of the ceremony's transcript.
    pub transcript_root: Blake3Digest,
    /// The CRS of telemetry proofs.
    pub reference_string: ReferenceString,
    /// Unix time of its publication, in seconds.
    pub published_at: u64,
}

/// A job in the order of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubmittedJob {
    /// Place in that order.
    pub position: u64,
    /// Digest of its specification.
    pub digest: Blake3Digest,
    /// The account that submitted it.
    pub operator: Address,
    /// Whether its submitter cancelled it.
    pub cancelled: bool,
    /// Bits that its placement may reveal about others' load, as its submitter states.
    pub leak_bits: u32,
}

/// The last anchored certificate of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// [`CertificateBody::hash`](veil_protocol_spec::scheduling::CertificateBody::hash).
    pub hash: KeccakDigest,
    /// Its slot.
    pub slot: Slot,
    /// Its epoch.
    pub epoch: Epoch,
    /// How many certificates were anchored.
    pub count: u64,
}

/// An anchored certificate as its event states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnchoredCertificate {
    /// Its slot.
    pub slot: Slot,
    /// Its hash.
    pub hash: KeccakDigest,
    /// Root of its assignments.
    pub assignments_root: KeccakDigest,
    /// Root of the state after it.
    pub state_root: KeccakDigest,
    /// The origin of the CRS of its telemetry proofs.
    pub reference_string: ReferenceStringOrigin,
    /// Number of its block.
    pub block: u64,
}

/// A transaction that is in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mined {
    /// Hash of the transaction.
    pub transaction: KeccakDigest,
    /// Number of its block.
    pub block: u64,
    /// The gas that it used.
    pub gas: u64,
}
