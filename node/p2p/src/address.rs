//! Addresses that an operator writes, and those that a node tells its peers.

use std::net::IpAddr;

use libp2p::{Multiaddr, multiaddr::Protocol as Part};

/// What is wrong with an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// An earlier draft of QUIC.
    #[error("{0}: only the final version of QUIC is spoken: write /quic-v1 in place of /quic")]
    QuicDraft(Multiaddr),
    /// A name to listen on.
    #[error("{0}: a node listens on addresses of its machine; names go into network.announce")]
    Name(Multiaddr),
    /// Through another peer.
    #[error("{0}: nodes dial each other themselves, not through a relay")]
    Relay(Multiaddr),
    /// An address that stands for all of a machine.
    #[error("{0}: nobody can dial it: write the address at which others reach this node")]
    Unspecified(Multiaddr),
    /// None that is spoken.
    #[error("{0}: write it as /ip4/192.0.2.1/udp/4001/quic-v1 or /ip4/192.0.2.1/tcp/4001")]
    Form(Multiaddr),
}

fn check(address: &Multiaddr, names: bool) -> Result<(), AddressError> {
    let failed = |error: fn(Multiaddr) -> AddressError| Err(error(address.clone()));
    let parts: Vec<_> = address.iter().collect();
    if parts.iter().any(|part| matches!(part, Part::P2pCircuit)) {
        return failed(AddressError::Relay);
    }
    if parts.iter().any(|part| matches!(part, Part::Quic)) {
        return failed(AddressError::QuicDraft);
    }
    let is_name = matches!(
        parts.first(),
        Some(Part::Dns(_) | Part::Dns4(_) | Part::Dns6(_) | Part::Dnsaddr(_))
    );
    if is_name && !names {
        return failed(AddressError::Name);
    }
    match parts.as_slice() {
        [_, Part::Tcp(_)] | [_, Part::Udp(_), Part::QuicV1] if is_name => Ok(()),
        [Part::Ip4(_) | Part::Ip6(_), Part::Tcp(_)]
        | [Part::Ip4(_) | Part::Ip6(_), Part::Udp(_), Part::QuicV1] => Ok(()),
        _ => failed(AddressError::Form),
    }
}

/// Whether a node can listen on an address.
///
/// # Errors
/// [`AddressError`].
pub fn check_listen(address: &Multiaddr) -> Result<(), AddressError> {
    check(address, false)
}

/// Whether a node can be announced, or dialled, at an address, a peer id at its end left out.
///
/// # Errors
/// [`AddressError`].
pub fn check_dial(address: &Multiaddr) -> Result<(), AddressError> {
    let mut bare = address.clone();
    if matches!(bare.iter().last(), Some(Part::P2p(_))) {
        bare.pop();
    }
    check(&bare, true)?;
    let no_port = bare.iter().any(|part| matches!(part, Part::Tcp(0) | Part::Udp(0)));
    if no_port || ip(&bare).is_some_and(|ip| ip.is_unspecified()) {
        return Err(AddressError::Unspecified(address.clone()));
    }
    Ok(())
}

fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Part::Ip4(ip) => Some(ip.into()),
        Part::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// From where an address can be reached: the further, the sooner it is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Anywhere,
    /// A private network's; also that of bridges to containers, which nobody else reaches.
    Network,
    /// The same wire's.
    Link,
    Machine,
}

fn reach(address: &Multiaddr) -> Reach {
    match ip(address) {
        Some(ip) if ip.is_loopback() => Reach::Machine,
        Some(IpAddr::V4(ip)) if ip.is_link_local() => Reach::Link,
        Some(IpAddr::V6(ip)) if ip.is_unicast_link_local() => Reach::Link,
        Some(IpAddr::V4(ip)) if ip.is_private() => Reach::Network,
        Some(IpAddr::V6(ip)) if ip.is_unique_local() => Reach::Network,
        _ => Reach::Anywhere,
    }
}

