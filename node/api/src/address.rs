//! Where a node is asked.

use core::{fmt, str::FromStr};
use std::path::PathBuf;

/// Of a URL without one.
pub const DEFAULT_PORT: u16 = 4646;

/// Where a node is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeAddress {
    /// A Unix socket.
    Socket(PathBuf),
    /// `https://HOST[:PORT]`.
    Remote {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
}

/// Why a text is no address of a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNodeAddress {
    /// Anybody on the way could read tokens.
    #[error("{0}: nodes are asked over TLS: https://HOST[:PORT]")]
    Unencrypted(String),
    /// Neither form.
    #[error("{0}: give a node as https://HOST[:PORT], or the path of its admin socket")]
    Malformed(String),
}

impl FromStr for NodeAddress {
    type Err = InvalidNodeAddress;

    fn from_str(text: &str) -> Result<Self, InvalidNodeAddress> {
        let malformed = || InvalidNodeAddress::Malformed(text.to_owned());
        if text.starts_with("http://") {
            return Err(InvalidNodeAddress::Unencrypted(text.to_owned()));
        }
        let Some(rest) = text.strip_prefix("https://") else {
            let path = text.strip_prefix("unix://").unwrap_or(text);
            let is_path = !path.is_empty() && !path.contains("://");
            return if is_path { Ok(Self::Socket(path.into())) } else { Err(malformed()) };
        };
        let authority: axum::http::uri::Authority =
            rest.strip_suffix('/').unwrap_or(rest).parse().map_err(|_| malformed())?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(malformed());
        }
        let port = match authority.port() {
            Some(port) => port.as_str().parse().map_err(|_| malformed())?,
            // A port that is no number up to 65,535 counts as none.
            None if authority.as_str() != authority.host() => return Err(malformed()),
            None => DEFAULT_PORT,
        };
        Ok(Self::Remote { host: authority.host().to_owned(), port })
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Remote { host, port } => write!(f, "https://{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_socket_or_a_url_over_tls() {
        let remote = |host: &str, port| NodeAddress::Remote { host: host.to_owned(), port };
        for (text, address) in [
            ("/run/veil/admin.sock", NodeAddress::Socket("/run/veil/admin.sock".into())),
            ("unix:///run/a.sock", NodeAddress::Socket("/run/a.sock".into())),
            ("https://node.example", remote("node.example", DEFAULT_PORT)),
            ("https://10.0.0.1:7/", remote("10.0.0.1", 7)),
            ("https://[::1]:7", remote("[::1]", 7)),
        ] {
            assert_eq!(text.parse(), Ok(address), "{text}");
        }
        for wrong in ["", "ftp://a", "https://", "https://a:b@c", "https://a:99999", "https://a/b"]
        {
            assert!(
                matches!(wrong.parse::<NodeAddress>(), Err(InvalidNodeAddress::Malformed(_))),
                "{wrong}"
            );
        }
        let plain = "http://a".parse::<NodeAddress>().unwrap_err();
        assert!(plain.to_string().contains("https://"), "{plain}");
    }
}
