// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Blockhash} from "@openzeppelin/contracts/utils/Blockhash.sol";

/// @title prevrandao of a recent block, proved by its header
/// @notice A header is an RLP list (Yellow Paper, section 4.4 and appendix B) whose Keccak-256 is the
/// block's hash. The hash is known to the chain for 256 blocks, or 8,191 with EIP-2935, so that only the
/// position of the 14th field has to be found.
library BlockProof {
    /// @dev prevrandao (EIP-4399) is in the place of the mix hash, after parent, ommers, beneficiary,
    /// three roots, bloom, difficulty, number, gas limit, gas used, time and extra data.
    uint256 private constant PREVRANDAO = 13;

    /// @notice The hash of a block, as far as the chain knows it; zero otherwise.
    function hashOf(uint256 number) internal view returns (bytes32) {
        return Blockhash.blockHash(number);
    }

    /// @notice The prevrandao in a header. That the header is a block's has to be known.
    /// @return found False if the bytes are no such list.
    function prevRandao(bytes calldata header) internal pure returns (bool found, bytes32 value) {
        uint256 length = header.length;
        if (length < 3 || uint8(header[0]) < 0xc0) return (false, 0);
        uint256 first = uint8(header[0]);
        uint256 cursor = first < 0xf8 ? 1 : first - 0xf6; // after 1 + the bytes of the length
        for (uint256 field = 0; field < PREVRANDAO; ++field) {
            if (cursor >= length) return (false, 0);
            uint256 prefix = uint8(header[cursor]);
            if (prefix < 0x80) {
                cursor += 1; // the byte itself
            } else if (prefix < 0xb8) {
                cursor += prefix - 0x7f; // up to 55 bytes
            } else if (prefix == 0xb8) {
                if (cursor + 1 >= length) return (false, 0);
                cursor += 2 + uint8(header[cursor + 1]); // up to 255 bytes
            } else if (prefix == 0xb9) {
                if (cursor + 2 >= length) return (false, 0);
                cursor += 3 + uint16(bytes2(header[cursor + 1:cursor + 3])); // up to 65,535 bytes: the bloom
            } else {
                return (false, 0);
            }
        }
        if (cursor + 33 > length || uint8(header[cursor]) != 0xa0) return (false, 0);
        return (true, bytes32(header[cursor + 1:cursor + 33]));
    }
}
