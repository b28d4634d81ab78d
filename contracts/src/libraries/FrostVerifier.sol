// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IVeilContract} from "../interfaces/IVeilContract.sol";
import {Secp256k1} from "./Secp256k1.sol";

/// @title Verification of FROST signatures over secp256k1 with Keccak-256
/// @notice The equation is z G = R + c PK with c = H2(R || PK || message) (RFC 9591, section 3.2 and
/// appendix A; RFC 9380, section 5.2, with ExpandMsgXmd over Keccak-256). No precompile multiplies
/// points, but `ecrecover(h, v, r, s)` returns the address of (s R' - h G) / r for the point R' whose
/// x-coordinate is r. With R' = PK, r = px, h = -z px and s = -c px that is z G - c PK, which has to
/// be R.
library FrostVerifier {
    /// @dev "FROST-secp256k1-KECCAK256-v1" || "chal": 32 bytes, so its length byte is 0x20.
    bytes32 private constant DST = "FROST-secp256k1-KECCAK256-v1chal";

    /// @notice Whether `key` can be verified against: on the curve, with an x-coordinate that
    /// `ecrecover` takes for r. Check it once, when the key is published.
    function isUsable(IVeilContract.Point memory key) internal pure returns (bool) {
        return key.x != 0 && key.x < Secp256k1.N && Secp256k1.isOnCurve(key.x, key.y);
    }

    /// @notice Whether `signature` is by `key` over `message`.
    /// @param key Must be usable, see `isUsable`.
    function verify(
        IVeilContract.CompressedPoint calldata key,
        bytes32 message,
        IVeilContract.FrostSignature calldata signature
    ) internal view returns (bool) {
        return verify(key.x, key.prefix, message, signature.rx, signature.ry, signature.z);
    }

    /// @notice The same, with everything on the stack.
    /// @param px x-coordinate of the key.
    /// @param prefix 2 if the key's y is even, 3 if it is odd.
    /// @param z Refused if it is not the least spelling of the scalar.
    function verify(uint256 px, uint256 prefix, bytes32 message, uint256 rx, uint256 ry, uint256 z)
        internal
        view
        returns (bool valid)
    {
        if (z >= Secp256k1.N || !Secp256k1.isOnCurve(rx, ry)) return false;
        uint256 c = challenge(px, prefix, message, rx, ry);
        return isDifference(px, prefix, c, z, Secp256k1.toAddress(rx, ry));
    }

    /// @notice Whether `expected` is the address of z G - c P, P being the point with the
    /// x-coordinate `px`, which is not zero and less than the group's order.
    function isDifference(uint256 px, uint256 prefix, uint256 c, uint256 z, address expected)
        internal
        view
        returns (bool valid)
    {
        uint256 n = Secp256k1.N;
        assembly ("memory-safe") {
            let m := mload(0x40)
            // h = -z px, v = 27 or 28 by the parity of py, r = px, s = -c px. Neither h nor s is
            // zero except with negligible probability; ecrecover refuses s = 0.
            mstore(m, sub(n, mulmod(z, px, n)))
            mstore(add(m, 0x20), add(25, prefix))
            mstore(add(m, 0x40), px)
            mstore(add(m, 0x60), sub(n, mulmod(c, px, n)))
            // It returns nothing if it refuses, so that zero stays; no point has address zero.
            mstore(0x00, 0)
            valid := staticcall(gas(), 1, m, 0x80, 0x00, 0x20)
            valid := and(valid, eq(mload(0x00), expected))
        }
    }

    /// @notice H2 of the ciphersuite: hash_to_field with one element of 48 bytes.
    function challenge(uint256 px, uint256 prefix, bytes32 message, uint256 rx, uint256 ry)
        internal
        pure
        returns (uint256 c)
    {
        uint256 n = Secp256k1.N;
        assembly ("memory-safe") {
            let m := mload(0x40)
            // b_0 = H(Z_pad || R || PK || message || 48 (2 bytes) || 0 || DST || 32), where Z_pad is
            // one block of Keccak-256: 136 zero bytes (reading beyond the calldata gives zeros).
            calldatacopy(m, calldatasize(), 0x80)
            mstore(add(m, 105), add(2, and(ry, 1))) // its last byte is byte 136
            mstore(add(m, 137), rx)
            mstore8(add(m, 169), prefix)
            mstore(add(m, 170), px)
            mstore(add(m, 202), message)
            mstore(add(m, 234), shl(232, 0x003000))
            mstore(add(m, 237), DST)
            mstore8(add(m, 269), 32)
            let b0 := keccak256(m, 270)
            // b_1 = H(b_0 || 1 || DST || 32): the last 34 bytes are there already.
            mstore(add(m, 204), b0)
            mstore8(add(m, 236), 1)
            let b1 := keccak256(add(m, 204), 66)
            // b_2 = H((b_0 xor b_1) || 2 || DST || 32)
            mstore(add(m, 204), xor(b0, b1))
            mstore8(add(m, 236), 2)
            let b2 := keccak256(add(m, 204), 66)
            // The 48 bytes b_1 || b_2[..16], reduced.
            c := addmod(mulmod(b1, shl(128, 1), n), shr(128, b2), n)
        }
    }
}
