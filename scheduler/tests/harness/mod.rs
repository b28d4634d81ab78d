//! One key set made from clear key bits, and small clusters to place on.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use rand::{SeedableRng as _, rngs::StdRng};
use tfhe::CompactPublicKey;
use veil_keygen_ceremony::keyset::{
    Layout, ParameterSet, assemble, decode_block,
    reference::{self, ClearKeys},
    squashed_blocks,
};
use veil_protocol_spec::{
    Address, Blake3Digest, ChainId, ClusterId, Epoch, KeccakDigest, KeySetDigest, ParticipantIndex,
    PeerIdHash, ReplicaIndex, Slot,
    scheduling::{
        ALL_CANDIDATES, AntiAffinity, Binding, BlockRef, ClusterPolicy, ClusterScope, Constraints,
        CpuUnits, DiskUnits, EncryptedRequest, EncryptedWeights, FailureDomain, GpuUnits, JobSpec,
        Manifest, MemoryUnits, PendingReplica, PolicyWeights, ProofMetadata, Quantities, Reading,
        ReplicaState, Resource, ResourceRequest, Resources, RolloutChanges, RunningReplica, Scale,
        Strength, TelemetryEntry, Weights, keccak,
    },
};
use veil_scheduler::{
    EncryptedTelemetry, EvaluationKey, Inputs, Outputs, ReferenceString, circuit_id, encrypt,
    encrypt_request, encrypt_weights,
    threshold::{self, EncryptedReport, verify_and_expand_report},
    threshold_circuit_id, verify_and_expand, verify_and_expand_request, verify_and_expand_weights,
};
use veil_scheduler_plan::cleartext;

/// Everything about one key set, secret keys included.
pub(crate) struct Keys {
    pub(crate) parameters: ParameterSet,
    pub(crate) clear: ClearKeys,
    pub(crate) public_key: CompactPublicKey,
    pub(crate) evaluation: EvaluationKey,
    pub(crate) reference_string: ReferenceString,
}

impl Keys {
    pub(crate) fn new(parameters: ParameterSet, seed: u8) -> Self {
        let layout = Layout::of(&parameters);
        let clear = ClearKeys::random(&layout, &mut StdRng::seed_from_u64(seed.into()));
        let bodies = reference::bodies(&parameters, &layout, &[seed; 32], &clear, &[!seed; 32]);
        let key_set = assemble(&parameters, [seed; 32], bodies).unwrap();
        let (public_key, server_key) = key_set.decompress().into_raw_parts();
        let evaluation = EvaluationKey::new(public_key.clone(), server_key).unwrap();
        let reference_string = ReferenceString::generate_insecure(*parameters.pke()).unwrap();
        Self { parameters, clear, public_key, evaluation, reference_string }
    }

    /// Insecure test keys, made once.
    pub(crate) fn test() -> &'static Self {
        static KEYS: OnceLock<Keys> = OnceLock::new();
        KEYS.get_or_init(|| Self::new(ParameterSet::insecure_test(), 1))
    }

    pub(crate) fn expand(&self, reading: &Reading) -> EncryptedTelemetry {
        let metadata = metadata(1);
        let list = encrypt(reading, &self.public_key, &self.reference_string, &metadata).unwrap();
        verify_and_expand(&list, &metadata, &self.reference_string, &self.evaluation).unwrap()
    }

    pub(crate) fn report(&self, reading: &Reading) -> EncryptedReport {
        let metadata = metadata(1);
        let list = encrypt(reading, &self.public_key, &self.reference_string, &metadata).unwrap();
        let string = &self.reference_string;
        verify_and_expand_report(&list, &metadata, string, &self.evaluation).unwrap()
    }

    /// What the committee would decrypt.
    pub(crate) fn decrypt(&self, outputs: &Outputs) -> Vec<u8> {
        let squashed = outputs.squash(&self.evaluation).unwrap();
        let blocks = squashed.as_slice().iter().flat_map(squashed_blocks);
        blocks.map(|block| decode_block(self.clear.phase(&block)).unwrap()).collect()
    }
}

