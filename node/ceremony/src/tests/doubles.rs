//! What stands for the chain in these tests.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use veil_committee::frost::{self, GroupPublicKey, GroupSignature, SigningSchedule};
use veil_keygen_ceremony::{keyset::ParameterSet, setup::Timing};
use veil_protocol_spec::{
    Address, Attempt, Blake3Digest, ChainId, ClusterId, Committee, Epoch, KeccakDigest,
    ParticipantIndex, PublicIdentity, Signature, Wire,
    identity::SecretIdentity,
    publication::Publication,
    scheduling::{ClusterScope, keccak},
};

use crate::*;

pub(super) fn scope() -> ClusterScope {
    ClusterScope {
        chain_id: ChainId(31337),
        contract: Address([0xc0; 20]),
        cluster: ClusterId([7; 32]),
    }
}

pub(super) struct ChainState {
    pub(super) attempts: Vec<Proposal>,
    pub(super) published_by: Option<ParticipantIndex>,
    /// The last block that is settled.
    pub(super) block: u64,
}

/// Verifies what the contract verifies. Each member has a handle of its own.
#[derive(Clone)]
pub(super) struct TestChain {
    pub(super) state: Arc<Mutex<ChainState>>,
    seat: Option<ParticipantIndex>,
    /// Hangs when it is to publish, like a member that dies then; tells so.
    pub(super) hangs: Option<Arc<Notify>>,
    /// Takes publications, of any member.
    publishes: Arc<watch::Sender<bool>>,
    /// What a second endpoint says of all attempts, if there is one.
    second: Arc<Mutex<Option<AttemptStatus>>>,
    /// Gives this member nothing to sign: it cannot help to publish.
    pub(super) refuses: bool,
    /// Hangs when the member tells it of its ABORT, like one that dies then; tells so.
    pub(super) hangs_over_abort: Option<Arc<Notify>>,
}

impl TestChain {
    pub(super) fn new() -> Self {
        let state = ChainState { attempts: Vec::new(), published_by: None, block: 1_000 };
        let publishes = Arc::new(watch::Sender::new(true));
        Self {
            state: Arc::new(Mutex::new(state)),
            seat: None,
            hangs: None,
            publishes,
            second: Arc::default(),
            refuses: false,
            hangs_over_abort: None,
        }
    }

    /// As long as it does not publish, no ceremony ends by itself: its steps can be looked at.
    pub(super) fn publishes(&self, publishes: bool) {
        self.publishes.send_replace(publishes);
    }

    pub(super) fn second_endpoint_says(&self, status: AttemptStatus) {
        *self.second.lock().unwrap() = Some(status);
    }

    pub(super) fn of(&self, seat: ParticipantIndex) -> Self {
        Self { seat: Some(seat), ..self.clone() }
    }

    pub(super) fn call(&self, roster: &[PublicIdentity]) {
        let params = ParameterSet::insecure_short();
        let mut state = self.state.lock().unwrap();
        let attempt = Attempt(state.attempts.len() as u32);
        state.attempts.push(Proposal {
            epoch: Epoch(0),
            attempt,
            parameters: params.name().to_owned(),
            parameters_digest: params.digest(),
            roster: roster.to_vec(),
            context: ceremony_context(&scope()),
            deadline: unix_seconds() + 3600,
            status: AttemptStatus::Proposed,
        });
    }

    pub(super) fn set(&self, status: AttemptStatus) {
        self.state.lock().unwrap().attempts.last_mut().unwrap().status = status;
    }

    pub(super) fn now(&self) -> AttemptStatus {
        self.state.lock().unwrap().attempts.last().unwrap().status
    }
}

fn digest(kind: &[u8], publication: &Publication) -> KeccakDigest {
    let bytes = [kind, &ceremony_context(&scope()), &publication.to_wire()].concat();
    keccak(&bytes)
}

#[async_trait]
impl CommitPointChain for TestChain {
    async fn latest(&self) -> Result<Proposal, CommitPointError> {
        let state = self.state.lock().unwrap();
        state.attempts.last().cloned().ok_or(CommitPointError::NotProposed { epoch: Epoch(0) })
    }

    async fn status(
        &self,
        _epoch: Epoch,
        attempt: Attempt,
    ) -> Result<AttemptStatus, CommitPointError> {
        Ok(self.state.lock().unwrap().attempts[attempt.0 as usize].status)
    }

