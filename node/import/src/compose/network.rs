//! Ports, networks, and who reaches whom.

use std::collections::{BTreeMap, BTreeSet};

use veil_protocol_spec::scheduling::limits;

use super::{Context, Service};
use crate::{
    error::{ImportError, Pos},
    job::{Host, Job, Port},
    links::{self, Server, mentions, ports_behind},
    report::Report,
    yaml::{Entry, Node},
};

/// The network of services that name none.
const DEFAULT: &str = "default";
/// Ports of one range that are looked at: more than any job may have.
const MAX_RANGE: usize = 2 * limits::PORTS;

/// Which networks a service is in, and under which names.
pub(super) fn networks(
    context: &mut Context<'_>,
    job: &mut Job,
    service: &mut Service,
    node: &Node,
) -> Result<(), ImportError> {
    let mut names = BTreeSet::from([service.name.clone()]);
    names.extend(node.text_at(&["container_name"]).map(str::to_owned));
    let mut own = BTreeMap::new();
    match node.get("network_mode") {
        Some(mode) => match mode.str("network_mode")? {
            "bridge" => {}
            "none" => job.egress = Some("none"),
            other => {
                let reason = match other {
                    "host" => {
                        "containers get no part of the host: the ports that it listens on are its own"
                    }
                    _ => "a container has a network of its own",
                };
                context.report.changed(&service.name, "network_mode", mode.pos, reason);
                own.insert(DEFAULT.to_owned(), names);
            }
        },
        None => {
            let listed = node.get("networks");
            for network in listed.map_or(&[][..], Node::items) {
                own.insert(network.str("networks")?.to_owned(), names.clone());
            }
            for Entry { key, pos, value } in listed.map_or(&[][..], Node::entries) {
                own.insert(key.clone(), names.clone());
                attached(
                    context,
                    service,
                    (key, *pos),
                    value,
                    own.entry(key.clone()).or_default(),
                )?;
            }
            if own.is_empty() {
                own.insert(DEFAULT.to_owned(), names);
            }
        }
    }
    let mut inner = 0;
    for network in own.keys() {
        let pos = service.pos;
        let defined = context.document.at(&["networks", network]);
        if defined.is_some_and(|node| is_internal(context, &service.name, network, node)) {
            inner += 1;
        } else if network != DEFAULT && !is_declared(context.document, network) {
            let reason = format!("there is no network `{network}` in the file");
            context.report.changed(&service.name, "networks", pos, reason);
        }
    }
    if inner > 0 && inner == own.len() {
        job.egress = Some("none");
    }
    service.networks = own;
    Ok(())
}

fn is_declared(document: &Node, network: &str) -> bool {
    let declared = document.get("networks").map_or(&[][..], Node::entries);
    declared.iter().any(|entry| entry.key == network)
}

/// What a service says of a network that it is in.
fn attached(
    context: &mut Context<'_>,
    service: &Service,
    (network, at): (&str, Pos),
    value: &Node,
    names: &mut BTreeSet<String>,
) -> Result<(), ImportError> {
    if value.is_null() {
        return Ok(());
    }
    for Entry { key, pos, value } in value.map(&format!("networks.{network}"))? {
        match key.as_str() {
            "aliases" => {
                for alias in value.list("aliases")? {
                    names.insert(alias.str("aliases")?.to_owned());
                }
            }
            "ipv4_address" | "ipv6_address" | "mac_address" | "link_local_ips" => {
                let reason = "links have names, not addresses";
                context.report.changed(&service.name, &format!("networks.{key}"), *pos, reason);
            }
            key => {
                let pos = if pos.line == 0 { at } else { *pos };
                context.report.drop(&service.name, &format!("networks.{key}"), pos);
            }
        }
    }
    Ok(())
}

/// Whether a network leads nowhere outside; what it says beside that is left out.
fn is_internal(context: &mut Context<'_>, service: &str, network: &str, node: &Node) -> bool {
    let mut internal = false;
    for Entry { key, pos, value } in node.entries() {
        let shown = format!("networks.{network}.{key}");
        match (key.as_str(), value.as_text()) {
            ("internal", _) => internal = value.as_bool() == Some(true),
            ("driver", Some("bridge" | "overlay" | "default")) => {}
            ("driver", Some("host" | "macvlan" | "ipvlan")) => {
                let reason = "containers get no part of the host's network";
                context.report.changed(service, &shown, *pos, reason);
            }
            ("driver_opts", _) => {
                context.report.drop_as(service, "networks.driver_opts", &shown, *pos)
            }
            (key, _) => {
                context.report.drop_as(service, &format!("networks.*.{key}"), &shown, *pos);
            }
        }
    }
    internal
}

/// A job has a bounded number of ports.
fn bounded(context: &mut Context<'_>, job: &mut Job, pos: Pos) {
    if job.ports.len() > limits::PORTS {
        let reason = format!("a job has at most {} ports", limits::PORTS);
        context.report.changed(&job.service, "ports", pos, reason);
        job.ports.truncate(limits::PORTS);
    }
}

