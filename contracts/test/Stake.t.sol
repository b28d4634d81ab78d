// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeRegistry} from "../src/interfaces/INodeRegistry.sol";
import {IVeilContract} from "../src/interfaces/IVeilContract.sol";
import {Base} from "./Base.sol";

/// @dev An operator that takes no payment.
contract Closed {
    function forward(address to, bytes calldata call) external payable {
        (bool done,) = to.call{value: msg.value}(call);
        require(done, "call");
    }
}

contract StakeTest is Base {
    function staked(uint256 secret, uint256 amount) private returns (bytes32) {
        return register(registration(secret, MEMBER), secret, amount);
    }

    /// @dev Before the first key it counts at once; later from the election after the next one.
    function test_stake_counts_two_epochs_later() external {
        bytes32 peer = staked(1, 3 ether);
        check(registry.candidates(cluster, 0)[0].weight == 1 + 3e9, "at once");
        for (uint256 i = 2; i <= 4; ++i) {
            register(i, MEMBER);
        }
        memberCount = 4;
        publish(0, GROUP, 0);
        registry.increaseStake{value: 1 ether}(cluster, peer);
        check(registry.stakeOf(cluster, peer).activeFrom == 2, "from epoch 2");
        check(registry.candidates(cluster, 1)[0].weight == 1 + 3e9, "not in the next election");
        check(registry.candidates(cluster, 2)[0].weight == 1 + 4e9, "in the one after");
        // More of it later moves what does not count yet, and nothing else.
        publish(1, GROUP + 1, GROUP);
        registry.increaseStake{value: 2 ether}(cluster, peer);
        check(registry.candidates(cluster, 2)[0].weight == 1 + 4e9, "settled");
        check(registry.candidates(cluster, 3)[0].weight == 1 + 6e9, "all");

        vm.deal(STRANGER, 1 ether);
        vm.prank(STRANGER);
        vm.expectPartialRevert(INodeRegistry.NotNodeOperator.selector);
        registry.increaseStake{value: 1 ether}(cluster, peer);
        vm.expectPartialRevert(INodeRegistry.InvalidStake.selector);
        registry.increaseStake(cluster, peer);
        vm.deal(address(this), 2 ** 100);
        vm.expectPartialRevert(INodeRegistry.InvalidStake.selector);
        registry.increaseStake{value: 2 ** 88}(cluster, peer);
    }

    function test_a_node_without_enough_stake_is_no_candidate() external {
        INodeRegistry.Settings memory given = settings();
        given.memberStake = 1 ether;
        cluster = registry.registerCluster("stake", given);
        staked(1, 1 ether - 1);
        staked(2, 1 ether);
        INodeRegistry.Candidate[] memory list = registry.candidates(cluster, 0);
        check(list.length == 1 && list[0].peer == peerOf(2), "candidates");
    }

    /// @dev A node that leaves is out of the next election at once, and gets its stake when the
    /// committees that it may sit in are replaced and their disputes closed.
    function test_stake_stays_slashable_after_the_exit() external {
        bytes32 peer = staked(1, 1 ether);
        for (uint256 i = 2; i <= 5; ++i) {
            register(i, MEMBER);
        }
        memberCount = 5;
        publish(0, GROUP, 0);
        vm.expectPartialRevert(INodeRegistry.NoExit.selector);
        registry.withdraw(cluster, peer);
        registry.requestExit(cluster, peer);
        check(registry.candidates(cluster, 1).length == 4, "no candidate");
        check(registry.stakeOf(cluster, peer).exitEpoch == 2, "exit epoch");
        INodeRegistry.Registration memory again = registration(1, MEMBER);
        IVeilContract.CompactSignature memory signature =
            compact(1, registrationDigest(again, peer, address(this), 1));
        vm.expectPartialRevert(INodeRegistry.ExitPending.selector);
        registry.register(again, signature);

        publish(1, GROUP + 1, GROUP);
        publish(2, GROUP + 2, GROUP + 1);
        uint256 end = block.timestamp + 14 days;
        vm.warp(end - 1);
        vm.expectPartialRevert(INodeRegistry.StillSlashable.selector);
        registry.withdraw(cluster, peer);
        vm.warp(end);
        uint256 before = address(this).balance;
        vm.prank(STRANGER); // anyone may send it
        registry.withdraw(cluster, peer);
        check(address(this).balance == before + 1 ether, "paid");
        check(address(registry).balance == 0, "empty");
        vm.expectPartialRevert(INodeRegistry.NoExit.selector);
        registry.withdraw(cluster, peer);
        registry.register(again, signature);
    }

    function test_a_dead_cluster_does_not_keep_stake_for_ever() external {
        bytes32 peer = staked(1, 1 ether);
        registry.requestExit(cluster, peer);
        vm.warp(NOW + 180 days - 1);
        vm.expectPartialRevert(INodeRegistry.StillSlashable.selector);
        registry.withdraw(cluster, peer);
        vm.warp(NOW + 180 days);
        registry.withdraw(cluster, peer);
    }

    function test_only_the_disputes_contract_slashes() external {
        bytes32 peer = staked(1, 1 ether);
        vm.expectPartialRevert(IVeilContract.NotContract.selector);
        registry.slash(cluster, peer, 1);
        vm.prank(address(disputes));
        check(registry.slash(cluster, peer, 0.25 ether) == 0.25 ether, "part");
        vm.prank(address(disputes));
        check(registry.slash(cluster, peer, 1 ether) == 0.75 ether, "what is left");
        check(registry.nodeOf(cluster, peer).stake == 0, "nothing left");
        check(address(disputes).balance == 1 ether, "moved");
    }

    function test_an_operator_that_takes_no_payment_keeps_its_stake_in_the_registry() external {
        Closed closed = new Closed();
        registry.approve(cluster, peerOf(1), approval(address(closed), MEMBER));
        INodeRegistry.Registration memory node = registration(1, MEMBER);
        IVeilContract.CompactSignature memory signature =
            compact(1, registrationDigest(node, peerOf(1), address(closed), 0));
        bytes memory call = abi.encodeCall(INodeRegistry.register, (node, signature));
        closed.forward{value: 1 ether}(address(registry), call);
        registry.requestExit(cluster, peerOf(1));
        vm.warp(NOW + 180 days);
        vm.expectPartialRevert(INodeRegistry.PaymentFailed.selector);
        registry.withdraw(cluster, peerOf(1));
        check(registry.stakeOf(cluster, peerOf(1)).active == 1 ether, "kept");
    }
}
