//! Health checks over TCP and HTTP, made by the worker: the container needs no tool for them. On Podman also those
//! by a command, see [`crate::command`].
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
    command::Command,
    engine::Docker,
    facts::EngineFacts,
    replica::{DesiredReplica, ReplicaId},
};

/// What the probes so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Starting,
    Healthy,
    Unhealthy,
}

/// Whether the worker makes it, not the engine by itself.
pub(crate) fn is_by_worker(check: &HealthCheck, engine: Option<&EngineFacts>) -> bool {
    !matches!(check.probe, HealthProbe::Command(_)) || engine.is_some_and(EngineFacts::is_podman)
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
    pub(crate) fn set(
        &mut self,
        docker: &Docker,
        engine: Option<&EngineFacts>,
        running: &[(&DesiredReplica, String)],
    ) {
        let probed: BTreeMap<_, _> = running
            .iter()
            .filter_map(|(desired, container)| {
                let check = desired.spec.health.as_ref()?;
                is_by_worker(check, engine).then(|| (desired.id(), (check, container)))
            })
            .collect();
        self.probes.retain(|id, probe| {
            probed.get(id).is_some_and(|(_, container)| **container == probe.container)
        });
        for (id, (check, container)) in probed {
            self.probes.entry(id).or_insert_with(|| Probe::spawn(docker, check, container));
        }
    }

    /// The container is stopped: what was found says nothing about its next run.
    pub(crate) fn forget(&mut self, id: &ReplicaId) {
        self.probes.remove(id);
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
    let mut target: Option<Target> = None;
    let mut looks = Looks::default();
    let mut command = Command::default();
    let mut ticks = interval(seconds(check.interval_seconds));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut ok = false;
        let patience = seconds(check.timeout_seconds);
        match &target {
            Some(_) if matches!(check.probe, HealthProbe::Command(_)) => {
                match command.passes(patience, docker.clone().runs_check(container.clone())).await {
                    Some(passes) => ok = passes,
                    None => continue, // as below
                }
            }
            Some(Target { address: Some(ip), .. }) => {
                let probed = timeout(patience, probe(*ip, &check.probe)).await;
                ok = probed.unwrap_or(false);
            }
            _ => {}
        }
        if ok {
            looks = Looks::default();
        } else if looks.are_due() {
            // It may have been started again, or have another address by now.
            let Ok(seen) = docker.inspect(&container).await else {
                continue; // the engine's silence says nothing about the replica
            };
            let at = seen.state.as_ref().and_then(|state| state.started_at.clone());
            let at = at.unwrap_or_default();
            let address = address(&seen);
            match &mut target {
                Some(target) if target.started == at => target.address = address,
                _ => {
                    target = Some(Target { started: at, since: Instant::now(), address });
                    streak = Streak::new(check.retries);
                    looks = Looks::default();
                    command = Command::default();
                    ticks.reset_immediately(); // what has just started is probed without delay
                    continue;
                }
            }
        }
        let Some(target) = &target else { continue };
        let in_start_period = target.since.elapsed() < seconds(check.start_period_seconds);
        let now = streak.next(ok, in_start_period);
        *health.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

/// One run of a container.
struct Target {
    /// The engine's time.
    started: String,
    /// When this worker saw it.
    since: Instant,
    address: Option<IpAddr>,
}

/// Looks at a container whose probe fails: soon at first, and then at least this often.
const LEAST_OFTEN: Duration = Duration::from_secs(10);

/// When to ask the engine where the container is, and since when it runs.
#[derive(Default)]
struct Looks {
    last: Option<(Instant, Duration)>,
}

impl Looks {
    fn are_due(&mut self) -> bool {
        let pause = match self.last {
            Some((at, pause)) if at.elapsed() < pause => return false,
            Some((_, pause)) => LEAST_OFTEN.min(pause * 2),
            None => Duration::from_secs(1),
        };
        self.last = Some((Instant::now(), pause));
        true
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

/// The container's own address; the one of IPv6 on a network that has no other.
pub(crate) fn address(container: &ContainerInspectResponse) -> Option<IpAddr> {
    let networks = container.network_settings.as_ref()?.networks.as_ref()?;
    let parsed = |text: &Option<String>| text.as_ref()?.parse().ok();
    let old = networks.values().find_map(|network| parsed(&network.ip_address));
    old.or_else(|| networks.values().find_map(|network| parsed(&network.global_ipv6_address)))
}

async fn probe(ip: IpAddr, probe: &HealthProbe) -> bool {
    match probe {
        HealthProbe::Command(_) => false, // made within the container
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
    use bollard::models::{EndpointSettings, NetworkSettings};

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

    #[test]
    fn a_network_without_ipv4_is_probed_by_ipv6() {
        let on = |networks: &[(&str, &str)]| {
            let network = |(ip, ipv6): &(&str, &str)| EndpointSettings {
                ip_address: Some((*ip).to_owned()),
                global_ipv6_address: Some((*ipv6).to_owned()),
                ..EndpointSettings::default()
            };
            let networks = networks.iter().enumerate();
            let networks = networks.map(|(i, of)| (i.to_string(), network(of))).collect();
            let settings =
                NetworkSettings { networks: Some(networks), ..NetworkSettings::default() };
            let network_settings = Some(settings);
            let said = ContainerInspectResponse {
                network_settings,
                ..ContainerInspectResponse::default()
            };
            address(&said).map(|ip| SocketAddr::new(ip, 80).to_string())
        };
        for (networks, expected) in [
            (&[("", "")][..], None),
            (&[("172.17.0.2", "")], Some("172.17.0.2:80")),
            (&[("", "fd00::2")], Some("[fd00::2]:80")),
            (&[("172.17.0.2", "fd00::2")], Some("172.17.0.2:80")),
            (&[("", "fd00::2"), ("172.17.0.2", "")], Some("172.17.0.2:80")),
        ] {
            assert_eq!(on(networks).as_deref(), expected, "{networks:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_whose_probe_goes_on_failing_is_looked_at_less_and_less_often() {
        let (mut looks, mut count) = (Looks::default(), 0);
        for _ in 0..60 {
            count += usize::from(looks.are_due());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!((8..=12).contains(&count), "{count}");
    }
}
