//! Proof that a ceremony made a working key: encrypt with the public key, compute, bootstrap, squash,
//! and decrypt with every number of members from 2t+1 to n, and with t wrong shares among them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rand::{Rng, rngs::OsRng};
use serde::Serialize;
use tfhe::{
    CompactCiphertextList, FheBool, FheUint8,
    prelude::{CiphertextList, FheOrd, SquashNoise},
    set_server_key,
    xof_key_set::CompressedXofKeySet,
};
use veil_committee::{
    decrypt::SquashedBlock,
    decryption::{DecryptionEffect, Decryptor, RecomputedOutputs},
    key_share::KeyShare,
};
use veil_committee_machine::{Effect, Machine, Verdict};
use veil_committee_world::{Host, Mail, Physics, Schedule, World};
use veil_keygen_ceremony::keyset::{DecodeError, decode_blocks, squashed_blocks};
use veil_node_process::Stopwatch;
use veil_protocol_spec::{
    Address, Blake3Digest, ChainId, ClusterId, Committee, ParticipantIndex, Slot, Wire,
    agreement::{Instance, Lock},
    codec::Bytes,
    decryption::{
        DecryptionCounter, DecryptionMessage, DecryptionPayload, RequestContext, RequestId,
    },
    domain,
    identity::SecretIdentity,
    scheduling::{Binding, ClusterScope},
};

use crate::offline::misbehaviour::FaultName;

