//! What one placement costs: proofs, look-ups (PBS), seconds, core-seconds (others use the machine as
//! well). One job with some replicas is placed
//! on some workers, under the parameters of a committee of four and a key made by one party.
//! `--json` prints it for machines. Exits with 1 if the decrypted outcome is not the twin's.

use std::{process::ExitCode, sync::Arc};

use clap::{Parser, ValueEnum};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use serde::Serialize;
use tfhe::{get_pbs_count, reset_pbs_count};
use veil_benches::usage::Stopwatch;
use veil_keygen_ceremony::keyset::{
    Layout, ParameterSet, assemble, decode_block,
    reference::{self, ClearKeys},
    squashed_blocks,
};
use veil_protocol_spec::{
    Address, Blake3Digest, ChainId, ClusterId, Committee, Epoch, KeccakDigest, KeySetDigest,
    ParticipantIndex, PeerIdHash, Slot,
    scheduling::{
        AntiAffinity, Binding, BlockRef, ClusterScope, Constraints, CpuUnits, DiskUnits,
        FailureDomain, GpuUnits, JobSpec, LeasePolicy, Manifest, MemoryUnits, PendingReplica,
        Priority, ProofMetadata, ReplicaIndex, ResourceRequest, Resources, RestartPolicy,
        SchedulingPolicy, Strength, TelemetryEntry,
    },
};
use veil_scheduler::{
    EvaluationKey, Inputs, Plan, ReferenceString, circuit_id, cleartext, encrypt, evaluate, verify,
    verify_and_expand,
};

/// Different telemetry lists; with more workers they repeat, since proving is not what is measured.
const LISTS: usize = 4;

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Apart {
    None,
    Soft,
    Hard,
}

/// Cost of one placement under production parameters.
#[derive(Parser)]
struct Arguments {
    /// Workers.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    nodes: u16,
    /// Replicas of the job.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    replicas: u16,
    /// Anti-affinity across workers.
    #[arg(long, value_enum, default_value = "soft")]
    apart: Apart,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Figures {
    nodes: u16,
    replicas: u16,
    threads: usize,
    list_bytes: usize,
    prove_core_seconds: f64,
    verify_core_seconds: f64,
    /// One list, after its verification.
    expand_core_seconds: f64,
    pbs_per_list: u64,
    evaluate_seconds: f64,
    evaluate_core_seconds: f64,
    pbs: u64,
    pbs_per_replica_and_node: f64,
    squashed_blocks: usize,
    squash_seconds: f64,
    squash_core_seconds: f64,
    agrees_with_twin: bool,
}

fn cluster(arguments: &Arguments) -> (Manifest, JobSpec) {
    let binding = Binding {
        scope: ClusterScope {
            chain_id: ChainId(1),
            contract: Address([1; 20]),
            cluster: ClusterId([2; 32]),
        },
        key_set: KeySetDigest([3; 32]),
        epoch: Epoch(1),
    };
    let strength = match arguments.apart {
        Apart::None => None,
        Apart::Soft => Some(Strength::Soft),
        Apart::Hard => Some(Strength::Hard),
    };
    let job = JobSpec {
        scope: binding.scope,
        operator: Address([5; 20]),
        nonce: 1,
        image: format!("localhost/app@sha256:{}", "ab".repeat(32)).parse().expect("a valid image"),
        command: Vec::new(),
        args: Vec::new(),
        request: ResourceRequest::Clear(resources(5, 8)),
        replicas: arguments.replicas,
        priority: Priority(0),
        policy: SchedulingPolicy::Spread,
        constraints: Constraints {
            anti_affinity: strength
                .map(|strength| AntiAffinity { strength, domain: FailureDomain::Worker }),
            ..Constraints::default()
        },
        lease: LeasePolicy::Keep,
        restart: RestartPolicy::Always,
        health: None,
    };
    let id = |index: u16| {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&index.to_be_bytes());
        id
    };
    let manifest = Manifest {
        binding,
        slot: Slot(1),
        proposer: ParticipantIndex::try_from(1).expect("1 is an index"),
        previous: KeccakDigest([0; 32]),
        block: BlockRef { number: 1, hash: KeccakDigest([6; 32]) },
        policy: KeccakDigest([7; 32]),
        circuit: circuit_id(),
        telemetry: (0..arguments.nodes)
            .map(|index| TelemetryEntry {
                sender: PeerIdHash(id(index)),
                digest: Blake3Digest(id(index)),
            })
            .collect(),
        pending: (0..arguments.replicas)
            .map(|replica| PendingReplica {
                submission: 0,
                job: job.digest(),
                replica: ReplicaIndex(replica),
            })
            .collect(),
        running: Vec::new(),
        lost: Vec::new(),
    };
    (manifest, job)
}

const fn resources(cpu: u16, memory: u16) -> Resources {
    Resources {
        cpu: CpuUnits(cpu),
        memory: MemoryUnits(memory),
        disk: DiskUnits(0),
        gpu: GpuUnits(0),
    }
}

