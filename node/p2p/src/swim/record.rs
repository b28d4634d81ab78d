//! A peer's record in the membership: its key, its start and its addresses, signed by itself.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use foca::{Codec, Header, Identity, Member, PostcardCodec};
use libp2p::{
    Multiaddr,
    bytes::{Buf, BufMut},
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use veil_protocol_spec::{
    PeerIdHash, PublicIdentity, Signature,
    domain::{self, hash_parts},
    identity::SecretIdentity,
};

use crate::directory::Directory;

const MAX_ADDRESSES: usize = 8;
const MAX_ADDRESS_BYTES: usize = 256;

/// The record of one peer. Two records are the same member if key and generation agree.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    identity: PublicIdentity,
    /// Grows with every start of the peer, every time it refutes its own death, and when it begins anew.
    generation: Generation,
    /// Binary multiaddresses without the peer id.
    addresses: Vec<Vec<u8>>,
    signature: Signature,
    /// Signs the next generation; only a node's own record has it.
    #[serde(skip)]
    signer: Option<Arc<Signer>>,
}

/// Signs the records of one node in one cluster.
#[derive(Debug)]
pub(super) struct Signer {
    pub(super) identity: SecretIdentity,
    pub(super) scope: String,
}

/// The peer's incarnation, its start in milliseconds of its own clock, and how often it was declared dead since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Generation {
    incarnation: u64,
    started: u64,
    deaths: u64,
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        (self.identity, self.generation) == (other.identity, other.generation)
    }
}

impl Eq for Record {}

impl Record {
    /// A node's own record, of this incarnation and start.
    pub(super) fn own(
        signer: Signer,
        (incarnation, started): (u64, u64),
        addresses: &[Multiaddr],
    ) -> Self {
        let addresses = addresses.iter().map(Multiaddr::to_vec);
        let addresses = addresses.filter(|address| address.len() <= MAX_ADDRESS_BYTES);
        let mut record = Self {
            identity: signer.identity.public(),
            generation: Generation { incarnation, started, deaths: 0 },
            addresses: addresses.take(MAX_ADDRESSES).collect(),
            signature: Signature([0; 64]),
            signer: None,
        };
        record.signature = signer.identity.sign(&record.digest(&signer.scope));
        record.signer = Some(Arc::new(signer));
        record
    }

    /// The addressee of a first message to a peer, whose record is not known yet.
    pub(super) fn addressee(identity: PublicIdentity) -> Self {
        let signature = Signature([0; 64]);
        let generation = Generation { incarnation: 0, started: 0, deaths: 0 };
        Self { identity, generation, addresses: Vec::new(), signature, signer: None }
    }

    /// The id of the peer.
    pub(super) fn peer(&self) -> PeerIdHash {
        PeerIdHash::of(&self.identity)
    }

    /// Whether both records are from the same run of the peer.
    pub(super) fn is_same_run(&self, other: &Self) -> bool {
        let run = |of: &Self| (of.identity, of.generation.incarnation, of.generation.started);
        run(self) == run(other)
    }

    /// Whether this is a record of a later incarnation of the same peer. That it has started later does not make it one:
    /// the clock of an earlier run may have been ahead.
    pub(super) fn is_later_incarnation_of(&self, other: &Self) -> bool {
        self.identity == other.identity
            && self.generation.incarnation > other.generation.incarnation
    }

    /// Compares every byte, while `==` compares the member.
    fn is_identical(&self, other: &Self) -> bool {
        self == other && self.addresses == other.addresses && self.signature == other.signature
    }

    /// The addresses to dial, without those that do not parse.
    pub(super) fn addresses(&self) -> Vec<Multiaddr> {
        let addresses = self.addresses.iter();
        addresses.filter_map(|bytes| Multiaddr::try_from(bytes.clone()).ok()).collect()
    }

    fn digest(&self, scope: &str) -> [u8; 32] {
        let Generation { incarnation, started, deaths } = self.generation;
        let numbers = [incarnation, started, deaths].map(u64::to_le_bytes);
        let mut parts: Vec<&[u8]> = vec![scope.as_bytes(), self.identity.as_bytes()];
        parts.extend(numbers.iter().map(<[u8; 8]>::as_slice));
        parts.extend(self.addresses.iter().map(Vec::as_slice));
        hash_parts(domain::MEMBER_RECORD, &parts)
    }

    fn check(&self, scope: &str) -> Result<(), RecordError> {
        if self.addresses.len() > MAX_ADDRESSES
            || self.addresses.iter().any(|address| address.len() > MAX_ADDRESS_BYTES)
        {
            return Err(RecordError::TooLong);
        }
        let verdict = self.identity.verify(&self.digest(scope), &self.signature);
        verdict.map_err(|_| RecordError::Signature(self.peer()))
    }
}

impl Identity for Record {
    type Addr = PublicIdentity;

    fn renew(&self) -> Option<Self> {
        let mut next = self.clone();
        next.generation.deaths = self.generation.deaths.checked_add(1)?;
        let signer = self.signer.as_ref()?;
        next.signature = signer.identity.sign(&next.digest(&signer.scope));
        Some(next)
    }

    fn addr(&self) -> PublicIdentity {
        self.identity
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.generation > adversary.generation
    }
}

/// Why a membership message is refused.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("malformed: {0}")]
    Postcard(#[from] postcard::Error),
    #[error("a record has too many or too long addresses")]
    TooLong,
    #[error("the record of peer {0} is not signed by it")]
    Signature(PeerIdHash),
}

