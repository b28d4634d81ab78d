// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable, Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";

import {IDirectory} from "./interfaces/IDirectory.sol";
import {IVeilContract} from "./interfaces/IVeilContract.sol";

/// @title Directory of the contracts in force
/// @notice See `IDirectory`.
contract Directory is IDirectory, Ownable2Step {
    /// @inheritdoc IDirectory
    uint16 public constant override interfaceVersion = 6;

    /// @notice How long a pause is, in seconds.
    uint64 public constant PAUSE = 7 days;
    /// @notice How long after the end of a pause the next one may begin, in seconds.
    uint64 public constant COOL_DOWN = 21 days;

    /// @inheritdoc IDirectory
    address public override guardian;
    /// @inheritdoc IDirectory
    uint64 public override pausedUntil;
    /// @inheritdoc IDirectory
    uint64 public override pausableFrom;

    /// @dev May publish the first set, which needs this contract's address.
    address private immutable _deployer;
    Entry[][] private _sets;
    /// @dev By version, then name.
    mapping(uint64 version => mapping(bytes32 name => address)) private _at;

    constructor(address owner_, address guardian_) Ownable(owner_) {
        _deployer = msg.sender;
        guardian = guardian_;
        emit GuardianChanged(guardian_);
    }

    modifier onlyGuardian() {
        if (msg.sender != guardian && msg.sender != owner()) revert NotGuardian(msg.sender);
        _;
    }

    /// @inheritdoc IDirectory
    function publish(Entry[] calldata entries) external override returns (uint64 version) {
        if (msg.sender != owner() && (msg.sender != _deployer || _sets.length > 0)) {
            revert NotPublisher(msg.sender);
        }
        Entry[] storage set = _sets.push();
        version = uint64(_sets.length);
        for (uint256 i = 0; i < entries.length; ++i) {
            Entry calldata entry = entries[i];
            if (_at[version][entry.name] != address(0)) revert DuplicateName(entry.name);
            if (
                entry.location.code.length == 0
                    || IVeilContract(entry.location).directory() != address(this)
            ) {
                revert ForeignContract(entry.name, entry.location);
            }
            uint64 found = IVeilContract(entry.location).setVersion();
            if (found != version) revert OtherSet(entry.name, found, version);
            uint16 speaks = IVeilContract(entry.location).interfaceVersion();
            if (speaks != interfaceVersion) {
                revert OtherInterface(entry.name, speaks, interfaceVersion);
            }
            _at[version][entry.name] = entry.location;
            set.push(entry);
        }
        _requireComplete(version);
        emit SetPublished(version, entries);
    }

    /// @inheritdoc IDirectory
    function setGuardian(address guardian_) external override onlyOwner {
        guardian = guardian_;
        emit GuardianChanged(guardian_);
    }

    /// @inheritdoc IDirectory
    function pause() external override onlyGuardian {
        if (block.timestamp < pausableFrom) revert PauseTooSoon(pausableFrom);
        pausedUntil = uint64(block.timestamp) + PAUSE;
        pausableFrom = pausedUntil + COOL_DOWN;
        emit PauseChanged(msg.sender, pausedUntil);
    }

    /// @inheritdoc IDirectory
    function unpause() external override onlyGuardian {
        pausedUntil = 0;
        emit PauseChanged(msg.sender, 0);
    }

    /// @inheritdoc IDirectory
    function currentVersion() public view override returns (uint64) {
        return uint64(_sets.length);
    }

    /// @inheritdoc IDirectory
    function setAt(uint64 version) external view override returns (Entry[] memory) {
        if (version == 0 || version > _sets.length) revert UnknownVersion(version);
        return _sets[version - 1];
    }

    /// @inheritdoc IDirectory
    function contractOf(bytes32 name) external view override returns (address) {
        return contractAt(currentVersion(), name);
    }

    /// @inheritdoc IDirectory
    function contractAt(uint64 version, bytes32 name)
        public
        view
        override
        returns (address location)
    {
        location = _at[version][name];
        if (location == address(0)) revert UnknownContract(name);
    }

    /// @dev A set that lacks one of these would lock the nodes of the others in.
    function _requireComplete(uint64 version) private view {
        bytes32[8] memory names = [
            bytes32("NodeRegistry"),
            "PolicyRegistry",
            "CommitteeElection",
            "KeyCeremony",
            "JobBoard",
            "AssignmentAnchor",
            "Disputes",
            "FeePool"
        ];
        for (uint256 i = 0; i < names.length; ++i) {
            if (_at[version][names[i]] == address(0)) revert IncompleteSet(names[i]);
        }
    }
}
