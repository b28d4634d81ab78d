//! Evidence against whoever broke the protocol, and the members' votes for certificates, from which more
//! of it may come.
//!
//! # Flow
//! 1. [`EvidenceStore::accept`] takes evidence from anybody: a judge ([`verdict`]) checks that it proves
//!    what it claims, so that nothing false is ever kept or served.
//! 2. [`EvidenceStore::cast`] stores this member's own vote before its share of the signature leaves;
//!    [`EvidenceStore::take_votes`] the others'. Two of one member for one slot are evidence.
//!
//! # State
//! One redb file. Evidence is kept once for each kind, culprit and slot: the first piece. A second piece
//! convicts nobody anew, so there are bounds, and what comes later is left out: [`PER_CULPRIT`] and
//! [`BYTES_PER_CULPRIT`] for each kind and culprit, [`PER_KIND`] for each kind. Votes are kept for the
//! last [`KEPT_VOTE_SLOTS`] slots.
//!
//! # Restart
//! Opening is the restart. What is stored was judged when it came.

mod keep;
mod key;
pub mod verdict;

pub use keep::{keep, tell};

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use veil_committee::frost::GroupPublicKey;
use veil_protocol_spec::{
    Blake3Digest, CodecError, KeccakDigest, ParticipantIndex, Slot, Wire,
    evidence::{Evidence, Proof},
    scheduling::{CertificateVote, SignedCertificateVote, VoteError},
};

use self::{
    key::{EvidenceKey, vote_key, vote_slots},
    verdict::{InvalidEvidence, Verdict, judge},
};
use crate::trust::Trust;

type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

const EVIDENCE: Table = TableDefinition::new("evidence v1");
/// From a digest to the key in [`EVIDENCE`].
const DIGESTS: Table = TableDefinition::new("evidence digests v1");
const VOTES: Table = TableDefinition::new("certificate votes v1");

/// Pieces of one kind kept against one culprit.
pub const PER_CULPRIT: usize = 32;
/// Bytes of one kind kept against one culprit.
pub const BYTES_PER_CULPRIT: usize = 8 << 20;
/// Pieces of one kind kept in all.
pub const PER_KIND: usize = 512;
/// Slots whose votes are kept.
pub const KEPT_VOTE_SLOTS: u64 = 8192;
/// Slots after the last certificate for which votes are taken: the one under way, and the next for a
/// member that is a certificate ahead.
const SLOTS_AHEAD: u64 = 2;

/// Why evidence or a vote is not taken, or the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// It proves nothing.
    #[error(transparent)]
    Invalid(#[from] InvalidEvidence),
    /// A vote that is not its member's.
    #[error(transparent)]
    Vote(#[from] VoteError),
    /// A vote for a slot that is long past, or not there yet.
    #[error(
        "a vote for the certificate of slot {slot} is not taken while the last certified slot is {last}"
    )]
    Slot {
        /// The vote's.
        slot: Slot,
        /// The last certified one.
        last: Slot,
    },
    /// This member has voted already.
    #[error(
        "this member has voted for certificate {voted} of slot {slot}; it does not vote for {asked} beside it"
    )]
    AlreadyVoted {
        /// Which slot.
        slot: Slot,
        /// The certificate that it voted for.
        voted: KeccakDigest,
        /// The other one.
        asked: KeccakDigest,
    },
    /// What is stored does not decode.
    #[error(
        "the evidence store {path} is damaged: {source}; keep it for an examination and move it away"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: CodecError,
    },
    /// The file cannot be read or written.
    #[error("the evidence store {path}: {detail}")]
    Storage {
        /// Which file.
        path: PathBuf,
        /// What the storage said.
        detail: String,
    },
}

/// What became of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is stored.
    New(Verdict),
    /// The same, or other evidence of the same kind against the same culprit in the same slot, is here.
    Known,
    /// Enough evidence of this kind is here.
    Enough,
}

/// A piece of evidence that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptEvidence {
    /// What it is asked for by.
    pub digest: Blake3Digest,
    /// What it shows.
    pub verdict: Verdict,
    /// Its length.
    pub bytes: usize,
}

/// See the [module documentation](self).
pub struct EvidenceStore {
    path: PathBuf,
    trust: Trust,
    /// Needed to judge FROST shares; only members have it.
    shares: OnceLock<Arc<GroupPublicKey>>,
    database: Database,
    /// Held from a look to the write that follows from it.
    writing: Mutex<()>,
}

