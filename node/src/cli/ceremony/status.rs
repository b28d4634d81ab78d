//! `veil ceremony status`: which step, who is outstanding, since when; from the files of a member
//! that takes part, or did, and from the chain.

use std::io;

use clap::Args;
use veil_node_ceremony::{CommitPointChain, CommitPointError, read_status, show, status_file};
use veil_node_config::MemberConfig;
use veil_node_storage::data_dir::DataDir;

use super::{Common, connect, load};
use crate::cli::{
    failure::{Exit, Failure},
    output::Shown,
    run::{block_on, conclude},
    watch::Watch,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    watch: Watch,
}

pub(in crate::cli) fn run(arguments: &Arguments) -> Exit {
    conclude(arguments.common.json, block_on(carry_out(arguments)))
}

async fn carry_out(arguments: &Arguments) -> Result<Exit, Failure> {
    let config = load(&arguments.common)?;
    arguments
        .watch
        .show(arguments.common.json, async || look(&config, &arguments.common).await)
        .await
}

async fn look(config: &MemberConfig, common: &Common) -> Result<Shown, Failure> {
    let data_dir = &config.node.data_dir;
    let local = match read_status(data_dir) {
        Ok(status) => Some(status),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Failure::file(&status_file(data_dir))(error)),
    };
    let running = DataDir::is_locked(data_dir);
    // Without the chain the local part is still worth knowing.
    let chain = match connect(config, common).await {
        Ok((_, commit_point)) => match commit_point.latest().await {
            Ok(proposal) => Ok(Some(proposal)),
            Err(CommitPointError::NotProposed { .. }) => Ok(None),
            Err(error) => Err(error.to_string()),
        },
        Err(failure) => Err(failure.message),
    };
    let exit = if chain.is_err() { Exit::Failed } else { Exit::Done };
    let object = show::as_json(&chain, local.as_ref(), running);
    let text = |out: &mut dyn io::Write| show::write(out, &chain, local.as_ref(), running);
    let mut shown = Shown::new(&object, text)?;
    shown.exit = exit;
    Ok(shown)
}
