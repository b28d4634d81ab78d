//! `veil chain fees`: what steps on the chain are paid back from.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use veil_node_chain_commands::arguments::{Connection, Where};
use veil_node_chain_fees::Fees;
use veil_node_config::parse_address;
use veil_protocol_spec::Address;

use crate::cli::failure::Failure;

/// Whoever anchors a certificate, seals an election, publishes or activates a key, or confirms a deployment is owed base
/// fee and tip of the cluster's pool, as long as it has something.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Show the cluster's pool, and what it owes to an account.
    Show(Account),
    /// Give ether to the cluster's pool, for ever.
    Deposit(Deposit),
    /// Pay an account what it is owed.
    Claim(Account),
    /// Say how often anchors are paid back, as the cluster's admin; those in between are anchored all the same.
    Interval(Interval),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Deposit {
    /// How much, in wei.
    #[arg(long, value_name = "WEI")]
    amount: u128,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Interval {
    /// The seconds between two, 60 until something else is said.
    #[arg(long, value_name = "S")]
    seconds: u32,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Account {
    /// The account; the one that signs if it is not given.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    account: Option<Address>,
    #[command(flatten)]
    place: Where,
}

impl Command {
    const fn place(&self) -> &Where {
        match self {
            Self::Show(Account { place, .. })
            | Self::Deposit(Deposit { place, .. })
            | Self::Claim(Account { place, .. })
            | Self::Interval(Interval { place, .. }) => place,
        }
    }

    pub(super) const fn connection(&self) -> &Connection {
        &self.place().connection
    }
}

pub(super) async fn carry_out(command: &Command) -> Result<Value, Failure> {
    let Where { cluster, contract, connection } = command.place();
    let cluster = cluster.id();
    let chain = match command {
        Command::Show(_) => contract.connect(connection).await?,
        _ => contract.connect_to_send(connection).await?,
    };
    let fees = Fees(&chain);
    let mut report = json!({ "cluster": format!("0x{cluster}") });
    let mined = match command {
        Command::Show(Account { account, .. }) => {
            if let Some(account) = account.or_else(|| chain.account()) {
                report["account"] = json!(format!("0x{account}"));
                report["owed_wei"] = json!(fees.owed(account).await?.to_string());
            }
            None
        }
        Command::Deposit(Deposit { amount, .. }) => Some(fees.deposit(cluster, *amount).await?),
        Command::Claim(Account { account, .. }) => {
            let account = account.or_else(|| chain.account()).ok_or_else(|| {
                Failure::usage("nobody signs: give --keystore, or set VEIL_CHAIN_KEY")
            })?;
            let owed = fees.owed(account).await?;
            let mined = fees.withdraw(account).await?;
            report["account"] = json!(format!("0x{account}"));
            report["paid_wei"] = json!(owed.to_string());
            Some(mined)
        }
        Command::Interval(Interval { seconds, .. }) => {
            Some(fees.set_anchor_interval(cluster, *seconds).await?)
        }
    };
    if let Some(mined) = mined {
        report["transaction"] = json!(format!("0x{}", mined.transaction));
    }
    let pool = fees.pool(cluster).await?;
    report["pool_wei"] = json!(pool.balance_wei.to_string());
    report["anchor_interval_seconds"] = json!(pool.anchor_interval);
    report["anchor_refunded_at"] = json!(pool.anchor_refunded_at);
    Ok(report)
}
