// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {VeilContract} from "./VeilContract.sol";
import {IJobBoard} from "./interfaces/IJobBoard.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {IPolicyRegistry} from "./interfaces/IPolicyRegistry.sol";

/// @title Ordered job submissions
/// @notice See `IJobBoard`.
contract JobBoard is IJobBoard, VeilContract {
    /// @notice The policy registry's right to submit jobs.
    uint32 public constant RIGHT_SUBMIT = 1;

    /// @notice Most keys of one operator in one cluster.
    uint256 public constant MAX_DELEGATES = 8;
    /// @notice The time that limits are for: a day of the chain's clock.
    uint64 public constant WINDOW = 1 days;
    /// @notice Longest time for which a key may act.
    uint64 public constant MAX_DELEGATION = 366 days;

    /// @notice Where rights and limits are.
    IPolicyRegistry public immutable policies;
    /// @notice Where the clusters' admins are.
    INodeRegistry public immutable registry;

    /// @dev In one word.
    struct Account {
        uint64 nonce;
        uint64 window;
        uint32 jobs;
        uint32 leakBits;
    }

    /// @dev In one word. `place` is the key's in the operator's list, counted from 1; zero if it is not in it.
    struct Grant {
        uint64 until;
        uint64 revokedAt;
        uint8 place;
    }

    mapping(bytes32 cluster => Job[]) private _jobs;
    mapping(bytes32 cluster => mapping(address operator => Account)) private _accounts;
    /// @dev Keccak-256 of cluster, operator, digest.
    mapping(bytes32 job => bool) private _submitted;
    mapping(bytes32 cluster => mapping(address operator => mapping(address key => Grant))) private
        _grants;
    mapping(bytes32 cluster => mapping(address operator => address[])) private _keys;

    constructor(address directory_, IPolicyRegistry policies_, INodeRegistry registry_)
        VeilContract(directory_)
    {
        _requireContract(address(policies_));
        _requireContract(address(registry_));
        policies = policies_;
        registry = registry_;
    }

    /// @inheritdoc IJobBoard
    function submit(bytes32 cluster, bytes32 digest, uint64 nonce, uint32 leakBits)
        external
        override
        whenNotPaused
        returns (uint64 position)
    {
        return _submit(cluster, msg.sender, digest, nonce, leakBits);
    }

    /// @inheritdoc IJobBoard
    function submitFor(
        bytes32 cluster,
        address operator,
        bytes32 digest,
        uint64 nonce,
        uint32 leakBits
    ) external override whenNotPaused returns (uint64 position) {
        _checkDelegate(cluster, operator);
        position = _submit(cluster, operator, digest, nonce, leakBits);
        emit ByDelegate(cluster, position, msg.sender);
    }

    /// @inheritdoc IJobBoard
    function cancel(bytes32 cluster, uint64 position) external override {
        Job storage job = _jobAt(cluster, position);
        if (job.operator != msg.sender && registry.clusterOf(cluster).admin != msg.sender) {
            revert NotSubmitter(position, msg.sender);
        }
        _cancel(cluster, position, job);
    }

    /// @inheritdoc IJobBoard
    function cancelFor(bytes32 cluster, uint64 position) external override {
        Job storage job = _jobAt(cluster, position);
        _checkDelegate(cluster, job.operator);
        _cancel(cluster, position, job);
        emit ByDelegate(cluster, position, msg.sender);
    }

    /// @inheritdoc IJobBoard
    function delegate(bytes32 cluster, address key, uint64 until) external override {
        if (key == address(0) || key == msg.sender) revert InvalidDelegate(key);
        uint64 latest = uint64(block.timestamp) + MAX_DELEGATION;
        if (until < block.timestamp || until > latest) revert InvalidDelegationTime(until, latest);
        Grant storage grant = _grants[cluster][msg.sender][key];
        if (grant.place == 0) grant.place = _placeFor(cluster, key);
        (grant.until, grant.revokedAt) = (until, 0);
        emit KeyDelegated(cluster, msg.sender, key, until);
    }

    /// @inheritdoc IJobBoard
    function revoke(bytes32 cluster, address key) external override {
        mapping(address => Grant) storage grants = _grants[cluster][msg.sender];
        Grant storage grant = grants[key];
        if (grant.revokedAt != 0) revert DelegateRevoked(msg.sender, key, grant.revokedAt);
        if (grant.until == 0) revert NotDelegate(cluster, msg.sender, key);
        if (grant.place != 0) {
            address[] storage keys = _keys[cluster][msg.sender];
            address last = keys[keys.length - 1];
            keys[grant.place - 1] = last;
            grants[last].place = grant.place;
            keys.pop();
        }
        (grant.revokedAt, grant.place) = (uint64(block.timestamp), 0);
        emit KeyRevoked(cluster, msg.sender, key);
    }

    /// @inheritdoc IJobBoard
    function delegatesOf(bytes32 cluster, address operator)
        external
        view
        override
        returns (Delegation[] memory list)
    {
        address[] storage keys = _keys[cluster][operator];
        list = new Delegation[](keys.length);
        for (uint256 i = 0; i < list.length; ++i) {
            list[i] = _delegation(cluster, operator, keys[i]);
        }
    }

    /// @inheritdoc IJobBoard
    function delegationOf(bytes32 cluster, address operator, address key)
        external
        view
        override
        returns (Delegation memory)
    {
        return _delegation(cluster, operator, key);
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
        return Usage(account.window, account.jobs, account.leakBits);
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

    function _submit(
        bytes32 cluster,
        address operator,
        bytes32 digest,
        uint64 nonce,
        uint32 leakBits
    ) private returns (uint64 position) {
        IPolicyRegistry.Allowance memory allowed = policies.allowanceOf(cluster, operator);
        if (allowed.rights & RIGHT_SUBMIT == 0) {
            revert MissingRight(cluster, operator, RIGHT_SUBMIT);
        }
        if (digest == 0) revert EmptyDigest();
        if (leakBits == 0) revert NoLeakStated();
        Account memory account = _account(cluster, operator);
        if (nonce != account.nonce) revert WrongNonce(nonce, account.nonce);
        if (account.jobs >= allowed.jobsPerDay) {
            revert QuotaExceeded(account.jobs, allowed.jobsPerDay);
        }
        if (uint256(account.leakBits) + leakBits > allowed.leakBitsPerDay) {
            revert LeakBudgetExceeded(account.leakBits, leakBits, allowed.leakBitsPerDay);
        }
        // Somebody else's job of the same digest is another one, and says nothing of this.
        bytes32 job = keccak256(abi.encode(cluster, operator, digest));
        if (_submitted[job]) revert AlreadySubmitted(cluster, operator, digest);
        _submitted[job] = true;
        account.nonce += 1;
        account.jobs += 1;
        account.leakBits += leakBits;
        _accounts[cluster][operator] = account;
        position = uint64(_jobs[cluster].length);
        _jobs[cluster].push(Job(digest, operator, false, leakBits));
        emit JobSubmitted(cluster, position, operator, digest, nonce, leakBits);
    }

    function _jobAt(bytes32 cluster, uint64 position) private view returns (Job storage) {
        if (position >= _jobs[cluster].length) revert UnknownJob(cluster, position);
        return _jobs[cluster][position];
    }

    function _cancel(bytes32 cluster, uint64 position, Job storage job) private {
        if (job.cancelled) revert AlreadyCancelled(position);
        job.cancelled = true;
        emit JobCancelled(cluster, position);
    }

    /// @dev Whether the caller may act for the operator now.
    function _checkDelegate(bytes32 cluster, address operator) private view {
        Grant memory grant = _grants[cluster][operator][msg.sender];
        if (grant.until == 0) revert NotDelegate(cluster, operator, msg.sender);
        if (grant.revokedAt != 0) revert DelegateRevoked(operator, msg.sender, grant.revokedAt);
        if (block.timestamp > grant.until) {
            revert DelegateExpired(operator, msg.sender, grant.until);
        }
    }

    /// @dev The place of one more key of the caller, counted from 1.
    function _placeFor(bytes32 cluster, address key) private returns (uint8) {
        address[] storage keys = _keys[cluster][msg.sender];
        uint256 length = keys.length;
        if (length < MAX_DELEGATES) {
            keys.push(key);
            return uint8(length + 1);
        }
        for (uint256 i = 0; i < length; ++i) {
            Grant storage old = _grants[cluster][msg.sender][keys[i]];
            if (block.timestamp > old.until) {
                old.place = 0;
                keys[i] = key;
                return uint8(i + 1);
            }
        }
        revert TooManyDelegates(MAX_DELEGATES);
    }

    function _delegation(bytes32 cluster, address operator, address key)
        private
        view
        returns (Delegation memory)
    {
        Grant memory grant = _grants[cluster][operator][key];
        return Delegation(key, grant.until, grant.revokedAt);
    }

    /// @dev With the usage of the window that it is: it starts anew with each.
    function _account(bytes32 cluster, address operator)
        private
        view
        returns (Account memory account)
    {
        account = _accounts[cluster][operator];
        uint64 window = uint64(block.timestamp) / WINDOW;
        if (account.window != window) {
            (account.window, account.jobs, account.leakBits) = (window, 0, 0);
        }
    }
}
