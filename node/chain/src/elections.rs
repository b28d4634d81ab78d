//! Elections of committees.
//!
//! # Flow
//! 1. [`Chain::request_election`] freezes the candidates and fixes a future block.
//! 2. When that block and another one on top exist, [`Chain::seal_election`] proves its prevrandao by its
//!    header in RLP, with the candidates of the event.
//! 3. [`Chain::committee`] reads the drawn peers from the event and checks them against the hash on
//!    chain; [`Chain::verify_election`] repeats the draw.
//! 4. Who of it does not make the key, a standby follows; [`Chain::extend_election`] draws more of them.
//!
//! Any account may do each step.

use alloy::{
    primitives::{B256, U256, keccak256},
    providers::{Provider, RootProvider},
    rlp::Encodable,
    rpc::types::{BlockNumberOrTag, Filter},
    sol_types::SolEvent,
};
use async_recursion::async_recursion as boxed;
use serde::Serialize;
use veil_contracts::committee_election::{
    CommitteeElection::{self, CommitteeElected, CommitteeElectionInstance, ElectionRequested},
    INodeRegistry::Candidate,
};
use veil_protocol_spec::{ClusterId, Epoch, KeccakDigest, PeerIdHash, election};

use crate::{address::evm, connection::Chain, error::ChainError, types::Mined};

type Contract = CommitteeElectionInstance<RootProvider>;

/// Where an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ElectionStatus {
    /// Not requested.
    None,
    /// Candidates and block are fixed.
    Requested,
    /// The committee is drawn.
    Sealed,
    /// Too few seats could be filled.
    Failed,
}

/// The election of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Election {
    /// Where it stands.
    pub status: ElectionStatus,
    /// How often it was requested.
    pub round: u32,
    /// The block whose prevrandao decides.
    pub random_block: u64,
    /// Filled seats; 0 before it is sealed.
    pub seats: u8,
    /// Filled standby seats; 0 before it is sealed.
    pub standbys: u8,
    /// Keccak-256 over the drawn peers, seats first; zero before it is sealed.
    pub committee_hash: KeccakDigest,
}

/// What another draw of an epoch costs, in wei.
pub const REDRAW_PRICE: u128 = 1_000_000_000_000_000_000;

/// A drawn committee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElectedCommittee {
    /// Participant j at position j-1.
    pub seats: Vec<PeerIdHash>,
    /// In the order in which they replace others.
    pub standbys: Vec<PeerIdHash>,
}

impl Chain {
    fn election_contract(&self) -> Contract {
        CommitteeElection::new(evm(self.contracts.committee_election), self.rpc.provider.clone())
    }

