//! The contracts' custom errors as sentences with the next step.

use core::fmt;

use alloy::{
    primitives::{Address, B256},
    sol_types::SolInterface,
};
use veil_contracts::{
    assignment_anchor::AssignmentAnchor::AssignmentAnchorErrors as Anchor,
    directory::Directory::DirectoryErrors, job_board::JobBoard::JobBoardErrors as Jobs,
    key_ceremony::KeyCeremony::KeyCeremonyErrors as Ceremony,
    node_registry::NodeRegistry::NodeRegistryErrors as Registry,
};

/// Why a contract refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The node registry.
    Registry(Registry),
    /// The commit point of ceremonies.
    Ceremony(Ceremony),
    /// The anchor.
    Anchor(Anchor),
    /// The job board.
    Jobs(Jobs),
    /// The directory.
    Directory(DirectoryErrors),
    /// None of this build's errors: the first four bytes, if there were as many.
    Unknown([u8; 4]),
}

impl Refusal {
    /// Reads what a call reverted with. Contracts that call one another pass errors on, so all
    /// are tried. `NotClusterAdmin` is in two of them and means the same; it comes back as the first.
    pub(super) fn decode(data: &[u8]) -> Self {
        if let Ok(error) = Registry::abi_decode_validate(data) {
            return Self::Registry(error);
        }
        if let Ok(error) = Ceremony::abi_decode_validate(data) {
            return Self::Ceremony(error);
        }
        if let Ok(error) = Anchor::abi_decode_validate(data) {
            return Self::Anchor(error);
        }
        if let Ok(error) = Jobs::abi_decode_validate(data) {
            return Self::Jobs(error);
        }
        if let Ok(error) = DirectoryErrors::abi_decode_validate(data) {
            return Self::Directory(error);
        }
        Self::Unknown(data.first_chunk().copied().unwrap_or_default())
    }

    /// Whether the attempt was ended by a participant, by its deadline, or by its publication: what
    /// a member that tries to publish or abort late is told.
    #[must_use]
    pub const fn is_attempt_over(&self) -> bool {
        matches!(
            self,
            Self::Ceremony(
                Ceremony::AttemptAborted(_)
                    | Ceremony::AttemptExpired(_)
                    | Ceremony::AttemptPublished(_)
            )
        )
    }

    /// Whether the certificate, or a later one, is anchored already: what all but the first of
    /// several members that anchor are told.
    #[must_use]
    pub const fn is_already_anchored(&self) -> bool {
        matches!(self, Self::Anchor(Anchor::SlotNotLater(_)))
    }
}

impl core::error::Error for Refusal {}

/// Enough of a digest to recognise it.
fn short(word: &B256) -> String {
    format!("{:.10}...", word.to_string())
}

fn account(address: &Address) -> String {
    address.to_string()
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Registry(error) => registry(error),
            Self::Ceremony(error) => ceremony(error),
            Self::Anchor(error) => anchor(error),
            Self::Jobs(error) => jobs(error),
            Self::Directory(error) => directory(error),
            Self::Unknown(selector) => format!(
                "a contract refused for a reason this build does not know (0x{}): update it",
                alloy::hex::encode(selector)
            ),
        };
        f.write_str(&text)
    }
}

