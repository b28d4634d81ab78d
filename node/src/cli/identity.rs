//! `veil identity`.

use std::{env, path::PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use veil_node_p2p::peer_id;
use veil_node_storage::keystore::{Passphrase, new_identity, read_identity, write_identity};
use veil_node_terminal::waiting;
use veil_protocol_spec::{PeerIdHash, PublicIdentity, identity::SecretIdentity};

use super::{
    failure::{Exit, Failure},
    output,
    run::conclude,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make an identity, encrypted with a passphrase.
    New(New),
    /// Print the public side of an identity.
    Show(Show),
}

#[derive(Debug, Args)]
pub(super) struct New {
    /// The file to write; nothing is overwritten.
    #[arg(long, env = "VEIL_IDENTITY_FILE", value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArguments,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    identity: IdentityArguments,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct PassphraseArguments {
    /// File whose first line is the passphrase; VEIL_PASSPHRASE may hold it instead.
    #[arg(long, env = "VEIL_PASSPHRASE_FILE", value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// An identity as other commands take it.
#[derive(Debug, Args)]
pub(super) struct IdentityArguments {
    /// The identity's file, made by `veil identity new`.
    #[arg(long, env = "VEIL_IDENTITY_FILE", value_name = "FILE")]
    identity: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArguments,
}

impl PassphraseArguments {
    pub(super) fn read(&self) -> Result<Passphrase, Failure> {
        if let Some(file) = &self.passphrase_file {
            return Ok(Passphrase::from_file(file)?);
        }
        match env::var("VEIL_PASSPHRASE") {
            Ok(text) if !text.is_empty() => Ok(Passphrase::new(text)),
            _ => {
                Err(Failure::usage("no passphrase: give --passphrase-file, or set VEIL_PASSPHRASE"))
            }
        }
    }
}

impl IdentityArguments {
    pub(super) fn read(&self) -> Result<SecretIdentity, Failure> {
        waiting::on("decrypting the identity");
        Ok(read_identity(&self.identity, &self.passphrase.read()?)?)
    }
}

pub(super) fn run(command: &Command) -> Exit {
    let (json, identity) = match command {
        Command::New(arguments) => (arguments.json, make(arguments)),
        Command::Show(arguments) => (arguments.json, arguments.identity.read().map(|i| i.public())),
    };
    conclude(json, identity.and_then(|public| show(json, &public)))
}

fn make(arguments: &New) -> Result<PublicIdentity, Failure> {
    let passphrase = arguments.passphrase.read()?;
    waiting::on("encrypting the identity");
    let identity = new_identity();
    write_identity(&arguments.out, &identity, &passphrase)?;
    Ok(identity.public())
}

fn describe(public: &PublicIdentity) -> Value {
    json!({
        "identity": public.to_string(),
        "peer_id": peer_id(public).ok().map(|id| id.to_string()),
        "peer_id_hash": format!("0x{}", PeerIdHash::of(public)),
    })
}

fn show(json: bool, public: &PublicIdentity) -> Result<Exit, Failure> {
    let described = describe(public);
    output::show(json, &described, |out| {
        for (name, key) in
            [("identity", "identity"), ("peer id", "peer_id"), ("peer id hash", "peer_id_hash")]
        {
            writeln!(out, "{name:14} {}", described[key].as_str().unwrap_or("-"))?;
        }
        Ok(())
    })?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::scheduling::keccak;

    use super::*;

    #[test]
    fn the_hash_is_that_of_the_peer_id() {
        let public = new_identity().public();
        let id = peer_id(&public).unwrap();
        let hash = keccak(&id.to_bytes());
        assert_eq!(hash.0, PeerIdHash::of(&public).0);
    }
}
