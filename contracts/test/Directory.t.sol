// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Directory} from "../src/Directory.sol";
import {NodeRegistry} from "../src/NodeRegistry.sol";
import {Timelock} from "../src/Timelock.sol";
import {IDirectory} from "../src/interfaces/IDirectory.sol";
import {IVeilContract} from "../src/interfaces/IVeilContract.sol";
import {Base} from "./Base.sol";

/// @dev Of an interface that is to come.
contract Later {
    address public immutable directory;
    uint64 public constant setVersion = 2;
    uint16 public constant interfaceVersion = 999;

    constructor(address directory_) {
        directory = directory_;
    }
}

contract DirectoryTest is Base {
    function test_sets_follow_one_another_and_stay_readable() external {
        check(directory.currentVersion() == 1, "first");
        check(directory.contractOf("JobBoard") == address(board), "board");
        deploySet();
        check(directory.currentVersion() == 2, "second");
        check(directory.contractOf("JobBoard") == address(board), "replaced");
        check(directory.setAt(1)[4].location == directory.contractAt(1, "JobBoard"), "kept");
        check(directory.contractAt(1, "JobBoard") != address(board), "another");
        vm.expectPartialRevert(IDirectory.UnknownContract.selector);
        directory.contractOf("Nothing");
        vm.expectPartialRevert(IDirectory.UnknownVersion.selector);
        directory.setAt(3);
    }

    function test_bad_sets_are_refused() external {
        IDirectory.Entry[] memory old = entries();
        deployContracts();
        IDirectory.Entry[] memory list = entries();
        vm.prank(address(0xbad));
        vm.expectPartialRevert(IDirectory.NotPublisher.selector);
        directory.publish(list);
        list[1].name = list[0].name;
        vm.expectPartialRevert(IDirectory.DuplicateName.selector);
        directory.publish(list);
        list = entries();
        list[0].location = address(0x1234);
        vm.expectPartialRevert(IDirectory.ForeignContract.selector);
        directory.publish(list);
        list[0].location =
            address(new NodeRegistry(address(new Directory(address(this), GUARDIAN))));
        vm.expectPartialRevert(IDirectory.ForeignContract.selector);
        directory.publish(list);
        vm.expectPartialRevert(IDirectory.IncompleteSet.selector);
        directory.publish(new IDirectory.Entry[](0));
        // The contracts of one set are of no other.
        list = entries();
        list[0] = old[0];
        vm.expectRevert(
            abi.encodeWithSelector(
                IDirectory.OtherSet.selector, bytes32("NodeRegistry"), uint64(1), uint64(2)
            )
        );
        directory.publish(list);
        list = new IDirectory.Entry[](1);
        list[0] = IDirectory.Entry("NodeRegistry", address(new NodeRegistry(address(directory))));
        vm.expectRevert(
            abi.encodeWithSelector(IDirectory.IncompleteSet.selector, bytes32("PolicyRegistry"))
        );
        directory.publish(list);
        list[0].location = address(new Later(address(directory)));
        vm.expectPartialRevert(IDirectory.OtherInterface.selector);
        directory.publish(list);
    }

    function test_the_guardian_pauses_new_work_and_nothing_else() external {
        vm.prank(STRANGER);
        vm.expectPartialRevert(IDirectory.NotGuardian.selector);
        directory.pause();
        vm.prank(GUARDIAN);
        directory.pause();
        uint64 until = NOW + 7 days;
        check(directory.pausedUntil() == until, "until");
        bytes memory refused = abi.encodeWithSelector(IVeilContract.Paused.selector, until);
        vm.expectRevert(refused);
        board.submit(cluster, "job", 0, 1);
        vm.expectRevert(refused);
        election.request(cluster, 0);
        proposeRefused(proposal(0, 0), IVeilContract.Paused.selector);
        // Nodes come and go.
        bytes32 peer = register(registration(1, MEMBER), 1, 1 ether);
        registry.requestExit(cluster, peer);
        vm.warp(NOW + 180 days);
        registry.withdraw(cluster, peer);
        // It ends by itself.
        allow(address(this), 1, 1);
        board.submit(cluster, "job", 0, 1);
    }

    function test_the_timelock_owns_the_directory_from_the_start() external {
        address[] memory us = new address[](1);
        us[0] = address(this);
        Timelock timelock = new Timelock(2 days, us, us, address(0));
        Directory owned = new Directory(address(timelock), GUARDIAN);
        directory = owned;
        deploySet(); // who deployed it may publish the first set
        IDirectory.Entry[] memory list = entries();
        vm.expectPartialRevert(IDirectory.NotPublisher.selector);
        owned.publish(list);

        bytes memory call = abi.encodeCall(IDirectory.setGuardian, (STRANGER));
        timelock.schedule(address(owned), 0, call, 0, 0, 2 days);
        vm.warp(NOW + 2 days - 1);
        vm.expectPartialRevert(
            bytes4(keccak256("TimelockUnexpectedOperationState(bytes32,bytes32)"))
        );
        timelock.execute(address(owned), 0, call, 0, 0);
        vm.warp(NOW + 2 days);
        timelock.execute(address(owned), 0, call, 0, 0);
        check(owned.guardian() == STRANGER, "guardian");
    }
}
