//! How the two share streams are cut into chunks.
//!
//! - The *bits* stream has one element of GR(2^128, d) per key bit, keys in the order of
//!   [`KeyName::ALL`].
//! - The *bodies* stream has the sections of the [`Layout`] in order. d rows of a section are packed
//!   into one *group*: element i of the group holds word i of the group's row c as the coefficient of
//!   X^c. The last group of a section may lack rows; their coefficients open to noise and are
//!   ignored. A chunk is a number of whole groups of one section.
//!
//! Elements are written as their d coefficients, little-endian words of the section's width.

use veil_committee::ring::extension_degree;
use veil_protocol_spec::{Committee, ceremony::Stream};

#[allow(unused_imports, reason = "named in the docs")]
use crate::keyset::KeyName;
use crate::keyset::{Layout, ParameterSet};

/// Target size of a chunk in bytes.
const CHUNK_BYTES: usize = 1 << 20;
/// The same for insecure test parameters, so that small key sets have several chunks too.
const TEST_CHUNK_BYTES: usize = 32 << 10;

/// One chunk of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Section of the layout; meaningless for the bits stream.
    pub section: usize,
    /// First group (bodies) or key bit (bits).
    pub start: usize,
    /// Number of groups or key bits.
    pub count: usize,
    /// Ring elements in it.
    pub elements: usize,
    /// Length in bytes.
    pub bytes: usize,
}

/// The chunks of both streams; everybody derives the same from public parameters.
#[derive(Clone, Debug)]
pub struct ChunkPlan {
    bits: Vec<Chunk>,
    bodies: Vec<Chunk>,
}

impl ChunkPlan {
    /// The plan for a committee and a parameter set.
    #[must_use]
    pub fn new(committee: Committee, params: &ParameterSet, layout: &Layout) -> Self {
        let degree = extension_degree(committee);
        let target = if params.is_insecure() { TEST_CHUNK_BYTES } else { CHUNK_BYTES };
        let cut = |section: usize, total: usize, elements: usize, element_bytes: usize| {
            let per_chunk = (target / (elements * element_bytes)).max(1);
            (0..total).step_by(per_chunk).map(move |start| {
                let count = per_chunk.min(total - start);
                let elements = count * elements;
                Chunk { section, start, count, elements, bytes: elements * element_bytes }
            })
        };
        let bits = cut(0, layout.total_key_bits(), 1, degree * 16).collect();
        let bodies = layout
            .sections
            .iter()
            .enumerate()
            .flat_map(|(i, section)| {
                let groups = section.rows.div_ceil(degree);
                cut(i, groups, section.row_len, degree * section.width.bytes())
            })
            .collect();
        Self { bits, bodies }
    }

    /// The chunks of a stream.
    #[must_use]
    pub fn of(&self, stream: Stream) -> &[Chunk] {
        match stream {
            Stream::Bits => &self.bits,
            Stream::Bodies => &self.bodies,
        }
    }

    /// Bytes of a member's stream.
    #[must_use]
    pub fn stream_bytes(&self, stream: Stream) -> u64 {
        self.of(stream).iter().map(|chunk| chunk.bytes as u64).sum()
    }
}
