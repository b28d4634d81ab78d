//! Small slots that a test describes by what it varies.

use veil_protocol_spec::{
    Address, Blake3Digest, ChainId, ClusterId, Epoch, KeccakDigest, KeySetDigest, ParticipantIndex,
    PeerIdHash, ReplicaIndex, Slot, scheduling::*,
};
use veil_scheduler_plan::{cleartext, inputs::PublicInputs, plan::Plan};

const fn scope() -> ClusterScope {
    ClusterScope { chain_id: ChainId(1), contract: Address([1; 20]), cluster: ClusterId([2; 32]) }
}

/// What a test varies of a job.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) request: [u8; 4],
    pub(super) encrypted: bool,
    pub(super) replicas: u16,
    pub(super) priority: u8,
    pub(super) policy: SchedulingPolicy,
    /// And whether by the label `zone`.
    pub(super) apart: Option<(Strength, bool)>,
    pub(super) max_latency: Option<u8>,
    pub(super) prefer_previous: bool,
    /// Whether its data is in a host volume, which all workers offer. Of three replicas in a row, one had
    /// its place at a worker that is there, one nowhere, one at a worker that is gone.
    pub(super) keeps_data: Option<OnLoss>,
    /// How many candidates each of its replicas asks.
    pub(super) candidates: u16,
}

impl Wanted {
    pub(super) fn new(request: [u8; 4], replicas: u16, policy: SchedulingPolicy) -> Self {
        Self {
            request,
            encrypted: false,
            replicas,
            priority: 0,
            policy,
            apart: None,
            max_latency: None,
            prefer_previous: false,
            keeps_data: None,
            candidates: ALL_CANDIDATES,
        }
    }

    fn spec(&self, nonce: u64) -> JobSpec {
        let [cpu, memory, disk, gpu] = self.request.map(u16::from);
        let zone = || FailureDomain::Label("zone".parse().unwrap());
        let volume = |on_loss| Volume {
            name: "data".parse().unwrap(),
            mount: "/data".parse().unwrap(),
            kind: VolumeKind::Host { on_loss },
            read_only: false,
        };
        JobSpec {
            replicas: self.replicas,
            volumes: self.keeps_data.map(volume).into_iter().collect(),
            priority: Priority(self.priority),
            policy: self.policy,
            constraints: Constraints {
                anti_affinity: self.apart.map(|(strength, by_zone)| AntiAffinity {
                    strength,
                    domain: if by_zone { zone() } else { FailureDomain::Worker },
                }),
                max_latency: self.max_latency.map(|class| LatencyClass::new(class).unwrap()),
                prefer_previous: self.prefer_previous,
                ..Constraints::default()
            },
            ..JobSpec::new(
                scope(),
                Address([5; 20]),
                nonce,
                "app".parse().unwrap(),
                format!("localhost:5000/app@sha256:{}", "ab".repeat(32)).parse().unwrap(),
                if self.encrypted {
                    ResourceRequest::Encrypted(EncryptedRequest {
                        key_set: KeySetDigest([3; 32]),
                        scale: Scale::FINEST,
                        dominant: Resource::Memory,
                        commitment: Blake3Digest([4; 32]),
                        list: ProvenList::new(vec![1]).unwrap(),
                    })
                } else {
                    ResourceRequest::Clear(Resources {
                        cpu: CpuUnits(cpu),
                        memory: MemoryUnits(memory),
                        disk: DiskUnits(disk),
                        gpu: GpuUnits(gpu),
                    })
                },
            )
        }
    }
}

fn worker(index: usize) -> PeerIdHash {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(index as u64).to_be_bytes());
    PeerIdHash(id)
}

