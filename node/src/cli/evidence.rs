//! `veil evidence`: what a node keeps of faults, handing it out, and taking it to the chain.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use veil_node_api::client::Client;
use veil_node_api::status::{EvidenceFile, EvidenceStatus};
use veil_node_operator::{
    request::{self, Verdict},
    show,
};
use veil_node_storage::durable::write_new;
use veil_node_terminal::waiting;
use veil_protocol_spec::{
    Blake3Digest, Wire,
    evidence::{Evidence, Proof},
    sealing::WrongRequest,
};

use super::{
    asking::Asking,
    failure::{Exit, Failure},
    job::target::Target,
    output,
    run::{TRANSACTION, block_on, conclude},
};

/// Commands about evidence.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// What evidence a node keeps, and what takes it to the chain.
    List(Everything),
    /// Write a piece of evidence into a file, for somebody to examine.
    Export(Export),
    /// Take a piece of evidence to the contract that punishes what it shows.
    Report(One),
    /// Examine a worker's evidence that a job's encrypted request is not that of its sealed limits.
    Request(Request),
}

#[derive(Debug, Args)]
pub(super) struct Everything {
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct One {
    /// Digest of the evidence, from `veil evidence list`, or its first digits.
    #[arg(value_name = "DIGEST")]
    digest: String,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    #[command(flatten)]
    one: One,
    /// Where to write it; nothing is overwritten.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Request {
    /// What the worker has written: `wrong-requests/JOB.json` in its data directory.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    target: Target,
}

/// `veil evidence`.
pub(super) fn run(command: &Command, asking: &Asking) -> Exit {
    let (target, ended) = match command {
        Command::List(arguments) => (&arguments.target, block_on(list(&arguments.target, asking))),
        Command::Export(arguments) => (&arguments.one.target, block_on(export(arguments, asking))),
        Command::Report(arguments) => (&arguments.target, block_on(report(arguments, asking))),
        Command::Request(arguments) => (&arguments.target, block_on(examine(arguments, asking))),
    };
    conclude(target.json, ended)
}

async fn list(target: &Target, asking: &Asking) -> Result<Exit, Failure> {
    let access = target.resolve(asking)?;
    let kept = kept(access.first_node()?).await?;
    output::show(target.json, &json!({ "evidence": kept }), |out| {
        show::write_evidence(out, &kept, output::width())
    })?;
    Ok(Exit::Done)
}

async fn kept(node: &Client) -> Result<Vec<EvidenceStatus>, Failure> {
    waiting::on(format_args!("waiting for the node at {}", node.address()));
    Ok(node.get("/v1/evidence").await?)
}

/// The one whose digest begins like this.
async fn find(node: &Client, wanted: &str) -> Result<Blake3Digest, Failure> {
    if let Ok(digest) = wanted.parse() {
        return Ok(digest);
    }
    let kept = kept(node).await?;
    let begins = |one: &&EvidenceStatus| one.digest.to_string().starts_with(wanted);
    let found: Vec<_> = kept.iter().filter(begins).collect();
    let why = match found.as_slice() {
        [one] => return Ok(one.digest),
        [] => "no evidence that the node keeps begins with",
        _ => "several pieces of evidence begin with",
    };
    Err(Failure::usage(format!("{why} {wanted}: `veil evidence list` names them")))
}

async fn fetch(node: &Client, digest: &Blake3Digest) -> Result<Evidence, Failure> {
    waiting::on(format_args!("waiting for the node at {}", node.address()));
    let file: EvidenceFile = node.get(&format!("/v1/evidence/{digest}")).await?;
    let broken = |error: &dyn core::fmt::Display| {
        Failure::new(Exit::Failed, "node", format!("the node's evidence {digest}: {error}"))
    };
    let digits = file.wire.as_bytes().chunks(2).map(|pair| {
        let pair = str::from_utf8(pair).unwrap_or_default();
        u8::from_str_radix(pair, 16)
    });
    let wire = digits.collect::<Result<Vec<_>, _>>().map_err(|error| broken(&error))?;
    Evidence::from_wire(&wire).map_err(|error| broken(&error))
}

async fn export(arguments: &Export, asking: &Asking) -> Result<Exit, Failure> {
    let Export { one: One { digest, target }, out: file } = arguments;
    let access = target.resolve(asking)?;
    let node = access.first_node()?;
    let digest = &find(node, digest).await?;
    let wire = fetch(node, digest).await?.to_wire();
    write_new(file, 0o644, &wire)?;
    let object = json!({ "digest": digest, "file": file, "bytes": wire.len() });
    output::show(target.json, &object, |out| writeln!(out, "written to {}", file.display()))?;
    Ok(Exit::Done)
}

async fn examine(arguments: &Request, asking: &Asking) -> Result<Exit, Failure> {
    let Request { file, target } = arguments;
    let json = std::fs::read(file).map_err(Failure::file(file))?;
    let evidence: WrongRequest = serde_json::from_slice(&json)
        .map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
    let access = target.resolve(asking)?;
    let (chain, cluster) = access.chain().await?;
    let node = access.first_node()?;
    waiting::on(format_args!("asking the chain and the node at {}", node.address()));
    let judged = request::judge(&chain, cluster, node, evidence).await?;
    let says = match judged.verdict {
        Verdict::OperatorDeviates => "has encrypted another request than it has sealed",
        Verdict::RequestAgrees => {
            "has encrypted what it has sealed: there is nothing wrong with it"
        }
        Verdict::NotCommitted => "has not committed to these limits: this shows nothing",
    };
    output::show(target.json, &judged, |out| {
        writeln!(out, "operator {} of job {} {says}", judged.operator, judged.job)
    })?;
    Ok(if judged.verdict == Verdict::OperatorDeviates { Exit::Done } else { Exit::Failed })
}

async fn report(arguments: &One, asking: &Asking) -> Result<Exit, Failure> {
    let One { digest, target } = arguments;
    let access = target.resolve(asking)?;
    let node = access.first_node()?;
    let digest = &find(node, digest).await?;
    let evidence = fetch(node, digest).await?;
    let (chain, cluster) = access.chain().await?;
    waiting::on(TRANSACTION);
    let mined = match &evidence.proof {
        Proof::CertificateVotes(both) => {
            let (one, other) = &**both;
            let (epoch, seat) = (one.vote.epoch, one.member);
            let member = chain.participant(cluster, epoch, seat).await?.ok_or_else(|| {
                let message = format!("the chain has no participant {seat} in epoch {epoch}");
                Failure::new(Exit::Failed, "chain", message)
            })?;
            let (first, second) = ((&one.vote, &one.signature), (&other.vote, &other.signature));
            chain.report_equivocation(first, second, &member).await?
        }
        Proof::Certificates(both) => {
            let (one, other) = &**both;
            chain.report_group_equivocation(one, other).await?
        }
        Proof::Agreement(_)
        | Proof::TwoPartials(_)
        | Proof::WrongPartial(_)
        | Proof::Signing(_)
        | Proof::Evaluation(_) => {
            let kind = evidence.kind().name();
            return Err(Failure::usage(format!(
                "no contract punishes evidence of the kind {kind}: `veil evidence export` writes it for governance to examine"
            )));
        }
    };
    let transaction = format!("0x{}", mined.transaction);
    let object = json!({ "digest": digest, "transaction": transaction });
    output::show(target.json, &object, |out| writeln!(out, "reported in {transaction}"))?;
    Ok(Exit::Done)
}
