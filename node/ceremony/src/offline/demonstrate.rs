//! Proof that a ceremony made a working key: encrypt with the public key, compute, bootstrap, squash,
//! and decrypt with every number of members from 2t+1 to n, and with t wrong shares among them.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

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
use veil_committee_machine::{Effect, Machine, Millis, Verdict};
use veil_committee_world::{Host, Physics, Schedule, World};
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
    let values = vec![
        Value {
            what: "the input",
            blocks: squashed_blocks(&x.squash_noise()?),
            expected: a.into(),
        },
        Value {
            what: "the sum",
            blocks: squashed_blocks(&sum.squash_noise()?),
            expected: a.wrapping_add(b).into(),
        },
        Value {
            what: "the product",
            blocks: squashed_blocks(&product.squash_noise()?),
            expected: a.wrapping_mul(b).into(),
        },
        Value {
            what: "the comparison",
            blocks: squashed_blocks(&less.squash_noise()?),
            expected: (a < b).into(),
        },
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
    let values = evaluate(key_set, &mut shown)?;
    let mut bench = Bench::new(shares, identities, &values);
    shown.blocks = bench.blocks.len();
    let committee = bench.committee;
    let everybody: Vec<ParticipantIndex> = committee.participants().collect();
    for count in committee.signing_threshold().get()..=committee.n() {
        progress(&format!("decrypting with {count} of {} members", committee.n()));
        let culprits = bench.decrypt(&everybody[committee.n() - count..], &[], &values)?;
        if !culprits.is_empty() {
            return Err(DemonstrateError::Culprits { found: culprits, expected: Vec::new() });
        }
        shown.decrypted_with.push(count);
    }
    let t = committee.max_faulty().get();
    let faulty = &everybody[committee.n() - t..];
    progress(&format!("decrypting with {t} wrong shares"));
    let named = bench.decrypt(&everybody, faulty, &values)?;
    if named != faulty {
        return Err(DemonstrateError::Culprits { found: named, expected: faulty.to_vec() });
    }
    shown.wrong_shares_by = faulty.to_vec();
    shown.named = named;
    if fault == Some(FaultName::WrongPartialDecryption) {
        progress("decrypting with the last member's fault");
        let faulty = &everybody[committee.n() - 1..];
        shown.culprits = bench.decrypt(&everybody, faulty, &values)?;
        if shown.culprits != faulty {
            return Err(DemonstrateError::Culprits {
                found: shown.culprits,
                expected: faulty.to_vec(),
            });
        }
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
    blocks: Vec<SquashedBlock>,
    slot: u64,
}

impl<'a> Bench<'a> {
    fn new(
        shares: &'a [Arc<KeyShare>],
        identities: &'a [SecretIdentity],
        values: &[Value],
    ) -> Self {
        let committee = shares[0].origin().committee;
        let blocks = values.iter().flat_map(|value| value.blocks.iter().cloned()).collect();
        Self { committee, shares, identities, blocks, slot: 0 }
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
        RequestContext {
            key_set: origin.key_set,
            epoch: origin.epoch,
            slot: Slot(self.slot),
            manifest: Blake3Digest(manifest),
        }
    }

    fn lock(&self, context: &RequestContext) -> Lock {
        let RequestContext { key_set, epoch, slot, manifest } = *context;
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
        let votes = self
            .committee
            .participants()
            .zip(self.identities)
            .take(quorum)
            .map(|(j, identity)| (j, identity.sign(&digest)))
            .collect();
        Lock { binding, instance, round, value: manifest, votes }
    }

    /// Decrypts the blocks with some members, of which some send wrong shares; checks the values; returns whom the
    /// honest ones named.
    fn decrypt(
        &mut self,
        with: &[ParticipantIndex],
        faulty: &[ParticipantIndex],
        values: &[Value],
    ) -> Result<Vec<ParticipantIndex>, DemonstrateError> {
        self.slot += 1;
        let context = self.context();
        let lock = self.lock(&context);
        let decryptor = |j: &ParticipantIndex| {
            let mut member = self.decryptor(*j)?;
            let outputs = RecomputedOutputs { context, blocks: self.blocks.clone() };
            member
                .authorise(outputs, &lock, 0)
                .map_err(|refusal| DemonstrateError::Refused(*j, refusal.to_string()))?;
            Ok((*j, member))
        };
        let members = with.iter().map(decryptor).collect::<Result<_, DemonstrateError>>()?;
        let identities = self.identities;
        let host = Members { members, faulty, identities, phases: None, named: Vec::new() };
        // An instant network draws nothing.
        let physics = Physics::INSTANT;
        let mut world =
            World::new("demonstrate", host, self.committee, physics, Vec::new(), [0; 32]);
        world.run();
        let (Members { phases, mut named, .. }, _) = world.end();
        let phases = phases.ok_or_else(|| DemonstrateError::Incomplete(with.to_vec()))?;
        let mut rest = phases.as_slice();
        for Value { what, blocks, expected } in values {
            let (these, others) = rest.split_at(blocks.len());
            rest = others;
            let found = decode_blocks(these)?;
            if found != *expected {
                return Err(DemonstrateError::Wrong { what, found, expected: *expected });
            }
        }
        named.sort_unstable();
        named.dedup();
        Ok(named)
    }

    /// a = 2^127 e_0, b = 0 would give bit 0 of Q away: everybody is asked for its decryption.
    fn refuse_crafted(&mut self) -> Result<Vec<ParticipantIndex>, DemonstrateError> {
        self.slot += 1;
        let context = self.context();
        let mut mask = vec![0; self.shares[0].dimension()];
        if let Some(word) = mask.first_mut() {
            *word = 1 << 127;
        }
        let crafted = SquashedBlock { mask, body: 0 };
        let request = RequestId::of(&context, &[crafted.digest()]);
        let everybody: Vec<_> = self.committee.participants().collect();
        let Some(asking) = everybody.last().copied() else { return Ok(Vec::new()) };
        let mut refused = Vec::new();
        let message = DecryptionMessage::sign(
            request,
            asking,
            DecryptionPayload::Request,
            &self.identities[asking.position()],
        );
        for j in everybody.into_iter().filter(|j| *j != asking) {
            let mut member = self.decryptor(j)?;
            let verdict = member.handle(asking, &message.to_wire(), 0);
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
    named: Vec<ParticipantIndex>,
}

impl Host for Members<'_> {
    type Machine = Decryptor;
    type Input = Infallible;
    type Event = Infallible;
    type Moment = ();

    fn boot(&mut self, j: ParticipantIndex, _schedule: &mut Schedule<Self>) -> Option<Decryptor> {
        self.members.remove(&j)
    }

    fn input(_machine: &mut Decryptor, input: Infallible, _now: Millis) {
        match input {}
    }

    fn special(
        &mut self,
        j: ParticipantIndex,
        effect: DecryptionEffect,
        _schedule: &mut Schedule<Self>,
    ) {
        match effect {
            _ if self.faulty.contains(&j) => {}
            DecryptionEffect::Complete(done) => self.phases = Some(done.combined.phases),
            DecryptionEffect::WrongShare { culprit, .. } => self.named.push(culprit),
            DecryptionEffect::Refused { .. } | DecryptionEffect::Outstanding { .. } => {}
        }
    }

    fn leave(
        &mut self,
        from: ParticipantIndex,
        _to: ParticipantIndex,
        bytes: &Arc<[u8]>,
        _now: Millis,
    ) -> Vec<Arc<[u8]>> {
        if self.faulty.contains(&from) {
            vec![falsify(bytes, &self.identities[from.position()]).into()]
        } else {
            vec![Arc::clone(bytes)]
        }
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
