//! One slot, measured: lists proven, verified and expanded, the circuit evaluated and squashed, its
//! outcome decrypted and compared with the twin's; and the same decisions by the stock API.

use std::{collections::BTreeMap, sync::Arc};

use peak_alloc::PeakAlloc;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use rayon::prelude::*;
use serde::Serialize;
use tfhe::{
    CompactPublicKey, get_pbs_count, integer::ciphertext::IntegerCiphertext as _, reset_pbs_count,
    set_server_key, unset_server_key,
};
use veil_keygen_ceremony::keyset::{decode_block, squashed_blocks};
use veil_node_process::Stopwatch;
use veil_protocol_spec::{
    Blake3Digest, PeerIdHash,
    scheduling::{
        CpuUnits, DiskUnits, EncryptedRequest, GpuUnits, JobSpec, Manifest, MemoryUnits,
        ProofMetadata, Quantities, Reading, Resource, ResourceRequest, Resources, Scale,
        SchedulingPolicy, Share, Strength,
    },
};
use veil_scheduler::{
    EvaluationKey, Inputs, ReferenceString, SquashedOutputs, encrypt, encrypt_request, evaluate,
    verify, verify_and_expand, verify_and_expand_request, verify_request,
};
use veil_scheduler_plan::{cleartext, inputs::PublicInputs, plan::Plan};

use crate::{
    baseline::{self, Apart, MAX_NODES, Request},
    cluster::{self, binding},
    failure::Failure,
    inputs::{Kept, ListFigures, Lists},
    keys::Keys,
};

/// Most workers that the stock API can number.
pub const MAX_STOCK_NODES: usize = MAX_NODES;
/// Different telemetry lists; with more workers they repeat, since proving is not what is measured.
pub(crate) const LISTS: usize = 4;
/// What each replica asks for of all four resources.
const REQUEST: [u8; 4] = [6, 9, 3, 1];
/// Seconds of slots whose capacity is stated.
const SLOTS: [u32; 3] = [10, 30, 60];

/// The jobs of a slot, and the workers that they are placed on.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Number of workers.
    pub nodes: u16,
    /// Number of jobs, all alike.
    pub jobs: u16,
    /// Replicas of each job.
    pub replicas: u16,
    /// Which of the workers with room is preferred.
    pub policy: SchedulingPolicy,
    /// Anti-affinity across workers.
    pub apart: Option<Strength>,
    /// Whether requests are encrypted.
    pub encrypted_requests: bool,
    /// How many resources each replica asks for: CPU, memory, disk, GPUs, from the first.
    pub resources: u8,
}

impl Slot {
    /// What each replica asks for.
    pub(crate) fn request(&self) -> [u8; 4] {
        core::array::from_fn(|i| if i < self.resources.into() { REQUEST[i] } else { 0 })
    }

    /// Replicas of all jobs, times workers.
    #[must_use]
    pub fn decisions(&self) -> f64 {
        f64::from(self.nodes) * f64::from(self.jobs) * f64::from(self.replicas)
    }
}

/// Workers times replicas that a slot of some length has time for on this machine.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Capacity {
    /// Length of the slot.
    pub slot_seconds: u32,
    /// Workers times replicas that it has time for.
    pub node_jobs: u64,
}

