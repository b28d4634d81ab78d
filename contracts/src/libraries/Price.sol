// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title What a unit of gas is paid back
library Price {
    /// @notice The most of a block's base fee, in wei.
    uint256 internal constant MAX_BASE_FEE = 100 gwei;
    /// @notice The most of a tip, in wei: a proposer that tips itself gains no more.
    uint256 internal constant MAX_TIP = 2 gwei;

    /// @notice Base fee and tip of this transaction, each up to its limit: never more than is paid for it.
    function ofGas() internal view returns (uint256) {
        uint256 fee = block.basefee;
        uint256 tip = tx.gasprice > fee ? tx.gasprice - fee : 0;
        return (fee < MAX_BASE_FEE ? fee : MAX_BASE_FEE) + (tip < MAX_TIP ? tip : MAX_TIP);
    }
}