impl core::fmt::Debug for EvidenceStore {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("EvidenceStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl EvidenceStore {
    /// Opens or makes the file. New evidence is judged by `trust`.
    ///
    /// # Errors
    /// [`EvidenceError::Storage`].
    pub fn open(path: &Path, trust: Trust) -> Result<Self, EvidenceError> {
        let opened = || -> Result<Database, redb::Error> {
            let database = crate::database::open(path)?;
            let writing = database.begin_write()?;
            for table in [EVIDENCE, DIGESTS, VOTES] {
                writing.open_table(table)?;
            }
            writing.commit()?;
            Ok(database)
        };
        let database = opened().map_err(|error| EvidenceError::Storage {
            path: path.to_owned(),
            detail: error.to_string(),
        })?;
        let (path, shares, writing) = (path.to_owned(), OnceLock::new(), Mutex::new(()));
        Ok(Self { path, trust, shares, database, writing })
    }

    /// Tells the store the verifying shares of the group, without which it takes no evidence about FROST
    /// messages. Without effect the second time.
    pub fn know_shares(&self, shares: Arc<GroupPublicKey>) {
        let _ = self.shares.set(shares);
    }

    fn storage(&self, error: &redb::Error) -> EvidenceError {
        EvidenceError::Storage { path: self.path.clone(), detail: error.to_string() }
    }

    fn decode<T: Wire>(&self, bytes: &[u8]) -> Result<T, EvidenceError> {
        T::from_wire(bytes)
            .map_err(|source| EvidenceError::Damaged { path: self.path.clone(), source })
    }

    // ---- evidence --------------------------------------------------------------------------

    /// What evidence shows, if it proves it.
    ///
    /// # Errors
    /// [`InvalidEvidence`].
    pub fn judge(&self, evidence: &Evidence) -> Result<Verdict, InvalidEvidence> {
        judge(evidence, &self.trust, self.shares.get())
    }

    /// Judges evidence and keeps it. Waits for the disk: not for the reactor.
    ///
    /// # Errors
    /// [`EvidenceError`].
    pub fn accept(&self, evidence: &Evidence) -> Result<Kept, EvidenceError> {
        let verdict = self.judge(evidence)?;
        let key = EvidenceKey::of(&verdict);
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = self.room(&key, evidence).map_err(|error| self.storage(&error))? {
            return Ok(kept);
        }
        let store = || -> Result<(), redb::Error> {
            let writing = self.database.begin_write()?;
            let (key, digest) = (key.as_bytes(), evidence.digest());
            writing.open_table(EVIDENCE)?.insert(key, evidence.to_wire().as_slice())?;
            writing.open_table(DIGESTS)?.insert(digest.0.as_slice(), key)?;
            writing.commit()?;
            Ok(())
        };
        store().map_err(|error| self.storage(&error))?;
        Ok(Kept::New(verdict))
    }

    /// Why evidence under this key is not stored, if it is not.
    fn room(&self, key: &EvidenceKey, evidence: &Evidence) -> Result<Option<Kept>, redb::Error> {
        let table = self.database.begin_read()?.open_table(EVIDENCE)?;
        if table.get(key.as_bytes())?.is_some() {
            return Ok(Some(Kept::Known));
        }
        let (first, last) = key.of_culprit();
        let (mut pieces, mut bytes) = (0, evidence.to_wire().len());
        for entry in table.range(&first[..]..=&last[..])? {
            pieces += 1;
            bytes += entry?.1.value().len();
        }
        let (first, last) = key.of_kind();
        let of_kind = table.range(&first[..]..=&last[..])?.count();
        let full = pieces >= PER_CULPRIT || bytes > BYTES_PER_CULPRIT || of_kind >= PER_KIND;
        Ok(full.then_some(Kept::Enough))
    }

    /// Everything that is kept, by kind, culprit and slot.
    ///
    /// # Errors
    /// [`EvidenceError::Storage`], [`EvidenceError::Damaged`].
    pub fn list(&self) -> Result<Vec<KeptEvidence>, EvidenceError> {
        let read = || -> Result<Vec<_>, redb::Error> {
            let reading = self.database.begin_read()?;
            let (table, digests) = (reading.open_table(EVIDENCE)?, reading.open_table(DIGESTS)?);
            let mut list = Vec::new();
            for entry in digests.iter()? {
                let (digest, key) = entry?;
                let (digest, key) = (digest.value().to_vec(), key.value().to_vec());
                let bytes = table.get(key.as_slice())?.map_or(0, |evidence| evidence.value().len());
                list.push((key, digest, bytes));
            }
            Ok(list)
        };
        let mut list = read().map_err(|error| self.storage(&error))?;
        list.sort();
        let kept = list.iter().map(|(key, digest, bytes)| {
            let verdict = EvidenceKey::parse(key)?;
            let digest = Blake3Digest(digest.as_slice().try_into().ok()?);
            Some(KeptEvidence { digest, verdict, bytes: *bytes })
        });
        let kept: Option<Vec<_>> = kept.collect();
        kept.ok_or_else(|| EvidenceError::Damaged {
            path: self.path.clone(),
            source: CodecError::Malformed { name: "evidence key" },
        })
    }

    /// One piece, by its digest.
    ///
    /// # Errors
    /// [`EvidenceError::Storage`], [`EvidenceError::Damaged`].
    pub fn find(&self, digest: &Blake3Digest) -> Result<Option<Evidence>, EvidenceError> {
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let reading = self.database.begin_read()?;
            let Some(key) = reading.open_table(DIGESTS)?.get(digest.0.as_slice())? else {
                return Ok(None);
            };
            let table = reading.open_table(EVIDENCE)?;
            Ok(table.get(key.value())?.map(|evidence| evidence.value().to_vec()))
        };
        let bytes = read().map_err(|error| self.storage(&error))?;
        bytes.map(|bytes| self.decode(&bytes)).transpose()
    }

