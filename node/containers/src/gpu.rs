//! GPUs, given by the driver's ids.
//!
//! By number the engine gives everybody the same first devices. So the worker chooses ids that no container
//! has: of its own, by their labels; of other workers on this engine, likewise; of anybody else, by what the
//! engine says of running containers. What the driver says that programs compute on is left out, too. Ids are in the labels of containers, which are the engine's own, and
//! nowhere else.

use std::{collections::BTreeSet, fmt, sync::Arc};

use bollard::{models::DeviceRequest, query_parameters::ListContainersOptionsBuilder};

use crate::{engine::Docker, error::DockerError, labels};

/// A device of this machine, as its driver says. The default is one that fails.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Gpu {
    /// The driver's id. Empty if it says none.
    pub id: String,
    /// Whether it can be used at all.
    pub is_sound: bool,
    /// Whether nothing computes on it.
    pub is_free: bool,
}

/// Ids tell machines apart.
impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gpu")
    }
}

/// Says which devices there are, in the driver's own order.
#[derive(Clone)]
pub struct Gpus(Arc<dyn Fn() -> Vec<Gpu> + Send + Sync>);

impl Gpus {
    /// Asked again before each container that wants GPUs.
    pub fn new(devices: impl Fn() -> Vec<Gpu> + Send + Sync + 'static) -> Self {
        Self(Arc::new(devices))
    }

    pub(crate) fn devices(&self) -> Vec<Gpu> {
        (self.0)()
    }
}

/// None.
impl Default for Gpus {
    fn default() -> Self {
        Self::new(Vec::new)
    }
}

impl fmt::Debug for Gpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gpus")
    }
}

/// As the engine wants them.
pub(crate) fn request(ids: &[String]) -> Option<Vec<DeviceRequest>> {
    (!ids.is_empty()).then(|| {
        vec![DeviceRequest {
            device_ids: Some(ids.to_vec()),
            capabilities: Some(vec![vec!["gpu".to_owned()]]),
            ..DeviceRequest::default()
        }]
    })
}

/// Which of `ids` a request takes. By number the engine gives the first ones.
fn taken_by(request: &DeviceRequest, ids: &[String]) -> Vec<String> {
    if let Some(named) = request.device_ids.as_ref().filter(|named| !named.is_empty()) {
        let by_index = |name: &String| ids.get(name.parse::<usize>().ok()?).cloned();
        return named.iter().map(|name| by_index(name).unwrap_or_else(|| name.clone())).collect();
    }
    let count = request.count.unwrap_or(0);
    let count = usize::try_from(count).unwrap_or(ids.len()); // -1 is all of them
    ids.iter().take(count).cloned().collect()
}

impl Docker {
    /// Those of `ids` that containers on this engine have, whoever they belong to.
    pub(crate) async fn gpus_in_use(
        &self,
        ids: &[String],
    ) -> Result<BTreeSet<String>, DockerError> {
        let options = ListContainersOptionsBuilder::new().all(true).build();
        let mut used = BTreeSet::new();
        for container in self.containers(options).await? {
            let own = container.labels.as_ref().and_then(labels::devices);
            if let Some(devices) = own {
                used.extend(devices);
                continue;
            }
            let Some(id) = container.id.filter(|_| labels::is_foreign(container.labels.as_ref()))
            else {
                continue;
            };
            let seen = match self.inspect(&id).await {
                Err(error) if error.status() == Some(404) => continue,
                seen => seen?,
            };
            let is_running = seen.state.and_then(|state| state.running).unwrap_or(false);
            let host = seen.host_config.filter(|_| is_running);
            let requests = host.and_then(|host| host.device_requests).unwrap_or_default();
            used.extend(requests.iter().flat_map(|request| taken_by(request, ids)));
        }
        Ok(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_takes_what_the_engine_gives_for_it() {
        let ids = ["GPU-a", "GPU-b", "GPU-c"].map(str::to_owned);
        let by_count = |count| DeviceRequest { count: Some(count), ..DeviceRequest::default() };
        let by_name = |names: &[&str]| DeviceRequest {
            device_ids: Some(names.iter().map(|&name| name.to_owned()).collect()),
            ..DeviceRequest::default()
        };
        for (request, expected) in [
            (by_count(-1), &["GPU-a", "GPU-b", "GPU-c"][..]),
            (by_count(2), &["GPU-a", "GPU-b"]),
            (by_count(9), &["GPU-a", "GPU-b", "GPU-c"]),
            (by_count(0), &[]),
            (by_name(&["GPU-b"]), &["GPU-b"]),
            (by_name(&["2", "0"]), &["GPU-c", "GPU-a"]),
        ] {
            assert_eq!(taken_by(&request, &ids), expected, "{request:?}");
        }
    }

    #[test]
    fn ids_are_not_printed() {
        let gpu = Gpu { id: "GPU-secret".to_owned(), ..Gpu::default() };
        let shown = format!("{gpu:?}");
        let shown = format!("{shown} {:?}", Gpus::new(move || vec![gpu.clone()]));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
