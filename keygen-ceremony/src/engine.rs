//! The arithmetic of a ceremony behind an interface that does not show the extension degree.

use veil_committee::{code::Opening, ring::Element, with_degree};
use veil_protocol_spec::{Committee, ParticipantIndex};
use zeroize::Zeroizing;

use crate::{
    chunks::Chunk,
    contributions::SplitKeys,
    keyset::{KeyName, Layout, ParameterSet, Section, SectionBody},
    shares::{BitShares, BodyOpening, BodyShares, KeyBits, open_bits},
};

/// One member's share arithmetic, from drawing key bits to its share of Q.
pub(crate) trait Engine: Send {
    /// The bytes of a chunk of the bits stream.
    fn bits_chunk(&self, chunk: &Chunk) -> Vec<u8>;
    /// Opens the next chunk of the bits stream.
    fn open_bits(&mut self, chunk: &Chunk, shares: &[&[u8]]) -> Result<(), usize>;
    /// Turns the opened values into shares of the key bits and prepares the bodies.
    fn derive_keys(&mut self, keys: &SplitKeys, public_seed: &[u8; 32]) -> Result<(), usize>;
    /// The bytes of a chunk of the bodies stream.
    fn bodies_chunk(&self, chunk: &Chunk) -> Vec<u8>;
    /// Erases what only the bodies stream needed.
    fn finish_bodies(&mut self);
    /// Opens a chunk of the bodies stream.
    fn open_bodies(
        &self,
        section: &Section,
        chunk: &Chunk,
        shares: &[&[u8]],
        body: &mut SectionBody,
    ) -> Result<(), usize>;
    /// This member's share of Q: d words per bit. Shares of s, S and p are erased.
    fn take_squash_share(&mut self) -> Zeroizing<Vec<u128>>;
}

/// The engine of a member with the given keys.
pub(crate) fn engine(
    committee: Committee,
    me: ParticipantIndex,
    params: &ParameterSet,
    layout: &Layout,
    keys: &SplitKeys,
) -> Box<dyn Engine> {
    with_degree!(committee, D => Box::new(Typed::<D> {
        committee,
        me,
        params: params.clone(),
        layout: layout.clone(),
        drawn: Some(BitShares::draw(committee, me, &keys.dkg, layout.total_key_bits())),
        opened: Vec::new(),
        bits: None,
        bodies: None,
        bits_opening: Opening::new(committee, 2 * committee.max_faulty().get()),
        bodies_opening: BodyOpening::new(committee),
    }))
}

struct Typed<const D: usize> {
    committee: Committee,
    me: ParticipantIndex,
    params: ParameterSet,
    layout: Layout,
    drawn: Option<BitShares<D>>,
    opened: Vec<Element<u128, D>>,
    bits: Option<KeyBits<D>>,
    bodies: Option<BodyShares<D>>,
    bits_opening: Opening<u128, D>,
    bodies_opening: BodyOpening<D>,
}

impl<const D: usize> Engine for Typed<D> {
    fn bits_chunk(&self, chunk: &Chunk) -> Vec<u8> {
        self.drawn.as_ref().map(|drawn| drawn.chunk(chunk)).unwrap_or_default()
    }

    fn open_bits(&mut self, chunk: &Chunk, shares: &[&[u8]]) -> Result<(), usize> {
        open_bits(&self.bits_opening, chunk, shares, &mut self.opened)
    }

    fn derive_keys(&mut self, keys: &SplitKeys, public_seed: &[u8; 32]) -> Result<(), usize> {
        let drawn = self.drawn.take().ok_or(0usize)?;
        let bits = KeyBits::new(&self.layout, drawn.into_bits(&self.opened)?);
        self.opened = Vec::new();
        self.bodies = Some(BodyShares::new(
            self.committee,
            self.me,
            &self.params,
            &self.layout,
            &bits,
            (&keys.dkg, &keys.noise),
            public_seed,
        ));
        self.bits = Some(bits);
        Ok(())
    }

    fn bodies_chunk(&self, chunk: &Chunk) -> Vec<u8> {
        self.bodies.as_ref().map(|bodies| bodies.chunk(chunk)).unwrap_or_default()
    }

    fn finish_bodies(&mut self) {
        self.bodies = None;
    }

    fn open_bodies(
        &self,
        section: &Section,
        chunk: &Chunk,
        shares: &[&[u8]],
        body: &mut SectionBody,
    ) -> Result<(), usize> {
        self.bodies_opening.open(section, chunk, shares, body)
    }

    fn take_squash_share(&mut self) -> Zeroizing<Vec<u128>> {
        let bits = self.bits.take();
        let share = bits.as_ref().map(|bits| bits.of(KeyName::Squash)).unwrap_or_default();
        Zeroizing::new(share.iter().flat_map(|element| element.0).collect())
    }
}