    async fn is_over_everywhere(
        &self,
        epoch: Epoch,
        attempt: Attempt,
    ) -> Result<bool, CommitPointError> {
        let second = self.second.lock().unwrap().is_none_or(|status| status.is_over());
        Ok(second && self.status(epoch, attempt).await?.is_over())
    }

    async fn settled_block(&self) -> Result<u64, CommitPointError> {
        Ok(self.state.lock().unwrap().block)
    }

    async fn next(&self) -> Result<(Epoch, Attempt), CommitPointError> {
        Ok((Epoch(0), Attempt(self.state.lock().unwrap().attempts.len() as u32)))
    }

    async fn propose(&self, attempt: &NewAttempt) -> Result<(), CommitPointError> {
        let roster = self.state.lock().unwrap().attempts[0].roster.clone();
        assert_eq!(attempt.context, ceremony_context(&scope()));
        self.call(&roster);
        Ok(())
    }

    fn publication_digest(
        &self,
        publication: &Publication,
    ) -> Result<KeccakDigest, CommitPointError> {
        if self.refuses {
            return Err(CommitPointError::Refused("of a form that is not known here".to_owned()));
        }
        Ok(digest(b"publication", publication))
    }

    fn possession_digest(
        &self,
        publication: &Publication,
    ) -> Result<KeccakDigest, CommitPointError> {
        Ok(digest(b"possession", publication))
    }

    async fn publish(
        &self,
        publication: &Publication,
        signatures: &[Signature],
        possession: &GroupSignature,
    ) -> Result<(), CommitPointError> {
        if let Some(told) = &self.hangs {
            told.notify_one();
            std::future::pending::<()>().await;
        }
        let _ = self.publishes.subscribe().wait_for(|publishes| *publishes).await;
        let refused = |why: &str| Err(CommitPointError::Refused(why.to_owned()));
        let mut state = self.state.lock().unwrap();
        let attempt = &mut state.attempts[publication.attempt.0 as usize];
        if attempt.status != AttemptStatus::Proposed {
            return refused("decided");
        }
        let signed = digest(b"publication", publication);
        if signatures.len() != attempt.roster.len() {
            return refused("not all signed");
        }
        for (identity, signature) in attempt.roster.iter().zip(signatures) {
            if identity.verify(signed.as_bytes(), signature).is_err() {
                return refused("a member's signature is wrong");
            }
        }
        let group: GroupPublicKey = GroupPublicKey::from_wire(&publication.group).unwrap();
        if group.verify(digest(b"possession", publication).as_bytes(), possession).is_err() {
            return refused("no proof of possession");
        }
        attempt.status = AttemptStatus::Published {
            transcript_root: publication.transcript_root,
            key_set: publication.key_set,
        };
        state.published_by = self.seat;
        Ok(())
    }

    async fn abort_costs_seat(&self) -> Result<bool, CommitPointError> {
        Ok(false)
    }

    async fn abort(
        &self,
        _epoch: Epoch,
        attempt: Attempt,
        _reason: Blake3Digest,
        seat: ParticipantIndex,
        identity: &SecretIdentity,
    ) -> Result<(), CommitPointError> {
        if let Some(told) = &self.hangs_over_abort {
            told.notify_one();
            std::future::pending::<()>().await;
        }
        let mut state = self.state.lock().unwrap();
        let attempt = &mut state.attempts[attempt.0 as usize];
        assert_eq!(attempt.roster[seat.position()], identity.public());
        if attempt.status == AttemptStatus::Proposed {
            attempt.status = AttemptStatus::Aborted;
        }
        Ok(())
    }
}

pub(super) fn identity(seat: ParticipantIndex) -> SecretIdentity {
    SecretIdentity::from_bytes(&[seat.get(); 32]).unwrap()
}

pub(super) fn roster() -> Vec<PublicIdentity> {
    Committee::new(4).unwrap().participants().map(|j| identity(j).public()).collect()
}

/// Short where waiting is the point, long where it is not.
pub(super) fn timing() -> CeremonyTiming {
    CeremonyTiming {
        machine: Timing { round: 600_000, retry: 200 },
        preflight: Duration::from_secs(600),
        poll: Duration::from_millis(50),
        publish_backoff: Duration::from_millis(300),
        signing: SigningSchedule {
            rotation: 2_000,
            timing: frost::Timing { commit: 5_000, share: 5_000, max_attempts: 8 },
            restarts: 0,
        },
        drain: Duration::from_secs(2),
        next_attempt: Duration::from_secs(600),
    }
}
