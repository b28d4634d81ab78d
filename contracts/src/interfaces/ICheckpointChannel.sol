// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IVeilContract} from "./IVeilContract.sol";

/// @title Checkpoints of slots that are too frequent to anchor one by one
/// @notice Optional. The committee signs any number of checkpoints off chain, EIP-712 typed data under
/// its group key (FROST):
///
/// `Checkpoint(bytes32 cluster,uint64 epoch,uint64 sequence,bytes32 root)`
///
/// Any one with a higher (epoch, sequence) supersedes the last one. Against censorship, an account that
/// may submit jobs can put an item on chain: it has to be under the root of a checkpoint before its
/// deadline, or no other checkpoint is taken. Leaves are `keccak256(bytes.concat(item))`.
interface ICheckpointChannel is IVeilContract {
    /// @notice What the group signs.
    struct Checkpoint {
        bytes32 cluster;
        uint64 epoch;
        uint64 sequence;
        bytes32 root;
    }

    /// @notice That an item is under a checkpoint's root.
    struct Inclusion {
        bytes32 item;
        bytes32[] proof;
    }

    /// @notice A checkpoint is the last one.
    event CheckpointPosted(
        bytes32 indexed cluster, uint64 indexed epoch, uint64 indexed sequence, bytes32 root
    );
    /// @notice An item has to be included until this second (Unix time).
    event InclusionForced(
        bytes32 indexed cluster, bytes32 indexed item, address indexed by, uint64 deadline
    );
    /// @notice An item is included.
    event ItemIncluded(bytes32 indexed cluster, bytes32 indexed item, uint64 sequence);

    /// @notice The epoch has no key in force.
    error EpochNotInForce(uint64 given, uint64 current);
    /// @notice The epoch's group was suspended.
    error GroupSuspended(uint64 epoch);
    /// @notice The checkpoint is not later than the last one.
    error SequenceNotLater(uint64 given, uint64 last);
    /// @notice The group's signature does not verify.
    error WrongGroupSignature();
    /// @notice An item was to be included until `deadline`: post a checkpoint that includes it.
    error ItemOverdue(bytes32 item, uint64 deadline);
    /// @notice The item is not under the root.
    error NotIncluded(bytes32 item, bytes32 root);
    /// @notice The item is not waiting.
    error NotWaiting(bytes32 item);
    /// @notice The item was put on chain before.
    error AlreadyForced(bytes32 item);
    /// @notice Only accounts that may submit jobs.
    error MissingRight(bytes32 cluster, address account, uint32 right);
    /// @notice As many items are waiting as may.
    error TooManyWaiting(uint256 waiting);

    /// @notice Posts a checkpoint, with the waiting items that it includes. Anyone who has it.
    function post(
        Checkpoint calldata checkpoint,
        FrostSignature calldata signature,
        Inclusion[] calldata inclusions
    ) external;

    /// @notice Puts an item on chain. Accounts with `RIGHT_SUBMIT`.
    function forceInclude(bytes32 cluster, bytes32 item) external;

    /// @notice The last checkpoint; all zero before the first.
    function lastOf(bytes32 cluster) external view returns (Checkpoint memory);

    /// @notice Until when (Unix time) an item has to be included; 0 if it is not waiting.
    function deadlineOf(bytes32 cluster, bytes32 item) external view returns (uint64);

    /// @notice The first item that waits; zero if none does.
    function firstWaiting(bytes32 cluster) external view returns (bytes32 item, uint64 deadline);
}
