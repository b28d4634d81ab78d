//! `[[port]]`, `egress`, `[[link]]`, `[[after]]` and `[[volume]]`.

use core::num::NonZeroU16;

use veil_protocol_spec::scheduling::{
    After, Condition, Egress, HostName, HostPort, Link, Name, OnLoss, Port, Protocol, Volume,
    VolumeKind,
};

use super::{
    document::{Parsed, Reader, Section, Value},
    values::{boolean, mebibytes, parsed, whole, word},
};

fn port_number(value: &Value<'_>) -> Parsed<NonZeroU16> {
    let number: u16 = whole(value, 1..=u16::MAX)?;
    Ok(NonZeroU16::new(number).unwrap_or(NonZeroU16::MIN)) // not 0: checked above
}

fn host_port(value: &Value<'_>) -> Parsed<HostPort> {
    if value.get_ref().is_integer() {
        return port_number(value).map(HostPort::Fixed);
    }
    word(value, &[("dynamic", HostPort::Dynamic), ("none", HostPort::None)])
}

pub(super) fn ports(reader: &mut Reader<'_>) -> Vec<Port> {
    let mut ports = Vec::new();
    for section in reader.sections("port") {
        reader.require(section, "port.name", "name = \"http\"");
        reader.require(section, "port.container", "container = 8080");
        let name = reader.get(section, "port.name", parsed);
        let container = reader.get(section, "port.container", port_number);
        let words = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
        let protocol = reader.get(section, "port.protocol", |value| word(value, &words));
        let host = reader.get(section, "port.host", host_port);
        if let (Some(name), Some(container)) = (name, container) {
            let (protocol, host) = (protocol.unwrap_or_default(), host.unwrap_or_default());
            ports.push(Port { name, container, protocol, host });
        }
    }
    ports.sort_by(|a, b| a.name.cmp(&b.name));
    ports
}

pub(super) fn egress(reader: &mut Reader<'_>) -> Egress {
    let words = [
        ("public", Egress::Public),
        ("allow_private", Egress::AllowPrivate),
        ("none", Egress::None),
    ];
    reader.top("egress", |value| word(value, &words)).unwrap_or_default()
}

pub(super) fn links(reader: &mut Reader<'_>) -> Vec<Link> {
    let mut links = Vec::new();
    for section in reader.sections("link") {
        reader.require(section, "link.job", "job = \"shop-db\"");
        reader.require(section, "link.port", "port = \"pg\", which is a [[port]] of that job");
        reader.require(section, "link.listen", "listen = 5432, which this job connects to");
        let job: Option<Name> = reader.get(section, "link.job", parsed);
        let port = reader.get(section, "link.port", parsed);
        let listen = reader.get(section, "link.listen", port_number);
        let env = reader.get(section, "link.env", parsed);
        let host = match reader.has(section, "link.host") {
            true => reader.get(section, "link.host", parsed),
            false => job.as_ref().and_then(|job| {
                let host = job.as_str().parse::<HostName>().ok();
                if host.is_none() {
                    // A number is an address.
                    reader.require(section, "link.host", "host = \"db\"");
                }
                host
            }),
        };
        if let (Some(job), Some(port), Some(host), Some(listen)) = (job, port, host, listen) {
            links.push(Link { host, listen, job, port, env });
        }
    }
    links.sort_by(|a, b| a.address().cmp(&b.address()));
    links
}

pub(super) fn after(reader: &mut Reader<'_>) -> Vec<After> {
    let words = [Condition::Running, Condition::Healthy, Condition::Done].map(|is| (is.word(), is));
    let mut after = Vec::new();
    for section in reader.sections("after") {
        reader.require(section, "after.job", "job = \"shop-db\"");
        let job = reader.get(section, "after.job", parsed);
        let is = reader.get(section, "after.is", |value| word(value, &words));
        if let Some(job) = job {
            after.push(After { job, is: is.unwrap_or_default() });
        }
    }
    after.sort_by(|a, b| a.job.cmp(&b.job));
    after
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Host,
    Ephemeral,
    Tmpfs,
}

pub(super) fn volumes(reader: &mut Reader<'_>) -> Vec<Volume> {
    let mut volumes = Vec::new();
    for section in reader.sections("volume") {
        reader.require(section, "volume.name", "name = \"data\"");
        reader.require(section, "volume.mount", "mount = \"/var/lib/data\"");
        reader.require(section, "volume.kind", "kind = \"host\"");
        let name = reader.get(section, "volume.name", parsed);
        let mount = reader.get(section, "volume.mount", parsed);
        let read_only = reader.get(section, "volume.read_only", boolean).unwrap_or_default();
        if let (Some(name), Some(mount), Some(kind)) = (name, mount, volume_kind(reader, section)) {
            volumes.push(Volume { name, mount, kind, read_only });
        }
    }
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    volumes
}

fn volume_kind<'a>(reader: &mut Reader<'a>, section: Section<'a>) -> Option<VolumeKind> {
    let kinds = [("host", Kind::Host), ("ephemeral", Kind::Ephemeral), ("tmpfs", Kind::Tmpfs)];
    let kind = reader.get(section, "volume.kind", |value| word(value, &kinds));
    let size = reader.get(section, "volume.size", mebibytes);
    let words = [("pending", OnLoss::Pending), ("empty", OnLoss::Empty)];
    let on_loss = reader.get(section, "volume.on_loss", |value| word(value, &words));
    let kind = kind?;
    if kind == Kind::Host {
        reader.refuse(section, &["volume.size"], "kind = \"ephemeral\" or \"tmpfs\"");
        return Some(VolumeKind::Host { on_loss: on_loss.unwrap_or_default() });
    }
    reader.refuse(section, &["volume.on_loss"], "kind = \"host\"");
    reader.require(section, "volume.size", "size = \"1Gi\"");
    let size = size?;
    Some(if kind == Kind::Tmpfs {
        VolumeKind::Tmpfs { size }
    } else {
        VolumeKind::Ephemeral { size }
    })
}