/// A slot by the circuit.
#[derive(Clone, Debug, Serialize)]
pub struct CircuitFigures {
    /// One worker's telemetry.
    pub telemetry: ListFigures,
    /// Requests, if they are encrypted.
    pub request: Option<ListFigures>,
    /// Look-ups of the evaluation.
    pub pbs: u64,
    /// Look-ups to expand all workers' lists, each once.
    pub pbs_expansion: u64,
    /// Look-ups for each worker and replica.
    pub pbs_per_node_job: f64,
    /// Look-ups that expand, within the evaluation, what only some jobs ask for.
    pub pbs_of_late_expansion: u64,
    /// Most look-ups one after the other.
    pub depth: u32,
    /// Wall seconds of the evaluation.
    pub seconds: f64,
    /// Core-seconds of the evaluation.
    pub core_seconds: f64,
    /// Largest allocation of the evaluation beyond what is there before, with one expanded list for
    /// each worker, by worker; 0 if the process does not count its allocations.
    pub memory_bytes_per_node: u64,
    /// Blocks that the committee decrypts.
    pub squashed_blocks: usize,
    /// Wall seconds of squashing.
    pub squash_seconds: f64,
    /// Core-seconds of squashing.
    pub squash_core_seconds: f64,
    /// What fits into a slot, squashing included.
    pub capacity: Vec<Capacity>,
    /// The digest that evaluators compare.
    pub output_digest: Blake3Digest,
    /// Whether the decrypted outcome is that of the cleartext twin.
    pub agrees_with_twin: bool,
    /// Look-ups of the evaluation by its plan: equal to `pbs`.
    pub pbs_by_plan: u64,
    /// What this construction takes without its overhead, expansion apart.
    pub pbs_without_overhead: u64,
    /// Look-ups over those without overhead.
    pub pbs_over_its_own_least: f64,
}

/// A slot by the stock API.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StockFigures {
    /// Look-ups of the decision.
    pub pbs: u64,
    /// Look-ups for each worker and replica, or each bid.
    pub pbs_per_node_job: f64,
    /// Wall seconds of the decision.
    pub seconds: f64,
    /// Core-seconds of the decision.
    pub core_seconds: f64,
    /// Whether the decrypted outcome is that of its own twin.
    pub agrees_with_twin: bool,
}

/// Free capacities by worker, repeating after [`LISTS`].
pub(crate) fn readings(slot: &Slot) -> Vec<Reading> {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let different: Vec<_> = (0..LISTS.min(slot.nodes.into()))
        .map(|_| {
            let units = core::array::from_fn(|_| rng.gen_range(0..=150));
            // A third of the workers lacks something.
            let share =
                Share::of([(units[0], 150), (units[1], 150)].map(|(f, all)| (f.into(), all)));
            let free = Quantities::from_array(units).unwrap_or_default();
            Reading { free, share, ..Reading::default() }
        })
        .collect();
    different.into_iter().cycle().take(slot.nodes.into()).collect()
}

/// What is encrypted besides readings.
pub(crate) fn secrets<'a>(
    slot: &Slot,
    jobs: impl Iterator<Item = &'a Blake3Digest>,
) -> cleartext::Secrets {
    let request = Quantities::from_array(slot.request()).unwrap_or_default();
    let requests = jobs.map(|job| (*job, request)).collect();
    cleartext::Secrets { requests, ..cleartext::Secrets::default() }
}

/// What is public of a slot of these jobs.
pub(crate) fn public(jobs: &[JobSpec]) -> PublicInputs {
    PublicInputs {
        policy: veil_protocol_spec::scheduling::ClusterPolicy {
            scale: Scale::FINEST,
            min_candidates: 1,
            ..Default::default()
        },
        jobs: jobs.iter().map(|job| (job.digest(), job.clone())).collect(),
        ..PublicInputs::default()
    }
}

/// What has the given quantities on the finest scale.
pub(crate) const fn resources([cpu, memory, disk, gpu]: [u8; 4]) -> Resources {
    Resources {
        cpu: CpuUnits(cpu as u16),
        memory: MemoryUnits(memory as u16),
        disk: DiskUnits(disk as u16),
        gpu: GpuUnits(gpu as u16),
    }
}

/// Runs the slot with the stock API. The server key of `keys` is in use on this thread meanwhile.
///
/// # Errors
/// If there are more workers than the baseline can number, or tfhe fails.
pub fn run_stock(slot: &Slot, keys: &Keys) -> Result<StockFigures, Failure> {
    if usize::from(slot.nodes) > MAX_NODES {
        return Err(format!("the baseline numbers {MAX_NODES} workers: --no-baseline").into());
    }
    set_server_key(keys.server_key.clone());
    let result = stock(slot, keys);
    unset_server_key();
    result
}

