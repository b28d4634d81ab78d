//! The order of job submissions.

use alloy::providers::RootProvider;
use async_recursion::async_recursion as boxed;
use veil_contracts::job_board::JobBoard::{self, JobBoardInstance, JobSubmitted};
use veil_protocol_spec::{Address, Blake3Digest, ClusterId};

use crate::{
    address::{address, evm},
    connection::Chain,
    error::ChainError,
    types::{JobUsage, Mined, SubmittedJob},
};

type Contract = JobBoardInstance<RootProvider>;

/// Jobs that one call reads.
const JOBS_PER_CALL: u64 = 256;

impl Chain {
    pub(crate) fn job_board(&self) -> Contract {
        JobBoard::new(evm(self.contracts.job_board), self.rpc.provider.clone())
    }

    /// Submits a job and gives its position; its nonce is [`Self::next_job_nonce`]. `leak_bits`: the bits
    /// that its placement may reveal about others' load, at least 1.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn submit_job(
        &self,
        cluster: ClusterId,
        digest: Blake3Digest,
        nonce: u64,
        leak_bits: u32,
    ) -> Result<u64, ChainError> {
        let operator = self.account().ok_or(ChainError::NoAccount)?;
        self.submit_job_for(cluster, operator, digest, nonce, leak_bits).await
    }

    /// The same for an operator that has delegated this to the account, or is the account itself.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn submit_job_for(
        &self,
        cluster: ClusterId,
        operator: Address,
        digest: Blake3Digest,
        nonce: u64,
        leak_bits: u32,
    ) -> Result<u64, ChainError> {
        let (board, cluster, digest) = (self.job_board(), cluster.0.into(), digest.0.into());
        let request = if self.account() == Some(operator) {
            board.submit(cluster, digest, nonce, leak_bits).into_transaction_request()
        } else {
            let for_operator = board.submitFor(cluster, evm(operator), digest, nonce, leak_bits);
            for_operator.into_transaction_request()
        };
        let receipt = self.send("the submission of a job", request).await?;
        let event = receipt.decoded_log::<JobSubmitted>();
        event
            .map(|log| log.position)
            .ok_or(ChainError::Unexpected("a submission without its event"))
    }

    /// Cancels a job of this account.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn cancel_job(&self, cluster: ClusterId, position: u64) -> Result<Mined, ChainError> {
        let request =
            self.job_board().cancel(cluster.0.into(), position).into_transaction_request();
        self.transact("the cancellation of a job", request).await
    }

    /// Cancels a job of an operator that has delegated this to the account.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn cancel_job_for_operator(
        &self,
        cluster: ClusterId,
        position: u64,
    ) -> Result<Mined, ChainError> {
        let request =
            self.job_board().cancelFor(cluster.0.into(), position).into_transaction_request();
        self.transact("the cancellation of a job", request).await
    }

    /// The nonce of an operator's next job.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn next_job_nonce(
        &self,
        cluster: ClusterId,
        operator: Address,
    ) -> Result<u64, ChainError> {
        let contract = self.job_board();
        let call = || async { contract.nextNonce(cluster.0.into(), evm(operator)).call().await };
        self.rpc.call("an operator's nonce", call).await
    }

    /// What an operator has submitted and stated in the epoch in force.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn job_usage(
        &self,
        cluster: ClusterId,
        operator: Address,
    ) -> Result<JobUsage, ChainError> {
        let contract = self.job_board();
        let call = || async { contract.usageOf(cluster.0.into(), evm(operator)).call().await };
        let found = self.rpc.call("an operator's submissions", call).await?;
        Ok(JobUsage { jobs: found.jobs, leak_bits: found.leakBits })
    }

    /// All jobs from position `from` on, with the cancelled ones.
    ///
    /// # Errors
    /// [`ChainError`].
    #[boxed]
    pub async fn jobs(
        &self,
        cluster: ClusterId,
        from: u64,
    ) -> Result<Vec<SubmittedJob>, ChainError> {
        let contract = self.job_board();
        let mut jobs = Vec::new();
        loop {
            let start = from + jobs.len() as u64;
            let call = || async {
                contract
                    .jobs(cluster.0.into(), start, JOBS_PER_CALL)
                    .call()
                    .block(self.rpc.at)
                    .await
            };
            let page = self.rpc.call("the jobs", call).await?;
            jobs.extend(page.iter().zip(start..).map(|(job, position)| SubmittedJob {
                position,
                digest: Blake3Digest(job.digest.0),
                operator: address(job.operator),
                cancelled: job.cancelled,
                leak_bits: job.leakBits,
            }));
            if (page.len() as u64) < JOBS_PER_CALL {
                return Ok(jobs);
            }
        }
    }
}
