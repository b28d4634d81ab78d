//! The reference string: the members raise its powers one after another, and everybody checks each step.

use veil_protocol_spec::{
    ParticipantIndex,
    ceremony::{Contribution, Payload, Round},
    codec::Bytes,
};
use veil_reference_string::{First, Powers};

use super::{
    Ceremony,
    failure::Failure,
    state::{Keyed, Produced, Raised, State},
};
use crate::reference_string::{Link, check_last, read};

impl Ceremony {
    /// Step 1: "start with exponent 1".
    pub(super) fn start_string(&self, keyed: Box<Keyed>) -> State {
        // There is a participant 1 in every committee.
        let next = self.setup.committee().participants().next().unwrap_or(self.setup.me);
        State::Raise(Box::new(Raised { next, first: First::start() }), keyed)
    }

    /// Whether there is something to compute for the string.
    pub(super) fn can_raise(&self, raised: &Raised) -> bool {
        raised.next == self.setup.me || self.log.get(Round::ReferenceString, raised.next).is_some()
    }

    /// One piece: this member's own contribution, or the check of the next one.
    pub(super) fn raise(
        &mut self,
        raised: Box<Raised>,
        mut keyed: Box<Keyed>,
    ) -> Result<State, Failure> {
        let Raised { next, first } = *raised;
        let link = self.link(next);
        if next == self.setup.me && self.log.get(Round::ReferenceString, next).is_none() {
            self.contribute(link, &mut keyed)?;
            return Ok(State::Raise(Box::new(Raised { next, first }), keyed));
        }
        let first = {
            let contributions = self.log.contributions();
            let contribution = contributions.iter().find(|(j, _)| *j == next).map(|(_, c)| *c);
            let gone = || Failure::local(format!("the contribution of participant {next} is gone"));
            link.check(&self.setup, &first, contribution.ok_or_else(gone)?)?
        };
        let after = self.setup.committee().participants().find(|j| *j > next);
        if let Some(next) = after {
            return Ok(State::Raise(Box::new(Raised { next, first }), keyed));
        }
        self.echo(Round::ReferenceString, Round::ReferenceStringEcho)?;
        Ok(State::ReferenceStringEcho(keyed))
    }

    fn link(&self, sender: ParticipantIndex) -> Link {
        let all = self.setup.committee().participants();
        let above = all.take_while(|j| *j < sender).last().and_then(|j| {
            let message = self.log.get(Round::ReferenceString, j)?;
            Some((j, message.digest()))
        });
        Link { sender, above }
    }

    /// Step 2: "member j raises the powers by its tau_j, proves tau_j, and erases it". What it raises is in the
    /// groups: elsewhere a power would tell something of its exponent.
    fn contribute(&mut self, link: Link, keyed: &mut Keyed) -> Result<(), Failure> {
        let powers = match link.above {
            None => Powers::start(self.setup.string),
            Some((above, _)) => {
                let contributions = self.log.contributions();
                let last = contributions.iter().find(|(j, _)| *j == above).map(|(_, c)| *c);
                let gone = || Failure::local(format!("the contribution of {above} is gone"));
                read(&self.setup, above, last.ok_or_else(gone)?)?
            }
        };
        let gone = || Failure::local("the key of the contribution is gone");
        let key = keyed.string.take().ok_or_else(gone)?;
        let before = link.before();
        let made = powers.contribute(&key, link.place(&self.setup, &before));
        let (powers, proof) = (Bytes(made.powers), Bytes(made.proof));
        let payload = Payload::ReferenceString(Contribution { before, powers, proof });
        self.send_own(Round::ReferenceString, None, payload)
    }

    /// Step 5, then step 6 of the ceremony.
    pub(super) fn check_string(&mut self, keyed: Box<Keyed>) -> Result<State, Failure> {
        check_last(&self.setup, &self.log.contributions())?;
        Ok(State::ProduceBits(Produced::default(), Box::new(self.draw_bits(*keyed))))
    }

    /// The powers of the reference string as the last member sent them, once all are here. They are the
    /// string's when this member has signed FINISH.
    #[must_use]
    pub fn reference_string(&self) -> Option<Vec<u8>> {
        let last = self.setup.committee().participants().last()?;
        let contributions = self.log.contributions();
        let found = contributions.into_iter().find(|(j, _)| *j == last);
        found.map(|(_, contribution)| contribution.powers.0.clone())
    }
}
