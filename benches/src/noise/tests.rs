use veil_keygen_ceremony::keyset::ParameterSet;

use super::*;
use crate::keys::{Keys, NoiseOf, key_switch};

/// Inputs of variance 1, 5 and 25 have the noise that the formulas say, at every stage, under a key
/// with the noise of one group and of two.
#[test]
fn measured_noise_is_what_the_formulas_say() {
    for noise in [NoiseOf::OneGroup, NoiseOf::TwoGroups] {
        let keys = Keys::generate(ParameterSet::insecure_test(), 3, noise).unwrap();
        let first = keys.fresh_blocks(4).unwrap();
        let predicted =
            keys.parameters.look_up_noise_with(|component| keys.key_variance(component));
        let (keys, (switch, pool)) = keys.with_block_key(|key| {
            (key_switch(key).unwrap().clone(), Pool::bootstrap(key, &first, 3000))
        });
        let polynomial = keys.parameters.compute().polynomial_size.0;
        let meter = Meter::new(&keys.clear, &switch, polynomial);
        for weights in [&[1][..], &[1, 2], &[4, -2, 2, 1]] {
            let units: i64 = weights.iter().map(|weight| weight * weight).sum();
            let mut sample = Sample::default();
            pool.combinations(weights).for_each(|input| sample.add(&meter.measure(&input)));
            let input = units as f64 * predicted.bootstrap;
            let expected = [input, input + predicted.key_switch, predicted.variance(units as f64)];
            for (stage, (measured, expected)) in
                sample.variance().as_array().into_iter().zip(expected).enumerate()
            {
                let ratio = measured / expected;
                assert!(
                    (0.5..1.5).contains(&ratio),
                    "{noise:?}, {weights:?}, stage {stage}: {ratio} of the prediction"
                );
            }
        }
    }
}
