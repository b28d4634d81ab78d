//! `veil ceremony verify`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{Exit, complain, report::Reporter};
use crate::archive;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The folder that `veil ceremony simulate --out` made.
    dir: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    let reporter = Reporter::new();
    let result = archive::verify(&arguments.dir, |done, total| {
        reporter.at("checking the share streams", done.into(), total.into());
    });
    reporter.finish();
    match result {
        Ok(verified) => {
            if verified.params.is_insecure() {
                reporter.say("WARNING: insecure test parameters: the key protects nothing");
            }
            if arguments.json {
                println!(
                    "{}",
                    json!({
                        "verified": true,
                        "keyset_digest": verified.digest,
                        "transcript_root": verified.certificate.root,
                        "ceremony_id": verified.certificate.ceremony,
                        "attempt": verified.certificate.attempt,
                        "members": verified.certificate.signatures.len(),
                        "parameters": verified.params.name(),
                        "insecure": verified.params.is_insecure(),
                    })
                );
            } else {
                println!("verified: key set {}", verified.digest);
            }
            Exit::Done
        }
        Err(error) if error.is_io() => {
            complain(arguments.json, "files", &error);
            Exit::Files
        }
        Err(error) => {
            if arguments.json {
                println!("{}", json!({ "verified": false, "error": error.to_string() }));
            } else {
                eprintln!("error: not verified: {error}");
            }
            Exit::Failed
        }
    }
}
