//! How a command ends: one set of exit codes, and one table that gives each cause its code and its
//! word, whichever command meets it.

use core::fmt;
use std::{io, path::Path, process::ExitCode};

use veil_node_api::client::ClientError;
use veil_node_ceremony::{
    CeremonyError, CommitPointError,
    offline::{archive::ArchiveError, simulate::SimulateError},
};
use veil_node_chain::{AccountKeyError, ChainError, UnsignedBatch};
use veil_node_chain_commands::CommandError;
use veil_node_config::{ConfigError, job_file::JobFileError};
use veil_node_core::lifecycle::StartError;
use veil_node_devnet::DevnetError;
use veil_node_member::{FenceError, MemberError, SlotsEnded, backup::ShareError};
use veil_node_operator::{error::OperatorError, obstacle::Obstacle, reach::ReachError};
use veil_node_p2p::NetworkError;
use veil_node_registry::{KeyError, RegistryError};
use veil_node_storage::{data_dir::DataDirError, durable::WriteNewError, keystore::KeystoreError};
use veil_node_worker::{ApprovalError, WorkerError};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// 0: done.
    Done,
    /// 1: the protocol, the chain or a verification failed.
    Failed,
    /// 2: arguments, a configuration or a job file are wrong.
    Usage,
    /// 3: files could not be read or written.
    Files,
    /// What a command that ran elsewhere ended with.
    Of(u8),
}

impl Exit {
    /// As `veil --help` lists them.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Files => 3,
            Self::Of(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command did not do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    /// The word for scripts: `kind` in the JSON output, listed in `docs/json.md`.
    pub(super) kind: &'static str,
    /// The cause, and what to do next.
    pub(super) message: String,
    /// It is no failure: this is what others sign.
    pub(super) unsigned: Option<Box<UnsignedBatch>>,
}

impl Failure {
    pub(super) fn new(exit: Exit, kind: &'static str, message: impl fmt::Display) -> Self {
        Self { exit, kind, message: message.to_string(), unsigned: None }
    }

    /// The arguments ask for something that cannot be.
    pub(super) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    /// The system refuses a file.
    pub(super) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::new(Exit::Files, "files", format!("{}: {error}", path.display()))
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Read { .. } => Self::new(Exit::Files, "files", error),
            error => Self::new(Exit::Usage, "config", error),
        }
    }
}

impl From<WriteNewError> for Failure {
    fn from(error: WriteNewError) -> Self {
        Self::new(Exit::Files, "files", error)
    }
}

impl From<KeystoreError> for Failure {
    fn from(error: KeystoreError) -> Self {
        Self::new(Exit::Files, "keystore", error)
    }
}

impl From<AccountKeyError> for Failure {
    fn from(error: AccountKeyError) -> Self {
        match error {
            AccountKeyError::Malformed(_) => Self::usage(error),
            error => Self::new(Exit::Files, "keystore", error),
        }
    }
}

impl From<DataDirError> for Failure {
    fn from(error: DataDirError) -> Self {
        Self::new(Exit::Files, "data_dir", error)
    }
}

impl From<ChainError> for Failure {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::Refused(_) => Self::new(Exit::Failed, "refused", error),
            ChainError::NoAccount | ChainError::NotGovernor { .. } => Self::usage(error),
            ChainError::Unsigned(batch) => {
                Self { unsigned: Some(batch), ..Self::new(Exit::Done, "unsigned", "") }
            }
            error => Self::new(Exit::Failed, "chain", error),
        }
    }
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Chain(error) => error.into(),
            CommandError::Key(error) => error.into(),
            CommandError::Node(error) => error.into(),
            CommandError::Write(error) => error.into(),
            CommandError::Deployment(_) => Self::new(Exit::Failed, "verification", error),
            CommandError::File { .. } | CommandError::Exists(_) => {
                Self::new(Exit::Files, "files", error)
            }
            CommandError::NobodySigns | CommandError::Data(_) => Self::usage(error),
            CommandError::NoChain { .. } => Self::new(Exit::Failed, "node", error),
            CommandError::NotYet { .. } => Self::new(Exit::Failed, "chain", error),
        }
    }
}

/// What a node's answer is, or that there is none.
fn of_node(error: &ClientError) -> (Exit, &'static str) {
    match error {
        ClientError::NoTrust(_) => (Exit::Usage, "usage"),
        ClientError::Trust(_) | ClientError::Token { .. } => (Exit::Files, "files"),
        ClientError::Denied { kind, .. } if kind != "not_now" => (Exit::Failed, "denied"),
        _ => (Exit::Failed, "node"),
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let (exit, word) = of_node(&error);
        let reads = ["no_token", "unknown_token", "token_expired", "other_cluster"];
        match &error {
            ClientError::Denied { kind, .. } if reads.contains(&kind.as_str()) => {
                let next = "give this node's read token with --node-token-file FILE (VEIL_NODE_TOKEN_FILE): api-read-token in its data directory";
                Self::new(exit, word, format!("{error}; {next}"))
            }
            _ => Self::new(exit, word, error),
        }
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::NoImage(_) | RegistryError::NoName(_) | RegistryError::Parts(_) => {
                Self::usage(error)
            }
            error => Self::new(Exit::Failed, "registry", error),
        }
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::File { .. } => Self::new(Exit::Files, "files", error),
            KeyError::Form { .. } => Self::usage(error),
        }
    }
}