fn measure(arguments: &Arguments) -> Result<Figures, Box<dyn std::error::Error>> {
    let parameters = ParameterSet::production(Committee::new(4)?);
    let layout = Layout::of(&parameters);
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let clear = ClearKeys::random(&layout, &mut rng);
    let bodies = reference::bodies(&parameters, &layout, &[2; 32], &clear, &[3; 32]);
    let key_set = assemble(&parameters, [2; 32], bodies)?;
    let (public_key, server_key) = key_set.decompress().into_raw_parts();
    let key = EvaluationKey::new(public_key.clone(), server_key)?;
    let string = ReferenceString::generate_insecure(*parameters.pke())?;

    let (manifest, job) = cluster(arguments);
    let lists = LISTS.min(arguments.nodes.into());
    let free: Vec<_> =
        (0..lists).map(|_| resources(rng.gen_range(5..400), rng.gen_range(8..900))).collect();
    let Binding { scope, key_set: key_set_digest, .. } = manifest.binding;
    let metadata = ProofMetadata::new(&scope, &key_set_digest, &PeerIdHash([0; 32]), 1);
    let watch = Stopwatch::start();
    let proven = free
        .iter()
        .map(|free| encrypt(free, &public_key, &string, &metadata))
        .collect::<Result<Vec<_>, _>>()?;
    let prove_core_seconds = watch.cpu() / lists as f64;
    let watch = Stopwatch::start();
    proven.iter().try_for_each(|list| verify(list, &metadata, &public_key, &string))?;
    let verify_core_seconds = watch.cpu() / lists as f64;
    reset_pbs_count();
    let watch = Stopwatch::start();
    let expanded = proven
        .iter()
        .map(|list| verify_and_expand(list, &metadata, &string, &key).map(Arc::new))
        .collect::<Result<Vec<_>, _>>()?;
    let expand_core_seconds = (watch.cpu() / lists as f64 - verify_core_seconds).max(0.0);
    let pbs_per_list = get_pbs_count() / lists as u64;

    let mut inputs = Inputs::default();
    inputs.public.jobs.insert(job.digest(), job);
    let repeated = manifest.telemetry.iter().zip(expanded.iter().cycle());
    inputs.telemetry = repeated.map(|(entry, list)| (entry.digest, Arc::clone(list))).collect();
    reset_pbs_count();
    let watch = Stopwatch::start();
    let (outputs, _) = evaluate(&manifest, &inputs, &key)?;
    let (evaluate_seconds, evaluate_core_seconds) = (watch.wall(), watch.cpu());
    let pbs = get_pbs_count();
    let watch = Stopwatch::start();
    let squashed = outputs.squash(&key)?;
    let (squash_seconds, squash_core_seconds) = (watch.wall(), watch.cpu());

    let plan = Plan::new(&manifest, &inputs.public)?;
    let all_free: Vec<_> = free.iter().copied().cycle().take(arguments.nodes.into()).collect();
    let expected: Vec<_> = cleartext::place(&plan, &all_free)
        .into_iter()
        .map(|worker| worker.map_or(0, |worker| worker + 1))
        .collect();
    let blocks: Vec<_> = squashed.as_slice().iter().flat_map(squashed_blocks).collect();
    let digits: Option<Vec<_>> =
        blocks.iter().map(|block| decode_block(clear.phase(block))).collect();
    let found: Vec<usize> = digits
        .unwrap_or_default()
        .chunks(plan.digits_per_replica())
        .map(|digits| digits.iter().rev().fold(0, |sum, digit| sum << 4 | usize::from(*digit)))
        .collect();
    let cells = f64::from(arguments.nodes) * f64::from(arguments.replicas);
    Ok(Figures {
        nodes: arguments.nodes,
        replicas: arguments.replicas,
        threads: rayon::current_num_threads(),
        list_bytes: proven.first().map_or(0, |list| list.as_bytes().len()),
        prove_core_seconds,
        verify_core_seconds,
        expand_core_seconds,
        pbs_per_list,
        evaluate_seconds,
        evaluate_core_seconds,
        pbs,
        pbs_per_replica_and_node: pbs as f64 / cells,
        squashed_blocks: outputs.len(),
        squash_seconds,
        squash_core_seconds,
        agrees_with_twin: found == expected,
    })
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let figures = match measure(&arguments) {
        Ok(figures) => figures,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    if arguments.json {
        match serde_json::to_string_pretty(&figures) {
            Ok(json) => println!("{json}"),
            Err(error) => eprintln!("{error}"),
        }
    } else {
        let Figures { nodes, replicas, threads, .. } = figures;
        println!("{replicas} replicas on {nodes} workers, {threads} threads");
        println!(
            "list {} bytes; core-seconds: prove {:.2}, verify {:.2}, expand {:.2} ({} PBS)",
            figures.list_bytes,
            figures.prove_core_seconds,
            figures.verify_core_seconds,
            figures.expand_core_seconds,
            figures.pbs_per_list,
        );
        println!(
            "evaluate {:.2} s, {:.2} core-seconds, {} PBS, {:.1} for each replica and worker",
            figures.evaluate_seconds,
            figures.evaluate_core_seconds,
            figures.pbs,
            figures.pbs_per_replica_and_node,
        );
        println!(
            "squash {} blocks in {:.2} s, {:.2} core-seconds",
            figures.squashed_blocks, figures.squash_seconds, figures.squash_core_seconds,
        );
        println!("agrees with the cleartext twin: {}", figures.agrees_with_twin);
    }
    if figures.agrees_with_twin { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
