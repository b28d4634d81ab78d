//! Ports of this machine that lead to ports of replicas, as they are given on a command line.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

use veil_protocol_spec::reach::PortWanted;

/// Where to listen, and which port that leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Where connections are taken.
    pub listen: SocketAddr,
    /// Of the container.
    pub port: PortWanted,
}

impl FromStr for Mapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "give [ADDRESS:]LOCAL:PORT, such as 8080:http, 8080:80 or 0.0.0.0:8080:http".to_owned()
        };
        let (local, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        // A name of digits only is taken for a number, as it looks.
        let port = if port.bytes().all(|byte| byte.is_ascii_digit()) {
            PortWanted::Number(port.parse().map_err(|_| wrong())?)
        } else {
            PortWanted::Named(port.parse().map_err(|_| wrong())?)
        };
        let (address, local) = match local.rsplit_once(':') {
            Some((address, local)) => {
                let address = address.trim_start_matches('[').trim_end_matches(']');
                (address.parse().map_err(|_| wrong())?, local)
            }
            None => (IpAddr::V4(Ipv4Addr::LOCALHOST), local),
        };
        let local: u16 = local.parse().map_err(|_| wrong())?;
        Ok(Self { listen: SocketAddr::new(address, local), port })
    }
}

/// A port as it was given.
#[must_use]
pub fn name(port: &PortWanted) -> String {
    match port {
        PortWanted::Named(name) => name.as_str().to_owned(),
        PortWanted::Number(number) => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_says_where_to_listen_and_which_port() {
        let named = |name: &str| PortWanted::Named(name.parse().unwrap());
        let number = |port: u16| PortWanted::Number(port.try_into().unwrap());
        for (text, listen, port) in [
            ("8080:http", "127.0.0.1:8080", named("http")),
            ("0:80", "127.0.0.1:0", number(80)),
            ("0.0.0.0:8080:80", "0.0.0.0:8080", number(80)),
            ("[::1]:8080:http", "[::1]:8080", named("http")),
        ] {
            let expected = Mapping { listen: listen.parse().unwrap(), port };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for wrong in ["", "8080", ":80", "8080:", "x:80", "8080:0", "70000:80", "host:1:80", "1:A"]
        {
            assert!(wrong.parse::<Mapping>().is_err(), "{wrong}");
        }
    }
}
