//! Ports of containers on the worker's own address.
//!
//! A number that the worker has chosen stays with the container, over all of its restarts: it is in the
//! container's labels. Whether a port is free is for the engine to say when the container starts; what is in
//! use then is that replica's trouble alone, and is tried again.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    hash::{BuildHasher as _, RandomState},
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    ops::RangeInclusive,
    str::FromStr,
};

use bollard::models::PortBinding;
use veil_protocol_spec::scheduling::{HostPort, Name, Port, Protocol};

use crate::error::ReplicaError;

/// Where a port of a replica is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What the job calls the port.
    pub name: Name,
    /// The worker's address.
    pub host: IpAddr,
    /// The port there.
    pub port: u16,
    /// How packets reach it.
    pub protocol: Protocol,
}

/// An endpoint, and the port of the container that it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) endpoint: Endpoint,
    pub(crate) container: u16,
}

const fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// As labels have it: such as `http/tcp/8080/0.0.0.0/20001`.
impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoint { name, host, port, protocol } = &self.endpoint;
        write!(f, "{}/{}/{}/{host}/{port}", name.as_str(), word(*protocol), self.container)
    }
}

/// A text is no [`Bound`].
pub(crate) struct Unreadable;

impl FromStr for Bound {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let parts: Vec<_> = text.split('/').collect();
        let [name, protocol, container, host, port] = parts[..] else { return Err(Unreadable) };
        let protocol =
            [Protocol::Tcp, Protocol::Udp].into_iter().find(|one| word(*one) == protocol);
        let endpoint = Endpoint {
            name: name.parse().map_err(|_| Unreadable)?,
            host: host.parse().map_err(|_| Unreadable)?,
            port: port.parse().map_err(|_| Unreadable)?,
            protocol: protocol.ok_or(Unreadable)?,
        };
        Ok(Self { endpoint, container: container.parse().map_err(|_| Unreadable)? })
    }
}