pub(crate) fn binding() -> Binding {
    Binding {
        scope: ClusterScope {
            chain_id: ChainId(31_337),
            contract: Address([1; 20]),
            cluster: ClusterId([2; 32]),
        },
        key_set: KeySetDigest([3; 32]),
        epoch: Epoch(1),
    }
}

pub(crate) fn metadata(sequence: u64) -> ProofMetadata {
    let Binding { scope, key_set, .. } = binding();
    ProofMetadata::new(&scope, &key_set, &PeerIdHash([4; 32]), sequence)
}

pub(crate) fn resources(cpu: u16, memory: u16) -> Resources {
    Resources {
        cpu: CpuUnits(cpu),
        memory: MemoryUnits(memory),
        disk: DiskUnits(0),
        gpu: GpuUnits(0),
    }
}

/// With nothing else free; the units are those of [`Scale::FINEST`].
pub(crate) fn reading(cpu: u8, memory: u8) -> Reading {
    Reading { free: quantities([cpu, memory, 0, 0]), ..Reading::default() }
}

pub(crate) fn quantities(units: [u8; 4]) -> Quantities {
    Quantities::from_array(units).unwrap()
}

pub(crate) fn worker(index: usize) -> PeerIdHash {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(index as u64).to_be_bytes());
    PeerIdHash(id)
}

pub(crate) fn job(
    nonce: u64,
    request: Resources,
    replicas: u16,
    apart: Option<Strength>,
) -> JobSpec {
    JobSpec {
        replicas,
        constraints: Constraints {
            anti_affinity: apart
                .map(|strength| AntiAffinity { strength, domain: FailureDomain::Worker }),
            ..Constraints::default()
        },
        ..JobSpec::new(
            binding().scope,
            Address([5; 20]),
            nonce,
            "app".parse().unwrap(),
            format!("localhost:5000/app@sha256:{}", "ab".repeat(32)).parse().unwrap(),
            ResourceRequest::Clear(request),
        )
    }
}

/// A cluster with all replicas of some jobs pending.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) manifest: Manifest,
    pub(crate) inputs: Inputs,
    pub(crate) readings: Vec<Reading>,
    pub(crate) secrets: cleartext::Secrets,
}

impl Cluster {
    /// `slot` only varies the order among equals.
    pub(crate) fn new(readings: Vec<Reading>, jobs: Vec<JobSpec>, slot: u64) -> Self {
        let telemetry = (0..readings.len())
            .map(|index| TelemetryEntry {
                sender: worker(index),
                digest: Blake3Digest(worker(index + 1).0),
            })
            .collect();
        let pending = jobs
            .iter()
            .enumerate()
            .flat_map(|(submission, job)| {
                let digest = job.digest();
                (0..job.replicas).map(move |replica| PendingReplica {
                    submission: submission as u64,
                    job: digest,
                    replica: ReplicaIndex(replica),
                    only: None,
                    candidates: ALL_CANDIDATES,
                })
            })
            .collect();
        let manifest = Manifest {
            binding: binding(),
            slot: Slot(slot),
            proposer: ParticipantIndex::try_from(1).unwrap(),
            previous: KeccakDigest([0; 32]),
            block: BlockRef { number: 1, hash: KeccakDigest([6; 32]) },
            base: KeccakDigest([0; 32]),
            jobs_seen: 0,
            policy: KeccakDigest([7; 32]),
            circuit: circuit_id(),
            telemetry,
            pending,
            leaving: Vec::new(),
            done: Vec::new(),
            lost: Vec::new(),
            given_back: Vec::new(),
            rollouts: RolloutChanges::default(),
            runs: Vec::new(),
        };
        let mut inputs = Inputs::default();
        inputs.public.policy =
            ClusterPolicy { scale: Scale::FINEST, min_candidates: 1, ..ClusterPolicy::default() };
        inputs.public.jobs = jobs.into_iter().map(|job| (job.digest(), job)).collect();
        inputs.public.seed = keccak(&slot.to_le_bytes());
        inputs.public.last_decided = Slot(slot - 1);
        Self { manifest, inputs, readings, secrets: cleartext::Secrets::default() }
    }

