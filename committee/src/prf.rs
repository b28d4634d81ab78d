//! The pseudo-random function behind PRSS, PRZS and noise: AES-256 in counter mode, keyed by BLAKE3
//! per (key, label). AES-256 because the keys must stay safe against quantum search.

use aes::{
    Aes256Enc, Block,
    cipher::{BlockCipherEncrypt, KeyInit},
};
use veil_protocol_spec::domain;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A 32-byte key shared by the members of one set.
///
/// # Security
/// Zeroized on drop, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SetKey([u8; 32]);

impl SetKey {
    /// Takes the key bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key bytes, for derivation and the keystore.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key of one purpose: `domain` separates, `parts` bind the ids the purpose belongs to.
    #[must_use]
    pub fn derive(&self, domain: &str, parts: &[&[u8]]) -> Self {
        let mut all: Vec<&[u8]> = vec![&self.0];
        all.extend_from_slice(parts);
        Self(domain::hash_parts(domain, &all))
    }
}

impl core::fmt::Debug for SetKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SetKey(<redacted>)")
    }
}

/// Blocks that the widest implementation of AES takes at a time; what is left over goes one by one.
pub(crate) const LANES: usize = 64;

/// The PRF of one (key, label): a random-access stream of 128-bit words.
#[derive(Clone)]
pub struct Prf {
    cipher: Aes256Enc,
}

impl Prf {
    /// PRF under `key` for `label`; two labels give independent functions.
    #[must_use]
    pub fn new(key: &SetKey, label: &str) -> Self {
        let derived = key.derive(domain::PRF_LABEL, &[label.as_bytes()]);
        let round_key = Zeroizing::new(*derived.expose());
        Self { cipher: Aes256Enc::new((&*round_key).into()) }
    }

    /// Words `start .. start + out.len()` of the stream: word i is AES(i).
    #[inline]
    pub fn fill(&self, start: u64, out: &mut [u128]) {
        for (i, word) in out.iter_mut().enumerate() {
            *word = u128::from(start + i as u64).to_le();
        }
        self.cipher.encrypt_blocks(as_blocks(out));
    }

    /// PRF of 32-byte inputs, two words of output each: CBC-MAC over the two halves of the input
    /// (its length is fixed, so that is a PRF), then one block per output word under its own tweak.
    /// Multiples of 64 inputs are fastest.
    ///
    /// # Panics
    /// If there are not as many outputs as inputs.
    pub fn of_digests(&self, digests: &[[u8; 32]], out: &mut [[u128; 2]]) {
        assert_eq!(digests.len(), out.len());
        let halves = |digest: &[u8; 32]| bytemuck::cast::<[u8; 32], [u128; 2]>(*digest);
        for (digests, out) in digests.chunks(LANES).zip(out.chunks_mut(LANES)) {
            // The states are the first half of `out` until it takes the outputs.
            let words = out.as_flattened_mut();
            let states = &mut words[..digests.len()];
            for (state, digest) in states.iter_mut().zip(digests) {
                *state = halves(digest)[0];
            }
            self.cipher.encrypt_blocks(as_blocks(states));
            for (state, digest) in states.iter_mut().zip(digests) {
                *state ^= halves(digest)[1];
            }
            self.cipher.encrypt_blocks(as_blocks(states));
            for i in (0..digests.len()).rev() {
                let state = words[i];
                words[2 * i] = state ^ 1u128.to_le();
                words[2 * i + 1] = state ^ 2u128.to_le();
            }
            self.cipher.encrypt_blocks(as_blocks(words));
        }
    }
}

impl core::fmt::Debug for Prf {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Prf(<redacted>)")
    }
}

fn as_blocks(words: &mut [u128]) -> &mut [Block] {
    Block::cast_slice_from_core_mut(bytemuck::cast_slice_mut::<u128, [u8; 16]>(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_random_access() {
        let prf = Prf::new(&SetKey::new([1; 32]), "a");
        let mut whole = [0; 100];
        prf.fill(5, &mut whole);
        let mut part = [0; 10];
        prf.fill(55, &mut part);
        assert_eq!(whole[50..60], part);
    }

    #[test]
    fn labels_and_keys_separate() {
        let word = |key: u8, label: &str| {
            let mut out = [0];
            Prf::new(&SetKey::new([key; 32]), label).fill(0, &mut out);
            out[0]
        };
        assert_ne!(word(1, "a"), word(1, "b"));
        assert_ne!(word(1, "a"), word(2, "a"));
        assert_eq!(word(1, "a"), word(1, "a"));
    }

    #[test]
    fn both_halves_of_a_digest_count() {
        let prf = Prf::new(&SetKey::new([1; 32]), "a");
        let mut digest = [0; 32];
        let of = |digest: [u8; 32]| {
            let mut out = [[0; 2]];
            prf.of_digests(&[digest], &mut out);
            out[0]
        };
        let base = of(digest);
        assert_ne!(base[0], base[1]);
        for at in [0, 31] {
            digest[at] ^= 1;
            assert_ne!(of(digest), base);
            digest[at] ^= 1;
        }
    }

    #[test]
    fn digests_do_not_influence_each_other() {
        let prf = Prf::new(&SetKey::new([1; 32]), "a");
        let digests: Vec<[u8; 32]> = (0..150).map(|i| [i; 32]).collect();
        let mut together = vec![[0; 2]; digests.len()];
        prf.of_digests(&digests, &mut together);
        for (digest, expected) in digests.iter().zip(together) {
            let mut alone = [[0; 2]];
            prf.of_digests(&[*digest], &mut alone);
            assert_eq!(alone[0], expected);
        }
    }

    #[test]
    fn printing_redacts() {
        let key = SetKey::new([0xab; 32]);
        assert!(!format!("{key:?} {:?}", Prf::new(&key, "x")).contains("ab"));
    }
}
