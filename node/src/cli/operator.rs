//! `veil operator delegate|revoke|delegates`: keys that submit jobs for an operator.

use clap::{Args, Subcommand};
use serde_json::json;
use veil_node_chain::{Chain, ChainError, DelegatedKey};
use veil_node_config::{job_file::quantity::seconds, parse_address};
use veil_node_terminal::waiting;
use veil_protocol_spec::{Address, registry::Delegation};

use super::{
    asking::Asking,
    failure::{Exit, Failure},
    job::target::Target,
    output,
    run::{TRANSACTION, block_on, conclude},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Let another key submit and stop jobs in this account's name, until its time is over or it is revoked: a build
    /// server's, say. It can do nothing else; the jobs, their quota and their cost are this account's.
    Delegate(Delegate),
    /// End what a key may do for this account, at once. What it has submitted runs on.
    Revoke(Revoke),
    /// List the keys of this account, or of another operator.
    Delegates(Delegates),
}

#[derive(Debug, Args)]
pub(super) struct Delegate {
    /// The key's address.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    key: Address,
    /// For how long from now, such as 12h or 90d; 366 days at most.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    until: u64,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// The key's address.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    key: Address,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct Delegates {
    /// Whose keys; those of the account that is configured if it is not given.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    operator: Option<Address>,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(command: &Command, asking: &Asking) -> Exit {
    let (json, ended) = match command {
        Command::Delegate(a) => (a.target.json, block_on(delegate(a, asking))),
        Command::Revoke(a) => (a.target.json, block_on(revoke(a, asking))),
        Command::Delegates(a) => (a.target.json, block_on(list(a, asking))),
    };
    conclude(json, ended)
}

fn own(chain: &Chain) -> Result<Address, Failure> {
    chain.account().ok_or_else(|| ChainError::NoAccount.into())
}

async fn delegate(arguments: &Delegate, asking: &Asking) -> Result<Exit, Failure> {
    let Delegate { key, until, target } = arguments;
    let (chain, cluster) = target.resolve(asking)?.chain().await?;
    let operator = own(&chain)?;
    let until = chain.time().await?.saturating_add(*until);
    waiting::on(TRANSACTION);
    let mined = chain.delegate(cluster, *key, until).await?;
    let object = json!({
        "operator": operator,
        "key": key,
        "until": until,
        "transaction": mined.transaction,
    });
    output::show(target.json, &object, |out| {
        writeln!(
            out,
            "0x{key} may submit and stop jobs of 0x{operator} until {until} (Unix time): `veil job submit --for 0x{operator}`"
        )
    })?;
    Ok(Exit::Done)
}

async fn revoke(arguments: &Revoke, asking: &Asking) -> Result<Exit, Failure> {
    let Revoke { key, target } = arguments;
    let (chain, cluster) = target.resolve(asking)?.chain().await?;
    let operator = own(&chain)?;
    waiting::on(TRANSACTION);
    let mined = chain.revoke_delegate(cluster, *key).await?;
    let object = json!({ "operator": operator, "key": key, "transaction": mined.transaction });
    output::show(target.json, &object, |out| {
        writeln!(
            out,
            "0x{key} may do nothing for 0x{operator} any more; what it has submitted runs on"
        )
    })?;
    Ok(Exit::Done)
}

async fn list(arguments: &Delegates, asking: &Asking) -> Result<Exit, Failure> {
    let Delegates { operator, target } = arguments;
    let (chain, cluster) = target.resolve(asking)?.chain().await?;
    let operator = operator.map_or_else(|| own(&chain), Ok)?;
    let keys = chain.delegates(cluster, operator).await?;
    let described = keys.iter().map(|DelegatedKey { key, delegation }| {
        let (state, until) = words(*delegation);
        json!({ "key": key, "state": state, "until": until })
    });
    let described: Vec<_> = described.collect();
    let object = json!({ "operator": operator, "delegates": described });
    output::show(target.json, &object, |out| {
        writeln!(out, "{:<44}{:<10}until (Unix time)", "key", "state")?;
        keys.iter().try_for_each(|DelegatedKey { key, delegation }| {
            let (state, until) = words(*delegation);
            writeln!(out, "0x{key}  {state:<10}{}", until.unwrap_or_default())
        })
    })?;
    Ok(Exit::Done)
}

const fn words(delegation: Delegation) -> (&'static str, Option<u64>) {
    match delegation {
        Delegation::Until(until) => ("active", Some(until)),
        Delegation::Expired(until) => ("expired", Some(until)),
        Delegation::Revoked(at) => ("revoked", Some(at)),
        Delegation::Never => ("never", None),
    }
}
