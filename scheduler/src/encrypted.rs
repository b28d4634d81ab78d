//! Digits under an evaluation key: the circuits of `veil-scheduler-plan` on ciphertexts.

use tfhe::{
    core_crypto::prelude::{
        Cleartext, Plaintext, lwe_ciphertext_add_assign, lwe_ciphertext_cleartext_mul_assign,
        lwe_ciphertext_opposite_assign, lwe_ciphertext_plaintext_add_assign,
        lwe_ciphertext_sub_assign,
    },
    shortint::{
        self, Ciphertext,
        ciphertext::{Degree, MaxDegree},
        server_key::{LookupTableOwned, ManyLookupTableOwned},
    },
};
use veil_scheduler_plan::circuit::{
    digit::{Digit, Value},
    table::{ENTRIES, Table},
};

use crate::key::EvaluationKey;

/// An eighth of a message step: 1/8 of 1/32 of the torus.
const EIGHTH_STEP: u32 = 56;

/// A block of the 2_2 parameters as circuits use it: 4 bits below the padding bit.
#[derive(Clone)]
pub(crate) struct Encrypted(pub(crate) Ciphertext);

/// A digit of an evaluation.
pub(crate) type EncryptedDigit = Digit<Encrypted>;

/// A constant polynomial after a blind rotation. All samples of it have one mask, turned, so that one is
/// kept, with the body words of 16.
#[derive(Clone)]
pub(crate) struct Rotation {
    first: Ciphertext,
    bodies: [u64; ENTRIES],
    polynomial_size: usize,
}

impl Value for Encrypted {
    type Key = EvaluationKey;
    type Rotation = Rotation;

    fn add(&mut self, other: &Self) {
        lwe_ciphertext_add_assign(&mut self.0.ct, &other.0.ct);
    }

    fn subtract(&mut self, other: &Self) {
        lwe_ciphertext_sub_assign(&mut self.0.ct, &other.0.ct);
    }

    fn add_eighths(&mut self, eighths: i64) {
        let plaintext = Plaintext((eighths as u64).wrapping_mul(1 << EIGHTH_STEP));
        lwe_ciphertext_plaintext_add_assign(&mut self.0.ct, plaintext);
    }

    fn multiply(&mut self, factor: u32) {
        lwe_ciphertext_cleartext_mul_assign(&mut self.0.ct, Cleartext(u64::from(factor)));
    }

    fn negate(&mut self) {
        lwe_ciphertext_opposite_assign(&mut self.0.ct);
    }

    fn look_up(&self, key: &EvaluationKey, table: &Table) -> Self {
        if key.is_cancelled() {
            return self.clone(); // nobody sees what comes of it
        }
        let server_key = key.server_key();
        let accumulator = accumulator(server_key, table);
        Self(server_key.apply_lookup_table(&self.0, &accumulator))
    }

    fn look_up_two(&self, key: &EvaluationKey, table: &Table, distance: usize) -> [Self; 2] {
        if key.is_cancelled() {
            return [self.clone(), self.clone()]; // as above
        }
        let server_key = key.server_key();
        let LookupTableOwned { acc, degree } = accumulator(server_key, table);
        let many = ManyLookupTableOwned {
            sample_extraction_stride: acc.polynomial_size().0 / ENTRIES * distance,
            acc,
            input_max_degree: MaxDegree::new(ENTRIES as u64 - 1),
            per_function_output_degree: vec![degree; 2],
        };
        let outputs = server_key.apply_many_lookup_table(&self.0, &many);
        let outputs: [Ciphertext; 2] = match outputs.try_into() {
            Ok(outputs) => outputs,
            Err(_) => unreachable!("tfhe gives one output for each function"),
        };
        outputs.map(Self)
    }

    fn rotate(&self, key: &EvaluationKey, halves: i64) -> Rotation {
        let server_key = key.server_key();
        let mut accumulator = server_key.generate_lookup_table(|_| 0).acc;
        let polynomial_size = accumulator.polynomial_size().0;
        if key.is_cancelled() {
            // As above.
            return Rotation { first: self.0.clone(), bodies: [0; ENTRIES], polynomial_size };
        }
        // An entry is centred on its message: the half of one before 0 has the other sign.
        let coefficient = ((4 * halves) as u64).wrapping_mul(1 << EIGHTH_STEP);
        let mut body = accumulator.get_mut_body();
        let body = body.as_mut();
        body.fill(coefficient);
        let half_an_entry = body.len() / ENTRIES / 2;
        let (_, last) = body.split_at_mut(body.len() - half_an_entry);
        last.fill(coefficient.wrapping_neg());
        let many = ManyLookupTableOwned {
            sample_extraction_stride: polynomial_size / ENTRIES,
            acc: accumulator,
            input_max_degree: MaxDegree::new(ENTRIES as u64 - 1),
            per_function_output_degree: vec![Degree::new(ENTRIES as u64 - 1); ENTRIES],
        };
        let mut outputs = server_key.apply_many_lookup_table(&self.0, &many);
        let mut bodies = [0; ENTRIES];
        for (body, output) in bodies.iter_mut().zip(&outputs) {
            *body = *output.ct.get_body().data;
        }
        Rotation { first: outputs.swap_remove(0), bodies, polynomial_size }
    }

