//! Equal bits whatever the number of threads, and from run to run.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Cluster, Keys, job, reading, resources};
use veil_keygen_ceremony::keyset::ParameterSet;
use veil_protocol_spec::scheduling::Strength;
use veil_scheduler::{Cancellation, EvaluateError, evaluate};

#[test]
fn threads_do_not_change_the_digest() {
    let keys = Keys::test();
    let free = vec![reading(30, 70), reading(0, 9), reading(190, 40), reading(31, 70)];
    let jobs = vec![
        job(1, resources(5, 8), 3, Some(Strength::Soft)),
        job(2, resources(9, 3), 2, Some(Strength::Hard)),
    ];
    let cluster = Cluster::new(free, jobs, 1).encrypt(keys);
    let digest = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let evaluated =
            pool.install(|| evaluate(&cluster.manifest, &cluster.inputs, &keys.evaluation));
        evaluated.unwrap().1
    };
    assert_eq!(digest(1), digest(2));

    let mut later = cluster.clone();
    later.manifest.slot.0 += 1;
    let other = evaluate(&later.manifest, &later.inputs, &keys.evaluation).unwrap().1;
    assert_ne!(digest(1), other);
}

#[test]
fn evaluations_under_two_keys_at_once_do_not_mix() {
    let first = Keys::test();
    let second = Keys::new(ParameterSet::insecure_test(), 2);
    let cluster = || {
        let free = vec![reading(30, 70), reading(12, 9), reading(31, 20)];
        Cluster::new(free, vec![job(1, resources(5, 8), 3, Some(Strength::Soft))], 1)
    };
    let clusters = [cluster().encrypt(first), cluster().encrypt(&second)];
    let run = |index: usize| {
        let (cluster, keys) = (&clusters[index], [first, &second][index]);
        evaluate(&cluster.manifest, &cluster.inputs, &keys.evaluation).unwrap()
    };
    let alone: Vec<_> = (0..2).map(|index| run(index).1).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|index| scope.spawn(move || run(index))).collect();
        for ((thread, alone), keys) in threads.into_iter().zip(&alone).zip([first, &second]) {
            let (outputs, digest) = thread.join().unwrap();
            assert_eq!(digest, *alone);
            let mut placed = keys.decrypt(&outputs);
            placed.sort_unstable();
            assert_eq!(placed, [1, 2, 3]);
        }
    });
}

#[test]
fn a_cancelled_evaluation_ends_and_gives_nothing() {
    let keys = Keys::test();
    let jobs = vec![job(1, resources(5, 8), 3, Some(Strength::Soft))];
    let cluster =
        Cluster::new(vec![reading(30, 70), reading(12, 9), reading(31, 20)], jobs, 1).encrypt(keys);
    let run = |key| evaluate(&cluster.manifest, &cluster.inputs, key).map(|(_, digest)| digest);
    let cancellation = Cancellation::default();
    let key = keys.evaluation.until(cancellation.clone());
    assert_eq!(run(&key).unwrap(), run(&keys.evaluation).unwrap());
    cancellation.cancel();
    assert!(matches!(run(&key), Err(EvaluateError::Cancelled)));
    assert!(run(&keys.evaluation).is_ok(), "other evaluations go on");
}
