//! Where passphrases come from: the environment, a file, a command, or what systemd hands over.
//!
//! The first of these that is there is taken: a variable with the passphrase itself; a file; a command; a credential,
//! which is a file in `$CREDENTIALS_DIRECTORY` (`LoadCredentialEncrypted=` in a unit), readable for that service alone.

use std::{
    fs,
    path::{Path, PathBuf},
};

use veil_node_storage::keystore::{KeystoreError, Passphrase};
use zeroize::Zeroizing;

use crate::{ChainSection, ConfigError, Environment, NodeSection};

/// The directory in which systemd puts a service's credentials.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

fn credential(name: &str, env: Environment<'_>) -> Result<Option<Passphrase>, KeystoreError> {
    let path = env(CREDENTIALS).map(|folder| Path::new(&folder).join(name));
    path.filter(|path| path.exists()).map(|path| Passphrase::from_file(&path)).transpose()
}

/// A file that says two things means one of them.
fn check(
    key: &'static str,
    file: Option<&PathBuf>,
    command: Option<&Vec<String>>,
) -> Result<(), ConfigError> {
    let reason = match (file, command) {
        (_, Some(command)) if command.is_empty() => "a program and its arguments",
        (Some(_), Some(_)) => "a file names the passphrase already: leave one of the two out",
        _ => return Ok(()),
    };
    Err(ConfigError::Value { key, reason: reason.to_owned() })
}

impl NodeSection {
    pub(crate) fn check_passphrase(&self) -> Result<(), ConfigError> {
        let (file, command) = (self.passphrase_file.as_ref(), self.passphrase_command.as_ref());
        check("node.passphrase_command", file, command)
    }

    /// Of identity and key share: `VEIL_PASSPHRASE`, the file, the command, the credential `veil-passphrase`.
    ///
    /// # Errors
    /// [`KeystoreError`] of the one that is there.
    pub fn passphrase(&self, env: Environment<'_>) -> Result<Option<Passphrase>, KeystoreError> {
        if let Some(text) = env("VEIL_PASSPHRASE") {
            return Ok(Some(Passphrase::new(text)));
        }
        match (&self.passphrase_file, &self.passphrase_command) {
            (Some(file), _) => Passphrase::from_file(file).map(Some),
            (None, Some(command)) => Passphrase::from_command(command).map(Some),
            (None, None) => credential("veil-passphrase", env),
        }
    }
}

impl ChainSection {
    pub(crate) fn check_passphrase(&self) -> Result<(), ConfigError> {
        let file = self.keystore_passphrase_file.as_ref();
        let command = self.keystore_passphrase_command.as_ref();
        check("chain.keystore_passphrase_command", file, command)
    }

    /// Of the account's keystore: the file, the command, the credential `veil-account-passphrase`.
    ///
    /// # Errors
    /// [`KeystoreError`] of the one that is there.
    pub fn keystore_passphrase(
        &self,
        env: Environment<'_>,
    ) -> Result<Option<Passphrase>, KeystoreError> {
        match (&self.keystore_passphrase_file, &self.keystore_passphrase_command) {
            (Some(file), _) => {
                let text = fs::read_to_string(file).map(Zeroizing::new);
                let text =
                    text.map_err(|source| KeystoreError::Io { path: file.clone(), source })?;
                // As it is: others have made the keystore, perhaps with a blank at the end. No tool means an editor's
                // mark of byte order.
                let text = text.trim_start_matches('\u{feff}');
                Ok(Some(Passphrase::new(text.lines().next().unwrap_or_default().to_owned())))
            }
            (None, Some(command)) => Passphrase::from_command(command).map(Some),
            (None, None) => credential("veil-account-passphrase", env),
        }
    }
}

