//! Members that deviate in slots.

use std::sync::Arc;

use rand::{Rng, RngCore};
use rand_chacha::ChaCha20Rng;
use serde::{Deserialize, Serialize};
use veil_protocol_spec::{
    Blake3Digest, KeccakDigest, ParticipantIndex, ReplicaIndex, Slot, Wire,
    agreement::{AgreementMessage, Instance, SignedVote, SlotEnd, Subject, Vote},
    codec::Bytes,
    identity::SecretIdentity,
    scheduling::{
        EndedReplica, GiveBackReason, GivenBack, LeavingReplica, LostWorker, Manifest, Note,
        PendingReplica, ReplicaExit, RunChange, RunStep, SAMPLE, SignedSuspicion,
    },
};

use super::messages::{self, Kind};
use crate::agreement::binding;

/// What a member does that others do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotBehaviour {
    /// Says nothing.
    Silent,
    /// Evaluates a minute longer than the others. It is honest.
    Slow,
    /// Tells one half of the others something else, in every vote.
    EquivocateVotes,
    /// Proposes something else to one half of the others.
    EquivocateProposals,
    /// Votes for none, whatever it thinks.
    VoteForNone,
    /// Finds every manifest of the others invalid.
    RefuseManifests,
    /// Leaves a worker out of its manifests.
    LeaveOut,
    /// Names telemetry that nobody has.
    BogusTelemetry,
    /// Names a job that nobody has submitted.
    BogusJob,
    /// Says that a worker is lost, with signatures that are none.
    FalseLoss,
    /// Names another certificate before.
    WrongPrevious,
    /// Names a block that there is not.
    WrongBlock,
    /// Has something leave that its operator wants.
    ForgetRunning,
    /// Leaves out what has ended.
    ForgetEnded,
    /// Says of what has ended that it ended otherwise, or says it of what nobody runs.
    BogusDone,
    /// Leaves out what workers give back.
    ForgetGivenBack,
    /// Says of what nobody runs that its worker has given it back.
    BogusGivenBack,
    /// Proposes that slots end void.
    ProposeVoid,
    /// Proposes an outcome that nobody has computed.
    ProposeWrongOutcome,
    /// Proposes the end of another manifest.
    ProposeOtherEnd,
    /// Evaluates to something else.
    WrongEvaluation,
    /// Does not open.
    WithholdOpening,
    /// Does not sign.
    WithholdSignature,
    /// Sends bytes that mean nothing.
    Garbage,
    /// Sends what it and others sent before.
    Replay,
    /// Cuts messages.
    Truncate,
    /// Sends everything many times.
    Flood,
    /// Signs that workers are lost which are there.
    SuspectAll,
    /// Brings the oldest certificate on chain that can be, at once.
    AnchorOldest,
    /// Leaves out which periodic jobs are run.
    ForgetRuns,
    /// Has a periodic job run for another time than it has, or one that nobody wants.
    BogusRuns,
}

impl SlotBehaviour {
    /// All of them.
    pub const ALL: [Self; 31] = [
        Self::Silent,
        Self::Slow,
        Self::EquivocateVotes,
        Self::EquivocateProposals,
        Self::VoteForNone,
        Self::RefuseManifests,
        Self::LeaveOut,
        Self::BogusTelemetry,
        Self::BogusJob,
        Self::FalseLoss,
        Self::WrongPrevious,
        Self::WrongBlock,
        Self::ForgetRunning,
        Self::ForgetEnded,
        Self::BogusDone,
        Self::ForgetGivenBack,
        Self::BogusGivenBack,
        Self::ProposeVoid,
        Self::ProposeWrongOutcome,
        Self::ProposeOtherEnd,
        Self::WrongEvaluation,
        Self::WithholdOpening,
        Self::WithholdSignature,
        Self::Garbage,
        Self::Replay,
        Self::Truncate,
        Self::Flood,
        Self::SuspectAll,
        Self::AnchorOldest,
        Self::ForgetRuns,
        Self::BogusRuns,
    ];

