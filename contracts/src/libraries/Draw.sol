// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeRegistry} from "../interfaces/INodeRegistry.sol";

/// @title Weighted draw without replacement
/// @notice See `ICommitteeElection`; the crate `veil-protocol-spec` has the same in its module
/// `election`.
library Draw {
    /// @notice Positions of the drawn candidates in order.
    /// @param count How many at most.
    /// @param limit Most of one organisation; 0 for no limit.
    function draw(
        bytes32 seed,
        INodeRegistry.Candidate[] calldata candidates,
        uint256 count,
        uint256 limit
    ) internal pure returns (uint256[] memory positions) {
        uint256 length = candidates.length;
        // One word each: the organisation's tag in the highest 56 bits, the weight in the lowest 64.
        // Who left the draw has no weight any more.
        uint256[] memory words = new uint256[](length);
        uint256 left = 0;
        assembly ("memory-safe") {
            let from := candidates.offset
            let to := add(words, 0x20)
            for { let end := add(to, mul(length, 0x20)) } lt(to, end) { to := add(to, 0x20) } {
                let weight := and(calldataload(add(from, 0x40)), 0xffffffffffffffff)
                mstore(to, or(calldataload(add(from, 0x20)), weight))
                left := add(left, weight)
                from := add(from, 0x60)
            }
        }
        positions = new uint256[](count);
        uint256 drawn = 0;
        while (drawn < count && left != 0) {
            uint256 position;
            uint256 organisation;
            assembly ("memory-safe") {
                mstore(0x00, seed)
                mstore(0x20, drawn)
                let target := mod(keccak256(0x00, 0x40), left)
                // The first candidate with target below the weights up to it; there is one, as target
                // is below their sum.
                let place := add(words, 0x20)
                let word := mload(place)
                let weight := and(word, 0xffffffffffffffff)
                for {} iszero(lt(target, weight)) {} {
                    target := sub(target, weight)
                    place := add(place, 0x20)
                    word := mload(place)
                    weight := and(word, 0xffffffffffffffff)
                }
                organisation := xor(word, weight)
                mstore(place, organisation)
                left := sub(left, weight)
                position := shr(5, sub(sub(place, words), 0x20))
            }
            positions[drawn] = position;
            ++drawn;
            if (limit != 0 && _seated(words, positions, drawn, organisation) == limit) {
                left -= _remove(words, organisation);
            }
        }
        assembly ("memory-safe") {
            mstore(positions, drawn) // shorter than allocated
        }
    }

    /// @dev How many of the drawn are of this organisation.
    function _seated(
        uint256[] memory words,
        uint256[] memory positions,
        uint256 drawn,
        uint256 organisation
    ) private pure returns (uint256 seated) {
        for (uint256 i = 0; i < drawn; ++i) {
            if (words[positions[i]] >> 200 == organisation >> 200) ++seated;
        }
    }

    /// @dev Takes the organisation's candidates out of the draw.
    /// @return weight What they had.
    function _remove(uint256[] memory words, uint256 organisation)
        private
        pure
        returns (uint256 weight)
    {
        assembly ("memory-safe") {
            let place := add(words, 0x20)
            for { let end := add(place, mul(mload(words), 0x20)) } lt(place, end) {
                place := add(place, 0x20)
            } {
                let own := xor(mload(place), organisation)
                // All bits but the weight's are equal.
                if iszero(shr(64, own)) {
                    weight := add(weight, own)
                    mstore(place, organisation)
                }
            }
        }
    }
}
