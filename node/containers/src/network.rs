//! Networks of containers: one for each operator of jobs and what its jobs may reach, so that containers of
//! two operators never meet, and those of one do if they may reach the same.
//!
//! # State
//! The labels of the networks, as those of containers. The engine is asked for them once in a
//! reconciliation. A network is made for the first replica that needs it, and removed when no container is
//! left that has it, running or not.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use bollard::{
    models::{Network as Said, NetworkCreateRequest},
    query_parameters::ListNetworksOptionsBuilder,
};
use veil_protocol_spec::{Address, scheduling::Egress};

use crate::{
    engine::{Docker, Kind},
    error::{DockerError, ReplicaError},
    firewall::{self, Bridge, FirewallError},
    labels,
    owner::Owner,
};

const OPERATOR: &str = "veil.operator";
const EGRESS: &str = "veil.egress";
const BRIDGE: &str = "veil.bridge";
/// Whether the engine itself keeps it from everything else.
const INTERNAL: &str = "veil.internal";

/// A network of this worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) name: String,
    pub(crate) operator: Address,
    pub(crate) bridge: Bridge,
    pub(crate) is_internal: bool,
}

/// As labels and names say it.
pub(crate) const fn word(egress: Egress) -> &'static str {
    match egress {
        Egress::Public => "public",
        Egress::AllowPrivate => "private",
        Egress::None => "none",
    }
}

impl Network {
    pub(crate) fn new(owner: &Owner, operator: Address, egress: Egress, is_internal: bool) -> Self {
        // A name that nobody can foresee: by one that follows from the operator's address, another could
        // choose an address with the same.
        let random = RandomState::new().hash_one(operator.0) & ((1 << 44) - 1);
        let word = word(egress);
        Self {
            name: format!("veil-{:.8}-{operator}-{word}-{random:011x}", owner.worker.to_string()),
            operator,
            bridge: Bridge { name: format!("{}{random:011x}", firewall::PREFIX), egress },
            is_internal,
        }
    }

    /// None if the labels are not what [`Self::request`] writes.
    fn read(said: Said) -> Option<Self> {
        let labels = said.labels?;
        let egress = [Egress::Public, Egress::AllowPrivate, Egress::None];
        let named = labels.get(EGRESS)?;
        let egress = egress.into_iter().find(|one| word(*one) == named);
        Some(Self {
            name: said.name?,
            operator: labels.get(OPERATOR)?.parse().ok()?,
            bridge: Bridge { name: labels.get(BRIDGE)?.clone(), egress: egress? },
            is_internal: labels.contains_key(INTERNAL),
        })
    }

    pub(crate) fn request(&self, owner: &Owner) -> NetworkCreateRequest {
        let masquerade = self.bridge.egress != Egress::None;
        let options = [
            ("com.docker.network.bridge.name", self.bridge.name.clone()),
            ("com.docker.network.bridge.enable_icc", true.to_string()),
            ("com.docker.network.bridge.enable_ip_masquerade", masquerade.to_string()),
        ];
        let own = [
            (OPERATOR, self.operator.to_string()),
            (EGRESS, word(self.bridge.egress).to_owned()),
            (BRIDGE, self.bridge.name.clone()),
        ];
        let internal = self.is_internal.then(|| (INTERNAL, true.to_string()));
        let own = own.into_iter().chain(internal).chain(labels::of_owner(owner));
        let owned = |(key, value): (&str, String)| (key.to_owned(), value);
        NetworkCreateRequest {
            name: self.name.clone(),
            driver: Some("bridge".to_owned()),
            internal: Some(self.is_internal),
            enable_ipv6: Some(false),
            options: Some(options.into_iter().map(owned).collect()),
            labels: Some(own.map(owned).collect()),
            ..NetworkCreateRequest::default()
        }
    }
}

/// Why nothing starts.
#[derive(Clone, Debug)]
pub(crate) enum Closed {
    Firewall(FirewallError),
    /// It does not say which networks there are.
    Engine(Arc<DockerError>),
}

impl From<Closed> for ReplicaError {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Firewall(error) => Self::Firewall(error),
            Closed::Engine(error) => Self::Look(error),
        }
    }
}

/// The networks that the engine has, and whether their rules are in force.
#[derive(Default)]
pub(crate) struct Networks {
    pub(crate) known: Vec<Network>,
    pub(crate) closed: Option<Closed>,
    /// Whether all of them have been looked at since something was removed.
    pub(crate) is_tidy: bool,
}

impl Docker {
    pub(crate) async fn networks(&self, owner: &Owner) -> Result<Vec<Network>, DockerError> {
        let filter = labels::filter(owner);
        let options = ListNetworksOptionsBuilder::new().filters(&filter).build();
        let listing = self.client.list_networks(Some(options));
        let listed = self.call(Kind::List, "list networks", listing).await?;
        Ok(listed.into_iter().filter_map(Network::read).collect())
    }

    pub(crate) async fn create_network(
        &self,
        request: NetworkCreateRequest,
    ) -> Result<(), DockerError> {
        let creating = self.client.create_network(request);
        self.call(Kind::Change, "create network", creating).await.map(drop)
    }

    pub(crate) async fn remove_network(&self, name: &str) -> Result<(), DockerError> {
        let removing = self.client.remove_network(name);
        match self.call(Kind::Change, "remove network", removing).await {
            Err(error) if error.status() == Some(404) => Ok(()),
            removed => removed,
        }
    }
}
