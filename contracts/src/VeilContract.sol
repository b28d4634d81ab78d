// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";

import {IDirectory} from "./interfaces/IDirectory.sol";
import {IVeilContract} from "./interfaces/IVeilContract.sol";

/// @title What all contracts of a directory have in common
/// @notice Typed data is signed for the directory, not for the contract that checks it: the
/// directory's address is what all of Veil's messages name, and it outlives a replaced contract. The
/// struct types tell purposes apart, and the cluster, which each of them names, tells sets apart: its id
/// commits to the registry that it was registered in.
abstract contract VeilContract is IVeilContract {
    bytes32 private constant DOMAIN_TYPE = keccak256(
        "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    );
    bytes32 private constant DOMAIN_NAME = keccak256("Veil");
    bytes32 private constant DOMAIN_VERSION = keccak256("1");
    /// @dev Half of the order of secp256k1, rounded down: the largest s.
    uint256 private constant HALF_N =
        0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    /// @inheritdoc IVeilContract
    address public immutable override directory;
    /// @inheritdoc IVeilContract
    uint16 public constant override interfaceVersion = 6;
    /// @inheritdoc IVeilContract
    uint64 public immutable override setVersion;

    /// @notice A contract needs the address of another one.
    error MissingContract();

    constructor(address directory_) {
        _requireContract(directory_);
        directory = directory_;
        setVersion = IDirectory(directory_).currentVersion() + 1;
    }

    modifier whenNotPaused() {
        uint64 until = IDirectory(directory).pausedUntil();
        if (block.timestamp <= until) revert Paused(until);
        _;
    }

    modifier onlyGovernance() {
        if (msg.sender != _governance()) revert NotGovernance(msg.sender);
        _;
    }

    modifier onlyContract(bytes32 name) {
        if (msg.sender != _contractOf(name)) revert NotContract(name, msg.sender);
        _;
    }

    /// @dev For contracts that are deployed later; the others are immutable. Those of this contract's own set:
    /// whatever governance puts in force later has no say over what is here.
    function _contractOf(bytes32 name) internal view returns (address) {
        return IDirectory(directory).contractAt(setVersion, name);
    }

    /// @dev The timelock.
    function _governance() internal view returns (address) {
        return Ownable(directory).owner();
    }

    function _requireContract(address location) internal view {
        if (location.code.length == 0) revert MissingContract();
    }

    /// @dev EIP-712 digest of a struct's hash. The separator is made anew each time: a fork of the
    /// chain must not accept signatures of the other branch.
    function _typedDigest(bytes32 structHash) internal view returns (bytes32 digest) {
        (bytes32 kind, bytes32 name, bytes32 version) = (DOMAIN_TYPE, DOMAIN_NAME, DOMAIN_VERSION);
        address verifying = directory;
        assembly ("memory-safe") {
            let m := mload(0x40)
            mstore(m, kind)
            mstore(add(m, 0x20), name)
            mstore(add(m, 0x40), version)
            mstore(add(m, 0x60), chainid())
            mstore(add(m, 0x80), verifying)
            let separator := keccak256(m, 0xa0)
            mstore(m, shl(240, 0x1901))
            mstore(add(m, 0x02), separator)
            mstore(add(m, 0x22), structHash)
            digest := keccak256(m, 0x42)
        }
    }

    /// @dev Who made `signature`, with low s (EIP-2098, EIP-2); zero if nobody did.
    function _signer(bytes32 digest, CompactSignature calldata signature)
        internal
        view
        returns (address signer)
    {
        assembly ("memory-safe") {
            let vs := calldataload(add(signature, 0x20))
            let sValue := shr(1, shl(1, vs))
            let m := mload(0x40)
            mstore(m, digest)
            mstore(add(m, 0x20), add(27, shr(255, vs)))
            mstore(add(m, 0x40), calldataload(signature))
            mstore(add(m, 0x60), sValue)
            mstore(0x00, 0)
            // It returns nothing if it refuses, so that zero stays.
            pop(staticcall(gas(), 1, m, 0x80, 0x00, 0x20))
            if iszero(gt(sValue, HALF_N)) { signer := mload(0x00) }
        }
    }

    /// @dev Whether `signature` is by `signer`, with low s.
    function _isSignedBy(address signer, bytes32 digest, CompactSignature calldata signature)
        internal
        view
        returns (bool)
    {
        return signer != address(0) && _signer(digest, signature) == signer;
    }
}
