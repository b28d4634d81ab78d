// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IVeilContract} from "./IVeilContract.sol";

/// @title Ordered job submissions
/// @notice Only digests are on chain; the bodies travel by gossip. Each placed or pending answer tells
/// something about other's load, so that submissions are limited in number and in bits per operator
/// and epoch: the submitter states the bits, and the committee places no job whose body would tell
/// more. Limits are those of the `PolicyRegistry`.
interface IJobBoard is IVeilContract {
    /// @notice A submission.
    struct Job {
        bytes32 digest;
        address operator;
        bool cancelled;
        /// Bits that its placement may tell, as its submitter states.
        uint32 leakBits;
    }

    /// @notice What an operator has used of its limits.
    struct Usage {
        /// The epoch of the numbers: the number of keys that the cluster has.
        uint64 epoch;
        uint32 jobs;
        uint32 leakBits;
    }

    /// @notice A job was submitted.
    event JobSubmitted(
        bytes32 indexed cluster,
        uint64 indexed position,
        address indexed operator,
        bytes32 digest,
        uint64 nonce,
        uint32 leakBits
    );
    /// @notice A job is to be stopped.
    event JobCancelled(bytes32 indexed cluster, uint64 indexed position);

    /// @notice The account may not submit jobs to this cluster.
    error MissingRight(bytes32 cluster, address account, uint32 right);
    /// @notice Submissions of an operator are counted without gaps.
    error WrongNonce(uint64 given, uint64 expected);
    /// @notice The operator has submitted as many jobs in this epoch as it may.
    error QuotaExceeded(uint32 used, uint32 allowed);
    /// @notice The job would tell more bits than the operator has left in this epoch.
    error LeakBudgetExceeded(uint32 used, uint32 stated, uint32 allowed);
    /// @notice A job tells at least one bit.
    error NoLeakStated();
    /// @notice No job at this position.
    error UnknownJob(bytes32 cluster, uint64 position);
    /// @notice Only who submitted the job may cancel it.
    error NotSubmitter(uint64 position, address caller);
    /// @notice The job is cancelled already.
    error AlreadyCancelled(uint64 position);
    /// @notice A job without a digest.
    error EmptyDigest();

    /// @notice Submits a job. Accounts with `RIGHT_SUBMIT`.
    /// @param digest Of the job's specification.
    /// @param nonce The specification's nonce: how many jobs the caller submitted before.
    /// @param leakBits What its placement may tell.
    function submit(bytes32 cluster, bytes32 digest, uint64 nonce, uint32 leakBits)
        external
        returns (uint64 position);

    /// @notice Cancels a job. Its submitter.
    function cancel(bytes32 cluster, uint64 position) external;

    /// @notice How many jobs were submitted.
    function count(bytes32 cluster) external view returns (uint64);

    /// @notice The nonce of an operator's next job.
    function nextNonce(bytes32 cluster, address operator) external view returns (uint64);

    /// @notice What an operator has used in the epoch in force.
    function usageOf(bytes32 cluster, address operator) external view returns (Usage memory);

    /// @notice Jobs from position `from` on, `limit` of them at most.
    function jobs(bytes32 cluster, uint64 from, uint64 limit) external view returns (Job[] memory);
}
