// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";

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
    uint16 public constant override interfaceVersion = 1;

    /// @notice A contract needs the address of another one.
    error MissingContract();

    constructor(address directory_) {
        if (directory_.code.length == 0) revert MissingContract();
        directory = directory_;
    }

    /// @dev EIP-712 digest of a struct's hash. The separator is made anew each time: a fork of the
    /// chain must not accept signatures of the other branch.
    function _typedDigest(bytes32 structHash) internal view returns (bytes32) {
        bytes32 separator = keccak256(
            abi.encode(DOMAIN_TYPE, DOMAIN_NAME, DOMAIN_VERSION, block.chainid, directory)
        );
        return MessageHashUtils.toTypedDataHash(separator, structHash);
    }

    /// @dev Whether `signature` is by `signer`, with low s.
    function _isSignedBy(address signer, bytes32 digest, CompactSignature calldata signature)
        internal
        pure
        returns (bool)
    {
        (address recovered, ECDSA.RecoverError failure,) =
            ECDSA.tryRecover(digest, signature.r, signature.vs);
        return failure == ECDSA.RecoverError.NoError && recovered == signer && signer != address(0);
    }
}
