//! What came of a run, and the properties that every run has.

use core::fmt;
use std::sync::Arc;

use tfhe::xof_key_set::CompressedXofKeySet;
use veil_committee::key_share::KeyShare;
use veil_committee_machine::Millis;
use veil_committee_world::{EventLog, Traffic};
use veil_keygen_ceremony::{
    machine::{AbortReport, CommitPoint, Fault, Outcome, Record, ResumeError, Stage},
    transcript::Transcript,
};
use veil_protocol_spec::{
    Attempt, Blake3Digest, KeySetDigest, ParticipantIndex,
    ceremony::{AbortReason, CeremonyParameters, Round, SignedMessage},
};

use crate::{ceremony::scenario::CeremonyPlan, disk::Disk};

/// How an attempt ended for one member.
#[derive(Clone, Debug)]
pub enum Ending {
    /// With a key.
    Completed(Outcome),
    /// Without one.
    Aborted(Box<AbortReport>),
    /// It could not go on after a crash.
    Stuck(ResumeError),
    /// Not at all.
    Undecided,
}

/// What a member made of the messages it got.
#[derive(Clone, Debug, Default)]
pub struct Verdicts {
    /// Taken.
    pub valid: u64,
    /// Left aside.
    pub skipped: u64,
    /// Refused: bringer and reason.
    pub faults: Vec<(ParticipantIndex, Fault)>,
}

/// One member after a run.
#[derive(Clone)]
pub struct MemberReport {
    /// Who.
    pub participant: ParticipantIndex,
    /// Whether it followed the protocol.
    pub honest: bool,
    /// How it ended.
    pub ending: Ending,
    /// Its last stage.
    pub stage: Stage,
    /// Verdicts over all its lives.
    pub verdicts: Verdicts,
    /// What it sent.
    pub traffic: Traffic,
    /// How often it came back from a crash.
    pub resumed: u32,
    /// Its disk.
    pub disk: Disk,
    /// Broadcast messages, as it knows them.
    pub broadcasts: Vec<SignedMessage>,
    /// Its key share, if it has one.
    pub key_share: Option<Arc<KeyShare>>,
    /// The key set, if it has one.
    pub key_set: Option<Arc<CompressedXofKeySet>>,
}

/// A property that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Violation {
    #[error("participant {0} sent two different {1} messages to {2:?}")]
    TwoMessages(ParticipantIndex, Round, Option<ParticipantIndex>),
    #[error("participant {0} signed both FINISH and ABORT")]
    FinishAndAbort(ParticipantIndex),
    #[error("participant {0} sent its {1} message before it was durable")]
    NotPersisted(ParticipantIndex, Round),
    #[error("participant {0} published a certificate that is not valid")]
    BadCertificate(ParticipantIndex),
    #[error("participant {0} signed FINISH and still has its seed on disk")]
    SeedKept(ParticipantIndex),
    #[error("participant {0} was not decided at the end")]
    Undecided(ParticipantIndex),
    #[error("participant {0} could not resume: {1}")]
    Stuck(ParticipantIndex, ResumeError),
    #[error("participants {0} and {1} ended differently")]
    Split(ParticipantIndex, ParticipantIndex),
    #[error("participant {0} completed with another key or root than was published")]
    OtherKey(ParticipantIndex),
    #[error("participant {0} finished, but its key share is missing")]
    NoKeyShare(ParticipantIndex),
    #[error("participant {0} ended without a key and still has a key share on disk")]
    KeyShareKept(ParticipantIndex),
    #[error("participant {by} blames honest participants: {reason}")]
    Framed { by: ParticipantIndex, reason: AbortReason },
    #[error("participant {by} finds fault with what honest participant {from} brought: {fault}")]
    HonestFault { by: ParticipantIndex, from: ParticipantIndex, fault: Fault },
    #[error("participant {0} failed by itself: {1}")]
    LocalFailure(ParticipantIndex, String),
    #[error("the run was still going at {0} ms")]
    Endless(Millis),
}