fn stock(slot: &Slot, keys: &Keys) -> Result<StockFigures, Failure> {
    let rows: Vec<_> = readings(slot).iter().map(|reading| reading.free.to_array()).collect();
    let different = baseline::encrypt(&rows[..LISTS.min(rows.len())], &keys.public_key)?;
    let free = different.iter().cloned().cycle().take(rows.len()).collect();
    let apart = match slot.apart {
        None => Apart::No,
        Some(Strength::Soft) => Apart::Soft,
        Some(Strength::Hard) => Apart::Hard,
    };
    let (replicas, request) = (slot.replicas.into(), slot.request());
    let jobs = (0..slot.jobs)
        .map(|_| {
            let request = if slot.encrypted_requests {
                let mut row = baseline::encrypt(&[request], &keys.public_key)?;
                Request::Encrypted(Box::new(row.remove(0)))
            } else {
                Request::Clear(request)
            };
            Ok(baseline::Job { request, replicas, apart })
        })
        .collect::<Result<Vec<_>, tfhe::Error>>()?;
    let in_clear: Vec<_> =
        (0..slot.jobs).map(|_| baseline::clear::Job { request, replicas, apart }).collect();
    reset_pbs_count();
    let watch = Stopwatch::start();
    let winners = baseline::place(free, &jobs);
    let (seconds, core_seconds, pbs) = (watch.wall(), watch.cpu(), get_pbs_count());
    let decrypt = |winner: tfhe::FheUint8| {
        let (blocks, ..) = winner.into_raw_parts();
        keys.decrypt_integer(blocks.blocks()) as usize
    };
    let found: Vec<_> = winners.into_iter().map(decrypt).collect();
    Ok(StockFigures {
        pbs,
        pbs_per_node_job: pbs as f64 / slot.decisions(),
        seconds,
        core_seconds,
        agrees_with_twin: found == baseline::clear::place(rows, &in_clear),
    })
}

/// What circuits run with, and what checks them.
pub struct Bench<'a> {
    /// The secret keys that outcomes are decrypted with.
    pub clear: &'a veil_keygen_ceremony::keyset::reference::ClearKeys,
    /// The key that lists are encrypted with.
    pub public_key: &'a CompactPublicKey,
    /// The key that circuits are evaluated with.
    pub key: &'a EvaluationKey,
    /// The reference string of the proofs.
    pub string: &'a ReferenceString,
    /// Lists of an earlier run.
    pub kept: &'a Kept,
}

/// A slot with everything encrypted, proven, verified and expanded.
pub struct Prepared {
    /// The manifest to evaluate.
    pub manifest: Manifest,
    /// Everything that the manifest names.
    pub inputs: Inputs,
    readings: Vec<Reading>,
    telemetry: ListFigures,
    request: Option<ListFigures>,
}

