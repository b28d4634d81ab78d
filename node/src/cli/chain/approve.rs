//! `veil chain approve`: whom a cluster's admin admits, and as what.

use clap::Args;
use serde_json::{Value, json};
use veil_node_chain::NodeApproval;
use veil_node_chain_commands::arguments::Where;
use veil_node_config::{job_file::quantity::seconds, parse_address};
use veil_node_operator::chain;
use veil_protocol_spec::{Address, PeerIdHash, scheduling::Organisation};

use super::{Role, roles_of};
use crate::cli::failure::Failure;

#[derive(Debug, Args)]
pub(in crate::cli) struct Approve {
    /// The node's peer id hash, as `veil identity show` prints it.
    #[arg(long, value_name = "HASH")]
    peer: PeerIdHash,
    /// The account that may register it.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address, required_unless_present = "withdraw")]
    operator: Option<Address>,
    /// All of its roles; may be given twice.
    #[arg(long, value_enum, required_unless_present = "withdraw")]
    role: Vec<Role>,
    /// Who runs it, which jobs may ask for: at most 32 characters. If not given, nobody vouches for it.
    #[arg(long, value_name = "NAME")]
    organisation: Option<Organisation>,
    /// For how long it can be used, such as 12h or 30d; 90 days at most.
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = seconds)]
    valid_for: u64,
    /// Make void what was approved and not used. A node that has registered stays: `veil chain exit` takes it out.
    #[arg(long, conflicts_with_all = ["operator", "role", "organisation", "valid_for"])]
    withdraw: bool,
    #[command(flatten)]
    pub(super) place: Where,
}

pub(super) async fn carry_out(arguments: &Approve) -> Result<Value, Failure> {
    let Approve { peer, place: Where { cluster, contract, connection }, .. } = arguments;
    let chain = contract.connect_to_send(connection).await?;
    let Some(operator) = arguments.operator else {
        let mined = chain.withdraw_approval(cluster.id(), *peer).await?;
        return Ok(json!({
            "peer": format!("0x{peer}"),
            "withdrawn": true,
            "transaction": format!("0x{}", mined.transaction),
        }));
    };
    let approval = NodeApproval {
        operator,
        roles: roles_of(&arguments.role),
        organisation: arguments.organisation.clone(),
        valid_until: chain.time().await?.saturating_add(arguments.valid_for),
    };
    let mined = chain.approve_node(cluster.id(), *peer, &approval).await?;
    Ok(json!({
        "cluster": format!("0x{}", cluster.id()),
        "peer": format!("0x{peer}"),
        "operator": format!("0x{operator}"),
        "roles": chain::roles(approval.roles),
        "organisation": approval.organisation,
        "valid_until": approval.valid_until,
        "transaction": format!("0x{}", mined.transaction),
    }))
}
