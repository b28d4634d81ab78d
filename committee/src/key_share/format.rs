//! Writing and reading the stored form; the table is in the [parent module](super).

use veil_protocol_spec::{
    Attempt, Blake3Digest, CeremonyId, Committee, Epoch, KeySetDigest, ParticipantIndex,
    domain::KEY_SHARE,
};
use zeroize::Zeroizing;

use super::{KeyShare, KeyShareError, KeyShareOrigin};
use crate::{prf::SetKey, ring::extension_degree, subsets::MemberSet};

/// Longest stored key share: one of a committee of 13 has 0.3 MB.
pub const MAX_KEY_SHARE_BYTES: usize = 4 << 20;

const MAGIC: &[u8; 14] = b"veil key share";
const VERSION: u8 = 1;
const CHECKSUM: usize = 32;
/// Magic, version and length.
const HEAD: usize = MAGIC.len() + 1 + 4;
/// Everything of fixed length.
const FIXED: usize = HEAD + 32 + 4 + 1 + 1 + 8 + 32 + 32 + 4 + 2 + 4 + 4 + CHECKSUM;

impl KeyShare {
    /// The stored form, in plain: for whatever encrypts it.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let len = FIXED
            + self.share.len() * 16
            + self.dec.len() * 34
            + self.frost.len()
            + self.test_share.len();
        // Reserved at once: a buffer that grows leaves copies behind.
        let mut out = Zeroizing::new(Vec::with_capacity(len));
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&(len as u32).to_le_bytes());
        let KeyShareOrigin { ceremony, attempt, committee, participant, .. } = self.origin;
        out.extend_from_slice(&ceremony.0);
        out.extend_from_slice(&attempt.0.to_le_bytes());
        out.extend_from_slice(&[committee.into(), participant.get()]);
        out.extend_from_slice(&self.origin.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.origin.key_set.0);
        out.extend_from_slice(&self.origin.parameters.0);
        out.extend_from_slice(&(self.dimension() as u32).to_le_bytes());
        self.share.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        out.extend_from_slice(&(self.dec.len() as u16).to_le_bytes());
        for (set, key) in &self.dec {
            out.extend_from_slice(&set.bits().to_le_bytes());
            out.extend_from_slice(key.expose());
        }
        for part in [&**self.frost, &self.test_share] {
            out.extend_from_slice(&(part.len() as u32).to_le_bytes());
            out.extend_from_slice(part);
        }
        let checksum = checksum(&out);
        out.extend_from_slice(&checksum);
        debug_assert_eq!(out.len(), len);
        out
    }

    /// Reads the stored form: what it is, its length, its checksum, then its parts.
    ///
    /// # Errors
    /// Every way in which the bytes are not a key share, see [`KeyShareError`]. Whose it is, and
    /// that it works, is for [`check_belongs`](Self::check_belongs) and
    /// [`verify`](Self::verify).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyShareError> {
        let given = bytes.len();
        if given > MAX_KEY_SHARE_BYTES {
            return Err(KeyShareError::TooLong { given, expected: MAX_KEY_SHARE_BYTES });
        }
        if !bytes.starts_with(&MAGIC[..given.min(MAGIC.len())]) || bytes.is_empty() {
            return Err(KeyShareError::NotAKeyShare);
        }
        let mut head = Reader(&bytes[given.min(MAGIC.len())..]);
        let truncated = KeyShareError::Truncated { given, expected: FIXED };
        let [version] = head.array().ok_or(truncated)?;
        if version != VERSION {
            return Err(KeyShareError::Version { version, supported: VERSION });
        }
        let expected = u32::from_le_bytes(head.array().ok_or(truncated)?) as usize;
        if given < expected.max(FIXED) {
            return Err(KeyShareError::Truncated { given, expected: expected.max(FIXED) });
        }
        if given > expected {
            return Err(KeyShareError::TooLong { given, expected });
        }
        let (content, stored) = bytes.split_at(given - CHECKSUM);
        if checksum(content) != stored {
            return Err(KeyShareError::Checksum);
        }
        let mut body = Reader(&content[HEAD..]);
        let share = body.key_share().ok_or(KeyShareError::Malformed("structure"))??;
        if body.0.is_empty() { Ok(share) } else { Err(KeyShareError::Malformed("structure")) }
    }
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM] {
    blake3::derive_key(KEY_SHARE, content)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn slice(&mut self, len: usize) -> Option<&[u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    /// A length in front of so many bytes.
    fn part(&mut self) -> Option<&[u8]> {
        let len = u32::from_le_bytes(self.array()?);
        self.slice(len as usize)
    }

    /// `None` if a part is cut short, an error if it is impossible.
    fn key_share(&mut self) -> Option<Result<KeyShare, KeyShareError>> {
        let ceremony = CeremonyId(self.array()?);
        let attempt = Attempt(u32::from_le_bytes(self.array()?));
        let [n, participant] = self.array()?;
        let Ok(committee) = Committee::new(n) else {
            return Some(Err(KeyShareError::Malformed("committee")));
        };
        let Ok(participant) = ParticipantIndex::new(participant) else {
            return Some(Err(KeyShareError::Malformed("participant")));
        };
        let epoch = Epoch(u64::from_le_bytes(self.array()?));
        let key_set = KeySetDigest(self.array()?);
        let parameters = Blake3Digest(self.array()?);
        let origin = KeyShareOrigin {
            ceremony,
            attempt,
            committee,
            participant,
            epoch,
            key_set,
            parameters,
        };
        let dimension = u32::from_le_bytes(self.array()?) as usize;
        let words = self.slice(dimension.checked_mul(16 * extension_degree(committee))?)?;
        let (words, _) = words.as_chunks();
        let share = Zeroizing::new(words.iter().copied().map(u128::from_le_bytes).collect());
        let count = u16::from_le_bytes(self.array()?);
        let mut dec = Vec::with_capacity(count.into());
        for _ in 0..count {
            let Ok(set) = MemberSet::from_bits(u16::from_le_bytes(self.array()?), committee) else {
                return Some(Err(KeyShareError::Malformed("list of flooding keys")));
            };
            dec.push((set, SetKey::new(self.array()?)));
        }
        let frost = Zeroizing::new(self.part()?.to_vec());
        let test_share = self.part()?.to_vec();
        Some(KeyShare::from_parts(origin, share, dec, frost, test_share))
    }
}
