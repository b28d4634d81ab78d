//! What all members' shares open to: steps 7 and 9.

use rayon::prelude::*;
use veil_committee::{
    code::{Inconsistent, Opening},
    ring::{Element, Word},
};
use veil_protocol_spec::{Committee, MAX_PARTICIPANTS};

use super::encoding::read_element;
use crate::{
    chunks::Chunk,
    keyset::{Section, SectionBody},
};

/// The members' shares of one element lie on no polynomial of degree 2t: at least one is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shares of element {element} of the chunk are inconsistent: start another attempt")]
pub struct InconsistentShares {
    /// Position of the element within its chunk, from zero.
    pub element: usize,
}

/// Opens chunks of the bodies stream into the words of the key set.
pub struct BodyOpening<const D: usize> {
    w64: Opening<u64, D>,
    w128: Opening<u128, D>,
}

impl<const D: usize> BodyOpening<D> {
    /// For the degree-2t sharings of a committee.
    #[must_use]
    pub fn new(committee: Committee) -> Self {
        let degree = 2 * committee.max_faulty().get();
        Self { w64: Opening::new(committee, degree), w128: Opening::new(committee, degree) }
    }

    /// Opens a chunk of all members' streams, in order, into a section's body words.
    ///
    /// # Errors
    /// [`InconsistentShares`] names one element of the chunk.
    pub fn open(
        &self,
        section: &Section,
        chunk: &Chunk,
        shares: &[&[u8]],
        body: &mut SectionBody,
    ) -> Result<(), InconsistentShares> {
        match body {
            SectionBody::W64(words) => open_into(&self.w64, section, chunk, shares, words),
            SectionBody::W128(words) => open_into(&self.w128, section, chunk, shares, words),
        }
    }
}

fn open_into<W: Word, const D: usize>(
    opening: &Opening<W, D>,
    section: &Section,
    chunk: &Chunk,
    shares: &[&[u8]],
    words: &mut [W],
) -> Result<(), InconsistentShares> {
    let row_len = section.row_len;
    let first_word = chunk.start * D * row_len;
    let last_word = ((chunk.start + chunk.count) * D).min(section.rows) * row_len;
    words[first_word..last_word].par_chunks_mut(D * row_len).enumerate().try_for_each(
        |(group, rows)| {
            for i in 0..row_len {
                let opened = open_element(opening, shares, group * row_len + i)?;
                rows.iter_mut().skip(i).step_by(row_len).zip(opened.0).for_each(|(w, o)| *w = o);
            }
            Ok(())
        },
    )
}

/// Opens one element of the members' chunks.
#[inline(always)]
fn open_element<W: Word, const D: usize>(
    opening: &Opening<W, D>,
    shares: &[&[u8]],
    element: usize,
) -> Result<Element<W, D>, InconsistentShares> {
    let mut elements = [Element::ZERO(); MAX_PARTICIPANTS];
    for (share, bytes) in elements.iter_mut().zip(shares) {
        *share = read_element(bytes, element);
    }
    let opened = opening.open(&elements[..shares.len()]);
    opened.map_err(|Inconsistent| InconsistentShares { element })
}

/// Opens a chunk of the bits stream, and appends v of each of its bits to `out`.
///
/// # Errors
/// [`InconsistentShares`] names the first such element of the chunk.
pub fn open_bits<const D: usize>(
    opening: &Opening<u128, D>,
    chunk: &Chunk,
    shares: &[&[u8]],
    out: &mut Vec<Element<u128, D>>,
) -> Result<(), InconsistentShares> {
    for element in 0..chunk.elements {
        out.push(open_element(opening, shares, element)?);
    }
    Ok(())
}
