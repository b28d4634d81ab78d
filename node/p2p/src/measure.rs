//! What the network adds to the node's registry.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use std::collections::BTreeSet;
use tokio::sync::watch;
use veil_node_process::metrics::Metrics;
use veil_protocol_spec::PeerIdHash;

use crate::{
    swim::{Health, Liveness},
    traffic::{Count, Counters, Traffic},
};

/// Reads traffic and peers whenever the registry is printed.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) counters: Counters,
    pub(crate) liveness: watch::Receiver<Liveness>,
    pub(crate) connected: watch::Receiver<BTreeSet<PeerIdHash>>,
}

/// A counter of messages or bytes: its name, what it says, which count it is.
type Column = (&'static str, &'static str, fn(&Count) -> [(&'static str, u64); 2]);

const MESSAGES: Column = ("veil_network_messages", "Messages sent and received.", |count| {
    [("sent", count.sent), ("received", count.received)]
});
const BYTES: Column = ("veil_network_bytes", "Payload bytes sent and received.", |count| {
    [("sent", count.sent_bytes), ("received", count.received_bytes)]
});

impl Measured {
    pub(crate) fn register(self, metrics: &Metrics) {
        metrics.registry().register_collector(Box::new(self));
    }

    fn peers(&self) -> [(&'static str, usize); 4] {
        let liveness = self.liveness.borrow();
        let count = |is: fn(&Health) -> bool| liveness.iter().filter(|(_, h)| is(h)).count();
        [
            ("connected", self.connected.borrow().len()),
            ("alive", count(|health| matches!(health, Health::Alive))),
            ("suspect", count(|health| matches!(health, Health::Suspect))),
            ("down", count(|health| matches!(health, Health::Down { .. }))),
        ]
    }
}

fn named(traffic: &Traffic) -> Vec<(&'static str, Count)> {
    let topics = traffic.topics.iter().map(|(topic, count)| (topic.name(), *count));
    let protocols = traffic.protocols.iter().map(|(protocol, count)| (protocol.name(), *count));
    topics.chain(protocols).chain([("blob", traffic.blobs)]).collect()
}

impl Collector for Measured {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), core::fmt::Error> {
        let counts = named(&self.counters.lock());
        for (name, help, of) in [MESSAGES, BYTES] {
            let kind = MetricType::Counter;
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (protocol, count) in &counts {
                for (direction, value) in of(count) {
                    let labels = [("protocol", *protocol), ("direction", direction)];
                    ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        let help = "Peers with a connection, and peers by what SWIM says of them.";
        let mut family = encoder.encode_descriptor("veil_peers", help, None, MetricType::Gauge)?;
        for (state, count) in self.peers() {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            ConstGauge::new(count).encode(family.encode_family(&[("state", state)])?)?;
        }
        Ok(())
    }
}
