//! `[api]`: an address on which the node answers from afar.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{ConfigError, anchor};

/// `[api]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiSection {
    /// Address and port, over TLS.
    pub listen: SocketAddr,
    /// The chain of certificates in PEM; one that the node makes for itself by default.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// Its key in PEM.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// Names and addresses in the certificate that the node makes.
    #[serde(default)]
    pub names: Vec<String>,
    /// First line: the token that lets its holder read; `api-read-token` in the data directory by default,
    /// which the node makes.
    #[serde(default)]
    pub read_token_file: Option<PathBuf>,
}

impl ApiSection {
    pub(super) fn finish(&mut self, folder: &Path) -> Result<(), ConfigError> {
        let files = [&mut self.certificate, &mut self.key, &mut self.read_token_file];
        files.into_iter().flatten().for_each(|file| anchor(folder, file));
        if self.certificate.is_some() != self.key.is_some() {
            return Err(ConfigError::Value {
                key: "api.certificate",
                reason: "give `api.certificate` and `api.key`, or neither".to_owned(),
            });
        }
        Ok(())
    }

    /// Names in the certificate that the node makes: the configured ones, the address, and this machine.
    #[must_use]
    pub fn certificate_names(&self) -> Vec<String> {
        let mut names = self.names.clone();
        if !self.listen.ip().is_unspecified() {
            names.push(self.listen.ip().to_string());
        }
        names.extend(["localhost", "127.0.0.1", "::1"].map(ToOwned::to_owned));
        names.sort();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_beside_the_configuration_and_certificate_and_key_go_together() {
        let parse = |text: &str| toml::from_str::<ApiSection>(text).unwrap();
        let mut section = parse("listen = \"192.0.2.1:4646\"\nread_token_file = \"token\"");
        section.finish(Path::new("/etc/veil")).unwrap();
        assert_eq!(section.read_token_file.as_deref(), Some(Path::new("/etc/veil/token")));
        assert!(section.certificate_names().contains(&"192.0.2.1".to_owned()));
        let mut half = parse("listen = \"[::]:4646\"\nkey = \"key.pem\"");
        assert!(!half.certificate_names().contains(&"::".to_owned()));
        let refused = half.finish(Path::new("/etc/veil")).unwrap_err();
        assert!(matches!(refused, ConfigError::Value { key: "api.certificate", .. }), "{refused}");
    }
}
