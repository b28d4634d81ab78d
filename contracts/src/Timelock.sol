// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {TimelockController} from "@openzeppelin/contracts/governance/TimelockController.sol";

/// @title Governance: the owner of the directory
/// @notice OpenZeppelin's timelock, unchanged. What it does is announced `minDelay` seconds before:
/// replacing contracts, naming the guardian, deciding challenges, announcing successions. It holds no
/// stake and no rights in clusters, but a disputes contract that it puts in force can slash: the
/// delay is what protects stakers.
contract Timelock is TimelockController {
    constructor(
        uint256 minDelay,
        address[] memory proposers,
        address[] memory executors,
        address admin
    ) TimelockController(minDelay, proposers, executors, admin) {}
}
