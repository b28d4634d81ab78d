//! Errors of elections, ceremonies and disputes as sentences.

use veil_contracts::{
    committee_election::CommitteeElection::CommitteeElectionErrors as Election,
    disputes::Disputes::DisputesErrors as Disputes,
    key_ceremony::KeyCeremony::KeyCeremonyErrors as Ceremony,
};

use super::words::{Common, account, common, not_admin, short, unix};

pub(super) fn ceremony(error: &Ceremony) -> String {
    match error {
        Ceremony::NotClusterAdmin(e) => not_admin(&e.cluster, &e.caller),
        Ceremony::WrongEpoch(e) => {
            format!("the next key is that of epoch {}, not {}", e.expected, e.given)
        }
        Ceremony::WrongAttempt(e) => {
            format!("the next attempt is {}, not {}", e.expected, e.given)
        }
        Ceremony::AttemptStillOpen(e) => format!(
            "attempt {} may publish until {} (Unix time): wait, or end it with `veil ceremony abort`",
            e.attempt, e.deadline
        ),
        Ceremony::InvalidDeadline(e) => format!(
            "the deadline {} is past or too far away: give one up to {} (Unix time of the chain)",
            e.deadline, e.latest
        ),
        Ceremony::TooFewMembers(e) => format!(
            "{} of {} members are registered: register the others with `veil chain register --role member`",
            e.registered, e.needed
        ),
        Ceremony::InvalidParametersName(e) => {
            format!("the name of a parameter set has 1 to 64 bytes, not {}", e.length)
        }
        Ceremony::UnknownAttempt(e) => format!(
            "attempt {} for epoch {} was not proposed: the admin runs `veil ceremony propose`",
            e.attempt, e.epoch
        ),
        Ceremony::AttemptAborted(e) => {
            format!("attempt {} was aborted: propose the next one", e.attempt)
        }
        Ceremony::AttemptExpired(e) => format!(
            "attempt {} expired at {} (Unix time): propose the next one",
            e.attempt, e.deadline
        ),
        Ceremony::AttemptPublished(e) => {
            format!("attempt {} has published its key: nothing is left to do", e.attempt)
        }
        Ceremony::NotAParticipant(e) => format!(
            "account {} is neither the cluster's admin nor the operator of a member of this attempt",
            account(&e.caller)
        ),
        Ceremony::UnknownSeat(e) => format!("the committee has no seat {}", e.seat),
        Ceremony::WrongMemberSignature(e) => {
            format!("the signature of participant {} does not verify: ask it again", e.seat)
        }
        Ceremony::WrongNumberOfSignatures(e) => format!(
            "{} of {} members have signed: wait for the others, `veil ceremony status` names them",
            e.given, e.expected
        ),
        Ceremony::InvalidGroupKey(_) => {
            "the group key cannot be verified against: propose another attempt".to_owned()
        }
        Ceremony::WrongProofOfPossession(_) => {
            "the new group's signature does not verify: sign the publication again".to_owned()
        }
        Ceremony::WrongHandoverSignature(_) => {
            "the previous group's signature does not verify: have it sign the handover".to_owned()
        }
        Ceremony::UnknownReferenceStringOrigin(e) => {
            format!("the reference string has origin {}: only one that the committee made is taken", e.origin)
        }
        Ceremony::NoKey(e) => common(&Common::NoKey(e.epoch)),
        Ceremony::WrongMemberSignatures(e) => format!(
            "the {} signatures are not those of the members in the order of their seats: ask the members again, `veil ceremony status` names them",
            e.recovered.len()
        ),
        Ceremony::InvalidIdentityKey(_) => {
            "a member's key is not a point of secp256k1: propose the attempt again".to_owned()
        }
        Ceremony::GroupSuspended(e) => common(&Common::GroupSuspended(e.epoch)),
        Ceremony::NoCommittee(e) => format!(
            "epoch {} has no committee yet: elect it with `veil chain elect request`, then `veil chain elect seal`",
            e.epoch
        ),
        Ceremony::WrongRoster(_) => {
            "the keys given are not those of the committee and its standbys: check them with `veil chain elect show` and repeat".to_owned()
        }
        Ceremony::NoReadyKey(e) => format!(
            "no key is ready for epoch {}: the next ceremony makes one, beginning with `veil ceremony propose`",
            e.epoch
        ),
        Ceremony::NotTheHead(e) => format!(
            "the handover names certificate {}, and {} was anchored last: have the group sign it again, on that one",
            short(&e.given),
            short(&e.head)
        ),
        Ceremony::AttemptNotFailed(e) => format!(
            "attempt {} has not failed: seats are replaced after the last attempt was aborted or has expired",
            e.attempt
        ),
        Ceremony::NoStandbyLeft(_) => {
            "no standby is left for a seat: draw more with `veil chain elect extend`, or admit more members to an appointed committee with `veil chain approve`".to_owned()
        }
        Ceremony::SeatAlreadyReplaced(e) => format!(
            "the member in seat {} has no seat of this epoch any more: propose the next attempt with `veil ceremony propose`",
            e.seat
        ),
        Ceremony::TooFewAbsences(e) => format!(
            "{} of {} members have signed that the seat was empty: ask others",
            e.given, e.needed
        ),
        Ceremony::WrongOrder(e) => format!(
            "seat {} is out of order: signers go by ascending seats, once each, without the absent one",
            e.seat
        ),
        Ceremony::MissingContract(_) => common(&Common::MissingContract),
        Ceremony::Paused(e) => common(&Common::Paused(e.until)),
        Ceremony::NotGovernance(e) => common(&Common::NotGovernance(e.caller)),
        Ceremony::NotContract(e) => common(&Common::NotContract(e.name, e.caller)),
    }
}

