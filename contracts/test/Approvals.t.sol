// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeRegistry} from "../src/interfaces/INodeRegistry.sol";
import {IVeilContract} from "../src/interfaces/IVeilContract.sol";
import {Base} from "./Base.sol";

/// @dev The cluster is open to workers; the test is its admin.
contract ApprovalsTest is Base {
    event NodeApproved(
        bytes32 indexed cluster,
        bytes32 indexed peer,
        address indexed operator,
        uint8 roles,
        bytes32 organisation,
        uint64 validUntil
    );

    address private constant OPERATOR = address(0x0b);

    function signed(INodeRegistry.Registration memory node, uint32 nonce, address operator)
        private
        view
        returns (IVeilContract.CompactSignature memory)
    {
        return compact(1, registrationDigest(node, peerOf(1), operator, nonce));
    }

    function refused(address operator, INodeRegistry.Registration memory node, bytes4 why) private {
        uint32 nonce = registry.registrations(node.cluster, peerOf(1));
        IVeilContract.CompactSignature memory signature = signed(node, nonce, operator);
        vm.expectPartialRevert(why);
        registerAs(operator, node, signature);
    }

    function registers(INodeRegistry.Registration memory node) private {
        uint32 nonce = registry.registrations(node.cluster, peerOf(1));
        registerAs(OPERATOR, node, signed(node, nonce, OPERATOR));
    }

    function test_an_approval_is_used_up() external {
        INodeRegistry.Registration memory node = registration(1, MEMBER);
        refused(OPERATOR, node, INodeRegistry.NodeNotApproved.selector);
        vm.expectEmit(true, true, true, true);
        emit NodeApproved(
            cluster, peerOf(1), OPERATOR, MEMBER, "example", uint64(block.timestamp) + 1 days
        );
        registry.approve(cluster, peerOf(1), approval(OPERATOR, MEMBER));
        refused(STRANGER, node, INodeRegistry.NodeNotApproved.selector);
        registers(node);
        check(registry.approvalOf(cluster, peerOf(1)).operator == address(0), "used up");
        check(registry.nodeOf(cluster, peerOf(1)).roles == MEMBER, "roles");
        bytes7 tag = bytes7(keccak256(abi.encode(bytes32("example"))));
        check(registry.nodeOf(cluster, peerOf(1)).organisationTag == tag, "organisation");

        // Whoever leaves does not come back by it.
        vm.prank(OPERATOR);
        registry.requestExit(cluster, peerOf(1));
        refused(OPERATOR, node, INodeRegistry.NodeNotApproved.selector);
    }

    function test_nothing_but_what_was_approved_registers() external {
        registry.approve(cluster, peerOf(1), approval(OPERATOR, MEMBER));
        INodeRegistry.Registration memory node = registration(1, MEMBER);
        node.organisation = "another";
        bytes4 why = INodeRegistry.NotAsApproved.selector;
        refused(OPERATOR, node, why);
        node.organisation = 0;
        refused(OPERATOR, node, why);
        refused(OPERATOR, registration(1, WORKER), why);
        refused(OPERATOR, registration(1, WORKER | MEMBER), why);
        vm.expectRevert(abi.encodeWithSelector(why, cluster, peerOf(1), MEMBER, bytes32("example")));
        registerAs(OPERATOR, node, signed(node, 0, OPERATOR));
        registers(registration(1, MEMBER));
    }

    /// @dev Without approval a worker of an open cluster is of no organisation, whatever it says.
    function test_an_open_cluster_takes_workers_that_claim_nothing() external {
        INodeRegistry.Registration memory node = registration(1, WORKER);
        refused(OPERATOR, node, INodeRegistry.NodeNotApproved.selector);
        node.organisation = 0;
        registers(node);
        check(registry.operatorOf(cluster, peerOf(1)) == OPERATOR, "worker");
    }

    function test_a_closed_cluster_takes_nobody_without_approval() external {
        INodeRegistry.Settings memory given = settings();
        given.openToWorkers = false;
        cluster = registry.registerCluster("closed", given);
        INodeRegistry.Registration memory node = registration(1, WORKER);
        node.organisation = 0;
        refused(OPERATOR, node, INodeRegistry.NodeNotApproved.selector);
        registry.approve(cluster, peerOf(1), approval(OPERATOR, WORKER));
        refused(OPERATOR, node, INodeRegistry.NotAsApproved.selector);
        registers(registration(1, WORKER));
    }

    function test_an_approval_ends() external {
        registry.approve(cluster, peerOf(1), approval(OPERATOR, MEMBER));
        vm.warp(block.timestamp + 1 days + 1);
        INodeRegistry.Registration memory node = registration(1, MEMBER);
        refused(OPERATOR, node, INodeRegistry.ApprovalExpired.selector);
        registry.approve(cluster, peerOf(1), approval(OPERATOR, MEMBER));
        vm.warp(block.timestamp + 1 days);
        registers(node);
    }

    function test_an_approval_is_withdrawn_and_replaced() external {
        registry.approve(cluster, peerOf(1), approval(OPERATOR, MEMBER));
        registry.withdrawApproval(cluster, peerOf(1));
        refused(OPERATOR, registration(1, MEMBER), INodeRegistry.NodeNotApproved.selector);
        registry.approve(cluster, peerOf(1), approval(OPERATOR, MEMBER));
        registry.approve(cluster, peerOf(1), approval(OPERATOR, WORKER));
        refused(OPERATOR, registration(1, MEMBER), INodeRegistry.NotAsApproved.selector);
        registers(registration(1, WORKER));
        // Taken out by the admin, it does not come back by what was approved in between.
        registry.approve(cluster, peerOf(1), approval(OPERATOR, WORKER));
        registry.requestExit(cluster, peerOf(1));
        check(registry.approvalOf(cluster, peerOf(1)).operator == address(0), "withdrawn");
        refused(OPERATOR, registration(1, WORKER), INodeRegistry.NodeNotApproved.selector);
    }

    function test_what_cannot_be_approved() external {
        INodeRegistry.Approval memory given = approval(OPERATOR, MEMBER);
        vm.prank(STRANGER);
        vm.expectPartialRevert(INodeRegistry.NotClusterAdmin.selector);
        registry.approve(cluster, peerOf(1), given);
        vm.prank(STRANGER);
        vm.expectPartialRevert(INodeRegistry.NotClusterAdmin.selector);
        registry.withdrawApproval(cluster, peerOf(1));
        vm.expectPartialRevert(INodeRegistry.UnknownCluster.selector);
        registry.approve("none", peerOf(1), given);
        given.operator = address(0);
        vm.expectPartialRevert(INodeRegistry.InvalidOperator.selector);
        registry.approve(cluster, peerOf(1), given);
        for (uint8 roles = 0; roles <= 4; roles += 4) {
            given = approval(OPERATOR, roles);
            vm.expectPartialRevert(INodeRegistry.UnknownRoles.selector);
            registry.approve(cluster, peerOf(1), given);
        }
        given = approval(OPERATOR, MEMBER);
        given.validUntil = uint64(block.timestamp) - 1;
        vm.expectPartialRevert(INodeRegistry.InvalidApprovalTime.selector);
        registry.approve(cluster, peerOf(1), given);
        given.validUntil = uint64(block.timestamp) + 90 days + 1;
        vm.expectPartialRevert(INodeRegistry.InvalidApprovalTime.selector);
        registry.approve(cluster, peerOf(1), given);
        given.validUntil -= 1;
        registry.approve(cluster, peerOf(1), given);
    }

    /// @dev What the admin says of one of its clusters does not hold in another one.
    function test_an_approval_is_for_one_cluster() external {
        registry.approve(cluster, peerOf(1), approval(OPERATOR, MEMBER));
        cluster = registry.registerCluster("another", settings());
        refused(OPERATOR, registration(1, MEMBER), INodeRegistry.NodeNotApproved.selector);
    }

    /// @dev The brief's function: a worker, in the caller's first cluster, of no organisation.
    function test_registerNode_approves_a_worker() external {
        registry.registerCluster("another", settings());
        registry.registerNode(peerOf(1), OPERATOR);
        INodeRegistry.Approval memory found = registry.approvalOf(cluster, peerOf(1));
        check(found.operator == OPERATOR && found.roles == WORKER, "approved");
        check(found.organisation == 0 && found.validUntil == NOW + 30 days, "and no more");
        refused(OPERATOR, registration(1, MEMBER), INodeRegistry.NotAsApproved.selector);
        registry.registerNode(peerOf(1), address(0));
        check(registry.approvalOf(cluster, peerOf(1)).operator == address(0), "withdrawn");
        vm.prank(STRANGER);
        vm.expectPartialRevert(INodeRegistry.UnknownCluster.selector);
        registry.registerNode(peerOf(1), OPERATOR);
    }

    /// @dev Whatever was approved and whatever is claimed, in whatever order: a member, or a node of an
    /// organisation, registers by exactly one approval of exactly that, in time, and each is good once.
    function testFuzz_each_registration_has_its_approval(uint8[24] calldata steps) external {
        INodeRegistry.Approval memory last;
        for (uint256 i = 0; i < steps.length; ++i) {
            uint8 roles = 1 + steps[i] / 4 % 3;
            bytes32 organisation = bytes32(uint256(steps[i] / 12 % 3));
            if (steps[i] % 4 == 0) {
                last = approval(OPERATOR, roles);
                last.organisation = organisation;
                registry.approve(cluster, peerOf(1), last);
            } else if (steps[i] % 4 == 1) {
                vm.warp(block.timestamp + uint256(steps[i]) * 20 minutes);
            } else {
                INodeRegistry.Registration memory node = registration(1, roles);
                node.organisation = organisation;
                bool free = roles == WORKER && organisation == 0;
                bool approved = last.operator == OPERATOR && last.roles == roles
                    && last.organisation == organisation && block.timestamp <= last.validUntil;
                uint32 nonce = registry.registrations(cluster, peerOf(1));
                IVeilContract.CompactSignature memory signature = signed(node, nonce, OPERATOR);
                vm.prank(OPERATOR);
                try registry.register(node, signature) {
                    check(free || approved, "not approved");
                    if (!free) delete last;
                    vm.prank(OPERATOR);
                    registry.requestExit(cluster, peerOf(1));
                } catch {
                    check(!free && !approved, "approved");
                }
            }
        }
    }
}
