//! The judge: what evidence proves, and against whom. An honest member is never convicted: it stores what
//! it signs before it sends it, and signs nothing else in its place.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use veil_committee::{
    decryption::{self, wrong_shares},
    frost::{self, GroupPublicKey, SessionContext, SigningContext},
};
use veil_protocol_spec::{
    CodecError, Epoch, ParticipantIndex, PeerIdHash, Slot, Wire,
    agreement::Equivocation,
    decryption::RequestId,
    evidence::{Evidence, EvidenceKind, Proof, WrongPartial},
    scheduling::BindingMismatch,
};

use crate::trust::Trust;

/// Who broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Culprit {
    /// More than t members of the committee together; the evidence does not say which.
    Group,
    /// A member.
    Member(ParticipantIndex),
    /// A node that is no member, or not as one.
    Node(PeerIdHash),
}

/// Where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In this slot.
    Slot(Slot),
    /// In a decryption of which nothing but its id is known.
    Request(RequestId),
}

/// What evidence proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What kind of fault.
    pub kind: EvidenceKind,
    /// By whom.
    pub culprit: Culprit,
    /// In which epoch.
    pub epoch: Epoch,
    /// Where in it.
    pub place: Place,
}

/// Why evidence is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEvidence {
    /// It is of another cluster, key set or epoch.
    #[error(transparent)]
    Binding(#[from] BindingMismatch),
    /// A message in it does not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// It proves nothing.
    #[error("the evidence does not prove a fault of its kind ({})", .0.name())]
    Nothing(EvidenceKind),
    /// It is about FROST shares, whose verifying shares only members have.
    #[error("this node has no verifying shares, and cannot judge FROST messages")]
    NoShares,
}

/// Judges evidence by what the chain publishes of a committee; `shares` are the group's.
///
/// # Errors
/// [`InvalidEvidence`].
pub fn judge(
    evidence: &Evidence,
    trust: &Trust,
    shares: Option<&Arc<GroupPublicKey>>,
) -> Result<Verdict, InvalidEvidence> {
    let Trust { binding, committee, roster, group } = trust;
    evidence.binding.check(binding)?;
    // What could not be read again or sent is not kept.
    let (len, max) = (evidence.to_wire().len(), Evidence::MAX_BYTES);
    if len > max {
        return Err(CodecError::TooLong { name: Evidence::NAME, len, max }.into());
    }
    let kind = evidence.kind();
    let nothing = || InvalidEvidence::Nothing(kind);
    let proven = |holds: bool| holds.then_some(()).ok_or_else(nothing);
    let (culprit, place) = match &evidence.proof {
        Proof::Agreement(equivocation) => {
            let member =
                equivocation.convict(binding, *committee, roster).map_err(|_| nothing())?;
            let instance = match &**equivocation {
                Equivocation::Votes(one, _) => one.vote.instance,
                Equivocation::Proposals(one, _) => one.proposal.instance,
            };
            (Culprit::Member(member), Place::Slot(instance.slot))
        }
        Proof::TwoPartials(both) => {
            let (first, second) = (**both).clone();
            let request = first.request;
            let partials = decryption::Evidence::TwoPartials { first, second };
            let member = partials.convict(roster).map_err(|_| nothing())?;
            (Culprit::Member(member), Place::Request(request))
        }
        Proof::WrongPartial(wrong) => {
            let WrongPartial { culprit, context, blocks, partials } = &**wrong;
            proven((context.key_set, context.epoch) == (binding.key_set, binding.epoch))?;
            let request = RequestId::of(context, blocks);
            proven(partials.iter().all(|partial| partial.request == request))?;
            let convicted = wrong_shares(*committee, roster, partials).map_err(|_| nothing())?;
            proven(convicted.contains(culprit))?;
            (Culprit::Member(*culprit), Place::Slot(context.slot))
        }
        Proof::Signing(bytes) => {
            let shares = shares.ok_or(InvalidEvidence::NoShares)?;
            let signing = frost::Evidence::from_wire(&bytes.0)?;
            let key = match &signing {
                frost::Evidence::Malformed(message)
                | frost::Evidence::BadShare { share: message, .. }
                | frost::Evidence::DoubleShare { first: message, .. } => message.key,
            };
            proven(key.epoch == binding.epoch)?;
            let scope = binding.scope;
            let context = SigningContext {
                chain: scope.chain_id,
                contract: scope.contract,
                cluster: scope.cluster,
                key,
            };
            let session = SessionContext::new(context, Arc::clone(shares), roster.clone());
            let session = session.map_err(|_| nothing())?;
            let member = session.convict(&signing).map_err(|_| nothing())?;
            (Culprit::Member(member), Place::Slot(key.slot))
        }
        Proof::CertificateVotes(both) => {
            let (one, other) = &**both;
            proven(one.contradicts(other))?;
            proven([one, other].iter().all(|vote| vote.verify(binding, roster).is_ok()))?;
            (Culprit::Member(one.member), Place::Slot(one.vote.slot))
        }
        Proof::Certificates(both) => {
            let (one, other) = &**both;
            for certificate in [one, other] {
                certificate.body.binding.check(binding)?;
                proven(group.verify(certificate).is_ok())?;
            }
            proven(one.body.slot == other.body.slot && one.body != other.body)?;
            (Culprit::Group, Place::Slot(one.body.slot))
        }
        Proof::Evaluation(both) => {
            let (report, certificate) = &**both;
            certificate.body.binding.check(binding)?;
            let certified = &certificate.body;
            let same =
                (report.body.slot, report.body.manifest) == (certified.slot, certified.manifest);
            proven(same && !certified.is_void())?;
            proven(report.body.outputs != certified.evaluation)?;
            proven(report.verify(binding).is_ok() && group.verify(certificate).is_ok())?;
            let peer = PeerIdHash::of(&report.body.identity);
            (Culprit::Node(peer), Place::Slot(certified.slot))
        }
    };
    Ok(Verdict { kind, culprit, epoch: binding.epoch, place })
}
