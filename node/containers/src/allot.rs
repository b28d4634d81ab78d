//! What a new container gets of its worker: network, ports, devices, folders.

use std::collections::BTreeSet;

use veil_protocol_spec::scheduling::{GpuUnits, VolumeKind};

use crate::{
    error::{DockerError, ReplicaError},
    executor::Executor,
    hosts,
    place::{Place, Unshared},
    port,
    replica::DesiredReplica,
    volume,
};

impl Executor {
    /// What two containers cannot have at once is this one's from here on.
    pub(crate) async fn place(&self, desired: &DesiredReplica) -> Result<Place, ReplicaError> {
        let spec = &*desired.spec;
        let terms = &self.terms;
        let is_ephemeral = |kind| matches!(kind, VolumeKind::Ephemeral { .. });
        let has_quotas =
            spec.volumes.iter().any(|v| is_ephemeral(v.kind)) && self.has_quotas().await?;
        let user = spec.container.user.as_ref();
        let (mut mounts, tmpfs) = volume::mounts(&spec.volumes, &terms.volumes, has_quotas, user)?;
        mounts.extend(self.sealed_mounts(desired));
        let network = self.network_of(spec).await?;
        let unshared = self.unshared(desired, desired.limits()?.gpu).await?;
        Ok(Place {
            network: network.name,
            bridge: network.bridge.name,
            name_servers: terms.name_servers.iter().map(ToString::to_string).collect(),
            unshared,
            mounts,
            tmpfs,
            runtime: terms.runtime.clone(),
        })
    }

    async fn unshared(
        &self,
        desired: &DesiredReplica,
        wanted: GpuUnits,
    ) -> Result<Unshared, ReplicaError> {
        if wanted.0 > 0 && self.facts().await?.is_podman() {
            return Err(ReplicaError::NoGpusOfPodman { wanted: wanted.0 });
        }
        let all = if wanted.0 > 0 { self.terms.gpus.devices() } else { Vec::new() };
        // By number the engine gives those that fail, too.
        let ids: Vec<_> = all.iter().map(|gpu| gpu.id.clone()).collect();
        let used =
            if ids.is_empty() { BTreeSet::new() } else { self.docker.gpus_in_use(&ids).await? };
        let id = desired.id();
        let mut memory = self.memory();
        memory.unshared.remove(&id);
        let given = || memory.unshared.values();
        let own: BTreeSet<_> = given().flat_map(|of| of.devices.iter()).collect();
        let is_free = |id: &String| !used.contains(id) && !own.contains(id);
        let free = all.iter().filter(|gpu| gpu.is_free).map(|gpu| &gpu.id).filter(|id| is_free(id));
        let devices: Vec<_> = free.take(wanted.0.into()).cloned().collect();
        if devices.len() < wanted.0.into() {
            let all = all.iter().filter(|gpu| gpu.is_sound).count();
            let free = devices.len();
            return Err(ReplicaError::NoGpus { wanted: wanted.0, free, all });
        }
        let taken = given().flat_map(|of| of.ports.iter().map(port::taken)).collect();
        let (host, range) = (self.terms.publish_address, &self.terms.dynamic_ports);
        let ports = port::choose(&desired.spec.ports, host, range, &taken)?;
        let links = match desired.spec.links.is_empty() {
            true => None,
            false => {
                let taken = given().filter_map(|of| of.links).collect();
                Some(hosts::free(&taken).ok_or(ReplicaError::NoLinkAddress)?)
            }
        };
        let unshared = Unshared { ports, devices, links };
        memory.unshared.insert(id, unshared.clone());
        Ok(unshared)
    }

    async fn has_quotas(&self) -> Result<bool, DockerError> {
        let known = self.memory().has_quotas;
        if let Some(known) = known {
            return Ok(known);
        }
        // Podman makes a volume with a size, and a container with such a volume, and limits neither.
        let has = !self.facts().await?.is_podman() && self.docker.has_quotas().await?;
        self.memory().has_quotas = Some(has);
        Ok(has)
    }
}
