//! Errors of the directory, of policies and of the timelock as sentences.

use veil_contracts::{
    directory::Directory::DirectoryErrors as Directory,
    policy_registry::PolicyRegistry::PolicyRegistryErrors as Policy,
    timelock::Timelock::TimelockErrors as Timelock,
};

use super::words::{Common, account, common, missing_right, name, not_admin, short, unix};

pub(super) fn directory(error: &Directory) -> String {
    match error {
        Directory::UnknownVersion(e) => {
            format!("the directory has no version {}", e.version)
        }
        Directory::UnknownContract(_) => {
            "the directory's set has no such contract: deploy a set with `veil chain deploy`"
                .to_owned()
        }
        Directory::DuplicateName(_) => "two contracts of one name in a set".to_owned(),
        Directory::ForeignContract(e) => format!(
            "{} is not a contract of this directory: deploy the set with `veil chain deploy`",
            account(&e.location)
        ),
        Directory::NotPublisher(e) => format!(
            "account {} may not publish a set: the timelock does, or for the first set who deployed the directory",
            account(&e.caller)
        ),
        Directory::NotGuardian(e) => {
            format!(
                "account {} is neither the guardian nor the timelock: the guardian's account does it, or governance with `veil chain govern schedule`",
                account(&e.caller)
            )
        }
        Directory::OtherSet(e) => format!(
            "the {} was deployed for set {} of the directory, and the next one is {}: deploy all contracts of a set anew with `veil chain deploy`",
            name(&e.name),
            e.version,
            e.next
        ),
        Directory::OtherInterface(e) => format!(
            "the {} has interface version {}, the directory {}: deploy a directory of that version with `veil chain deploy`",
            name(&e.name),
            e.version,
            e.expected
        ),
        Directory::IncompleteSet(e) => format!(
            "the set has no {}: publish all eight contracts at once, as `veil chain deploy` does",
            name(&e.name)
        ),
        Directory::PauseTooSoon(e) => format!(
            "new work was paused lately, and may be again from {} on; `veil chain pause --end` ends a pause that is on",
            unix(e.from)
        ),
        Directory::OwnableUnauthorizedAccount(e) => {
            format!("account {} does not own the directory", account(&e.account))
        }
        Directory::OwnableInvalidOwner(_) => "the directory needs an owner".to_owned(),
    }
}

pub(super) fn policy(error: &Policy) -> String {
    match error {
        Policy::NotClusterAdmin(e) => not_admin(&e.cluster, &e.caller),
        Policy::MissingRight(e) => missing_right(&e.account, e.right),
        Policy::InvalidPolicyLength(e) => {
            format!("a policy has 1 to 8192 bytes, not {}: give another --file", e.length)
        }
        Policy::EmptyImageRoot(_) => {
            "an image has a root: `veil chain image allow` computes it from the manifest".to_owned()
        }
        Policy::SignatureNotInRoot(e) => format!(
            "the root of image {} commits to no signature {}: `veil chain image allow` with `--signature` computes \
             both",
            short(&e.manifest),
            short(&e.signature)
        ),
        Policy::TooManyImages(e) => format!(
            "{} images are allowed or announced in this cluster, as many as can be: `veil chain image revoke` makes \
             room",
            e.max
        ),
        Policy::ImageNotAllowed(e) => format!(
            "image {} is neither allowed nor announced in this cluster: `veil chain image allow` does that",
            short(&e.manifest)
        ),
        Policy::MissingContract(_) => common(&Common::MissingContract),
        Policy::Paused(e) => common(&Common::Paused(e.until)),
        Policy::NotGovernance(e) => common(&Common::NotGovernance(e.caller)),
        Policy::NotContract(e) => common(&Common::NotContract(e.name, e.caller)),
    }
}

pub(super) fn timelock(error: &Timelock) -> String {
    match error {
        Timelock::AccessControlUnauthorizedAccount(e) => {
            format!(
                "account {} has no role in the timelock that may do this: the governor's account does it, if need be with `--unsigned --from` its address",
                account(&e.account)
            )
        }
        Timelock::AccessControlBadConfirmation(_) => {
            "a role can be given up only by its own account".to_owned()
        }
        Timelock::TimelockInsufficientDelay(e) => {
            format!("a delay of {} s is too short: {} s at least", e.delay, e.minDelay)
        }
        Timelock::TimelockInvalidOperationLength(_) => {
            "as many targets as payloads and values are needed".to_owned()
        }
        Timelock::TimelockUnauthorizedCaller(e) => {
            format!("account {} is not the timelock itself", account(&e.caller))
        }
        Timelock::TimelockUnexecutedPredecessor(e) => {
            format!("operation {} has to be executed first", short(&e.predecessorId))
        }
        Timelock::TimelockUnexpectedOperationState(e) => format!(
            "operation {} is not in the state for this: `veil chain govern list` says whether it waits, is done or was never scheduled",
            short(&e.operationId)
        ),
        Timelock::FailedCall(_) => {
            "what the timelock called has failed: check the operation's target".to_owned()
        }
    }
}
