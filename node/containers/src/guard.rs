//! What containers may reach is in force before they start.
//!
//! # Flow
//! Each reconciliation first looks which networks there are and writes their rules anew, whoever may have
//! removed them; a new network gets its rules before its first container. Without them nothing starts, and
//! what runs is left alone.

use std::{collections::BTreeSet, sync::Arc};

use veil_protocol_spec::scheduling::{Egress, HostPort, JobSpec};

use crate::{
    error::ReplicaError,
    executor::Executor,
    firewall::{self, FirewallError, NameServers},
    network::{Closed, Network, Networks, word},
    terms::Filter,
};

impl Executor {
    /// Looks which networks there are, and puts their rules in force, which anything may have removed. Until it
    /// has succeeded nothing starts.
    pub(crate) async fn guard(&self) {
        let mut networks = self.networks.lock().await;
        match self.docker.networks(&self.owner).await {
            Ok(known) => networks.known = known,
            Err(error) => {
                tracing::warn!(%error, "no container is started");
                networks.closed = Some(Closed::Engine(Arc::new(error)));
                return;
            }
        }
        networks.closed = None;
        if !networks.known.is_empty() || self.terms.filter == Filter::Unfiltered {
            self.enforce(&mut networks).await;
        }
    }

    async fn enforce(&self, networks: &mut Networks) {
        if self.terms.filter == Filter::Unfiltered {
            if let Err(error) = self.lead().await {
                tracing::warn!(%error, "no links lead anywhere");
            }
            return;
        }
        let bridges: Vec<_> = networks.known.iter().map(|one| one.bridge.clone()).collect();
        let servers = NameServers {
            addresses: firewall::name_servers(&self.terms.name_servers),
            is_here: self.facts().await.is_ok_and(|facts| facts.is_podman()),
        };
        let ways: Vec<_> = self.memory().ways.values().flatten().cloned().collect();
        let rules = firewall::rules(&self.owner, &bridges, &servers, &ways);
        let applied = firewall::apply(&rules).await;
        if let Err(error) = &applied {
            tracing::warn!(%error, "no container is started");
        }
        networks.closed = applied.err().map(Closed::Firewall);
    }

    /// Of a worker that does not filter: brings connections of links here. Whoever has no links needs no rules.
    async fn lead(&self) -> Result<(), FirewallError> {
        let (ways, led) = {
            let memory = self.memory();
            (memory.ways.values().flatten().cloned().collect::<Vec<_>>(), memory.leads)
        };
        if ways.is_empty() && !led {
            return Ok(());
        }
        firewall::apply(&firewall::rules_of_links(&self.owner, &ways)).await?;
        self.memory().leads = !ways.is_empty();
        Ok(())
    }

    /// Puts the rules in force as they are by now.
    pub(crate) async fn renew_rules(&self) -> Result<(), ReplicaError> {
        let mut networks = self.networks.lock().await;
        if self.terms.filter == Filter::Unfiltered {
            return self.lead().await.map_err(ReplicaError::Lead);
        }
        self.enforce(&mut networks).await;
        networks.closed.clone().map_or(Ok(()), |closed| Err(closed.into()))
    }

    /// Whether a container may start.
    pub(crate) async fn admit(&self) -> Result<(), ReplicaError> {
        let closed = self.networks.lock().await.closed.clone();
        closed.map_or(Ok(()), |closed| Err(closed.into()))
    }

    /// The network that a job's containers have; it is made if it is not there.
    pub(crate) async fn network_of(&self, spec: &JobSpec) -> Result<Network, ReplicaError> {
        let egress = spec.egress;
        if egress == Egress::AllowPrivate && !self.terms.allow_private {
            return Err(ReplicaError::PrivateEgress);
        }
        // Rules would do the same, and let answers of published ports through.
        let is_internal = egress == Egress::None && self.terms.filter == Filter::Unfiltered;
        if is_internal && spec.ports.iter().any(|port| port.host != HostPort::None) {
            return Err(ReplicaError::NoWayOut);
        }
        let mut networks = self.networks.lock().await;
        if let Some(Closed::Engine(error)) = &networks.closed {
            return Err(Arc::clone(error).into());
        }
        let fits = |one: &&Network| {
            one.operator == spec.operator
                && one.bridge.egress == egress
                && one.is_internal == is_internal
        };
        let known = networks.known.iter().find(fits).cloned();
        let network = if let Some(network) = known {
            network
        } else {
            let network = Network::new(&self.owner, spec.operator, egress, is_internal);
            self.docker.create_network(network.request(&self.owner)).await?;
            tracing::info!(network = network.name, "a network for an operator of jobs");
            networks.known.push(network.clone());
            networks.is_tidy = false; // it may never get a container
            self.enforce(&mut networks).await;
            network
        };
        if let Some(closed) = &networks.closed {
            return Err(closed.clone().into());
        }
        if !self.facts().await?.is_podman() {
            self.is_filtered(&network.bridge.name)?;
        }
        Ok(network)
    }

    /// Whether rules apply to an interface. Docker makes it with the network, Podman with its first container.
    pub(crate) fn is_filtered(&self, bridge: &str) -> Result<(), FirewallError> {
        match self.terms.filter {
            Filter::Enforced => firewall::is_here(bridge),
            Filter::Unfiltered => Ok(()),
        }
    }

    /// Something was removed: a network may be unused by now.
    pub(crate) async fn may_be_untidy(&self) {
        self.networks.lock().await.is_tidy = false;
    }

    /// Removes networks that nothing uses any more, if there may be such.
    pub(crate) async fn tidy_networks(&self) {
        let mut networks = self.networks.lock().await;
        if networks.is_tidy || networks.known.is_empty() {
            return;
        }
        let listed = match self.list().await {
            Ok(listed) => listed,
            Err(error) => {
                tracing::warn!(%error, "no networks removed; it is tried again");
                return;
            }
        };
        let of_containers = listed.iter().filter_map(|container| {
            Some(container.network_settings.as_ref()?.networks.as_ref()?.keys().cloned())
        });
        let used: BTreeSet<String> = of_containers.flatten().collect();
        let wanted = {
            let memory = self.memory();
            let bodies = memory.desired.values().map(|desired| &desired.spec);
            let wanted = bodies.chain(memory.held_back.values());
            wanted.map(|spec| (spec.operator, word(spec.egress))).collect::<BTreeSet<_>>()
        };
        let is_used = |one: &Network| {
            used.contains(&one.name) || wanted.contains(&(one.operator, word(one.bridge.egress)))
        };
        let (kept, unused): (Vec<_>, Vec<_>) = networks.known.drain(..).partition(is_used);
        // What is wanted and has no container yet may never get one.
        networks.is_tidy = kept.iter().all(|one| used.contains(&one.name));
        networks.known = kept;
        for network in unused {
            // The engine refuses if somebody else's container has it.
            if let Err(error) = self.docker.remove_network(&network.name).await {
                tracing::warn!(network = network.name, %error, "not removed; it is tried again");
                networks.known.push(network);
                networks.is_tidy = false;
            }
        }
        self.enforce(&mut networks).await;
    }
}
