//! `[network]`: peers, and how this node finds out that one is gone.

use std::time::Duration;

use serde::Deserialize;
use veil_node_p2p::{Multiaddr, SwimConfig};

use super::ConfigError;

/// `[network]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSection {
    /// Where to listen.
    pub listen: Vec<Multiaddr>,
    /// Whom to find the others through.
    #[serde(default)]
    pub bootstrap: Vec<Multiaddr>,
    /// Failure detection.
    #[serde(default)]
    pub swim: SwimSection,
}

/// `[network.swim]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SwimSection {
    /// Between two probes.
    pub probe_interval_millis: u64,
    /// How long an answer may take.
    pub probe_answer_millis: u64,
    /// How long a silent peer may still speak up.
    pub suspicion_millis: u64,
}

impl Default for SwimSection {
    fn default() -> Self {
        let SwimConfig { probe_period, probe_rtt, suspicion, .. } = SwimConfig::default();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            probe_interval_millis: millis(probe_period),
            probe_answer_millis: millis(probe_rtt),
            suspicion_millis: millis(suspicion),
        }
    }
}

fn between(key: &'static str, value: u64, least: u64, most: u64) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::Value { key, reason: format!("must be {least} to {most}") })
}

impl SwimSection {
    /// What the network takes.
    #[must_use]
    pub fn timings(&self) -> SwimConfig {
        SwimConfig {
            probe_period: Duration::from_millis(self.probe_interval_millis),
            probe_rtt: Duration::from_millis(self.probe_answer_millis),
            suspicion: Duration::from_millis(self.suspicion_millis),
            ..SwimConfig::default()
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let interval = self.probe_interval_millis;
        between("network.swim.probe_interval_millis", interval, 100, 60_000)?;
        let answer = self.probe_answer_millis;
        between("network.swim.probe_answer_millis", answer, 20, interval / 2)?;
        between("network.swim.suspicion_millis", self.suspicion_millis, interval, 600_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_has_a_range_that_is_named() {
        let default = SwimSection::default();
        assert!(default.check().is_ok());
        assert_eq!(default.timings(), SwimConfig::default());
        let refused = |section: SwimSection| match section.check() {
            Err(ConfigError::Value { key, .. }) => key,
            other => panic!("{other:?}"),
        };
        let interval = "network.swim.probe_interval_millis";
        for probe_interval_millis in [0, 99, 60_001] {
            assert_eq!(refused(SwimSection { probe_interval_millis, ..default }), interval);
        }
        let answer = "network.swim.probe_answer_millis";
        for probe_answer_millis in [0, 19, 501] {
            assert_eq!(refused(SwimSection { probe_answer_millis, ..default }), answer);
        }
        let suspicion = "network.swim.suspicion_millis";
        for suspicion_millis in [0, 999, 600_001] {
            assert_eq!(refused(SwimSection { suspicion_millis, ..default }), suspicion);
        }
    }
}
