//! What a committee member's file says of its own.

use std::num::{NonZeroU16, NonZeroUsize};

use serde::Deserialize;

use super::ConfigError;

/// `[committee]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CommitteeSection {
    /// Name of the FHE parameter set that a ceremony may use.
    pub parameters: String,
    /// How long telemetry stays good.
    pub telemetry_max_age_seconds: u64,
    /// How long a proposer may take.
    pub propose_timeout_seconds: u64,
    /// How long after its lock a slot may take before this member lets it end void.
    pub void_timeout_seconds: u64,
    /// Threads that evaluate; one for each core but one if nothing is said.
    pub evaluation_threads: Option<NonZeroU16>,
}

impl Default for CommitteeSection {
    fn default() -> Self {
        Self {
            parameters: "production".to_owned(),
            telemetry_max_age_seconds: 120,
            propose_timeout_seconds: 10,
            void_timeout_seconds: 600,
            evaluation_threads: None,
        }
    }
}

impl CommitteeSection {
    /// More threads than cores only get into each other's way.
    pub(super) fn check_threads(&self) -> Result<(), ConfigError> {
        let cores = std::thread::available_parallelism().map_or(usize::MAX, NonZeroUsize::get);
        match self.evaluation_threads {
            Some(threads) if usize::from(threads.get()) > cores => Err(ConfigError::Value {
                key: "committee.evaluation_threads",
                reason: format!("this machine has {cores} cores"),
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{MEMBER_SAMPLE, MemberConfig};

    #[test]
    fn threads_of_the_evaluation_are_between_one_and_the_cores() {
        let contract = format!("0x{}", "11".repeat(20));
        let env = |name: &str| (name == "VEIL_CONTRACT_ADDRESS").then(|| contract.clone());
        let with = |threads: &str| {
            let key = format!("evaluation_threads = {threads}");
            let sample = MEMBER_SAMPLE.replace("#evaluation_threads = 1", &key);
            MemberConfig::parse(Path::new("/etc/veil/member.toml"), &sample, &env)
        };
        assert_eq!(with("1").unwrap().committee.evaluation_threads, NonZeroU16::new(1));
        for none in ["0", "-1", "65536"] {
            assert!(matches!(with(none), Err(ConfigError::Parse { .. })), "{none}");
        }
        let key = "committee.evaluation_threads";
        let many = with("65535");
        assert!(matches!(many, Err(ConfigError::Value { key: found, .. }) if found == key));
    }
}
