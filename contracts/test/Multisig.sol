// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title An account of three owners, of whom two must agree
/// @notice As much of a Safe as the tests of clusters need whose admin is no single key. For tests only.
contract Multisig {
    /// @notice Who decides.
    address[3] public owners;
    /// @notice Number of the next call.
    uint256 public nonce;
    /// @notice Who agrees to which call.
    mapping(bytes32 call => mapping(address owner => bool)) public agreed;

    /// @notice The caller is no owner.
    error NotOwner(address caller);
    /// @notice Too few owners agree.
    error TooFew(uint256 owners);

    constructor(address[3] memory owners_) payable {
        owners = owners_;
    }

    receive() external payable {}

    modifier onlyOwner() {
        if (msg.sender != owners[0] && msg.sender != owners[1] && msg.sender != owners[2]) {
            revert NotOwner(msg.sender);
        }
        _;
    }

    /// @notice Agrees to the next call.
    function agree(address to, uint256 value, bytes calldata data) external onlyOwner {
        agreed[_hash(to, value, data)][msg.sender] = true;
    }

    /// @notice Makes the next call, to which two owners agree.
    function execute(address to, uint256 value, bytes calldata data) external onlyOwner {
        bytes32 call = _hash(to, value, data);
        uint256 count;
        for (uint256 i = 0; i < owners.length; ++i) {
            if (agreed[call][owners[i]]) ++count;
        }
        if (count < 2) revert TooFew(count);
        ++nonce;
        (bool done, bytes memory result) = to.call{value: value}(data);
        if (!done) {
            assembly ("memory-safe") {
                revert(add(result, 0x20), mload(result))
            }
        }
    }

    function _hash(address to, uint256 value, bytes calldata data) private view returns (bytes32) {
        return keccak256(abi.encode(block.chainid, address(this), nonce, to, value, data));
    }
}
