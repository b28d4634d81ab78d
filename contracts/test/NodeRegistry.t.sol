// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeRegistry} from "../src/interfaces/INodeRegistry.sol";
import {IVeilContract} from "../src/interfaces/IVeilContract.sol";
import {Base} from "./Base.sol";

contract NodeRegistryTest is Base {
    event EligibilityChanged(
        bytes32 indexed cluster,
        bytes32 indexed peer,
        INodeRegistry.Eligibility eligibility,
        uint64 drainDeadline,
        address by
    );
    event NodeRegistered(
        bytes32 indexed cluster,
        bytes32 indexed peer,
        address indexed operator,
        uint8 roles,
        uint32 registration,
        uint256 identityX,
        uint8 identityPrefix,
        bytes32 organisation,
        string labels
    );

    /// @dev The identity of protocol-spec/vectors/scheduling.json: secret key 0x01..01.
    function test_the_peer_is_the_one_of_the_rust_crate() external {
        string memory json = vm.readFile("../protocol-spec/vectors/scheduling.json");
        string memory text = vm.parseJsonString(json, ".telemetry.sender");
        uint256 secret = 0x0101010101010101010101010101010101010101010101010101010101010101;
        bytes32 peer = register(secret, WORKER);
        check(peer == vm.parseBytes32(string.concat("0x", text)), "peer");
    }

    function test_gas_of_register() external {
        register(1, MEMBER);
        register(2, WORKER);
        INodeRegistry.Registration memory node = registration(3, WORKER);
        bytes32 digest = registrationDigest(node, peerOf(3), address(this), 0);
        registry.register(node, compact(3, digest));
        vm.snapshotGasLastCall("NodeRegistry", "register");
        // The costly case: a member that the admin admitted, of another account.
        node = registration(4, MEMBER);
        digest = registrationDigest(node, peerOf(4), STRANGER, 0);
        registry.approve(cluster, peerOf(4), approval(STRANGER, MEMBER));
        IVeilContract.CompactSignature memory signature = compact(4, digest);
        vm.prank(STRANGER);
        registry.register(node, signature);
        vm.snapshotGasLastCall("NodeRegistry", "register, admitted member");
    }

    function test_a_registration_is_announced_and_listed() external {
        IVeilContract.Point memory key = identityKey(7);
        uint8 prefix = uint8(2 + key.y % 2);
        uint8 both = WORKER | MEMBER;
        vm.expectEmit(true, true, true, true);
        emit NodeRegistered(
            cluster, peerOf(7), address(this), both, 1, key.x, prefix, "example", "zone=a"
        );
        register(7, both);
        (INodeRegistry.Node[] memory page, uint32 next) = registry.nodes(cluster, true, 0, 10);
        check(page.length == 1 && next == 0, "page");
        check(page[0].peer == peerOf(7) && page[0].operator == address(this), "node");
        check(page[0].roles == both && page[0].stake == 0, "roles");
        check(page[0].organisationTag == bytes7(keccak256(abi.encode(bytes32("example")))), "tag");
        check(registry.members(cluster).length == 1, "member");
        (page,) = registry.nodes(cluster, false, 0, 10);
        check(page.length == 0, "no worker alone");
    }

    function testFuzz_a_signature_of_another_key_is_refused(uint256 secret) external {
        secret = secret % 1e18 + 2;
        INodeRegistry.Registration memory node = registration(1, WORKER);
        bytes32 digest = registrationDigest(node, peerOf(1), address(this), 0);
        IVeilContract.CompactSignature memory signature = compact(secret, digest);
        vm.expectRevert(
            abi.encodeWithSelector(INodeRegistry.WrongIdentitySignature.selector, peerOf(1))
        );
        registry.register(node, signature);
    }

    function test_a_used_signature_does_not_register_again() external {
        bytes32 peer = register(1, WORKER);
        INodeRegistry.Registration memory node = registration(1, WORKER);
        IVeilContract.CompactSignature memory used =
            compact(1, registrationDigest(node, peer, address(this), 0));
        registry.requestExit(cluster, peer);
        vm.expectPartialRevert(INodeRegistry.WrongIdentitySignature.selector);
        registry.register(node, used);
        register(1, WORKER);
        check(registry.nodeOf(cluster, peer).position == 0, "position");
    }

    function testFuzz_only_supported_committees(uint8 size) external {
        INodeRegistry.Settings memory given = settings();
        given.committeeSize = size;
        bool supported = size == 1 || size == 4 || size == 7 || size == 10 || size == 13;
        if (!supported) {
            vm.expectRevert(
                abi.encodeWithSelector(INodeRegistry.UnsupportedCommitteeSize.selector, size)
            );
        }
        registry.registerCluster("another", given);
    }

    function test_bad_settings_are_refused() external {
        INodeRegistry.Settings memory given = settings();
        vm.expectPartialRevert(INodeRegistry.ClusterAlreadyRegistered.selector);
        registry.registerCluster(0, given);
        given.slotMillis = 0;
        vm.expectPartialRevert(INodeRegistry.InvalidSlotTime.selector);
        registry.registerCluster("another", given);
        given = settings();
        given.standbys = 9;
        vm.expectPartialRevert(INodeRegistry.TooManyStandbys.selector);
        registry.registerCluster("another", given);
        given = settings();
        given.wideningDelay = 31 days;
        vm.expectPartialRevert(INodeRegistry.InvalidWideningDelay.selector);
        registry.registerCluster("another", given);
        given = settings();
        given.memberStake = type(uint96).max;
        vm.expectPartialRevert(INodeRegistry.InvalidStake.selector);
        registry.registerCluster("another", given);
        vm.expectPartialRevert(INodeRegistry.UnknownCluster.selector);
        registry.clusterOf("none");
    }

    function test_a_worker_is_drained_by_its_operator_or_the_admin() external {
        bytes32 peer = register(7, WORKER);
        (INodeRegistry.Node[] memory page,) = registry.nodes(cluster, false, 0, 10);
        check(page[0].eligibility == INodeRegistry.Eligibility.Eligible, "at first");
        vm.prank(STRANGER);
        vm.expectPartialRevert(INodeRegistry.NotNodeOperator.selector);
        registry.setEligibility(cluster, peer, INodeRegistry.Eligibility.Draining, 0);
        vm.expectPartialRevert(INodeRegistry.NodeNotRegistered.selector);
        registry.setEligibility(cluster, peerOf(8), INodeRegistry.Eligibility.Draining, 0);
        vm.expectEmit(true, true, true, true);
        emit EligibilityChanged(cluster, peer, INodeRegistry.Eligibility.Draining, 0, address(this));
        registry.setEligibility(cluster, peer, INodeRegistry.Eligibility.Draining, 0);
        (page,) = registry.nodes(cluster, false, 0, 10);
        check(page[0].eligibility == INodeRegistry.Eligibility.Draining, "draining");
        check(page[0].drainDeadline == 0, "for as long as it takes");
        // It leaves, and comes back as any other.
        registry.requestExit(cluster, peer);
        register(7, WORKER);
        check(
            registry.nodeOf(cluster, peer).eligibility == INodeRegistry.Eligibility.Eligible,
            "eligible again"
        );
    }

    function test_a_drain_has_a_deadline_and_nothing_else_has() external {
        bytes32 peer = register(7, WORKER);
        INodeRegistry.Eligibility draining = INodeRegistry.Eligibility.Draining;
        vm.expectEmit(true, true, true, true);
        emit EligibilityChanged(cluster, peer, draining, 1_800_000_000, address(this));
        registry.setEligibility(cluster, peer, draining, 1_800_000_000);
        check(registry.nodeOf(cluster, peer).drainDeadline == 1_800_000_000, "as it was set");
        // One that is over: what is left stops at once.
        registry.setEligibility(cluster, peer, draining, 1);
        check(registry.nodeOf(cluster, peer).drainDeadline == 1, "at once");
        vm.expectPartialRevert(INodeRegistry.NotDrained.selector);
        registry.setEligibility(cluster, peer, INodeRegistry.Eligibility.Eligible, 1);
        registry.setEligibility(cluster, peer, INodeRegistry.Eligibility.Ineligible, 0);
        check(registry.nodeOf(cluster, peer).drainDeadline == 0, "it is drained no more");
        // It leaves, and the deadline with it.
        registry.setEligibility(cluster, peer, draining, 1);
        registry.requestExit(cluster, peer);
        register(7, WORKER);
        check(registry.nodeOf(cluster, peer).drainDeadline == 0, "it begins anew");
    }

    function test_only_the_operator_or_the_admin_takes_a_node_out() external {
        bytes32 peer = register(1, WORKER);
        vm.prank(STRANGER);
        vm.expectPartialRevert(INodeRegistry.NotNodeOperator.selector);
        registry.requestExit(cluster, peer);
        registry.requestExit(cluster, peer);
        vm.expectPartialRevert(INodeRegistry.NodeNotRegistered.selector);
        registry.requestExit(cluster, peer);
        check(registry.operatorOf(cluster, peer) == address(0), "operator");
        vm.expectPartialRevert(INodeRegistry.NodeNotRegistered.selector);
        registry.nodeOf(cluster, peer);
    }

    /// @dev Whoever leaves, the lists have those that stayed, each at its position, and no holes; pages of any
    /// size give the same.
    function testFuzz_lists_shrink_and_pages_agree(uint16 leaving, uint32 size) external {
        size = size % 12 + 1;
        for (uint256 i = 1; i <= 10; ++i) {
            register(i, i % 2 == 0 ? MEMBER : WORKER);
        }
        uint256[2] memory expected = [uint256(5), 5];
        for (uint256 i = 1; i <= 10; ++i) {
            if ((leaving >> i) & 1 == 1) {
                registry.requestExit(cluster, peerOf(i));
                --expected[i % 2];
            }
        }
        check(registry.members(cluster).length == expected[0], "members");
        checkPages(leaving, size, true, expected[0]);
        checkPages(leaving, size, false, expected[1]);
    }

    /// @dev Odd secrets are workers, even ones members.
    function checkPages(uint16 leaving, uint32 size, bool ofMembers, uint256 expected)
        private
        view
    {
        uint256 count = 0;
        uint256 seen = 0;
        uint32 from = 0;
        do {
            (INodeRegistry.Node[] memory page, uint32 next) =
                registry.nodes(cluster, ofMembers, from, size);
            for (uint256 i = 0; i < page.length; ++i) {
                check(page[i].position == count++, "position");
                for (uint256 secret = ofMembers ? 2 : 1; secret <= 10; secret += 2) {
                    if (page[i].peer != peerOf(secret)) continue;
                    check((leaving >> secret) & 1 == 0, "it left");
                    check((seen >> secret) & 1 == 0, "twice");
                    seen |= 1 << secret;
                }
            }
            from = next;
        } while (from != 0);
        check(count == expected, "complete");
    }
}
