//! Keys for tests, and the bits of an evaluation pinned.

use rand::{SeedableRng as _, rngs::StdRng};
use veil_keygen_ceremony::keyset::{
    Layout, ParameterSet, assemble,
    reference::{self, ClearKeys},
    squashed_blocks,
};
use veil_protocol_spec::{
    Blake3Digest,
    scheduling::{Quantities, Reading, SchedulingPolicy, Strength, Weights},
};
use veil_scheduler_plan::{
    circuit::{
        self,
        lookup::Circuit,
        worker::{Confidential, Worker},
    },
    cost::Cost,
};

use self::slots::{Wanted, slot};
use crate::{
    encrypted::EncryptedDigit, expanded::EncryptedTelemetry, key::EvaluationKey, outputs::Outputs,
};

mod costs;
mod noise;
mod slots;
mod threshold;
mod twin;

pub(crate) fn keys() -> (ClearKeys, EvaluationKey) {
    let parameters = ParameterSet::insecure_test();
    let layout = Layout::of(&parameters);
    let clear = ClearKeys::random(&layout, &mut StdRng::seed_from_u64(1));
    let bodies = reference::bodies(&parameters, &layout, &[1; 32], &clear, &[2; 32]);
    let key_set = assemble(&parameters, [1; 32], bodies).unwrap();
    let (public_key, server_key) = key_set.decompress().into_raw_parts();
    (clear, EvaluationKey::new(public_key, server_key).unwrap())
}

/// Whole steps, 0 to 31.
pub(crate) fn decrypt(clear: &ClearKeys, key: &EvaluationKey, digit: &EncryptedDigit) -> i64 {
    let outputs = Outputs::new(key.id(), vec![digit.clone()], Cost::default());
    let squashed = outputs.squash(key).unwrap();
    let block = squashed.as_slice().iter().flat_map(squashed_blocks).next().unwrap();
    (clear.phase(&block).wrapping_add(1 << 122) >> 123) as i64
}

#[test]
fn the_bits_of_an_evaluation_are_pinned() {
    let readings = [[30, 70, 9, 1], [9, 9, 9, 9], [31, 70, 20, 2]]
        .map(|free| Reading { free: Quantities::from_array(free).unwrap(), ..Reading::default() });
    let wanted = [
        Wanted {
            apart: Some((Strength::Soft, false)),
            ..Wanted::new([5, 8, 1, 0], 2, SchedulingPolicy::Spread)
        },
        Wanted {
            apart: Some((Strength::Hard, true)),
            ..Wanted::new([9, 3, 0, 1], 2, SchedulingPolicy::BinPack)
        },
    ];
    let (_, key) = keys();
    let (plan, _) = slot(3, &wanted, &[], Some(Weights::default()));
    let workers = readings
        .iter()
        .enumerate()
        .map(|(seed, reading)| {
            let telemetry = EncryptedTelemetry::unproven(reading, seed as u8, &key);
            let mut worker = Worker::default();
            for resource in 0..4 {
                worker.set_free(resource, telemetry.quantity(resource, &key).unwrap());
            }
            worker
        })
        .collect();
    let circuit = Circuit::new(&key);
    let mut confidential = Confidential { requests: Default::default(), weights: None };
    let digits = circuit::run(&plan, workers, &mut confidential, &circuit);
    let outputs = Outputs::new(key.id(), digits.into_iter().flatten().collect(), circuit.cost());
    // Another digest is another circuit: raise `CIRCUIT_VERSION` with it.
    assert_eq!(outputs.digest_under(&Blake3Digest([0; 32])).to_string(), PINNED);
}

const PINNED: &str = "2b042188cea13b7f57be952b82537685182ea085799d07f9db9f262d6d1f408c";