/// What was shown.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Demonstration {
    /// Everything decrypted to the right value and every culprit was named.
    pub verified: bool,
    /// Seconds to decompress the key set.
    pub decompress_seconds: f64,
    /// Seconds to encrypt, compute and bootstrap.
    pub evaluate_seconds: f64,
    /// Seconds to squash.
    pub squash_seconds: f64,
    /// Squashed blocks decrypted in each run.
    pub blocks: usize,
    /// Number of members of each decryption, all right.
    pub decrypted_with: Vec<usize>,
    /// Members that sent a wrong share in the run with t culprits.
    pub wrong_shares_by: Vec<ParticipantIndex>,
    /// Members that the others named there.
    pub named: Vec<ParticipantIndex>,
    /// Members that refused the last participant's request for a crafted ciphertext: all others.
    pub crafted_refused_by: Vec<ParticipantIndex>,
    /// Members named in the run in which only the last participant's share was wrong, if that was asked for.
    pub culprits: Vec<ParticipantIndex>,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum DemonstrateError {
    /// tfhe refused something.
    #[error("tfhe: {0}")]
    Tfhe(#[from] tfhe::Error),
    /// An expanded list has fewer values than were pushed.
    #[error("the expanded list lost a value")]
    Missing,
    /// A decryption did not complete.
    #[error("the decryption with participants {0:?} did not complete")]
    Incomplete(Vec<ParticipantIndex>),
    /// A value decoded to something impossible.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A wrong value.
    #[error("{what} decrypts to {found}, not {expected}")]
    Wrong {
        /// Which value.
        what: &'static str,
        /// Decrypted.
        found: u128,
        /// Computed in the clear.
        expected: u128,
    },
    /// A member refused what it should decrypt.
    #[error("participant {0} refused an authorised decryption: {1}")]
    Refused(ParticipantIndex, String),
    /// The culprits named are not those whose shares were wrong.
    #[error("participants {found:?} were named, but the shares of {expected:?} were wrong")]
    Culprits {
        /// Named.
        found: Vec<ParticipantIndex>,
        /// Sent wrong shares.
        expected: Vec<ParticipantIndex>,
    },
    /// Somebody answered a crafted request.
    #[error("participant {0} answered a request for a crafted ciphertext")]
    Crafted(ParticipantIndex),
    /// The roster does not fit.
    #[error("the key shares do not fit the roster: {0}")]
    Membership(String),
}

/// A value computed under encryption, squashed, and what it should be.
struct Value {
    what: &'static str,
    blocks: Vec<SquashedBlock>,
    expected: u128,
}

fn evaluate(
    key_set: &CompressedXofKeySet,
    shown: &mut Demonstration,
) -> Result<Vec<Value>, DemonstrateError> {
    let watch = Stopwatch::start();
    let (public_key, server_key) = key_set.decompress().into_raw_parts();
    set_server_key(server_key);
    shown.decompress_seconds = watch.wall();
    let watch = Stopwatch::start();
    let (a, b): (u8, u8) = (OsRng.r#gen(), OsRng.r#gen());
    let list = CompactCiphertextList::builder(&public_key).push(a).push(b).build_packed();
    let list = list.expand()?;
    let x: FheUint8 = list.get(0)?.ok_or(DemonstrateError::Missing)?;
    let y: FheUint8 = list.get(1)?.ok_or(DemonstrateError::Missing)?;
    let sum = &x + &y;
    let product = &x * &y;
    let less: FheBool = x.lt(&y);
    shown.evaluate_seconds = watch.wall();
    let watch = Stopwatch::start();
    let value = |what, blocks, expected| Value { what, blocks, expected };
    let values = vec![
        value("the input", squashed_blocks(&x.squash_noise()?), a.into()),
        value("the sum", squashed_blocks(&sum.squash_noise()?), a.wrapping_add(b).into()),
        value("the product", squashed_blocks(&product.squash_noise()?), a.wrapping_mul(b).into()),
        value("the comparison", squashed_blocks(&less.squash_noise()?), (a < b).into()),
    ];
    shown.squash_seconds = watch.wall();
    Ok(values)
}

/// Encrypts, computes, bootstraps and squashes, without decrypting: what anybody can do with the
/// public material.
///
/// # Errors
/// [`DemonstrateError::Tfhe`].
pub fn exercise_public(key_set: &CompressedXofKeySet) -> Result<(), DemonstrateError> {
    evaluate(key_set, &mut Demonstration::default()).map(drop)
}

/// Shows that the key works.
///
/// # Errors
/// [`DemonstrateError`] names the first thing that does not.
pub fn demonstrate(
    key_set: &CompressedXofKeySet,
    shares: &[Arc<KeyShare>],
    identities: &[SecretIdentity],
    fault: Option<FaultName>,
    progress: &dyn Fn(&str),
) -> Result<Demonstration, DemonstrateError> {
    let mut shown = Demonstration::default();
    progress("encrypting, computing and squashing");
    let (committee, values) = (shares[0].origin().committee, evaluate(key_set, &mut shown)?);
    let mut bench = Bench { committee, shares, identities, values, slot: 0 };
    shown.blocks = bench.blocks().len();
    let (n, t) = (committee.n(), committee.max_faulty().get());
    let everybody: Vec<ParticipantIndex> = committee.participants().collect();
    for count in committee.signing_threshold().get()..=n {
        progress(&format!("decrypting with {count} of {n} members"));
        bench.decrypt(&everybody[n - count..], &[])?;
        shown.decrypted_with.push(count);
    }
    progress(&format!("decrypting with {t} wrong shares"));
    shown.wrong_shares_by = everybody[n - t..].to_vec();
    shown.named = bench.decrypt(&everybody, &everybody[n - t..])?;
    if fault == Some(FaultName::WrongPartialDecryption) {
        progress("decrypting with the last member's fault");
        shown.culprits = bench.decrypt(&everybody, &everybody[n - 1..])?;
    }
    progress("asking for a crafted ciphertext");
    shown.crafted_refused_by = bench.refuse_crafted()?;
    shown.verified = true;
    Ok(shown)
}

/// The members' decryption machines, made anew for each slot.
struct Bench<'a> {
    committee: Committee,
    shares: &'a [Arc<KeyShare>],
    identities: &'a [SecretIdentity],
    values: Vec<Value>,
    slot: u64,
}

impl Bench<'_> {
    fn blocks(&self) -> Vec<SquashedBlock> {
        self.values.iter().flat_map(|value| value.blocks.iter().cloned()).collect()
    }

    fn decryptor(&self, j: ParticipantIndex) -> Result<Decryptor, DemonstrateError> {
        let roster = self.identities.iter().map(SecretIdentity::public).collect();
        let share = &self.shares[j.position()];
        let identity = self.identities[j.position()].clone();
        let counter = DecryptionCounter { blocks: 0 };
        Decryptor::new(share.decryptor(), identity, roster, counter)
            .map_err(|error| DemonstrateError::Membership(error.to_string()))
    }

    fn context(&self) -> RequestContext {
        let origin = self.shares[0].origin();
        let manifest = domain::hash_parts(domain::MANIFEST, &[&self.slot.to_le_bytes()]);
        let (slot, manifest) = (Slot(self.slot), Blake3Digest(manifest));
        RequestContext::first(origin.key_set, origin.epoch, slot, manifest)
    }

    fn lock(&self, context: &RequestContext) -> Lock {
        let RequestContext { key_set, epoch, slot, manifest, .. } = *context;
        // A demonstration is of no cluster, so its votes are worth nothing elsewhere.
        let scope = ClusterScope {
            chain_id: ChainId(0),
            contract: Address([0; 20]),
            cluster: ClusterId([0; 32]),
        };
        let (binding, round) = (Binding { scope, key_set, epoch }, 0);
        let instance = Instance::manifest(slot);
        let digest = Lock::vote_digest(&binding, instance, round, &manifest);
        let quorum = self.committee.signing_threshold().get();
        let voters = self.committee.participants().zip(self.identities).take(quorum);
        let votes = voters.map(|(j, identity)| (j, identity.sign(&digest))).collect();
        Lock { binding, instance, round, value: manifest, votes }
    }

    /// Decrypts the values with some members, of which some send wrong shares; checks that they are
    /// right and that the honest members name whoever was wrong, and returns whom they named.
    fn decrypt(
        &mut self,
        with: &[ParticipantIndex],
        faulty: &[ParticipantIndex],
    ) -> Result<Vec<ParticipantIndex>, DemonstrateError> {
        self.slot += 1;
        let context = self.context();
        let lock = self.lock(&context);
        let decryptor = |j: &ParticipantIndex| {
            let mut member = self.decryptor(*j)?;
            let outputs = RecomputedOutputs { context, blocks: self.blocks() };
            member
                .authorise(outputs, &lock, 0)
                .map_err(|refusal| DemonstrateError::Refused(*j, refusal.to_string()))?;
            Ok((*j, member))
        };
        let members = with.iter().map(decryptor).collect::<Result<_, DemonstrateError>>()?;
        let identities = self.identities;
        let host = Members { members, faulty, identities, phases: None, named: BTreeSet::new() };
        let world = World::new(host, self.committee, Physics::INSTANT, Vec::new());
        let Members { phases, named, .. } = world.run().host;
        let phases = phases.ok_or_else(|| DemonstrateError::Incomplete(with.to_vec()))?;
        let mut rest = phases.as_slice();
        for Value { what, blocks, expected } in &self.values {
            let (these, others) = rest.split_at(blocks.len());
            rest = others;
            let found = decode_blocks(these)?;
            if found != *expected {
                return Err(DemonstrateError::Wrong { what, found, expected: *expected });
            }
        }
        let named: Vec<_> = named.into_iter().collect();
        if named != faulty {
            return Err(DemonstrateError::Culprits { found: named, expected: faulty.to_vec() });
        }
        Ok(named)
    }

    /// a = 2^127 e_0, b = 0 would give bit 0 of Q away: everybody is asked for its decryption.
    fn refuse_crafted(&mut self) -> Result<Vec<ParticipantIndex>, DemonstrateError> {
        self.slot += 1;
        let context = self.context();
        let mut mask = vec![0; self.shares[0].dimension()];
        mask[0] = 1 << 127;
        let crafted = SquashedBlock { mask, body: 0 };
        let request = RequestId::of(&context, &[crafted.digest()]);
        let Some(asking) = self.committee.participants().next_back() else { return Ok(Vec::new()) };
        let identity = &self.identities[asking.position()];
        let ask = DecryptionMessage::sign(request, asking, DecryptionPayload::Request, identity);
        let mut refused = Vec::new();
        for j in self.committee.participants().filter(|j| *j != asking) {
            let mut member = self.decryptor(j)?;
            let verdict = member.handle(asking, &ask.to_wire(), 0);
            let answered = core::iter::from_fn(|| member.poll_effect())
                .any(|effect| matches!(effect, Effect::Send { .. } | Effect::Broadcast(_)));
            if answered || verdict == Verdict::Valid {
                return Err(DemonstrateError::Crafted(j));
            }
            refused.push(j);
        }
        Ok(refused)
    }
}

