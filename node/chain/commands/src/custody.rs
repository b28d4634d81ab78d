//! `veil chain admin`: who has a cluster.

use clap::Args;
use serde_json::{Value, json};
use veil_node_config::parse_address;
use veil_protocol_spec::Address;

use crate::{arguments::Where, error::CommandError};

/// `veil chain admin`.
#[derive(Debug, Args)]
pub struct Admin {
    #[command(flatten)]
    change: Change,
    /// Of which cluster.
    #[command(flatten)]
    pub place: Where,
}

// Of its own: the group would have the other arguments in it.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Change {
    /// Propose this account for the admin's place, as the admin; it has the place once it accepts.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    propose: Option<Address>,
    /// Propose nobody any more, as the admin.
    #[arg(long)]
    withdraw: bool,
    /// Take the admin's place, as the account that was proposed.
    #[arg(long)]
    accept: bool,
}

/// Proposes another admin, or accepts.
///
/// # Errors
/// [`CommandError`].
pub async fn admin(arguments: &Admin) -> Result<Value, CommandError> {
    let Admin { change: Change { propose, accept, .. }, place } = arguments;
    let Where { cluster, contract, connection } = place;
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
