// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {Secp256k1} from "./Secp256k1.sol";

/// @title Interpolation coefficients of FROST signers
/// @notice RFC 9591, section 4.2: participant i has the identifier i.
library Lagrange {
    /// @notice lambda_i, the product over the other signers j of j / (j - i), modulo the group's order.
    /// @param signers Bit j-1 for participant j; i is among them.
    function coefficient(uint16 signers, uint256 i) internal view returns (uint256) {
        uint256 n = Secp256k1.N;
        uint256 numerator = 1;
        uint256 denominator = 1;
        for (uint256 j = 1; j <= 16; ++j) {
            if (j == i || (signers >> (j - 1)) & 1 == 0) continue;
            numerator = mulmod(numerator, j, n);
            denominator = mulmod(denominator, j > i ? j - i : n - (i - j), n);
        }
        return mulmod(numerator, Math.invModPrime(denominator, n), n);
    }
}