/// What surrounds the decryption machines.
struct Members<'a> {
    /// Those that are there.
    members: BTreeMap<ParticipantIndex, Decryptor>,
    faulty: &'a [ParticipantIndex],
    identities: &'a [SecretIdentity],
    phases: Option<Vec<u128>>,
    named: BTreeSet<ParticipantIndex>,
}

impl Host for Members<'_> {
    type Machine = Decryptor;
    type Moment = ();

    fn boot(&mut self, j: ParticipantIndex, _: &mut Schedule<Self>) -> Option<Decryptor> {
        self.members.remove(&j)
    }

    fn special(&mut self, j: ParticipantIndex, effect: DecryptionEffect, _: &mut Schedule<Self>) {
        match effect {
            _ if self.faulty.contains(&j) => {}
            DecryptionEffect::Complete(done) => self.phases = Some(done.combined.phases),
            DecryptionEffect::WrongShare { culprit, .. } => drop(self.named.insert(culprit)),
            DecryptionEffect::Refused { .. } | DecryptionEffect::Outstanding { .. } => {}
        }
    }

    fn leave(&mut self, mail: Mail, world: &mut Schedule<Self>) {
        let bytes = if self.faulty.contains(&mail.from) {
            falsify(&mail.bytes, &self.identities[mail.from.position()]).into()
        } else {
            mail.bytes
        };
        world.post(Mail { bytes, ..mail }, 0);
    }
}

/// The same partial decryption with one flipped bit, signed by its sender.
fn falsify(bytes: &[u8], identity: &SecretIdentity) -> Vec<u8> {
    let Ok(message) = DecryptionMessage::from_wire(bytes) else { return bytes.to_vec() };
    let DecryptionPayload::Partial(Bytes(mut share)) = message.payload else {
        return bytes.to_vec();
    };
    if let Some(byte) = share.last_mut() {
        *byte ^= 0x40;
    }
    let payload = DecryptionPayload::Partial(Bytes(share));
    DecryptionMessage::sign(message.request, message.sender, payload, identity).to_wire()
}
