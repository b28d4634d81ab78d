//! Errors of jobs and certificates as sentences.

use veil_contracts::{
    assignment_anchor::AssignmentAnchor::AssignmentAnchorErrors as Anchor,
    fee_pool::FeePool::FeePoolErrors as Fees, job_board::JobBoard::JobBoardErrors as Jobs,
};

use super::words::{Common, account, common, missing_right, not_admin, short, unix};

pub(super) fn jobs(error: &Jobs) -> String {
    match error {
        Jobs::MissingRight(e) => missing_right(&e.account, e.right),
        Jobs::WrongNonce(e) => {
            format!("the nonce of the next job is {}, not {}", e.expected, e.given)
        }
        Jobs::UnknownJob(e) => format!("there is no job {}", e.position),
        Jobs::NotSubmitter(e) => format!(
            "account {} did not submit job {}: who did cancels it, or the cluster's admin, with `veil job stop`",
            account(&e.caller),
            e.position
        ),
        Jobs::AlreadyCancelled(e) => format!("job {} is cancelled already", e.position),
        Jobs::AlreadySubmitted(e) => format!(
            "operator {} has submitted job {} in this cluster already: `veil job status` shows it",
            account(&e.operator),
            short(&e.digest)
        ),
        Jobs::EmptyDigest(_) => "a job has a digest".to_owned(),
        Jobs::QuotaExceeded(e) => format!(
            "the account has submitted {} of {} jobs of this day (UTC): wait for the next one, or ask the admin for `veil chain grant --jobs`",
            e.used, e.allowed
        ),
        Jobs::LeakBudgetExceeded(e) => format!(
            "the job may reveal {} bits about others' load, and {} of the account's {} are used on this day (UTC): ask for fewer replicas, wait for the next day, or ask the admin for `veil chain grant --leak-bits`",
            e.stated, e.used, e.allowed
        ),
        Jobs::NotDelegate(e) => format!(
            "operator {} has delegated nothing to account {} in cluster {}: it runs `veil operator delegate --key {1}`",
            account(&e.operator),
            account(&e.key),
            short(&e.cluster)
        ),
        Jobs::DelegateExpired(e) => format!(
            "account {} could act for operator {} until {}: the operator runs `veil operator delegate --key {0}` again",
            account(&e.key),
            account(&e.operator),
            unix(e.until)
        ),
        Jobs::DelegateRevoked(e) => format!(
            "operator {} revoked account {} at {}: use another key, or have it delegated again with `veil operator delegate --key {1}`",
            account(&e.operator),
            account(&e.key),
            unix(e.revokedAt)
        ),
        Jobs::TooManyDelegates(e) => format!(
            "an operator has at most {} keys in a cluster: `veil operator delegates` lists them, `veil operator revoke` makes room",
            e.most
        ),
        Jobs::InvalidDelegate(e) => format!(
            "account {} needs no delegation, or is none: give the address of another key with --key",
            account(&e.key)
        ),
        Jobs::InvalidDelegationTime(e) => format!(
            "the delegation would end at {}: let it end in the future, at {} at the latest, with --until",
            unix(e.until),
            unix(e.latest)
        ),
        Jobs::NoLeakStated(_) => "a job states that it reveals at least one bit".to_owned(),
        Jobs::MissingContract(_) => common(&Common::MissingContract),
        Jobs::Paused(e) => common(&Common::Paused(e.until)),
        Jobs::NotGovernance(e) => common(&Common::NotGovernance(e.caller)),
        Jobs::NotContract(e) => common(&Common::NotContract(e.name, e.caller)),
    }
}

