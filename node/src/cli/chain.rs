//! `veil chain`.

mod approve;
pub(super) mod eligibility;
mod fees;
mod image;
mod policy;
mod watch;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use veil_node_chain::{Allowance, ClusterSettings, NodeRegistration, Rights};
use veil_node_chain_commands::{
    CommandError,
    arguments::{ClusterArgument, Connection, Contract},
    custody,
    deploy::{self, Deploy, Verify},
    dispute::{self, Dispute},
    elect,
    govern::{self, Govern, Pause},
};
use veil_node_config::parse_address;
use veil_node_operator::{chain, show};
use veil_protocol_spec::{
    Address, ClusterId, Committee, KeccakDigest, PeerIdHash, Wire as _,
    registry::Roles,
    scheduling::{Label, Organisation, keccak},
};

use super::{
    asking::Asking,
    failure::{Exit, Failure},
    identity::IdentityArguments,
    output,
    run::{block_on, conclude},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Deploy the contracts to the chain behind --rpc, and write where they are.
    Deploy(Deploy),
    /// Compare the code of the deployed contracts, and how they belong together, with what was built.
    VerifyDeployment(Verify),
    /// Register a cluster; this account becomes its admin.
    Cluster(NewCluster),
    /// Admit a node, under its operator's account, in these roles and of this organisation, as the cluster's admin;
    /// `veil chain register` uses that up.
    Approve(approve::Approve),
    /// Say what an account may do, and how much of it.
    Grant(Grant),
    /// Register a node of this account, proving possession of its identity.
    Register(Register),
    /// Add to a node's stake.
    Stake(Stake),
    /// Take a node out of the cluster; its stake enters the exit queue. A member of an elected cluster, its admin takes
    /// out in two calls: the first announces it for the election after the next one.
    Exit(NodeArguments),
    /// Pay the stake of a node that left to its withdrawal address, or to its operator.
    Withdraw(NodeArguments),
    /// Say where the stake of a node goes when it is paid.
    Payout(Payout),
    /// Give the cluster to another admin, which has to accept.
    Admin(custody::Admin),
    /// Question what a slot computed, have that decided, and claim rewards and bonds.
    #[command(subcommand)]
    Dispute(Dispute),
    /// What the timelock decides: announce it, carry it out, take it back, list it.
    #[command(subcommand)]
    Govern(Govern),
    /// Pause new work for a week, as the guardian: nodes may still leave, and what runs goes on.
    Pause(Pause),
    /// Show, fill and claim what steps on the chain are paid back from.
    #[command(subcommand)]
    Fees(fees::Command),
    /// Show or replace the cluster's policy.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Allow, revoke and prove images.
    #[command(subcommand)]
    Image(image::Command),
    /// Elect the committee of the next epoch.
    #[command(subcommand)]
    Elect(elect::Command),
    /// Print the contracts' events as they come, one a line.
    Watch(watch::Arguments),
    /// Show the contracts, and a cluster with its nodes, key and last certificate.
    Status(Status),
}

