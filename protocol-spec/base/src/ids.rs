//! Newtypes for indices, identifiers and digests.

use core::{fmt, num::NonZeroU8};

use serde::{Deserialize, Serialize};

/// Largest committee of any profile.
pub const MAX_PARTICIPANTS: usize = 13;

/// A committee member's 1-based share index, never zero: alpha_0 = 0 is where the secret lies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct ParticipantIndex(NonZeroU8);

/// A share index is outside 1..=13.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a participant index: they run from 1 to {MAX_PARTICIPANTS}")]
pub struct InvalidParticipantIndex(pub u8);

impl ParticipantIndex {
    /// # Errors
    /// [`InvalidParticipantIndex`] outside 1..=13.
    pub const fn new(index: u8) -> Result<Self, InvalidParticipantIndex> {
        match NonZeroU8::new(index) {
            Some(i) if index as usize <= MAX_PARTICIPANTS => Ok(Self(i)),
            _ => Err(InvalidParticipantIndex(index)),
        }
    }

    pub(crate) const fn from_one_based(index: u8) -> Self {
        match NonZeroU8::new(index) {
            Some(i) => Self(i),
            None => Self(NonZeroU8::MIN),
        }
    }

    /// The 1-based index.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0.get()
    }

    /// The 0-based position, for indexing.
    #[must_use]
    pub const fn position(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl TryFrom<u8> for ParticipantIndex {
    type Error = InvalidParticipantIndex;

    fn try_from(index: u8) -> Result<Self, Self::Error> {
        Self::new(index)
    }
}

impl From<ParticipantIndex> for u8 {
    fn from(index: ParticipantIndex) -> Self {
        index.get()
    }
}

/// As the number, so that lists of participants read well in errors and logs.
impl fmt::Debug for ParticipantIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ParticipantIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! number {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

number! {
    /// Retry number of a session; the first is 0.
    Attempt(u32);
    /// A committee's lifetime between resharings.
    Epoch(u64);
    /// One scheduling decision.
    Slot(u64);
    /// EIP-155 chain id.
    ChainId(u64);
    /// Which of a job's replicas, from 0.
    ReplicaIndex(u16);
}

macro_rules! bytes {
    ($($(#[$doc:meta])* $name:ident[$len:literal];)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(#[serde(with = "hex_or_bytes")] pub [u8; $len]);

        impl $name {
            /// The raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl core::str::FromStr for $name {
            type Err = InvalidHex;

            fn from_str(s: &str) -> Result<Self, InvalidHex> {
                let mut out = [0; $len];
                read_hex(s, &mut out)?;
                Ok(Self(out))
            }
        }
    )*};
}

bytes! {
    /// One run of the key ceremony, attempts included: the BLAKE3 digest of its parameters and roster.
    CeremonyId[32];
    /// BLAKE3 digest of a key set's canonical form (`tfhe` safe serialization of the `CompressedXofKeySet`).
    KeySetDigest[32];
    /// A cluster in the registry.
    ClusterId[32];
    /// Hash of a libp2p peer id.
    PeerIdHash[32];
    /// An EVM address.
    Address[20];
    /// A BLAKE3 digest, used off chain.
    Blake3Digest[32];
    /// All versions of a job: a BLAKE3 digest of its operator and its name.
    JobLine[32];
    /// A compressed secp256k1 public key: a member's or worker's identity.
    PublicIdentity[33];
    /// A compact ECDSA signature (r, s), low s.
    Signature[64];
    /// A compressed point of secp256k1: a Pedersen commitment to a coefficient of the polynomial that shares of a
    /// sealed job's key lie on.
    ShareCommitment[33];
    /// A Keccak-256 digest, used wherever the chain verifies it.
    KeccakDigest[32];
}

/// A text is not the hexadecimal form of an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} bytes as {} hexadecimal digits, with or without 0x", expected * 2)]
pub struct InvalidHex {
    expected: usize,
}

/// `bytes` as lower-case hexadecimal digits, without `0x`.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Fills `out` from exactly twice as many hexadecimal digits, with or without `0x` before them.
///
/// # Errors
/// [`InvalidHex`] for another number of digits, or another character; `out` may be partly filled then.
pub fn read_hex(s: &str, out: &mut [u8]) -> Result<(), InvalidHex> {
    let error = InvalidHex { expected: out.len() };
    let digits = s.strip_prefix("0x").unwrap_or(s).as_bytes();
    if digits.len() != out.len() * 2 {
        return Err(error);
    }
    let nibble = |c: u8| (c as char).to_digit(16).map(|d| d as u8).ok_or(error);
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Ok(())
}

/// Hexadecimal for people (JSON, TOML), raw bytes on the wire.
mod hex_or_bytes {
    use core::fmt;

    use serde::{Deserializer, Serializer, de, ser::SerializeTuple};

    use super::{read_hex, write_hex};

    struct Hex<'a>(&'a [u8]);

    impl fmt::Display for Hex<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write_hex(f, self.0)
        }
    }

    pub(super) fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(&Hex(bytes));
        }
        let mut tuple = serializer.serialize_tuple(N)?;
        bytes.iter().try_for_each(|byte| tuple.serialize_element(byte))?;
        tuple.end()
    }

    struct Visitor<const N: usize>;

    impl<'de, const N: usize> de::Visitor<'de> for Visitor<N> {
        type Value = [u8; N];

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{N} bytes")
        }

        fn visit_str<E: de::Error>(self, s: &str) -> Result<[u8; N], E> {
            let mut out = [0; N];
            read_hex(s, &mut out).map_err(E::custom)?;
            Ok(out)
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<[u8; N], A::Error> {
            let mut out = [0; N];
            for (i, byte) in out.iter_mut().enumerate() {
                *byte = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(i, &self))?;
            }
            Ok(out)
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<[u8; N], D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Visitor::<N>)
        } else {
            deserializer.deserialize_tuple(N, Visitor::<N>)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_round_trips_and_wrong_text_is_refused() {
        let digest = KeySetDigest([0xab; 32]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(format!("0x{digest}").parse(), Ok(digest));
        for wrong in ["", "ab", &"g".repeat(64), &"a".repeat(65)] {
            assert!(wrong.parse::<KeySetDigest>().is_err(), "{wrong}");
        }
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(json, format!("\"{digest}\""));
        assert_eq!(serde_json::from_str::<KeySetDigest>(&json).unwrap(), digest);
    }

    #[test]
    fn participant_indices_run_from_one_to_thirteen() {
        assert!(ParticipantIndex::new(0).is_err());
        assert!(ParticipantIndex::new(14).is_err());
        assert_eq!(ParticipantIndex::new(13).unwrap().position(), 12);
    }
}
