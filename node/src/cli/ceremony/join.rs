//! `veil ceremony join`.

use std::{sync::Arc, time::Duration};

use clap::Args;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use veil_node_ceremony::P2pTransports;
use veil_node_ceremony::{
    CeremonyError, CeremonyProgress, CeremonyStatus, CeremonyTiming, FinishedKey, Member,
    MemberOptions, join, unix_seconds,
};
use veil_node_chain::{Chain, ChainError};
use veil_node_p2p::{Directory, Network, NetworkConfig, Peer};
use veil_node_storage::data_dir::DataDir;
use veil_node_terminal::{progress::Stages, waiting};
use veil_protocol_spec::{ClusterId, PeerIdHash};

use super::{Common, connect, identity, load, passphrase};
use crate::cli::{
    failure::{Exit, Failure},
    output::{self, Reader},
    run::{block_on, conclude},
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Take part in so many attempts, each after the one before has failed.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: u32,
}

/// Between two lines about what a step waits for.
const REMINDER_INTERVAL: Duration = Duration::from_secs(30);

pub(in crate::cli) fn run(arguments: &Arguments) -> Exit {
    conclude(arguments.common.json, block_on(carry_out(arguments)))
}

async fn carry_out(arguments: &Arguments) -> Result<Exit, Failure> {
    let config = load(&arguments.common)?;
    let passphrase = passphrase(&config)?;
    let identity = identity(&config, &passphrase)?;
    let data = Arc::new(DataDir::lock(&config.node.data_dir)?);
    let (chain, commit_point) = connect(&config, &arguments.common).await?;
    let cluster = config.chain.cluster;
    let scope = chain.scope(cluster);
    let registered = directory(&chain, cluster).await?;
    let me = PeerIdHash::of(&identity.public());
    if !registered.get(&me).is_some_and(|peer| peer.roles.member) {
        let message = format!(
            "the identity {} is not registered as a member of this cluster: `veil chain register --role member` does that",
            identity.public()
        );
        return Err(Failure::new(Exit::Failed, "chain", message));
    }
    let (sender, directory) = watch::channel(Arc::new(registered));
    let following = tokio::spawn(follow(chain, cluster, sender));
    let mut network = NetworkConfig::new(identity.clone(), scope);
    (network.listen, network.announce) = (config.network.listen, config.network.announce);
    network.bootstrap = config.network.bootstrap;
    network.swim.incarnation = data.incarnation()?;
    let network = Network::start(network, directory).await?;
    waiting::over();
    let reporter = Stages::default();
    for address in network.addresses() {
        reporter.say(&format!("listening on {address}"));
    }
    let status = CeremonyProgress::default();
    let member = Member {
        options: MemberOptions {
            identity,
            passphrase,
            scope,
            parameters: config.committee.parameters,
            timing: CeremonyTiming::default(),
        },
        data,
        transports: P2pTransports::new(network.clone()),
        chain: Arc::new(commit_point),
        status: status.clone(),
    };
    let stop = CancellationToken::new();
    let joined = async {
        let work = join(&member, arguments.attempts, &stop);
        let shown = show(&reporter, &status);
        let interrupted = async {
            // Without the signal handler the process simply ends, which a restart mends.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
            stop.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            joined = work => joined,
            () = shown => Err(CeremonyError::Interrupted),
            () = interrupted => Err(CeremonyError::Interrupted),
        }
    }
    .await;
    following.abort();
    network.leave().await;
    reporter.finish();
    let key = joined?;
    show_key(arguments.common.json, &key)?;
    Ok(Exit::Done)
}

/// The registered nodes as peers.
async fn directory(chain: &Chain, cluster: ClusterId) -> Result<Directory, ChainError> {
    let nodes = chain.nodes(cluster).await?;
    Ok(nodes.into_iter().map(|node| Peer { identity: node.identity, roles: node.roles }).collect())
}

/// Keeps the directory in step with the registry.
async fn follow(chain: Chain, cluster: ClusterId, sender: watch::Sender<Arc<Directory>>) {
    let mut changes = chain.changes();
    while changes.changed().await.is_ok() {
        match directory(&chain, cluster).await {
            Ok(new) => drop(sender.send_if_modified(|known| {
                let changed = **known != new;
                if changed {
                    *known = Arc::new(new);
                }
                changed
            })),
            Err(error) => tracing::warn!(%error, "the registry cannot be read"),
        }
    }
}

/// Shows progress until it is dropped.
async fn show(reporter: &Stages, board: &CeremonyProgress) {
    let mut status = board.subscribe();
    let mut remind = tokio::time::interval(REMINDER_INTERVAL);
    loop {
        tokio::select! {
            changed = status.changed() => {
                if changed.is_err() {
                    return std::future::pending().await;
                }
                let now = status.borrow_and_update().clone();
                if !now.step.is_empty() {
                    reporter.at(&now.step, now.done.into(), now.total.into());
                }
            }
            _ = remind.tick() => {
                let now = board.now();
                if !now.outstanding.is_empty() {
                    reporter.say(&waiting(&now));
                }
            }
        }
    }
}

fn waiting(status: &CeremonyStatus) -> String {
    let seconds = unix_seconds().saturating_sub(status.since);
    let who: Vec<_> = status.outstanding.iter().map(|of| of.participant.to_string()).collect();
    format!("{} since {seconds} s, waiting for participants {}", status.step, who.join(", "))
}

fn show_key(json: bool, key: &FinishedKey) -> Result<Reader, Failure> {
    let object = json!({
        "outcome": "completed",
        "epoch": key.epoch,
        "attempt": key.attempt,
        "participant": key.participant,
        "keyset_digest": key.key_set,
        "transcript_root": key.transcript_root,
        "reference_string_digest": key.reference_string.digest,
        "folder": key.folder,
    });
    output::show(json, &object, |out| {
        writeln!(out, "key set      {}", key.key_set)?;
        writeln!(out, "epoch        {} (attempt {})", key.epoch, key.attempt)?;
        writeln!(out, "participant  {}", key.participant)?;
        writeln!(out, "folder       {}", key.folder.display())?;
        writeln!(out, "verify with  veil ceremony verify {}", key.folder.display())
    })
}