    fn read(rotation: &Rotation, entries: usize) -> Self {
        let Rotation { first, bodies, polynomial_size } = rotation;
        let mut ciphertext = first.clone();
        let up = polynomial_size / ENTRIES * entries;
        for polynomial in ciphertext.ct.get_mut_mask().as_mut().chunks_mut(*polynomial_size) {
            // Modulo X^N + 1.
            polynomial.rotate_right(up);
            polynomial.iter_mut().take(up).for_each(|word| *word = word.wrapping_neg());
        }
        *ciphertext.ct.get_mut_body().data = bodies.get(entries).copied().unwrap_or_default();
        Self(ciphertext)
    }
}

fn accumulator(server_key: &shortint::ServerKey, table: &Table) -> LookupTableOwned {
    let mut accumulator = server_key.generate_lookup_table(|_| 0);
    accumulator.degree = Degree::new(ENTRIES as u64 - 1);
    let mut body = accumulator.acc.get_mut_body();
    let body = body.as_mut();
    let width = body.len() / ENTRIES;
    for (entry, eighths) in body.chunks_mut(width).zip(table.entries()) {
        entry.fill((*eighths as u64).wrapping_mul(1 << EIGHTH_STEP));
    }
    // An entry is centred on its message: its lower half lies below, and for 0 that is past
    // the end of the polynomial, where the sign turns.
    let (first, _) = body.split_at_mut(width / 2);
    first.iter_mut().for_each(|word| *word = word.wrapping_neg());
    body.rotate_left(width / 2);
    accumulator
}

#[cfg(test)]
mod tests {
    use veil_scheduler_plan::circuit::lookup::Circuit;

    use super::*;

    /// Every entry, both signs, one and two outputs, rotations: encrypted as in clear.
    #[test]
    fn look_ups_are_negacyclic_and_read_where_they_should() {
        let (clear, key) = crate::tests::keys();
        let list = key
            .public_key()
            .encrypt_iter_with_modulus_seeded((0..16).map(|x| x as u64), 1 << 4, &[1; 16])
            .unwrap();
        let positions: Vec<_> = (0..16).collect();
        let encrypted = crate::expanded::switched(&list, &positions, &key).unwrap();
        let table =
            Table::new(|x| [3, 0, 7, 1, 14, 15, 2, 9, 8, 0, 5, 6, 4, 13, 12, 11][x as usize]);
        let (fhe, twin) = (Circuit::new(&key), Circuit::in_clear());
        for x in 0..16u8 {
            for shift in [0, -16, -5] {
                let e = encrypted[usize::from(x)].plus_constant(shift);
                let c = Digit::clear(x).plus_constant(shift);
                let one = (fhe.look_up(&e, &table), twin.look_up(&c, &table));
                let two = (fhe.look_up_two(&e, &table), twin.look_up_two(&c, &table));
                let mut pairs = vec![
                    one,
                    (two.0[0].clone(), two.1[0].clone()),
                    (two.0[1].clone(), two.1[1].clone()),
                ];
                let rotated = (fhe.rotate(&e, 4), twin.rotate(&c, 4));
                let steps = i64::from(x) + shift;
                for threshold in [0, 1, 7, 8, 15, 16] {
                    if (-16..16).contains(&(steps - threshold)) {
                        pairs.push((rotated.0.at_least(threshold), rotated.1.at_least(threshold)));
                        pairs.push((rotated.0.below(threshold), rotated.1.below(threshold)));
                    }
                }
                for (encrypted, expected) in pairs {
                    let found = crate::tests::decrypt(&clear, &key, &encrypted);
                    // Squashing is negacyclic too: 16 + x becomes -x.
                    let expected = expected.steps();
                    let expected = if expected < 16 { expected } else { (16 - expected) & 31 };
                    assert_eq!(found, expected, "{x} {shift}");
                }
            }
        }
    }
}
