// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeRegistry} from "../src/interfaces/INodeRegistry.sol";
import {Handler} from "./Handler.sol";

/// @dev The handler, and what holds of all that it has done.
contract Checked is Handler {
    /// @dev Value is where it belongs: in the registry as stake, with the disputes contract as what it owes, or
    /// in the cluster's pool.
    function checkStake() external view {
        uint256 sum = 0;
        for (uint256 secret = 1; secret <= PEOPLE; ++secret) {
            sum += total(peerOf(secret));
        }
        check(address(registry).balance == sum, "the registry holds the stakes, no more, no less");
        check(paidIn - paidOut - slashed == sum, "what came in is there or went out");
        uint256 pooled = pool.poolOf(cluster).balance;
        check(
            slashed + bonds == address(disputes).balance + claimed + pooled,
            "what was slashed and put up is there, was paid, or is the cluster's"
        );
        check(address(pool).balance == pooled, "the pool holds it");
        check(address(0).balance == redrawn, "nothing but other draws is burnt");
        check(address(disputes).balance == owed() + open() * 0.1 ether, "what is there is owed");
        check(disputes.openChallenges(cluster) == open(), "open challenges are counted");
        check(address(election).balance == 0, "elections keep nothing");
    }

    function owed() private view returns (uint256 sum) {
        sum = disputes.owedTo(REPORTER) + disputes.owedTo(CHALLENGER)
            + disputes.owedTo(address(uint160(CHALLENGER) + 1));
        for (uint256 secret = 1; secret <= PEOPLE; ++secret) {
            sum += disputes.owedTo(operatorOf(secret));
        }
        check(disputes.owedTo(address(this)) == 0, "governance is owed nothing");
    }

    function open() private view returns (uint256 count) {
        for (uint256 id = 0; id < challenges; ++id) {
            if (uint8(disputes.challengeOf(id).status) == 1) ++count;
        }
    }

    function checkKeys() external view {
        check(ceremony.epochs(cluster) == epochs, "only ceremonies that succeeded made keys");
        check(anchors.headOf(cluster).slot == slot, "slot");
        check(anchors.headOf(cluster).hash == head, "head");
        check(anchors.headOf(cluster).count == anchored, "count");
    }

    function checkSlashes() external view {
        uint256 all = 0;
        for (uint64 epoch = 0; epoch < epochs; ++epoch) {
            (uint256 lost, uint256 limit) = disputes.lostByCommittee(cluster, epoch);
            check(lost <= limit, "the committee's cap");
            uint256 sum = 0;
            for (uint256 secret = 1; secret <= PEOPLE; ++secret) {
                sum += disputes.lostBy(cluster, epoch, peerOf(secret));
            }
            check(sum == lost, "the members' losses are the committee's");
            all += lost;
        }
        check(slashed == all, "what was slashed was lost by somebody");
    }

    /// @dev The list of members has no holes, nobody twice, and each at its position.
    function checkLists() external view {
        bytes32[] memory peers = registry.members(cluster);
        uint256 registered = 0;
        for (uint256 secret = 1; secret <= PEOPLE; ++secret) {
            if (registry.operatorOf(cluster, peerOf(secret)) == address(0)) continue;
            ++registered;
            INodeRegistry.Node memory node = registry.nodeOf(cluster, peerOf(secret));
            check(node.position < peers.length && peers[node.position] == node.peer, "position");
        }
        check(peers.length == registered, "length");
    }
}

contract InvariantsTest {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    Checked private handler;

    function setUp() external {
        handler = new Checked();
        handler.setUp();
    }

    /// @dev What forge may call.
    function targetSelectors() external view returns (FuzzSelector[] memory list) {
        list = new FuzzSelector[](1);
        list[0].addr = address(handler);
        list[0].selectors = new bytes4[](14);
        list[0].selectors[0] = Handler.join.selector;
        list[0].selectors[1] = Handler.addStake.selector;
        list[0].selectors[2] = Handler.depart.selector;
        list[0].selectors[3] = Handler.withdraw.selector;
        list[0].selectors[4] = Handler.elect.selector;
        list[0].selectors[5] = Handler.ceremonyRound.selector;
        list[0].selectors[6] = Handler.anchor.selector;
        list[0].selectors[7] = Handler.equivocate.selector;
        list[0].selectors[8] = Handler.evict.selector;
        list[0].selectors[9] = Handler.extend.selector;
        list[0].selectors[10] = Handler.wait.selector;
        list[0].selectors[11] = Handler.challenge.selector;
        list[0].selectors[12] = Handler.decide.selector;
        list[0].selectors[13] = Handler.claim.selector;
    }

    function targetContracts() external view returns (address[] memory list) {
        list = new address[](1);
        list[0] = address(handler);
    }

    /// @dev One function for all of them: forge runs the sequences anew for each.
    function invariant_what_always_holds() external view {
        require(bytes(handler.violation()).length == 0, handler.violation());
        handler.checkStake();
        handler.checkKeys();
        handler.checkSlashes();
        handler.checkLists();
    }

    /// @dev A sequence in which next to nothing succeeds shows nothing. Eleven succeed before it begins.
    function afterInvariant() external view {
        require(handler.successes() >= 16, "too few calls succeed");
    }

    /// @dev The handler does all of it: an invariant over nothing would always hold.
    function test_the_handler_does_everything() external {
        for (uint256 i = 0; i < 12; ++i) {
            handler.anchor(1, 1, true);
            handler.challenge();
            handler.join(i, 5 ether);
            handler.addStake(i + 1, 1 ether);
            handler.elect(i);
            handler.ceremonyRound(i, 2 + i % 2);
            handler.extend();
            for (uint256 who = 0; who < 4; ++who) {
                handler.equivocate(i + 3 * who, uint64(i), uint64(i));
            }
            handler.decide(i, i, i % 2 == 0);
            handler.claim(i);
            handler.ceremonyRound(1, i % 3 == 2 ? 1 : 0);
            handler.depart(i);
            handler.evict(i + 3);
            handler.withdraw(i, 4 days - 1);
            if (i == 8) handler.wait(30 days - 1);
            handler.decide(i, i, true);
        }
        bytes32[17] memory all = [
            bytes32("join"),
            "stake",
            "leave",
            "evict",
            "withdraw",
            "elect",
            "extend",
            "fail",
            "replace",
            "abort",
            "publish",
            "anchor",
            "slash",
            "challenge",
            "resolve",
            "claim",
            "wait"
        ];
        for (uint256 i = 0; i < all.length; ++i) {
            require(handler.done(all[i]) > 1 || all[i] == "wait", string(abi.encodePacked(all[i])));
        }
        this.invariant_what_always_holds();
    }
}