/// Where each of `ports` is to be, none of them among `taken`.
pub(crate) fn choose(
    ports: &[Port],
    host: IpAddr,
    dynamic: &RangeInclusive<u16>,
    taken: &BTreeSet<(&'static str, u16)>,
) -> Result<Vec<Bound>, ReplicaError> {
    // What the job itself fixes is no choice for its other ports.
    let fixed = ports.iter().filter_map(|port| match port.host {
        HostPort::Fixed(number) => Some((word(port.protocol), number.get())),
        HostPort::Dynamic | HostPort::None => None,
    });
    let mut taken: BTreeSet<_> = taken.iter().copied().chain(fixed).collect();
    let mut chosen = Vec::new();
    for port in ports {
        let number = match port.host {
            HostPort::None => continue,
            HostPort::Fixed(number) => number.get(),
            HostPort::Dynamic => {
                let number = free(dynamic, |number| {
                    !taken.contains(&(word(port.protocol), number))
                        && is_free(SocketAddr::new(host, number), port.protocol)
                });
                number.ok_or_else(|| ReplicaError::NoPort {
                    name: port.name.clone(),
                    first: *dynamic.start(),
                    last: *dynamic.end(),
                })?
            }
        };
        taken.insert((word(port.protocol), number));
        let (name, protocol) = (port.name.clone(), port.protocol);
        let endpoint = Endpoint { name, host, port: number, protocol };
        chosen.push(Bound { endpoint, container: port.container.get() });
    }
    Ok(chosen)
}

/// Those that are taken, as [`choose`] wants them.
pub(crate) fn taken(bound: &Bound) -> (&'static str, u16) {
    (word(bound.endpoint.protocol), bound.endpoint.port)
}

/// One of the range, from a random one on: what was in use a moment ago is not tried first.
fn free(range: &RangeInclusive<u16>, is_free: impl Fn(u16) -> bool) -> Option<u16> {
    let count = u64::try_from(range.len()).unwrap_or(0);
    let begin = RandomState::new().hash_one(()).checked_rem(count)?;
    let mut numbers = (0..count).filter_map(|i| {
        let offset = u16::try_from((begin + i) % count).ok()?;
        range.start().checked_add(offset)
    });
    numbers.find(|number| is_free(*number))
}

fn is_free(at: SocketAddr, protocol: Protocol) -> bool {
    match protocol {
        Protocol::Tcp => TcpListener::bind(at).is_ok(),
        Protocol::Udp => UdpSocket::bind(at).is_ok(),
    }
}

/// As the engine wants them: by port of the container.
pub(crate) fn bindings(ports: &[Bound]) -> HashMap<String, Option<Vec<PortBinding>>> {
    let binding = |bound: &Bound| {
        let Endpoint { host, port, protocol, .. } = &bound.endpoint;
        let at = PortBinding { host_ip: Some(host.to_string()), host_port: Some(port.to_string()) };
        (format!("{}/{}", bound.container, word(*protocol)), Some(vec![at]))
    };
    ports.iter().map(binding).collect()
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, num::NonZeroU16};

    use super::*;

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn port(name: &str, container: u16, host: HostPort) -> Port {
        Port {
            name: name.parse().unwrap(),
            container: container.try_into().unwrap(),
            protocol: Protocol::Tcp,
            host,
        }
    }

    #[test]
    fn a_label_says_all_of_an_endpoint() {
        for (host, protocol) in [("0.0.0.0", Protocol::Tcp), ("2001:db8::1", Protocol::Udp)] {
            let host = host.parse().unwrap();
            let endpoint = Endpoint { name: "http".parse().unwrap(), host, port: 20_001, protocol };
            let bound = Bound { endpoint, container: 8080 };
            assert_eq!(bound.to_string().parse::<Bound>().ok(), Some(bound));
        }
        for text in
            ["", "http", "http/sctp/1/0.0.0.0/2", "http/tcp/1/nowhere/2", "a/tcp/1/0.0.0.0/2/3"]
        {
            assert!(text.parse::<Bound>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_taken_or_listened_at_is_not_chosen() {
        let listener = TcpListener::bind((HOST, 0)).unwrap();
        let used = listener.local_addr().unwrap().port();
        let dynamic = used..=used;
        let one = [port("http", 80, HostPort::Dynamic)];
        let chosen = |dynamic: &RangeInclusive<u16>, taken: &[u16]| {
            let taken = taken.iter().map(|number| ("tcp", *number)).collect();
            choose(&one, HOST, dynamic, &taken).map(|chosen| chosen[0].endpoint.port)
        };
        assert!(matches!(chosen(&dynamic, &[]), Err(ReplicaError::NoPort { .. })));
        drop(listener);
        assert_eq!(chosen(&dynamic, &[]).unwrap(), used);
        assert!(matches!(chosen(&dynamic, &[used]), Err(ReplicaError::NoPort { .. })));
        let range = 21_000..=21_009;
        let taken: Vec<_> = (21_000..21_009).collect();
        assert_eq!(chosen(&range, &taken).unwrap(), 21_009);
    }

    #[test]
    fn fixed_ports_are_where_the_job_says_and_others_elsewhere_or_nowhere() {
        let fixed = HostPort::Fixed(NonZeroU16::new(22_000).unwrap());
        let ports =
            [port("a", 1, HostPort::Dynamic), port("b", 2, fixed), port("c", 3, HostPort::None)];
        let chosen = choose(&ports, HOST, &(22_000..=22_001), &BTreeSet::new()).unwrap();
        let numbers: Vec<_> = chosen.iter().map(|bound| bound.endpoint.port).collect();
        assert_eq!(numbers, [22_001, 22_000]);
        let bindings = bindings(&chosen);
        let at = bindings["2/tcp"].as_ref().unwrap();
        assert_eq!(at[0].host_ip.as_deref(), Some("127.0.0.1"));
        assert_eq!(at[0].host_port.as_deref(), Some("22000"));
        assert_eq!(bindings.len(), 2);
    }
}
