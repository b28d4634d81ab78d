//! How fast one peer may send: messages and bytes, on each protocol and topic.
//!
//! The defaults are several times what an honest peer sends at its busiest, so that only misbehaviour
//! meets them.

use std::collections::BTreeMap;

use crate::kind::{KIB, MIB, Protocol, Topic};

/// How fast a peer may send in the long run, and how much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Messages per second, on average.
    pub per_second: u32,
    /// Messages at once.
    pub burst: u32,
    /// Bytes per second, on average.
    pub bytes_per_second: u64,
    /// Bytes at once.
    pub burst_bytes: u64,
}

impl Rate {
    const fn new(per_second: u32, burst: u32, bytes_per_second: usize, burst_bytes: usize) -> Self {
        let (bytes_per_second, burst_bytes) = (bytes_per_second as u64, burst_bytes as u64);
        Self { per_second, burst, bytes_per_second, burst_bytes }
    }

    /// What `authors` peers together may send.
    pub(crate) fn of_all(self, authors: usize) -> Self {
        let authors = u32::try_from(authors).unwrap_or(u32::MAX).max(1);
        Self {
            per_second: self.per_second.saturating_mul(authors),
            burst: self.burst.saturating_mul(authors),
            bytes_per_second: self.bytes_per_second.saturating_mul(authors.into()),
            burst_bytes: self.burst_bytes.saturating_mul(authors.into()),
        }
    }
}

/// The rates of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Requests, and on [`Protocol::Sync`] the bytes of the answers too.
    pub requests: BTreeMap<Protocol, Rate>,
    /// Messages that the peer has written. What it relays for others may be as much for each of them.
    pub gossip: BTreeMap<Topic, Rate>,
    /// Streams of files, and the bytes sent on them.
    pub blobs: Rate,
    /// Streams of each [`StreamKind`](crate::StreamKind); what goes through them is as fast as it is read.
    pub streams: Rate,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            requests: Protocol::ALL.map(|protocol| (protocol, request(protocol))).into(),
            gossip: Topic::ALL.map(|topic| (topic, gossip(topic))).into(),
            blobs: Rate::new(10, 50, 128 * MIB, 2048 * MIB),
            // An entry node opens one for each session of the operators that come by it.
            streams: Rate::new(20, 200, 0, 0),
        }
    }
}

const fn request(protocol: Protocol) -> Rate {
    match protocol {
        // A ceremony of four is 300 MB between two members, as fast as both can compute.
        Protocol::Ceremony => Rate::new(500, 2000, 128 * MIB, 1024 * MIB),
        Protocol::Agreement => Rate::new(200, 1000, 16 * MIB, 128 * MIB),
        Protocol::Decryption => Rate::new(200, 1000, 64 * MIB, 512 * MIB),
        Protocol::Signing | Protocol::Publication => Rate::new(100, 1000, MIB, 8 * MIB),
        // A member asks for all telemetry of a manifest at once, up to a thousand messages of 20 KB.
        Protocol::Sync => Rate::new(250, 2000, 32 * MIB, 256 * MIB),
        // At the default timings some twenty messages a second, of less than a kilobyte each. A record
        // in a message costs a tenth of a millisecond: this is less than a tenth of a core.
        Protocol::Swim => Rate::new(100, 400, 128 * KIB, 2 * MIB),
    }
}

const fn gossip(topic: Topic) -> Rate {
    let max = topic.max_bytes();
    match topic {
        // The shortest interval that a worker can be configured for is a second.
        Topic::Telemetry => Rate::new(2, 16, 2 * max, 16 * max),
        // Most bodies are a few kilobytes; of the longest, with 256 KiB of files sealed, seven a second. A burst of
        // them is no more than of the other topics' longest messages.
        Topic::Jobs => Rate::new(20, 1000, 3 * MIB, 128 * MIB),
        // A few for each slot, and slots take seconds.
        Topic::Manifests | Topic::Certificates => Rate::new(5, 50, 2 * max, 16 * max),
        Topic::Evaluations => Rate::new(5, 50, 5 * max, 50 * max),
        // All workers lost, told again every five seconds.
        Topic::Suspicions => Rate::new(256, 4096, 256 * max, 4096 * max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A burst that is shorter than a message would refuse it for ever.
    #[test]
    fn every_message_of_the_greatest_length_fits_into_a_burst() {
        let rates = Rates::default();
        for protocol in Protocol::ALL {
            let longest = protocol.max_request().max(protocol.max_response());
            assert!(rates.requests[&protocol].burst_bytes >= longest as u64, "{protocol}");
        }
        for topic in Topic::ALL {
            assert!(rates.gossip[&topic].burst_bytes >= topic.max_bytes() as u64, "{topic}");
        }
    }
}
