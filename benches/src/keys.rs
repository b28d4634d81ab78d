//! A key set made by one party, with its secret side: what figures are measured on and checked with.

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use tfhe::{
    CompactCiphertextList, CompactPublicKey, FheUint2, ServerKey,
    core_crypto::prelude::{
        ContiguousEntityContainer as _, LweCiphertext, LweCiphertextList, LweCiphertextOwned,
        LweKeyswitchKeyOwned, expand_lwe_compact_ciphertext_list, keyswitch_lwe_ciphertext,
    },
    integer::{
        ciphertext::IntegerCiphertext as _,
        key_switching_key::KeySwitchingKeyMaterial as IntegerMaterial,
    },
    prelude::CiphertextList as _,
    shortint::{
        self, Ciphertext, atomic_pattern::AtomicPatternServerKey,
        key_switching_key::KeySwitchingKeyMaterial as BlockMaterial,
    },
    with_server_key_as_context,
};
use veil_keygen_ceremony::keyset::{
    AssembleError, Bodies, Component, KeyName, Layout, ParameterSet, SectionBody, assemble,
    reference::{self, ClearKeys},
};

/// Whose noise a key set carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoiseOf {
    /// One group, as a committee of one draws it.
    OneGroup,
    /// The sum of two groups, as a committee of four draws it.
    TwoGroups,
}

impl NoiseOf {
    /// By how much the variance exceeds that of one group.
    #[must_use]
    pub const fn groups(self) -> u32 {
        match self {
            Self::OneGroup => 1,
            Self::TwoGroups => 2,
        }
    }
}

/// A key set and the secret keys behind it. No committee is involved and nothing is protected.
pub struct Keys {
    /// The parameters that the keys are made for.
    pub parameters: ParameterSet,
    /// The secret keys.
    pub clear: ClearKeys,
    /// The key that telemetry is encrypted with.
    pub public_key: CompactPublicKey,
    /// The key that circuits are evaluated with.
    pub server_key: ServerKey,
    noise: NoiseOf,
}

impl Keys {
    /// The key set of a seed. At production size it takes about ten seconds on two cores and 1.5 GB,
    /// three times as long for two groups.
    ///
    /// # Errors
    /// [`AssembleError`] if the parameters and the bodies made for them do not fit, a mistake of the
    /// key generation crate.
    pub fn generate(
        parameters: ParameterSet,
        seed: u64,
        noise: NoiseOf,
    ) -> Result<Self, AssembleError> {
        let layout = Layout::of(&parameters);
        let public_seed = [seed as u8; 32];
        let clear = ClearKeys::random(&layout, &mut ChaCha20Rng::seed_from_u64(seed));
        let group =
            |number| reference::bodies(&parameters, &layout, &public_seed, &clear, &[number; 32]);
        let mut bodies = group(1);
        if noise == NoiseOf::TwoGroups {
            let exact = reference::noiseless_bodies(&layout, &public_seed, &clear);
            add_noise(&mut bodies, group(2), &exact);
        }
        let (public_key, server_key) =
            assemble(&parameters, public_seed, bodies)?.decompress().into_raw_parts();
        Ok(Self { parameters, clear, public_key, server_key, noise })
    }

    /// The 4 bits that a block holds, padding and noise apart.
    #[must_use]
    pub fn decrypt_block(&self, block: &Ciphertext) -> u64 {
        const STEP: u32 = 59;
        let phase = phase(&block.ct, self.clear.bits(KeyName::Glwe));
        (phase.wrapping_add(1 << (STEP - 1)) >> STEP) & 0xf
    }

    /// An integer given by its blocks of 2 bits, the least significant first.
    #[must_use]
    pub fn decrypt_integer(&self, blocks: &[Ciphertext]) -> u64 {
        blocks.iter().rev().fold(0, |sum, block| sum << 2 | (self.decrypt_block(block) & 3))
    }

    /// Blocks that hold 1, encrypted with the public key and expanded.
    ///
    /// # Errors
    /// tfhe's error.
    pub fn fresh_blocks(&self, count: usize) -> Result<Vec<Ciphertext>, tfhe::Error> {
        let mut builder = CompactCiphertextList::builder(&self.public_key);
        for _ in 0..count {
            builder.push_with_num_bits(1u8, 2)?;
        }
        let list = with_server_key_as_context(self.server_key.clone(), || {
            builder.build_packed().expand()
        })?;
        (0..count)
            .map(|index| {
                let value: Option<FheUint2> = list.get(index)?;
                let value = value
                    .ok_or_else(|| tfhe::Error::from(format!("the list has no value {index}")))?;
                let (radix, ..) = value.into_raw_parts();
                Ok(radix.blocks()[0].clone())
            })
            .collect()
    }