impl Bench<'_> {
    /// The digits that the committee would decrypt; none if one of them is no digit.
    pub(crate) fn decrypt(&self, squashed: &SquashedOutputs) -> Vec<u8> {
        let blocks: Vec<_> = squashed.as_slice().iter().flat_map(squashed_blocks).collect();
        let digits: Option<_> =
            blocks.par_iter().map(|block| decode_block(self.clear.phase(block))).collect();
        digits.unwrap_or_default()
    }

    /// Encrypts, verifies and expands the lists of a slot.
    ///
    /// # Errors
    /// The error of the first step that fails.
    pub fn prepare(&self, slot: &Slot) -> Result<Prepared, Failure> {
        let readings = readings(slot);
        let (jobs, requests, request) = self.jobs(slot)?;
        let manifest = cluster::manifest(slot.nodes.into(), &jobs, 1);
        let metadata =
            ProofMetadata::new(&binding().scope, &binding().key_set, &PeerIdHash([0; 32]), 1);
        let Lists { expanded, figures: telemetry, .. } = self.kept.lists(
            self.string,
            "telemetry",
            LISTS.min(readings.len()),
            |number| encrypt(&readings[number], self.public_key, self.string, &metadata),
            |_, list| verify(list, &metadata, self.public_key, self.string),
            |_, list| verify_and_expand(list, &metadata, self.string, self.key).map(Arc::new),
        )?;
        let mut inputs = Inputs { public: public(&jobs), requests, ..Inputs::default() };
        let repeated = manifest.telemetry.iter().zip(expanded.iter().cycle());
        inputs.telemetry = repeated.map(|(entry, list)| (entry.digest, Arc::clone(list))).collect();
        Ok(Prepared { manifest, inputs, readings, telemetry, request })
    }

    /// Encrypts and expands everything, evaluates, squashes, decrypts and compares.
    ///
    /// # Errors
    /// The error of the first step that fails.
    pub fn run(&self, slot: &Slot) -> Result<CircuitFigures, Failure> {
        let Prepared { manifest, inputs, readings, telemetry, request } = self.prepare(slot)?;
        let plan = Plan::new(&manifest, &inputs.public)?;
        let before = PeakAlloc.current_usage();
        PeakAlloc.reset_peak_usage();
        reset_pbs_count();
        let watch = Stopwatch::start();
        let (outputs, output_digest) = evaluate(&manifest, &inputs, self.key)?;
        let (seconds, core_seconds) = (watch.wall(), watch.cpu());
        let all_pbs = get_pbs_count();
        let memory = PeakAlloc.peak_usage().saturating_sub(before) / usize::from(slot.nodes);
        let watch = Stopwatch::start();
        let squashed = outputs.squash(self.key)?;
        let (squash_seconds, squash_core_seconds) = (watch.wall(), watch.cpu());

        let secrets = secrets(slot, inputs.requests.keys());
        let expected: Vec<_> = cleartext::place(&plan, &readings, &secrets)
            .into_iter()
            .map(|worker| worker.map_or(0, |worker| worker + 1))
            .collect();
        let found: Vec<usize> = self
            .decrypt(&squashed)
            .chunks(plan.digits_per_replica())
            .map(|digits| digits.iter().rev().fold(0, |sum, digit| sum << 4 | usize::from(*digit)))
            .collect();
        let pbs = outputs.cost().look_ups();
        let per_decision = (seconds + squash_seconds) / slot.decisions();
        Ok(CircuitFigures {
            telemetry,
            request,
            pbs,
            pbs_expansion: plan.expansion(),
            pbs_per_node_job: pbs as f64 / slot.decisions(),
            pbs_of_late_expansion: all_pbs.saturating_sub(pbs),
            depth: outputs.cost().depth(),
            seconds,
            core_seconds,
            memory_bytes_per_node: memory as u64 + telemetry.expanded_memory_bytes,
            squashed_blocks: outputs.len(),
            squash_seconds,
            squash_core_seconds,
            capacity: SLOTS
                .into_iter()
                .map(|slot_seconds| Capacity {
                    slot_seconds,
                    node_jobs: (f64::from(slot_seconds) / per_decision) as u64,
                })
                .collect(),
            output_digest,
            agrees_with_twin: found == expected,
            pbs_by_plan: plan.cost().look_ups(),
            pbs_without_overhead: plan.without_overhead(),
            pbs_over_its_own_least: pbs as f64 / plan.without_overhead().max(1) as f64,
        })
    }

    #[allow(clippy::type_complexity, reason = "three parts of one slot, used once")]
    pub(crate) fn jobs(
        &self,
        slot: &Slot,
    ) -> Result<
        (
            Vec<JobSpec>,
            BTreeMap<Blake3Digest, Arc<veil_scheduler::EncryptedQuantities>>,
            Option<ListFigures>,
        ),
        Failure,
    > {
        let job =
            |nonce, request| cluster::job(nonce, request, slot.replicas, slot.policy, slot.apart);
        let clear = || ResourceRequest::Clear(resources(slot.request()));
        if !slot.encrypted_requests {
            let jobs = (0..u64::from(slot.jobs)).map(|nonce| job(nonce, clear())).collect();
            return Ok((jobs, BTreeMap::new(), None));
        }
        let binding = binding();
        let metadata: Vec<_> = (0..u64::from(slot.jobs))
            .map(|nonce| {
                let operator = job(nonce, clear()).operator;
                ProofMetadata::for_request(&binding.scope, &binding.key_set, &operator, nonce)
            })
            .collect();
        let quantities = Quantities::from_array(slot.request())?;
        let (key, string) = (self.public_key, self.string);
        let Lists { proven, expanded, figures } = self.kept.lists(
            self.string,
            "request",
            slot.jobs.into(),
            |nonce| encrypt_request(&quantities, &[nonce as u8; 32], key, string, &metadata[nonce]),
            |nonce, list| verify_request(list, &metadata[nonce], key, string),
            |nonce, list| verify_and_expand_request(list, &metadata[nonce], string, self.key),
        )?;
        let jobs: Vec<_> = (0..)
            .zip(proven)
            .map(|(nonce, list)| {
                let key_set = binding.key_set;
                let (scale, commitment) = (Scale::FINEST, Blake3Digest([0; 32]));
                let dominant = Resource::Memory;
                let request = EncryptedRequest { key_set, scale, dominant, commitment, list };
                job(nonce, ResourceRequest::Encrypted(request))
            })
            .collect();
        let requests = jobs.iter().map(JobSpec::digest).zip(expanded.into_iter().map(Arc::new));
        let requests = requests.collect();
        Ok((jobs, requests, Some(figures)))
    }
}