/// A run.
#[derive(Clone)]
pub struct Report {
    /// What was to go wrong.
    pub plan: CeremonyPlan,
    /// What everything was drawn from.
    pub seed: u64,
    /// What the members agreed on beforehand.
    pub parameters: CeremonyParameters,
    /// The attempt.
    pub attempt: Attempt,
    /// What happened, event by event.
    pub log: EventLog,
    /// Members in order.
    pub members: Vec<MemberReport>,
    /// What the commit point decided.
    pub decision: Option<CommitPoint>,
    /// Properties that did not hold.
    pub violations: Vec<Violation>,
    /// Virtual time of the last event.
    pub ended_at: Millis,
    /// Every message sent.
    pub wire: Vec<(ParticipantIndex, Arc<[u8]>)>,
}

impl Report {
    /// Adds what can be judged only at the end.
    pub(crate) fn judge(mut self) -> Self {
        let mut found = Vec::new();
        let honest: Vec<&MemberReport> = self.honest().collect();
        for member in &honest {
            let j = member.participant;
            match &member.ending {
                Ending::Completed(outcome) => {
                    let published = match &self.decision {
                        Some(CommitPoint::Published(certificate)) => Some(certificate.root),
                        _ => None,
                    };
                    if published != Some(outcome.certificate.root) {
                        found.push(Violation::OtherKey(j));
                    }
                    if member.key_share.is_none() || member.key_set.is_none() {
                        found.push(Violation::NoKeyShare(j));
                    }
                }
                Ending::Aborted(report) => {
                    found.extend(self.judge_reason(j, &report.reason));
                    let records = &member.disk.records;
                    if records.iter().any(|record| matches!(record, Record::KeyShare(_))) {
                        found.push(Violation::KeyShareKept(j));
                    }
                }
                Ending::Stuck(error) => found.push(Violation::Stuck(j, error.clone())),
                Ending::Undecided => found.push(Violation::Undecided(j)),
            }
            let finished = member.disk.holds(j, Round::Finish);
            if finished && member.disk.seed.is_some() {
                found.push(Violation::SeedKept(j));
            }
            if finished && member.disk.holds(j, Round::Abort) {
                found.push(Violation::FinishAndAbort(j));
            }
            for (from, fault) in &member.verdicts.faults {
                let relayed = matches!(fault, Fault::Equivocation { sender, .. }
                    if !self.plan.is_honest(*sender));
                if self.plan.is_honest(*from) && !relayed {
                    let fault = fault.clone();
                    found.push(Violation::HonestFault { by: j, from: *from, fault });
                }
            }
        }
        for pair in honest.windows(2) {
            if key_of(pair[0]) != key_of(pair[1]) {
                found.push(Violation::Split(pair[0].participant, pair[1].participant));
            }
        }
        self.violations.extend(found);
        self
    }

    /// Nobody who followed the protocol is accused of more than silence, and in a good network not
    /// of that.
    fn judge_reason(&self, by: ParticipantIndex, reason: &AbortReason) -> Option<Violation> {
        let bad = |j: &ParticipantIndex| !self.plan.is_honest(*j);
        let fair = match reason {
            AbortReason::PeerAborted { .. } | AbortReason::Expired => true,
            AbortReason::MissingMessage { missing, .. }
            | AbortReason::MissingChunk { missing, .. } => {
                !self.plan.is_good_network() || missing.iter().all(bad)
            }
            AbortReason::EchoMismatch { accused, echoed_by, .. } => bad(accused) || bad(echoed_by),
            AbortReason::Local { detail } => {
                return Some(Violation::LocalFailure(by, detail.clone()));
            }
            AbortReason::InconsistentShares { .. } | AbortReason::InvalidKeySet { .. } => {
                self.honest().count() < self.members.len()
            }
            _ => !reason.accused().is_empty() && reason.accused().iter().all(bad),
        };
        (!fair).then(|| Violation::Framed { by, reason: reason.clone() })
    }

    /// BLAKE3 over every event.
    #[must_use]
    pub fn trace(&self) -> Blake3Digest {
        self.log.trace()
    }

