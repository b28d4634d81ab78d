//! Names and addresses of a container's links (`links.md`, step 3).
//!
//! The addresses are a block of the container's own, which is in its labels: they stay over restarts of container and
//! worker.

use std::{collections::BTreeSet, net::Ipv4Addr};

use veil_protocol_spec::scheduling::{HostName, JobSpec};

/// 198.18.0.0/15: for measurements, and routed nowhere.
const ADDRESSES: u32 = u32::from_be_bytes([198, 18, 0, 0]);
/// Addresses of one container: it has at most as many links.
const BLOCK: u32 = 32;
/// Blocks that containers can have; the first one, with the network's own address, is left out.
const BLOCKS: core::ops::Range<u16> = 1..4096;
pub(crate) fn address(block: u16, host: usize) -> Ipv4Addr {
    let host = u32::try_from(host).unwrap_or(BLOCK) % BLOCK; // there are no more hosts than links
    Ipv4Addr::from(ADDRESSES + u32::from(block) * BLOCK + host)
}

/// A block that none of `taken` is.
pub(crate) fn free(taken: &BTreeSet<u16>) -> Option<u16> {
    BLOCKS.into_iter().find(|block| !taken.contains(block))
}

/// What the container's hosts file says of its links, as engines take it.
pub(crate) fn hosts(spec: &JobSpec, block: Option<u16>) -> Option<Vec<String>> {
    let block = block?;
    let entry = |(i, host): (usize, &HostName)| format!("{}:{}", host.as_str(), address(block, i));
    let entries: Vec<_> = spec.link_hosts().into_iter().enumerate().map(entry).collect();
    (!entries.is_empty()).then_some(entries)
}

/// Variables that say where links are, as engines take them.
pub(crate) fn variables(spec: &JobSpec) -> impl Iterator<Item = String> + '_ {
    spec.links
        .iter()
        .filter_map(|link| Some(format!("{}={}", link.env.as_ref()?.as_str(), link.address())))
}

#[cfg(test)]
pub(crate) mod tests {
    use veil_protocol_spec::scheduling::Link;

    use super::*;
    use crate::fake::replicas;

    pub(crate) fn linked() -> JobSpec {
        let link = |host: &str, listen: u16, env: Option<&str>| Link {
            host: host.parse().unwrap(),
            listen: listen.try_into().unwrap(),
            job: "shop".parse().unwrap(),
            port: "pg".parse().unwrap(),
            env: env.map(|env| env.parse().unwrap()),
        };
        let links =
            vec![link("cache", 6379, None), link("db", 5432, Some("DB")), link("db", 5433, None)];
        JobSpec { links, ..(*replicas(1, 1)[0].spec).clone() }
    }

    #[test]
    fn every_name_has_an_address_and_no_two_containers_have_the_same() {
        let spec = linked();
        let hosts = hosts(&spec, Some(1)).unwrap();
        assert_eq!(hosts, ["cache:198.18.0.32", "db:198.18.0.33"]);
        assert_eq!(variables(&spec).collect::<Vec<_>>(), ["DB=db:5432"]);
        assert_eq!(super::hosts(&spec, Some(2)).unwrap()[0], "cache:198.18.0.64");
        assert_eq!(address(BLOCKS.end - 1, 31), Ipv4Addr::new(198, 19, 255, 255));
        assert_eq!(super::hosts(&replicas(1, 1)[0].spec, Some(1)), None);
        assert_eq!((free(&[].into()), free(&[1, 3].into())), (Some(1), Some(2)));
        assert_eq!(free(&BLOCKS.collect()), None);
    }
}
