//! The arithmetic of a ceremony as three steps by value, behind traits that do not show the extension
//! degree: a step that is over cannot be asked for anything.
//!
//! 1. [`BitStream`] computes and opens the bits stream;
//! 2. [`BodyStream`] computes the bodies stream;
//! 3. [`BodyOpener`] opens it, and gives this member's share of Q.
//!
//! # Security
//! Each step holds this member's shares of the key, and erases them when it is dropped.

use std::sync::Arc;

use veil_committee::{code::Opening, ring::Element, with_degree};
use zeroize::Zeroizing;

use crate::{
    chunks::Chunk,
    keyset::{KeyName, Section, SectionBody},
    setup::Setup,
    shares::{
        bits::{BitShares, DeriveError, KeyBits},
        bodies::BodyShares,
        keys::StreamKeys,
        opening::{BodyOpening, InconsistentShares, open_bits},
    },
};

/// Why a chunk of the bits stream does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenBitsError {
    /// At least one member's share is wrong.
    #[error(transparent)]
    Inconsistent(#[from] InconsistentShares),
    /// Its values would land in the place of others.
    #[error(
        "the chunk begins at key bit {given}, but bit {expected} is next: open chunks in order"
    )]
    OutOfOrder {
        /// Key bits opened so far.
        expected: usize,
        /// First key bit of the chunk.
        given: usize,
    },
}

/// Steps 6 and 7: shares of v = r^2 + r for every key bit.
pub(crate) trait BitStream: Send {
    /// The bytes of a chunk of this member's stream.
    fn chunk(&self, chunk: &Chunk) -> Vec<u8>;

    /// Opens the next chunk of all members' streams.
    ///
    /// # Errors
    /// [`OpenBitsError`]; nothing can be derived then.
    fn open(&mut self, chunk: &Chunk, shares: &[&[u8]]) -> Result<(), OpenBitsError>;

    /// Turns the opened values into shares of the key bits, and prepares the bodies.
    ///
    /// # Errors
    /// [`DeriveError`] unless every chunk is open and every value has a root.
    fn derive_keys(
        self: Box<Self>,
        keys: &StreamKeys,
        public_seed: &[u8; 32],
    ) -> Result<Box<dyn BodyStream>, DeriveError>;
}

/// Step 8: shares of the public material.
pub(crate) trait BodyStream: Send {
    /// The bytes of a chunk of this member's stream.
    fn chunk(&self, chunk: &Chunk) -> Vec<u8>;

    /// Erases what only the stream needed.
    fn finish(self: Box<Self>) -> Box<dyn BodyOpener>;
}

/// Steps 9 and 10: the public material, and what remains of the secret one.
pub(crate) trait BodyOpener: Send {
    /// Opens a chunk of all members' streams into a section's body words.
    ///
    /// # Errors
    /// [`InconsistentShares`].
    fn open(
        &self,
        section: &Section,
        chunk: &Chunk,
        shares: &[&[u8]],
        body: &mut SectionBody,
    ) -> Result<(), InconsistentShares>;

    /// This member's share of Q: d words per bit. The shares of s, S and p are erased.
    fn into_squash_share(self: Box<Self>) -> Zeroizing<Vec<u128>>;
}

/// Draws this member's shares of one uniform element per key bit.
pub(crate) fn draw_bits(setup: &Arc<Setup>, keys: &StreamKeys) -> Box<dyn BitStream> {
    let committee = setup.committee();
    with_degree!(committee, D => Box::new(Bits::<D> {
        setup: Arc::clone(setup),
        drawn: BitShares::draw(committee, setup.me, keys, setup.layout.total_key_bits()),
        opening: Opening::new(committee, 2 * committee.max_faulty().get()),
        opened: Vec::new(),
    }))
}

struct Bits<const D: usize> {
    setup: Arc<Setup>,
    drawn: BitShares<D>,
    opening: Opening<u128, D>,
    opened: Vec<Element<u128, D>>,
}

impl<const D: usize> BitStream for Bits<D> {
    fn chunk(&self, chunk: &Chunk) -> Vec<u8> {
        self.drawn.chunk(chunk)
    }

    fn open(&mut self, chunk: &Chunk, shares: &[&[u8]]) -> Result<(), OpenBitsError> {
        let (expected, given) = (self.opened.len(), chunk.start);
        if given != expected {
            return Err(OpenBitsError::OutOfOrder { expected, given });
        }
        Ok(open_bits(&self.opening, chunk, shares, &mut self.opened)?)
    }