fn registry(error: &Registry) -> String {
    match error {
        Registry::ClusterAlreadyRegistered(e) => format!(
            "cluster {} is registered already: use it, or register one under another name",
            short(&e.cluster)
        ),
        Registry::UnknownCluster(e) => format!(
            "there is no cluster {}: check --cluster, or register it with `veil chain cluster`",
            short(&e.cluster)
        ),
        Registry::UnsupportedCommitteeSize(e) => format!(
            "a committee of {} is not supported: choose 4, 7, 10 or 13, or 1 for development",
            e.size
        ),
        Registry::InvalidSlotTime(_) => "a slot takes at least one millisecond".to_owned(),
        Registry::NotClusterAdmin(e) => not_admin(&e.cluster, &e.caller),
        Registry::PolicyTooLong(e) => {
            format!("a policy of {} bytes is too long: 8192 at most", e.length)
        }
        Registry::LabelsTooLong(e) => {
            format!("labels of {} bytes are too long: 1024 at most", e.length)
        }
        Registry::InvalidIdentityKey(_) => {
            "the identity's key is no point of secp256k1: make one with `veil identity new`"
                .to_owned()
        }
        Registry::WrongIdentitySignature(e) => format!(
            "the registration of peer {} is not signed by that identity for this account: sign it with the identity's own key file, by `veil chain register`",
            short(&e.peer)
        ),
        Registry::UnknownRoles(e) => {
            format!("{} is no set of roles: give --role worker, member or both", e.roles)
        }
        Registry::NodeAlreadyRegistered(e) => format!(
            "peer {} is registered in this cluster already: `veil chain status` shows it",
            short(&e.peer)
        ),
        Registry::NodeNotRegistered(e) => format!(
            "peer {} is not registered in this cluster: `veil chain register` does that",
            short(&e.peer)
        ),
        Registry::NodeNotApproved(e) => format!(
            "the cluster's admin has not admitted peer {} under account {}: the admin runs `veil chain approve`",
            short(&e.peer),
            account(&e.operator)
        ),
        Registry::NotNodeOperator(e) => format!(
            "account {} neither registered peer {} nor is the cluster's admin",
            account(&e.caller),
            short(&e.peer)
        ),
        Registry::MissingContract(_) => missing_contract(),
    }
}

fn ceremony(error: &Ceremony) -> String {
    match error {
        Ceremony::NotClusterAdmin(e) => not_admin(&e.cluster, &e.caller),
        Ceremony::WrongEpoch(e) => {
            format!("the next key is that of epoch {}, not {}", e.expected, e.given)
        }
        Ceremony::WrongAttempt(e) => {
            format!("the next attempt is {}, not {}", e.expected, e.given)
        }
        Ceremony::AttemptStillOpen(e) => format!(
            "attempt {} may publish until {} (Unix time): wait, or end it with `veil ceremony abort`",
            e.attempt, e.deadline
        ),
        Ceremony::InvalidDeadline(e) => format!(
            "the deadline {} is past or too far away: give one up to {} (Unix time of the chain)",
            e.deadline, e.latest
        ),
        Ceremony::TooFewMembers(e) => format!(
            "{} of {} members are registered: register the others with `veil chain register --role member`",
            e.registered, e.needed
        ),
        Ceremony::InvalidParametersName(e) => {
            format!("the name of a parameter set has 1 to 64 bytes, not {}", e.length)
        }
        Ceremony::UnknownAttempt(e) => format!(
            "attempt {} for epoch {} was not proposed: the admin runs `veil ceremony propose`",
            e.attempt, e.epoch
        ),
        Ceremony::AttemptAborted(e) => {
            format!("attempt {} was aborted: propose the next one", e.attempt)
        }
        Ceremony::AttemptExpired(e) => format!(
            "attempt {} expired at {} (Unix time): propose the next one",
            e.attempt, e.deadline
        ),
        Ceremony::AttemptPublished(e) => {
            format!("attempt {} has published its key: nothing is left to do", e.attempt)
        }
        Ceremony::NotAParticipant(e) => format!(
            "account {} is neither the cluster's admin nor the operator of a member of this attempt",
            account(&e.caller)
        ),
        Ceremony::UnknownSeat(e) => format!("the committee has no seat {}", e.seat),
        Ceremony::WrongMemberSignature(e) => {
            format!("the signature of participant {} does not verify: ask it again", e.seat)
        }
        Ceremony::WrongNumberOfSignatures(e) => format!(
            "{} of {} members have signed: wait for the others, `veil ceremony status` names them",
            e.given, e.expected
        ),
        Ceremony::InvalidGroupKey(_) => {
            "the group key cannot be verified against: propose another attempt".to_owned()
        }
        Ceremony::WrongProofOfPossession(_) => {
            "the new group's signature does not verify: sign the publication again".to_owned()
        }
        Ceremony::WrongHandoverSignature(_) => {
            "the previous group's signature does not verify: have it sign the handover".to_owned()
        }
        Ceremony::UnknownReferenceStringOrigin(e) => {
            format!("{} is no origin of a reference string", e.origin)
        }
        Ceremony::NoKey(e) => format!(
            "there is no key for epoch {} yet: run a ceremony, beginning with `veil ceremony propose`",
            e.epoch
        ),
        Ceremony::MissingContract(_) => missing_contract(),
    }
}

