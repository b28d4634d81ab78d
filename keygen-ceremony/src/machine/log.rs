//! The signed messages of an attempt, as one member has them.

use std::collections::BTreeMap;

use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex,
    ceremony::{
        Commit, Confirm, Contribution, Deal, Echo, Finish, Payload, Prove, Round, SignedMessage,
        StreamRoot,
    },
};

use crate::setup::Setup;

/// Messages taken and sent: one of each round and sender.
#[derive(Default)]
pub(super) struct MessageLog {
    messages: BTreeMap<Round, BTreeMap<ParticipantIndex, SignedMessage>>,
    /// Deals of this member, by recipient; `messages` holds those that it received.
    sent_deals: BTreeMap<ParticipantIndex, SignedMessage>,
}

impl MessageLog {
    pub(super) fn get(&self, round: Round, sender: ParticipantIndex) -> Option<&SignedMessage> {
        self.messages.get(&round).and_then(|by_sender| by_sender.get(&sender))
    }

    /// Somebody's message of a round.
    pub(super) fn any(&self, round: Round) -> Option<&SignedMessage> {
        self.messages.get(&round).and_then(|by_sender| by_sender.values().next())
    }

    /// Keeps a message that is taken, or a broadcast of this member.
    pub(super) fn insert(&mut self, message: SignedMessage) {
        let header = &message.header;
        self.messages.entry(header.round).or_default().insert(header.sender, message);
    }

    /// Keeps a message of this member.
    pub(super) fn insert_own(&mut self, message: SignedMessage) {
        match message.header.recipient {
            Some(recipient) => drop(self.sent_deals.insert(recipient, message)),
            None => self.insert(message),
        }
    }

    /// This member's deal for a recipient.
    pub(super) fn sent_deal(&self, recipient: ParticipantIndex) -> Option<&SignedMessage> {
        self.sent_deals.get(&recipient)
    }

    /// Whether all messages of a round are here. Nobody deals to itself.
    pub(super) fn is_complete(&self, round: Round, setup: &Setup) -> bool {
        let own_needed = round != Round::Deal;
        setup
            .committee()
            .participants()
            .filter(|j| own_needed || *j != setup.participant())
            .all(|j| self.get(round, j).is_some())
    }

    /// The messages of a round, in order of senders.
    pub(super) fn of_round(&self, round: Round) -> impl Iterator<Item = &SignedMessage> {
        self.messages.get(&round).into_iter().flat_map(BTreeMap::values)
    }

    /// Every broadcast message, by round and sender.
    pub(super) fn broadcasts(&self) -> impl Iterator<Item = &SignedMessage> {
        let all = self.messages.values().flat_map(BTreeMap::values);
        all.filter(|message| message.header.recipient.is_none())
    }

    fn payloads<T>(
        &self,
        round: Round,
        pick: impl Fn(&Payload) -> Option<&T>,
    ) -> Vec<(ParticipantIndex, &T)> {
        self.of_round(round)
            .filter_map(|message| Some((message.header.sender, pick(&message.payload)?)))
            .collect()
    }

    pub(super) fn commits(&self) -> Vec<(ParticipantIndex, &Commit)> {
        self.payloads(Round::Commit, |payload| match payload {
            Payload::Commit(commit) => Some(commit),
            _ => None,
        })
    }

    pub(super) fn echoes(&self, round: Round) -> Vec<(ParticipantIndex, &Echo)> {
        self.payloads(round, |payload| match payload {
            Payload::Echo(echo) => Some(echo),
            _ => None,
        })
    }

    /// The deals that this member received.
    pub(super) fn deals(&self) -> Vec<(ParticipantIndex, &Deal)> {
        self.payloads(Round::Deal, |payload| match payload {
            Payload::Deal(deal) => Some(deal),
            _ => None,
        })
    }

    pub(super) fn confirms(&self) -> Vec<(ParticipantIndex, &Confirm)> {
        self.payloads(Round::Confirm, |payload| match payload {
            Payload::Confirm(confirm) => Some(confirm),
            _ => None,
        })
    }

    pub(super) fn contributions(&self) -> Vec<(ParticipantIndex, &Contribution)> {
        self.payloads(Round::ReferenceString, |payload| match payload {
            Payload::ReferenceString(contribution) => Some(contribution),
            _ => None,
        })
    }

    pub(super) fn roots(&self, round: Round) -> Vec<(ParticipantIndex, &StreamRoot)> {
        self.payloads(round, |payload| match payload {
            Payload::StreamRoot(root) => Some(root),
            _ => None,
        })
    }

    pub(super) fn proofs(&self) -> Vec<(ParticipantIndex, &Prove)> {
        self.payloads(Round::Prove, |payload| match payload {
            Payload::Prove(prove) => Some(prove),
            _ => None,
        })
    }

    pub(super) fn finishes(&self) -> Vec<(ParticipantIndex, &Finish)> {
        self.payloads(Round::Finish, |payload| match payload {
            Payload::Finish(finish) => Some(finish),
            _ => None,
        })
    }

    /// The transcript root over which a member signed FINISH.
    pub(super) fn finish_root(&self, sender: ParticipantIndex) -> Option<Blake3Digest> {
        match &self.get(Round::Finish, sender)?.payload {
            Payload::Finish(finish) => Some(finish.root),
            _ => None,
        }
    }
}
