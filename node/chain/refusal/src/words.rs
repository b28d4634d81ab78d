//! Sentences for errors that several contracts share, and the forms of accounts, digests and times.

use alloy::primitives::{Address, B256};

/// Errors that several contracts share.
pub(super) enum Common {
    MissingContract,
    Paused(u64),
    NotGovernance(Address),
    NotContract(B256, Address),
    GroupSuspended(u64),
    NoKey(u64),
    PaymentFailed(Address),
}

/// The first digits of a digest, enough to recognise it.
pub(super) fn short(word: &B256) -> String {
    format!("{:.10}...", word.to_string())
}

pub(super) fn account(address: &Address) -> String {
    address.to_string()
}

/// A contract's name, as a directory has it.
pub(super) fn name(word: &B256) -> String {
    word.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect()
}

pub(super) fn unix(seconds: u64) -> String {
    format!("{seconds} (Unix time)")
}

pub(super) fn not_admin(cluster: &B256, caller: &Address) -> String {
    format!(
        "account {} is not the admin of cluster {}: use the admin's key",
        account(caller),
        short(cluster)
    )
}

pub(super) fn missing_right(address: &Address, right: u32) -> String {
    let (what, flag) = match right {
        1 => ("submit jobs to", "submit"),
        2 => ("allow or revoke images of", "images"),
        _ => ("do this in", "submit or images"),
    };
    format!(
        "account {} may not {what} this cluster: its admin runs `veil chain grant --right {flag}`",
        account(address)
    )
}

/// The sentence for a shared error.
pub(super) fn common(what: &Common) -> String {
    match what {
        Common::MissingContract => {
            "a contract that this one needs is not deployed: deploy the set with `veil chain deploy`"
                .to_owned()
        }
        Common::Paused(until) => format!(
            "the guardian has paused new work until {}: wait; `veil chain status` shows it, and nodes may still leave",
            unix(*until)
        ),
        Common::NotGovernance(caller) => format!(
            "account {} is not the timelock, which alone may do this: `veil chain govern schedule` has it done there",
            account(caller)
        ),
        Common::NotContract(name, caller) => {
            format!(
                "{} is not the {} of the same set, which alone may do this",
                account(caller),
                self::name(name)
            )
        }
        Common::GroupSuspended(epoch) => format!(
            "the group of epoch {epoch} is suspended for equivocation, and neither anchors nor hands over: make a new key, after governance has announced a succession"
        ),
        Common::NoKey(epoch) => format!(
            "there is no key for epoch {epoch} yet: run a ceremony, beginning with `veil ceremony propose`"
        ),
        Common::PaymentFailed(to) => format!(
            "account {} does not accept payments: its operator has to make it payable",
            account(to)
        ),
    }
}