/// A number, or a range of them.
fn range(text: &str) -> Option<Vec<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (first != 0 && first <= last).then(|| (first..=last).take(MAX_RANGE).collect())
}

pub(super) fn ports(
    context: &mut Context<'_>,
    job: &mut Job,
    value: &Node,
) -> Result<(), ImportError> {
    for node in value.list("ports")? {
        let found = match node.as_text() {
            Some(text) => short(text),
            None => long(context, job, node)?,
        };
        let Some((published, local)) = found else {
            let says = format!(
                "{:?} is no port: write such as \"8080:80\", \"127.0.0.1:8080:80/tcp\" or \"3000-3005:3000-3005\"",
                node.as_text().unwrap_or_default()
            );
            return Err(ImportError::Value { pos: node.pos, key: "ports".to_owned(), says });
        };
        if local {
            context.report.drop(&job.service, "ports.host_ip", node.pos);
        }
        for port in published {
            let port = if local { Port { host: Host::None, ..port } } else { port };
            if let Err(port) = job.add_port(port) {
                let reason =
                    format!("port {} has one number on the worker's address", port.container);
                context.report.changed(&job.service, "ports", node.pos, reason);
            }
        }
        bounded(context, job, node.pos);
    }
    Ok(())
}

/// `[host_ip:][published:]target[/protocol]`, and whether only the machine itself is meant.
fn short(text: &str) -> Option<(Vec<Port>, bool)> {
    let (text, udp) = match text.split_once('/') {
        Some((text, "tcp")) => (text, false),
        Some((text, "udp")) => (text, true),
        Some(_) => return None,
        None => (text, false),
    };
    let (rest, target) = text.rsplit_once(':').map_or((None, text), |(rest, t)| (Some(rest), t));
    let (address, published) = match rest {
        None => (None, None),
        Some(rest) if rest.ends_with(']') => (Some(rest), None),
        Some(rest) => match rest.rsplit_once(':') {
            Some((address, published)) => (Some(address), Some(published)),
            None if rest.contains('.') => (Some(rest), None),
            None => (None, Some(rest)),
        },
    };
    let is_address = |text: &str| {
        text == "localhost" || text.trim_matches(['[', ']']).parse::<core::net::IpAddr>().is_ok()
    };
    if address.is_some_and(|address| !is_address(address)) {
        return None;
    }
    let targets = range(target)?;
    let published = match published.filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => Some(range(text)?),
    };
    let local = address.is_some_and(is_loopback);
    Some((paired(targets, published, udp)?, local))
}

fn is_loopback(address: &str) -> bool {
    let address = address.trim_matches(['[', ']']);
    address.starts_with("127.") || matches!(address, "::1" | "localhost")
}

fn paired(targets: Vec<u16>, published: Option<Vec<u16>>, udp: bool) -> Option<Vec<Port>> {
    let port = |container, host| Port { container, udp, host, called: None };
    match published {
        None => Some(targets.into_iter().map(|target| port(target, Host::Dynamic)).collect()),
        Some(numbers) if numbers.len() == targets.len() => {
            let both = targets.into_iter().zip(numbers);
            Some(both.map(|(target, number)| port(target, Host::Number(number))).collect())
        }
        // One of a range: the worker chooses.
        Some(_) if targets.len() == 1 => {
            Some(targets.into_iter().map(|target| port(target, Host::Dynamic)).collect())
        }
        Some(_) => None,
    }
}

fn long(
    context: &mut Context<'_>,
    job: &Job,
    node: &Node,
) -> Result<Option<(Vec<Port>, bool)>, ImportError> {
    for Entry { key, pos, .. } in node.map("ports")? {
        match key.as_str() {
            "target" | "published" | "protocol" | "host_ip" | "name" => {}
            key => context.report.drop(&job.service, &format!("ports.{key}"), *pos),
        }
    }
    let udp = match node.text_at(&["protocol"]) {
        None | Some("tcp") => false,
        Some("udp") => true,
        Some(_) => return Ok(None),
    };
    let local = node.text_at(&["host_ip"]).is_some_and(is_loopback);
    let targets = node.text_at(&["target"]).and_then(range);
    let published = match node.text_at(&["published"]).filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => match range(text) {
            Some(numbers) => Some(numbers),
            None => return Ok(None),
        },
    };
    let ports = targets.and_then(|targets| paired(targets, published, udp));
    Ok(ports.map(|ports| (ports, local)))
}

