// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {FeePool} from "../src/FeePool.sol";
import {IAssignmentAnchor} from "../src/interfaces/IAssignmentAnchor.sol";
import {ICommitteeElection} from "../src/interfaces/ICommitteeElection.sol";
import {IKeyCeremony} from "../src/interfaces/IKeyCeremony.sol";
import {INodeRegistry} from "../src/interfaces/INodeRegistry.sol";

/// @dev The pool with a price of gas of its own: forge's isolated transactions have none. `libraries/Price.sol` has its
/// own test, and the Rust crate tests the pool at real prices.
contract PricedPool is FeePool {
    uint256 public constant PRICE = 10 gwei;

    constructor(
        address directory_,
        INodeRegistry registry_,
        ICommitteeElection election_,
        IKeyCeremony ceremony_,
        IAssignmentAnchor anchors_
    ) FeePool(directory_, registry_, election_, ceremony_, anchors_) {}

    function _price() internal pure override returns (uint256) {
        return PRICE;
    }
}