/// What a node that listens there tells its peers: those that reach furthest first, of which not all may find room, and
/// nothing that only this machine or this wire reaches, unless there is nothing else.
pub(crate) fn told(mut listening: Vec<Multiaddr>) -> Vec<Multiaddr> {
    listening.sort_by_key(reach);
    listening.dedup();
    if listening.first().is_some_and(|address| reach(address) <= Reach::Network) {
        listening.retain(|address| reach(address) <= Reach::Network);
    }
    listening
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_is_taken_or_told_what_to_write() {
        let relay = "16Uiu2HAm7oUS5NJeyagHRy8EbAsh6SyLkghzMMvEtUvi9eJ8X6Zp";
        let peer = format!("/p2p/{relay}");
        let good = ["/ip4/0.0.0.0/udp/0/quic-v1", "/ip6/::/tcp/4001", "/ip4/192.0.2.1/tcp/4001"];
        for text in good {
            assert_eq!(check_listen(&parsed(text)), Ok(()), "{text}");
        }
        for (text, says) in [
            ("/ip4/0.0.0.0/udp/4001/quic".to_owned(), "/quic-v1"),
            ("/dns4/node.example/tcp/4001".to_owned(), "network.announce"),
            (format!("/ip4/192.0.2.1/tcp/4001{peer}/p2p-circuit"), "relay"),
            ("/ip4/0.0.0.0/tcp/4001/ws".to_owned(), "write it as"),
            ("/ip4/0.0.0.0/udp/4001".to_owned(), "write it as"),
            ("/memory/1".to_owned(), "write it as"),
        ] {
            let refused = check_listen(&parsed(&text)).unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
        for text in
            ["/dns4/node.example/udp/4001/quic-v1", "/ip4/192.0.2.1/tcp/4001", "/dns/a/tcp/1"]
        {
            assert_eq!(check_dial(&parsed(text)), Ok(()), "{text}");
            assert_eq!(check_dial(&parsed(&format!("{text}{peer}"))), Ok(()), "{text}");
        }
        // The old spelling of a peer's id.
        let old = parsed(&format!("/ip4/192.0.2.1/tcp/4001/ipfs/{relay}"));
        assert_eq!(check_dial(&old), Ok(()));
        for (text, says) in [
            ("/ip4/0.0.0.0/tcp/4001".to_owned(), "nobody can dial it"),
            ("/ip6/::/udp/4001/quic-v1".to_owned(), "nobody can dial it"),
            ("/ip4/192.0.2.1/tcp/0".to_owned(), "nobody can dial it"),
            (format!("/ip4/192.0.2.1/tcp/4001{peer}/p2p-circuit{peer}"), "relay"),
            ("/dnsaddr/node.example".to_owned(), "write it as"),
        ] {
            let refused = check_dial(&parsed(&text)).unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
    }

    #[test]
    fn what_reaches_furthest_is_told_first() {
        let of = |texts: &[&str]| texts.iter().map(|text| parsed(text)).collect::<Vec<_>>();
        let told = |texts: &[&str]| told(of(texts));
        assert_eq!(
            told(&[
                "/ip4/127.0.0.1/tcp/1",
                "/ip4/172.17.0.1/tcp/1",
                "/ip6/fe80::1/tcp/1",
                "/ip4/192.0.2.1/tcp/1",
                "/ip6/2001:db8::1/tcp/1",
                "/ip6/fd00::1/tcp/1",
                "/ip4/169.254.1.1/tcp/1",
            ]),
            of(&[
                "/ip4/192.0.2.1/tcp/1",
                "/ip6/2001:db8::1/tcp/1",
                "/ip4/172.17.0.1/tcp/1",
                "/ip6/fd00::1/tcp/1",
            ])
        );
        let own = ["/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/127.0.0.1/tcp/1"];
        assert_eq!(told(&own), of(&own), "a network on one machine");
        assert_eq!(told(&[]), []);
    }
}
