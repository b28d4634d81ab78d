//! The way from the addresses of a container's links to this worker (`links.md`, step 4).
//!
//! # State
//! Who listens, and on which port, is in memory only; each reconciliation asks for it again.

use std::{collections::BTreeSet, net::SocketAddrV4, sync::Arc};

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as State};
use veil_protocol_spec::scheduling::{Egress, Link};

use crate::{
    carry::LinkPoint,
    error::ReplicaError,
    executor::Executor,
    firewall::Way,
    hosts::address,
    keep::Keep,
    labels,
    replica::{DesiredReplica, ReplicaId},
    terms::Filter,
};

/// The interface is not there: Podman makes it with the first container.
const NO_SUCH_DEVICE: i32 = 19;

impl Executor {
    fn ways(
        &self,
        desired: &DesiredReplica,
        bridge: &str,
        block: Option<u16>,
    ) -> Result<Vec<Way>, ReplicaError> {
        // The engine's own separation leaves such a network no way out, not even to this host.
        if self.terms.filter == Filter::Unfiltered && desired.spec.egress == Egress::None {
            return Err(ReplicaError::UnfilteredLinks);
        }
        let carry = self.terms.links.carry().ok_or(ReplicaError::NoLinks)?;
        let block = block.ok_or(ReplicaError::NoLinkAddress)?;
        let hosts = desired.spec.link_hosts();
        let way = |(index, link): (usize, &Link)| {
            let host = hosts.iter().position(|host| **host == link.host).unwrap_or(0);
            let at = SocketAddrV4::new(address(block, host), link.listen.get());
            let (of, spec) = (desired.id(), Arc::clone(&desired.spec));
            let bridge = bridge.to_owned();
            let point = LinkPoint { of, spec, index, bridge: bridge.clone(), at };
            let port = carry.listen(&point).map_err(ReplicaError::Listen)?;
            Ok(Way { bridge, at, port })
        };
        desired.spec.links.iter().enumerate().map(way).collect()
    }

    /// Has the connections of a replica's links come to this worker.
    pub(crate) async fn link(
        &self,
        desired: &DesiredReplica,
        bridge: &str,
        block: Option<u16>,
    ) -> Result<(), ReplicaError> {
        if desired.spec.links.is_empty() {
            return Ok(());
        }
        let ways = self.ways(desired, bridge, block)?;
        let id = desired.id();
        {
            let mut memory = self.memory();
            if memory.ways.get(&id) == Some(&ways) {
                return Ok(()); // in force since the last reconciliation began, at the latest
            }
            memory.ways.insert(id, ways);
        }
        self.renew_rules().await
    }

    /// The same before the container starts, unless its interface is made with it.
    pub(crate) async fn link_before(
        &self,
        desired: &DesiredReplica,
        bridge: &str,
        block: Option<u16>,
    ) -> Result<(), ReplicaError> {
        match self.link(desired, bridge, block).await {
            Err(ReplicaError::Listen(error)) if error.raw_os_error() == Some(NO_SUCH_DEVICE) => {
                if self.facts().await?.is_podman() {
                    Ok(())
                } else {
                    Err(ReplicaError::Listen(error))
                }
            }
            linked => linked,
        }
    }

    /// The same of a container that is there already.
    pub(crate) async fn keep_linked(
        &self,
        desired: &DesiredReplica,
        container: &ContainerSummary,
    ) -> Result<(), ReplicaError> {
        if desired.spec.links.is_empty() {
            return Ok(());
        }
        let block = container.labels.as_ref().and_then(labels::read);
        let block = block.and_then(|labels| labels.unshared.links);
        let bridge = self.network_of(&desired.spec).await?.bridge.name;
        match container.state {
            Some(State::RUNNING) => self.link(desired, &bridge, block).await,
            _ => self.link_before(desired, &bridge, block).await,
        }
    }

    /// Ends the links of replicas that are neither desired nor kept, and have no container any more.
    pub(crate) fn end_links(&self, keep: &Keep, existing: impl Iterator<Item = ReplicaId>) {
        let Some(carry) = self.terms.links.carry() else { return };
        let mut here: BTreeSet<_> = keep.replicas.iter().copied().chain(existing).collect();
        let mut memory = self.memory();
        // Also what a later call desires, or an earlier one is at work on.
        here.extend(memory.desired.keys().chain(memory.busy.keys()));
        memory.ways.retain(|id, _| here.contains(id));
        carry.retain(&|id| here.contains(id));
    }
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::scheduling::JobSpec;

    use super::*;
    use crate::{
        fake::{Fake, replicas},
        hosts::tests::linked,
    };

    #[tokio::test]
    async fn a_worker_that_cannot_lead_or_carries_nothing_refuses_links_by_name() {
        let desired = DesiredReplica { spec: Arc::new(linked()), ..replicas(1, 1)[0].clone() };
        let fake = Fake::default();
        let unfiltered = fake.worker().await;
        let spec = JobSpec { egress: Egress::None, ..linked() };
        let without = DesiredReplica { spec: Arc::new(spec), ..desired.clone() };
        let refused = unfiltered.link(&without, "veil0", Some(1)).await.unwrap_err();
        assert!(matches!(refused, ReplicaError::UnfilteredLinks), "{refused}");
        let nobody = fake.worker_on(crate::Terms::default()).await;
        let refused = nobody.link(&desired, "veil0", Some(1)).await.unwrap_err();
        assert!(matches!(refused, ReplicaError::NoLinks), "{refused}");
    }
}
