//! `veil ceremony propose|join|status|abort`: what they share.

pub(super) mod abort;
pub(super) mod join;
pub(super) mod propose;
pub(super) mod status;

use std::path::PathBuf;

use clap::Args;
use veil_node_ceremony::ChainCommitPoint;
use veil_node_chain::{Chain, ChainConfig};
use veil_node_chain_commands::arguments::Drafting;
use veil_node_config::{MemberConfig, process_environment};
use veil_node_core::lifecycle;
use veil_node_storage::keystore::Passphrase;
use veil_node_terminal::waiting;
use veil_protocol_spec::identity::SecretIdentity;

use super::failure::Failure;

/// What every command takes.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// The member's configuration file.
    #[arg(long, env = "VEIL_CONFIG", value_name = "FILE", default_value = "member.toml")]
    config: PathBuf,
    #[command(flatten)]
    drafting: Drafting,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn load(common: &Common) -> Result<MemberConfig, Failure> {
    Ok(MemberConfig::load(&common.config, &process_environment)?)
}

fn passphrase(config: &MemberConfig) -> Result<Passphrase, Failure> {
    Ok(lifecycle::passphrase(&config.node, &process_environment)?)
}

fn identity(config: &MemberConfig, passphrase: &Passphrase) -> Result<SecretIdentity, Failure> {
    waiting::on("decrypting the identity");
    Ok(lifecycle::open_identity(&config.node, passphrase)?)
}

async fn connect(
    config: &MemberConfig,
    common: &Common,
) -> Result<(Chain, ChainCommitPoint), Failure> {
    waiting::on("connecting to the chain");
    let draft = common.drafting.draft();
    let key = if draft.is_some() { None } else { lifecycle::account(&config.chain)? };
    let chain = Chain::connect(ChainConfig { draft, ..config.chain.connection(key) }).await?;
    let commit_point = ChainCommitPoint::new(chain.clone(), config.chain.cluster);
    Ok((chain, commit_point))
}
