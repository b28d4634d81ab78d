//! Errors of the node registry as sentences.

use alloy::primitives::B256;
use veil_contracts::node_registry::NodeRegistry::NodeRegistryErrors as Registry;

use super::words::{Common, account, common, not_admin, short, unix};
use crate::forms::{organisation, roles_of};

/// What an approval names, in words.
fn approved(bits: u8, word: &B256) -> String {
    let roles = roles_of(bits);
    let roles = match (roles.worker, roles.member) {
        (true, true) => "worker and member",
        (_, true) => "member",
        _ => "worker",
    };
    match organisation(word) {
        Some(name) => format!("{roles} of organisation {name}"),
        None => format!("{roles} of no organisation"),
    }
}

/// The same as options of a command.
fn flags(bits: u8, word: &B256) -> String {
    let roles = roles_of(bits);
    let named = [(roles.worker, "--role worker"), (roles.member, "--role member")];
    let mut flags: Vec<_> =
        named.iter().filter(|(is, _)| *is).map(|(_, flag)| (*flag).to_owned()).collect();
    flags.extend(organisation(word).map(|name| format!("--organisation '{name}'")));
    flags.join(" ")
}

pub(super) fn registry(error: &Registry) -> String {
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
        Registry::LabelsTooLong(e) => {
            format!("labels of {} bytes are too long: 1024 at most", e.length)
        }
        Registry::InvalidIdentityKey(_) => {
            "the identity's key is not a point of secp256k1: make one with `veil identity new`"
                .to_owned()
        }
        Registry::WrongIdentitySignature(e) => format!(
            "the registration of peer {} is not signed by that identity for this account: sign it with the identity's own key file, by `veil chain register`",
            short(&e.peer)
        ),
        Registry::UnknownRoles(e) => {
            format!("{} is not a set of roles: give --role worker, member or both", e.roles)
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
            "the cluster's admin has not admitted peer {} under account {}, or that approval was used: the admin runs `veil chain approve` (a worker of an open cluster registers without --organisation, of nobody's)",
            short(&e.peer),
            account(&e.operator)
        ),
        Registry::ApprovalExpired(e) => format!(
            "the approval of peer {} could be used until {}: the admin runs `veil chain approve` again",
            short(&e.peer),
            unix(e.validUntil)
        ),
        Registry::NotAsApproved(e) => format!(
            "the admin approved peer {} as {}: register it so, with `veil chain register {}`, or have it approved anew",
            short(&e.peer),
            approved(e.roles, &e.organisation),
            flags(e.roles, &e.organisation)
        ),
        Registry::InvalidApprovalTime(e) => format!(
            "the approval would end at {}: let it end in the future, at {} at the latest, with --valid-for",
            unix(e.validUntil),
            unix(e.latest)
        ),
        Registry::InvalidOperator(_) => {
            "an approval names the account that may register: give --operator, or --withdraw"
                .to_owned()
        }
        Registry::NotClusterAdmin(e) => not_admin(&e.cluster, &e.caller),
        Registry::NotNodeOperator(e) => format!(
            "account {} neither registered peer {} nor is the cluster's admin",
            account(&e.caller),
            short(&e.peer)
        ),
        Registry::NotDrained(_) => {
            "only a drain has a deadline: give it to `veil node drain`".to_owned()
        }
        Registry::TooManyStandbys(e) => {
            format!("{} standby seats are too many: give fewer with --standbys", e.standbys)
        }
        Registry::InvalidWideningDelay(e) => {
            format!("a delay of {} s is too long: give a shorter --widening-delay", e.delay)
        }
        Registry::TooManyRegistrations(e) => format!(
            "peer {} was registered in this cluster 255 times: make another identity with `veil identity new`",
            short(&e.peer)
        ),
        Registry::InvalidStake(e) => format!(
            "{} wei is not a stake: give more than 0, and less than 2^88 wei, with --stake",
            e.amount
        ),
        Registry::ExitPending(e) => format!(
            "peer {} left and its stake is still in the exit queue: `veil chain withdraw` first",
            short(&e.peer)
        ),
        Registry::NoExit(e) => format!(
            "peer {} has no stake in the exit queue: `veil chain exit` puts it there",
            short(&e.peer)
        ),
        Registry::StillSlashable(e) => format!(
            "the stake can still be slashed: repeat when the disputes of epoch {} are closed, or after {} in any case",
            e.exitEpoch.saturating_sub(1),
            unix(e.latest)
        ),
        Registry::HeldByChallenges(e) => format!(
            "{} challenges of the cluster are not decided: `veil chain withdraw` again when they are, or after {} in any case",
            e.open,
            unix(e.latest)
        ),
        Registry::TooManyMembers(e) => format!(
            "cluster {} has {} members, as many as can be: its admin takes one out with `veil chain exit`",
            short(&e.cluster),
            e.most
        ),
        Registry::EvictionPending(e) => format!(
            "peer {} may be drawn for the epochs before {}: repeat `veil chain exit` when epoch {} has its key, or let its operator run it now",
            short(&e.peer),
            e.fromEpoch,
            e.fromEpoch.saturating_sub(1)
        ),
        Registry::NotStakeHolder(e) => format!(
            "account {} is neither the withdrawal address of peer {} nor, while it has none, its operator: use that account's key",
            account(&e.caller),
            short(&e.peer)
        ),
        Registry::NotNextAdmin(e) => format!(
            "the admin of cluster {} has not proposed account {1} for its place: it runs `veil chain admin --propose {1}`",
            short(&e.cluster),
            account(&e.caller)
        ),
        Registry::PaymentFailed(e) => common(&Common::PaymentFailed(e.to)),
        Registry::MissingContract(_) => common(&Common::MissingContract),
        Registry::Paused(e) => common(&Common::Paused(e.until)),
        Registry::NotGovernance(e) => common(&Common::NotGovernance(e.caller)),
        Registry::NotContract(e) => common(&Common::NotContract(e.name, e.caller)),
    }
}
