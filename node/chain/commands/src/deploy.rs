//! `veil chain deploy` and `veil chain verify-deployment`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use veil_node_chain::{Chain, DeployOptions};
use veil_node_config::parse_address;
use veil_node_storage::durable::write_new;
use veil_node_terminal::waiting;
use veil_protocol_spec::{Address, scheduling::keccak};

use crate::{
    arguments::{Connection, Contract},
    error::CommandError,
};

/// The salt of who does not give one, which is a name like any other.
const SALT: &str = "veil";

/// `veil chain deploy`.
#[derive(Debug, Args)]
pub struct Deploy {
    /// The deployment file to write; nothing is overwritten.
    #[arg(long, value_name = "FILE", default_value = "veil-deployment.json")]
    out: PathBuf,
    /// Seconds between a decision of governance and its effect; if not given, none on a local chain and
    /// two days on others.
    #[arg(long, value_name = "S")]
    timelock_delay: Option<u64>,
    /// Who proposes to governance and carries out what it decided, such as a Safe; if not given, this account.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    governor: Option<Address>,
    /// Who may pause new work; the governor if not given.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    guardian: Option<Address>,
    /// Blocks between the request of an election and the block that decides it; if not given, 1 on a
    /// local chain and 128 on others.
    #[arg(long, value_name = "BLOCKS")]
    election_delay: Option<u64>,
    /// Seconds that nodes have to come before the candidates of an election can be frozen; if not given, none on a
    /// local chain and a day on others.
    #[arg(long, value_name = "S")]
    registration_window: Option<u64>,
    /// Deploy through the deterministic deployer, to addresses that follow from this text and the other options. What is
    /// on the chain already is left out: repeat the command to go on after a failure. --unsigned implies it.
    #[arg(long, value_name = "TEXT")]
    salt: Option<String>,
    /// How to reach the chain, and who signs.
    #[command(flatten)]
    pub connection: Connection,
}

/// `veil chain verify-deployment`.
#[derive(Debug, Args)]
pub struct Verify {
    #[command(flatten)]
    contract: Contract,
    /// How to reach the chain.
    #[command(flatten)]
    pub connection: Connection,
}

/// Deploys, and writes the deployment file.
///
/// # Errors
/// [`CommandError`].
pub async fn deploy(arguments: &Deploy) -> Result<Value, CommandError> {
    // Before anything is paid for.
    if arguments.out.exists() {
        return Err(CommandError::Exists(arguments.out.clone()));
    }
    let config = arguments.connection.config(Address([0; 20]))?;
    let options = DeployOptions {
        timelock_delay: arguments.timelock_delay,
        governor: arguments.governor,
        guardian: arguments.guardian,
        election_delay: arguments.election_delay,
        registration_window: arguments.registration_window,
    };
    waiting::on("deploying the contracts, a transaction each, and waiting until all are mined");
    let salt = arguments.salt.as_deref();
    let salt = salt.or_else(|| config.draft.map(|_| SALT));
    let (_, deployment) = match salt {
        Some(salt) => {
            if config.draft.is_some_and(|draft| draft.from.or(arguments.governor).is_none()) {
                return Err(CommandError::NobodySigns);
            }
            Chain::deploy_deterministic(config, options, keccak(salt.as_bytes()).0).await?
        }
        None => Chain::deploy_with(config, options).await?,
    };
    write_new(&arguments.out, 0o644, deployment.to_text().as_bytes())?;
    let mut report = json!(deployment);
    report["file"] = json!(arguments.out);
    Ok(report)
}

/// Compares what is deployed with what was built.
///
/// # Errors
/// [`CommandError`]; `Deployment` with the first difference.
pub async fn verify(arguments: &Verify) -> Result<Value, CommandError> {
    let chain = arguments.contract.connect(&arguments.connection).await?;
    waiting::on("comparing the contracts' code");
    let verified = chain.verify_deployment().await??;
    let mut report = json!(verified);
    report["verified"] = json!(true);
    Ok(report)
}
