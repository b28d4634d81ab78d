//! What the worker's file lets containers have.

use std::{net::IpAddr, path::Path};

use veil_node_api::status::Endpoint;
use veil_node_config::{EgressFilter, WorkerSection};
use veil_node_containers::{self as containers, Approve, Filter, Gpus, HostVolume, Terms};

use crate::telemetry;

/// `data_root` is where the engine keeps containers: no volume may lead there.
/// `ips` are the node's own.
pub(crate) fn terms(section: &WorkerSection, data_root: &Path, ips: &[IpAddr]) -> Terms {
    let filter = match section.egress {
        EgressFilter::Filtered => Filter::Enforced,
        EgressFilter::Unfiltered => Filter::Unfiltered,
    };
    if filter == Filter::Unfiltered {
        tracing::warn!(
            "`worker.egress` is \"unfiltered\": containers reach this host, and whatever it reaches"
        );
    }
    let is_lent = |path: &Path| !path.starts_with(data_root) && !data_root.starts_with(path);
    let volumes = section.volumes.iter().filter(|volume| {
        let is_lent = is_lent(&volume.path);
        if !is_lent {
            let (name, path) = (volume.name.as_str(), volume.path.display());
            tracing::error!(name, %path, "the engine keeps containers there: the volume is not offered");
        }
        is_lent
    });
    let folder = |path: &Path, read_only| HostVolume { path: path.to_owned(), read_only };
    let volumes = volumes.map(|of| (of.name.clone(), folder(&of.path, of.read_only))).collect();
    let devices = telemetry::Gpus::open();
    let [first, last] = section.dynamic_ports;
    Terms {
        filter,
        allow_private: section.allow_private_egress,
        name_servers: section.name_servers.clone(),
        publish_address: section.publish_address,
        announced_address: section.announced_address.or_else(|| ips.first().copied()),
        dynamic_ports: first..=last,
        volumes,
        gpus: Gpus::new(move || devices.devices()),
        approve: Approve::default(),
        links: containers::Links::default(), // the caller knows the chain
        runtime: section.runtime.clone(),
        secrets: Terms::default().secrets,
    }
}

/// Where the ports of a replica are published, as it is told.
pub(crate) fn endpoints(of: Vec<containers::Endpoint>) -> Vec<Endpoint> {
    let told = |of: containers::Endpoint| Endpoint {
        name: of.name,
        host: of.host,
        port: of.port,
        protocol: of.protocol,
    };
    of.into_iter().map(told).collect()
}

#[cfg(test)]
mod tests {
    use veil_node_config::VolumeSection;

    use super::*;

    #[test]
    fn a_folder_of_the_engine_is_not_lent() {
        let volume = |name: &str, path: &str| VolumeSection {
            name: name.parse().unwrap(),
            path: path.into(),
            read_only: false,
        };
        let volumes = vec![
            volume("above", "/srv"),
            volume("beside", "/srv/data"),
            volume("inside", "/srv/docker/volumes"),
        ];
        let section = WorkerSection { volumes, ..WorkerSection::default() };
        let announced = IpAddr::from([192, 0, 2, 7]);
        let terms = terms(&section, Path::new("/srv/docker"), &[announced]);
        assert_eq!(terms.announced_address, Some(announced));
        let offered: Vec<_> = terms.volumes.keys().map(|name| name.as_str()).collect();
        assert_eq!(offered, ["beside"]);
        assert_eq!(terms.filter, Filter::Enforced, "unless the operator says otherwise");
    }
}