#[cfg(test)]
mod tests {
    use veil_keygen_ceremony::keyset::ParameterSet;

    use super::*;
    use crate::{auction::run_stock_bids, keys::NoiseOf, threshold::thresholds_in_clear};

    /// Small slots of every kind give the twin's outcome, by the circuit and by the baseline.
    #[test]
    fn what_is_measured_is_right() {
        let keys = Keys::generate(ParameterSet::insecure_test(), 5, NoiseOf::OneGroup).unwrap();
        let slot = |policy, replicas, apart, encrypted_requests| Slot {
            nodes: 5,
            jobs: 2,
            replicas,
            policy,
            apart,
            encrypted_requests,
            resources: 4,
        };
        let slots = [
            slot(SchedulingPolicy::Spread, 1, None, false),
            slot(SchedulingPolicy::BinPack, 2, Some(Strength::Hard), false),
            slot(SchedulingPolicy::Spread, 2, Some(Strength::Soft), true),
        ];
        for slot in &slots {
            let stock = run_stock(slot, &keys).unwrap();
            assert!(stock.agrees_with_twin && stock.pbs > 0, "{slot:?}");
        }
        assert!(run_stock_bids(7, &keys).unwrap().agrees_with_twin);
        let key = EvaluationKey::new(keys.public_key.clone(), keys.server_key).unwrap();
        let string = ReferenceString::generate_insecure(*keys.parameters.pke()).unwrap();
        let (clear, public_key) = (&keys.clear, &keys.public_key);
        let kept = Kept::default();
        let bench = Bench { clear, public_key, key: &key, string: &string, kept: &kept };
        for slot in &slots {
            let threshold = bench.run_thresholds(slot).unwrap();
            assert!(threshold.agrees_with_twin && threshold.measured, "{slot:?}");
            if let Ok(counted) = thresholds_in_clear(slot, 0.0) {
                assert_eq!(threshold.pbs, counted.pbs, "{slot:?}");
                assert_eq!(threshold.pbs_expansion, counted.pbs_expansion, "{slot:?}");
            }
            let circuit = bench.run(slot).unwrap();
            assert!(circuit.agrees_with_twin, "{slot:?}");
            assert_eq!(circuit.pbs, circuit.pbs_by_plan, "{slot:?}");
            assert!(circuit.pbs > 0 && circuit.request.is_some() == slot.encrypted_requests);
        }
        assert!(bench.run_bids(9).unwrap().agrees_with_twin);
    }
}
