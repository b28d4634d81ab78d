//! A cluster's policy as people write it: TOML, with units in usual measures.
//!
//! # Encrypted weights
//! A file may ask for its weights to be encrypted. [`PolicyFile`] then gives no policy before it is told
//! [under which digest](PolicyFile::with_encrypted) they are, so that none in clear is sent by mistake.

use core::{fmt, num::NonZeroU16};

use serde::Deserialize;
use veil_protocol_spec::{
    Blake3Digest, Wire as _,
    scheduling::{
        Candidates, CircuitId, ClusterPolicy, CpuUnits, DiskUnits, GpuUnits, MemoryUnits,
        PolicyError, PolicyWeights, Scale, Weight, Weights,
    },
};
use zeroize::Zeroizing;

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
    /// There is nothing to encrypt with.
    #[error(
        "weights.encrypted = true: a new cluster has no key to encrypt them with. Leave that out here, and set this file \
         with `veil chain policy set` when the committee's key is on chain"
    )]
    NoKeyYet,
}

/// Weights that only the cluster's circuits get to see.
pub struct HiddenWeights {
    price: Zeroizing<u8>,
    latency: Zeroizing<u8>,
}

impl HiddenWeights {
    /// To encrypt them.
    #[must_use]
    pub fn expose(&self) -> Weights {
        // They were weights when the file was read.
        let weight = |of: &u8| Weight::new(*of).unwrap_or_default();
        Weights { price: weight(&self.price), latency: weight(&self.latency) }
    }
}

impl fmt::Debug for HiddenWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HiddenWeights(..)")
    }
}

/// What a policy file says.
#[derive(Debug)]
pub struct PolicyFile {
    /// With no weights of the file in it, if these are hidden.
    policy: ClusterPolicy,
    hidden: Option<HiddenWeights>,
}

impl PolicyFile {
    /// What is to be encrypted, if the file says so.
    #[must_use]
    pub const fn hidden(&self) -> Option<&HiddenWeights> {
        self.hidden.as_ref()
    }

    /// The policy, if all of it is public.
    ///
    /// # Errors
    /// [`PolicyFileError::NoKeyYet`].
    pub fn public(&self) -> Result<ClusterPolicy, PolicyFileError> {
        match self.hidden {
            None => Ok(self.policy),
            Some(_) => Err(PolicyFileError::NoKeyYet),
        }
    }

    /// The policy, with its weights in the list of that digest.
    #[must_use]
    pub fn with_encrypted(&self, list: Blake3Digest) -> ClusterPolicy {
        ClusterPolicy { weights: PolicyWeights::Encrypted(list), ..self.policy }
    }
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
    encrypted: bool,
}

impl Default for FileWeights {
    fn default() -> Self {
        let Weights { price, latency } = Weights::default();
        Self { price, latency, encrypted: false }
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
pub fn parse(text: &str) -> Result<PolicyFile, PolicyFileError> {
    let file: File = toml::from_str(text).map_err(|e| PolicyFileError::Parse(e.to_string()))?;
    let FileWeights { price, latency, encrypted } = file.weights;
    let (weights, hidden) = if encrypted {
        let [price, latency] = [price, latency].map(|weight| Zeroizing::new(weight.get()));
        (Weights::default(), Some(HiddenWeights { price, latency }))
    } else {
        (Weights { price, latency }, None)
    };
    let policy = ClusterPolicy {
        scale: file.unit.scale()?,
        min_candidates: file.min_candidates,
        max_workers: file.max_workers,
        weights: PolicyWeights::Public(weights),
        loss_grace_seconds: file.loss_grace_seconds,
        auditors: file.auditors,
        anchor_every: file.anchor_every,
        image_signatures: file.image_signatures,
        candidates: file.candidates,
        circuit: CircuitId { version: file.circuit, ..ClusterPolicy::default().circuit },
        circuit_from: file.circuit_from,
        ..ClusterPolicy::default()
    };
    Ok(PolicyFile { policy: ClusterPolicy::parse(&policy.to_wire())?, hidden })
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

    fn parse(text: &str) -> Result<ClusterPolicy, PolicyFileError> {
        super::parse(text)?.public()
    }

    #[test]
    fn weights_to_encrypt_are_in_no_policy_and_nothing_that_is_printed() {
        let text = "[weights]\nprice = 0\nlatency = 2\nencrypted = true";
        let file = super::parse(text).unwrap();
        let hidden = file.hidden().unwrap().expose();
        assert_eq!((hidden.price.get(), hidden.latency.get()), (0, 2));
        assert!(matches!(file.public(), Err(PolicyFileError::NoKeyYet)));
        let list = Blake3Digest([7; 32]);
        let policy = file.with_encrypted(list);
        assert_eq!(
            policy,
            ClusterPolicy { weights: PolicyWeights::Encrypted(list), ..ClusterPolicy::default() }
        );
        assert_eq!(shown(&policy)["weights"]["encrypted"], list.to_string());
        // Other weights are printed alike, and make the same policy but for the digest.
        let other = super::parse("[weights]\nencrypted = true").unwrap();
        assert_eq!(format!("{other:?}"), format!("{file:?}"));
        assert_eq!(other.with_encrypted(list), policy);
        let in_clear = super::parse("[weights]\nprice = 0\nlatency = 2").unwrap();
        assert!(in_clear.hidden().is_none());
        let refused = parse("[weights]\nencrypted = true\nlatency = 3").unwrap_err().to_string();
        assert!(refused.contains("out of range"), "{refused}");
    }

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