/// Checks every record when it decodes it.
pub(super) struct RecordCodec {
    pub(super) scope: String,
    pub(super) own: Arc<Mutex<Record>>,
    pub(super) directory: watch::Receiver<Arc<Directory>>,
    /// The last record of each registered peer with a valid signature: most messages repeat it.
    pub(super) checked: HashMap<PublicIdentity, Record>,
    /// Set for good when this node hears of a later incarnation of itself.
    pub(super) superseded: Arc<AtomicBool>,
}

impl RecordCodec {
    /// A record that is signed with this node's own key, and is not its own, is of another process.
    fn notice(&self, record: &Record) {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if record.is_later_incarnation_of(&own) && record.check(&self.scope).is_ok() {
            self.superseded.store(true, Ordering::Relaxed);
        }
    }

    fn check(&mut self, record: &Record) -> Result<(), RecordError> {
        if !self.checked.get(&record.identity).is_some_and(|known| known.is_identical(record)) {
            record.check(&self.scope)?;
            // Those that have left the directory are forgotten now and then.
            if self.checked.len() > 2 * self.directory.borrow().len() {
                self.checked.clear();
            }
            self.checked.insert(record.identity, record.clone());
        }
        Ok(())
    }
}

impl Codec<Record> for RecordCodec {
    type Error = RecordError;

    fn encode_header(
        &mut self,
        header: &Header<Record>,
        buf: impl BufMut,
    ) -> Result<(), RecordError> {
        Ok(PostcardCodec.encode_header(header, buf)?)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Record>, RecordError> {
        let header: Header<Record> = PostcardCodec.decode_header(buf)?;
        // The other records of a header only address messages; the gate checks those.
        self.check(&header.src)?;
        self.notice(&header.dst);
        Ok(header)
    }

    fn encode_member(
        &mut self,
        member: &Member<Record>,
        buf: impl BufMut,
    ) -> Result<(), RecordError> {
        Ok(PostcardCodec.encode_member(member, buf)?)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Record>, RecordError> {
        let member: Member<Record> = PostcardCodec.decode_member(buf)?;
        if !self.directory.borrow().contains(&member.id().peer()) {
            // The sender may know a registration that this node has not read yet: the message stays
            // valid. This node's own record takes the place of the unknown one and changes nothing.
            let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
            return Ok(Member::alive(own.clone()));
        }
        self.check(member.id())?;
        self.notice(member.id());
        Ok(member)
    }
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::registry::Roles;

    use super::*;
    use crate::directory::Peer;

    fn codec(registered: &[&Record]) -> (RecordCodec, Record) {
        let own = record(1);
        let directory = Directory::from_iter(
            registered
                .iter()
                .map(|record| Peer { identity: record.identity, roles: Roles::default() }),
        );
        let (_, directory) = watch::channel(Arc::new(directory));
        let shared = Arc::new(Mutex::new(own.clone()));
        (
            RecordCodec {
                scope: "here".to_owned(),
                own: shared,
                directory,
                checked: HashMap::new(),
                superseded: Arc::default(),
            },
            own,
        )
    }

    fn record(byte: u8) -> Record {
        record_in("here", byte)
    }

    fn record_in(scope: &str, byte: u8) -> Record {
        let identity = SecretIdentity::from_bytes(&[byte; 32]).unwrap();
        let signer = Signer { identity, scope: scope.to_owned() };
        Record::own(signer, (0, 5), &["/ip4/127.0.0.1/tcp/7000".parse().unwrap()])
    }

    fn decode(codec: &mut RecordCodec, record: &Record) -> Result<Record, RecordError> {
        let mut bytes = Vec::new();
        PostcardCodec.encode_member(&Member::alive(record.clone()), &mut bytes).unwrap();
        codec.decode_member(bytes.as_slice()).map(|member| member.id().clone())
    }

    #[test]
    fn only_the_peer_itself_can_change_its_record() {
        let peer = record(2);
        let (mut codec, _) = codec(&[&peer]);
        assert_eq!(decode(&mut codec, &peer).unwrap().addresses(), peer.addresses());
        let renewed = peer.renew().unwrap();
        assert!(renewed.win_addr_conflict(&peer) && renewed.is_same_run(&peer));
        assert_eq!(decode(&mut codec, &renewed).unwrap(), renewed);

        let mut forged = peer.clone();
        forged.generation.deaths += 1;
        assert!(matches!(decode(&mut codec, &forged), Err(RecordError::Signature(_))));
        let foreign = record_in("elsewhere", 2);
        assert!(matches!(decode(&mut codec, &foreign), Err(RecordError::Signature(_))));
        let mut forged = peer;
        forged.addresses.clear();
        assert!(matches!(decode(&mut codec, &forged), Err(RecordError::Signature(_))));
    }

    #[test]
    fn only_a_signed_record_of_a_later_incarnation_supersedes() {
        let own_key = || SecretIdentity::from_bytes(&[1; 32]).unwrap();
        let of = |generation| {
            let signer = Signer { identity: own_key(), scope: "here".to_owned() };
            Record::own(signer, generation, &[])
        };
        let (mut codec, own) = codec(&[&record(1)]);
        let superseded = Arc::clone(&codec.superseded);
        let mut told = |record: &Record| {
            let _ = decode(&mut codec, record); // a forged one is an error
            superseded.load(Ordering::Relaxed)
        };
        // Of this incarnation, whenever it started; and what nobody signed.
        assert!(!told(&own) && !told(&of((0, 900))));
        let mut forged = of((0, 5));
        forged.generation.incarnation = 1;
        assert!(!told(&forged));
        assert!(told(&of((1, 2))));
    }

    #[test]
    fn records_of_unregistered_peers_are_skipped() {
        let (mut codec, own) = codec(&[]);
        assert_eq!(decode(&mut codec, &record(2)).unwrap(), own);
    }
}