#[derive(Debug, Args)]
pub(super) struct NewCluster {
    /// Tells the clusters of one admin apart.
    #[arg(long, default_value = "default")]
    name: String,
    /// Size of the committee: 4, 7, 10 or 13, or 1 for development.
    #[arg(long, default_value = "4", value_parser = parse_committee)]
    committee: Committee,
    /// Spares behind the committee.
    #[arg(long, default_value_t = 0, value_name = "N")]
    standbys: u8,
    /// Elect committees by stake; if not given, they are the first members in the registry's list.
    #[arg(long)]
    elected: bool,
    /// With --elected on a chain of which it is not known: its prevrandao, which draws the committees, is chosen by
    /// nobody.
    #[arg(long, requires = "elected")]
    assume_prevrandao: bool,
    /// Most seats of one organisation; 0 for no limit.
    #[arg(long, default_value_t = 0, value_name = "N")]
    seats_per_organisation: u8,
    /// Least stake of a member to be elected, in wei.
    #[arg(long, default_value_t = 0, value_name = "WEI")]
    member_stake: u128,
    /// Seconds for which what widens rights or policy is announced before it holds.
    #[arg(long, default_value_t = 0, value_name = "S")]
    widening_delay: u32,
    /// Admit workers only with the admin's approval, as members always are.
    #[arg(long)]
    closed: bool,
    /// Longest time between slots while work is pending, in milliseconds.
    #[arg(long, default_value = "10000", value_name = "MS")]
    slot_millis: u64,
    /// File with the scheduling policy; `veil config sample --role policy` prints one.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    contract: Contract,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(super) struct Grant {
    #[command(flatten)]
    cluster: ClusterArgument,
    /// The account; the one that signs if it is not given: an admin may submit nothing either until
    /// it says so.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    account: Option<Address>,
    /// What it may do; may be given twice.
    #[arg(long, value_enum, default_values = ["submit"])]
    right: Vec<Right>,
    /// Jobs on one day (UTC).
    #[arg(long, default_value_t = 1000, value_name = "N")]
    jobs: u32,
    /// Bits that the placement of these jobs may tell about others' load, on one day.
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    leak_bits: u32,
    /// Take everything away.
    #[arg(long, conflicts_with_all = ["right", "jobs", "leak_bits"])]
    revoke: bool,
    #[command(flatten)]
    contract: Contract,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Right {
    Submit,
    Images,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    Worker,
    Member,
}

#[derive(Debug, Args)]
pub(super) struct Register {
    #[command(flatten)]
    cluster: ClusterArgument,
    /// For what; may be given twice.
    #[arg(long, value_enum, required = true)]
    role: Vec<Role>,
    #[command(flatten)]
    identity: IdentityArguments,
    /// Who runs the node, as the admin approved it, which is the default; the admin says it of its own nodes.
    #[arg(long, value_name = "NAME")]
    organisation: Option<Organisation>,
    /// A public label, key=value; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<Label>,
    /// Stake to send along, in wei.
    #[arg(long, default_value_t = 0, value_name = "WEI")]
    stake: u128,
    #[command(flatten)]
    contract: Contract,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(super) struct Stake {
    /// How much, in wei.
    #[arg(long, value_name = "WEI")]
    amount: u128,
    #[command(flatten)]
    node: NodeArguments,
}

#[derive(Debug, Args)]
pub(super) struct Payout {
    /// The account. The node's operator says so once; from then on only that account may change it.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    to: Address,
    #[command(flatten)]
    node: NodeArguments,
}

#[derive(Debug, Args)]
pub(super) struct NodeArguments {
    #[command(flatten)]
    cluster: ClusterArgument,
    /// The node's peer id hash.
    #[arg(long, value_name = "HASH")]
    peer: PeerIdHash,
    #[command(flatten)]
    contract: Contract,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(super) struct Status {
    /// The cluster to show.
    #[arg(long, env = "VEIL_CLUSTER", value_name = "ID")]
    cluster: Option<ClusterId>,
    #[command(flatten)]
    contract: Contract,
    #[command(flatten)]
    connection: Connection,
}

fn roles_of(named: &[Role]) -> Roles {
    Roles { worker: named.contains(&Role::Worker), member: named.contains(&Role::Member) }
}

fn parse_committee(text: &str) -> Result<Committee, String> {
    let n: u8 = text.parse().map_err(|_| format!("{text} is not a number"))?;
    Committee::new(n).map_err(|error| error.to_string())
}

pub(super) fn run(command: &Command, asking: &Asking) -> Exit {
    let json = json(command);
    let ended = block_on(async {
        if let Command::Watch(arguments) = command {
            return watch::run(arguments).await;
        }
        let report = carry_out(command, asking).await?;
        output::show(json, &report, |out| show::write_report(out, &report, 0))?;
        Ok(Exit::Done)
    });
    conclude(json, ended)
}

const fn json(command: &Command) -> bool {
    let connection = match command {
        Command::Deploy(a) => &a.connection,
        Command::VerifyDeployment(a) => &a.connection,
        Command::Cluster(a) => &a.connection,
        Command::Approve(a) => &a.place.connection,
        Command::Grant(a) => &a.connection,
        Command::Register(a) => &a.connection,
        Command::Stake(a) => &a.node.connection,
        Command::Exit(a) | Command::Withdraw(a) => &a.connection,
        Command::Payout(a) => &a.node.connection,
        Command::Admin(a) => &a.place.connection,
        Command::Dispute(a) => a.connection(),
        Command::Govern(a) => a.connection(),
        Command::Pause(a) => &a.connection,
        Command::Fees(a) => a.connection(),
        Command::Policy(a) => a.connection(),
        Command::Image(a) => a.connection(),
        Command::Elect(a) => a.connection(),
        Command::Watch(a) => return a.reach.json,
        Command::Status(a) => &a.connection,
    };
    connection.json()
}

async fn carry_out(command: &Command, asking: &Asking) -> Result<Value, Failure> {
    match command {
        Command::Deploy(arguments) => Ok(deploy::deploy(arguments).await?),
        Command::VerifyDeployment(arguments) => Ok(deploy::verify(arguments).await?),
        Command::Cluster(arguments) => cluster(arguments).await,
        Command::Approve(arguments) => approve::carry_out(arguments).await,
        Command::Grant(arguments) => {
            let to = arguments.contract.connect_to_send(&arguments.connection).await?;
            let rights = arguments.right.iter().fold(Rights::NONE, |all, right| {
                all.and(match right {
                    Right::Submit => Rights::SUBMIT,
                    Right::Images => Rights::IMAGES,
                })
            });
            let allowance = if arguments.revoke {
                Allowance::NONE
            } else {
                Allowance {
                    rights,
                    jobs_per_day: arguments.jobs,
                    leak_bits_per_day: arguments.leak_bits,
                }
            };
            let cluster = arguments.cluster.id();
            let account = arguments.account.or_else(|| to.account());
            let account = account.ok_or(CommandError::NobodySigns)?;
            Ok(chain::grant(&to, cluster, account, allowance).await?)
        }
        Command::Register(arguments) => register(arguments).await,
        Command::Stake(Stake { amount, node }) => {
            let chain = node.contract.connect_to_send(&node.connection).await?;
            let mined = chain.increase_stake(node.cluster.id(), node.peer, *amount).await?;
            Ok(node.report(mined.transaction))
        }
        Command::Exit(node) => {
            let chain = node.contract.connect_to_send(&node.connection).await?;
            let mined = chain.exit_node(node.cluster.id(), node.peer).await?;
            let mut report = node.report(mined.transaction);
            report["left"] = json!(chain.node(node.cluster.id(), node.peer).await?.is_none());
            Ok(report)
        }
        Command::Withdraw(node) => {
            let chain = node.contract.connect_to_send(&node.connection).await?;
            Ok(node.report(chain.withdraw_stake(node.cluster.id(), node.peer).await?.transaction))
        }
        Command::Payout(Payout { to, node }) => {
            let chain = node.contract.connect_to_send(&node.connection).await?;
            let mined = chain.set_withdrawal_address(node.cluster.id(), node.peer, *to).await?;
            Ok(node.report(mined.transaction))
        }
        Command::Admin(arguments) => Ok(custody::admin(arguments).await?),
        Command::Dispute(command) => {
            let node = command.asks_a_node().then(|| asking.client(None)).transpose()?;
            Ok(dispute::carry_out(command, node.as_ref()).await?)
        }
        Command::Govern(command) => Ok(govern::carry_out(command).await?),
        Command::Pause(arguments) => Ok(govern::pause(arguments).await?),
        Command::Fees(command) => fees::carry_out(command).await,
        Command::Policy(command) => policy::carry_out(command, asking).await,
        Command::Image(command) => image::carry_out(command).await,
        Command::Elect(command) => Ok(elect::carry_out(command).await?),
        // It prints as it goes.
        Command::Watch(_) => Ok(Value::Null),
        Command::Status(arguments) => {
            let to = arguments.contract.connect(&arguments.connection).await?;
            Ok(chain::describe(&to, arguments.cluster).await?)
        }
    }
}

impl NodeArguments {
    fn report(&self, transaction: KeccakDigest) -> Value {
        json!({
            "peer": format!("0x{}", self.peer),
            "transaction": format!("0x{transaction}"),
        })
    }
}

async fn cluster(arguments: &NewCluster) -> Result<Value, Failure> {
    let policy = match &arguments.policy {
        Some(path) => policy::read(path)?.public().map_err(Failure::usage)?.to_wire(),
        None => Vec::new(),
    };
    let chain = arguments.contract.connect_to_send(&arguments.connection).await?;
    if arguments.elected && !arguments.assume_prevrandao && !chain.has_usable_prevrandao() {
        return Err(Failure::usage(format!(
            "on chain {} who builds a block may choose its prevrandao, which draws committees: leave out --elected, use another chain, or say --assume-prevrandao if you know better",
            chain.chain_id()
        )));
    }
    let settings = ClusterSettings {
        salt: keccak(arguments.name.as_bytes()).0,
        committee: arguments.committee,
        standbys: arguments.standbys,
        seats_per_organisation: arguments.seats_per_organisation,
        open_to_workers: !arguments.closed,
        elected: arguments.elected,
        member_stake: arguments.member_stake,
        widening_delay: arguments.widening_delay,
        slot_millis: arguments.slot_millis,
        policy,
    };
    let cluster = chain.register_cluster(&settings).await?;
    Ok(json!({
        "cluster": format!("0x{cluster}"),
        "name": arguments.name,
        "committee": arguments.committee.n(),
        "standbys": arguments.standbys,
        "elected": arguments.elected,
        "open_to_workers": !arguments.closed,
    }))
}

async fn register(arguments: &Register) -> Result<Value, Failure> {
    let identity = arguments.identity.read()?;
    let chain = arguments.contract.connect_to_send(&arguments.connection).await?;
    let cluster = arguments.cluster.id();
    let approved = chain.approval(cluster, PeerIdHash::of(&identity.public())).await?;
    let approved = approved.filter(|approved| Some(approved.operator) == chain.account());
    let registration = NodeRegistration {
        cluster,
        roles: roles_of(&arguments.role),
        organisation: arguments.organisation.clone().or_else(|| approved?.organisation),
        labels: arguments.label.clone(),
        stake: arguments.stake,
    };
    let mined = chain.register_node(&registration, &identity).await?;
    Ok(json!({
        "cluster": format!("0x{}", registration.cluster),
        "peer": format!("0x{}", PeerIdHash::of(&identity.public())),
        "roles": chain::roles(registration.roles),
        "organisation": registration.organisation,
        "stake_wei": registration.stake.to_string(),
        "transaction": format!("0x{}", mined.transaction),
        "gas": mined.gas,
    }))
}
