//! `veil ceremony simulate`.

use std::{
    env::{self, VarError},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{
    Args,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use serde_json::{Value, json};
use veil_committee::key_share::KeyShare;
use veil_keygen_ceremony::keyset::ParameterSet;
use veil_node_ceremony::offline::{
    archive,
    demonstrate::demonstrate,
    misbehaviour::FaultName,
    report,
    simulate::{Options, run as run_simulation},
};
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
    /// FHE parameters: "production", "insecure-test" (protects nothing, loud, fast), or "insecure-short"
    /// (faster, with a reference string that makes no proofs).
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

pub(super) fn run(arguments: &Arguments) -> Exit {
    conclude(arguments.json, carry_out(arguments))
}

fn carry_out(arguments: &Arguments) -> Result<Exit, Failure> {
    let (report, exit) = simulate(arguments)?;
    output::show(arguments.json, &report, |out| report::write(out, &report))?;
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
    let mut report = report::describe(&simulation, &params);
    if simulation.certificate().is_none() {
        reporter.finish();
        report::abort(&mut report, &simulation);
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
        report::compare(&mut report, &params);
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
