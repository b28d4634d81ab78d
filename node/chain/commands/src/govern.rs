//! `veil chain govern` and `veil chain pause`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use veil_node_chain::{Chain, Decision, GovernedCall, Operation, OperationState};
use veil_node_config::parse_address;
use veil_protocol_spec::{Address, KeccakDigest, hex};

use crate::{
    arguments::{Connection, Contract},
    error::CommandError,
};

/// `veil chain govern`.
#[derive(Debug, Subcommand)]
pub enum Govern {
    /// Announce a decision, as the governor; it can be carried out after the timelock's delay.
    Schedule(Schedule),
    /// Carry out a decision whose time has come, as the governor.
    Execute(Named),
    /// Take back a decision that was not carried out, as the governor.
    Cancel(Named),
    /// List what was decided, and where it stands.
    List(List),
}

/// `veil chain govern schedule`.
#[derive(Debug, Args)]
pub struct Schedule {
    #[command(flatten)]
    what: What,
    /// In wei, of what the timelock has, with --call.
    #[arg(long, value_name = "WEI", default_value_t = 0, requires = "call")]
    value: u128,
    /// The call's data in hexadecimal, with --call.
    #[arg(long, value_name = "HEX", default_value = "0x", requires = "call")]
    data: String,
    /// Seconds until it can be carried out; the timelock's own delay if not given, which is the least.
    #[arg(long, value_name = "S")]
    after: Option<u64>,
    #[command(flatten)]
    contract: Contract,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// Name the guardian, who may pause new work.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    guardian: Option<Address>,
    /// Have no guardian.
    #[arg(long)]
    no_guardian: bool,
    /// Pause new work.
    #[arg(long)]
    pause: bool,
    /// End the pause.
    #[arg(long)]
    unpause: bool,
    /// Set the delay between a decision and its effect, in seconds.
    #[arg(long, value_name = "S")]
    delay: Option<u64>,
    /// Call any contract, with --data and --value.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    call: Option<Address>,
}

/// `veil chain govern execute` and `cancel`.
#[derive(Debug, Args)]
pub struct Named {
    /// The operation's id, from `veil chain govern list`.
    #[arg(value_name = "ID")]
    id: KeccakDigest,
    #[command(flatten)]
    contract: Contract,
    #[command(flatten)]
    connection: Connection,
}

/// `veil chain govern list`.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    contract: Contract,
    #[command(flatten)]
    connection: Connection,
}

/// `veil chain pause`.
#[derive(Debug, Args)]
pub struct Pause {
    /// End the pause.
    #[arg(long)]
    end: bool,
    #[command(flatten)]
    contract: Contract,
    /// How to reach the chain, and who signs.
    #[command(flatten)]
    pub connection: Connection,
}

impl Govern {
    /// How to reach the chain.
    #[must_use]
    pub const fn connection(&self) -> &Connection {
        match self {
            Self::Schedule(Schedule { connection, .. })
            | Self::Execute(Named { connection, .. })
            | Self::Cancel(Named { connection, .. })
            | Self::List(List { connection, .. }) => connection,
        }
    }
}

impl Schedule {
    fn decision(&self) -> Result<Decision, CommandError> {
        let What { guardian, pause, delay, call, .. } = &self.what;
        Ok(if let Some(to) = *call {
            Decision::Call(GovernedCall::new(to, self.value, bytes(&self.data)?))
        } else if let Some(seconds) = delay {
            Decision::Delay(*seconds)
        } else if *pause || self.what.unpause {
            Decision::Pause(*pause)
        } else {
            Decision::Guardian(*guardian)
        })
    }
}

fn bytes(text: &str) -> Result<Vec<u8>, CommandError> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let wrong = || CommandError::Data(text.to_owned());
    if !digits.len().is_multiple_of(2) {
        return Err(wrong());
    }
    let pairs = digits.as_bytes().chunks(2).map(|pair| {
        let pair = core::str::from_utf8(pair).ok().filter(|pair| !pair.contains('+'))?;
        u8::from_str_radix(pair, 16).ok()
    });
    pairs.collect::<Option<_>>().ok_or_else(wrong)
}

/// An operation, as it stands.
fn described(operation: &Operation) -> Value {
    let (state, from) = match operation.state {
        OperationState::Waiting(from) => ("waiting", Some(from)),
        OperationState::Ready(from) => ("ready", Some(from)),
        OperationState::Done => ("done", None),
        OperationState::Cancelled => ("cancelled", None),
    };
    let calls = operation.calls.iter().map(|call| {
        json!({
            "to": format!("0x{}", call.to),
            "value_wei": call.value.to_string(),
            "data": format!("0x{}", hex(&call.data)),
        })
    });
    json!({
        "id": format!("0x{}", operation.id),
        "state": state,
        "from": from,
        "calls": calls.collect::<Vec<_>>(),
    })
}

/// Schedules a decision, and describes the operation.
pub(crate) async fn schedule(
    chain: &Chain,
    decision: &Decision,
    after: Option<u64>,
) -> Result<Value, CommandError> {
    let (id, mined) = chain.schedule(decision, after).await?;
    let scheduled = chain.operations().await?.into_iter().find(|operation| operation.id == id);
    let mut report = scheduled.as_ref().map_or_else(|| json!({}), described);
    report["transaction"] = json!(format!("0x{}", mined.transaction));
    Ok(report)
}

/// Carries the command out.
///
/// # Errors
/// [`CommandError`].
pub async fn carry_out(command: &Govern) -> Result<Value, CommandError> {
    match command {
        Govern::Schedule(arguments) => {
            let decision = arguments.decision()?;
            let chain = arguments.contract.connect_to_send(&arguments.connection).await?;
            schedule(&chain, &decision, arguments.after).await
        }
        Govern::Execute(Named { id, contract, connection }) => {
            let chain = contract.connect_to_send(connection).await?;
            let mined = chain.execute(*id).await?;
            Ok(json!({
                "id": format!("0x{id}"),
                "state": "done",
                "transaction": format!("0x{}", mined.transaction),
            }))
        }
        Govern::Cancel(Named { id, contract, connection }) => {
            let chain = contract.connect_to_send(connection).await?;
            let mined = chain.cancel_operation(*id).await?;
            Ok(json!({
                "id": format!("0x{id}"),
                "state": "cancelled",
                "transaction": format!("0x{}", mined.transaction),
            }))
        }
        Govern::List(List { contract, connection }) => {
            let chain = contract.connect(connection).await?;
            let operations = chain.operations().await?;
            Ok(json!({
                "timelock": format!("0x{}", chain.timelock().await?),
                "operations": operations.iter().map(described).collect::<Vec<_>>(),
            }))
        }
    }
}

/// Pauses new work, or ends the pause.
///
/// # Errors
/// [`CommandError`].
pub async fn pause(arguments: &Pause) -> Result<Value, CommandError> {
    let chain = arguments.contract.connect_to_send(&arguments.connection).await?;
    let mined = chain.pause(!arguments.end).await?;
    let (until, again) = chain.paused().await?;
    Ok(json!({
        "paused_until": until,
        "pausable_from": again,
        "transaction": format!("0x{}", mined.transaction),
    }))
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn data_is_hexadecimal_text() {
        assert_eq!(bytes("0x00fF").unwrap(), [0_u8, 255]);
        assert!(bytes("0x").unwrap().is_empty());
        for wrong in ["0x0", "0xgg", "0x+1", "é"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
