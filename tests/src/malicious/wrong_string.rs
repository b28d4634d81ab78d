//! Contributes to the reference string what an honest member would not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex,
    ceremony::{CeremonyMessage, Contribution, Payload, Round, SignedMessage},
    codec::Bytes,
};
use veil_reference_string::{First, Place, Powers, Size, prove};

use super::{Insider, Misbehaviour, wire};

/// What is wrong with the contribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrongString {
    /// The proof.
    Proof,
    /// The number of powers.
    Truncated,
    /// Powers of another exponent behind the first, with a right proof of the first.
    Structure,
    /// A point of small order behind the first powers, with a right proof of the first.
    SmallOrder,
    /// Powers of zero.
    Zero,
    /// Powers of an exponent that it knows, in place of raised ones: it could forge proofs.
    Replaced,
    /// It names another contribution than the one before.
    OtherBefore,
    /// Nothing is wrong but that it is another one.
    OtherExponent,
}

/// Bytes of a power in the first group.
const POWER: usize = 56;

pub(super) struct Contributor {
    wrong: WrongString,
    /// Whom it shows it to; all, if nothing is said.
    to: Option<Vec<ParticipantIndex>>,
    /// The powers that others have contributed.
    heard: BTreeMap<ParticipantIndex, Vec<u8>>,
    /// Digest of what it has sent to all, which its own echo is to agree with.
    forged: Option<Blake3Digest>,
}

impl Contributor {
    pub(super) const fn new(wrong: WrongString, to: Option<Vec<ParticipantIndex>>) -> Self {
        Self { wrong, to, heard: BTreeMap::new(), forged: None }
    }

    fn contribute(&self, insider: &Insider, right: &Contribution) -> Contribution {
        let mut wrong = right.clone();
        let size = insider.setup.parameter_set().reference_string();
        let (ceremony, before) = (insider.setup.parameters().id(), right.before);
        let (attempt, sender) = (insider.setup.attempt(), insider.me());
        let place = Place { ceremony: &ceremony, attempt, sender, before: &before };
        let key = insider.seed.derive(&ceremony, attempt, "reference string", b"");
        match self.wrong {
            WrongString::Proof => wrong.proof.0[7] ^= 1,
            WrongString::Truncated => drop(wrong.powers.0.pop()),
            WrongString::Structure => {
                let (first, rest) = wrong.powers.0.split_at_mut(2 * POWER);
                first[POWER..].swap_with_slice(&mut rest[..POWER]);
                let proof = prove(&key, place, &self.before(size, sender), &wrong.powers.0);
                wrong.proof = Bytes(proof);
            }
            WrongString::SmallOrder => {
                // (0, 1), of order 3.
                wrong.powers.0[POWER..2 * POWER].fill(0);
                let proof = prove(&key, place, &self.before(size, sender), &wrong.powers.0);
                wrong.proof = Bytes(proof);
            }
            WrongString::Zero => wrong.powers.0.fill(0),
            WrongString::Replaced => {
                let made = Powers::start(size).contribute(&[9; 32], place);
                (wrong.powers, wrong.proof) = (Bytes(made.powers), Bytes(made.proof));
            }
            WrongString::OtherBefore => wrong.before = Blake3Digest([0xee; 32]),
            WrongString::OtherExponent => {
                let made = self.powers_before(size, sender).contribute(&[8; 32], place);
                (wrong.powers, wrong.proof) = (Bytes(made.powers), Bytes(made.proof));
            }
        }
        wrong
    }

    fn powers_before(&self, size: Size, sender: ParticipantIndex) -> Powers {
        let last = self.heard.range(..sender).next_back();
        let read = last.and_then(|(_, powers)| Powers::read(size, powers).ok());
        read.unwrap_or_else(|| Powers::start(size))
    }

    fn before(&self, size: Size, sender: ParticipantIndex) -> First {
        self.powers_before(size, sender).first()
    }
}

impl Misbehaviour for Contributor {
    fn own(&mut self, insider: &Insider, mut message: SignedMessage) -> Vec<Vec<u8>> {
        let shown = self.to.as_ref().is_none_or(|to| to.contains(&insider.to));
        if let Payload::ReferenceString(right) = &message.payload
            && shown
        {
            let wrong = self.contribute(insider, right);
            message = insider.instead(&message, Payload::ReferenceString(wrong));
            if self.to.is_none() {
                self.forged = Some(message.digest());
            }
        }
        if let Payload::Echo(echo) = &message.payload
            && message.header.round == Round::ReferenceStringEcho
            && let Some(forged) = self.forged
        {
            let mut echo = echo.clone();
            if let Some(own) = echo.digests.get_mut(insider.me().position()) {
                *own = forged;
            }
            message = insider.instead(&message, Payload::Echo(echo));
        }
        vec![wire(message)]
    }

    fn hear(&mut self, message: &CeremonyMessage, _bytes: &[u8]) {
        if let CeremonyMessage::Signed(signed) = message
            && let Payload::ReferenceString(contribution) = &signed.payload
        {
            self.heard.insert(signed.header.sender, contribution.powers.0.clone());
        }
    }
}
