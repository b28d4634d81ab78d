// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ICheckpointChannel} from "../src/interfaces/ICheckpointChannel.sol";
import {IVeilContract} from "../src/interfaces/IVeilContract.sol";
import {Base} from "./Base.sol";
import {Signer} from "./Signer.sol";

contract CheckpointChannelTest is Base {
    function setUp() public override {
        super.setUp();
        registerMembers();
        publish(0, GROUP, 0);
    }

    function signed(uint256 secret, ICheckpointChannel.Checkpoint memory c)
        private
        view
        returns (IVeilContract.FrostSignature memory)
    {
        bytes32 kind =
            keccak256("Checkpoint(bytes32 cluster,uint64 epoch,uint64 sequence,bytes32 root)");
        return Signer.sign(secret, typedDigest(keccak256(abi.encode(kind, c))));
    }

    function post(uint64 epoch, uint64 sequence, bytes32 root) private {
        post(epoch, sequence, root, new ICheckpointChannel.Inclusion[](0));
    }

    function post(
        uint64 epoch,
        uint64 sequence,
        bytes32 root,
        ICheckpointChannel.Inclusion[] memory inclusions
    ) private {
        ICheckpointChannel.Checkpoint memory c =
            ICheckpointChannel.Checkpoint(cluster, epoch, sequence, root);
        channel.post(c, signed(GROUP + epoch, c), inclusions);
    }

    function test_a_later_checkpoint_supersedes() external {
        vm.expectPartialRevert(ICheckpointChannel.SequenceNotLater.selector);
        post(0, 0, "root");
        post(0, 5, "root");
        vm.snapshotGasLastCall("CheckpointChannel", "post, first");
        vm.expectPartialRevert(ICheckpointChannel.SequenceNotLater.selector);
        post(0, 5, "other");
        post(0, 9, "root"); // gaps are allowed: the others stay off chain
        vm.snapshotGasLastCall("CheckpointChannel", "post, later");
        check(channel.lastOf(cluster).sequence == 9, "last");

        ICheckpointChannel.Checkpoint memory c =
            ICheckpointChannel.Checkpoint(cluster, 0, 10, "root");
        IVeilContract.FrostSignature memory wrong = signed(GROUP + 1, c);
        vm.expectPartialRevert(ICheckpointChannel.WrongGroupSignature.selector);
        channel.post(c, wrong, new ICheckpointChannel.Inclusion[](0));
        vm.expectPartialRevert(ICheckpointChannel.EpochNotInForce.selector);
        post(1, 10, "root");
        publish(1, GROUP + 1, GROUP);
        vm.expectPartialRevert(ICheckpointChannel.EpochNotInForce.selector);
        post(0, 10, "root");
        post(1, 1, "root"); // sequences start anew
        check(channel.lastOf(cluster).epoch == 1, "epoch");
    }

    function testFuzz_sequences_strictly_increase(uint8[8] calldata sequences) external {
        uint64 last = 0;
        for (uint256 i = 0; i < sequences.length; ++i) {
            if (sequences[i] <= last) {
                vm.expectPartialRevert(ICheckpointChannel.SequenceNotLater.selector);
                post(0, sequences[i], "root");
            } else {
                post(0, sequences[i], "root");
                last = sequences[i];
            }
            check(channel.lastOf(cluster).sequence == last, "last");
        }
    }

    function leaf(bytes32 item) private pure returns (bytes32) {
        return keccak256(bytes.concat(item));
    }

    function test_a_censored_item_stops_the_channel_until_it_is_included() external {
        vm.prank(STRANGER);
        vm.expectPartialRevert(ICheckpointChannel.MissingRight.selector);
        channel.forceInclude(cluster, "item");
        channel.forceInclude(cluster, "item");
        channel.forceInclude(cluster, "second");
        vm.expectPartialRevert(ICheckpointChannel.AlreadyForced.selector);
        channel.forceInclude(cluster, "item");
        uint64 deadline = channel.deadlineOf(cluster, "item");
        vm.warp(deadline);
        post(0, 1, "root"); // there is still time
        vm.warp(deadline + 1);
        vm.expectPartialRevert(ICheckpointChannel.ItemOverdue.selector);
        post(0, 2, "root");

        ICheckpointChannel.Inclusion[] memory one = new ICheckpointChannel.Inclusion[](1);
        one[0] = ICheckpointChannel.Inclusion("item", new bytes32[](0));
        vm.expectPartialRevert(ICheckpointChannel.NotIncluded.selector);
        post(0, 2, "root", one);
        vm.expectPartialRevert(ICheckpointChannel.ItemOverdue.selector); // the second one
        post(0, 2, leaf("item"), one);
        ICheckpointChannel.Inclusion[] memory both = new ICheckpointChannel.Inclusion[](2);
        (bytes32 a, bytes32 b) = (leaf("item"), leaf("second"));
        bytes32 root = a < b ? keccak256(abi.encode(a, b)) : keccak256(abi.encode(b, a));
        both[0] = ICheckpointChannel.Inclusion("second", new bytes32[](1));
        both[1] = ICheckpointChannel.Inclusion("item", new bytes32[](1));
        (both[0].proof[0], both[1].proof[0]) = (a, b);
        post(0, 2, root, both);
        (bytes32 item,) = channel.firstWaiting(cluster);
        check(item == 0, "none waits");
        vm.expectPartialRevert(ICheckpointChannel.NotWaiting.selector);
        post(0, 3, root, both);
        post(0, 3, "root");
    }

    function test_not_more_than_fit_may_wait() external {
        for (uint256 i = 1; i <= 64; ++i) {
            channel.forceInclude(cluster, bytes32(i));
        }
        vm.expectPartialRevert(ICheckpointChannel.TooManyWaiting.selector);
        channel.forceInclude(cluster, "one more");
    }
}
