//! The masks of all public material: one AES-CTR stream from the public seed.
//!
//! The stream is that of tfhe's generator for `XofSeed::new(seed, *b"TFHE_GEN")`, first byte (the
//! XOF of eprint 2025/699): with c_0 = 0 and c_i = AES_0(c_{i-1} xor m_i) over the blocks m of
//! `separator || seed`, zero-padded, and its bit length, the last c is the AES-128 key and the one
//! before it the initial counter. Words are little-endian, without padding between sections.
//!
//! tfhe's generator hands out one byte at a time; this one writes batches of eight blocks with the
//! same AES implementation (`tfhe-csprng`'s), and starts anywhere, so that rows can be expanded
//! out of order and in parallel.

use tfhe_csprng::{
    generators::{
        aes_ctr::{Aes128Key, AesBlockCipher as _, BYTES_PER_AES_CALL, BYTES_PER_BATCH},
        default::DefaultAes128BlockCipher,
    },
    seeders::XofSeed,
};

use veil_committee::ring::Word;

/// Domain separator of the public seed (eprint 2025/699; tfhe's `CompressedXofKeySet::generate`).
pub const PUBLIC_SEPARATOR: [u8; XofSeed::DOMAIN_SEP_LEN] = *b"TFHE_GEN";

/// The public seed as tfhe stores it in the key set.
#[must_use]
pub fn public_xof_seed(seed: &[u8; 32]) -> XofSeed {
    XofSeed::new(seed.to_vec(), PUBLIC_SEPARATOR)
}

/// The mask stream of a public seed, at some byte. Cloning and seeking are cheap: no key schedule
/// is computed again.
///
/// ```
/// use veil_keygen_ceremony::keyset::MaskStream;
///
/// let mut words = [0u64; 4];
/// MaskStream::new(&[7; 32]).fill_u64(&mut words);
/// let mut last = [0u64; 1];
/// MaskStream::at(&[7; 32], 24).fill_u64(&mut last);
/// assert_eq!(last[0], words[3]);
/// ```
#[derive(Clone)]
pub struct MaskStream {
    cipher: DefaultAes128BlockCipher,
    /// Counter of the block that contains byte 0 of the stream.
    start: u128,
    /// Counter of the next batch.
    next: u128,
    batch: [u8; BYTES_PER_BATCH],
    /// Bytes of `batch` already handed out.
    used: usize,
}

impl MaskStream {
    /// The stream from its first byte.
    #[must_use]
    pub fn new(public_seed: &[u8; 32]) -> Self {
        let seed = public_xof_seed(public_seed);
        let mut zero_key = DefaultAes128BlockCipher::new(Aes128Key::new(0));
        let length = u128::to_le_bytes(seed.bit_len());
        let (mut previous, mut chain) = ([0; BYTES_PER_AES_CALL], [0; BYTES_PER_AES_CALL]);
        for block in seed.bytes().chunks(BYTES_PER_AES_CALL).chain([&length[..]]) {
            previous = chain;
            for (byte, input) in chain.iter_mut().zip(block) {
                *byte ^= input;
            }
            chain = zero_key.generate_next(u128::from_ne_bytes(chain));
        }
        let start = u128::from_le_bytes(previous);
        Self {
            cipher: DefaultAes128BlockCipher::new(Aes128Key::new(u128::from_ne_bytes(chain))),
            start,
            next: start,
            batch: [0; BYTES_PER_BATCH],
            used: BYTES_PER_BATCH,
        }
    }

    /// The stream from byte `offset`, such as [`super::Section::mask_offset`].
    #[must_use]
    pub fn at(public_seed: &[u8; 32], offset: u64) -> Self {
        let mut stream = Self::new(public_seed);
        stream.seek(offset);
        stream
    }

    /// Moves to byte `offset` of the stream.
    pub fn seek(&mut self, offset: u64) {
        let block = BYTES_PER_AES_CALL as u64;
        self.next = self.start.wrapping_add(u128::from(offset / block));
        self.used = BYTES_PER_BATCH;
        let inside = (offset % block) as usize;
        if inside != 0 {
            self.refill();
            self.used = inside;
        }
    }

    /// Byte of the stream that comes next.
    #[must_use]
    pub fn position(&self) -> u64 {
        let blocks = self.next.wrapping_sub(self.start) as u64;
        blocks * BYTES_PER_AES_CALL as u64 - (BYTES_PER_BATCH - self.used) as u64
    }

    /// Leaves out `count` bytes.
    pub fn skip_bytes(&mut self, count: u64) {
        self.seek(self.position() + count);
    }