    /// Members that follow the protocol.
    pub fn honest(&self) -> impl Iterator<Item = &MemberReport> {
        self.members.iter().filter(|member| member.honest)
    }

    /// One member.
    #[must_use]
    pub fn member(&self, j: ParticipantIndex) -> &MemberReport {
        &self.members[j.position()]
    }

    /// Reasons of the honest members that aborted of themselves, not because somebody else did.
    #[must_use]
    pub fn reasons(&self) -> Vec<(ParticipantIndex, &AbortReason)> {
        self.honest()
            .filter_map(|member| match &member.ending {
                Ending::Aborted(report) => Some((member.participant, &report.reason)),
                _ => None,
            })
            .filter(|(_, reason)| {
                !matches!(reason, AbortReason::PeerAborted { by }
                    if self.plan.is_honest(*by))
            })
            .collect()
    }

    /// Panics with plan and seed unless every property holds: all honest members complete with one
    /// key, or none does; nobody equivocates; nobody is framed.
    ///
    /// # Panics
    /// As said.
    #[track_caller]
    pub fn assert_safe(&self) {
        if let Some(first) = self.violations.first() {
            self.fail(&first.to_string());
        }
    }

    /// Safe, and every honest member has the key.
    ///
    /// # Panics
    /// Unless.
    #[track_caller]
    pub fn assert_completed(&self) -> KeySetDigest {
        self.assert_safe();
        match self.honest().map(key_of).next().flatten() {
            Some((key_set, _)) => key_set,
            None => self.fail("nobody completed"),
        }
    }

    /// Safe, nobody has a key, and every reason that is an honest member's own passes.
    ///
    /// # Panics
    /// Unless.
    #[track_caller]
    pub fn assert_aborted(&self, expected: impl Fn(&AbortReason) -> bool) {
        self.assert_safe();
        if self.honest().any(|member| key_of(member).is_some()) {
            self.fail("the attempt completed");
        }
        let reasons = self.reasons();
        if reasons.is_empty() {
            self.fail("nobody knows why the attempt failed");
        }
        if let Some((j, reason)) = reasons.iter().find(|(_, reason)| !expected(reason)) {
            self.fail(&format!("participant {j} aborted for another reason: {reason}"));
        }
    }

    /// Panics with all that is needed to repeat the run.
    ///
    /// # Panics
    /// Always.
    #[track_caller]
    pub fn fail(&self, what: &str) -> ! {
        self.plan.fail(&format!("{what}\n{self}"), self.seed, &self.log)
    }

    /// The public transcript, as a member that completed would publish it.
    #[must_use]
    pub fn transcript(&self) -> Option<Transcript> {
        let member = self.honest().find(|member| key_of(member).is_some())?;
        let messages = member
            .broadcasts
            .iter()
            .filter(|message| message.header.round != Round::Abort)
            .cloned()
            .collect();
        Some(Transcript { parameters: self.parameters.clone(), attempt: self.attempt, messages })
    }
}

fn key_of(member: &MemberReport) -> Option<(KeySetDigest, Blake3Digest)> {
    match &member.ending {
        Ending::Completed(outcome) => Some((outcome.key_set, outcome.certificate.root)),
        _ => None,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "trace {}, ended at {} ms", self.trace(), self.ended_at)?;
        for member in &self.members {
            let MemberReport { participant, honest, stage, traffic, resumed, .. } = member;
            let kind = if *honest { "honest" } else { "malicious" };
            write!(f, "participant {participant} ({kind}, {stage:?}, resumed {resumed} times, ")?;
            write!(f, "{} bytes in {} messages): ", traffic.bytes, traffic.messages)?;
            match &member.ending {
                Ending::Completed(outcome) => writeln!(f, "completed {}", outcome.key_set)?,
                Ending::Aborted(report) => {
                    writeln!(f, "aborted in {:?}: {}", report.stage, report.reason)?;
                }
                Ending::Stuck(error) => writeln!(f, "stuck: {error}")?,
                Ending::Undecided => writeln!(f, "undecided")?,
            }
        }
        self.violations.iter().try_for_each(|violation| writeln!(f, "VIOLATED: {violation}"))
    }
}
