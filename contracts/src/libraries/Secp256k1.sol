// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IVeilContract} from "../interfaces/IVeilContract.sol";

/// @title Points of secp256k1
library Secp256k1 {
    /// @dev The field's order, SEC 2 v2, section 2.4.1.
    uint256 internal constant P =
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEFFFFFC2F;
    /// @dev The group's order.
    uint256 internal constant N =
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;

    /// @notice Whether (x, y) is on y^2 = x^3 + 7, in its only spelling. The point at infinity has
    /// no such form.
    function isOnCurve(uint256 x, uint256 y) internal pure returns (bool on) {
        uint256 p = P;
        assembly ("memory-safe") {
            on := and(
                and(lt(x, p), lt(y, p)),
                eq(mulmod(y, y, p), addmod(mulmod(mulmod(x, x, p), x, p), 7, p))
            )
        }
    }

    /// @notice First byte of the compressed form: 2 if y is even, 3 if odd.
    function prefix(uint256 y) internal pure returns (uint8) {
        return uint8(2 + (y & 1));
    }

    /// @notice The account address of a public key, which is what `ecrecover` returns.
    function toAddress(uint256 x, uint256 y) internal pure returns (address account) {
        assembly ("memory-safe") {
            mstore(0x00, x)
            mstore(0x20, y)
            account := and(keccak256(0x00, 0x40), 0xffffffffffffffffffffffffffffffffffffffff)
        }
    }

    /// @notice Keccak-256 of the libp2p peer id of a key: the multihash `identity` (0x00) of 37
    /// (0x25) bytes, the protobuf of key type 2 (0x08 0x02) and 33 (0x21) bytes of key (0x12).
    function peerIdHash(IVeilContract.Point calldata key) internal pure returns (bytes32 hash) {
        (uint256 x, uint256 y) = (key.x, key.y);
        assembly ("memory-safe") {
            // The seven bytes before the coordinate are the last of the first word.
            mstore(0x00, or(0x00250802122102, and(y, 1)))
            mstore(0x20, x)
            hash := keccak256(0x19, 0x27)
        }
    }

    /// @notice The account address of the key of a peer; zero if the key is not the peer's.
    function addressOf(bytes32 peer, IVeilContract.Point calldata key)
        internal
        pure
        returns (address)
    {
        bool own = isOnCurve(key.x, key.y) && peerIdHash(key) == peer;
        return own ? toAddress(key.x, key.y) : address(0);
    }
}