    /// A replica that runs already and is no longer pending.
    pub(crate) fn run(mut self, submission: u64, replica: u16, on: usize) -> Self {
        let is_it =
            |p: &PendingReplica| p.submission == submission && p.replica == ReplicaIndex(replica);
        let index = self.manifest.pending.iter().position(is_it).unwrap();
        let pending = self.manifest.pending.remove(index);
        self.inputs.public.running.push(RunningReplica {
            job: pending.job,
            replica: pending.replica,
            worker: worker(on),
            state: ReplicaState::Serving,
        });
        self.inputs.public.running.sort_by_key(|running| (running.job, running.replica));
        self
    }

    pub(crate) fn encrypt(mut self, keys: &Keys) -> Self {
        let telemetry: BTreeMap<_, _> = self
            .manifest
            .telemetry
            .iter()
            .zip(&self.readings)
            .map(|(entry, reading)| (entry.digest, Arc::new(keys.expand(reading))))
            .collect();
        self.inputs.telemetry = telemetry;
        self
    }

    /// For the threshold circuit.
    pub(crate) fn reported(mut self, keys: &Keys) -> (Self, threshold::Inputs) {
        self.manifest.circuit = threshold_circuit_id();
        let reports = self
            .manifest
            .telemetry
            .iter()
            .zip(&self.readings)
            .map(|(entry, reading)| (entry.digest, Arc::new(keys.report(reading))))
            .collect();
        let Inputs { public, requests, weights, .. } = self.inputs.clone();
        (self, threshold::Inputs { public, reports, requests, weights })
    }

    /// The policy's weights, encrypted by their author.
    pub(crate) fn with_encrypted_weights(mut self, keys: &Keys, weights: Weights) -> Self {
        let Binding { scope, key_set, .. } = binding();
        let metadata = ProofMetadata::for_weights(&scope, &key_set, &Address([9; 20]), 1);
        let (key, string) = (&keys.public_key, &keys.reference_string);
        let list = encrypt_weights(&weights, key, string, &metadata).unwrap();
        let expanded =
            verify_and_expand_weights(&list, &metadata, string, &keys.evaluation).unwrap();
        let sealed = EncryptedWeights { scope, key_set, author: Address([9; 20]), nonce: 1, list };
        assert_eq!(sealed.proof_metadata(), metadata);
        self.inputs.public.policy.weights = PolicyWeights::Encrypted(sealed.digest());
        self.inputs.weights = Some(Arc::new(expanded));
        self.secrets.weights = weights;
        self
    }

    /// The encrypted request of a job that [`encrypted_job`] made.
    pub(crate) fn with_request(mut self, keys: &Keys, job: &JobSpec, request: Quantities) -> Self {
        let ResourceRequest::Encrypted(sealed) = &job.request else { panic!("in clear") };
        let metadata = job.request_metadata().unwrap();
        let string = &keys.reference_string;
        let expanded =
            verify_and_expand_request(&sealed.list, &metadata, string, &keys.evaluation).unwrap();
        self.inputs.requests.insert(job.digest(), Arc::new(expanded));
        self.secrets.requests.insert(job.digest(), request);
        self
    }
}

/// Like [`job`], with its request encrypted.
pub(crate) fn encrypted_job(
    keys: &Keys,
    nonce: u64,
    request: Quantities,
    replicas: u16,
) -> JobSpec {
    let base = job(nonce, resources(1, 1), replicas, None);
    let Binding { scope, key_set, .. } = binding();
    let metadata = ProofMetadata::for_request(&scope, &key_set, &base.operator, nonce);
    let (key, string) = (&keys.public_key, &keys.reference_string);
    let list = encrypt_request(&request, &[nonce as u8; 32], key, string, &metadata).unwrap();
    let sealed = EncryptedRequest {
        key_set,
        scale: Scale::FINEST,
        dominant: Resource::Cpu,
        commitment: Blake3Digest([4; 32]),
        list,
    };
    JobSpec { request: ResourceRequest::Encrypted(sealed), ..base }
}
