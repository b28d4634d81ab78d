//! `veil job logs|exec|forward|endpoints`.

mod exec;
mod forward;
mod logs;

use std::sync::Arc;

use clap::Args;
use serde_json::json;
use veil_node_operator::{
    reach::{Named, Way, endpoints},
    table,
};

use super::target::{Access, ForOperator, Target};
use crate::cli::{
    asking::Asking,
    failure::{Exit, Failure},
    output::{self, Shown},
    watch::Watch,
};

pub(super) use self::{
    exec::{Exec, exec},
    forward::{Forward, forward},
    logs::{Logs, logs},
};

/// Which job, and how to get there.
#[derive(Debug, Args)]
pub(super) struct Reaching {
    #[command(flatten)]
    operator: ForOperator,
    #[command(flatten)]
    target: Target,
}

impl Reaching {
    pub(super) const fn json(&self) -> bool {
        self.target.json
    }

    async fn way(&self, asking: &Asking) -> Result<(Arc<Way>, Access), Failure> {
        let access = self.target.resolve(asking)?;
        let (chain, cluster) = access.chain().await?;
        let operator = self.operator.of(&chain)?;
        let node = access.first_node()?.clone();
        Ok((Way::open(chain, cluster, node, operator)?, access))
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Endpoints {
    /// A job, by name, digest or its first digits, and perhaps which replica; otherwise all of the operator's.
    #[arg(value_name = "JOB[/REPLICA]")]
    job: Option<Named>,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    pub(super) reaching: Reaching,
}

pub(super) async fn endpoints(arguments: &Endpoints, asking: &Asking) -> Result<Exit, Failure> {
    let Endpoints { job, watch, reaching } = arguments;
    let (way, access) = reaching.way(asking).await?;
    let look = async || {
        let found = endpoints::look(&way, job.as_ref()).await?;
        let object = json!({ "endpoints": found });
        let devnet = access.devnet.as_ref();
        let name_of = |peer: &_| devnet.map(|devnet| devnet.name_of(peer));
        Shown::new(&object, |out| table::write_endpoints(out, &found, &name_of, output::width()))
    };
    watch.show(reaching.json(), look).await
}
