//! `veil share`: backups of a member's share of the key.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use veil_node_config::{MemberConfig, backup_passphrase, process_environment};
use veil_node_core::lifecycle;
use veil_node_member::backup::{self, BackupHead, Recipient, Unlock};
use veil_node_storage::keystore::Passphrase;
use veil_node_terminal::waiting;

use super::{
    failure::{Exit, Failure},
    output,
    run::{block_on, conclude},
};

/// Commands about backups.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Seal this member's share of the key to a file that can leave the machine. The member may run.
    Export(Export),
    /// Bring a share back where its data directory is lost. The member must not live, here or elsewhere; it is fenced, and
    /// signs again when the cluster is past everything that it may have signed.
    Import(Import),
    /// Say what a backup is of; with its passphrase or key, prove that its share works.
    Check(Check),
    /// Make a key that backups are sealed to: FILE, encrypted, to keep elsewhere, and FILE.pub for `veil share export --to`.
    Key(Key),
}

#[derive(Debug, Args)]
struct Common {
    /// File whose first line is the backup's passphrase, or with --key that of the key. VEIL_BACKUP_PASSPHRASE may hold it
    /// instead, or the systemd credential veil-backup-passphrase.
    #[arg(long, env = "VEIL_BACKUP_PASSPHRASE_FILE", value_name = "FILE")]
    backup_passphrase_file: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// The configuration of the member.
    #[arg(long, env = "VEIL_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// The backup, a file that does not exist yet.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Seal it to this public key of `veil share key`, in place of a passphrase.
    #[arg(long, value_name = "FILE.pub")]
    to: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The configuration of the member, whose identity is in its place.
    #[arg(long, env = "VEIL_CONFIG", value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    backup: Check,
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// The backup.
    file: PathBuf,
    /// The key that it is sealed to, of `veil share key`, if that is no passphrase.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct Key {
    /// The secret key, a file that does not exist yet; the public key goes to FILE.pub.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(command: &Command) -> Exit {
    match command {
        Command::Export(of) => conclude(of.common.json, export(of)),
        Command::Import(of) => conclude(of.backup.common.json, import(of)),
        Command::Check(of) => conclude(of.common.json, check(of)),
        Command::Key(of) => conclude(of.common.json, key(of)),
    }
}

impl Common {
    fn given(&self) -> Result<Option<Passphrase>, Failure> {
        Ok(backup_passphrase(self.backup_passphrase_file.as_deref(), &process_environment)?)
    }

    fn passphrase(&self) -> Result<Passphrase, Failure> {
        self.given()?.ok_or_else(|| {
            Failure::usage("no passphrase for the backup: give it with --backup-passphrase-file FILE, or in VEIL_BACKUP_PASSPHRASE")
        })
    }
}

impl Check {
    fn unlock(&self, passphrase: Passphrase) -> Result<Unlock, Failure> {
        waiting::on("stretching the passphrase");
        match &self.key {
            Some(file) => Ok(Unlock::Key(Box::new(backup::read_key(file, &passphrase)?))),
            None => Ok(Unlock::Passphrase(passphrase)),
        }
    }
}

fn export(of: &Export) -> Result<Exit, Failure> {
    let config = MemberConfig::load(&of.config, &process_environment)?;
    let own = lifecycle::passphrase(&config.node, &process_environment)?;
    let to = match &of.to {
        Some(file) => Recipient::Key(backup::read_public_key(file)?),
        None => Recipient::Passphrase(of.common.passphrase()?),
    };
    waiting::on("decrypting and proving the share");
    let head = backup::export(&config, &own, &to, &of.out)?;
    let mut object = describe(&head);
    object["file"] = json!(of.out);
    show(
        of.common.json,
        &object,
        "keep it, and identity.age, where this machine's end does not reach",
    )
}

fn import(of: &Import) -> Result<Exit, Failure> {
    let config = MemberConfig::load(&of.config, &process_environment)?;
    let own = lifecycle::passphrase(&config.node, &process_environment)?;
    let unlock = of.backup.unlock(of.backup.common.passphrase()?)?;
    waiting::on("asking the chain for the key in force");
    block_on(async {
        let head = backup::import(&config, &own, &of.backup.file, &unlock).await?;
        let next = "fenced: start the member with `veil committee run`; it waits before it signs, and says for what";
        show(of.backup.common.json, &describe(&head), next)
    })
}

fn check(of: &Check) -> Result<Exit, Failure> {
    let unlock = of.common.given()?.map(|passphrase| of.unlock(passphrase)).transpose()?;
    let found = backup::check(&of.file, unlock.as_ref())?;
    let mut object = describe(&found.head);
    object["sealed_to"] = json!(if found.by_passphrase { "passphrase" } else { "key" });
    object["recipient"] = json!(found.recipient);
    object["proved"] = json!(unlock.is_some());
    show(
        of.common.json,
        &object,
        match unlock {
            Some(_) => "its share opens, and decrypts the test ciphertext",
            None => "undamaged; whether it opens says its passphrase or key",
        },
    )
}

fn key(of: &Key) -> Result<Exit, Failure> {
    let mut public = of.out.clone().into_os_string();
    public.push(".pub");
    let recipient = backup::new_key(&of.out, public.as_ref(), &of.common.passphrase()?)?;
    let object = json!({ "recipient": recipient, "file": of.out, "public": PathBuf::from(public) });
    show(
        of.common.json,
        &object,
        "keep the file away from the member's machine, which takes the public key only",
    )
}

fn describe(head: &BackupHead) -> Value {
    json!({
        "epoch": head.parameters.epoch,
        "attempt": head.attempt,
        "participant": head.participant,
        "members": head.parameters.committee.n(),
        "identity": head.identity(),
        "keyset_digest": head.key_set,
        "ceremony_id": head.parameters.id(),
    })
}

fn show(json: bool, object: &Value, next: &str) -> Result<Exit, Failure> {
    let text = |out: &mut dyn Write| -> io::Result<()> {
        for (name, value) in object.as_object().into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            writeln!(out, "{name:14} {value}")?;
        }
        writeln!(out, "{next}")
    };
    output::show(json, object, text)?;
    Ok(Exit::Done)
}
