//! Evidence: signed messages that show, without any secret, who broke the protocol. It is stored, served
//! to whoever asks, and taken to the chain where a contract judges it.
//!
//! What a proof shows is for its judge to check (`node/storage/src/evidence.rs`); here it only has a
//! form and a limit.

use serde::{Deserialize, Serialize};

use crate::{
    agreement::Equivocation,
    codec::{Bytes, Wire},
    decryption::{DecryptionMessage, RequestContext},
    ids::{Blake3Digest, ParticipantIndex},
    scheduling::{AssignmentCertificate, Binding, EvaluationReport, SignedCertificateVote},
};

/// A proof and the committee that it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Cluster, key set and epoch.
    pub binding: Binding,
    /// What shows it.
    pub proof: Proof,
}

/// What shows that somebody broke the protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// A member signed two votes or two proposals for one place of the agreement.
    Agreement(Box<Equivocation>),
    /// A member signed two partial decryptions for one request.
    TwoPartials(Box<(DecryptionMessage, DecryptionMessage)>),
    /// A member's partial decryption does not fit those of 2t+1 others.
    WrongPartial(Box<WrongPartial>),
    /// A member's FROST message: the encoding of `veil_committee::frost::Evidence`.
    Signing(Bytes),
    /// A member voted for two certificates of one slot. `Disputes.reportEquivocation` judges it.
    CertificateVotes(Box<(SignedCertificateVote, SignedCertificateVote)>),
    /// The group signed two certificates of one slot. `Disputes.reportGroupEquivocation` judges it.
    Certificates(Box<(AssignmentCertificate, AssignmentCertificate)>),
    /// A node signed that a slot's evaluation gives another digest than its certificate says. One of the
    /// two is wrong; `Disputes.challenge` asks governance which.
    Evaluation(Box<(EvaluationReport, AssignmentCertificate)>),
}

/// A partial decryption that does not fit those of 2t+1 others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrongPartial {
    /// Who signed it.
    pub culprit: ParticipantIndex,
    /// What the request is for.
    pub context: RequestContext,
    /// The digests of its blocks, which with the context give the request's id.
    pub blocks: Vec<Blake3Digest>,
    /// The culprit's partial decryption and 2t+1 that agree, each by another member.
    pub partials: Vec<DecryptionMessage>,
}

impl Wire for Evidence {
    const NAME: &'static str = "Evidence";
    // Version 1 knew slots that were opened once.
    const VERSION: u8 = 2;
    // Ten partial decryptions of the largest slot, 4,096 replicas of three digits, take 2 MiB.
    const MAX_BYTES: usize = 3 << 20;
}

/// The kinds of [`Proof`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceKind {
    /// [`Proof::Agreement`].
    Agreement,
    /// [`Proof::TwoPartials`].
    TwoPartials,
    /// [`Proof::WrongPartial`].
    WrongPartial,
    /// [`Proof::Signing`].
    Signing,
    /// [`Proof::CertificateVotes`].
    CertificateVotes,
    /// [`Proof::Certificates`].
    Certificates,
    /// [`Proof::Evaluation`].
    Evaluation,
}

impl EvidenceKind {
    /// All of them, in order.
    pub const ALL: [Self; 7] = [
        Self::Agreement,
        Self::TwoPartials,
        Self::WrongPartial,
        Self::Signing,
        Self::CertificateVotes,
        Self::Certificates,
        Self::Evaluation,
    ];

    /// As in the JSON output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agreement => "agreement",
            Self::TwoPartials => "two_partials",
            Self::WrongPartial => "wrong_partial",
            Self::Signing => "signing",
            Self::CertificateVotes => "certificate_votes",
            Self::Certificates => "certificates",
            Self::Evaluation => "evaluation",
        }
    }

    /// Whether a contract punishes it when it is shown the proof.
    #[must_use]
    pub const fn is_punished_on_chain(self) -> bool {
        matches!(self, Self::CertificateVotes | Self::Certificates)
    }
}

impl Evidence {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> EvidenceKind {
        match self.proof {
            Proof::Agreement(_) => EvidenceKind::Agreement,
            Proof::TwoPartials(_) => EvidenceKind::TwoPartials,
            Proof::WrongPartial(_) => EvidenceKind::WrongPartial,
            Proof::Signing(_) => EvidenceKind::Signing,
            Proof::CertificateVotes(_) => EvidenceKind::CertificateVotes,
            Proof::Certificates(_) => EvidenceKind::Certificates,
            Proof::Evaluation(_) => EvidenceKind::Evaluation,
        }
    }

    /// What it is asked for by: BLAKE3 of its encoding.
    #[must_use]
    pub fn digest(&self) -> Blake3Digest {
        Blake3Digest(*blake3::hash(&self.to_wire()).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{KeccakDigest, Slot},
        scheduling::{
            CertificateVote,
            arbitrary::{assert_wire, binding, secret},
        },
    };

    fn votes() -> Evidence {
        let member = ParticipantIndex::new(2).unwrap();
        let vote = |byte: u8| {
            let Binding { scope, epoch, .. } = binding();
            let certificate = KeccakDigest([byte; 32]);
            CertificateVote { scope, epoch, slot: Slot(3), certificate }.sign(member, &secret(2))
        };
        let proof = Proof::CertificateVotes(Box::new((vote(1), vote(2))));
        Evidence { binding: binding(), proof }
    }

    #[test]
    fn only_the_exact_bytes_decode() {
        assert_wire(&votes());
        let signing = Evidence { proof: Proof::Signing(Bytes(vec![1, 2, 3])), ..votes() };
        assert_wire(&signing);
        assert_ne!(signing.digest(), votes().digest());
    }

    #[test]
    fn kinds_have_the_names_of_their_json() {
        for kind in EvidenceKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        let json = serde_json::to_value(votes()).unwrap();
        assert!(json["proof"].get(votes().kind().name()).is_some(), "{json}");
        assert_eq!(serde_json::from_value::<Evidence>(json).unwrap(), votes());
    }
}
