// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IJobBoard} from "../src/interfaces/IJobBoard.sol";
import {IPolicyRegistry} from "../src/interfaces/IPolicyRegistry.sol";
import {IVeilContract} from "../src/interfaces/IVeilContract.sol";
import {Base} from "./Base.sol";

contract DelegatesTest is Base {
    event KeyDelegated(
        bytes32 indexed cluster, address indexed operator, address indexed key, uint64 until
    );
    event KeyRevoked(bytes32 indexed cluster, address indexed operator, address indexed key);
    event ByDelegate(bytes32 indexed cluster, uint64 indexed position, address indexed key);

    address private constant OPERATOR = address(0x0b);
    address private constant KEY = address(0xc1);

    function setUp() public override {
        super.setUp();
        allow(OPERATOR, 3, 10);
    }

    function delegate(address key, uint64 until) private {
        vm.prank(OPERATOR);
        board.delegate(cluster, key, until);
    }

    function revoke(address key) private {
        vm.prank(OPERATOR);
        board.revoke(cluster, key);
    }

    function submit(address key, uint64 nonce) private returns (uint64) {
        vm.prank(key);
        return
            board.submitFor(cluster, OPERATOR, bytes32("job") | bytes32(uint256(nonce)), nonce, 1);
    }

    function refused(address key, bytes4 why) private {
        vm.expectPartialRevert(why);
        submit(key, 0);
    }

    function test_a_delegate_submits_and_cancels_for_its_operator() external {
        refused(KEY, IJobBoard.NotDelegate.selector);
        vm.expectEmit(true, true, true, true);
        emit KeyDelegated(cluster, OPERATOR, KEY, NOW + 1 days);
        delegate(KEY, NOW + 1 days);
        vm.snapshotGasLastCall("JobBoard", "delegate");
        vm.expectEmit(true, true, true, true);
        emit ByDelegate(cluster, 0, KEY);
        check(submit(KEY, 0) == 0, "position");
        vm.snapshotGasLastCall("JobBoard", "submit, by a delegate");
        IJobBoard.Job memory job = board.jobs(cluster, 0, 1)[0];
        check(job.operator == OPERATOR, "the operator's");
        check(board.usageOf(cluster, OPERATOR).jobs == 1, "of its quota");
        check(board.nextNonce(cluster, OPERATOR) == 1, "under its nonce");
        check(board.nextNonce(cluster, KEY) == 0, "not under the key's");

        vm.prank(OPERATOR);
        board.submit(cluster, "own", 1, 9);
        vm.expectPartialRevert(IJobBoard.LeakBudgetExceeded.selector);
        submit(KEY, 2);
        vm.prank(KEY);
        board.cancelFor(cluster, 1);
        check(board.jobs(cluster, 1, 1)[0].cancelled, "cancelled");
        vm.prank(OPERATOR);
        vm.expectPartialRevert(IJobBoard.AlreadyCancelled.selector);
        board.cancel(cluster, 1);
        vm.prank(KEY);
        vm.expectPartialRevert(IJobBoard.UnknownJob.selector);
        board.cancelFor(cluster, 2);
    }

    /// @dev What a delegate calls besides, it calls for itself.
    function test_a_delegate_can_do_nothing_else() external {
        delegate(KEY, NOW + 1 days);
        submit(KEY, 0);
        vm.prank(KEY);
        vm.expectPartialRevert(IJobBoard.MissingRight.selector);
        board.submit(cluster, "own", 0, 1);
        vm.prank(KEY);
        vm.expectPartialRevert(IJobBoard.NotSubmitter.selector);
        board.cancel(cluster, 0);
        // It delegates what it has, which is nothing.
        vm.prank(KEY);
        board.delegate(cluster, STRANGER, NOW + 1 days);
        refused(STRANGER, IJobBoard.NotDelegate.selector);
        vm.prank(STRANGER);
        vm.expectPartialRevert(IJobBoard.MissingRight.selector);
        board.submitFor(cluster, KEY, "job", 0, 1);
        // And prolongs or revokes nothing of its operator's.
        vm.prank(KEY);
        vm.expectPartialRevert(IJobBoard.InvalidDelegate.selector);
        board.delegate(cluster, KEY, NOW + 9 days);
        vm.prank(KEY);
        vm.expectPartialRevert(IJobBoard.NotDelegate.selector);
        board.revoke(cluster, KEY);
        vm.prank(KEY);
        vm.expectPartialRevert(IPolicyRegistry.NotClusterAdmin.selector);
        policies.setAllowance(cluster, KEY, IPolicyRegistry.Allowance(1, 1, 1));
        // In another cluster it is nobody's, and so it is for another operator.
        bytes32 another = registry.registerCluster("another", settings());
        vm.prank(KEY);
        vm.expectPartialRevert(IJobBoard.NotDelegate.selector);
        board.submitFor(another, OPERATOR, "job", 0, 1);
        allow(address(this), 1, 1);
        board.submit(cluster, "of another", 0, 1);
        vm.prank(KEY);
        vm.expectPartialRevert(IJobBoard.NotDelegate.selector);
        board.cancelFor(cluster, 1);
    }

    function test_a_delegation_ends_by_itself_or_at_once() external {
        delegate(KEY, NOW + 10);
        vm.warp(NOW + 10);
        submit(KEY, 0);
        vm.warp(NOW + 11);
        refused(KEY, IJobBoard.DelegateExpired.selector);
        vm.prank(KEY);
        vm.expectRevert(
            abi.encodeWithSelector(
                IJobBoard.DelegateExpired.selector, OPERATOR, KEY, uint64(NOW + 10)
            )
        );
        board.cancelFor(cluster, 0);
        // Anew, and revoked.
        delegate(KEY, NOW + 20);
        submit(KEY, 1);
        vm.expectEmit(true, true, true, true);
        emit KeyRevoked(cluster, OPERATOR, KEY);
        revoke(KEY);
        refused(KEY, IJobBoard.DelegateRevoked.selector);
        check(board.delegationOf(cluster, OPERATOR, KEY).revokedAt == NOW + 11, "when");
        check(board.delegatesOf(cluster, OPERATOR).length == 0, "none left");
        vm.prank(OPERATOR);
        vm.expectPartialRevert(IJobBoard.DelegateRevoked.selector);
        board.revoke(cluster, KEY);
        delegate(KEY, NOW + 20);
        submit(KEY, 2);
    }

    /// @dev Whom the admin takes the right from, has delegated nothing any more.
    function test_a_delegate_has_its_operators_right_and_no_other() external {
        delegate(KEY, NOW + 1 days);
        allow(KEY, 10, 10);
        policies.setAllowance(cluster, OPERATOR, IPolicyRegistry.Allowance(0, 0, 0));
        refused(KEY, IJobBoard.MissingRight.selector);
    }

    function test_what_cannot_be_delegated() external {
        vm.expectPartialRevert(IJobBoard.InvalidDelegate.selector);
        delegate(address(0), NOW + 1);
        vm.expectPartialRevert(IJobBoard.InvalidDelegate.selector);
        delegate(OPERATOR, NOW + 1);
        vm.expectPartialRevert(IJobBoard.InvalidDelegationTime.selector);
        delegate(KEY, NOW - 1);
        vm.expectPartialRevert(IJobBoard.InvalidDelegationTime.selector);
        delegate(KEY, NOW + 366 days + 1);
        delegate(KEY, NOW + 366 days);
    }

    function test_an_operator_has_few_keys_and_the_expired_make_room() external {
        for (uint160 i = 1; i <= 8; ++i) {
            delegate(address(i), NOW + uint64(i) * 10);
        }
        vm.expectPartialRevert(IJobBoard.TooManyDelegates.selector);
        delegate(KEY, NOW + 100);
        vm.warp(NOW + 11);
        delegate(KEY, NOW + 100);
        IJobBoard.Delegation[] memory list = board.delegatesOf(cluster, OPERATOR);
        check(list.length == 8 && list[0].key == KEY && list[0].until == NOW + 100, "in its place");
        refused(address(1), IJobBoard.DelegateExpired.selector);
        revoke(address(1));
        check(board.delegatesOf(cluster, OPERATOR).length == 8, "it had no place any more");
    }

    /// @dev New work is paused; that somebody loses a key is not.
    function test_a_pause_stops_submissions_and_no_revocation() external {
        delegate(KEY, NOW + 1 days);
        submit(KEY, 0);
        vm.prank(GUARDIAN);
        directory.pause();
        refused(KEY, IVeilContract.Paused.selector);
        vm.prank(KEY);
        board.cancelFor(cluster, 0);
        revoke(KEY);
    }

    /// @dev Against a model: in any order of delegating, revoking and waiting, a key acts if and only if its
    /// operator let it, has not revoked it, and its time is not over; the list has each such key once.
    function testFuzz_keys_act_within_what_was_delegated(uint16[32] calldata steps) external {
        allow(OPERATOR, 1000, 1000);
        uint64[10] memory until;
        uint64 nonce = 0;
        for (uint256 i = 0; i < steps.length; ++i) {
            uint256 k = steps[i] / 4 % 10;
            address key = address(uint160(0x100 + k));
            if (steps[i] % 4 == 0) {
                uint64 end = uint64(block.timestamp) + steps[i] % 50;
                vm.prank(OPERATOR);
                try board.delegate(cluster, key, end) {
                    until[k] = end;
                } catch {
                    check(live(until) >= 8, "there was room");
                }
            } else if (steps[i] % 4 == 1) {
                vm.prank(OPERATOR);
                try board.revoke(cluster, key) {
                    until[k] = 0;
                } catch {
                    check(until[k] == 0, "it could be revoked");
                }
            } else if (steps[i] % 4 == 2) {
                vm.warp(block.timestamp + steps[i] % 20);
            } else {
                vm.prank(key);
                try board.submitFor(cluster, OPERATOR, bytes32(uint256(nonce) + 1), nonce, 1) {
                    ++nonce;
                    check(until[k] >= block.timestamp, "it may not");
                } catch {
                    check(until[k] < block.timestamp, "it may");
                }
            }
            checkList(until);
        }
    }

    function live(uint64[10] memory until) private view returns (uint256 count) {
        for (uint256 k = 0; k < 10; ++k) {
            if (until[k] >= block.timestamp) ++count;
        }
    }

    function checkList(uint64[10] memory until) private view {
        IJobBoard.Delegation[] memory list = board.delegatesOf(cluster, OPERATOR);
        check(list.length <= 8, "too many");
        uint256 found = 0;
        for (uint256 i = 0; i < list.length; ++i) {
            uint256 k = uint160(list[i].key) - 0x100;
            check(list[i].until == until[k] && list[i].revokedAt == 0, "as delegated");
            for (uint256 j = 0; j < i; ++j) {
                check(list[j].key != list[i].key, "twice");
            }
            if (until[k] >= block.timestamp) ++found;
        }
        check(found == live(until), "one is missing");
    }
}
