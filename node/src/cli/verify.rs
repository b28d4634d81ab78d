//! `veil ceremony verify`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use veil_node_ceremony::offline::archive;
use veil_node_terminal::progress::Stages;

use super::{
    failure::{Exit, Failure},
    output,
    run::conclude,
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The folder that `veil ceremony simulate --out` or a finished ceremony made.
    dir: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    conclude(arguments.json, verify(arguments))
}

fn verify(arguments: &Arguments) -> Result<Exit, Failure> {
    let reporter = Stages::default();
    let result = archive::verify(&arguments.dir, |done, total| {
        reporter.at("checking the share streams", done.into(), total.into());
    });
    reporter.finish();
    let (verified, reference_string) = match result {
        Ok(verified) => (verified.transcript, verified.reference_string),
        Err(error) if error.is_io() => return Err(error.into()),
        Err(error) => {
            let object = json!({ "verified": false, "error": error.to_string() });
            if arguments.json {
                output::show(true, &object, |_| Ok(()))?;
            } else {
                output::note(format!("error: not verified: {error}"));
            }
            return Ok(Exit::Failed);
        }
    };
    if verified.params.is_insecure() {
        reporter.say("WARNING: insecure test parameters: the key protects nothing");
    }
    let object = json!({
        "verified": true,
        "keyset_digest": verified.digest,
        "reference_string_digest": reference_string,
        "transcript_root": verified.certificate.root,
        "ceremony_id": verified.certificate.ceremony,
        "attempt": verified.certificate.attempt,
        "members": verified.certificate.signatures.len(),
        "parameters": verified.params.name(),
        "insecure": verified.params.is_insecure(),
    });
    output::show(arguments.json, &object, |out| {
        writeln!(out, "verified: key set {}", verified.digest)?;
        writeln!(out, "reference string  {reference_string}")
    })?;
    Ok(Exit::Done)
}
