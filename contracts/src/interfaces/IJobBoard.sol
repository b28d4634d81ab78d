// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IVeilContract} from "./IVeilContract.sol";

/// @title Ordered job submissions
/// @notice Only digests are on chain; the bodies travel by gossip. Each placed or pending answer tells
/// something about other's load, so that submissions are limited in number and in bits per operator
/// and day (of the chain's clock, whether or not there is a key): the submitter states the bits, and the committee places no job whose body would tell
/// more. Limits are those of the `PolicyRegistry`. A job is a digest of one operator: another one's submission
/// of the same digest is another job, and cancelling that is no business of the first one.
///
/// An operator may let other keys submit and cancel in its name, each in one cluster, until a second that it
/// chooses or until it revokes them: a build server's key, say, while its own stays offline. Such jobs are the
/// operator's, and so are the right, the nonce, and the limits. A delegated key can do nothing else: what it
/// calls besides `submitFor` and `cancelFor` it calls as the account that it is.
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
        /// The day of the numbers: days since 1970.
        uint64 window;
        uint32 jobs;
        uint32 leakBits;
    }

    /// @notice A key that may submit and cancel for an operator.
    struct Delegation {
        address key;
        /// Last second (Unix time); zero if the key never was delegated.
        uint64 until;
        /// When it was revoked (Unix time); zero if it was not.
        uint64 revokedAt;
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

    /// @notice The job at this position was submitted, or cancelled, by a delegated key.
    event ByDelegate(bytes32 indexed cluster, uint64 indexed position, address indexed key);
    /// @notice A key may submit and cancel for the operator until that second.
    event KeyDelegated(
        bytes32 indexed cluster, address indexed operator, address indexed key, uint64 until
    );
    /// @notice A key no longer may.
    event KeyRevoked(bytes32 indexed cluster, address indexed operator, address indexed key);

    /// @notice The account may not submit jobs to this cluster.
    error MissingRight(bytes32 cluster, address account, uint32 right);
    /// @notice Submissions of an operator are counted without gaps.
    error WrongNonce(uint64 given, uint64 expected);
    /// @notice The operator has submitted as many jobs on this day as it may.
    error QuotaExceeded(uint32 used, uint32 allowed);
    /// @notice The job would tell more bits than the operator has left on this day.
    error LeakBudgetExceeded(uint32 used, uint32 stated, uint32 allowed);
    /// @notice A job tells at least one bit.
    error NoLeakStated();
    /// @notice No job at this position.
    error UnknownJob(bytes32 cluster, uint64 position);
    /// @notice The operator has submitted this digest in the cluster.
    error AlreadySubmitted(bytes32 cluster, address operator, bytes32 digest);
    /// @notice Only who submitted the job, and the cluster's admin, may cancel it.
    error NotSubmitter(uint64 position, address caller);
    /// @notice The job is cancelled already.
    error AlreadyCancelled(uint64 position);
    /// @notice A job without a digest.
    error EmptyDigest();

    /// @notice The operator has delegated nothing to the key: `delegate` does.
    error NotDelegate(bytes32 cluster, address operator, address key);
    /// @notice The key could act for the operator until `until` (Unix time).
    error DelegateExpired(address operator, address key, uint64 until);
    /// @notice The operator revoked the key.
    error DelegateRevoked(address operator, address key, uint64 revokedAt);
    /// @notice An operator has this many keys in a cluster at most: `revoke` makes room.
    error TooManyDelegates(uint256 most);
    /// @notice The key is no account, or the operator's own.
    error InvalidDelegate(address key);
    /// @notice A delegation ends in the future, and at `latest` (Unix time) at most.
    error InvalidDelegationTime(uint64 until, uint64 latest);

    /// @notice Submits a job. Accounts with `RIGHT_SUBMIT`.
    /// @param digest Of the job's specification.
    /// @param nonce The specification's nonce: how many jobs the caller submitted before.
    /// @param leakBits What its placement may tell.
    function submit(bytes32 cluster, bytes32 digest, uint64 nonce, uint32 leakBits)
        external
        returns (uint64 position);

    /// @notice Cancels a job. Its submitter, or the cluster's admin.
    function cancel(bytes32 cluster, uint64 position) external;

    /// @notice Lets a key submit and cancel for the caller, until that second (Unix time); for a key that may
    /// already, or was revoked, that is its new time. Where `MAX_DELEGATES` keys are, it takes the place of one
    /// whose time is over.
    function delegate(bytes32 cluster, address key, uint64 until) external;

    /// @notice Ends what a key may do for the caller, at once.
    function revoke(bytes32 cluster, address key) external;

    /// @notice `submit` as a delegated key of `operator`, whose job it is, under its next nonce, and within its
    /// right and limits.
    function submitFor(
        bytes32 cluster,
        address operator,
        bytes32 digest,
        uint64 nonce,
        uint32 leakBits
    ) external returns (uint64 position);

    /// @notice `cancel` as a delegated key of the job's operator.
    function cancelFor(bytes32 cluster, uint64 position) external;

    /// @notice The keys of an operator that it has not revoked, some of which may have expired.
    function delegatesOf(bytes32 cluster, address operator)
        external
        view
        returns (Delegation[] memory);

    /// @notice What is delegated, or was, to a key.
    function delegationOf(bytes32 cluster, address operator, address key)
        external
        view
        returns (Delegation memory);

    /// @notice How many jobs were submitted.
    function count(bytes32 cluster) external view returns (uint64);

    /// @notice The nonce of an operator's next job.
    function nextNonce(bytes32 cluster, address operator) external view returns (uint64);

    /// @notice What an operator has used on this day.
    function usageOf(bytes32 cluster, address operator) external view returns (Usage memory);

    /// @notice Jobs from position `from` on, `limit` of them at most.
    function jobs(bytes32 cluster, uint64 from, uint64 limit) external view returns (Job[] memory);
}
