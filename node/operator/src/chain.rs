//! What the chain says of its contracts, a cluster and an election: `veil chain status`, `veil chain elect`.

use async_recursion::async_recursion as boxed;
use serde_json::{Value, json};
use veil_node_chain::{Allowance, Chain, ChainError, Rights};
use veil_protocol_spec::{Address, Attempt, ClusterId, Epoch, PeerIdHash, registry::Roles};

/// Names of the roles.
#[must_use]
pub fn roles(roles: Roles) -> Vec<&'static str> {
    let named = [("worker", roles.worker), ("member", roles.member)];
    named.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect()
}

/// The contracts, the account that signs, and a cluster.
///
/// # Errors
/// [`ChainError`].
#[boxed]
pub async fn describe(chain: &Chain, cluster: Option<ClusterId>) -> Result<Value, ChainError> {
    let (block, time) = chain.block().await?;
    let contracts = chain.contracts();
    let mut report = json!({
        "chain_id": chain.chain_id().0,
        "block": block.number,
        "block_time": time,
        "directory": format!("0x{}", contracts.directory),
        "node_registry": format!("0x{}", contracts.node_registry),
        "policy_registry": format!("0x{}", contracts.policy_registry),
        "committee_election": format!("0x{}", contracts.committee_election),
        "key_ceremony": format!("0x{}", contracts.key_ceremony),
        "job_board": format!("0x{}", contracts.job_board),
        "assignment_anchor": format!("0x{}", contracts.assignment_anchor),
        "disputes": format!("0x{}", contracts.disputes),
        "fee_pool": format!("0x{}", contracts.fee_pool),
        "endpoints": chain.endpoints(),
        "depth": chain.depth(),
    });
    if let Some(account) = chain.account() {
        report["account"] = json!(format!("0x{account}"));
        report["balance_wei"] = json!(chain.balance(account).await?.to_string());
    }
    if let Some(cluster) = cluster {
        report["cluster"] = describe_cluster(chain, cluster).await?;
    }
    Ok(report)
}

async fn describe_cluster(chain: &Chain, id: ClusterId) -> Result<Value, ChainError> {
    let settings = chain.cluster(id).await?;
    let nodes: Vec<_> = chain
        .nodes(id)
        .await?
        .into_iter()
        .map(|node| {
            json!({
                "peer": format!("0x{}", node.peer),
                "roles": roles(node.roles),
                "seat": node.seat.map(|seat| seat.get()),
                "operator": format!("0x{}", node.operator),
                "organisation": node.organisation,
                "stake_wei": node.stake.to_string(),
                "labels": node.labels.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })
        })
        .collect();
    let key = chain.current_key(id).await?;
    let next = Epoch(key.map_or(0, |key| key.epoch.0 + 1));
    let head = chain.head(id).await?;
    Ok(json!({
        "id": format!("0x{id}"),
        "admin": format!("0x{}", settings.admin),
        "committee": settings.committee.n(),
        "standbys": settings.standbys,
        "elected": settings.elected,
        "seats_per_organisation": settings.seats_per_organisation,
        "member_stake_wei": settings.member_stake.to_string(),
        "widening_delay": settings.widening_delay,
        "open_to_workers": settings.open_to_workers,
        "slot_millis": settings.slot_millis,
        "nodes": nodes,
        "key": key.map(|key| json!({
            "epoch": key.epoch.0,
            "key_set": key.key_set.to_string(),
            "group_key": key.group_key.to_string(),
            "reference_string": key.reference_string.digest,
            "published_at": key.published_at,
        })),
        "election": if settings.elected {
            election(chain, id, next).await?
        } else {
            Value::Null
        },
        "ceremony": attempt(chain, id, next).await?,
        "jobs": chain.jobs(id, 0).await?.len(),
        "last_certificate": head.map(|head| json!({
            "hash": head.hash.to_string(),
            "slot": head.slot.0,
            "epoch": head.epoch.0,
            "anchored": head.count,
        })),
    }))
}

/// The last attempt at the next epoch's key.
async fn attempt(chain: &Chain, id: ClusterId, epoch: Epoch) -> Result<Value, ChainError> {
    let Some(last) = chain.ceremony_attempts(id, epoch).await?.checked_sub(1) else {
        return Ok(Value::Null);
    };
    let found = chain.ceremony_attempt(id, epoch, Attempt(last)).await?;
    Ok(found.map_or(Value::Null, |attempt| {
        json!({
            "epoch": epoch.0,
            "attempt": last,
            "status": attempt.status,
            "deadline": attempt.deadline,
            "parameters": attempt.parameters,
        })
    }))
}

/// An election, and the committee if it is sealed.
///
/// # Errors
/// [`ChainError`].
#[boxed]
pub async fn election(
    chain: &Chain,
    cluster: ClusterId,
    epoch: Epoch,
) -> Result<Value, ChainError> {
    let election = chain.election(cluster, epoch).await?;
    let mut report = json!({
        "epoch": epoch.0,
        "status": election.status,
        "round": election.round,
        "random_block": election.random_block,
    });
    if let Some(committee) = chain.committee(cluster, epoch).await? {
        let texts =
            |peers: &[PeerIdHash]| peers.iter().map(|peer| format!("0x{peer}")).collect::<Vec<_>>();
        report["seats"] = json!(texts(&committee.seats));
        report["standbys"] = json!(texts(&committee.standbys));
        report["verified"] = json!(chain.verify_election(cluster, epoch).await?);
    }
    Ok(report)
}

/// Says what an account may do in a cluster, and gives what it may do then.
///
/// # Errors
/// [`ChainError`].
#[boxed]
pub async fn grant(
    chain: &Chain,
    cluster: ClusterId,
    account: Address,
    allowance: Allowance,
) -> Result<Value, ChainError> {
    let mined = chain.set_allowance(cluster, account, allowance).await?;
    let now = chain.allowance(cluster, account).await?;
    Ok(json!({
        "account": format!("0x{account}"),
        "may_submit": now.rights.has(Rights::SUBMIT),
        "may_allow_images": now.rights.has(Rights::IMAGES),
        "jobs_per_day": now.jobs_per_day,
        "leak_bits_per_day": now.leak_bits_per_day,
        "announced": now != allowance,
        "transaction": format!("0x{}", mined.transaction),
    }))
}
