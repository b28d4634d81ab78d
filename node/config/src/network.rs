//! `[network]`: peers, and how this node finds out that one is gone.

use std::time::Duration;

use serde::Deserialize;
use veil_node_p2p::{AddressError, Multiaddr, SwimConfig, check_dial, check_listen};

use super::ConfigError;

/// `[network]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSection {
    /// Where to listen.
    pub listen: Vec<Multiaddr>,
    /// Where others reach this node, if not where it listens.
    #[serde(default)]
    pub announce: Vec<Multiaddr>,
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

impl NetworkSection {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let refused = |key, reason: String| Err(ConfigError::Value { key, reason });
        if self.listen.is_empty() {
            let reason = "at least one address, for example /ip4/0.0.0.0/udp/4001/quic-v1";
            return refused("network.listen", reason.to_owned());
        }
        type Check = fn(&Multiaddr) -> Result<(), AddressError>;
        let lists: [(_, _, Check); 3] = [
            ("network.listen", &self.listen, check_listen),
            ("network.announce", &self.announce, check_dial),
            ("network.bootstrap", &self.bootstrap, check_dial),
        ];
        for (key, list, check) in lists {
            if let Some(error) = list.iter().find_map(|address| check(address).err()) {
                return refused(key, error.to_string());
            }
        }
        self.swim.check()
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

    fn section(listen: &str, announce: &str, bootstrap: &str) -> Result<NetworkSection, String> {
        let text =
            format!("listen = [{listen}]\nannounce = [{announce}]\nbootstrap = [{bootstrap}]");
        let section: NetworkSection = toml::from_str(&text).map_err(|error| error.to_string())?;
        section.check().map_err(|error| error.to_string())?;
        Ok(section)
    }

    #[test]
    fn each_list_is_checked_by_its_own_rule() {
        let wildcard = "\"/ip4/0.0.0.0/udp/4001/quic-v1\"";
        let name = "\"/dns4/a.example/tcp/4001\"";
        let whole = section(wildcard, name, name).unwrap();
        assert_eq!((whole.listen.len(), whole.announce.len(), whole.bootstrap.len()), (1, 1, 1));
        for (refused, key) in [
            (section("", "", ""), "network.listen"),
            (section(name, "", ""), "network.listen"),
            (section(wildcard, wildcard, ""), "network.announce"),
            (section(wildcard, "", wildcard), "network.bootstrap"),
        ] {
            let refused = refused.unwrap_err();
            assert!(refused.contains(key), "{refused}");
        }
    }

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