    /// In which phases of a slot it can deviate.
    #[must_use]
    pub const fn phases(self) -> &'static [&'static str] {
        const MANIFEST: &str = messages::of(Instance::manifest(Slot(1)));
        const END: &str = messages::of(Instance::end(Slot(1)));
        const OPENING: &str = Kind::Opening(0).phase();
        const SIGNING: &str = Kind::Signing.phase();
        match self {
            Self::Silent | Self::Garbage | Self::Replay | Self::Truncate | Self::Flood => {
                &[MANIFEST, END, OPENING, SIGNING, "certificates"]
            }
            Self::EquivocateVotes | Self::VoteForNone | Self::EquivocateProposals => {
                &[MANIFEST, END]
            }
            Self::LeaveOut
            | Self::BogusTelemetry
            | Self::BogusJob
            | Self::FalseLoss
            | Self::WrongPrevious
            | Self::WrongBlock
            | Self::ForgetRunning
            | Self::ForgetEnded
            | Self::BogusDone
            | Self::ForgetGivenBack
            | Self::BogusGivenBack
            | Self::ForgetRuns
            | Self::BogusRuns => &[MANIFEST],
            Self::ProposeVoid | Self::ProposeWrongOutcome | Self::ProposeOtherEnd => &[END],
            Self::RefuseManifests => &["the validation of manifests"],
            Self::Slow | Self::WrongEvaluation => &["the evaluation"],
            Self::WithholdOpening => &[OPENING],
            Self::WithholdSignature => &[SIGNING],
            Self::SuspectAll => &["suspicions"],
            Self::AnchorOldest => &["the anchoring"],
        }
    }

    pub(super) const fn withholds(self, kind: Kind) -> bool {
        matches!(
            (self, kind),
            (Self::WithholdOpening, Kind::Opening(_)) | (Self::WithholdSignature, Kind::Signing)
        )
    }

    /// What it proposes in place of what its machine wrote.
    pub(super) fn proposes(self, instance: Instance, value: &[u8]) -> Vec<u8> {
        let changed = match instance.subject {
            Subject::Manifest => {
                Manifest::from_wire(value).ok().map(|manifest| self.writes(manifest).to_wire())
            }
            Subject::End => SlotEnd::from_wire(value).ok().map(|end| self.ends(end).to_wire()),
        };
        changed.unwrap_or_else(|| value.to_vec())
    }

    fn writes(self, mut manifest: Manifest) -> Manifest {
        match self {
            Self::LeaveOut => drop(manifest.telemetry.pop()),
            Self::BogusTelemetry => {
                if let Some(entry) = manifest.telemetry.first_mut() {
                    entry.digest = Blake3Digest([0xbb; 32]);
                }
            }
            Self::BogusJob => manifest.pending.push(PendingReplica {
                submission: u64::MAX,
                job: Blake3Digest([0xbb; 32]),
                replica: ReplicaIndex(0),
                only: None,
                candidates: SAMPLE,
            }),
            Self::FalseLoss => {
                if let Some(entry) = manifest.telemetry.pop() {
                    let signed = |j: u8| SignedSuspicion {
                        member: ParticipantIndex::new(j).expect("a committee has two members"),
                        lost_for: 0,
                        signature: veil_protocol_spec::Signature([7; 64]),
                    };
                    let suspicions = vec![signed(1), signed(2)];
                    manifest.lost = vec![LostWorker { worker: entry.sender, suspicions }];
                }
            }
            Self::WrongPrevious => manifest.previous = KeccakDigest([0xbb; 32]),
            Self::WrongBlock => manifest.block.hash = KeccakDigest([0xbb; 32]),
            Self::ForgetRunning => manifest
                .leaving
                .push(LeavingReplica { job: Blake3Digest([0xbb; 32]), replica: ReplicaIndex(0) }),
            Self::ForgetEnded => manifest.done.clear(),
            Self::BogusDone => match manifest.done.first_mut() {
                Some(done) => done.exit.code = Some(77),
                None => manifest.done.push(EndedReplica {
                    job: Blake3Digest([0xbb; 32]),
                    replica: ReplicaIndex(0),
                    exit: ReplicaExit::default(),
                }),
            },
            Self::ForgetGivenBack => manifest.given_back.clear(),
            Self::BogusGivenBack => manifest.given_back.push(GivenBack {
                job: Blake3Digest([0xff; 32]),
                replica: ReplicaIndex(0),
                placed: Slot(1),
                reason: GiveBackReason::Evicted,
                until: None,
                has_stopped: true,
                note: Note::default(),
            }),
            Self::ForgetRuns => manifest.runs.clear(),
            Self::BogusRuns => match manifest.runs.first_mut().map(|change| &mut change.step) {
                Some(
                    RunStep::Noted { time } | RunStep::Begins { time } | RunStep::LeftOut { time },
                ) => *time = time.saturating_sub(60),
                _ => manifest.runs.push(RunChange {
                    job: Blake3Digest([0xff; 32]),
                    step: RunStep::Begins { time: 60 },
                }),
            },
            _ => {}
        }
        manifest
    }

    const fn ends(self, mut end: SlotEnd) -> SlotEnd {
        match self {
            Self::ProposeVoid => end.outcome = None,
            Self::ProposeOtherEnd => end.manifest = Blake3Digest([0xbb; 32]),
            Self::ProposeWrongOutcome => {
                if let Some(outcome) = &mut end.outcome {
                    outcome.state_root = KeccakDigest([0xbb; 32]);
                }
            }
            _ => {}
        }
        end
    }

    /// What leaves it in place of a message.
    pub(super) fn sends(
        self,
        to: ParticipantIndex,
        bytes: &Arc<[u8]>,
        identity: &SecretIdentity,
        heard: &[Arc<[u8]>],
        rng: &mut ChaCha20Rng,
    ) -> Vec<Arc<[u8]>> {
        let same = || vec![Arc::clone(bytes)];
        let other_half = to.get().is_multiple_of(2);
        match self {
            Self::Silent => Vec::new(),
            Self::EquivocateVotes if other_half => {
                vec![changed_vote(bytes, identity, |vote| other_value(vote.value))]
            }
            Self::VoteForNone => vec![changed_vote(bytes, identity, |_| None)],
            Self::EquivocateProposals if other_half => {
                vec![changed_proposal(bytes, identity)]
            }
            Self::Garbage => {
                let mut garbage = vec![0; rng.gen_range(0..200)];
                rng.fill_bytes(&mut garbage);
                if let Some(kind) = garbage.first_mut() {
                    *kind %= 4;
                }
                vec![garbage.into(), Arc::clone(bytes)]
            }
            Self::Replay => {
                let old = heard.get(rng.gen_range(0..heard.len().max(1))).cloned();
                same().into_iter().chain(old).collect()
            }
            Self::Truncate if other_half => vec![bytes[..bytes.len() / 2].into()],
            Self::Flood => vec![Arc::clone(bytes); 8],
            _ => same(),
        }
    }
}

