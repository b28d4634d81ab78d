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
    /// @dev What follows the message, in two words that overlap: 48 as two bytes, 0, then DST, which is
    /// "FROST-secp256k1-KECCAK256-v1" || "chal", and its length 32.
    uint256 private constant HEAD =
        0x0030004600000000000000000000000000000000000000000000000000000000;
    /// @dev DST without its first letter, and 32, which happens to be a space.
    bytes32 private constant TAIL = "ROST-secp256k1-KECCAK256-v1chal ";
    /// @dev As in `Secp256k1`: assembly takes only literals.
    uint256 private constant P = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEFFFFFC2F;
    uint256 private constant N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;

    /// @notice Whether `key` can be verified against: on the curve, with an x-coordinate that
    /// `ecrecover` takes for r. Check it once, when the key is published.
    function isUsable(IVeilContract.Point memory key) internal pure returns (bool) {
        return key.x != 0 && key.x < N && Secp256k1.isOnCurve(key.x, key.y);
    }

    /// @notice Whether `signature` is by `key` over `message`.
    /// @param key Must be usable, see `isUsable`.
    function verify(
        IVeilContract.CompressedPoint calldata key,
        bytes32 message,
        IVeilContract.FrostSignature calldata signature
    ) internal view returns (bool) {
        uint256 prefix;
        assembly ("memory-safe") {
            prefix := calldataload(add(key, 0x20)) // one that is not 2 or 3 verifies nothing
        }
        return verify(key.x, prefix, message, signature);
    }

    /// @notice The same with the key on the stack.
    /// @param px x-coordinate of the key.
    /// @param prefix 2 if the key's y is even, 3 if it is odd.
    function verify(
        uint256 px,
        uint256 prefix,
        bytes32 message,
        IVeilContract.FrostSignature calldata signature
    ) internal view returns (bool valid) {
        uint256 rx;
        uint256 ry;
        uint256 z;
        assembly ("memory-safe") {
            rx := calldataload(signature)
            ry := calldataload(add(signature, 0x20))
            z := calldataload(add(signature, 0x40))
            // z in its only spelling, and R on the curve: with a free choice of y, a collision of
            // addresses would make a signature. Other spellings of R have another address.
            valid := and(
                lt(z, N),
                eq(mulmod(ry, ry, P), addmod(mulmod(mulmod(rx, rx, P), rx, P), 7, P))
            )
        }
        if (valid) {
            valid = isDifference(px, prefix, challenge(px, prefix, message, rx, ry), z, rx, ry);
        }
    }

    /// @notice Whether (x, y) is z G - c P, P being the point with the x-coordinate `px`, which is not
    /// zero and less than the group's order.
    function isDifference(uint256 px, uint256 prefix, uint256 c, uint256 z, uint256 x, uint256 y)
        internal
        view
        returns (bool valid)
    {
        assembly ("memory-safe") {
            mstore(0x00, x)
            mstore(0x20, y)
            let expected := keccak256(0x00, 0x40)
            let m := mload(0x40)
            // h = -z px, v = 27 or 28 by the parity of py, r = px, s = -c px. Neither h nor s is
            // zero except with negligible probability; ecrecover refuses s = 0.
            mstore(m, sub(N, mulmod(z, px, N)))
            mstore(add(m, 0x20), add(25, prefix))
            mstore(add(m, 0x40), px)
            mstore(add(m, 0x60), sub(N, mulmod(c, px, N)))
            // It returns the point's address, the low 20 bytes of the hash. If it refuses it returns
            // nothing: then x stays here, which is no hash of itself.
            pop(staticcall(gas(), 1, m, 0x80, 0x00, 0x20))
            valid := iszero(shl(96, xor(mload(0x00), expected)))
        }
    }

    /// @notice H2 of the ciphersuite: hash_to_field with one element of 48 bytes.
    function challenge(uint256 px, uint256 prefix, bytes32 message, uint256 rx, uint256 ry)
        internal
        pure
        returns (uint256 c)
    {
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
            mstore(add(m, 234), HEAD)
            mstore(add(m, 238), TAIL)
            let b0 := keccak256(m, 270)
            // b_1 = H(b_0 || 1 || DST || 32): the last 34 bytes are there already.
            m := add(m, 204)
            mstore(m, b0)
            mstore8(add(m, 32), 1)
            let b1 := keccak256(m, 66)
            // b_2 = H((b_0 xor b_1) || 2 || DST || 32)
            mstore(m, xor(b0, b1))
            mstore8(add(m, 32), 2)
            // The 48 bytes b_1 || b_2[..16], reduced.
            c := addmod(mulmod(b1, shl(128, 1), N), shr(128, keccak256(m, 66)), N)
        }
    }
}
