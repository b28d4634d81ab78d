// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Directory} from "../src/Directory.sol";
import {JobBoard} from "../src/JobBoard.sol";
import {NodeRegistry} from "../src/NodeRegistry.sol";
import {IDirectory} from "../src/interfaces/IDirectory.sol";
import {IJobBoard} from "../src/interfaces/IJobBoard.sol";
import {Base} from "./Base.sol";

contract DirectoryTest is Base {
    function test_sets_follow_one_another_and_stay_readable() external {
        check(directory.currentVersion() == 1, "first");
        check(directory.contractOf("JobBoard") == address(board), "board");
        JobBoard another = new JobBoard(address(directory), registry);
        IDirectory.Entry[] memory list = entries();
        list[2].location = address(another);
        check(directory.publish(list) == 2, "second");
        check(directory.contractOf("JobBoard") == address(another), "replaced");
        check(directory.setAt(1)[2].location == address(board), "kept");
        vm.expectPartialRevert(IDirectory.UnknownContract.selector);
        directory.contractOf("Nothing");
        vm.expectPartialRevert(IDirectory.UnknownVersion.selector);
        directory.setAt(3);
    }

    function test_bad_sets_are_refused() external {
        IDirectory.Entry[] memory list = entries();
        vm.prank(address(0xbad));
        vm.expectPartialRevert(bytes4(keccak256("OwnableUnauthorizedAccount(address)")));
        directory.publish(list);
        list[1].name = list[0].name;
        vm.expectPartialRevert(IDirectory.DuplicateName.selector);
        directory.publish(list);
        list = entries();
        list[0].location = address(0x1234);
        vm.expectPartialRevert(IDirectory.ForeignContract.selector);
        directory.publish(list);
        list[0].location = address(new NodeRegistry(address(new Directory(address(this)))));
        vm.expectPartialRevert(IDirectory.ForeignContract.selector);
        directory.publish(list);
        vm.expectPartialRevert(IDirectory.EmptySet.selector);
        directory.publish(new IDirectory.Entry[](0));
    }

    function test_jobs_are_ordered_and_belong_to_their_submitters() external {
        address operator = address(0x0b);
        vm.prank(operator);
        vm.expectPartialRevert(IJobBoard.MissingRight.selector);
        board.submit(cluster, "job", 0);
        registry.setRights(cluster, operator, 1);
        vm.prank(operator);
        check(board.submit(cluster, "job", 0) == 0, "position");
        vm.snapshotGasLastCall("JobBoard", "submit, first");
        vm.prank(operator);
        vm.expectPartialRevert(IJobBoard.WrongNonce.selector);
        board.submit(cluster, "job", 0);
        vm.expectPartialRevert(IJobBoard.EmptyDigest.selector);
        board.submit(cluster, 0, 0);
        check(board.submit(cluster, "other", 0) == 1, "next position");

        vm.expectPartialRevert(IJobBoard.NotSubmitter.selector);
        board.cancel(cluster, 0);
        vm.expectPartialRevert(IJobBoard.UnknownJob.selector);
        board.cancel(cluster, 2);
        vm.prank(operator);
        board.cancel(cluster, 0);
        vm.prank(operator);
        vm.expectPartialRevert(IJobBoard.AlreadyCancelled.selector);
        board.cancel(cluster, 0);
        IJobBoard.Job[] memory jobs = board.jobs(cluster, 0, 10);
        check(jobs.length == 2 && jobs[0].cancelled && !jobs[1].cancelled, "jobs");
        check(board.jobs(cluster, 5, 10).length == 0, "beyond the end");
    }
}
