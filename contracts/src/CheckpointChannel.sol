// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";

import {VeilContract} from "./VeilContract.sol";
import {ICheckpointChannel} from "./interfaces/ICheckpointChannel.sol";
import {IKeyCeremony} from "./interfaces/IKeyCeremony.sol";
import {IPolicyRegistry} from "./interfaces/IPolicyRegistry.sol";
import {FrostVerifier} from "./libraries/FrostVerifier.sol";

/// @title Checkpoints of slots that are too frequent to anchor one by one
/// @notice See `ICheckpointChannel`.
contract CheckpointChannel is ICheckpointChannel, VeilContract {
    /// @notice The policy registry's right to submit jobs.
    uint32 public constant RIGHT_SUBMIT = 1;
    /// @notice How long the committee has to include an item.
    uint64 public constant INCLUSION_WINDOW = 1 days;
    /// @notice Most items that wait at a time, so that they fit into one checkpoint's transaction.
    uint256 public constant MAX_WAITING = 64;
    /// @notice EIP-712 type of what the group signs.
    bytes32 public constant CHECKPOINT_TYPE =
        keccak256("Checkpoint(bytes32 cluster,uint64 epoch,uint64 sequence,bytes32 root)");

    /// @notice Where rights are.
    IPolicyRegistry public immutable policies;
    /// @notice Where the keys are.
    IKeyCeremony public immutable ceremony;

    /// @dev Items in the order of their deadlines; those before `first` are included, and some after
    /// it may be.
    struct Queue {
        uint64 first;
        uint64 waiting;
        bytes32[] items;
    }

    mapping(bytes32 cluster => Checkpoint) private _last;
    mapping(bytes32 cluster => Queue) private _queues;
    mapping(bytes32 cluster => mapping(bytes32 item => bool)) private _forced;
    /// @inheritdoc ICheckpointChannel
    mapping(bytes32 cluster => mapping(bytes32 item => uint64)) public override deadlineOf;

    constructor(address directory_, IPolicyRegistry policies_, IKeyCeremony ceremony_)
        VeilContract(directory_)
    {
        _requireContract(address(policies_));
        _requireContract(address(ceremony_));
        policies = policies_;
        ceremony = ceremony_;
    }

    /// @inheritdoc ICheckpointChannel
    function post(
        Checkpoint calldata checkpoint,
        FrostSignature calldata signature,
        Inclusion[] calldata inclusions
    ) external override whenNotPaused {
        _checkLater(checkpoint);
        _checkSignature(checkpoint, signature);
        _last[checkpoint.cluster] = checkpoint;
        emit CheckpointPosted(
            checkpoint.cluster, checkpoint.epoch, checkpoint.sequence, checkpoint.root
        );
        for (uint256 i = 0; i < inclusions.length; ++i) {
            _include(checkpoint, inclusions[i]);
        }
        Queue storage queue = _queues[checkpoint.cluster];
        uint64 first = queue.first;
        while (
            first < queue.items.length && deadlineOf[checkpoint.cluster][queue.items[first]] == 0
        ) {
            ++first;
        }
        queue.first = first;
        (bytes32 item, uint64 deadline) = firstWaiting(checkpoint.cluster);
        if (deadline != 0 && block.timestamp > deadline) revert ItemOverdue(item, deadline);
    }

    /// @inheritdoc ICheckpointChannel
    function forceInclude(bytes32 cluster, bytes32 item) external override {
        if (policies.allowanceOf(cluster, msg.sender).rights & RIGHT_SUBMIT == 0) {
            revert MissingRight(cluster, msg.sender, RIGHT_SUBMIT);
        }
        if (_forced[cluster][item]) revert AlreadyForced(item);
        Queue storage queue = _queues[cluster];
        if (queue.waiting >= MAX_WAITING) revert TooManyWaiting(queue.waiting);
        _forced[cluster][item] = true;
        uint64 deadline = uint64(block.timestamp) + INCLUSION_WINDOW;
        deadlineOf[cluster][item] = deadline;
        queue.items.push(item);
        queue.waiting += 1;
        emit InclusionForced(cluster, item, msg.sender, deadline);
    }

    /// @inheritdoc ICheckpointChannel
    function lastOf(bytes32 cluster) external view override returns (Checkpoint memory) {
        return _last[cluster];
    }

    /// @inheritdoc ICheckpointChannel
    function firstWaiting(bytes32 cluster)
        public
        view
        override
        returns (bytes32 item, uint64 deadline)
    {
        Queue storage queue = _queues[cluster];
        for (uint256 i = queue.first; i < queue.items.length; ++i) {
            item = queue.items[i];
            deadline = deadlineOf[cluster][item];
            if (deadline != 0) return (item, deadline);
        }
        return (0, 0);
    }

    function _include(Checkpoint calldata checkpoint, Inclusion calldata inclusion) private {
        bytes32 cluster = checkpoint.cluster;
        bytes32 item = inclusion.item;
        if (deadlineOf[cluster][item] == 0) revert NotWaiting(item);
        bytes32 leaf = keccak256(bytes.concat(item));
        if (!MerkleProof.verifyCalldata(inclusion.proof, checkpoint.root, leaf)) {
            revert NotIncluded(item, checkpoint.root);
        }
        deadlineOf[cluster][item] = 0;
        _queues[cluster].waiting -= 1;
        emit ItemIncluded(cluster, item, checkpoint.sequence);
    }

    /// @dev The epoch in force, and in it a higher sequence; sequences start at 1.
    function _checkLater(Checkpoint calldata checkpoint) private view {
        uint64 epochs = ceremony.epochs(checkpoint.cluster);
        if (epochs == 0) revert IKeyCeremony.NoKey(checkpoint.cluster, 0);
        if (checkpoint.epoch != epochs - 1) revert EpochNotInForce(checkpoint.epoch, epochs - 1);
        if (ceremony.isSuspended(checkpoint.cluster, checkpoint.epoch)) {
            revert GroupSuspended(checkpoint.epoch);
        }
        Checkpoint storage last = _last[checkpoint.cluster];
        uint64 before = last.epoch == checkpoint.epoch ? last.sequence : 0;
        if (checkpoint.sequence <= before) revert SequenceNotLater(checkpoint.sequence, before);
    }

    function _checkSignature(Checkpoint calldata checkpoint, FrostSignature calldata signature)
        private
        view
    {
        IKeyCeremony.Key memory key = ceremony.keyOf(checkpoint.cluster, checkpoint.epoch);
        bytes32 digest = _typedDigest(keccak256(abi.encode(CHECKPOINT_TYPE, checkpoint)));
        bool valid = FrostVerifier.verify(key.groupKeyX, key.groupKeyPrefix, digest, signature);
        if (!valid) revert WrongGroupSignature();
    }
}
