//! `veil chain admin` and `veil chain dispute`: who has a cluster, and what disputes pay.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use veil_node_config::parse_address;
use veil_protocol_spec::Address;

use super::arguments::{Connection, Contract, Where};
use crate::cli::failure::Failure;

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(in crate::cli) struct Admin {
    /// Propose this account for the admin's place, as the admin; it has the place once it accepts.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    propose: Option<Address>,
    /// Propose nobody any more, as the admin.
    #[arg(long)]
    withdraw: bool,
    /// Take the admin's place, as the account that was proposed.
    #[arg(long)]
    accept: bool,
    #[command(flatten)]
    pub(super) place: Where,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Dispute {
    /// Pay an account its rewards and bonds.
    Claim {
        /// The account; the one that signs if it is not given.
        #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
        account: Option<Address>,
        #[command(flatten)]
        contract: Contract,
        #[command(flatten)]
        connection: Connection,
    },
    /// End a challenge that governance has not decided in time; its bond goes back.
    Lapse {
        /// The challenge's number, from the event `ChallengeOpened`.
        id: u64,
        #[command(flatten)]
        contract: Contract,
        #[command(flatten)]
        connection: Connection,
    },
}

impl Dispute {
    pub(super) const fn connection(&self) -> &Connection {
        match self {
            Self::Claim { connection, .. } | Self::Lapse { connection, .. } => connection,
        }
    }
}

pub(super) async fn admin(arguments: &Admin) -> Result<Value, Failure> {
    let Admin { propose, accept, place: Where { cluster, contract, connection }, .. } = arguments;
    let chain = contract.connect_to_send(connection).await?;
    let cluster = cluster.id();
    let mined = if *accept {
        chain.accept_admin(cluster).await?
    } else {
        chain.transfer_admin(cluster, *propose).await?
    };
    Ok(json!({
        "cluster": format!("0x{cluster}"),
        "admin": format!("0x{}", chain.cluster(cluster).await?.admin),
        "proposed": propose.map(|account| format!("0x{account}")),
        "transaction": format!("0x{}", mined.transaction),
    }))
}

pub(super) async fn dispute(command: &Dispute) -> Result<Value, Failure> {
    match command {
        Dispute::Claim { account, contract, connection } => {
            let chain = contract.connect_to_send(connection).await?;
            let account = account.or_else(|| chain.account()).ok_or_else(|| {
                Failure::usage("nobody signs: give --keystore, or set VEIL_CHAIN_KEY")
            })?;
            let amount = chain.claimable(account).await?;
            let mined = chain.claim(account).await?;
            Ok(json!({
                "account": format!("0x{account}"),
                "paid_wei": amount.to_string(),
                "transaction": format!("0x{}", mined.transaction),
            }))
        }
        Dispute::Lapse { id, contract, connection } => {
            let chain = contract.connect_to_send(connection).await?;
            let mined = chain.lapse_challenge(*id).await?;
            Ok(json!({ "id": id, "transaction": format!("0x{}", mined.transaction) }))
        }
    }
}