pub(super) fn election(error: &Election) -> String {
    match error {
        Election::NotElected(e) => format!(
            "the committees of cluster {} are appointed, not elected: its admin chooses them with `veil chain approve`",
            short(&e.cluster)
        ),
        Election::WrongEpoch(e) => {
            format!("the next committee is that of epoch {}, not {}", e.expected, e.given)
        }
        Election::AlreadyRequested(e) => format!(
            "epoch {} has an election that is not sealed, or whose committee is at work: `veil chain elect show` shows it",
            e.epoch
        ),
        Election::DrawnAlready(e) => format!(
            "epoch {} has its committee: propose its ceremony with `veil ceremony propose`; if it has no key by {}, `veil chain elect request --redraw` draws another one",
            e.epoch,
            unix(e.from)
        ),
        Election::WindowOpen(e) => format!(
            "nodes may still come before the candidates of epoch {} are frozen: `veil chain elect request` at {} or later",
            e.epoch,
            unix(e.from)
        ),
        Election::WrongPrice(e) => format!(
            "this draw costs {} wei, not {}: give --redraw to `veil chain elect request` if the epoch was drawn before, and only then",
            e.price, e.given
        ),
        Election::NotSealed(e) => format!(
            "the election of epoch {} is not sealed: `veil chain elect seal` does that",
            e.epoch
        ),
        Election::NobodyLeft(e) => format!(
            "all candidates of epoch {} that may have a seat are drawn: `veil chain elect request --redraw` freezes others, a week after the draw",
            e.epoch
        ),
        Election::TooFewCandidates(e) => format!(
            "{} members have enough stake for {} seats: register more with `veil chain register --role member --stake`",
            e.candidates, e.seats
        ),
        Election::NotRequested(e) => format!(
            "the election of epoch {} is not waiting to be sealed: `veil chain elect request` begins one",
            e.epoch
        ),
        Election::WrongCandidates(_) => {
            "these are not the frozen candidates: the endpoint's events are incomplete; use another --rpc".to_owned()
        }
        Election::TooEarly(e) => format!(
            "block {} decides, and the chain is at {}: wait, then `veil chain elect seal`",
            e.randomBlock, e.current
        ),
        Election::BlockHashUnavailable(e) => format!(
            "block {} is too old to be proved: fix another one with `veil chain elect expire`",
            e.randomBlock
        ),
        Election::WrongHeader(_) => {
            "the header is not that of the deciding block: the block was replaced, or the endpoint has fields that this build does not know; repeat".to_owned()
        }
        Election::MalformedHeader(_) => {
            "the header has no prevrandao: this chain cannot elect".to_owned()
        }
        Election::NotExpired(e) => format!(
            "block {} can still be proved: `veil chain elect seal`",
            e.randomBlock
        ),
        Election::MissingContract(_) => common(&Common::MissingContract),
        Election::Paused(e) => common(&Common::Paused(e.until)),
        Election::NotGovernance(e) => common(&Common::NotGovernance(e.caller)),
        Election::NotContract(e) => common(&Common::NotContract(e.name, e.caller)),
    }
}