fn other_value(value: Option<Blake3Digest>) -> Option<Blake3Digest> {
    value.is_none().then_some(Blake3Digest([0xbb; 32]))
}

fn changed_vote(
    bytes: &Arc<[u8]>,
    identity: &SecretIdentity,
    value: impl Fn(&Vote) -> Option<Blake3Digest>,
) -> Arc<[u8]> {
    match messages::agreement_of(bytes) {
        Some(AgreementMessage::Vote(SignedVote { vote, .. })) => {
            let vote = Vote { value: value(&vote), ..vote }.sign(&binding(), identity);
            messages::agreement(&AgreementMessage::Vote(vote))
        }
        _ => Arc::clone(bytes),
    }
}

fn changed_proposal(bytes: &Arc<[u8]>, identity: &SecretIdentity) -> Arc<[u8]> {
    let Some(AgreementMessage::Proposal(signed, value)) = messages::agreement_of(bytes) else {
        return Arc::clone(bytes);
    };
    let mut proposal = signed.proposal;
    let value = match proposal.instance.subject {
        Subject::Manifest => Manifest::from_wire(&value.0).ok().map(|mut manifest| {
            manifest.telemetry.pop();
            proposal.value = manifest.digest();
            manifest.to_wire()
        }),
        Subject::End => SlotEnd::from_wire(&value.0).ok().map(|end| {
            let end = SlotEnd { outcome: None, ..end };
            proposal.value = end.digest();
            end.to_wire()
        }),
    };
    let Some(value) = value else { return Arc::clone(bytes) };
    proposal.locked_in = None;
    let signed = proposal.sign(&binding(), identity);
    messages::agreement(&AgreementMessage::Proposal(signed, Bytes(value)))
}
