//! What a node's metrics say beside what its parts count: its status, as numbers.
//!
//! # Caveats
//! Labels are words of this build, and there are few of each: how a job or a peer is called stands in the status, not here.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use veil_protocol_spec::Slot;

use crate::status::{Role, SlotReport, Status};

/// A status, to be printed with the node's registry.
#[derive(Clone, Debug)]
pub struct Measured {
    /// What it says.
    pub status: Status,
    /// Whether the node can take part.
    pub ready: bool,
}

type Encoded = Result<(), core::fmt::Error>;

fn one(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Encoded {
    let gauge = ConstGauge::new(signed(value));
    gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

/// A value for each value of a label.
fn by(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, kind): (&str, &str, MetricType),
    label: &'static str,
    values: &[(&'static str, u64)],
) -> Encoded {
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (word, value) in values {
        let labels = [(label, *word)];
        let metric = family.encode_family(&labels)?;
        match kind {
            MetricType::Counter => ConstCounter::new(*value).encode(metric)?,
            _ => ConstGauge::new(signed(*value)).encode(metric)?,
        }
    }
    Ok(())
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn count<T>(of: &[T], is: impl Fn(&T) -> bool) -> u64 {
    of.iter().filter(|one| is(one)).count() as u64
}

impl Collector for Measured {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
        let (Self { status, ready }, to) = (self, &mut encoder);
        let role = match status.role {
            Role::Member => "member",
            Role::Worker => "worker",
        };
        let labels = [("version", status.version.as_str()), ("role", role)];
        let help = "What runs: always 1";
        let mut family = to.encode_descriptor("veil_build", help, None, MetricType::Gauge)?;
        ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)?;
        one(to, "veil_ready", "Whether the node can take part", u64::from(*ready))?;
        one(to, "veil_last_slot", "Last certified slot known here", status.last_slot.0)?;
        one(to, "veil_resident_memory_bytes", "Memory of the process", status.rss_bytes)?;
        let registered = status.peers.registered as u64;
        one(to, "veil_peers_registered", "Other nodes in the registry", registered)?;

        let replicas = &status.replicas;
        let placed = count(replicas, |replica| replica.worker.is_some());
        let done = count(replicas, |replica| replica.worker.is_none() && replica.done.is_some());
        let waits = count(replicas, |replica| replica.pending_because.is_some());
        let states = [("placed", placed), ("done", done), ("waiting", waits)];
        let help = "Replicas of the cluster; one that is to move is placed and waiting";
        by(to, ("veil_replicas", help, MetricType::Gauge), "state", &states)?;

        let own: Vec<_> = replicas.iter().filter_map(|replica| replica.observed.as_ref()).collect();
        let running = count(&own, |own| own.running);
        let states = [("running", running), ("not_running", own.len() as u64 - running)];
        let help = "This worker's containers: those that run and are healthy, and the others";
        by(to, ("veil_containers", help, MetricType::Gauge), "state", &states)?;
        let restarts = own.iter().map(|own| own.restarts).sum();
        one(to, "veil_container_restarts", "Of the containers that there are now", restarts)?;

        let with = |is: fn(&SlotReport) -> bool| count(&status.slots, is);
        let faults = [
            ("wrong_share", with(|slot| !slot.culprits.is_empty())),
            ("other_evaluation", with(|slot| !slot.disagree.is_empty())),
        ];
        let help = "Of the last 64 slots those in which somebody's part was wrong";
        by(to, ("veil_recent_slot_faults", help, MetricType::Gauge), "fault", &faults)?;

        let Some(chain) = &status.chain else { return Ok(()) };
        one(to, "veil_chain_block", "The block that the node goes by", chain.block)?;
        one(to, "veil_chain_block_time_seconds", "Its time, as Unix time", chain.block_time)?;
        let anchored = chain.anchored_slot.unwrap_or(Slot(0)).0;
        one(to, "veil_anchored_slot", "Slot whose certificate was anchored last", anchored)?;
        let healthy = count(&chain.endpoints, |endpoint| endpoint.healthy);
        let failing = chain.endpoints.len() as u64 - healthy;
        let states = [("healthy", healthy), ("failing", failing)];
        let help = "Endpoints of the chain, by their last request";
        by(to, ("veil_chain_endpoints", help, MetricType::Gauge), "state", &states)?;
        let outcomes = [
            ("answered", chain.endpoints.iter().map(|endpoint| endpoint.answered).sum()),
            ("failed", chain.endpoints.iter().map(|endpoint| endpoint.failed).sum()),
        ];
        let help = "Requests to endpoints of the chain";
        by(to, ("veil_chain_requests", help, MetricType::Counter), "outcome", &outcomes)
    }
}

#[cfg(test)]
mod tests {
    use veil_node_process::metrics::Metrics;
    use veil_protocol_spec::{Blake3Digest, ParticipantIndex, PeerIdHash, ReplicaIndex};

    use super::*;
    use crate::{
        progress::Progress,
        status::{
            ChainStatus, EndpointStatus, Observed, Phase, ReplicaStatus, SlotClock, TrafficStatus,
        },
    };

    const ME: PeerIdHash = PeerIdHash([1; 32]);

    fn status() -> Status {
        let (peers, traffic) = (Default::default(), TrafficStatus::default());
        Status {
            role: Role::Worker,
            version: "1.2.3".to_owned(),
            peer_id: String::new(),
            peer: ME,
            addresses: Vec::new(),
            stage: String::new(),
            waiting_for: Vec::new(),
            engine: None,
            participant: None,
            key_set: None,
            last_slot: Slot(7),
            certificate: None,
            chain: None,
            peers,
            slots: Vec::new(),
            replicas: Vec::new(),
            traffic,
            refusals: Default::default(),
            rss_bytes: 4096,
            peak_rss_bytes: 4096,
        }
    }

    fn text(status: Status) -> String {
        Metrics::default().text_with(Measured { status, ready: true })
    }

    #[track_caller]
    fn says(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|found| found == *line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn each_part_of_a_status_is_a_number() {
        let replica = |worker, pending_because, observed| ReplicaStatus {
            job: Blake3Digest([2; 32]),
            replica: ReplicaIndex(0),
            worker,
            pending_because,
            observed,
            done: None,
            version: None,
        };
        let runs = |running, restarts| Observed { running, restarts, ..Observed::default() };
        let wrong =
            SlotReport { culprits: vec![ParticipantIndex::new(1).unwrap()], ..Default::default() };
        let other = SlotReport { disagree: vec![ME], ..Default::default() };
        let endpoint = |healthy, answered, failed| EndpointStatus {
            url: "http://hunter2".to_owned(),
            healthy,
            fault: None,
            answered,
            failed,
        };
        let text = text(Status {
            replicas: vec![
                replica(Some(ME), None, Some(runs(true, 2))),
                replica(Some(ME), Some("leaves".to_owned()), Some(runs(false, 3))),
                replica(None, Some("no room".to_owned()), None),
            ],
            slots: vec![wrong, other.clone(), other, SlotReport::default()],
            chain: Some(ChainStatus {
                block: 9,
                block_time: 1_700_000_000,
                anchored_slot: Some(Slot(5)),
                endpoints: vec![endpoint(true, 10, 1), endpoint(false, 0, 4)],
            }),
            ..status()
        });
        says(
            &text,
            &[
                "veil_build{version=\"1.2.3\",role=\"worker\"} 1",
                "veil_ready 1",
                "veil_last_slot 7",
                "veil_resident_memory_bytes 4096",
                "veil_peers_registered 0",
                "veil_replicas{state=\"placed\"} 2",
                "veil_replicas{state=\"done\"} 0",
                "veil_replicas{state=\"waiting\"} 2",
                "veil_containers{state=\"running\"} 1",
                "veil_containers{state=\"not_running\"} 1",
                "veil_container_restarts 5",
                "veil_recent_slot_faults{fault=\"wrong_share\"} 1",
                "veil_recent_slot_faults{fault=\"other_evaluation\"} 2",
                "veil_chain_block 9",
                "veil_chain_block_time_seconds 1700000000",
                "veil_anchored_slot 5",
                "veil_chain_endpoints{state=\"healthy\"} 1",
                "veil_chain_endpoints{state=\"failing\"} 1",
                "veil_chain_requests_total{outcome=\"answered\"} 10",
                "veil_chain_requests_total{outcome=\"failed\"} 5",
            ],
        );
        assert!(!text.contains("hunter2"), "a provider's name is no label");
        assert_eq!(text.matches("# EOF").count(), 1);
    }

    #[test]
    fn the_document_lists_each_metric() {
        let chain =
            ChainStatus { block: 0, block_time: 0, anchored_slot: None, endpoints: Vec::new() };
        let metrics = Metrics::default();
        Progress::new(Role::Member, String::new(), ME).measure(&metrics);
        let status = Status { chain: Some(chain), ..status() };
        let text = metrics.text_with(Measured { status, ready: true });
        let lines = include_str!("../../../docs/json.md").lines();
        let listed: String = lines.filter(|line| line.starts_with("| `veil_")).collect();
        for family in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = family.split_once(' ').unwrap();
            let name =
                if kind == "counter" { format!("`{name}_total`") } else { format!("`{name}`") };
            assert!(listed.contains(&name), "docs/json.md lists no {name}");
        }
    }

    #[test]
    fn nothing_is_said_of_a_chain_that_is_not_known() {
        let text = text(status());
        assert!(text.contains("veil_ready 1") && !text.contains("veil_chain"), "{text}");
    }

    #[test]
    fn each_phase_of_a_slot_is_counted_once() {
        let metrics = Metrics::default();
        let progress = Progress::new(Role::Member, String::new(), ME);
        progress.measure(&metrics);
        let mut clock = SlotClock::start(Slot(3));
        clock.add(Phase::Evaluate, 5.0);
        let report = clock.report().clone();
        progress.slot(Slot(3), |known| *known = report);
        progress.slot(Slot(3), |known| known.anchored_in_block = Some(4));
        progress.slot(Slot(3), |known| _ = known.phases.insert(Phase::Enforce, 0.5));
        let text = metrics.text_with(Measured { status: status(), ready: false });
        says(
            &text,
            &[
                "veil_slot_phase_seconds_sum{phase=\"evaluate\"} 5.0",
                "veil_slot_phase_seconds_count{phase=\"evaluate\"} 1",
                "veil_slot_phase_seconds_bucket{le=\"4.0\",phase=\"evaluate\"} 0",
                "veil_slot_phase_seconds_bucket{le=\"8.0\",phase=\"evaluate\"} 1",
                "veil_slot_phase_seconds_count{phase=\"enforce\"} 1",
                "veil_ready 0",
            ],
        );
    }
}
