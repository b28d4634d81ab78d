// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";

import {IDirectory} from "./interfaces/IDirectory.sol";
import {IVeilContract} from "./interfaces/IVeilContract.sol";

/// @title What all contracts of a directory have in common
/// @notice Typed data is signed for the directory, not for the contract that checks it: the
/// directory's address is what all of Veil's messages name, and it outlives a replaced contract. The
/// struct types tell purposes apart.
abstract contract VeilContract is IVeilContract {
    bytes32 private constant DOMAIN_TYPE = keccak256(
        "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    );
    bytes32 private constant DOMAIN_NAME = keccak256("Veil");
    bytes32 private constant DOMAIN_VERSION = keccak256("1");

    /// @inheritdoc IVeilContract
    address public immutable override directory;
    /// @inheritdoc IVeilContract
    uint16 public constant override interfaceVersion = 2;

    /// @notice A contract needs the address of another one.
    error MissingContract();

    constructor(address directory_) {
        _requireContract(directory_);
        directory = directory_;
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

    /// @dev For contracts that are deployed later; the others are immutable.
    function _contractOf(bytes32 name) internal view returns (address) {
        return IDirectory(directory).contractOf(name);
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
    function _typedDigest(bytes32 structHash) internal view returns (bytes32) {
        bytes32 separator = keccak256(
            abi.encode(DOMAIN_TYPE, DOMAIN_NAME, DOMAIN_VERSION, block.chainid, directory)
        );
        return MessageHashUtils.toTypedDataHash(separator, structHash);
    }

    /// @dev Who made `signature`, with low s; zero if nobody did.
    function _signer(bytes32 digest, CompactSignature calldata signature)
        internal
        pure
        returns (address)
    {
        (address recovered, ECDSA.RecoverError failure,) =
            ECDSA.tryRecover(digest, signature.r, signature.vs);
        return failure == ECDSA.RecoverError.NoError ? recovered : address(0);
    }

    /// @dev Whether `signature` is by `signer`, with low s.
    function _isSignedBy(address signer, bytes32 digest, CompactSignature calldata signature)
        internal
        pure
        returns (bool)
    {
        return signer != address(0) && _signer(digest, signature) == signer;
    }
}
