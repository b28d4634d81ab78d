//! Governance: what the timelock is told to do, when it may, and what came of it.
//!
//! # Flow
//! 1. A proposer schedules a [`Decision`]; it waits for the timelock's delay.
//! 2. An executor carries it out, or a canceller takes it back.
//! 3. [`Chain::operations`] reads all of them from the timelock's events, and their states from the timelock.

use alloy::{
    primitives::{B256, Bytes, U256},
    providers::RootProvider,
    rpc::types::Filter,
    sol_types::{SolCall, SolEvent},
};
use async_recursion::async_recursion as boxed;
use veil_contracts::{
    directory::Directory,
    disputes::Disputes,
    timelock::Timelock::{self, CallSalt, CallScheduled, TimelockInstance},
};
use veil_protocol_spec::{Address, KeccakDigest, PeerIdHash};

use crate::{
    address::{address, evm},
    connection::Chain,
    error::ChainError,
    types::Mined,
};

/// Names requests in errors.
const OPERATIONS: &str = "the operations of the timelock";
/// `TimelockController`: the time of an operation that was carried out.
const DONE: u64 = 1;

/// Something that governance alone can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Names who may pause new work; nobody, if none.
    Guardian(Option<Address>),
    /// Pauses new work, or ends the pause.
    Pause(bool),
    /// Sets the timelock's own delay, in seconds.
    Delay(u64),
    /// Decides a challenge; these members are punished if it is upheld.
    Resolve {
        /// The challenge's number.
        id: u64,
        /// Whether the challenger is right.
        upheld: bool,
        /// Whose fault it is.
        culprits: Vec<PeerIdHash>,
    },
    /// Anything else.
    Call(GovernedCall),
}

/// A call by the timelock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GovernedCall {
    /// The contract.
    pub to: Address,
    /// In wei, of what the timelock has.
    pub value: U256,
    /// The call.
    pub data: Vec<u8>,
}

impl GovernedCall {
    /// A call that sends so much, in wei, along.
    #[must_use]
    pub fn new(to: Address, value: u128, data: Vec<u8>) -> Self {
        Self { to, value: U256::from(value), data }
    }
}

/// Where an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationState {
    /// Until this second (Unix time).
    Waiting(u64),
    /// It may be carried out, since that second.
    Ready(u64),
    /// Carried out.
    Done,
    /// Taken back.
    Cancelled,
}

/// Something that was scheduled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its id.
    pub id: KeccakDigest,
    /// What it does, in this order.
    pub calls: Vec<GovernedCall>,
    /// Another one, which is to be carried out before; zero for none.
    pub predecessor: KeccakDigest,
    /// Tells it apart from others that do the same.
    pub salt: KeccakDigest,
    /// Where it stands.
    pub state: OperationState,
}

type Contract = TimelockInstance<RootProvider>;

