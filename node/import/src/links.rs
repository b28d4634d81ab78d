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
const KNOWN: &[(&str, &[u16])] = &[
    ("adminer", &[8080]),
    ("caddy", &[80, 443]),
    ("cassandra", &[9042]),
    ("clickhouse-server", &[8123, 9000]),
    ("consul", &[8500]),
    ("elasticsearch", &[9200, 9300]),
    ("etcd", &[2379]),
    ("grafana", &[3000]),
    ("haproxy", &[80]),
    ("httpd", &[80]),
    ("influxdb", &[8086]),
    ("kafka", &[9092]),
    ("keycloak", &[8080]),
    ("kibana", &[5601]),
    ("logstash", &[5044, 9600]),
    ("mailhog", &[1025, 8025]),
    ("mariadb", &[3306]),
    ("memcached", &[11_211]),
    ("minio", &[9000]),
    ("mongo", &[27_017]),
    ("mosquitto", &[1883]),
    ("mysql", &[3306]),
    ("nats", &[4222]),
    ("neo4j", &[7474, 7687]),
    ("nginx", &[80]),
    ("opensearch", &[9200]),
    ("percona", &[3306]),
    ("phpmyadmin", &[80]),
    ("postgis", &[5432]),
    ("postgres", &[5432]),
    ("postgresql", &[5432]),
    ("prometheus", &[9090]),
    ("rabbitmq", &[5672, 15_672]),
    ("redis", &[6379]),
    ("registry", &[5000]),
    ("traefik", &[80]),
    ("valkey", &[6379]),
    ("vault", &[8200]),
    ("wordpress", &[80]),
    ("zookeeper", &[2181]),
];

/// Ports of an image that many know.
pub(crate) fn known_ports(image: &str) -> &'static [u16] {
    let last = image.rsplit('/').next().unwrap_or(image);
    KNOWN.iter().find(|(name, _)| *name == last).map_or(&[], |(_, ports)| ports)
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

/// Links `jobs[from]` to `jobs[to]`, whose ports become ports of that job.
pub(crate) fn link(jobs: &mut [Job], from: usize, to: usize, server: &Server) {
    if from == to {
        return;
    }
    let Some(target) = jobs.get_mut(to) else { return };
    let mut links = Vec::new();
    for host in &server.hosts {
        for (listen, container) in &server.ports {
            let port = Port { container: *container, udp: false, host: Host::None, called: None };
            let name = port.name();
            // It is there already, or is added: a port that only links reach is no other than one that all do.
            let _ = target.add_port(port);
            links.push(Link {
                job: target.name.clone(),
                port: name,
                host: host.to_ascii_lowercase(),
                listen: *listen,
            });
        }
    }
    let Some(source) = jobs.get_mut(from) else { return };
    for link in links {
        // What no container can call a host is no name of it; and its own name leads to itself.
        let is_own = source.container.hostname.as_deref() == Some(&link.host);
        if is_own || link.host.parse::<HostName>().is_err() {
            continue;
        }
        if !source.links.iter().any(|own| own.host == link.host && own.listen == link.listen) {
            source.links.push(link);
        }
    }
}

/// A job has a bounded number of links: those to hosts that its own part of the file names come first.
pub(crate) fn prune(job: &mut Job, texts: &[&str], pos: Pos, report: &mut Report) {
    if job.links.len() <= limits::ENTRIES {
        return;
    }
    let is_named = |link: &Link| texts.iter().any(|text| mentions(text, &link.host));
    let (mut links, others): (Vec<_>, Vec<_>) = job.links.drain(..).partition(is_named);
    if links.len() > limits::ENTRIES {
        let (has, most) = (links.len(), limits::ENTRIES);
        let reason = format!("it names {has} ports of others, and a job has at most {most} links");
        report.changed(&job.service, "links", pos, reason);
        links.truncate(limits::ENTRIES);
    }
    let left = others.len().saturating_sub(limits::ENTRIES - links.len());
    links.extend(others.into_iter().take(limits::ENTRIES - links.len()));
    if left > 0 {
        report.note(format!(
            "{}: {left} links to services that it does not name are left out: a job has at most {}",
            job.service,
            limits::ENTRIES
        ));
    }
    job.links = links;
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
        assert_eq!(known_ports("docker.io/library/postgres"), [5432]);
        assert_eq!(known_ports("example/my-postgres"), [0_u16; 0]);
    }
}
