//! The steps of a slot and of an auction under the parameters and the keys of one committee of four,
//! on all cores, by the circuits and by the stock API. Read `elem/s` as lists, decisions (a replica on
//! a worker), blocks or bids per second.
//!
//! Keys take about ten seconds to make and 2 GB to hold.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use tfhe::{set_server_key, unset_server_key};
use veil_benches::{
    baseline::{self, Apart, Request},
    cluster::binding,
    failure::Failure,
    inputs::Kept,
    keys::{Keys, NoiseOf},
    placement::{Bench, Slot},
};
use veil_keygen_ceremony::keyset::ParameterSet;
use veil_protocol_spec::{
    Blake3Digest, Committee, PeerIdHash,
    scheduling::{Binding, ProofMetadata, Reading, SchedulingPolicy},
};
use veil_scheduler::{EvaluationKey, auction, encrypt, evaluate, verify, verify_and_expand};

/// Workers in an iteration.
const WORKERS: usize = 4;

fn bench<T>(c: &mut Criterion, op: &str, name: &str, elements: usize, mut run: impl FnMut() -> T) {
    let mut group = c.benchmark_group(op);
    group.throughput(Throughput::Elements(elements as u64));
    group.bench_function(format!("{name} x{elements}"), |b| b.iter(|| black_box(run())));
    group.finish();
}

/// The stock API, which needs the server key to be set.
fn stock(c: &mut Criterion, name: &str, keys: &Keys) {
    set_server_key(keys.server_key.clone());
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let free: Vec<_> = (0..WORKERS).map(|_| [rng.gen_range(50..=255); 4]).collect();
    let free = baseline::encrypt(&free, &keys.public_key).expect("a list of four bytes");
    let job =
        baseline::Job { request: Request::Clear([10, 20, 30, 0]), replicas: 1, apart: Apart::No };
    let jobs = [job];
    bench(c, "baseline::place", name, WORKERS, || baseline::place(free.clone(), &jobs));
    let bids: Vec<_> = (0..WORKERS).map(|_| rng.r#gen()).collect();
    let bids = baseline::encrypt_bids(&bids, &keys.public_key).expect("a list of bids");
    bench(c, "baseline::highest_bid", name, WORKERS, || baseline::highest_bid(&bids));
    unset_server_key();
}

fn circuit(c: &mut Criterion, name: &str, keys: Keys) -> Result<(), Failure> {
    let Keys { parameters, clear, public_key, server_key, .. } = keys;
    let key = EvaluationKey::new(public_key.clone(), server_key)?;
    let kept = Kept::default();
    let string = kept.reference_string(&parameters)?;
    let (clear, public_key) = (&clear, &public_key);
    let prepare = Bench { clear, public_key, key: &key, string: &string, kept: &kept };

    let Binding { scope, key_set, .. } = binding();
    let metadata = ProofMetadata::new(&scope, &key_set, &PeerIdHash([0; 32]), 1);
    let reading = Reading::default();
    let list = encrypt(&reading, public_key, &string, &metadata)?;
    bench(c, "lists::encrypt", name, 1, || encrypt(&reading, public_key, &string, &metadata));
    bench(c, "lists::verify", name, 1, || verify(&list, &metadata, public_key, &string));
    bench(c, "expanded::verify_and_expand", name, 1, || {
        verify_and_expand(&list, &metadata, &string, &key)
    });

    let slot = Slot {
        nodes: WORKERS as u16,
        jobs: 1,
        replicas: 1,
        policy: SchedulingPolicy::Spread,
        apart: None,
        encrypted_requests: false,
        resources: 4,
    };
    let prepared = prepare.prepare(&slot)?;
    let run = || evaluate(&prepared.manifest, &prepared.inputs, &key);
    bench(c, "evaluate::evaluate", name, WORKERS, run);
    let (outputs, _) = run()?;
    bench(c, "outputs::squash", name, outputs.len(), || outputs.squash(&key));

    let bids = prepare.prepare_bids(WORKERS as u16)?;
    let bids: Vec<_> = bids.iter().collect();
    let auction = Blake3Digest([0; 32]);
    bench(c, "auction::winner", name, WORKERS, || auction::winner(&auction, &bids, &key));
    Ok(())
}

fn main() {
    let committee = Committee::new(4).expect("a committee of four exists");
    let keys = Keys::generate(ParameterSet::production(committee), 1, NoiseOf::OneGroup)
        .expect("the bodies are those of the parameters");
    let mut c = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(5))
        .sample_size(10)
        .without_plots()
        .configure_from_args();
    stock(&mut c, &committee.to_string(), &keys);
    circuit(&mut c, &committee.to_string(), keys).expect("the lists are those of the key");
    c.final_summary();
}