impl Chain {
    /// The timelock, which owns the directory.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn timelock(&self) -> Result<Address, ChainError> {
        let directory = Directory::new(evm(self.contracts.directory), &self.rpc.provider);
        let owner = || async { directory.owner().call().await };
        Ok(address(self.rpc.call("the directory's owner", owner).await?))
    }

    fn timelock_at(&self, at: Address) -> Contract {
        Timelock::new(evm(at), self.rpc.provider.clone())
    }

    /// Seconds between a decision and its effect, at least.
    pub(crate) async fn timelock_delay(&self, timelock: Address) -> Result<u64, ChainError> {
        let contract = self.timelock_at(timelock);
        let call = || async { contract.getMinDelay().call().await };
        Ok(self.rpc.call("the timelock's delay", call).await?.saturating_to())
    }

    fn governed(&self, decision: &Decision, timelock: Address) -> GovernedCall {
        let directory = self.contracts.directory;
        let (to, data) = match decision {
            Decision::Guardian(guardian) => {
                let guardian_ = guardian.map(evm).unwrap_or_default();
                (directory, Directory::setGuardianCall { guardian_ }.abi_encode())
            }
            Decision::Pause(true) => (directory, Directory::pauseCall {}.abi_encode()),
            Decision::Pause(false) => (directory, Directory::unpauseCall {}.abi_encode()),
            Decision::Delay(seconds) => {
                let call = Timelock::updateDelayCall { newDelay: U256::from(*seconds) };
                (timelock, call.abi_encode())
            }
            Decision::Resolve { id, upheld, culprits } => {
                let culprits = culprits.iter().map(|peer| peer.0.into()).collect();
                let call = Disputes::resolveCall { id: U256::from(*id), upheld: *upheld, culprits };
                (self.contracts.disputes, call.abi_encode())
            }
            Decision::Call(call) => return call.clone(),
        };
        GovernedCall { to, value: U256::ZERO, data }
    }

    /// Schedules a decision, with the timelock's own delay if no longer one is given, and gives the operation's id. One
    /// that was carried out can be scheduled again.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn schedule(
        &self,
        decision: &Decision,
        delay: Option<u64>,
    ) -> Result<(KeccakDigest, Mined), ChainError> {
        let at = self.timelock().await?;
        let contract = self.timelock_at(at);
        let call = self.governed(decision, at);
        let delay = match delay {
            Some(seconds) => seconds,
            None => self.timelock_delay(at).await?,
        };
        let (targets, values) = (vec![evm(call.to)], vec![call.value]);
        let payloads = vec![Bytes::from(call.data)];
        let mut number = U256::ZERO;
        let (salt, id) = loop {
            let salt = B256::from(number);
            let id =
                self.batch_id(&contract, (&targets, &values, &payloads), B256::ZERO, salt).await?;
            // One that waits is refused by the timelock, by name.
            if self.operation_time(&contract, id).await? != DONE {
                break (salt, id);
            }
            number += U256::ONE;
        };
        let request = contract
            .scheduleBatch(targets, values, payloads, B256::ZERO, salt, U256::from(delay))
            .into_transaction_request();
        let mined = self.transact("the scheduling of a decision", request).await?;
        Ok((KeccakDigest(id.0), mined))
    }

    /// Carries out an operation whose time has come.
    ///
    /// # Errors
    /// [`ChainError`]; `NoOperation` if none of that id was scheduled.
    #[boxed]
    pub async fn execute(&self, id: KeccakDigest) -> Result<Mined, ChainError> {
        let contract = self.timelock_at(self.timelock().await?);
        let operation = self.operations().await?.into_iter().find(|operation| operation.id == id);
        let Operation { calls, predecessor, salt, .. } =
            operation.ok_or(ChainError::NoOperation { id })?;
        let (predecessor, salt) = (B256::from(predecessor.0), B256::from(salt.0));
        let value = calls.iter().fold(U256::ZERO, |sum, call| sum.saturating_add(call.value));
        let (mut targets, mut values, mut payloads) = (Vec::new(), Vec::new(), Vec::new());
        for call in calls {
            targets.push(evm(call.to));
            values.push(call.value);
            payloads.push(Bytes::from(call.data));
        }
        let batch =
            self.batch_id(&contract, (&targets, &values, &payloads), predecessor, salt).await?;
        let request = match (&targets[..], &values[..], &payloads[..]) {
            // Whoever scheduled it did not use a batch.
            ([to], [value], [data]) if batch.0 != id.0 => contract
                .execute(*to, *value, data.clone(), predecessor, salt)
                .into_transaction_request(),
            _ => contract
                .executeBatch(targets, values, payloads, predecessor, salt)
                .into_transaction_request(),
        };
        let request = alloy::rpc::types::TransactionRequest { value: Some(value), ..request };
        self.transact("the execution of a decision", request).await
    }

    /// Takes back an operation that was not carried out.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn cancel_operation(&self, id: KeccakDigest) -> Result<Mined, ChainError> {
        let contract = self.timelock_at(self.timelock().await?);
        let request = contract.cancel(id.0.into()).into_transaction_request();
        self.transact("the cancellation of a decision", request).await
    }

    /// All operations, in the order in which they were first scheduled.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn operations(&self) -> Result<Vec<Operation>, ChainError> {
        let at = self.timelock().await?;
        let contract = self.timelock_at(at);
        let filter = Filter::new()
            .address(evm(at))
            .event_signature(vec![CallScheduled::SIGNATURE_HASH, CallSalt::SIGNATURE_HASH]);
        let logs = self.rpc.logs(OPERATIONS, &filter, self.rpc.all_blocks().await?).await?;
        let mut found: Vec<Operation> = Vec::new();
        for log in &logs {
            if let Ok(event) = CallScheduled::decode_log(&log.inner) {
                let id = KeccakDigest(event.id.0);
                let call = GovernedCall {
                    to: address(event.target),
                    value: event.value,
                    data: event.data.data.to_vec(),
                };
                match found.iter_mut().find(|operation| operation.id == id) {
                    // Scheduled once more, after it was cancelled: the same.
                    Some(known) if event.index < U256::from(known.calls.len()) => {}
                    Some(known) => known.calls.push(call),
                    None => found.push(Operation {
                        id,
                        calls: vec![call],
                        predecessor: KeccakDigest(event.predecessor.0),
                        salt: KeccakDigest([0; 32]),
                        state: OperationState::Cancelled,
                    }),
                }
            } else if let Ok(event) = CallSalt::decode_log(&log.inner)
                && let Some(known) = found.iter_mut().find(|known| known.id.0 == event.id.0)
            {
                known.salt = KeccakDigest(event.salt.0);
            }
        }
        let (_, now) = self.block().await?;
        for operation in &mut found {
            operation.state = match self.operation_time(&contract, operation.id.0.into()).await? {
                0 => OperationState::Cancelled,
                DONE => OperationState::Done,
                from if from > now => OperationState::Waiting(from),
                from => OperationState::Ready(from),
            };
        }
        Ok(found)
    }

    async fn operation_time(&self, contract: &Contract, id: B256) -> Result<u64, ChainError> {
        let call = || async { contract.getTimestamp(id).call().await };
        Ok(self.rpc.call(OPERATIONS, call).await?.saturating_to())
    }

    async fn batch_id(
        &self,
        contract: &Contract,
        (targets, values, payloads): (&[alloy::primitives::Address], &[U256], &[Bytes]),
        predecessor: B256,
        salt: B256,
    ) -> Result<B256, ChainError> {
        let (targets, values, payloads) = (targets.to_vec(), values.to_vec(), payloads.to_vec());
        let hash = contract.hashOperationBatch(targets, values, payloads, predecessor, salt);
        self.rpc.call(OPERATIONS, || async { hash.call().await }).await
    }

    /// Pauses new work, as the guardian, or ends the pause.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn pause(&self, pauses: bool) -> Result<Mined, ChainError> {
        let directory = Directory::new(evm(self.contracts.directory), &self.rpc.provider);
        let request = if pauses {
            directory.pause().into_transaction_request()
        } else {
            directory.unpause().into_transaction_request()
        };
        self.transact("the pause of new work", request).await
    }

    /// Until when new work is paused, and from when it may be again (Unix time); 0 if it never was.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn paused(&self) -> Result<(u64, u64), ChainError> {
        let directory = Directory::new(evm(self.contracts.directory), &self.rpc.provider);
        let until = || async { directory.pausedUntil().call().await };
        let until = self.rpc.call("the pause", until).await?;
        let from = || async { directory.pausableFrom().call().await };
        Ok((until, self.rpc.call("the pause", from).await?))
    }
}
