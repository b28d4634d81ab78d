//! The agreement on manifests over the simulated network, in virtual time.
//!
//! ```
//! use veil_tests::agreement::AgreementPlan;
//!
//! let report = AgreementPlan::new(4).slots(2).silent(3).run(1);
//! report.assert_agreed();
//! ```

use std::collections::{BTreeMap, BTreeSet};

use veil_protocol_spec::{
    Blake3Digest, Committee, Epoch, KeySetDigest, ParticipantIndex, PublicIdentity, Slot,
    decryption::ManifestLock,
    scheduling::{Binding, Manifest},
};

use self::room::Room;
use crate::{
    fixtures,
    network::{Conditions, Millis},
    plan::member,
};

mod room;

/// The cluster of every run.
#[must_use]
pub const fn binding() -> Binding {
    Binding { scope: fixtures::SCOPE, key_set: KeySetDigest([0xde; 32]), epoch: Epoch(2) }
}

/// A member that loses everything but its disk.
#[derive(Clone, Copy, Debug)]
pub struct AgreementCrash {
    /// Who.
    pub member: ParticipantIndex,
    /// Before it carries out its effect of this number, from 0.
    pub at_effect: u64,
    /// How long it is away.
    pub away: Millis,
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub struct AgreementPlan {
    n: u8,
    slots: u64,
    conditions: Conditions,
    silent: BTreeSet<ParticipantIndex>,
    equivocators: BTreeSet<ParticipantIndex>,
    refused: BTreeSet<ParticipantIndex>,
    strict: BTreeSet<ParticipantIndex>,
    crashes: Vec<AgreementCrash>,
}

impl AgreementPlan {
    /// One slot in which nothing goes wrong.
    #[must_use]
    pub fn new(n: u8) -> Self {
        Self {
            n,
            slots: 1,
            conditions: Conditions::default(),
            silent: BTreeSet::new(),
            equivocators: BTreeSet::new(),
            refused: BTreeSet::new(),
            strict: BTreeSet::new(),
            crashes: Vec::new(),
        }
    }

    /// How many slots to decide.
    #[must_use]
    pub const fn slots(mut self, slots: u64) -> Self {
        self.slots = slots;
        self
    }

    /// The network.
    #[must_use]
    pub fn conditions(mut self, conditions: Conditions) -> Self {
        self.conditions = conditions;
        self
    }

    /// A member that is away.
    #[must_use]
    pub fn silent(mut self, j: u8) -> Self {
        self.silent.insert(member(j));
        self
    }

    /// A member that sends one half of the others different proposals and votes.
    #[must_use]
    pub fn equivocator(mut self, j: u8) -> Self {
        self.equivocators.insert(member(j));
        self
    }

    /// A proposer whose manifests break a rule that all members see alike.
    #[must_use]
    pub fn refused(mut self, j: u8) -> Self {
        self.refused.insert(member(j));
        self
    }

    /// A member that refuses all manifests but its own for what it received itself.
    #[must_use]
    pub fn strict(mut self, j: u8) -> Self {
        self.strict.insert(member(j));
        self
    }

    /// A member that crashes and comes back.
    #[must_use]
    pub fn crash(mut self, j: u8, at_effect: u64, away: Millis) -> Self {
        self.crashes.push(AgreementCrash { member: member(j), at_effect, away });
        self
    }

    fn is_honest(&self, j: ParticipantIndex) -> bool {
        !self.silent.contains(&j) && !self.equivocators.contains(&j)
    }

    /// Runs until every honest member has decided every slot, or for an hour of virtual time.
    ///
    /// # Panics
    /// If an honest member contradicts itself, locks two manifests in a slot, or gives out an
    /// effect that its configuration rules out.
    #[must_use]
    pub fn run(&self, seed: u64) -> AgreementReport {
        let mut room = Room::new(self.clone(), seed);
        room.run();
        room.report()
    }
}

/// An agreement, slot by slot.
#[derive(Clone, Debug)]
pub struct AgreementReport {
    /// The plan.
    pub plan: AgreementPlan,
    /// Seed of the run.
    pub seed: u64,
    /// The decisions of each honest member.
    pub locks: BTreeMap<ParticipantIndex, BTreeMap<Slot, (ManifestLock, Manifest)>>,
    /// Slots that a member took from certificates, since it was too far behind.
    pub fetched: BTreeMap<ParticipantIndex, BTreeSet<Slot>>,
    /// Whom an honest member convicted.
    pub convicted: BTreeSet<ParticipantIndex>,
    /// Members that abstained, and why.
    pub abstained: Vec<(ParticipantIndex, String)>,
    /// Second questions about a manifest that 2t+1 others voted for.
    pub appeals: u64,
    /// Virtual time of each decision.
    pub times: BTreeMap<(ParticipantIndex, Slot), Millis>,
    /// Effects carried out by each member.
    pub effects: BTreeMap<ParticipantIndex, u64>,
    /// Virtual time at the end.
    pub elapsed: Millis,
    /// BLAKE3 over every delivered event.
    pub trace: Blake3Digest,
}

impl AgreementReport {
    /// The manifest of a slot, if anyone locked one.
    #[must_use]
    pub fn manifest(&self, slot: u64) -> Option<&Manifest> {
        let (_, manifest) = self.locks.values().find_map(|locks| locks.get(&Slot(slot)))?;
        Some(manifest)
    }

    /// All honest members have decided all slots, each slot in one way, with sound locks.
    ///
    /// # Panics
    /// If not.
    pub fn assert_agreed(&self) {
        let committee = Committee::new(self.plan.n).expect("the plan's size is supported");
        let roster = roster(committee, self.seed);
        for (j, locks) in &self.locks {
            for slot in (1..=self.plan.slots).map(Slot) {
                let here = locks.get(&slot).map(|(lock, manifest)| {
                    assert_eq!(lock.verify(committee, &roster), Ok(()), "seed {}", self.seed);
                    assert_eq!((lock.slot, lock.binding), (slot, binding()));
                    assert_eq!(lock.manifest, manifest.digest());
                    manifest
                });
                let fetched = self.fetched.get(j).is_some_and(|slots| slots.contains(&slot));
                assert!(
                    here.is_some() || fetched,
                    "seed {}: member {j} has not decided slot {slot} after {} ms",
                    self.seed,
                    self.elapsed,
                );
                let expected = self.manifest(slot.0);
                assert!(here.is_none_or(|m| Some(m) == expected), "seed {}: {slot}", self.seed);
            }
        }
    }
}

fn roster(committee: Committee, seed: u64) -> Vec<PublicIdentity> {
    committee.participants().map(|j| fixtures::identity(seed, j).public()).collect()
}
