//! Squashed ciphertexts as the words that the committee decrypts.
//!
//! Squashing packs two 2-bit blocks into one LWE ciphertext under Q, modulo 2^128: the phase
//! b - <a, Q> is m 2^123 + noise, where m = low + 4 high has 4 bits and the top bit is padding.

use tfhe::{
    SquashedNoiseFheBool, SquashedNoiseFheUint, shortint::ciphertext::SquashedNoiseCiphertext,
};
use veil_committee::decrypt::{LOG2_DELTA, SquashedBlock};

/// Message bits of one squashed block.
const BLOCK_BITS: u32 = 4;

fn block(ciphertext: &SquashedNoiseCiphertext) -> SquashedBlock {
    let (mask, body) = ciphertext.lwe_ciphertext().get_mask_and_body();
    SquashedBlock { mask: mask.as_ref().to_vec(), body: *body.data }
}

/// A value that tfhe has squashed.
pub trait SquashedNoise {
    /// Its blocks, least significant first.
    fn blocks(&self) -> Vec<SquashedBlock>;
}

impl SquashedNoise for SquashedNoiseFheUint {
    fn blocks(&self) -> Vec<SquashedBlock> {
        let ciphertext = self.underlying_squashed_noise_ciphertext();
        ciphertext.packed_blocks().iter().map(block).collect()
    }
}

impl SquashedNoise for SquashedNoiseFheBool {
    fn blocks(&self) -> Vec<SquashedBlock> {
        vec![block(self.underlying_squashed_noise_ciphertext().packed_blocks())]
    }
}

impl SquashedNoise for SquashedNoiseCiphertext {
    fn blocks(&self) -> Vec<SquashedBlock> {
        vec![block(self)]
    }
}

/// The blocks of a squashed value, least significant first: ceil(bits / 4) of an integer, one of
/// a bool or of a single block.
#[must_use]
pub fn squashed_blocks(value: &impl SquashedNoise) -> Vec<SquashedBlock> {
    value.blocks()
}

/// The phases are not those of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages name the fields")]
pub enum DecodeError {
    /// The padding bit of a block is set: the ciphertext overflowed, the key is another one, or a
    /// wrong phase was reconstructed.
    #[error("block {block} does not decode to 4 bits: wrong key, or the ciphertext overflowed")]
    Padding { block: usize },
    /// More blocks than fit 128 bits.
    #[error("{blocks} blocks do not fit an integer of 128 bits")]
    TooLong { blocks: usize },
}

/// The 4 bits nearest to a phase, or `None` if its padding bit is set.
#[must_use]
pub fn decode_block(phase: u128) -> Option<u8> {
    let rounded = phase.wrapping_add(1 << (LOG2_DELTA - 1)) >> LOG2_DELTA;
    (rounded >> BLOCK_BITS == 0).then_some(rounded as u8)
}

/// The integer of which `phases` are the phases of the blocks, least significant first. A bool
/// is 0 or 1.
///
/// # Errors
/// [`DecodeError`] if a padding bit is set, or for more than 32 blocks.
pub fn decode_blocks(phases: &[u128]) -> Result<u128, DecodeError> {
    if phases.len() > (u128::BITS / BLOCK_BITS) as usize {
        return Err(DecodeError::TooLong { blocks: phases.len() });
    }
    phases.iter().enumerate().try_fold(0, |value, (block, &phase)| {
        let bits = decode_block(phase).ok_or(DecodeError::Padding { block })?;
        Ok(value | u128::from(bits) << (BLOCK_BITS as usize * block))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_decode_to_the_nearest_message() {
        let half = 1u128 << (LOG2_DELTA - 1);
        for m in 0..16u128 {
            let phase = m << LOG2_DELTA;
            assert_eq!(decode_block(phase), Some(m as u8));
            assert_eq!(decode_block(phase + half - 1), Some(m as u8));
            assert_eq!(decode_block(phase.wrapping_sub(half)), Some(m as u8));
        }
        assert_eq!(decode_block(16 << LOG2_DELTA), None);
        assert_eq!(decode_block(0u128.wrapping_sub(half + 1)), None);
    }

    #[test]
    fn integers_are_little_endian_in_blocks() {
        let phase = |m: u128| m << LOG2_DELTA;
        assert_eq!(decode_blocks(&[phase(0xd), phase(0xc)]), Ok(0xcd));
        assert_eq!(decode_blocks(&[phase(0xf); 32]), Ok(u128::MAX));
        assert_eq!(decode_blocks(&[phase(1); 33]), Err(DecodeError::TooLong { blocks: 33 }));
        assert_eq!(decode_blocks(&[phase(1), phase(17)]), Err(DecodeError::Padding { block: 1 }));
    }
}