/// Of a backup: `VEIL_BACKUP_PASSPHRASE`, the file, the credential `veil-backup-passphrase`.
///
/// # Errors
/// [`KeystoreError`] of the one that is there.
pub fn backup_passphrase(
    file: Option<&Path>,
    env: Environment<'_>,
) -> Result<Option<Passphrase>, KeystoreError> {
    match (env("VEIL_BACKUP_PASSPHRASE"), file) {
        (Some(text), _) => Ok(Some(Passphrase::new(text))),
        (None, Some(file)) => Passphrase::from_file(file).map(Some),
        (None, None) => credential("veil-backup-passphrase", env),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemberConfig;

    fn config(more: &str) -> MemberConfig {
        let text = format!(
            "[node]\ndata_dir = \"data\"\n{more}\n[network]\nlisten = [\"/ip4/127.0.0.1/tcp/1\"]\n\
             [chain]\nrpc = \"http://127.0.0.1:1\"\ncontract = \"0x{}\"\ncluster = \"0x{}\"\n",
            "11".repeat(20),
            "22".repeat(32)
        );
        MemberConfig::parse(Path::new("/etc/veil/member.toml"), &text, &|_| None).unwrap()
    }

    /// The order of the sources, from the last to the first.
    #[test]
    fn the_first_source_that_is_there_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("passphrase.txt");
        fs::write(&file, "of the file\n").unwrap();
        let credentials = folder.path().join("credentials");
        fs::create_dir(&credentials).unwrap();
        let directory = credentials.to_str().unwrap().to_owned();
        let systemd = |name: &str| (name == CREDENTIALS).then(|| directory.clone());
        let said = |config: &MemberConfig, env: Environment<'_>| {
            config.node.passphrase(env).unwrap().map(|found| found.expose().to_owned())
        };
        let nothing = config("");
        assert_eq!(said(&nothing, &|_| None), None);
        assert_eq!(said(&nothing, &systemd), None, "no credential of that name");
        fs::write(credentials.join("veil-passphrase"), "of systemd\n").unwrap();
        fs::write(credentials.join("veil-account-passphrase"), "of the account").unwrap();
        fs::write(credentials.join("veil-backup-passphrase"), "of the backup").unwrap();
        assert_eq!(said(&nothing, &systemd).as_deref(), Some("of systemd"));
        let account = nothing.chain.keystore_passphrase(&systemd).unwrap().unwrap();
        assert_eq!(account.expose(), "of the account");
        let backup = backup_passphrase(None, &systemd).unwrap().unwrap();
        assert_eq!(backup.expose(), "of the backup");
        let command = config("passphrase_command = [\"echo\", \"of the command\"]");
        assert_eq!(said(&command, &systemd).as_deref(), Some("of the command"));
        let by_file = config(&format!("passphrase_file = {file:?}"));
        assert_eq!(said(&by_file, &systemd).as_deref(), Some("of the file"));
        let variable =
            |name: &str| (name == "VEIL_PASSPHRASE").then(|| "of the variable".to_owned());
        assert_eq!(said(&by_file, &variable).as_deref(), Some("of the variable"));
    }

    #[test]
    fn two_sources_in_one_file_are_refused_by_name() {
        let text = "[node]\ndata_dir = \"data\"\npassphrase_file = \"p\"\n\
                    passphrase_command = [\"pass\", \"veil\"]\n[network]\nlisten = [\"/ip4/127.0.0.1/tcp/1\"]\n\
                    [chain]\nrpc = \"http://127.0.0.1:1\"\ncontract = \"0x1111111111111111111111111111111111111111\"\n\
                    cluster = \"0x2222222222222222222222222222222222222222222222222222222222222222\"\n";
        let refused = MemberConfig::parse(Path::new("member.toml"), text, &|_| None).unwrap_err();
        let refused = refused.to_string();
        assert!(refused.contains("node.passphrase_command"), "{refused}");
        let empty =
            text.replace("[\"pass\", \"veil\"]", "[]").replace("passphrase_file = \"p\"\n", "");
        let refused = MemberConfig::parse(Path::new("member.toml"), &empty, &|_| None).unwrap_err();
        assert!(refused.to_string().contains("node.passphrase_command"), "{refused}");
    }
}
