use std::collections::HashSet;

use tfhe::core_crypto::commons::noise_formulas::secure_noise::{
    minimal_lwe_variance_for_132_bits_security_gaussian as gaussian,
    minimal_lwe_variance_for_132_bits_security_tuniform as tuniform,
};
use veil_committee::decrypt::{Flooding, LOG2_NOISE};

use super::*;

fn committee(n: u8) -> Committee {
    Committee::new(n).unwrap()
}

#[test]
fn sigma_is_the_minimum_of_tfhe_for_132_bits() {
    for (dimension, modulus_log, variance, log2_sigma) in [
        (918, 64, VARIANCE_918, 43.81),
        (2048, 64, VARIANCE_2048, 15.68),
        (4096, 128, VARIANCE_4096, 28.70),
    ] {
        let modulus = f64::from(modulus_log).exp2();
        let torus = gaussian(LweDimension(dimension), modulus).0;
        let minimum = torus * f64::from(2 * modulus_log).exp2();
        let ratio = variance as f64 / minimum;
        assert!((1.0 - 1e-12..1.0 + 1e-9).contains(&ratio), "{dimension}: {ratio}");
        assert!((variance as f64).log2() / 2.0 - log2_sigma < 0.005);
    }
}

/// Section 8: the formulas reproduce the published probability of the stock set, and the
/// profiles keep theirs.
#[test]
fn failure_probabilities_are_as_documented() {
    let mut stock = ParameterSet::production(committee(1));
    stock.compute = V1_8_PARAM_MESSAGE_2_CARRY_2_KS_PBS_TUNIFORM_2M128;
    let published = stock.compute.log2_p_fail;
    let computed = stock.log2_p_fail_with(|component| match component {
        Component::KeySwitch => tuniform(LweDimension(918), 64f64.exp2()).0 * 128f64.exp2(),
        _ => tuniform(LweDimension(2048), 64f64.exp2()).0 * 128f64.exp2(),
    });
    println!("stock: published {published}, computed {computed:.2}");
    assert!((computed - published).abs() < 0.5);

    for (n, documented) in [(1, -138.8), (4, -136.8), (7, -130.5), (10, -138.6), (13, -129.0)] {
        let params = ParameterSet::production(committee(n));
        let computed = params.log2_p_fail();
        println!(
            "{}: {computed:.2}, squashed sigma 2^{:.2}",
            params.name(),
            params.log2_squashed_deviation()
        );
        assert!((computed - documented).abs() < 0.1, "{computed}");
        assert!((computed - params.compute().log2_p_fail).abs() < 0.1, "{computed}");
        assert!(computed < -128.0 && !params.is_insecure());
    }
    // The stock base is not enough for the noise of a committee of 4.
    let mut coarse = ParameterSet::production(committee(4));
    coarse.compute.ks_base_log = DecompositionBaseLog(4);
    coarse.compute.ks_level = DecompositionLevelCount(4);
    assert!((coarse.log2_p_fail() - -126.8).abs() < 0.1);
}

/// A freshly switched ciphertext is less noisy than a linear combination of bootstrapped ones,
/// so that the failure probability of a bootstrap covers it in every profile.
#[test]
fn fresh_ciphertexts_are_less_noisy_than_evaluated_ones() {
    for n in [1, 4, 7, 10, 13] {
        let params = ParameterSet::production(committee(n));
        let amplified =
            |c| params.variance(c) as f64 * params.family.amplification() * (-128f64).exp2();
        // b = <key noise, r> + e_2, a = ... + e_1: r and p are binary, e_i stock TUniform(17).
        let dimension = params.pke.encryption_lwe_dimension.0;
        let stock = tuniform(LweDimension(dimension), 64f64.exp2()).0;
        let half = dimension as f64 / 2.0;
        let encryption = half * (amplified(Component::CompactPublicKey) + stock) + stock;
        let switching = noise::key_switch(
            dimension,
            params.pke_key_switching.ks_base_log.0 as u32,
            params.pke_key_switching.ks_level.0 as u32,
            amplified(Component::PublicKeySwitch),
        );
        let bootstrap = Bootstrap {
            input_dimension: 918,
            glwe_dimension: 1,
            polynomial_size: 2048,
            base_log: 23,
            levels: 1,
            mantissa_bits: 53,
            modulus_log: 64,
        };
        let evaluated = bootstrap.variance(amplified(Component::Bootstrap));
        assert!(encryption + switching < evaluated / 16.0, "{n}");
    }
}

/// `decryption.md`, "Budget": sqrt(m (ln(2K/sigma) + 1) / 8) sigma / K is at most 2^-32, and twice as many
/// blocks would be too many, or nearly.
#[test]
fn a_key_is_good_for_as_many_blocks_as_its_noise_stays_hidden() {
    for committee in Committee::ALL {
        let flooding = Flooding::of(committee);
        let sigma = ParameterSet::production(committee).log2_squashed_deviation();
        let k = f64::from(LOG2_NOISE + flooding.statistical_bits);
        let logarithm = (k + 1.0 - sigma) * core::f64::consts::LN_2 + 1.0;
        let log2_distance =
            |blocks: u64| (blocks as f64 * logarithm / 8.0).log2() / 2.0 + sigma - k;
        assert!(log2_distance(flooding.budget) <= -32.0, "{committee}");
        assert!(log2_distance(4 * flooding.budget) > -32.0, "{committee}");
    }
}

#[test]
fn group_bounds_are_the_smallest_that_reach_sigma() {
    for params in Committee::ALL.map(ParameterSet::production) {
        for (component, r) in Component::ALL.into_iter().flat_map(|c| [1, 2, 5, 11].map(|r| (c, r)))
        {
            let bound = u128::from(params.group_bound(component, r));
            let variance = params.variance(component);
            let reaches = |b: u128| b * (b + 1) * u128::from(r) >= 3 * variance;
            assert!(reaches(bound) && !reaches(bound - 1));
        }
    }
    // Uniform on [-B, B] has deviation B / sqrt(3).
    let params = ParameterSet::production(committee(4));
    let log2 = (params.group_bound(Component::KeySwitch, 1) as f64).log2();
    assert!((log2 - (43.807 + 3f64.log2() / 2.0)).abs() < 0.001, "{log2}");
}

#[test]
fn names_and_digests_tell_the_sets_apart() {
    let mut sets = vec![ParameterSet::insecure_test()];
    sets.extend(Committee::ALL.map(ParameterSet::production));
    assert_eq!(sets.iter().map(ParameterSet::name).collect::<HashSet<_>>().len(), 6);
    assert_eq!(sets.iter().map(ParameterSet::digest).collect::<HashSet<_>>().len(), 6);
    let mut changed = ParameterSet::production(committee(4));
    assert_eq!(changed.digest(), ParameterSet::production(committee(4)).digest());
    changed.variances[0] += 1;
    assert_ne!(changed.digest(), ParameterSet::production(committee(4)).digest());

    let by_name = |name| ParameterSet::by_name(name, committee(7));
    assert_eq!(by_name("production"), Ok(ParameterSet::production(committee(7))));
    assert_eq!(by_name("production-n7"), Ok(ParameterSet::production(committee(7))));
    assert!(by_name("production-n4").is_err());
    assert_eq!(by_name("insecure-test"), Ok(ParameterSet::insecure_test()));
    assert!(by_name("insecure-test").unwrap().is_insecure());
    let error = by_name("prod").unwrap_err().to_string();
    assert!(error.contains("\"production\"") && error.contains("\"insecure-test\""), "{error}");
}
