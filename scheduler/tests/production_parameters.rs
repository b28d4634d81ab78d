//! One placement under the parameters of a committee of four.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Cluster, Keys, job, reading, resources};
use veil_keygen_ceremony::keyset::ParameterSet;
use veil_protocol_spec::{Committee, scheduling::Strength};
use veil_scheduler::evaluate;
use veil_scheduler_plan::{cleartext, outcome::decode, plan::Plan};

#[test]
fn three_replicas_are_placed_and_decrypted() {
    let keys = Keys::new(ParameterSet::production(Committee::new(4).unwrap()), 1);
    let free = vec![reading(38, 100), reading(12, 110), reading(7, 15)];
    let jobs = vec![job(1, resources(6, 8), 3, Some(Strength::Soft))];
    let cluster = Cluster::new(free, jobs, 1).encrypt(&keys);
    let plan = Plan::new(&cluster.manifest, &cluster.inputs.public).unwrap();
    let expected: Vec<_> = cleartext::place(&plan, &cluster.readings, &cluster.secrets)
        .into_iter()
        .map(|worker| worker.map_or(0, |worker| worker as u8 + 1))
        .collect();
    let (outputs, _) = evaluate(&cluster.manifest, &cluster.inputs, &keys.evaluation).unwrap();
    let blocks = keys.decrypt(&outputs);
    assert_eq!(blocks, expected);
    assert_eq!(outputs.cost(), &plan.cost());
    let log2 = plan.cost().log2_failure(|v| keys.parameters.log2_p_fail_at(v));
    assert!(log2 < -120.0, "{log2}");
    let mut sorted = blocks.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [1, 2, 3]);
    assert!(decode(&cluster.manifest, &cluster.inputs.public, &blocks).is_ok());
}