pub(super) fn disputes(error: &Disputes) -> String {
    match error {
        Disputes::NoEquivocation(_) => {
            "the two statements are not different ones about one slot: nothing was proved"
                .to_owned()
        }
        Disputes::WrongGroupSignature(_) => {
            "a certificate is not signed by the group of its epoch".to_owned()
        }
        Disputes::WrongMemberSignature(e) => {
            format!("a statement is not signed by peer {}", short(&e.peer))
        }
        Disputes::NotSeated(e) => {
            format!("peer {} had no seat in the committee of epoch {}", short(&e.peer), e.epoch)
        }
        Disputes::AlreadyPunished(_) => {
            "this fault is punished already: nothing is left to do".to_owned()
        }
        Disputes::WrongVerifyingShare(_) => {
            "the verifying share is not under the key's root: take it from the transcript"
                .to_owned()
        }
        Disputes::WrongSigners(e) => {
            format!("the signers {:#b} are no quorum with the member in it", e.signers)
        }
        Disputes::MalformedShare(_) => {
            "a point is not on the curve, or the share is not below the order".to_owned()
        }
        Disputes::ShareIsValid(_) => "the share is right: there is nothing to punish".to_owned(),
        Disputes::DisputesClosed(e) => format!(
            "epoch {} could be disputed until {}: nothing can be done about it any more",
            e.epoch,
            unix(e.until)
        ),
        Disputes::NotAnchored(_) => {
            "the certificates lead up to none that was anchored recently: show all up to the last one"
                .to_owned()
        }
        Disputes::ChallengeLapsed(e) => format!(
            "challenge {} could be decided until {}: `veil chain dispute lapse` gives its bond back",
            e.id,
            unix(e.until)
        ),
        Disputes::ChallengeNotLapsed(e) => format!(
            "governance may decide challenge {} until {}: wait for it",
            e.id,
            unix(e.until)
        ),
        Disputes::NoKey(e) => common(&Common::NoKey(e.epoch)),
        Disputes::WrongBond(e) => format!("a challenge needs a bond of {} wei", e.expected),
        Disputes::AlreadyChallenged(e) => {
            format!(
                "this account has challenged certificate {} already: wait until that is decided",
                short(&e.certificate)
            )
        }
        Disputes::ChallengeNotOpen(e) => format!("there is no open challenge {}", e.id),
        Disputes::NothingToClaim(e) => {
            format!("account {} has nothing to claim", account(&e.account))
        }
        Disputes::PaymentFailed(e) => common(&Common::PaymentFailed(e.to)),
        Disputes::MissingContract(_) => common(&Common::MissingContract),
        Disputes::Paused(e) => common(&Common::Paused(e.until)),
        Disputes::NotGovernance(e) => common(&Common::NotGovernance(e.caller)),
        Disputes::NotContract(e) => common(&Common::NotContract(e.name, e.caller)),
    }
}