    /// Freezes the candidates of the next epoch, and fixes the deciding block. `redraw`: of an epoch that is drawn
    /// and has had no key for long; that costs [`REDRAW_PRICE`], which is burnt.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn request_election(
        &self,
        cluster: ClusterId,
        epoch: Epoch,
        redraw: bool,
    ) -> Result<Mined, ChainError> {
        let price = U256::from(if redraw { REDRAW_PRICE } else { 0 });
        let request = self
            .election_contract()
            .request(cluster.0.into(), epoch.0)
            .value(price)
            .into_transaction_request();
        self.transact("the request of an election", request).await
    }

    /// Draws more standbys of a sealed election, from where its draw ended.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn extend_election(
        &self,
        cluster: ClusterId,
        epoch: Epoch,
    ) -> Result<Mined, ChainError> {
        let election = self.election(cluster, epoch).await?;
        let candidates = self.candidates(cluster, epoch, election.round).await?;
        let request = self
            .election_contract()
            .extend(cluster.0.into(), epoch.0, candidates)
            .into_transaction_request();
        self.transact("the extension of an election", request).await
    }

    /// Draws the committee, by the header of the deciding block.
    ///
    /// # Errors
    /// [`ChainError`]; `TooEarly` of the contract while the block does not exist.
    #[boxed]
    pub async fn seal_election(
        &self,
        cluster: ClusterId,
        epoch: Epoch,
    ) -> Result<Mined, ChainError> {
        let election = self.election(cluster, epoch).await?;
        let candidates = self.candidates(cluster, epoch, election.round).await?;
        let header = self.header(election.random_block).await?;
        // It passes the call on, and pays it back.
        let request = CommitteeElection::new(evm(self.contracts.fee_pool), &self.rpc.provider)
            .seal(cluster.0.into(), epoch.0, candidates, header.into())
            .into_transaction_request();
        self.transact("the sealing of an election", request).await
    }

    /// Fixes another deciding block, if the one before can no longer be proved.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn expire_election(
        &self,
        cluster: ClusterId,
        epoch: Epoch,
    ) -> Result<Mined, ChainError> {
        let request =
            self.election_contract().expire(cluster.0.into(), epoch.0).into_transaction_request();
        self.transact("the renewal of an election", request).await
    }

    /// Where an election stands.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn election(&self, cluster: ClusterId, epoch: Epoch) -> Result<Election, ChainError> {
        let contract = self.election_contract();
        let call = || async {
            contract.electionOf(cluster.0.into(), epoch.0).call().block(self.rpc.at).await
        };
        let found = self.rpc.call("the election", call).await?;
        Ok(Election {
            status: match found.status {
                0 => ElectionStatus::None,
                1 => ElectionStatus::Requested,
                2 => ElectionStatus::Sealed,
                3 => ElectionStatus::Failed,
                _ => return Err(ChainError::Unexpected("another status of an election")),
            },
            round: found.round,
            random_block: found.randomBlock,
            seats: found.seats,
            standbys: found.standbys,
            committee_hash: KeccakDigest(found.committeeHash.0),
        })
    }

    /// The committee drawn for an epoch, if its election is sealed.
    ///
    /// # Errors
    /// [`ChainError`]; `Unexpected` if the events do not fit the hash on chain.
    #[boxed]
    pub async fn committee(
        &self,
        cluster: ClusterId,
        epoch: Epoch,
    ) -> Result<Option<ElectedCommittee>, ChainError> {
        let election = self.election(cluster, epoch).await?;
        if election.status != ElectionStatus::Sealed {
            return Ok(None);
        }
        let event = self.elected(cluster, epoch).await?;
        let words: Vec<u8> = event.peers.iter().flat_map(|peer| peer.0).collect();
        if keccak256(words).0 != election.committee_hash.0 {
            return Err(ChainError::Unexpected("a committee that does not fit its hash"));
        }
        let mut seats: Vec<_> = event.peers.iter().map(|peer| PeerIdHash(peer.0)).collect();
        let standbys = seats.split_off(usize::from(election.seats).min(seats.len()));
        Ok(Some(ElectedCommittee { seats, standbys }))
    }

    /// Repeats the draw of a sealed election off chain, from the frozen candidates and the proven
    /// prevrandao: whether it gives the same committee.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn verify_election(
        &self,
        cluster: ClusterId,
        epoch: Epoch,
    ) -> Result<bool, ChainError> {
        let Some(committee) = self.committee(cluster, epoch).await? else { return Ok(false) };
        let event = self.elected(cluster, epoch).await?;
        let settings = self.cluster(cluster).await?;
        let candidates: Vec<_> = self
            .candidates(cluster, epoch, event.round)
            .await?
            .iter()
            .map(|candidate| election::Candidate {
                peer: PeerIdHash(candidate.peer.0),
                organisation: election::OrganisationTag(candidate.organisationTag.0),
                weight: candidate.weight,
            })
            .collect();
        let seed = election::seed(&event.prevRandao.0, &self.scope(cluster), epoch, event.round);
        // Its standbys may have become more than the cluster's settings say.
        let count = committee.seats.len() + committee.standbys.len();
        let limit = usize::from(settings.seats_per_organisation);
        let drawn = election::draw(&seed, &candidates, count, limit);
        let drawn = drawn.into_iter().filter_map(|at| candidates.get(at)).map(|one| one.peer);
        Ok(drawn.eq(committee.seats.iter().chain(&committee.standbys).copied()))
    }

    async fn elected(
        &self,
        cluster: ClusterId,
        epoch: Epoch,
    ) -> Result<CommitteeElected, ChainError> {
        let filter = self.election_events(cluster, epoch, CommitteeElected::SIGNATURE_HASH);
        let found =
            self.rpc.last_log("the committee", &filter, self.rpc.all_blocks().await?).await?;
        let found = found.ok_or(ChainError::Unexpected("a committee without its event"))?;
        let event = found.log_decode_validate::<CommitteeElected>();
        let event = event.map_err(|_| ChainError::Unexpected("an event of another form"))?;
        Ok(event.inner.data)
    }

    /// The frozen candidates of a round.
    async fn candidates(
        &self,
        cluster: ClusterId,
        epoch: Epoch,
        round: u32,
    ) -> Result<Vec<Candidate>, ChainError> {
        let filter = self.election_events(cluster, epoch, ElectionRequested::SIGNATURE_HASH);
        let found =
            self.rpc.last_log("the candidates", &filter, self.rpc.all_blocks().await?).await?;
        let event = found.map(|log| log.log_decode_validate::<ElectionRequested>()).transpose();
        let event = event.map_err(|_| ChainError::Unexpected("an event of another form"))?;
        match event.map(|event| event.inner.data) {
            Some(event) if event.round == round => Ok(event.candidates),
            // Not requested: the contract refuses by name.
            None if round == 0 => Ok(Vec::new()),
            _ => Err(ChainError::Unexpected("an election without the event of its request")),
        }
    }

    /// A block's header in RLP; empty if the block does not exist.
    async fn header(&self, number: u64) -> Result<Vec<u8>, ChainError> {
        let tag = BlockNumberOrTag::Number(number);
        let asked = self.rpc.ask("a header", || self.rpc.provider.get_block_by_number(tag));
        let Some(block) = asked.await? else { return Ok(Vec::new()) };
        let mut header = Vec::new();
        block.header.inner.encode(&mut header);
        if keccak256(&header) == block.header.hash {
            Ok(header)
        } else {
            Err(ChainError::Unexpected("a header whose encoding has another hash"))
        }
    }

    fn election_events(&self, cluster: ClusterId, epoch: Epoch, event: B256) -> Filter {
        Filter::new()
            .address(evm(self.contracts.committee_election))
            .event_signature(event)
            .topic1(B256::from(cluster.0))
            .topic2(B256::left_padding_from(&epoch.0.to_be_bytes()))
    }
}
