//! Byzantine agreement of the committee on two values per slot: its manifest, then how it ends.
//!
//! The algorithm is Tendermint (Buchman, Kwon, Milosevic, "The latest gossip on BFT consensus",
//! 2018), as Malachite's consensus core implements it (`docs/adr/0006-agreement.md`); messages and
//! signatures are [`veil_protocol_spec::agreement`]. This crate makes a
//! [`Machine`](veil_committee_machine::Machine) of the core.
//!
//! # Roles
//! Members of the committee take turns as proposer, by slot, subject and round. The **host** of the
//! machine writes values when it is asked to, validates those of others, stores records, carries
//! messages.
//!
//! # Inputs and effects
//! Inputs are those of every machine, and [`start`](Agreement::start) for every
//! [`Instance`](veil_protocol_spec::agreement::Instance), [`propose`](Agreement::propose) and
//! [`validated`](Agreement::validated) in answer to an effect.
//! The record is [`Record`](veil_protocol_spec::agreement::record::Record); the effects of its own
//! are [`AgreementEffect`]. The order of calls is that of
//! [every machine](veil_committee_machine#call-order).
//!
//! # Flow of a round
//! 1. The proposer's host is asked for a value ([`AgreementEffect::GetValue`]) unless one of an
//!    earlier round must be proposed again; it is sent to all with the value's encoding.
//! 2. Every member has its host validate the value ([`AgreementEffect::Validate`]) and prevotes
//!    for it, or for none if it is invalid, too late, or another one is locked.
//! 3. A member that sees 2t+1 prevotes for a value precommits to it and is locked on it.
//! 4. 2t+1 precommits of one round decide. They are the
//!    [`Lock`](veil_protocol_spec::agreement::Lock) ([`AgreementEffect::Decided`]); after that of a
//!    manifest, decryption needs no further message. Otherwise the next round begins.
//!
//! # The two instances of a slot
//! [`Subject::Manifest`](veil_protocol_spec::agreement::Subject) comes first. Its validity is what
//! the host says; when 2t+1 members voted for what the host refused, it is asked again, once in
//! every round. [`Subject::End`](veil_protocol_spec::agreement::Subject) decides what came of the
//! manifest, or that the slot is void. Its validity is what the host says, at any time and perhaps
//! never, or that t+1 other members voted for it: one of those is honest. A host's refusal holds for
//! one round. The host says of an outcome that it is valid when it computed the same, and of void
//! when the slot's time is over, also if it knows the outcome; it proposes the outcome when it knows
//! it, else void when the time is over. Why that ends is in `agreement.md`.
//!
//! # Catching up
//! A member that is stuck sends its votes again after a while and asks all others
//! ([`AgreementMessage::Ask`](veil_protocol_spec::agreement::AgreementMessage::Ask)). A member that
//! has decided answers with the lock and the value, which the asker takes for its own decision;
//! one that has not answers with the proposals and proofs that the asker may lack. Decisions of the
//! last [`KEPT_DECISIONS`] instances are kept for that; a member that is further behind learns it
//! from [`AgreementEffect::Behind`], and its host fetches
//! [`SlotRecord`](veil_protocol_spec::scheduling::SlotRecord)s. Messages of later instances wait for
//! their start within a bound. Instances may be left out; they never go back.
//!
//! # State and restart
//! The machine holds the instance it is in, early messages of later ones, and the last decisions.
//! Everything that changes it is stored before what follows from it leaves. If a record cannot be
//! stored, drop the machine: this member is silent from then on, which harms nobody. A restarted
//! machine, started for the instance of its last records, takes them in again, derives the same
//! votes, and sends those of its present round again. If it would derive another vote than the one
//! it has stored, it abstains ([`AgreementEffect::Abstained`]). It may be started for a later
//! instance instead, and answers for those before from what is stored of them.
//!
//! # Caveats
//! - Hosts may validate one manifest differently, since they received different telemetry. A member
//!   that refused a manifest for which 2t+1 others voted is asked again (`by_quorum`); hosts that
//!   insist can keep the committee from agreeing.
//! - An instance that is not decided is not given up: a decision of the others may exist. With more
//!   than t members away it waits; [`Agreement::status`] names them.
//! - That the end of a slot names the slot's locked manifest is the host's to check.
//!
//! # Example
//! A committee of one agrees with itself:
//!
//! ```
//! # use veil_protocol_spec::{
//! #     Address, Blake3Digest, ChainId, ClusterId, Committee, Epoch, KeccakDigest, KeySetDigest,
//! #     Slot, Wire, agreement::Instance, identity::SecretIdentity,
//! #     scheduling::{Binding, BlockRef, CircuitId, ClusterScope, Manifest, RolloutChanges},
//! # };
//! use veil_committee_agreement::{Agreement, AgreementConfig, AgreementEffect, Timing};
//! use veil_committee_machine::{Effect, Machine};
//! use veil_protocol_spec::agreement::record::Record;
//!
//! /// Stores at once what the machine has to store, and returns what only agreement asks for.
//! fn drain(machine: &mut Agreement, disk: &mut Vec<Record>) -> Vec<AgreementEffect> {
//!     let mut specials = Vec::new();
//!     while let Some(effect) = machine.poll_effect() {
//!         match effect {
//!             Effect::Persist { id, record } => {
//!                 disk.push(record);
//!                 machine.persisted(id);
//!             }
//!             Effect::Special(effect) => specials.push(effect),
//!             Effect::Send { .. } | Effect::Broadcast(_) => {} // nobody else is there
//!         }
//!     }
//!     specials
//! }
//!
//! # let scope = ClusterScope {
//! #     chain_id: ChainId(1), contract: Address([2; 20]), cluster: ClusterId([3; 32]),
//! # };
//! # let binding = Binding { scope, key_set: KeySetDigest([4; 32]), epoch: Epoch(0) };
//! # let committee = Committee::new(1).unwrap();
//! # let me = committee.participants().next().unwrap();
//! # let identity = SecretIdentity::from_bytes(&[1; 32]).unwrap();
//! let roster = vec![identity.public()];
//! let config = AgreementConfig { committee, binding, roster, timing: Timing::default() };
//! let (instance, mut disk) = (Instance::manifest(Slot(7)), Vec::new());
//! let mut machine = Agreement::new(config, identity, Vec::new()).unwrap();
//!
//! machine.start(instance, 0).unwrap();
//! assert_eq!(drain(&mut machine, &mut disk), [AgreementEffect::GetValue { instance, round: 0 }]);
//! # let manifest = Manifest {
//! #     binding, slot: instance.slot, proposer: me, previous: KeccakDigest([1; 32]),
//! #     block: BlockRef { number: 1, hash: KeccakDigest([2; 32]) },
//! #     base: KeccakDigest([0; 32]), jobs_seen: 0, policy: KeccakDigest([3; 32]),
//! #     circuit: CircuitId { version: 1, fingerprint: Blake3Digest([4; 32]) },
//! #     telemetry: Vec::new(), pending: Vec::new(), leaving: Vec::new(), done: Vec::new(),
//! #     lost: Vec::new(),
//! #     given_back: Vec::new(),
//! #     rollouts: RolloutChanges::default(),
//! #     runs: Vec::new(),
//! # };
//! machine.propose(instance, 0, manifest.to_wire(), 0).unwrap();
//! let effects = drain(&mut machine, &mut disk);
//! let [AgreementEffect::Decided { lock, .. }] = &effects[..] else { panic!("{effects:?}") };
//! assert_eq!((lock.value, lock.votes.len()), (manifest.digest(), 1));
//! assert!(!disk.is_empty());
//! ```

pub mod config;
mod context;
mod convert;
pub mod effect;
mod effect_queue;
mod engine;
pub mod machine;
mod run;
pub mod value;

pub use config::{AgreementConfig, SetupError, Timing};
pub use effect::{
    AgreementEffect, AgreementStatus, Fault, FaultKind, ProposeError, Skip, StartError, Validity,
};
pub use machine::{Agreement, KEPT_DECISIONS};
pub use value::{Value, ValueError};
