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
    function verify(IVeilContract.Point memory key, bytes32 message, IVeilContract.FrostSignature memory signature)
        internal
        pure
        returns (bool)
    {
        if (signature.z >= Secp256k1.N) return false;
        if (!Secp256k1.isOnCurve(signature.rx, signature.ry)) return false;
        uint256 c = challenge(key, message, signature.rx, signature.ry);
        // Neither is zero except with negligible probability; ecrecover would refuse s = 0.
        uint256 h = Secp256k1.N - mulmod(signature.z, key.x, Secp256k1.N);
        uint256 s = Secp256k1.N - mulmod(c, key.x, Secp256k1.N);
        address recovered =
            ecrecover(bytes32(h), uint8(27 + (key.y & 1)), bytes32(key.x), bytes32(s));
        return
            recovered != address(0)
                && recovered == Secp256k1.toAddress(signature.rx, signature.ry);
    }

    /// @notice H2 of the ciphersuite: hash_to_field with one element of 48 bytes.
    function challenge(IVeilContract.Point memory key, bytes32 message, uint256 rx, uint256 ry)
        internal
        pure
        returns (uint256 c)
    {
        uint256 n = Secp256k1.N;
        assembly ("memory-safe") {
            let m := mload(0x40)
            // b_0 = H(Z_pad || R || PK || message || 48 (2 bytes) || 0 || DST || 32), where Z_pad is
            // one block of Keccak-256: 136 zero bytes.
            mstore(m, 0)
            mstore(add(m, 0x20), 0)
            mstore(add(m, 0x40), 0)
            mstore(add(m, 0x60), 0)
            mstore(add(m, 0x80), 0)
            mstore8(add(m, 136), add(2, and(ry, 1)))
            mstore(add(m, 137), rx)
            mstore8(add(m, 169), add(2, and(mload(add(key, 0x20)), 1)))
            mstore(add(m, 170), mload(key))
            mstore(add(m, 202), message)
            mstore8(add(m, 234), 0)
            mstore8(add(m, 235), 48)
            mstore8(add(m, 236), 0)
            mstore(add(m, 237), DST)
            mstore8(add(m, 269), 32)
            let b0 := keccak256(m, 270)
            // b_1 = H(b_0 || 1 || DST || 32)
            mstore(m, b0)
            mstore8(add(m, 32), 1)
            mstore(add(m, 33), DST)
            mstore8(add(m, 65), 32)
            let b1 := keccak256(m, 66)
            // b_2 = H((b_0 xor b_1) || 2 || DST || 32)
            mstore(m, xor(b0, b1))
            mstore8(add(m, 32), 2)
            let b2 := keccak256(m, 66)
            // The 48 bytes b_1 || b_2[..16], reduced.
            c := addmod(mulmod(b1, shl(128, 1), n), shr(128, b2), n)
        }
    }
}
