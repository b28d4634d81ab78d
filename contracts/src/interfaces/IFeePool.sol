// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAssignmentAnchor} from "./IAssignmentAnchor.sol";
import {IKeyCeremony} from "./IKeyCeremony.sol";
import {INodeRegistry} from "./INodeRegistry.sol";
import {IVeilContract} from "./IVeilContract.sol";

/// @title What keeping a cluster on the chain costs, and what its workers earn
/// @notice Each cluster has a pool, which pays back what its steps cost: whoever anchors, seals, publishes, activates or
/// confirms through this contract is owed base fee and tip of it. The calls are those of the contracts that do the
/// step, with the same arguments, and have the same effect; one that the other contract refuses is refused here. What
/// the pool lacks is not paid, and fails nothing.
/// A job may have escrows, each of one payer, with a price for a second of a replica. A worker is paid from one for the
/// time from its confirmation to the certificate that still has its replica. Nothing is sent by itself: what an account
/// is owed waits for `withdraw`.
interface IFeePool is IVeilContract {
    /// @notice What a cluster has for its steps.
    struct Pool {
        uint128 balance;
        /// When the last anchor was refunded.
        uint40 refundedAt;
        /// Seconds between two anchors that are refunded; 0 for `DEFAULT_INTERVAL`.
        uint32 interval;
    }

    /// @notice What one account pays for one job.
    struct Escrow {
        uint96 balance;
        /// Wei for a second of a replica.
        uint64 price;
        /// Since when it pays (Unix time).
        uint40 since;
        /// Until when it pays; 0 while it is not ended.
        uint40 endsAt;
    }

    /// @notice Value came into a cluster's pool.
    event Deposited(bytes32 indexed cluster, address indexed from, uint256 amount);
    /// @notice A step is paid back. `step`: 1 anchor, 2 seal, 3 publish, 4 activate, 5 confirm.
    event Refunded(
        bytes32 indexed cluster, address indexed account, uint8 indexed step, uint256 amount
    );
    /// @notice A job's escrow got `amount` more, after the pool's part.
    event JobFunded(
        bytes32 indexed cluster,
        bytes32 indexed job,
        address indexed payer,
        uint256 amount,
        uint64 price
    );
    /// @notice The payer ends its escrow: no later second is paid, and what is left then is its again.
    event JobFeeEnded(
        bytes32 indexed cluster, bytes32 indexed job, address indexed payer, uint64 endsAt
    );
    /// @notice What was left of an escrow is its payer's.
    event JobFeeReclaimed(
        bytes32 indexed cluster, bytes32 indexed job, address indexed payer, uint256 amount
    );
    /// @notice A worker's operator is paid up to that second.
    event WorkPaid(
        bytes32 indexed cluster,
        bytes32 indexed assignmentHash,
        address indexed operator,
        address payer,
        uint256 amount,
        uint64 until
    );
    /// @notice Anchors are refunded that often.
    event AnchorIntervalChanged(bytes32 indexed cluster, uint32 interval);
    /// @notice An account was paid what it was owed.
    event Withdrawn(address indexed account, uint256 amount);

    /// @notice Nothing was sent along, or no price was named.
    error EmptyFee();
    /// @notice A price is never lowered: workers have begun at it.
    error PriceLowered(uint64 given, uint64 current);
    /// @notice The payer has ended this escrow; what is left is free at that second.
    error FeeEnds(uint64 freeFrom);
    /// @notice This account has no escrow for this job.
    error NoFee(bytes32 cluster, bytes32 job, address payer);
    /// @notice The escrow was not ended, or workers may still claim until that second; 0 if it was not ended.
    error FeeNotFree(uint64 freeFrom);
    /// @notice The certificate is neither the one anchored last nor the one before it.
    error NotLatest(bytes32 certificate);
    /// @notice The replica has ended.
    error ReplicaDone(bytes32 job, uint16 replica);
    /// @notice The replica is not in the certificate's state: its worker has it no more, or not yet.
    error NotInState(bytes32 leaf, bytes32 stateRoot);
    /// @notice Nobody has confirmed this assignment of that slot.
    error NotConfirmed(bytes32 assignmentHash, uint64 slot);
    /// @notice No second is to be paid after that one.
    error NothingEarned(uint64 paidUntil);
    /// @notice The escrow does not hold the price of one second.
    error EscrowEmpty(bytes32 cluster, bytes32 job, address payer);
    /// @notice The account is owed nothing.
    error NothingOwed(address account);
    /// @notice The account takes no payment.
    error PaymentFailed(address to);
    /// @notice Only the cluster's admin may do this.
    error NotClusterAdmin(bytes32 cluster, address caller);
    /// @notice Longer than a day between refunds, or none at all.
    error InvalidInterval(uint32 given);

