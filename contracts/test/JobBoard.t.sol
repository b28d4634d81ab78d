// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IJobBoard} from "../src/interfaces/IJobBoard.sol";
import {Base} from "./Base.sol";

contract JobBoardTest is Base {
    address private constant OPERATOR = address(0x0b);

    function test_jobs_are_ordered_and_belong_to_their_submitters() external {
        vm.prank(OPERATOR);
        vm.expectPartialRevert(IJobBoard.MissingRight.selector);
        board.submit(cluster, "job", 0, 1);
        allow(OPERATOR, 10, 10);
        vm.prank(OPERATOR);
        check(board.submit(cluster, "job", 0, 1) == 0, "position");
        vm.snapshotGasLastCall("JobBoard", "submit, first");
        vm.prank(OPERATOR);
        vm.expectPartialRevert(IJobBoard.WrongNonce.selector);
        board.submit(cluster, "job", 0, 1);
        vm.expectPartialRevert(IJobBoard.EmptyDigest.selector);
        board.submit(cluster, 0, 0, 1);
        vm.expectPartialRevert(IJobBoard.NoLeakStated.selector);
        board.submit(cluster, "job", 0, 0);
        allow(address(this), 10, 10);
        check(board.submit(cluster, "other", 0, 1) == 1, "next position");
        check(board.submit(cluster, "third", 1, 1) == 2, "one more");
        vm.snapshotGasLastCall("JobBoard", "submit, later");

        vm.prank(OPERATOR);
        vm.expectPartialRevert(IJobBoard.NotSubmitter.selector);
        board.cancel(cluster, 1);
        vm.prank(OPERATOR);
        vm.expectPartialRevert(IJobBoard.AlreadySubmitted.selector);
        board.submit(cluster, "job", 1, 1);
        vm.expectPartialRevert(IJobBoard.UnknownJob.selector);
        board.cancel(cluster, 3);
        vm.prank(OPERATOR);
        board.cancel(cluster, 0);
        vm.prank(OPERATOR);
        vm.expectPartialRevert(IJobBoard.AlreadyCancelled.selector);
        board.cancel(cluster, 0);
        IJobBoard.Job[] memory jobs = board.jobs(cluster, 0, 10);
        check(jobs.length == 3 && jobs[0].cancelled && !jobs[1].cancelled, "jobs");
        check(board.jobs(cluster, 5, 10).length == 0, "beyond the end");
        check(board.count(cluster) == 3 && board.nextNonce(cluster, OPERATOR) == 1, "counts");
    }

    /// @dev Also the admin is bound by the limits that it was given.
    function test_the_quota_is_per_day() external {
        registerMembers();
        allow(address(this), 2, 100);
        board.submit(cluster, "a", 0, 1);
        board.submit(cluster, "b", 1, 1);
        vm.expectPartialRevert(IJobBoard.QuotaExceeded.selector);
        board.submit(cluster, "c", 2, 1);
        publish(0, GROUP, 0);
        vm.expectPartialRevert(IJobBoard.QuotaExceeded.selector);
        board.submit(cluster, "c", 2, 1); // a key begins nothing anew
        vm.warp((block.timestamp / 1 days + 1) * 1 days - 1);
        vm.expectPartialRevert(IJobBoard.QuotaExceeded.selector);
        board.submit(cluster, "c", 2, 1);
        vm.warp(block.timestamp + 1);
        check(board.usageOf(cluster, address(this)).jobs == 0, "anew");
        board.submit(cluster, "c", 2, 1);
        check(board.usageOf(cluster, address(this)).window == block.timestamp / 1 days, "day");
    }

    /// @dev Whatever is submitted, no day tells more than the budget.
    function testFuzz_the_leak_budget_holds(uint32[8] calldata stated, uint32 budget) external {
        budget = budget % 1000 + 1;
        allow(address(this), 100, budget);
        uint256 told = 0;
        uint64 nonce = 0;
        for (uint256 i = 0; i < stated.length; ++i) {
            uint32 bits = stated[i] % 400 + 1;
            if (told + bits > budget) {
                vm.expectRevert(
                    abi.encodeWithSelector(
                        IJobBoard.LeakBudgetExceeded.selector, uint32(told), bits, budget
                    )
                );
                board.submit(cluster, bytes32(uint256(nonce) + 1), nonce, bits);
                continue;
            }
            board.submit(cluster, bytes32(uint256(nonce) + 1), nonce++, bits);
            told += bits;
        }
        check(board.usageOf(cluster, address(this)).leakBits == told, "told");
    }
}
