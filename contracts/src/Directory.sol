// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable, Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";

import {IDirectory} from "./interfaces/IDirectory.sol";
import {IVeilContract} from "./interfaces/IVeilContract.sol";

/// @title Directory of the contracts in force
/// @notice See `IDirectory`.
contract Directory is IDirectory, Ownable2Step {
    /// @inheritdoc IDirectory
    uint16 public constant override interfaceVersion = 1;

    Entry[][] private _sets;
    /// @dev By version, then name.
    mapping(uint64 version => mapping(bytes32 name => address)) private _at;

    constructor(address owner_) Ownable(owner_) {}

    /// @inheritdoc IDirectory
    function publish(Entry[] calldata entries)
        external
        override
        onlyOwner
        returns (uint64 version)
    {
        if (entries.length == 0) revert EmptySet();
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
            _at[version][entry.name] = entry.location;
            set.push(entry);
        }
        emit SetPublished(version, entries);
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
    function contractOf(bytes32 name) external view override returns (address location) {
        location = _at[currentVersion()][name];
        if (location == address(0)) revert UnknownContract(name);
    }
}
