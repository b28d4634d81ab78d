//! Ring elements as the bytes of a chunk: see [`chunks`](crate::chunks).

use veil_committee::ring::{Element, Word};

pub(super) fn to_bytes<W: Word, const D: usize>(elements: &[Element<W, D>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(elements.len() * D * W::BYTES);
    for element in elements {
        for word in element.0 {
            bytes.extend_from_slice(&word.widen().to_le_bytes()[..W::BYTES]);
        }
    }
    bytes
}

#[inline(always)]
pub(super) fn read_element<W: Word, const D: usize>(bytes: &[u8], at: usize) -> Element<W, D> {
    let bytes = &bytes[at * D * W::BYTES..][..D * W::BYTES];
    let mut out = Element::ZERO();
    for (word, bytes) in out.0.iter_mut().zip(bytes.chunks_exact(W::BYTES)) {
        *word = W::from_le_slice(bytes);
    }
    out
}
