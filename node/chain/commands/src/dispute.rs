//! `veil chain dispute`: challenges of what a slot computed, and what disputes pay.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use veil_node_api::client::{Client, ClientError};
use veil_node_chain::{Chain, Decision};
use veil_node_config::parse_address;
use veil_node_terminal::waiting;
use veil_protocol_spec::{
    Address, Blake3Digest, PeerIdHash, Slot,
    scheduling::{CertificateBody, SlotRecord},
};

use crate::{
    arguments::{Connection, Contract, Where},
    error::CommandError,
    govern::schedule,
};

/// `veil chain dispute`.
#[derive(Debug, Subcommand)]
pub enum Dispute {
    /// Question what a slot computed, with a bond of 0.1 ether. The certificates come from the node that is asked.
    Challenge(Challenge),
    /// Decide a challenge, as the governor: this announces the decision, which `veil chain govern execute` carries out
    /// after the timelock's delay.
    Resolve(Resolve),
    /// Pay an account its rewards and bonds.
    Claim {
        /// The account; the one that signs if it is not given.
        #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
        account: Option<Address>,
        /// Where the contracts are.
        #[command(flatten)]
        contract: Contract,
        /// How to reach the chain, and who signs.
        #[command(flatten)]
        connection: Connection,
    },
    /// End a challenge that governance has not decided in time; its bond goes back.
    Lapse {
        /// The challenge's number, from the event `ChallengeOpened`.
        id: u64,
        /// Where the contracts are.
        #[command(flatten)]
        contract: Contract,
        /// How to reach the chain, and who signs.
        #[command(flatten)]
        connection: Connection,
    },
}

/// `veil chain dispute challenge`.
#[derive(Debug, Args)]
pub struct Challenge {
    /// The slot.
    #[arg(value_name = "SLOT")]
    slot: u64,
    /// Digest of what executing the slot anew gave, for governance to compare.
    #[arg(long, value_name = "DIGEST")]
    evidence: Blake3Digest,
    #[command(flatten)]
    place: Where,
}

/// `veil chain dispute resolve`.
#[derive(Debug, Args)]
pub struct Resolve {
    /// The challenge's number, from the event `ChallengeOpened`.
    id: u64,
    #[command(flatten)]
    outcome: Outcome,
    /// A member whose fault it is, by its peer id hash, which loses stake; may be given several times.
    #[arg(long, value_name = "HASH", conflicts_with = "reject")]
    culprit: Vec<PeerIdHash>,
    #[command(flatten)]
    contract: Contract,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Outcome {
    /// The challenger is right: its bond goes back.
    #[arg(long)]
    uphold: bool,
    /// The challenger is wrong: its bond goes to the operators of the committee.
    #[arg(long)]
    reject: bool,
}

impl Dispute {
    /// How to reach the chain.
    #[must_use]
    pub const fn connection(&self) -> &Connection {
        match self {
            Self::Challenge(arguments) => &arguments.place.connection,
            Self::Resolve(arguments) => &arguments.connection,
            Self::Claim { connection, .. } | Self::Lapse { connection, .. } => connection,
        }
    }

    /// Whether it asks a node.
    #[must_use]
    pub const fn asks_a_node(&self) -> bool {
        matches!(self, Self::Challenge(_))
    }
}

/// Carries the command out; `node` is the one that is asked, if it asks one.
///
/// # Errors
/// [`CommandError`].
pub async fn carry_out(command: &Dispute, node: Option<&Client>) -> Result<Value, CommandError> {
    match command {
        Dispute::Challenge(arguments) => {
            let Where { cluster, contract, connection } = &arguments.place;
            let chain = contract.connect(connection).await?;
            let head = chain.head(cluster.id()).await?;
            let slot = Slot(arguments.slot);
            let last = head.filter(|head| head.slot >= slot);
            let last = last.ok_or(CommandError::NotYet { slot })?.slot;
            let certificates = match node {
                Some(node) => certificates(node, slot, last).await?,
                None => return Err(CommandError::NoChain { from: slot, to: last }),
            };
            let id = chain.challenge_evaluation(&certificates, arguments.evidence).await?;
            Ok(json!({ "id": id, "slot": slot.0, "bond_wei": "100000000000000000" }))
        }
        Dispute::Resolve(arguments) => {
            let chain = arguments.contract.connect_to_send(&arguments.connection).await?;
            let (id, upheld) = (arguments.id, arguments.outcome.uphold);
            let culprits = arguments.culprit.clone();
            schedule(&chain, &Decision::Resolve { id, upheld, culprits }, None).await
        }
        Dispute::Claim { account, contract, connection } => {
            let chain = contract.connect_to_send(connection).await?;
            let account = account.or_else(|| chain.account());
            claim(&chain, account.ok_or(CommandError::NobodySigns)?).await
        }
        Dispute::Lapse { id, contract, connection } => {
            let chain = contract.connect_to_send(connection).await?;
            let mined = chain.lapse_challenge(*id).await?;
            Ok(json!({ "id": id, "transaction": format!("0x{}", mined.transaction) }))
        }
    }
}

async fn claim(chain: &Chain, account: Address) -> Result<Value, CommandError> {
    let amount = chain.claimable(account).await?;
    let mined = chain.claim(account).await?;
    Ok(json!({
        "account": format!("0x{account}"),
        "paid_wei": amount.to_string(),
        "transaction": format!("0x{}", mined.transaction),
    }))
}

/// The certificates of a slot and of all after it, up to one that is anchored.
async fn certificates(
    node: &Client,
    from: Slot,
    to: Slot,
) -> Result<Vec<CertificateBody>, CommandError> {
    let mut found: Vec<CertificateBody> = Vec::new();
    for slot in from.0..=to.0 {
        waiting::on(format_args!("reading slot {slot} from the node at {}", node.address()));
        match node.get::<SlotRecord>(&format!("/v1/slots/{slot}")).await {
            Ok(record) => found.push(record.certificate.body),
            // It was void, or is not kept, which the links tell.
            Err(ClientError::Refused(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let ends = |end: Option<&CertificateBody>| end.map(|body| body.slot);
    let (first, last) = (ends(found.first()), ends(found.last()));
    let links = found.iter().zip(found.iter().skip(1));
    let is_chain = links.into_iter().all(|(one, next)| one.hash() == next.previous);
    if is_chain && (first, last) == (Some(from), Some(to)) {
        return Ok(found);
    }
    Err(CommandError::NoChain { from, to })
}
