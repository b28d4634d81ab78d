//! Noise of evaluated ciphertexts, and the probability that one is decoded wrongly.
//!
//! The formulas are those of tfhe 1.8.2, `core_crypto::commons::noise_formulas`
//! (`lwe_keyswitch.rs`, `lwe_programmable_bootstrap.rs`, `centered_mean_shifted_modulus_switch.rs`),
//! with one change: tfhe's take the noise of the *key* to be its own minimum, here it is an
//! argument, because a committee's keys carry (M/r) times the variance that security needs
//! (`ceremony.md`, section 8). A unit test compares each of them with tfhe's at tfhe's noise.
//!
//! Variances are relative to the torus: the variance of a word of w bits divided by 2^(2w).
//! This is plain `f64` arithmetic for documentation, tests and the operator's display: nothing
//! that two members must agree on is computed here.

/// Additive variance of a key switch.
///
/// `input_dimension` in coefficients; the modulus is 2^64 on both sides.
#[must_use]
pub fn key_switch(input_dimension: usize, base_log: u32, levels: u32, key_variance: f64) -> f64 {
    let (n, levels) = (input_dimension as f64, f64::from(levels));
    let base = f64::from(base_log).exp2();
    let q = 64f64.exp2();
    levels * n * key_variance * (base.powi(2) / 12.0 + 1.0 / 6.0)
        + n * (q.powi(-2) / 48.0 + base.powf(-2.0 * levels) / 24.0)
}

/// The shape of a programmable bootstrap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bootstrap {
    /// Bits of the key that is blindly rotated through.
    pub input_dimension: usize,
    /// k of the accumulator.
    pub glwe_dimension: usize,
    /// N of the accumulator.
    pub polynomial_size: usize,
    /// log2 of the decomposition base.
    pub base_log: u32,
    /// Levels of the decomposition.
    pub levels: u32,
    /// Significant bits of the Fourier transform: 53 (one `f64`) or 106 (two).
    pub mantissa_bits: u32,
    /// log2 of the modulus.
    pub modulus_log: u32,
}

impl Bootstrap {
    /// Output variance, the rounding of the Fourier transform included.
    #[must_use]
    pub fn variance(&self, key_variance: f64) -> f64 {
        let (k, n_poly) = (self.glwe_dimension as f64, self.polynomial_size as f64);
        let levels = f64::from(self.levels);
        let base = f64::from(self.base_log).exp2();
        let q = f64::from(self.modulus_log).exp2();
        let lost_bits = f64::from(self.modulus_log.saturating_sub(self.mantissa_bits));
        let fourier = 0.00705
            * (2.0 * (lost_bits + f64::from(self.base_log) - f64::from(self.modulus_log))).exp2()
            * levels.powf(1.01827)
            * k.powf(1.22003)
            * n_poly.powf(2.22003)
            * (k + 1.0).powf(1.01827);
        let key = levels * n_poly * key_variance * (base.powi(2) / 12.0 + 1.0 / 6.0) * (k + 1.0);
        let rounding = base.powf(-2.0 * levels) / 24.0;
        let decomposition = 0.5 * k * n_poly * (q.powi(-2) / 48.0 + rounding) + rounding;
        self.input_dimension as f64 * (fourier + key + decomposition - q.powi(-2) / 24.0)
    }
}

/// Additive variance of a switch to modulus 2N with centred-mean noise reduction.
#[must_use]
pub fn centered_modulus_switch(input_dimension: usize, polynomial_size: usize) -> f64 {
    let (q, two_n) = (64f64.exp2(), 2.0 * polynomial_size as f64);
    input_dimension as f64 * (q.powi(-2) / 24.0 + two_n.powi(-2) / 48.0)
}

/// Where the noise of a look-up comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LookUpNoise {
    /// What one bootstrap leaves in its output.
    pub bootstrap: f64,
    /// What the switch to the small key adds.
    pub key_switch: f64,
    /// What the switch to modulus 2N adds.
    pub modulus_switch: f64,
}

