// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {VeilContract} from "./VeilContract.sol";
import {IJobBoard} from "./interfaces/IJobBoard.sol";
import {IKeyCeremony} from "./interfaces/IKeyCeremony.sol";
import {IPolicyRegistry} from "./interfaces/IPolicyRegistry.sol";

/// @title Ordered job submissions
/// @notice See `IJobBoard`.
contract JobBoard is IJobBoard, VeilContract {
    /// @notice The policy registry's right to submit jobs.
    uint32 public constant RIGHT_SUBMIT = 1;

    /// @notice Where rights and limits are.
    IPolicyRegistry public immutable policies;
    /// @notice Where the epochs are.
    IKeyCeremony public immutable ceremony;

    /// @dev In one word.
    struct Account {
        uint64 nonce;
        uint64 epoch;
        uint32 jobs;
        uint32 leakBits;
    }

    mapping(bytes32 cluster => Job[]) private _jobs;
    mapping(bytes32 cluster => mapping(address operator => Account)) private _accounts;

    constructor(address directory_, IPolicyRegistry policies_, IKeyCeremony ceremony_)
        VeilContract(directory_)
    {
        _requireContract(address(policies_));
        _requireContract(address(ceremony_));
        policies = policies_;
        ceremony = ceremony_;
    }

    /// @inheritdoc IJobBoard
    function submit(bytes32 cluster, bytes32 digest, uint64 nonce, uint32 leakBits)
        external
        override
        whenNotPaused
        returns (uint64 position)
    {
        IPolicyRegistry.Allowance memory allowed = policies.allowanceOf(cluster, msg.sender);
        if (allowed.rights & RIGHT_SUBMIT == 0) {
            revert MissingRight(cluster, msg.sender, RIGHT_SUBMIT);
        }
        if (digest == 0) revert EmptyDigest();
        if (leakBits == 0) revert NoLeakStated();
        Account memory account = _account(cluster, msg.sender);
        if (nonce != account.nonce) revert WrongNonce(nonce, account.nonce);
        if (account.jobs >= allowed.jobsPerEpoch) {
            revert QuotaExceeded(account.jobs, allowed.jobsPerEpoch);
        }
        if (uint256(account.leakBits) + leakBits > allowed.leakBitsPerEpoch) {
            revert LeakBudgetExceeded(account.leakBits, leakBits, allowed.leakBitsPerEpoch);
        }
        account.nonce += 1;
        account.jobs += 1;
        account.leakBits += leakBits;
        _accounts[cluster][msg.sender] = account;
        position = uint64(_jobs[cluster].length);
        _jobs[cluster].push(Job(digest, msg.sender, false, leakBits));
        emit JobSubmitted(cluster, position, msg.sender, digest, nonce, leakBits);
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
        return _accounts[cluster][operator].nonce;
    }

    /// @inheritdoc IJobBoard
    function usageOf(bytes32 cluster, address operator)
        external
        view
        override
        returns (Usage memory)
    {
        Account memory account = _account(cluster, operator);
        return Usage(account.epoch, account.jobs, account.leakBits);
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

    /// @dev With the usage of the epoch in force: it starts anew with each key.
    function _account(bytes32 cluster, address operator)
        private
        view
        returns (Account memory account)
    {
        account = _accounts[cluster][operator];
        uint64 epoch = ceremony.epochs(cluster);
        if (account.epoch != epoch) {
            (account.epoch, account.jobs, account.leakBits) = (epoch, 0, 0);
        }
    }
}
