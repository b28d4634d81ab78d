//! Who reaches whom: ports that are known, and links to them.

use std::collections::BTreeSet;

use veil_protocol_spec::scheduling::{HostName, limits};

use crate::{
    error::Pos,
    job::{Host, Job, Link, Port},
    report::Report,
};

/// Ports that programs of well-known images listen on. In Compose every port of a service can be reached, also those
/// that the file does not name.
const KNOWN: &str = include_str!("ports.txt");

/// Ports of an image that many know.
pub(crate) fn known_ports(image: &str) -> impl Iterator<Item = u16> {
    let last = image.rsplit('/').next().unwrap_or(image);
    let of = |line: &'static str| line.split_once(' ').filter(|(name, _)| *name == last);
    let ports = KNOWN.lines().find_map(of).map_or("", |(_, ports)| ports);
    ports.split(' ').filter_map(|port| port.parse().ok())
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// What follows each place where a text has the name of a host as a word.
fn behind<'a>(text: &'a str, host: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(host).filter_map(move |(at, _)| {
        let before = text.get(..at)?.chars().next_back();
        let after = text.get(at + host.len()..)?;
        let ends = !after.starts_with(|c: char| is_of_name(c) && c != '.');
        (!host.is_empty() && before.is_none_or(|c| !is_of_name(c)) && ends).then_some(after)
    })
}

/// Whether a text has the name of a host as a word.
pub(crate) fn mentions(text: &str, host: &str) -> bool {
    behind(text, host).next().is_some()
}

/// Ports that a text names behind that of a host: `db:5432`.
pub(crate) fn ports_behind(text: &str, host: &str) -> BTreeSet<u16> {
    let port = |after: &str| {
        let digits = after.strip_prefix(':')?;
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        digits.get(..end)?.parse().ok().filter(|port| *port != 0)
    };
    behind(text, host).filter_map(port).collect()
}

/// A job that others reach under some names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    pub(crate) hosts: BTreeSet<String>,
    /// What it listens on under these names, and the port of the container.
    pub(crate) ports: BTreeSet<(u16, u16)>,
}

/// Links `jobs[from]` to `jobs[to]`, whose ports become ports of that job. How many links there was no room for.
pub(crate) fn link(jobs: &mut [Job], from: usize, to: usize, server: &Server) -> usize {
    if from == to {
        return 0;
    }
    let own = jobs.get(from).and_then(|job| job.container.hostname.clone());
    let (mut links, mut left) = (Vec::new(), 0);
    let has = jobs.get(from).map_or(0, |job| job.links.len());
    let Some(target) = jobs.get_mut(to) else { return 0 };
    for host in &server.hosts {
        let host = host.to_ascii_lowercase();
        // What no container can call a host is no name of it; and its own name leads to itself.
        if own.as_ref() == Some(&host) || host.parse::<HostName>().is_err() {
            continue;
        }
        for (listen, container) in &server.ports {
            let port = Port { container: *container, udp: false, host: Host::None, called: None };
            let name = port.name();
            let is_there = target.ports.iter().any(|own| own.name() == name);
            if has + links.len() >= limits::PORTS
                || !is_there && target.ports.len() >= limits::PORTS
            {
                left += 1;
                continue;
            }
            // It is there already, or is added: a port that only links reach is no other than one that all do.
            let _ = target.add_port(port);
            links.push(Link {
                job: target.name.clone(),
                port: name,
                host: host.clone(),
                listen: *listen,
            });
        }
    }
    let Some(source) = jobs.get_mut(from) else { return left };
    for link in links {
        if !source.links.iter().any(|own| own.host == link.host && own.listen == link.listen) {
            source.links.push(link);
        }
    }
    left
}

/// Says of links that there was no room for.
pub(crate) fn left_out(report: &mut Report, service: &str, pos: Pos, left: usize) {
    if left > 0 {
        let most = limits::PORTS;
        let reason = format!(
            "there is no room for {left} of its links: a job has at most {most}, and as many ports"
        );
        report.changed(service, "links", pos, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_their_ports_are_found_as_words() {
        let text = "postgres://u:p@db:5432/x, db2:1, my-db:3, db:9187 db.local:7 db";
        assert_eq!(ports_behind(text, "db"), [5432, 9187].into());
        assert!(mentions("http://web/", "web") && mentions("HOST=web", "web"));
        assert!(!mentions("website", "web") && !mentions("a-web", "web") && !mentions("x", ""));
        assert_eq!(ports_behind("db:0 db:99999 db:", "db"), BTreeSet::new());
    }

    #[test]
    fn images_are_known_by_their_last_word() {
        assert!(known_ports("docker.io/library/rabbitmq").eq([5672, 15_672]));
        assert_eq!(known_ports("example/my-postgres").next(), None);
    }
}