    fn derive_keys(
        self: Box<Self>,
        keys: &StreamKeys,
        public_seed: &[u8; 32],
    ) -> Result<Box<dyn BodyStream>, DeriveError> {
        let Self { setup, drawn, opened, .. } = *self;
        let bits = KeyBits::new(&setup.layout, drawn.into_bits(&opened)?);
        let (committee, me) = (setup.committee(), setup.me);
        let shares =
            BodyShares::new(committee, me, &setup.params, &setup.layout, &bits, keys, public_seed);
        Ok(Box::new(Bodies {
            shares,
            opener: Opener { bits, opening: BodyOpening::new(committee) },
        }))
    }
}

struct Bodies<const D: usize> {
    shares: BodyShares<D>,
    opener: Opener<D>,
}

impl<const D: usize> BodyStream for Bodies<D> {
    fn chunk(&self, chunk: &Chunk) -> Vec<u8> {
        self.shares.chunk(chunk)
    }

    fn finish(self: Box<Self>) -> Box<dyn BodyOpener> {
        Box::new(self.opener)
    }
}

struct Opener<const D: usize> {
    bits: KeyBits<D>,
    opening: BodyOpening<D>,
}

impl<const D: usize> BodyOpener for Opener<D> {
    fn open(
        &self,
        section: &Section,
        chunk: &Chunk,
        shares: &[&[u8]],
        body: &mut SectionBody,
    ) -> Result<(), InconsistentShares> {
        self.opening.open(section, chunk, shares, body)
    }

    fn into_squash_share(self: Box<Self>) -> Zeroizing<Vec<u128>> {
        let share = self.bits.of(KeyName::Squash);
        // At once in its full length: growing would leave copies behind.
        let mut words = Zeroizing::new(Vec::with_capacity(share.len() * D));
        share.iter().for_each(|element| words.extend_from_slice(&element.0));
        words
    }
}

#[cfg(test)]
mod tests {
    use veil_committee::{prf::SetKey, subsets::NoiseGroups};
    use veil_protocol_spec::{
        Attempt, Committee, Epoch,
        ceremony::{CeremonyParameters, Stream},
        identity::SecretIdentity,
    };

    use super::*;
    use crate::{keyset::ParameterSet, setup::Timing};

    /// A committee of one opens its stream alone.
    fn alone() -> (Arc<Setup>, StreamKeys) {
        let (committee, params) = (Committee::ALL[0], ParameterSet::insecure_test());
        let identity = SecretIdentity::from_bytes(&[1; 32]).unwrap();
        let parameters = CeremonyParameters {
            committee,
            parameters: params.name().to_owned(),
            parameters_digest: params.digest(),
            roster: vec![identity.public()],
            epoch: Epoch(0),
            context: [0; 32],
        };
        let timing = Timing { round: 1, retry: 1 };
        let setup = Setup::new(parameters, params, Attempt(0), &identity, timing).unwrap();
        let set = NoiseGroups::of(committee).groups()[0];
        let keys = |byte| vec![(set, SetKey::new([byte; 32]))];
        (Arc::new(setup), StreamKeys { dkg: keys(1), noise: keys(2), zero: Vec::new() })
    }

    #[test]
    fn bits_open_in_order_and_give_keys_only_when_all_are_open() {
        let (setup, keys) = alone();
        let chunks = setup.plan.of(Stream::Bits);
        assert!(!chunks.is_empty());
        for open in 0..=chunks.len() {
            let mut stream = draw_bits(&setup, &keys);
            for chunk in &chunks[..open] {
                stream.open(chunk, &[&stream.chunk(chunk)]).unwrap();
            }
            let opened: usize = chunks[..open].iter().map(|chunk| chunk.count).sum();
            for chunk in chunks.iter().filter(|chunk| chunk.start != opened) {
                let out_of_order =
                    OpenBitsError::OutOfOrder { expected: opened, given: chunk.start };
                let bytes = stream.chunk(chunk);
                assert_eq!(stream.open(chunk, &[&bytes]), Err(out_of_order));
            }
            let expected = setup.layout.total_key_bits();
            let missing =
                (opened < expected).then_some(DeriveError::NotOpened { opened, expected });
            assert_eq!(stream.derive_keys(&keys, &[3; 32]).err(), missing);
        }
    }
}