fn anchor(error: &Anchor) -> String {
    match error {
        Anchor::EpochNotInForce(e) => {
            format!("the certificate is of epoch {}; epoch {} is in force", e.given, e.current)
        }
        Anchor::WrongKeySet(e) => format!(
            "the certificate is under key set {}; {} is in force",
            short(&e.given),
            short(&e.current)
        ),
        Anchor::WrongReferenceStringOrigin(e) => format!(
            "the certificate states origin {} of the reference string; the key was published with {}",
            e.given, e.current
        ),
        Anchor::SlotNotLater(e) => {
            format!("slot {} is not after slot {}, which is anchored", e.given, e.last)
        }
        Anchor::WrongPrevious(e) => format!(
            "the certificate builds on {}, the last one anchored is {}: anchor those in between first",
            short(&e.given),
            short(&e.head)
        ),
        Anchor::WrongGroupSignature(_) => {
            "the certificate is not signed by the group of its epoch".to_owned()
        }
        Anchor::NotAnchored(e) => format!(
            "certificate {} is not below the head {}: anchor it, or show all later ones too",
            short(&e.hash),
            short(&e.head)
        ),
        Anchor::NotIncluded(e) => {
            format!("assignment {} is not under root {}", short(&e.assignmentHash), short(&e.root))
        }
        Anchor::NoSuchWorker(e) => {
            format!("peer {} is not a registered worker", short(&e.worker))
        }
        Anchor::UnprovenAssignment(e) => format!(
            "nobody has shown assignment {} to be anchored yet: prove it first",
            short(&e.assignmentHash)
        ),
        Anchor::NotWorkerOperator(e) => format!(
            "account {} is not the operator of the worker of assignment {}",
            account(&e.caller),
            short(&e.assignmentHash)
        ),
        Anchor::MissingContract(_) => missing_contract(),
    }
}

fn jobs(error: &Jobs) -> String {
    match error {
        Jobs::MissingRight(e) => format!(
            "account {} may not submit jobs to this cluster: its admin runs `veil chain grant`",
            account(&e.account)
        ),
        Jobs::WrongNonce(e) => {
            format!("the nonce of the next job is {}, not {}", e.expected, e.given)
        }
        Jobs::UnknownJob(e) => format!("there is no job {}", e.position),
        Jobs::NotSubmitter(e) => format!(
            "account {} did not submit job {}: only who did may cancel it",
            account(&e.caller),
            e.position
        ),
        Jobs::AlreadyCancelled(e) => format!("job {} is cancelled already", e.position),
        Jobs::EmptyDigest(_) => "a job has a digest".to_owned(),
        Jobs::MissingContract(_) => missing_contract(),
    }
}

fn directory(error: &DirectoryErrors) -> String {
    match error {
        DirectoryErrors::UnknownVersion(e) => {
            format!("the directory has no version {}", e.version)
        }
        DirectoryErrors::UnknownContract(_) => {
            "the directory's set has no such contract: deploy a set with `veil chain deploy`"
                .to_owned()
        }
        DirectoryErrors::DuplicateName(_) => "two contracts of one name in a set".to_owned(),
        DirectoryErrors::ForeignContract(e) => format!(
            "{} is no contract of this directory: deploy the set with `veil chain deploy`",
            account(&e.location)
        ),
        DirectoryErrors::EmptySet(_) => "a set names at least one contract".to_owned(),
        DirectoryErrors::OwnableUnauthorizedAccount(e) => {
            format!("account {} does not own the directory", account(&e.account))
        }
        DirectoryErrors::OwnableInvalidOwner(_) => "the directory needs an owner".to_owned(),
    }
}

fn not_admin(cluster: &B256, caller: &Address) -> String {
    format!(
        "account {} is not the admin of cluster {}: use the admin's key",
        account(caller),
        short(cluster)
    )
}

fn missing_contract() -> String {
    "a contract that this one needs is not deployed: deploy the set with `veil chain deploy`"
        .to_owned()
}
