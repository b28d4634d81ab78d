//! Health checks over TCP and HTTP, made by the worker: the container needs no tool for them.
//!
//! # State
//! One task per replica, ended when its [`Prober`] drops it. A new start of the container begins a
//! new start period, in which failures do not count.
//!
//! # Caveats
//! The container's address must be reachable from the worker: same machine, bridge network.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bollard::models::ContainerInspectResponse;
use http_body_util::Empty;
use hyper::{Request, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use veil_protocol_spec::scheduling::{HealthCheck, HealthProbe};

use crate::{
    engine::Docker,
    replica::{DesiredReplica, ReplicaId},
};

/// What the probes so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Starting,
    Healthy,
    Unhealthy,
}

/// The probes of all replicas that the worker itself has to probe.
#[derive(Default)]
pub(crate) struct Prober {
    probes: BTreeMap<ReplicaId, Probe>,
}

struct Probe {
    container: String,
    health: Arc<Mutex<Health>>,
    _task: AbortOnDropHandle<()>,
}

impl Prober {
    /// Probes `running` (replica and id of its container) and nothing else.
    pub(crate) fn set(&mut self, docker: &Docker, running: &[(&DesiredReplica, String)]) {
        let probed: BTreeMap<_, _> = running
            .iter()
            .filter_map(|(desired, container)| {
                let check = desired.spec.health.as_ref()?;
                let by_worker = !matches!(check.probe, HealthProbe::Command(_));
                by_worker.then(|| (desired.id(), (check, container)))
            })
            .collect();
        self.probes.retain(|id, probe| {
            probed.get(id).is_some_and(|(_, container)| **container == probe.container)
        });
        for (id, (check, container)) in probed {
            self.probes.entry(id).or_insert_with(|| Probe::spawn(docker, check, container));
        }
    }

    pub(crate) fn health(&self, id: &ReplicaId) -> Option<Health> {
        self.probes
            .get(id)
            .map(|probe| *probe.health.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Probe {
    fn spawn(docker: &Docker, check: &HealthCheck, container: &str) -> Self {
        let health = Arc::new(Mutex::new(Health::Starting));
        let task = tokio::spawn(watch(
            docker.clone(),
            check.clone(),
            container.to_owned(),
            Arc::clone(&health),
        ));
        Self { container: container.to_owned(), health, _task: AbortOnDropHandle::new(task) }
    }
}

async fn watch(docker: Docker, check: HealthCheck, container: String, health: Arc<Mutex<Health>>) {
    let seconds = |seconds: u16| Duration::from_secs(u64::from(seconds));
    let mut streak = Streak::new(check.retries);
    let mut started: Option<(String, Instant)> = None;
    let mut ticks = interval(seconds(check.interval_seconds));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Ok(seen) = docker.inspect(&container).await else {
            continue; // the engine's silence says nothing about the replica
        };
        let at = seen.state.as_ref().and_then(|state| state.started_at.clone());
        let at = at.unwrap_or_default();
        if started.as_ref().is_none_or(|(before, _)| *before != at) {
            started = Some((at, Instant::now()));
            streak = Streak::new(check.retries);
        }
        let in_start_period = started
            .as_ref()
            .is_some_and(|(_, since)| since.elapsed() < seconds(check.start_period_seconds));
        let ok = match address(&seen) {
            Some(ip) => timeout(seconds(check.timeout_seconds), probe(ip, &check.probe)).await,
            None => Ok(false),
        };
        let now = streak.next(ok.unwrap_or(false), in_start_period);
        *health.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

/// Counts failures in a row.
struct Streak {
    retries: u16,
    failures: u16,
    health: Health,
}

impl Streak {
    fn new(retries: u16) -> Self {
        Self { retries, failures: 0, health: Health::Starting }
    }

    fn next(&mut self, ok: bool, in_start_period: bool) -> Health {
        if ok {
            (self.failures, self.health) = (0, Health::Healthy);
        } else if !in_start_period {
            self.failures = self.failures.saturating_add(1);
            if self.failures >= self.retries {
                self.health = Health::Unhealthy;
            }
        }
        self.health
    }
}

/// The container's own address.
fn address(container: &ContainerInspectResponse) -> Option<IpAddr> {
    let networks = container.network_settings.as_ref()?.networks.as_ref()?;
    networks.values().find_map(|network| network.ip_address.as_ref()?.parse().ok())
}

async fn probe(ip: IpAddr, probe: &HealthProbe) -> bool {
    match probe {
        HealthProbe::Command(_) => false, // the engine's
        HealthProbe::Tcp { port } => TcpStream::connect(SocketAddr::new(ip, *port)).await.is_ok(),
        HealthProbe::Http { port, path } => {
            let status = get(SocketAddr::new(ip, *port), path).await;
            status.is_some_and(|status| (200..400).contains(&status))
        }
    }
}

/// The status of a GET. The body is not read.
async fn get(address: SocketAddr, path: &str) -> Option<u16> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let host = address.to_string();
    let request = Request::get(path).header(HOST, host).body(Empty::<Bytes>::new()).ok()?;
    Some(sender.send_request(request).await.ok()?.status().as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_make_a_replica_unhealthy_and_one_success_healthy() {
        let mut streak = Streak::new(2);
        assert_eq!(streak.next(false, true), Health::Starting);
        assert_eq!(streak.next(false, false), Health::Starting);
        assert_eq!(streak.next(true, false), Health::Healthy);
        assert_eq!(streak.next(false, false), Health::Healthy);
        assert_eq!(streak.next(false, false), Health::Unhealthy);
        assert_eq!(streak.next(true, false), Health::Healthy);
    }
}
