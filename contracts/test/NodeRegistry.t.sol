// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeRegistry} from "../src/interfaces/INodeRegistry.sol";
import {IVeilContract} from "../src/interfaces/IVeilContract.sol";
import {Base} from "./Base.sol";

contract NodeRegistryTest is Base {
    event NodeRegistered(
        bytes32 indexed cluster, bytes32 indexed peer, address indexed operator, uint8 roles
    );

    /// @dev The identity of protocol-spec/vectors/scheduling.json: secret key 0x01..01.
    function test_the_peer_is_the_one_of_the_rust_crate() external {
        string memory json = vm.readFile("../protocol-spec/vectors/scheduling.json");
        string memory text = vm.parseJsonString(json, ".telemetry.sender");
        uint256 secret = 0x0101010101010101010101010101010101010101010101010101010101010101;
        bytes32 peer = register(secret, WORKER);
        check(peer == vm.parseBytes32(string.concat("0x", text)), "peer");
        string memory identity = vm.parseJsonString(json, ".telemetry.identity");
        bytes memory key = registry.nodeOf(cluster, peer).identity;
        check(keccak256(bytes(hexOf(key))) == keccak256(bytes(identity)), "identity");
    }

    function hexOf(bytes memory data) private pure returns (string memory) {
        bytes memory digits = "0123456789abcdef";
        bytes memory text = new bytes(data.length * 2);
        for (uint256 i = 0; i < data.length; ++i) {
            text[2 * i] = digits[uint8(data[i]) >> 4];
            text[2 * i + 1] = digits[uint8(data[i]) & 15];
        }
        return string(text);
    }

    function test_gas_of_register() external {
        register(1, MEMBER);
        register(2, WORKER);
        INodeRegistry.Registration memory node = registration(3, WORKER);
        bytes32 digest = registrationDigest(node, peerOf(3), address(this), 0);
        registry.register(node, compact(3, digest));
        vm.snapshotGasLastCall("NodeRegistry", "register");
    }

    function test_a_registration_is_announced_and_listed() external {
        vm.expectEmit(true, true, true, true);
        emit NodeRegistered(cluster, peerOf(7), address(this), WORKER | MEMBER);
        register(7, WORKER | MEMBER);
        (INodeRegistry.Node[] memory page, uint32 next) = registry.nodes(cluster, 0, 10);
        check(page.length == 1 && next == 0, "page");
        check(page[0].peer == peerOf(7) && page[0].operator == address(this), "node");
        check(registry.members(cluster).length == 1, "member");
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
        registry.deregister(cluster, peer);
        vm.expectPartialRevert(INodeRegistry.WrongIdentitySignature.selector);
        registry.register(node, used);
        register(1, WORKER);
        check(registry.nodeOf(cluster, peer).position == 1, "position");
    }

    function test_high_s_is_refused() external {
        INodeRegistry.Registration memory node = registration(1, WORKER);
        bytes32 digest = registrationDigest(node, peerOf(1), address(this), 0);
        IVeilContract.CompactSignature memory signature = compact(1, digest);
        // n - s needs the 256th bit, which the compact form uses for the parity; an s above n/2
        // that fits in 255 bits is refused by the library.
        signature.vs = bytes32(uint256(type(uint256).max) >> 1);
        vm.expectPartialRevert(INodeRegistry.WrongIdentitySignature.selector);
        registry.register(node, signature);
    }

    function test_strangers_need_an_approval_except_workers_of_an_open_cluster() external {
        address stranger = address(0x5717);
        INodeRegistry.Registration memory node = registration(1, MEMBER);
        IVeilContract.CompactSignature memory signature =
            compact(1, registrationDigest(node, peerOf(1), stranger, 0));
        vm.prank(stranger);
        vm.expectRevert(
            abi.encodeWithSelector(
                INodeRegistry.NodeNotApproved.selector, cluster, peerOf(1), stranger
            )
        );
        registry.register(node, signature);
        registry.registerNode(peerOf(1), stranger);
        vm.prank(stranger);
        registry.register(node, signature);
        check(registry.operatorOf(cluster, peerOf(1)) == stranger, "operator");

        node = registration(2, WORKER);
        signature = compact(2, registrationDigest(node, peerOf(2), stranger, 0));
        vm.prank(stranger);
        registry.register(node, signature);
        check(registry.operatorOf(cluster, peerOf(2)) == stranger, "worker");
    }

    function testFuzz_only_supported_committees(uint8 size) external {
        bool supported = size == 1 || size == 4 || size == 7 || size == 10 || size == 13;
        if (!supported) {
            vm.expectRevert(
                abi.encodeWithSelector(INodeRegistry.UnsupportedCommitteeSize.selector, size)
            );
        }
        registry.registerCluster("another", size, false, 1, "");
    }

    function test_only_the_admin_changes_a_cluster() external {
        bytes memory refused =
            abi.encodeWithSelector(INodeRegistry.NotClusterAdmin.selector, cluster, address(0xbad));
        vm.prank(address(0xbad));
        vm.expectRevert(refused);
        registry.setClusterPolicy(cluster, "other");
        vm.prank(address(0xbad));
        vm.expectRevert(refused);
        registry.setRights(cluster, address(0xbad), 1);
        registry.setClusterPolicy(cluster, "other");
        check(keccak256(registry.getClusterPolicy(cluster)) == keccak256("other"), "policy");
        vm.expectPartialRevert(INodeRegistry.UnknownCluster.selector);
        registry.setClusterPolicy("none", "other");
    }

    /// @dev Whatever joins and leaves, the order of those that stayed does not change, and pages of
    /// any size give the same list.
    function testFuzz_order_and_pages(uint16 leaving, uint32 size) external {
        size = size % 12 + 1;
        for (uint256 i = 1; i <= 10; ++i) {
            register(i, i % 2 == 0 ? MEMBER : WORKER);
        }
        uint256 members = 5;
        for (uint256 i = 1; i <= 10; ++i) {
            if ((leaving >> i) & 1 == 1) {
                registry.deregister(cluster, peerOf(i));
                if (i % 2 == 0) --members;
            }
        }
        check(registry.members(cluster).length == members, "members");
        uint256 seen = 1;
        uint32 from = 0;
        do {
            INodeRegistry.Node[] memory page;
            uint32 next;
            (page, next) = registry.nodes(cluster, from, size);
            for (uint256 i = 0; i < page.length; ++i) {
                while ((leaving >> seen) & 1 == 1) ++seen;
                check(page[i].peer == peerOf(seen), "order");
                ++seen;
            }
            from = next;
        } while (from != 0);
        while (seen <= 10 && (leaving >> seen) & 1 == 1) ++seen;
        check(seen == 11, "complete");
    }
}