    // ---- votes -----------------------------------------------------------------------------

    /// Stores this member's own vote. It may leave, and a share of the signature, once this has returned.
    /// Waits for the disk.
    ///
    /// # Errors
    /// [`EvidenceError::AlreadyVoted`] if another vote of the member for the slot is stored;
    /// [`EvidenceError::Storage`].
    pub fn cast(&self, signed: &SignedCertificateVote) -> Result<(), EvidenceError> {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        match self.vote(signed.vote.slot, signed.member)? {
            Some(known) if known.vote == signed.vote => Ok(()),
            Some(known) => Err(EvidenceError::AlreadyVoted {
                slot: signed.vote.slot,
                voted: known.vote.certificate,
                asked: signed.vote.certificate,
            }),
            None => self.write_votes(&[*signed]),
        }
    }

    /// Takes votes that a peer brought, each of which counts for itself; gives back the evidence that
    /// they make with those that are here, which is stored. `last` is the last certified slot.
    /// Waits for the disk.
    ///
    /// # Errors
    /// [`EvidenceError`] of the first vote that is refused; those before it are stored.
    pub fn take_votes(
        &self,
        votes: &[SignedCertificateVote],
        last: Slot,
    ) -> Result<Vec<Evidence>, EvidenceError> {
        let (mut new, mut contradictions) = (Vec::new(), Vec::new());
        let mut refused = None;
        {
            let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            for signed in votes {
                if let Err(error) = self.check_vote(signed, last) {
                    refused = Some(error);
                    break;
                }
                match self.vote(signed.vote.slot, signed.member)? {
                    Some(known) if known.contradicts(signed) => {
                        contradictions.push(Box::new((known, *signed)));
                    }
                    Some(_) => {}
                    None => new.push(*signed),
                }
            }
            if !new.is_empty() {
                self.write_votes(&new)?;
            }
        }
        let mut evidence = Vec::new();
        for pair in contradictions {
            let found =
                Evidence { binding: self.trust.binding, proof: Proof::CertificateVotes(pair) };
            if matches!(self.accept(&found)?, Kept::New(_)) {
                evidence.push(found);
            }
        }
        refused.map_or(Ok(evidence), Err)
    }

    fn check_vote(&self, signed: &SignedCertificateVote, last: Slot) -> Result<(), EvidenceError> {
        let CertificateVote { slot, .. } = signed.vote;
        let oldest = last.0.saturating_sub(KEPT_VOTE_SLOTS);
        if slot.0 <= oldest || slot.0 > last.0.saturating_add(SLOTS_AHEAD) {
            return Err(EvidenceError::Slot { slot, last });
        }
        Ok(signed.verify(&self.trust.binding, &self.trust.roster)?)
    }

    /// Stores votes, and forgets those of slots long past.
    fn write_votes(&self, votes: &[SignedCertificateVote]) -> Result<(), EvidenceError> {
        let epoch = self.trust.binding.epoch;
        let newest = votes.iter().map(|signed| signed.vote.slot.0).max().unwrap_or_default();
        let store = || -> Result<(), redb::Error> {
            let writing = self.database.begin_write()?;
            {
                let mut table = writing.open_table(VOTES)?;
                for signed in votes {
                    let key = vote_key(epoch, signed.vote.slot, signed.member);
                    table.insert(&key[..], signed.to_wire().as_slice())?;
                }
                let oldest = newest.saturating_sub(KEPT_VOTE_SLOTS);
                let (first, last) = vote_slots(epoch, Slot(0), Slot(oldest));
                table.retain_in(&first[..]..=&last[..], |_, _| false)?;
            }
            writing.commit()?;
            Ok(())
        };
        store().map_err(|error| self.storage(&error))
    }

    fn vote(
        &self,
        slot: Slot,
        member: ParticipantIndex,
    ) -> Result<Option<SignedCertificateVote>, EvidenceError> {
        let votes = self.votes(slot)?;
        Ok(votes.into_iter().find(|signed| signed.member == member))
    }

    /// The votes for the certificate of a slot that are here, by member.
    ///
    /// # Errors
    /// [`EvidenceError::Storage`], [`EvidenceError::Damaged`].
    pub fn votes(&self, slot: Slot) -> Result<Vec<SignedCertificateVote>, EvidenceError> {
        let (first, last) = vote_slots(self.trust.binding.epoch, slot, slot);
        let read = || -> Result<Vec<_>, redb::Error> {
            let table = self.database.begin_read()?.open_table(VOTES)?;
            let entries = table.range(&first[..]..=&last[..])?;
            entries.map(|entry| Ok(entry?.1.value().to_vec())).collect()
        };
        let votes = read().map_err(|error| self.storage(&error))?;
        votes.iter().map(|bytes| self.decode(bytes)).collect()
    }
}