/// A slot: of each replica that runs, the job's number, the replica and the worker.
pub(super) fn slot(
    workers: usize,
    wanted: &[Wanted],
    running: &[(usize, u16, usize)],
    weights: Option<Weights>,
) -> (Plan, cleartext::Secrets) {
    let jobs: Vec<_> = (0..).zip(wanted).map(|(nonce, wanted)| wanted.spec(nonce)).collect();
    let digests: Vec<_> = jobs.iter().map(JobSpec::digest).collect();
    let runs = |job: usize, replica: u16| {
        running.iter().find(|(j, r, _)| (*j, *r) == (job, replica)).map(|(.., worker)| *worker)
    };
    let all = || {
        let replicas =
            |(job, wanted): (usize, &Wanted)| (0..wanted.replicas).map(move |r| (job, r));
        wanted.iter().enumerate().flat_map(replicas)
    };
    let mut runs_already: Vec<_> = all()
        .filter_map(|(job, replica)| {
            Some(RunningReplica {
                job: digests[job],
                replica: ReplicaIndex(replica),
                worker: worker(runs(job, replica)?),
                state: ReplicaState::Serving,
            })
        })
        .collect();
    runs_already.sort_by_key(|replica| (replica.job, replica.replica));
    let manifest = Manifest {
        binding: Binding { scope: scope(), key_set: KeySetDigest([3; 32]), epoch: Epoch(1) },
        slot: Slot(1),
        proposer: ParticipantIndex::try_from(1).unwrap(),
        previous: KeccakDigest([0; 32]),
        block: BlockRef { number: 1, hash: KeccakDigest([6; 32]) },
        base: KeccakDigest([0; 32]),
        jobs_seen: 0,
        policy: KeccakDigest([7; 32]),
        // Not the one of this machine: the order among equals must not depend on it here.
        circuit: CircuitId { version: 0, fingerprint: Blake3Digest([8; 32]) },
        telemetry: (0..workers)
            .map(|index| TelemetryEntry {
                sender: worker(index),
                digest: Blake3Digest(worker(index).0),
            })
            .collect(),
        pending: all()
            .filter(|(job, replica)| runs(*job, *replica).is_none())
            .map(|(job, replica)| PendingReplica {
                submission: job as u64,
                job: digests[job],
                replica: ReplicaIndex(replica),
                only: None,
                candidates: wanted[job].candidates,
            })
            .collect(),
        leaving: Vec::new(),
        done: Vec::new(),
        lost: Vec::new(),
        given_back: Vec::new(),
        rollouts: RolloutChanges::default(),
        runs: Vec::new(),
    };
    let zone = |index: usize| format!("zone={}", ["a", "b", "c"][index % 3]).parse().unwrap();
    let public = PublicInputs {
        policy: ClusterPolicy {
            scale: Scale::FINEST,
            weights: weights.map_or(PolicyWeights::Encrypted(Blake3Digest([9; 32])), |weights| {
                PolicyWeights::Public(weights)
            }),
            min_candidates: 1,
            ..ClusterPolicy::default()
        },
        jobs: digests.iter().copied().zip(jobs).collect(),
        // Every fourth worker is in a failure domain of its own.
        labels: (0..workers)
            .filter(|index| index % 4 != 3)
            .map(|index| (worker(index), vec![zone(index)]))
            .collect(),
        running: runs_already,
        profiles: (0..workers)
            .map(|index| {
                let volumes = vec!["data".parse().unwrap()];
                (worker(index), Profile { volumes, ..Profile::default() })
            })
            .collect(),
        previous: all()
            .filter_map(|(job, replica)| {
                let held = match (wanted[job].keeps_data, replica % 3) {
                    (Some(_), 1) => return None,
                    (Some(_), 2) => worker(workers),
                    _ => worker((job + usize::from(replica)) % workers.max(1)),
                };
                Some(((digests[job], ReplicaIndex(replica)), held))
            })
            .collect(),
        ..PublicInputs::default()
    };
    let requests = digests
        .iter()
        .zip(wanted)
        .map(|(digest, wanted)| (*digest, Quantities::from_array(wanted.request).unwrap()))
        .collect();
    let secrets = cleartext::Secrets { requests, weights: weights.unwrap_or_default() };
    (Plan::new(&manifest, &public).unwrap(), secrets)
}
