// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Disputes} from "../src/Disputes.sol";
import {NodeRegistry} from "../src/NodeRegistry.sol";
import {VeilContract} from "../src/VeilContract.sol";
import {IAssignmentAnchor} from "../src/interfaces/IAssignmentAnchor.sol";
import {IDirectory} from "../src/interfaces/IDirectory.sol";
import {IDisputes} from "../src/interfaces/IDisputes.sol";
import {INodeRegistry} from "../src/interfaces/INodeRegistry.sol";
import {IVeilContract} from "../src/interfaces/IVeilContract.sol";
import {Base} from "./Base.sol";
import {Signer} from "./Signer.sol";

/// @dev A disputes contract that governance would like to put in force.
contract Thief is VeilContract {
    constructor(address directory_) VeilContract(directory_) {}

    receive() external payable {}

    function take(INodeRegistry registry, bytes32 cluster, bytes32 peer) external {
        registry.slash(cluster, peer, type(uint88).max);
    }
}

/// @dev Attacks on stake, and on who may touch it. Each was possible once.
contract AttacksStakeTest is Base {
    address private constant EVE = address(0xe0e);

    function staked(uint256 count, uint256 each) private {
        for (uint256 i = 1; i <= count; ++i) {
            register(registration(i, MEMBER), i, each);
        }
        memberCount = count;
    }

    /// @dev One certificate, anchored as the first one.
    function anchored() private returns (IAssignmentAnchor.Certificate[] memory chain) {
        chain = new IAssignmentAnchor.Certificate[](1);
        chain[0].cluster = cluster;
        chain[0].keySet = keccak256("key set");
        chain[0].slot = 3;
        chain[0].referenceStringOrigin = 0;
        bytes32 hash = anchors.hashOf(chain[0]);
        anchors.anchor(chain[0], Signer.key(GROUP), Signer.sign(GROUP, hash));
    }

    function challengeBy(address who, IAssignmentAnchor.Certificate[] memory chain)
        private
        returns (uint256)
    {
        vm.deal(who, 0.1 ether);
        vm.prank(who);
        return disputes.challenge{value: 0.1 ether}(chain, "evidence");
    }

    function signedVote(uint256 secret, uint64 epoch, bytes32 certificate)
        private
        view
        returns (IVeilContract.CompactSignature memory)
    {
        bytes32 kind = keccak256(
            "CertificateVote(bytes32 cluster,uint64 epoch,uint64 slot,bytes32 certificate)"
        );
        bytes32 vote = keccak256(abi.encode(kind, cluster, epoch, uint64(1), certificate));
        return compact(secret, typedDigest(vote));
    }

    /// @dev Two votes of one member, reported by somebody to some disputes contract.
    function report(Disputes to, uint256 secret, uint64 epoch) private {
        to.reportEquivocation(
            IDisputes.Vote(cluster, epoch, 1, "a"),
            "b",
            identityKey(secret),
            signedVote(secret, epoch, "a"),
            signedVote(secret, epoch, "b")
        );
    }

    /// @dev A friend challenges first, with nonsense that is rejected: the culprit was immune then.
    function test_a_friends_challenge_makes_nobody_immune() external {
        staked(4, 10 ether);
        publish(0, GROUP, 0);
        IAssignmentAnchor.Certificate[] memory nonsense = new IAssignmentAnchor.Certificate[](1);
        nonsense[0].cluster = cluster;
        nonsense[0].slot = 999_999;
        vm.expectPartialRevert(IDisputes.NotAnchored.selector);
        disputes.challenge{value: 0.1 ether}(nonsense, 0);
        IAssignmentAnchor.Certificate[] memory chain = anchored();
        uint256 first = challengeBy(EVE, chain);
        // While it is open, and after it was rejected.
        uint256 second = challengeBy(STRANGER, chain);
        disputes.resolve(first, false, new bytes32[](0));
        uint256 third = challengeBy(address(0x0c), chain);
        bytes32[] memory culprits = new bytes32[](1);
        culprits[0] = peerOf(1);
        disputes.resolve(second, true, culprits);
        check(registry.nodeOf(cluster, peerOf(1)).stake == 7.5 ether, "punished");
        disputes.resolve(third, true, culprits);
        check(registry.nodeOf(cluster, peerOf(1)).stake == 7.5 ether, "once");
    }

    /// @dev A challenge that was opened in time is decided after the exit would have been over.
    function test_stake_does_not_leave_while_a_challenge_is_open() external {
        staked(5, 10 ether);
        publish(0, GROUP, 0);
        registry.requestExit(cluster, peerOf(1));
        publish(1, GROUP + 1, GROUP);
        IAssignmentAnchor.Certificate[] memory chain = new IAssignmentAnchor.Certificate[](1);
        chain[0].cluster = cluster;
        chain[0].epoch = 1;
        chain[0].keySet = keccak256("key set");
        chain[0].slot = 3;
        chain[0].referenceStringOrigin = 0;
        bytes32 hash = anchors.hashOf(chain[0]);
        anchors.anchor(chain[0], Signer.key(GROUP + 1), Signer.sign(GROUP + 1, hash));
        publish(2, GROUP + 2, GROUP + 1);
        vm.warp(block.timestamp + 13 days);
        uint256 id = challengeBy(EVE, chain);
        vm.warp(block.timestamp + 1 days);
        vm.expectPartialRevert(INodeRegistry.HeldByChallenges.selector);
        registry.withdraw(cluster, peerOf(1));
        disputes.resolve(id, false, new bytes32[](0));
        registry.withdraw(cluster, peerOf(1));
    }

    /// @dev And is held no longer than that, whoever challenges however often.
    function test_challenges_hold_stake_back_for_thirty_days_at_most() external {
        staked(5, 10 ether);
        publish(0, GROUP, 0);
        IAssignmentAnchor.Certificate[] memory chain = anchored();
        registry.requestExit(cluster, peerOf(5));
        uint256 free = block.timestamp + 180 days;
        vm.warp(free);
        challengeBy(EVE, chain);
        challengeBy(STRANGER, chain);
        vm.warp(free + 30 days - 1);
        challengeBy(address(0x0c), chain);
        vm.expectPartialRevert(INodeRegistry.HeldByChallenges.selector);
        registry.withdraw(cluster, peerOf(5));
        vm.warp(free + 30 days);
        registry.withdraw(cluster, peerOf(5));
    }

    /// @dev What was signed for one set, a leaked key among it, is good for nothing in the next one.
    function test_signatures_are_no_use_in_another_set() external {
        staked(4, 0);
        propose(proposal(0, 0));
        bytes32 old = cluster;
        deploySet();
        cluster = registry.registerCluster(0, settings());
        check(cluster != old, "the same admin and salt, and another cluster");
        INodeRegistry.Registration memory node = registration(1, MEMBER);
        node.cluster = old;
        bytes32 digest = registrationDigest(node, peerOf(1), address(this), 0);
        IVeilContract.CompactSignature memory signature = compact(1, digest);
        vm.expectPartialRevert(INodeRegistry.UnknownCluster.selector);
        registry.register(node, signature);
        node.cluster = cluster;
        vm.expectPartialRevert(INodeRegistry.WrongIdentitySignature.selector);
        registry.register(node, signature);
    }

    /// @dev A new set is neither an amnesty for the stake of the old one nor a lock.
    function test_a_new_set_changes_nothing_for_old_stake() external {
        staked(5, 10 ether);
        publish(0, GROUP, 0);
        (NodeRegistry before, Disputes judge) = (registry, disputes);
        registry.requestExit(cluster, peerOf(5));
        deploySet();
        report(judge, 1, 0);
        check(before.stakeOf(cluster, peerOf(1)).active == 5 ether, "punished as before");
        vm.warp(block.timestamp + 180 days);
        before.withdraw(cluster, peerOf(5));
        before.requestExit(cluster, peerOf(2));
        // A set without a ceremony, in which nobody could leave.
        IDirectory.Entry[] memory one = new IDirectory.Entry[](1);
        one[0] = IDirectory.Entry("NodeRegistry", address(new NodeRegistry(address(directory))));
        vm.expectPartialRevert(IDirectory.IncompleteSet.selector);
        directory.publish(one);
    }

    /// @dev Governance cannot put a judge of its own over stake that is there.
    function test_governance_reaches_no_stake() external {
        staked(4, 10 ether);
        Thief thief = new Thief(address(directory));
        IDirectory.Entry[] memory list = entries();
        list[6].location = address(thief);
        vm.expectPartialRevert(IDirectory.OtherSet.selector);
        directory.publish(list);
        NodeRegistry old = registry;
        deploySetWith(address(thief));
        check(directory.contractOf("Disputes") == address(thief), "in force");
        vm.expectPartialRevert(IVeilContract.NotContract.selector);
        thief.take(old, cluster, peerOf(1));
        vm.expectPartialRevert(IVeilContract.NotContract.selector);
        old.slash(cluster, peerOf(1), 1);
        check(address(old).balance == 40 ether, "all there");
    }

    /// @dev The next set, with another disputes contract than its own.
    function deploySetWith(address judge) private {
        uint64 version = directory.currentVersion();
        deployContracts();
        IDirectory.Entry[] memory list = entries();
        list[6].location = judge;
        check(directory.publish(list) == version + 1, "published");
    }

    /// @dev Faults of many old epochs took what is there now.
    function test_punishments_lapse_and_do_not_compound() external {
        staked(4, 10 ether);
        publish(0, GROUP, 0);
        for (uint64 e = 1; e < 6; ++e) {
            publish(e, GROUP + e, GROUP + e - 1);
        }
        // All of them may be disputed, and cost as much as one.
        for (uint64 e = 0; e < 6; ++e) {
            vm.prank(EVE);
            report(disputes, 1, e);
        }
        check(registry.nodeOf(cluster, peerOf(1)).stake == 5 ether, "half, once");
        vm.warp(block.timestamp + 14 days);
        for (uint64 e = 0; e < 5; ++e) {
            vm.expectPartialRevert(IDisputes.DisputesClosed.selector);
            this.reportOf(2, e);
        }
        report(disputes, 2, 5); // the one in force
        check(registry.nodeOf(cluster, peerOf(2)).stake == 5 ether, "half");
    }

    /// @dev External, so that what refuses it is the call that is expected to be refused.
    function reportOf(uint256 secret, uint64 epoch) external {
        report(disputes, secret, epoch);
    }

    /// @dev A key of zero signs nothing: with it anybody could be accused.
    function test_nobody_signs_with_the_zero_address() external {
        staked(4, 10 ether);
        publish(0, GROUP, 0);
        IVeilContract.CompactSignature memory garbage =
            IVeilContract.CompactSignature(bytes32(uint256(1)), bytes32(0));
        IVeilContract.Point memory wrong = identityKey(1);
        wrong.y ^= 2; // has the peer's hash, and is on no curve
        IDisputes.Vote memory vote = IDisputes.Vote(cluster, 0, 1, "a");
        vm.expectPartialRevert(IDisputes.WrongMemberSignature.selector);
        disputes.reportEquivocation(vote, "b", wrong, garbage, garbage);
        vm.expectPartialRevert(bytes4(keccak256("WrongMemberSignature(uint8)")));
        this.abortWith(wrong, garbage);
    }

    function abortWith(
        IVeilContract.Point calldata key,
        IVeilContract.CompactSignature calldata signature
    ) external {
        propose(proposal(1, 0));
        ceremony.abortSigned(cluster, 1, 0, "why", 1, key, signature);
    }

    /// @dev The operator's key is hot: who steals it does not get the stake.
    function test_stake_goes_to_the_withdrawal_address() external {
        address cold = address(0xc01d);
        bytes32 peer = register(registration(1, MEMBER), 1, 3 ether);
        vm.prank(STRANGER);
        vm.expectPartialRevert(INodeRegistry.NotStakeHolder.selector);
        registry.setWithdrawalAddress(cluster, peer, STRANGER);
        vm.expectPartialRevert(INodeRegistry.InvalidOperator.selector);
        registry.setWithdrawalAddress(cluster, peer, address(0));
        registry.setWithdrawalAddress(cluster, peer, cold);
        vm.expectPartialRevert(INodeRegistry.NotStakeHolder.selector);
        registry.setWithdrawalAddress(cluster, peer, address(this));
        registry.requestExit(cluster, peer);
        vm.prank(cold);
        registry.setWithdrawalAddress(cluster, peer, address(0xc02d));
        vm.warp(NOW + 180 days);
        registry.withdraw(cluster, peer);
        check(address(0xc02d).balance == 3 ether, "paid there");
        check(registry.withdrawalAddress(cluster, peer) == address(0), "forgotten");
    }

    /// @dev A guardian paused again before the pause was over, for ever.
    function test_a_guardian_pauses_for_a_quarter_of_the_time_at_most() external {
        for (uint256 i = 0; i < 4; ++i) {
            vm.prank(GUARDIAN);
            directory.pause();
            uint64 until = directory.pausedUntil();
            vm.warp(until - 1);
            vm.prank(GUARDIAN);
            vm.expectPartialRevert(IDirectory.PauseTooSoon.selector);
            directory.pause();
            // Not even if it ends the pause itself.
            vm.prank(GUARDIAN);
            directory.unpause();
            vm.warp(until + 21 days - 1);
            vm.prank(GUARDIAN);
            vm.expectPartialRevert(IDirectory.PauseTooSoon.selector);
            directory.pause();
            vm.warp(until + 21 days);
        }
        check(block.timestamp == NOW + 4 * 28 days, "four times seven days of them");
    }

    /// @dev The admin's place is given in two steps.
    function test_an_admin_is_followed_by_who_accepts() external {
        vm.prank(EVE);
        vm.expectPartialRevert(INodeRegistry.NotClusterAdmin.selector);
        registry.transferAdmin(cluster, EVE);
        registry.transferAdmin(cluster, STRANGER);
        check(registry.nextAdmin(cluster) == STRANGER, "proposed");
        vm.prank(EVE);
        vm.expectPartialRevert(INodeRegistry.NotNextAdmin.selector);
        registry.acceptAdmin(cluster);
        check(registry.clusterOf(cluster).admin == address(this), "still");
        vm.prank(STRANGER);
        registry.acceptAdmin(cluster);
        check(registry.clusterOf(cluster).admin == STRANGER, "accepted");
        vm.expectPartialRevert(INodeRegistry.NotClusterAdmin.selector);
        registry.transferAdmin(cluster, EVE);
        vm.prank(STRANGER);
        vm.expectPartialRevert(INodeRegistry.NotNextAdmin.selector);
        registry.acceptAdmin(cluster);
        // `registerNode` means the cluster of its admin, not of who was it.
        vm.expectPartialRevert(INodeRegistry.UnknownCluster.selector);
        registry.registerNode(peerOf(1), EVE);
        vm.prank(STRANGER);
        registry.registerNode(peerOf(1), EVE);
        check(registry.approvalOf(cluster, peerOf(1)).operator == EVE, "approved");
    }
}
