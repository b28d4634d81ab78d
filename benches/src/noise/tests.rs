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
        let public_key = keys.public_key.clone();
        let (keys, (switch, pool, lists)) = keys.with_parts(|key, from_public_key| {
            let lists = Keys::list_inputs(&public_key, from_public_key.unwrap(), 4000).unwrap();
            (key_switch(key).unwrap().clone(), Pool::bootstrap(key, &first, 3000), lists)
        });
        let polynomial = keys.parameters.compute().polynomial_size.0;
        let meter = Meter::new(&keys.clear, &switch, polynomial);
        let first = list_input(&keys.parameters, |component| keys.key_variance(component));
        let mut sample = Sample::default();
        lists.iter().for_each(|input| sample.add(&meter.measure(input)));
        let ratio = sample.variance().input / first;
        println!("{noise:?}, list: {ratio}");
        assert!((0.5..1.5).contains(&ratio), "{noise:?}, list: {ratio} of the prediction");
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

#[test]
fn weights_have_the_variance_asked_for() {
    for variance in 0..=25 {
        let sum: i64 = weights(variance).iter().map(|weight| weight * weight).sum();
        assert_eq!(sum, variance.into());
    }
    assert_eq!(weights(25), [5]);
    assert_eq!(weights(23), [4, 2, 1, 1, 1]);
}
