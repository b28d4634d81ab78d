//! `veil ceremony simulate`.

use std::{
    env::{self, VarError},
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{
    Args,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use serde::Serialize;
use serde_json::{Value, json};
use tfhe::{
    Tag, core_crypto::prelude::NormalizedHammingWeightBound, xof_key_set::CompressedXofKeySet,
};
use veil_committee::key_share::KeyShare;
use veil_keygen_ceremony::keyset::{Layout, ParameterSet};
use veil_node_ceremony::offline::{
    archive,
    demonstrate::demonstrate,
    misbehaviour::FaultName,
    simulate::{Options, Simulation, run as run_simulation},
};
use veil_node_process::Stopwatch;
use veil_node_storage::keystore::Passphrase;
use veil_node_terminal::progress::Stages;
use veil_protocol_spec::Committee;

use super::{
    failure::{Exit, Failure},
    output,
    run::conclude,
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Size of the committee: n = 3t+1, or 1 (the "designated decryptor", for development).
    #[arg(long, env = "VEIL_MEMBERS", default_value = "4", value_parser = PossibleValuesParser::new(["1", "4", "7", "10", "13"]))]
    members: String,
    /// FHE parameters: "production", or "insecure-test" (protects nothing, loud, fast).
    #[arg(long, env = "VEIL_PARAMETERS", default_value = "production")]
    parameters: String,
    /// 32 bytes in hexadecimal that make the run reproducible. Whoever knows them knows the key: for
    /// tests only.
    #[arg(long, value_name = "HEX", value_parser = parse_seed)]
    seed: Option<Seed>,
    /// Folder, new or empty, for transcript, key set and encrypted key shares. Without it they are
    /// discarded.
    #[arg(long, env = "VEIL_OUT", value_name = "DIR")]
    out: Option<PathBuf>,
    /// File whose first line is the passphrase for the key shares; VEIL_PASSPHRASE may hold it
    /// instead. Without either a random one is written to DIR/passphrase.txt.
    #[arg(long, env = "VEIL_PASSPHRASE_FILE", value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Misbehaviour of the last member.
    #[arg(long, value_name = "NAME", value_parser = fault_names())]
    fault: Option<FaultName>,
    /// Skip making the same key set with stock tfhe for comparison.
    #[arg(long)]
    no_comparison: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// The names of faults, each with its help.
fn fault_names() -> impl TypedValueParser<Value = FaultName> {
    let values =
        FaultName::ALL.map(|fault| PossibleValue::new(fault.name()).help(fault.description()));
    PossibleValuesParser::new(values).try_map(|name| {
        let known = FaultName::ALL.into_iter().find(|fault| fault.name() == name);
        known.ok_or_else(|| format!("{name} is not the name of a fault"))
    })
}

#[derive(Clone, Copy, Debug)]
struct Seed([u8; 32]);

fn parse_seed(text: &str) -> Result<Seed, String> {
    text.parse::<veil_protocol_spec::Blake3Digest>()
        .map(|digest| Seed(digest.0))
        .map_err(|error| error.to_string())
}

/// The stock key set beside the ceremony's, in one run.
#[derive(Clone, Copy, Debug, Serialize)]
struct Comparison {
    stock_cpu_seconds: f64,
    stock_wall_seconds: f64,
    ratio_cpu_per_member: f64,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    conclude(arguments.json, carry_out(arguments))
}

fn carry_out(arguments: &Arguments) -> Result<Exit, Failure> {
    let (report, exit) = simulate(arguments)?;
    output::show(arguments.json, &report, |out| write_report(out, &report))?;
    Ok(exit)
}

fn simulate(arguments: &Arguments) -> Result<(Value, Exit), Failure> {
    let members = arguments.members.parse::<u8>().map_err(Failure::usage)?;
    let committee = Committee::new(members).map_err(Failure::usage)?;
    let params = ParameterSet::by_name(&arguments.parameters, committee).map_err(Failure::usage)?;
    let reporter = Stages::default();
    if params.is_insecure() {
        reporter.say("WARNING: insecure test parameters: the key protects nothing");
    }
    if arguments.seed.is_some() {
        reporter.say("WARNING: --seed makes the key known to whoever knows the seed");
    }
    let passphrase = match &arguments.out {
        Some(_) => given_passphrase(arguments)?,
        None => None,
    };
    if let Some(out) = &arguments.out {
        archive::prepare(out)?;
    }
    let scratch = match &arguments.out {
        Some(_) => None,
        None => Some(tempfile::tempdir().map_err(Failure::file(&env::temp_dir()))?),
    };
    let folder = arguments.out.as_deref().or(scratch.as_ref().map(|dir| dir.path()));
    let folder = folder.map(PathBuf::from).unwrap_or_default();
    let options = Options {
        committee,
        params: params.clone(),
        seed: arguments.seed.map(|seed| seed.0),
        shares: archive::shares(&folder),
        fault: arguments.fault,
    };
    let mut simulation = run_simulation(&options, &|stage, done, total| {
        reporter.at(stage, done, total);
    })?;
    let mut report = describe(&simulation, &params);
    if simulation.certificate().is_none() {
        reporter.finish();
        report["outcome"] = json!("aborted");
        report["verified"] = json!(false);
        report["aborts"] = aborts(&simulation);
        report["detected"] = detected(&report["aborts"]);
        if let Some(out) = &arguments.out {
            archive::write_aborted(out, &simulation)?;
            write_summary(out, &report)?;
        }
        return Ok((report, Exit::Failed));
    }
    let key_set = simulation.members.first().and_then(|member| member.key_set().cloned());
    let Some(key_set) = key_set else {
        let message = "a completed member holds no key set: this is a defect, report it";
        return Err(Failure::new(Exit::Failed, "internal", message));
    };
    if arguments.out.is_some() {
        reporter.stage("writing the folder");
        let passphrase = if let Some(passphrase) = passphrase {
            passphrase
        } else {
            let passphrase = Passphrase::random();
            let path = folder.join("passphrase.txt");
            passphrase.write(&path)?;
            reporter.say(&format!(
                "WARNING: the key shares' passphrase is in {}: move it elsewhere",
                path.display()
            ));
            passphrase
        };
        archive::write_finished(&folder, &simulation, &key_set, &passphrase)?;
    }
    let shares: Vec<Arc<KeyShare>> =
        simulation.members.iter().filter_map(|member| member.key_share().cloned()).collect();
    // The proof phase needs the memory that the members' own copies of the key set hold.
    simulation.members.clear();
    if !arguments.no_comparison {
        reporter.stage("making the same key set with stock tfhe");
        let comparison = compare(&params, report["cpu_seconds_per_member"].as_f64());
        merge(&mut report, &json!(comparison));
    }
    let shown = demonstrate(&key_set, &shares, &simulation.identities, arguments.fault, &|step| {
        reporter.stage(step);
    });
    reporter.finish();
    let exit = match shown {
        Ok(shown) => {
            report["verified"] = json!(shown.verified);
            report["culprits"] = json!(shown.culprits);
            report["proof"] = json!(shown);
            Exit::Done
        }
        Err(error) => {
            report["verified"] = json!(false);
            report["error"] = json!(error.to_string());
            Exit::Failed
        }
    };
    if let Some(out) = &arguments.out {
        write_summary(out, &report)?;
    }
    Ok((report, exit))
}

/// The passphrase from the file or the environment, if there is one.
fn given_passphrase(arguments: &Arguments) -> Result<Option<Passphrase>, Failure> {
    if let Some(file) = &arguments.passphrase_file {
        return Ok(Some(Passphrase::from_file(file)?));
    }
    match env::var("VEIL_PASSPHRASE") {
        Ok(text) if !text.is_empty() => Ok(Some(Passphrase::new(text))),
        Ok(_) | Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(Failure::usage("VEIL_PASSPHRASE is not UTF-8")),
    }
}

fn write_summary(out: &Path, report: &Value) -> Result<(), Failure> {
    let path = out.join("ceremony.json");
    let text = format!("{report:#}\n");
    fs::write(&path, text).map_err(Failure::file(&path))
}

fn merge(report: &mut Value, more: &Value) {
    if let (Some(report), Some(more)) = (report.as_object_mut(), more.as_object()) {
        report.extend(more.clone());
    }
}

fn describe(simulation: &Simulation, params: &ParameterSet) -> Value {
    let committee = simulation.parameters.committee;
    let n = committee.n() as u64;
    let layout = Layout::of(params);
    let body_bytes = layout.body_bytes();
    let most_sent = simulation.bytes_sent.iter().copied().max().unwrap_or(0);
    let certificate = simulation.certificate();
    let key_set = simulation.endings.first().and_then(|e| e.as_ref().ok()).map(|o| o.key_set);
    let stages: serde_json::Map<String, Value> =
        simulation.stages.iter().map(|(name, time)| (name.clone(), json!(time))).collect();
    json!({
        "outcome": "completed",
        "members": n,
        "max_faulty": committee.max_faulty().get(),
        "parameters": params.name(),
        "insecure": params.is_insecure(),
        "security_bits": params.security_bits(),
        "log2_p_fail": params.log2_p_fail(),
        "ceremony_id": simulation.parameters.id(),
        "keyset_digest": key_set,
        "transcript_root": certificate.map(|c| c.root),
        "rounds": stages,
        "wall_seconds": simulation.wall_seconds,
        "cpu_seconds_per_member": simulation.cpu_seconds / n as f64,
        "bytes_sent_per_member": most_sent,
        "key_body_bytes": body_bytes,
        "ratio_traffic": if n > 1 { Some(most_sent as f64 / (body_bytes * (n - 1)) as f64) } else { None },
        "peak_rss_bytes": simulation.peak_rss_bytes,
        "peak_rss_limit_bytes": n * (body_bytes + (256 << 20)),
        "refused": simulation.refused.iter().map(|(j, why)| json!({ "by": j, "why": why })).collect::<Vec<_>>(),
    })
}

fn aborts(simulation: &Simulation) -> Value {
    let participants = simulation.parameters.committee.participants();
    participants
        .zip(&simulation.endings)
        .filter_map(|(j, ending)| {
            let report = ending.as_ref().err()?;
            Some(json!({
                "participant": j,
                "detected_in": report.stage.name(),
                "reason": report.reason,
                "message": report.reason.to_string(),
                "accused": report.reason.accused(),
                "evidence": report.evidence.len(),
            }))
        })
        .collect()
}

/// The first report by a member that saw the cause itself.
fn detected(aborts: &Value) -> Value {
    aborts
        .as_array()
        .into_iter()
        .flatten()
        .find(|abort| abort["reason"].get("peer_aborted").is_none())
        .map_or(Value::Null, |abort| {
            json!({
                "by": abort["participant"],
                "stage": abort["detected_in"],
                "message": abort["message"],
                "accused": abort["accused"],
            })
        })
}

/// Makes the same key material with stock tfhe, alone.
fn compare(params: &ParameterSet, cpu_per_member: Option<f64>) -> Option<Comparison> {
    let watch = Stopwatch::start();
    let bound = NormalizedHammingWeightBound::new(1.0)?;
    let made =
        CompressedXofKeySet::generate(params.config(), vec![1; 32], 128, bound, Tag::default());
    let (stock_cpu_seconds, stock_wall_seconds) = (watch.cpu(), watch.wall());
    drop(made.ok()?);
    let ratio_cpu_per_member = cpu_per_member? / stock_cpu_seconds;
    Some(Comparison { stock_cpu_seconds, stock_wall_seconds, ratio_cpu_per_member })
}

fn write_report(out: &mut dyn Write, report: &Value) -> io::Result<()> {
    let text = |key: &str| match &report[key] {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    writeln!(out, "outcome          {}", text("outcome"))?;
    writeln!(out, "committee        n={} t={}", text("members"), text("max_faulty"))?;
    writeln!(
        out,
        "parameters       {} ({} bits, p_fail 2^{})",
        text("parameters"),
        text("security_bits"),
        text("log2_p_fail")
    )?;
    writeln!(out, "key set          {}", text("keyset_digest"))?;
    writeln!(out, "CPU per member   {} s", text("cpu_seconds_per_member"))?;
    writeln!(out, "  of stock tfhe  {}", text("ratio_cpu_per_member"))?;
    writeln!(out, "sent per member  {} bytes", text("bytes_sent_per_member"))?;
    writeln!(out, "peak memory      {} bytes", text("peak_rss_bytes"))?;
    if let Some(stages) = report["rounds"].as_object() {
        for (name, time) in stages {
            writeln!(out, "  {name:20} {:8.3} s", time["wall_seconds"].as_f64().unwrap_or(0.0))?;
        }
    }
    for abort in report["aborts"].as_array().into_iter().flatten() {
        writeln!(out, "participant {}: {}", abort["participant"], abort["message"])?;
    }
    writeln!(out, "verified         {}", text("verified"))?;
    if !report["error"].is_null() {
        writeln!(out, "error            {}", text("error"))?;
    }
    if report["culprits"].as_array().is_some_and(|culprits| !culprits.is_empty()) {
        writeln!(out, "culprits         {}", report["culprits"])?;
    }
    Ok(())
}