    /// @notice `AssignmentAnchor.anchor`. Refunded once in the cluster's interval.
    function anchor(
        IAssignmentAnchor.Certificate calldata certificate,
        CompressedPoint calldata groupKey,
        FrostSignature calldata signature
    ) external;

    /// @notice `CommitteeElection.seal`. Refunded once for an epoch, if a committee was drawn.
    function seal(
        bytes32 cluster,
        uint64 epoch,
        INodeRegistry.Candidate[] calldata candidates,
        bytes calldata header
    ) external;

    /// @notice `KeyCeremony.publish`. Refunded once for an epoch.
    function publish(
        IKeyCeremony.Publication calldata publication,
        CompactSignature[] calldata memberSignatures,
        FrostSignature calldata proofOfPossession
    ) external;

    /// @notice `KeyCeremony.activate`. Refunded once for an epoch.
    function activate(
        bytes32 cluster,
        uint64 epoch,
        bytes32 lastCertificate,
        FrostSignature calldata handoverSignature
    ) external;

    /// @notice `AssignmentAnchor.confirmDeployment`, as the operator of the assigned worker. Refunded: it succeeds once
    /// for an assignment.
    function confirmDeployment(
        IAssignmentAnchor.Certificate[] calldata chain,
        IAssignmentAnchor.Assignment calldata assignment,
        bytes32[] calldata proof
    ) external returns (bytes32 assignmentHash);

    /// @notice Gives value to a cluster's pool, for ever.
    function deposit(bytes32 cluster) external payable;

    /// @notice How often anchors are refunded: those in between are anchored all the same. The admin.
    function setAnchorInterval(bytes32 cluster, uint32 interval) external;

    /// @notice Adds what was sent along to the caller's escrow for a job, `POOL_BPS` of it to the cluster's pool.
    /// @param price Wei for a second of a replica, at least the escrow's.
    function fundJob(bytes32 cluster, bytes32 job, uint64 price) external payable;

    /// @notice Ends the caller's escrow for a job: workers are paid up to now.
    function endJobFee(bytes32 cluster, bytes32 job) external;

    /// @notice What is left of the caller's escrow is owed to it, `CLAIM_TIME` after it was ended.
    function reclaimJobFee(bytes32 cluster, bytes32 job) external returns (uint256 amount);

    /// @notice Pays the operator that confirmed a replica from a payer's escrow, for all time up to `head` that was not
    /// paid: since the confirmation, however many certificates lie between. Anyone.
    /// @param head The certificate that was anchored last, or the one before it.
    /// @param replica The replica as the head's state has it.
    /// @param proof Siblings on the way from the replica's leaf to the head's state root, lowest first.
    /// @param certificate The certificate that assigned it, by which it was confirmed.
    function claim(
        IAssignmentAnchor.Certificate calldata head,
        IAssignmentAnchor.Replica calldata replica,
        bytes32[] calldata proof,
        bytes32 certificate,
        address payer
    ) external returns (uint256 amount);

    /// @notice Pays an account what it is owed. Anyone.
    function withdraw(address account) external;

    /// @notice What an account is owed, in wei.
    function owedTo(address account) external view returns (uint256);

    function poolOf(bytes32 cluster) external view returns (Pool memory);

    function escrowOf(bytes32 cluster, bytes32 job, address payer)
        external
        view
        returns (Escrow memory);

    /// @notice Up to when a payer has paid for a confirmed assignment (Unix time); 0 for not at all.
    function paidUntil(bytes32 assignmentHash, address payer) external view returns (uint64);
}