pub(super) fn anchor(error: &Anchor) -> String {
    match error {
        Anchor::EpochNotInForce(e) => {
            format!("the certificate is of epoch {}; epoch {} is active", e.given, e.current)
        }
        Anchor::WrongKeySet(e) => format!(
            "the certificate is under key set {}; {} is active",
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
        Anchor::WrongBase(e) => format!(
            "the certificate is to be anchored on {}, and the last one anchored is {}: it is anchored already, or another one of that base is, and a later slot carries on",
            short(&e.given),
            short(&e.head)
        ),
        Anchor::WrongGroupSignature(_) => {
            "the certificate is not signed by the group of its epoch".to_owned()
        }
        Anchor::NotAnchored(e) => format!(
            "certificate {} leads up to none of the last 64 that were anchored, of which {} is the last: wait until a later one is anchored, and show all between them",
            short(&e.hash),
            short(&e.head)
        ),
        Anchor::NotIncluded(e) => {
            format!("assignment {} is not under root {}", short(&e.leaf), short(&e.root))
        }
        Anchor::ReservedInLeaf(_) => {
            "a leaf that hides its worker, or says that its replica is drained, is of a later version".to_owned()
        }
        Anchor::NoSuchWorker(e) => {
            format!("peer {} is not a registered worker", short(&e.worker))
        }
        Anchor::UnprovenAssignment(e) => format!(
            "assignment {} is not proven to be anchored yet: prove it first",
            short(&e.assignmentHash)
        ),
        Anchor::AlreadyConfirmed(e) => format!(
            "deployment {} is confirmed already: nothing is left to do",
            short(&e.assignmentHash)
        ),
        Anchor::NotWorkerOperator(e) => format!(
            "account {} is not the operator of the worker of assignment {}",
            account(&e.caller),
            short(&e.assignmentHash)
        ),
        Anchor::WrongGroupKey(_) => {
            "the group key given is not that of the active epoch: a new key was published in between; repeat".to_owned()
        }
        Anchor::GroupSuspended(e) => common(&Common::GroupSuspended(e.epoch)),
        Anchor::NoKey(e) => common(&Common::NoKey(e.epoch)),
        Anchor::MissingContract(_) => common(&Common::MissingContract),
        Anchor::Paused(e) => common(&Common::Paused(e.until)),
        Anchor::NotGovernance(e) => common(&Common::NotGovernance(e.caller)),
        Anchor::NotContract(e) => common(&Common::NotContract(e.name, e.caller)),
    }
}

pub(super) fn fees(error: &Fees) -> String {
    match error {
        Fees::EmptyFee(_) => "a fee is more than nothing, and names a price".to_owned(),
        Fees::PriceLowered(e) => format!(
            "the price of a second is {} wei, and workers have begun at it: name {0} or more",
            e.current
        ),
        Fees::FeeEnds(e) => format!(
            "the payer has ended this fee: workers claim until {}, then it can be paid anew",
            unix(e.freeFrom)
        ),
        Fees::NoFee(e) => {
            format!("account {} pays nothing for job {}", account(&e.payer), short(&e.job))
        }
        Fees::FeeNotFree(e) => {
            format!("the fee is ended first, and free at {}: workers may claim", unix(e.freeFrom))
        }
        Fees::NotLatest(e) => format!(
            "certificate {} is neither the one anchored last nor the one before: show a later one",
            short(&e.certificate)
        ),
        Fees::ReplicaDone(e) => format!("replica {} has ended, and earns nothing", e.replica),
        Fees::NotInState(e) => format!(
            "leaf {} is not under state root {}: the worker does not have the replica then",
            short(&e.leaf),
            short(&e.stateRoot)
        ),
        Fees::NotConfirmed(e) => format!(
            "assignment {} is no confirmed one of slot {}: its operator confirms it first",
            short(&e.assignmentHash),
            e.slot
        ),
        Fees::NothingEarned(e) => {
            format!("all up to {} is paid: wait for a later certificate", unix(e.paidUntil))
        }
        Fees::EscrowEmpty(e) => {
            format!("what account {} paid for the job is used up", account(&e.payer))
        }
        Fees::NothingOwed(e) => format!("account {} is owed nothing", account(&e.account)),
        Fees::PaymentFailed(e) => common(&Common::PaymentFailed(e.to)),
        Fees::NotClusterAdmin(e) => not_admin(&e.cluster, &e.caller),
        Fees::InvalidInterval(e) => {
            format!("{} seconds are no interval: 1 to 86400 are", e.given)
        }
        Fees::MissingContract(_) => common(&Common::MissingContract),
        Fees::Paused(e) => common(&Common::Paused(e.until)),
        Fees::NotGovernance(e) => common(&Common::NotGovernance(e.caller)),
        Fees::NotContract(e) => common(&Common::NotContract(e.name, e.caller)),
    }
}