pub(super) fn expose(
    context: &mut Context<'_>,
    job: &mut Job,
    value: &Node,
) -> Result<(), ImportError> {
    for node in value.list("expose")? {
        let text = node.str("expose")?;
        let (text, udp) = match text.split_once('/') {
            Some((text, protocol)) => (text, protocol == "udp"),
            None => (text, false),
        };
        let Some(numbers) = range(text) else {
            let says = format!("{text:?} is no port");
            return Err(ImportError::Value { pos: node.pos, key: "expose".to_owned(), says });
        };
        if udp {
            context.report.drop_as(&job.service, "ports.udp", "expose.udp", node.pos);
        }
        for container in numbers {
            // It may be published, too: that says more.
            let _ = job.add_port(Port { container, udp, host: Host::None, called: None });
        }
        bounded(context, job, node.pos);
    }
    Ok(())
}

/// `links: ["db:database"]`: another name, for this service alone.
pub(super) fn links(service: &mut Service, value: &Node) -> Result<(), ImportError> {
    for node in value.list("links")? {
        let text = node.str("links")?;
        let (target, alias) = text.split_once(':').unwrap_or((text, text));
        service.aliases.push((target.to_owned(), alias.to_owned()));
        service.after.push((target.to_owned(), "running", node.pos));
    }
    Ok(())
}

/// Links each service to all that it shares a network with.
pub(super) fn connect(services: &[Service], jobs: &mut [Job], report: &mut Report) {
    let texts: Vec<&str> =
        services.iter().flat_map(|service| service.texts.iter().map(String::as_str)).collect();
    let servers: Vec<BTreeSet<u16>> = services
        .iter()
        .zip(jobs.iter())
        .map(|(service, job)| {
            let tcp = job.ports.iter().filter(|port| !port.udp).map(|port| port.container);
            let mut ports: BTreeSet<u16> = tcp.chain(service.listens.iter().copied()).collect();
            let hosts: BTreeSet<&String> = service.networks.values().flatten().collect();
            for host in hosts {
                ports.extend(texts.iter().flat_map(|text| ports_behind(text, host)));
            }
            ports.into_iter().take(limits::PORTS).collect()
        })
        .collect();
    // Those that a service names come first: there is not room for all.
    for is_named in [true, false] {
        for (i, from) in services.iter().enumerate() {
            let mut left = 0;
            for (j, to) in services.iter().enumerate().filter(|(j, _)| *j != i) {
                let names = |host: &String| from.texts.iter().any(|text| mentions(text, host));
                let mut hosts = hosts(from, to);
                hosts.retain(|host| names(host) == is_named);
                if hosts.is_empty() {
                    continue;
                }
                let ports = servers.get(j).cloned().unwrap_or_default();
                if ports.is_empty() && is_named {
                    let reason = format!(
                        "it names `{}`, of which no port is known: write `expose` there, or a [[port]] and a [[link]]",
                        to.name
                    );
                    report.changed(&from.name, "networks", from.pos, reason);
                }
                let ports = ports.into_iter().map(|port| (port, port)).collect();
                left += links::link(jobs, i, j, &Server { hosts, ports });
            }
            links::left_out(report, &from.name, from.pos, left);
        }
    }
}

/// Names by which one service reaches another.
fn hosts(from: &Service, to: &Service) -> BTreeSet<String> {
    let shared = to.networks.iter().filter(|(network, _)| from.networks.contains_key(*network));
    let mut hosts: BTreeSet<String> = shared.flat_map(|(_, names)| names.iter().cloned()).collect();
    if !hosts.is_empty() {
        let aliases = from.aliases.iter().filter(|(target, _)| *target == to.name);
        hosts.extend(aliases.map(|(_, alias)| alias.clone()));
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_one_text() {
        let one = |text: &str| {
            let (ports, local) = short(text)?;
            let shown = ports.iter().map(|port| {
                let host = match port.host {
                    Host::Number(n) => n.to_string(),
                    Host::Dynamic => "*".to_owned(),
                    Host::None => "-".to_owned(),
                };
                format!("{host}:{}{}", port.container, if port.udp { "/udp" } else { "" })
            });
            Some((shown.collect::<Vec<_>>().join(" "), local))
        };
        for (text, ports, local) in [
            ("80", "*:80", false),
            ("8080:80", "8080:80", false),
            ("127.0.0.1:8080:80", "8080:80", true),
            ("127.0.0.1::80", "*:80", true),
            ("0.0.0.0:53:53/udp", "53:53/udp", false),
            ("[::1]:8080:80", "8080:80", true),
            ("3000-3001:4000-4001", "3000:4000 3001:4001", false),
            ("3000-3010:80", "*:80", false),
        ] {
            assert_eq!(one(text), Some((ports.to_owned(), local)), "{text}");
        }
        for wrong in ["", "x", "80/sctp", "0:80", "1-2:80-82", "8080:99999", "5-3:5-3"] {
            assert_eq!(one(wrong), None, "{wrong}");
        }
        assert_eq!(
            short("20000-65535").unwrap().0.len(),
            MAX_RANGE,
            "of so many, some are left out"
        );
    }
}
