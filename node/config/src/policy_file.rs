//! A cluster's policy as people write it: TOML, with units in usual measures.

use core::num::NonZeroU16;

use serde::Deserialize;
use veil_protocol_spec::{
    Wire as _,
    scheduling::{
        Candidates, CircuitId, ClusterPolicy, CpuUnits, DiskUnits, GpuUnits, MemoryUnits,
        PolicyError, PolicyWeights, Scale, Weight, Weights,
    },
};

/// A commented file with every key.
pub const POLICY_SAMPLE: &str = include_str!("../samples/policy.toml");

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Why a policy file is refused.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFileError {
    /// Not the expected structure; names line and key.
    #[error("the policy file: {0}")]
    Parse(String),
    /// A unit that is no multiple of what jobs are counted in.
    #[error("unit.{key} = {value}: it must be a multiple of {step}, from {step} to {max}")]
    Unit {
        /// Which.
        key: &'static str,
        /// As given.
        value: u64,
        /// What jobs are counted in.
        step: u64,
        /// The largest.
        max: u64,
    },
    /// A rule of policies.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    min_candidates: u16,
    max_workers: u16,
    loss_grace_seconds: u32,
    auditors: u16,
    anchor_every: u16,
    image_signatures: bool,
    candidates: Candidates,
    circuit: u32,
    circuit_from: u64,
    unit: Unit,
    weights: FileWeights,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileWeights {
    price: Weight,
    latency: Weight,
}

impl Default for FileWeights {
    fn default() -> Self {
        let Weights { price, latency } = Weights::default();
        Self { price, latency }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Unit {
    cpu_millicores: u64,
    memory_mib: u64,
    disk_gib: u64,
    gpus: u64,
}

impl Default for File {
    fn default() -> Self {
        let default = ClusterPolicy::default();
        Self {
            min_candidates: default.min_candidates,
            max_workers: default.max_workers,
            loss_grace_seconds: default.loss_grace_seconds,
            auditors: default.auditors,
            anchor_every: default.anchor_every,
            image_signatures: default.image_signatures,
            candidates: default.candidates,
            circuit: default.circuit.version,
            circuit_from: default.circuit_from,
            unit: Unit::default(),
            weights: FileWeights::default(),
        }
    }
}

impl Default for Unit {
    fn default() -> Self {
        Self::of(&Scale::default())
    }
}

impl Unit {
    fn of(scale: &Scale) -> Self {
        Self {
            cpu_millicores: u64::from(scale.cpu.get()) * CpuUnits::UNIT,
            memory_mib: u64::from(scale.memory.get()) * MemoryUnits::UNIT / MIB,
            disk_gib: u64::from(scale.disk.get()) * DiskUnits::UNIT / GIB,
            gpus: u64::from(scale.gpu.get()) * GpuUnits::UNIT,
        }
    }

    fn scale(&self) -> Result<Scale, PolicyFileError> {
        let unit = |key, value: u64, step: u64| {
            let count = u16::try_from(value / step).ok().and_then(NonZeroU16::new);
            let max = u64::from(u16::MAX) * step;
            let refused = PolicyFileError::Unit { key, value, step, max };
            count.filter(|_| value.is_multiple_of(step)).ok_or(refused)
        };
        Ok(Scale {
            cpu: unit("cpu_millicores", self.cpu_millicores, CpuUnits::UNIT)?,
            memory: unit("memory_mib", self.memory_mib, MemoryUnits::UNIT / MIB)?,
            disk: unit("disk_gib", self.disk_gib, DiskUnits::UNIT / GIB)?,
            gpu: unit("gpus", self.gpus, GpuUnits::UNIT)?,
        })
    }
}

/// Reads a policy file.
///
/// # Errors
/// [`PolicyFileError`].
pub fn parse(text: &str) -> Result<ClusterPolicy, PolicyFileError> {
    let file: File = toml::from_str(text).map_err(|e| PolicyFileError::Parse(e.to_string()))?;
    let FileWeights { price, latency } = file.weights;
    let policy = ClusterPolicy {
        scale: file.unit.scale()?,
        min_candidates: file.min_candidates,
        max_workers: file.max_workers,
        weights: PolicyWeights::Public(Weights { price, latency }),
        loss_grace_seconds: file.loss_grace_seconds,
        auditors: file.auditors,
        anchor_every: file.anchor_every,
        image_signatures: file.image_signatures,
        candidates: file.candidates,
        circuit: CircuitId { version: file.circuit, ..ClusterPolicy::default().circuit },
        circuit_from: file.circuit_from,
        ..ClusterPolicy::default()
    };
    Ok(ClusterPolicy::parse(&policy.to_wire())?)
}

/// For output: the policy in the measures of the file; the weights' digest if they are encrypted.
#[must_use]
pub fn shown(policy: &ClusterPolicy) -> serde_json::Value {
    let unit = Unit::of(&policy.scale);
    serde_json::json!({
        "min_candidates": policy.min_candidates,
        "max_workers": policy.max_workers,
        "loss_grace_seconds": policy.loss_grace_seconds,
        "auditors": policy.auditors,
        "anchor_every": policy.anchor_every,
        "image_signatures": policy.image_signatures,
        "candidates": policy.candidates,
        "circuit": policy.circuit.version,
        "circuit_from": policy.circuit_from,
        "unit": {
            "cpu_millicores": unit.cpu_millicores,
            "memory_mib": unit.memory_mib,
            "disk_gib": unit.disk_gib,
            "gpus": unit.gpus,
        },
        "weights": policy.weights,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_the_default_with_and_without_its_commented_keys() {
        let keys = POLICY_SAMPLE.lines().map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) => key,
            _ => line,
        });
        let long = keys.collect::<Vec<_>>().join("\n");
        assert_eq!(parse(POLICY_SAMPLE).unwrap(), ClusterPolicy::default());
        assert_eq!(parse(&long).unwrap(), ClusterPolicy::default());
        assert_eq!(parse("").unwrap(), ClusterPolicy::default());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let policy = parse("min_candidates = 3\n[unit]\ncpu_millicores = 500").unwrap();
        assert_eq!((policy.min_candidates, policy.scale.cpu.get()), (3, 5));
        assert_eq!(parse("candidates = \"all\"").unwrap().candidates, Candidates::All);
        assert_eq!(shown(&policy)["candidates"], "sample");
        let later = parse("circuit_from = 900").unwrap();
        assert_eq!((later.circuit_at(899), later.circuit_at(900)), (5, 6));
        assert_eq!(shown(&later)["circuit_from"], 900);
        for (text, named) in [
            ("candidates = \"some\"", "`sample` or `all`"),
            ("max_worker = 3", "max_worker"),
            ("max_workers = 0", "at most 0 workers"),
            ("loss_grace_seconds = 0", "1 to 86400"),
            ("auditors = 100", "at most 64"),
            ("anchor_every = 0", "at least 1 slot"),
            ("circuit = 7", "evaluates 5 and 6"),
            ("epoch_length = 5", "epoch_length"),
            ("[unit]\ncpu_millicores = 250", "multiple of 100"),
            ("[unit]\nmemory_mib = 0", "from 64"),
            ("[unit]\ndisk_gib = 65536", "disk_gib"),
            ("[weights]\nprice = 3", "out of range"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