impl LookUpNoise {
    /// Variance after both switches of an input whose noise has `units` times the variance that a
    /// bootstrap leaves: the sum of the squared weights of a linear combination of fresh ciphertexts.
    #[must_use]
    pub fn variance(&self, units: f64) -> f64 {
        units * self.bootstrap + self.key_switch + self.modulus_switch
    }

    /// log2 of the probability that such a look-up finds another entry, if the nearest wrong one
    /// begins `half_width` of the torus away: 1/64 for 16 entries.
    #[must_use]
    pub fn log2_p_fail(&self, units: f64, half_width: f64) -> f64 {
        log2_gaussian_tail(half_width, self.variance(units))
    }
}

/// log2 of the probability that a centred Gaussian leaves [-half_width, half_width].
#[must_use]
pub fn log2_gaussian_tail(half_width: f64, variance: f64) -> f64 {
    log2_erfc(half_width / (2.0 * variance).sqrt())
}

/// log2 erfc(x) for x > 1, by Laplace's continued fraction
/// erfc(x) = exp(-x^2) / (x sqrt(pi)) / (1 + a_1/(1 + a_2/(1 + ...))), a_i = i / (2 x^2).
fn log2_erfc(x: f64) -> f64 {
    let tail = (1..=200).rev().fold(0.0, |tail, i| f64::from(i) / (2.0 * x * x) / (1.0 + tail));
    let ln = -x * x - (x * core::f64::consts::PI.sqrt()).ln() - f64::ln_1p(tail);
    ln * core::f64::consts::LOG2_E
}

#[cfg(test)]
mod tests {
    use tfhe::core_crypto::commons::noise_formulas::{
        centered_mean_shifted_modulus_switch::centered_binary_shifted_modulus_switch_additive_variance_impl,
        lwe_keyswitch::keyswitch_additive_variance_132_bits_security_gaussian_impl,
        lwe_programmable_bootstrap::pbs_variance_132_bits_security_gaussian_fft_mul_impl,
        secure_noise::minimal_lwe_variance_for_132_bits_security_gaussian_impl as minimum,
    };

    use super::*;

    fn assert_close(ours: f64, theirs: f64) {
        assert!((ours / theirs - 1.0).abs() < 1e-9, "{ours:e} is not {theirs:e}");
    }

    #[test]
    fn formulas_are_those_of_tfhe() {
        let q = 64f64.exp2();
        for (base_log, levels) in [(4, 4), (3, 5), (2, 8)] {
            let theirs = keyswitch_additive_variance_132_bits_security_gaussian_impl(
                2048.0,
                918.0,
                f64::from(base_log).exp2(),
                f64::from(levels),
                q,
                q,
            );
            assert_close(key_switch(2048, base_log, levels, minimum(918.0, q)), theirs);
        }
        for (k, base_log, levels, mantissa_bits, modulus_log) in
            [(1u32, 23, 1, 53, 64), (2, 24, 3, 106, 128)]
        {
            let q = f64::from(modulus_log).exp2();
            let shape = Bootstrap {
                input_dimension: 918,
                glwe_dimension: k as usize,
                polynomial_size: 2048,
                base_log,
                levels,
                mantissa_bits,
                modulus_log,
            };
            let theirs = pbs_variance_132_bits_security_gaussian_fft_mul_impl(
                918.0,
                f64::from(k),
                2048.0,
                f64::from(base_log).exp2(),
                f64::from(levels),
                f64::from(mantissa_bits),
                q,
            );
            assert_close(shape.variance(minimum(f64::from(k) * 2048.0, q)), theirs);
        }
        assert_close(
            centered_modulus_switch(918, 2048),
            centered_binary_shifted_modulus_switch_additive_variance_impl(918.0, q, 4096.0),
        );
    }

    #[test]
    fn the_tail_is_that_of_the_error_function() {
        // erfc(2) = 0.004677734981047266, erfc(5) = 1.5374597944280349e-12 (DLMF 7.23).
        assert_close(log2_erfc(2.0), 0.004_677_734_981_047_266f64.log2());
        assert_close(log2_erfc(5.0), 1.537_459_794_428_035e-12f64.log2());
    }
}