    /// sigma^2 that a component of this key set carries, in units of its words.
    #[must_use]
    pub fn key_variance(&self, component: Component) -> f64 {
        let bound = self.parameters.group_bound(component, 1) as f64;
        f64::from(self.noise.groups()) * bound * (bound + 1.0) / 3.0
    }

    /// Gives `f` the server key of blocks, and the switch from the public key to it. The only copy of
    /// the server key is taken apart and put together again: taking a clone apart would copy all of
    /// it.
    #[must_use]
    pub fn with_parts<T>(
        self,
        f: impl FnOnce(&shortint::ServerKey, Option<&LweKeyswitchKeyOwned<u64>>) -> T,
    ) -> (Self, T) {
        let (integer, pke, compress, decompress, squash, squash_compress, random, oprf, other, tag) =
            self.server_key.into_raw_parts();
        let pke = pke.map(|pke| pke.into_raw_parts().into_raw_parts());
        let result = f(integer.as_ref(), pke.as_ref().map(|(key, ..)| key));
        let pke = pke.map(|(key, shift, choice, pattern)| {
            let blocks = BlockMaterial::from_raw_parts(key, shift, choice, pattern);
            IntegerMaterial::from_raw_parts(blocks)
        });
        let server_key = ServerKey::from_raw_parts(
            integer,
            pke,
            compress,
            decompress,
            squash,
            squash_compress,
            random,
            oprf,
            other,
            tag,
        );
        (Self { server_key, ..self }, result)
    }

    /// What the first look-ups of compact lists get: at least `count` encryptions of 4 bits with the
    /// public key, switched to the big key with `switch`, the second part of [`Self::with_parts`].
    /// Noise within a list depends on one mask of its encryptor and on the place in the list: 64
    /// places all over a list are taken, of as many lists as it takes. Their seeds are fixed.
    ///
    /// # Errors
    /// tfhe's error.
    pub fn list_inputs(
        public_key: &CompactPublicKey,
        switch: &LweKeyswitchKeyOwned<u64>,
        count: usize,
    ) -> Result<Vec<LweCiphertextOwned<u64>>, tfhe::Error> {
        let (public_key, _) = public_key.clone().into_raw_parts();
        let public_key = public_key.into_raw_parts();
        let length = public_key.parameters().encryption_lwe_dimension.0;
        let places = length.min(64);
        let mut inputs = Vec::new();
        for seed in 0..count.div_ceil(places) as u128 {
            let messages = (0..length as u64).map(|x| x % 16);
            let list =
                public_key.encrypt_iter_with_modulus_seeded(messages, 16, &seed.to_le_bytes())?;
            let list = list.ct_list;
            let modulus = list.ciphertext_modulus();
            let mut expanded =
                LweCiphertextList::new(0, list.lwe_size(), list.lwe_ciphertext_count(), modulus);
            expand_lwe_compact_ciphertext_list(&mut expanded, &list);
            inputs.extend(expanded.iter().step_by(length / places).map(|input| {
                let mut output = LweCiphertext::new(0, switch.output_lwe_size(), modulus);
                keyswitch_lwe_ciphertext(switch, &input, &mut output);
                output
            }));
        }
        Ok(inputs)
    }
}

/// The key switch that every look-up begins with; `None` if the key is not of the kind that Veil's
/// parameters make.
#[must_use]
pub const fn key_switch(key: &shortint::ServerKey) -> Option<&LweKeyswitchKeyOwned<u64>> {
    match &key.atomic_pattern {
        AtomicPatternServerKey::Standard(standard) => Some(&standard.key_switching_key),
        _ => None,
    }
}

/// bodies + (group - exact), word by word.
fn add_noise(bodies: &mut Bodies, group: Bodies, exact: &Bodies) {
    for ((sum, group), exact) in bodies.sections.iter_mut().zip(group.sections).zip(&exact.sections)
    {
        match (sum, group, exact) {
            (SectionBody::W64(sum), SectionBody::W64(group), SectionBody::W64(exact)) => {
                for ((sum, group), exact) in sum.iter_mut().zip(group).zip(exact) {
                    *sum = sum.wrapping_add(group).wrapping_sub(*exact);
                }
            }
            (SectionBody::W128(sum), SectionBody::W128(group), SectionBody::W128(exact)) => {
                for ((sum, group), exact) in sum.iter_mut().zip(group).zip(exact) {
                    *sum = sum.wrapping_add(group).wrapping_sub(*exact);
                }
            }
            _ => unreachable!("all three were made for one layout"),
        }
    }
}

/// b - <a, key>, for key bits that are 0 or 1.
pub(crate) fn phase(ciphertext: &LweCiphertextOwned<u64>, key: &[u8]) -> u64 {
    let (mask, body) = ciphertext.get_mask_and_body();
    let product = mask.as_ref().iter().zip(key).filter(|(_, bit)| **bit == 1);
    product.fold(*body.data, |rest, (word, _)| rest.wrapping_sub(*word))
}
