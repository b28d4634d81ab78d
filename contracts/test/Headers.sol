// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @dev Block headers in RLP, with the fields of a Cancun block.
library Headers {
    function header(uint256 number, bytes32 prevRandao) internal pure returns (bytes memory) {
        bytes memory front = bytes.concat(
            word(keccak256("parent")),
            word(keccak256("ommers")),
            bytes.concat(hex"94", bytes20(keccak256("beneficiary"))),
            word(keccak256("state")),
            word(keccak256("transactions"))
        );
        front = bytes.concat(
            front,
            word(keccak256("receipts")),
            bytes.concat(hex"b90100", new bytes(256)),
            hex"80",
            integer(number),
            integer(30_000_000)
        );
        bytes memory back = bytes.concat(
            integer(12_345_678),
            integer(1_800_000_000),
            bytes.concat(hex"8a", "extra data"),
            word(prevRandao),
            bytes.concat(hex"88", new bytes(8))
        );
        back = bytes.concat(
            back, integer(7), word(keccak256("withdrawals")), hex"8080", word(keccak256("beacon"))
        );
        uint256 length = front.length + back.length;
        require(length > 255 && length < 65_536, "length");
        return bytes.concat(hex"f9", bytes2(uint16(length)), front, back);
    }

    function word(bytes32 value) private pure returns (bytes memory) {
        return bytes.concat(hex"a0", value);
    }

    function integer(uint256 value) private pure returns (bytes memory) {
        if (value == 0) return hex"80";
        if (value < 128) return bytes.concat(bytes1(uint8(value)));
        uint256 size = 0;
        for (uint256 rest = value; rest != 0; rest >>= 8) {
            ++size;
        }
        bytes memory text = new bytes(size + 1);
        text[0] = bytes1(uint8(0x80 + size));
        for (uint256 i = 0; i < size; ++i) {
            text[size - i] = bytes1(uint8(value >> (8 * i)));
        }
        return text;
    }
}
