// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {VeilContract} from "./VeilContract.sol";
import {IJobBoard} from "./interfaces/IJobBoard.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";

/// @title Ordered job submissions
/// @notice See `IJobBoard`.
contract JobBoard is IJobBoard, VeilContract {
    /// @notice The registry's right to submit jobs.
    uint32 public constant RIGHT_SUBMIT = 1;

    /// @notice Where the rights are.
    INodeRegistry public immutable registry;

    mapping(bytes32 cluster => Job[]) private _jobs;
    mapping(bytes32 cluster => mapping(address operator => uint64)) private _nonces;

    constructor(address directory_, INodeRegistry registry_) VeilContract(directory_) {
        if (address(registry_).code.length == 0) revert MissingContract();
        registry = registry_;
    }

    /// @inheritdoc IJobBoard
    function submit(bytes32 cluster, bytes32 digest, uint64 nonce)
        external
        override
        returns (uint64 position)
    {
        if (registry.rightsOf(cluster, msg.sender) & RIGHT_SUBMIT == 0) {
            revert MissingRight(cluster, msg.sender, RIGHT_SUBMIT);
        }
        if (digest == 0) revert EmptyDigest();
        uint64 expected = _nonces[cluster][msg.sender];
        if (nonce != expected) revert WrongNonce(nonce, expected);
        _nonces[cluster][msg.sender] = expected + 1;
        position = uint64(_jobs[cluster].length);
        _jobs[cluster].push(Job(digest, msg.sender, false));
        emit JobSubmitted(cluster, position, msg.sender, digest, nonce);
    }

    /// @inheritdoc IJobBoard
    function cancel(bytes32 cluster, uint64 position) external override {
        if (position >= _jobs[cluster].length) revert UnknownJob(cluster, position);
        Job storage job = _jobs[cluster][position];
        if (job.operator != msg.sender) revert NotSubmitter(position, msg.sender);
        if (job.cancelled) revert AlreadyCancelled(position);
        job.cancelled = true;
        emit JobCancelled(cluster, position);
    }

    /// @inheritdoc IJobBoard
    function count(bytes32 cluster) external view override returns (uint64) {
        return uint64(_jobs[cluster].length);
    }

    /// @inheritdoc IJobBoard
    function nextNonce(bytes32 cluster, address operator) external view override returns (uint64) {
        return _nonces[cluster][operator];
    }

    /// @inheritdoc IJobBoard
    function jobs(bytes32 cluster, uint64 from, uint64 limit)
        external
        view
        override
        returns (Job[] memory page)
    {
        Job[] storage all = _jobs[cluster];
        uint256 end = uint256(from) + limit;
        if (end > all.length) end = all.length;
        page = new Job[](end > from ? end - from : 0);
        for (uint256 i = 0; i < page.length; ++i) {
            page[i] = all[from + i];
        }
    }
}
