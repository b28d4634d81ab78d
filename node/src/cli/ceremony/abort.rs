//! `veil ceremony abort`.

use clap::Args;
use serde_json::json;
use veil_node_ceremony::{abort, give_up_failed_attempt};
use veil_node_storage::data_dir::{DataDir, DataDirError};
use veil_node_terminal::waiting;

use super::{Common, connect, identity, load, passphrase};
use crate::cli::{
    failure::{Exit, Failure},
    output,
    run::{TRANSACTION, block_on, conclude},
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Why, for the log; its digest is recorded on chain.
    #[arg(long, default_value = "ended by an operator")]
    reason: String,
}

pub(in crate::cli) fn run(arguments: &Arguments) -> Exit {
    conclude(arguments.common.json, block_on(carry_out(arguments)))
}

async fn carry_out(arguments: &Arguments) -> Result<Exit, Failure> {
    let config = load(&arguments.common)?;
    let passphrase = passphrase(&config)?;
    let identity = identity(&config, &passphrase)?;
    let (_, commit_point) = connect(&config, &arguments.common).await?;
    waiting::on(TRANSACTION);
    let aborted = abort(&commit_point, &identity, &arguments.reason).await?;
    // A member that runs sees it on chain and erases by itself.
    let erased = match DataDir::lock(&config.node.data_dir) {
        Ok(data) => {
            give_up_failed_attempt(&commit_point, &data, aborted).await?;
            true
        }
        Err(DataDirError::InUse(_)) => false,
        Err(error) => return Err(error.into()),
    };
    let (epoch, attempt, _) = aborted;
    let object =
        json!({ "epoch": epoch, "attempt": attempt, "status": "aborted", "erased": erased });
    output::show(arguments.common.json, &object, |out| {
        writeln!(out, "epoch {epoch} attempt {attempt}: aborted on chain")?;
        if !erased {
            writeln!(out, "the running member sees that and destroys its secrets")?;
        }
        Ok(())
    })?;
    Ok(Exit::Done)
}