    /// The next words of the stream.
    pub fn fill_u64(&mut self, out: &mut [u64]) {
        self.fill(out);
    }

    /// The next words of the stream.
    pub fn fill_u128(&mut self, out: &mut [u128]) {
        self.fill(out);
    }

    /// The next words of the stream.
    pub fn fill<W: Word>(&mut self, mut out: &mut [W]) {
        let per_batch = BYTES_PER_BATCH / W::BYTES;
        while !out.is_empty() {
            if self.used == BYTES_PER_BATCH && out.len() >= per_batch {
                let (now, later) = out.split_at_mut(per_batch);
                let batch = self.next_batch();
                for (word, bytes) in now.iter_mut().zip(batch.chunks_exact(W::BYTES)) {
                    *word = W::from_le_slice(bytes);
                }
                out = later;
            } else {
                out[0] = self.next_word();
                out = &mut out[1..];
            }
        }
    }

    /// One word, which may begin in one batch and end in the next.
    fn next_word<W: Word>(&mut self) -> W {
        let mut bytes = [0; 16];
        for byte in &mut bytes[..W::BYTES] {
            if self.used == BYTES_PER_BATCH {
                self.refill();
            }
            *byte = self.batch[self.used];
            self.used += 1;
        }
        W::from_le_slice(&bytes[..W::BYTES])
    }

    fn refill(&mut self) {
        self.batch = self.next_batch();
        self.used = 0;
    }

    fn next_batch(&mut self) -> [u8; BYTES_PER_BATCH] {
        let first = self.next;
        let blocks = BYTES_PER_BATCH / BYTES_PER_AES_CALL;
        self.next = first.wrapping_add(blocks as u128);
        self.cipher.generate_batch(core::array::from_fn(|i| first.wrapping_add(i as u128).to_le()))
    }
}

#[cfg(test)]
mod tests {
    use tfhe::core_crypto::{
        commons::math::random::RandomGenerator, prelude::DefaultRandomGenerator,
    };

    use super::*;

    fn reference(seed: &[u8; 32]) -> RandomGenerator<DefaultRandomGenerator> {
        RandomGenerator::new(public_xof_seed(seed))
    }

    #[test]
    fn words_are_those_of_the_generator_of_tfhe() {
        for seed in [[0; 32], [0xff; 32], core::array::from_fn(|i| i as u8)] {
            let (mut ours, mut theirs) = (vec![0u64; 3001], vec![0u64; 3001]);
            MaskStream::new(&seed).fill_u64(&mut ours);
            reference(&seed).fill_slice_with_random_uniform(&mut theirs);
            assert_eq!(ours, theirs);

            let (mut ours, mut theirs) = (vec![0u128; 1001], vec![0u128; 1001]);
            MaskStream::new(&seed).fill_u128(&mut ours);
            reference(&seed).fill_slice_with_random_uniform(&mut theirs);
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn every_position_gives_the_same_stream() {
        let seed = [9; 32];
        let mut bytes = vec![0u8; 2000];
        reference(&seed).fill_slice_with_random_uniform(&mut bytes);
        for offset in 0..600 {
            let mut stream = MaskStream::at(&seed, offset as u64);
            let (mut single, mut double) = ([0u64; 30], [0u128; 30]);
            stream.fill_u64(&mut single);
            assert_eq!(stream.position(), offset as u64 + 240);
            stream.skip_bytes(3);
            stream.fill_u128(&mut double);
            assert_eq!(stream.position(), offset as u64 + 240 + 3 + 480);
            let single: Vec<u8> = single.iter().flat_map(|w| w.to_le_bytes()).collect();
            let double: Vec<u8> = double.iter().flat_map(|w| w.to_le_bytes()).collect();
            assert_eq!(single, bytes[offset..offset + 240]);
            assert_eq!(double, bytes[offset + 243..offset + 723]);
        }
    }

    /// Prints the throughput: `cargo test --release -- --ignored --nocapture mask_throughput`.
    #[test]
    #[ignore = "a measurement"]
    #[allow(clippy::disallowed_methods, reason = "a measurement")]
    fn mask_throughput() {
        let mut words = vec![0u128; 1 << 24];
        let megabytes = (words.len() * 16) as f64 / 1e6;
        for _ in 0..2 {
            let start = std::time::Instant::now();
            MaskStream::new(&[1; 32]).fill_u128(&mut words);
            println!("ours: {:.0} MB/s", megabytes / start.elapsed().as_secs_f64());
            let start = std::time::Instant::now();
            reference(&[1; 32]).fill_slice_with_random_uniform(&mut words);
            println!("tfhe: {:.0} MB/s", megabytes / start.elapsed().as_secs_f64());
        }
    }
}