impl From<NetworkError> for Failure {
    fn from(error: NetworkError) -> Self {
        Self::new(Exit::Failed, "network", error)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::DataDir(error) => error.into(),
            StartError::Account(error) => error.into(),
            StartError::Keystore(_) => Self::new(Exit::Files, "keystore", error),
            StartError::NoPassphrase
            | StartError::NoKeystorePassphrase
            | StartError::OtherPeer { .. } => Self::usage(error),
            error => Self::new(Exit::Failed, "node", error),
        }
    }
}

impl From<WorkerError> for Failure {
    fn from(error: WorkerError) -> Self {
        match error {
            WorkerError::Start(error) => error.into(),
            WorkerError::KeySet { .. }
            | WorkerError::GivenBack { .. }
            | WorkerError::Sequence(_) => Self::new(Exit::Files, "files", error),
            WorkerError::Approval(ApprovalError::Key(error)) => error.into(),
            WorkerError::Approval(_) | WorkerError::Unreadable(_) => {
                Self::new(Exit::Failed, "node", error)
            }
        }
    }
}

impl From<MemberError> for Failure {
    fn from(error: MemberError) -> Self {
        match error {
            MemberError::Start(error) => error.into(),
            MemberError::Ceremony(error) => error.into(),
            MemberError::Keystore(error) => error.into(),
            MemberError::Fence(error) => error.into(),
            MemberError::Io { .. }
            | MemberError::Journal(_)
            | MemberError::Ended(
                SlotsEnded::Journal(_) | SlotsEnded::Signing(_) | SlotsEnded::Ledger(_),
            ) => Self::new(Exit::Files, "files", error),
            error => Self::new(Exit::Failed, "node", error),
        }
    }
}

impl From<FenceError> for Failure {
    fn from(error: FenceError) -> Self {
        match error {
            FenceError::DataDir(error) => error.into(),
            FenceError::Io { .. } | FenceError::Journal(_) => {
                Self::new(Exit::Files, "files", error)
            }
            FenceError::NoJournals(_) | FenceError::Alone => {
                Self::new(Exit::Failed, "fence", error)
            }
        }
    }
}

impl From<ShareError> for Failure {
    fn from(error: ShareError) -> Self {
        match error {
            ShareError::Identity(error) => error.into(),
            ShareError::Keystore(error) => error.into(),
            ShareError::Fence(error) => error.into(),
            ShareError::Chain(error) => error.into(),
            ShareError::DataDir(error) => error.into(),
            ShareError::Io { .. } | ShareError::Write(_) => Self::new(Exit::Files, "files", error),
            ShareError::NeedsKey(_) | ShareError::NeedsPassphrase(_) => Self::usage(error),
            error => Self::new(Exit::Failed, "backup", error),
        }
    }
}

impl From<CommitPointError> for Failure {
    fn from(error: CommitPointError) -> Self {
        CeremonyError::from(error).into()
    }
}

impl From<CeremonyError> for Failure {
    fn from(error: CeremonyError) -> Self {
        let (exit, kind) = match error {
            CeremonyError::Chain(CommitPointError::Unsigned(batch)) => {
                return ChainError::Unsigned(batch).into();
            }
            CeremonyError::DataDir(_)
            | CeremonyError::Journal(_)
            | CeremonyError::Keystore(_)
            | CeremonyError::Files { .. } => (Exit::Files, "files"),
            CeremonyError::Chain(_) => (Exit::Failed, "chain"),
            CeremonyError::Preflight(_) => (Exit::Failed, "preflight"),
            CeremonyError::Proposal(_)
            | CeremonyError::Setup(_)
            | CeremonyError::OutOfDate { .. } => (Exit::Failed, "proposal"),
            CeremonyError::Aborted(_) => (Exit::Failed, "aborted"),
            CeremonyError::Interrupted => (Exit::Failed, "interrupted"),
            _ => (Exit::Failed, "ceremony"),
        };
        Self::new(exit, kind, error)
    }
}

impl From<SimulateError> for Failure {
    fn from(error: SimulateError) -> Self {
        match error {
            SimulateError::Shares(_) => Self::new(Exit::Files, "files", error),
            SimulateError::Setup(_) | SimulateError::FaultAlone => Self::usage(error),
        }
    }
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        if error.is_io() {
            Self::new(Exit::Files, "files", error)
        } else {
            Self::new(Exit::Failed, "archive", error)
        }
    }
}

impl From<JobFileError> for Failure {
    fn from(error: JobFileError) -> Self {
        Self::new(Exit::Usage, "job", error)
    }
}

impl From<OperatorError> for Failure {
    fn from(error: OperatorError) -> Self {
        match error {
            OperatorError::Job(error) => error.into(),
            OperatorError::Chain(error) => error.into(),
            OperatorError::Login(ref cause)
            | OperatorError::Node(ref cause)
            | OperatorError::Versions(ref cause)
            | OperatorError::SealingKeys(ref cause)
            | OperatorError::Weights(ref cause)
            | OperatorError::NotSubmitted(ref cause) => {
                let (exit, kind) = of_node(cause);
                Self::new(exit, kind, error)
            }
            OperatorError::Body { ref source, .. } | OperatorError::NotGiven { ref source, .. } => {
                let (exit, kind) = of_node(source);
                Self::new(exit, kind, error)
            }
            OperatorError::Roster(_)
            | OperatorError::Seal(_)
            | OperatorError::Encrypt(_)
            | OperatorError::OtherPublicKey
            | OperatorError::OtherReferenceString
            | OperatorError::NotSealedAgain { .. } => Self::new(Exit::Failed, "refused", error),
            OperatorError::File { .. } => Self::new(Exit::Files, "files", error),
            OperatorError::NotNamed { .. } => Self::new(Exit::Failed, "node", error),
            OperatorError::Account(_)
            | OperatorError::List { .. }
            | OperatorError::PolicyFile(_)
            | OperatorError::NoVersion { .. }
            | OperatorError::SealedVersion(_)
            | OperatorError::NotFound(_)
            | OperatorError::Ambiguous(_) => Self::new(Exit::Usage, "usage", error),
            OperatorError::NoSuchJob(_)
            | OperatorError::NoCommittee
            | OperatorError::OtherOperator { .. }
            | OperatorError::Policy(_) => Self::new(Exit::Failed, "chain", error),
            OperatorError::Obstacle(Obstacle::TooLarge(_)) => Self::new(Exit::Usage, "job", error),
            OperatorError::Obstacle(_) => Self::new(Exit::Failed, "refused", error),
        }
    }
}

impl From<ReachError> for Failure {
    fn from(error: ReachError) -> Self {
        match error {
            ReachError::Operator(error) => error.into(),
            ReachError::Chain(error) => error.into(),
            ReachError::Node(error) => error.into(),
            ReachError::Malformed(_) => Self::usage(error),
            ReachError::Unverified(_) | ReachError::Snapshot(_) => {
                Self::new(Exit::Failed, "verification", error)
            }
            ReachError::NoPlace { .. } | ReachError::Failed(_) => {
                Self::new(Exit::Failed, "reach", error)
            }
        }
    }
}

impl From<DevnetError> for Failure {
    fn from(error: DevnetError) -> Self {
        let (exit, kind) = match &error {
            DevnetError::Options(_) | DevnetError::Job(_) | DevnetError::Config(_) => {
                (Exit::Usage, "usage")
            }
            DevnetError::Deadline { .. } => (Exit::Failed, "deadline"),
            DevnetError::NodeEnded { .. } => (Exit::Failed, "node"),
            DevnetError::Verify { .. } => (Exit::Failed, "verification"),
            DevnetError::Interrupted => (Exit::Failed, "interrupted"),
            error if error.is_io() => (Exit::Files, "files"),
            _ => (Exit::Failed, "devnet"),
        };
        Self::new(exit, kind, error)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use veil_node_driver::Stopped;
    use veil_node_storage::journal::JournalError;

    use super::*;

    #[test]
    fn a_member_whose_machine_stopped_ends_with_a_code_and_a_sentence() {
        let full = JournalError::Full(PathBuf::from("slots/slot.redb"));
        for (ended, exit, says) in [
            (SlotsEnded::Protocol(Stopped), Exit::Failed, "the machine has stopped"),
            (SlotsEnded::Journal(full), Exit::Files, "slots/slot.redb is full"),
        ] {
            let failure = Failure::from(MemberError::from(ended));
            assert_eq!(failure.exit, exit);
            assert_ne!(ExitCode::from(failure.exit), ExitCode::SUCCESS);
            assert!(failure.message.contains(says), "{}", failure.message);
            assert!(failure.message.contains("takes no further part"), "{}", failure.message);
        }
    }

    #[test]
    fn a_key_share_without_journals_is_refused_with_the_next_command() {
        let missing = FenceError::NoJournals(vec![PathBuf::from("slots/nonces.redb")]);
        let failure = Failure::from(MemberError::from(missing));
        assert_eq!((failure.exit, failure.kind), (Exit::Failed, "fence"));
        assert!(failure.message.contains("slots/nonces.redb"), "{}", failure.message);
        assert!(failure.message.contains("veil committee fence"), "{}", failure.message);
    }
}
