// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeRegistry} from "../src/interfaces/INodeRegistry.sol";
import {IPolicyRegistry} from "../src/interfaces/IPolicyRegistry.sol";
import {Base} from "./Base.sol";

contract PolicyRegistryTest is Base {
    address private constant ACCOUNT = address(0x0b);
    uint32 private constant DELAY = 2 days;

    function settings() internal view override returns (INodeRegistry.Settings memory given) {
        given = super.settings();
        given.wideningDelay = DELAY;
    }

    /// @dev After the cluster's first days.
    function setUp() public override {
        super.setUp();
        vm.warp(NOW + DELAY);
    }

    function test_a_policy_in_force_is_replaced_after_the_delay() external {
        check(keccak256(policies.getClusterPolicy(cluster)) == keccak256("policy"), "first");
        vm.prank(STRANGER);
        vm.expectPartialRevert(IPolicyRegistry.NotClusterAdmin.selector);
        policies.setClusterPolicy(cluster, "other");
        vm.expectPartialRevert(IPolicyRegistry.InvalidPolicyLength.selector);
        policies.setClusterPolicy(cluster, "");
        vm.expectPartialRevert(IPolicyRegistry.InvalidPolicyLength.selector);
        policies.setClusterPolicy(cluster, new bytes(8193));
        vm.expectPartialRevert(INodeRegistry.UnknownCluster.selector);
        policies.setClusterPolicy("none", "other");

        policies.setClusterPolicy(cluster, "other");
        check(keccak256(policies.getClusterPolicy(cluster)) == keccak256("policy"), "still");
        (bytes memory announced, uint64 from) = policies.announcedPolicy(cluster);
        check(keccak256(announced) == keccak256("other") && from == NOW + 2 * DELAY, "announced");
        vm.warp(from);
        check(keccak256(policies.getClusterPolicy(cluster)) == keccak256("other"), "due");
        (, from) = policies.announcedPolicy(cluster);
        check(from == 0, "nothing announced");
        policies.setClusterPolicy(cluster, "third");
        check(keccak256(policies.getClusterPolicy(cluster)) == keccak256("other"), "settled");
    }

    function test_while_a_cluster_is_young_everything_holds_at_once() external {
        bytes32 young = registry.registerCluster("young", settings());
        policies.setClusterPolicy(young, "a");
        policies.setClusterPolicy(young, "b");
        check(keccak256(policies.getClusterPolicy(young)) == keccak256("b"), "policy");
        policies.setAllowance(young, ACCOUNT, IPolicyRegistry.Allowance(3, 5, 7));
        check(policies.allowanceOf(young, ACCOUNT).jobsPerDay == 5, "allowance");
        policies.allowImage(young, "image", "root", 0, new bytes32[](0));
        check(policies.isImageAllowed(young, "image"), "image");
    }

    /// @dev At every moment an account may do no more than the least of what was said in the last
    /// delay, and what was narrowed holds at once.
    function testFuzz_narrowing_holds_at_once_and_widening_later(
        uint32[3] calldata first,
        uint32[3] calldata second
    ) external {
        policies.setAllowance(cluster, ACCOUNT, allowance(first));
        check(policies.allowanceOf(cluster, ACCOUNT).rights == 0, "nothing yet");
        vm.warp(NOW + 2 * DELAY);
        policies.setAllowance(cluster, ACCOUNT, allowance(second));
        IPolicyRegistry.Allowance memory now_ = policies.allowanceOf(cluster, ACCOUNT);
        check(now_.rights == first[0] & second[0], "rights");
        check(now_.jobsPerDay == (first[1] < second[1] ? first[1] : second[1]), "jobs");
        check(now_.leakBitsPerDay == (first[2] < second[2] ? first[2] : second[2]), "bits");
        vm.warp(NOW + 3 * DELAY);
        now_ = policies.allowanceOf(cluster, ACCOUNT);
        check(now_.rights == second[0] && now_.jobsPerDay == second[1], "all of it");
        (, uint64 from) = policies.announcedAllowance(cluster, ACCOUNT);
        check(from == 0, "nothing announced");
    }

    function allowance(uint32[3] calldata numbers)
        private
        pure
        returns (IPolicyRegistry.Allowance memory)
    {
        return IPolicyRegistry.Allowance(numbers[0], numbers[1], numbers[2]);
    }

    function test_the_admin_has_all_rights_but_only_the_quotas_it_was_given() external {
        IPolicyRegistry.Allowance memory own = policies.allowanceOf(cluster, address(this));
        check(own.rights == type(uint32).max && own.jobsPerDay == 0, "own");
        vm.prank(STRANGER);
        vm.expectPartialRevert(IPolicyRegistry.NotClusterAdmin.selector);
        policies.setAllowance(cluster, STRANGER, IPolicyRegistry.Allowance(1, 1, 1));
    }

    function test_images_are_allowed_later_and_revoked_at_once() external {
        check(policies.isImageAllowed(cluster, "image"), "not restricted");
        vm.prank(STRANGER);
        vm.expectPartialRevert(IPolicyRegistry.MissingRight.selector);
        policies.allowImage(cluster, "image", "root", 0, new bytes32[](0));
        vm.expectPartialRevert(IPolicyRegistry.EmptyImageRoot.selector);
        policies.allowImage(cluster, "image", 0, 0, new bytes32[](0));

        policies.allowImage(cluster, "image", "root", 0, new bytes32[](0));
        IPolicyRegistry.Image memory image = policies.imageOf(cluster, "image");
        check(image.status == IPolicyRegistry.ImageStatus.Announced, "announced");
        check(policies.isImageAllowed(cluster, "another"), "not restricted yet");
        vm.warp(image.allowedFrom);
        check(policies.imageOf(cluster, "image").root == "root", "allowed");
        check(policies.isImageAllowed(cluster, "image"), "allowed");
        check(!policies.isImageAllowed(cluster, "another"), "restricted now");

        // Under another root it stays allowed under the old one until then.
        policies.allowImage(cluster, "image", "other root", 0, new bytes32[](0));
        check(policies.imageOf(cluster, "image").root == "root", "old root");
        vm.warp(block.timestamp + DELAY);
        check(policies.imageOf(cluster, "image").root == "other root", "new root");

        policies.revokeImage(cluster, "image");
        check(!policies.isImageAllowed(cluster, "image"), "revoked");
        image = policies.imageOf(cluster, "image");
        check(image.status == IPolicyRegistry.ImageStatus.Revoked, "status");
        vm.expectPartialRevert(IPolicyRegistry.ImageNotAllowed.selector);
        policies.revokeImage(cluster, "image");
        // What is announced is revoked, too, and not allowed when its time comes.
        policies.allowImage(cluster, "image", "root", 0, new bytes32[](0));
        policies.revokeImage(cluster, "image");
        vm.warp(block.timestamp + 2 * DELAY);
        check(!policies.isImageAllowed(cluster, "image"), "stays revoked");
        check(policies.imageCount(cluster) == 1, "count");
    }

    /// @dev protocol-spec/vectors/images.json: its last part is a signature.
    function test_a_signature_is_named_only_if_the_root_commits_to_it() external {
        string memory json = vm.readFile("../protocol-spec/vectors/images.json");
        bytes32 root = vm.parseJsonBytes32(json, ".root");
        bytes32 signature = vm.parseJsonBytes32(json, ".parts[4].digest");
        bytes32[] memory proof = vm.parseJsonBytes32Array(json, ".parts[4].proof");
        vm.expectPartialRevert(IPolicyRegistry.SignatureNotInRoot.selector);
        policies.allowImage(cluster, "image", root, "another", proof);
        // A layer is no signature.
        bytes32 layer = vm.parseJsonBytes32(json, ".parts[1].digest");
        bytes32[] memory path = vm.parseJsonBytes32Array(json, ".parts[1].proof");
        vm.expectPartialRevert(IPolicyRegistry.SignatureNotInRoot.selector);
        policies.allowImage(cluster, "image", root, layer, path);

        policies.allowImage(cluster, "image", root, signature, proof);
        IPolicyRegistry.Image memory image = policies.imageOf(cluster, "image");
        check(image.signature == signature, "announced");
        vm.warp(image.allowedFrom);
        (, IPolicyRegistry.AllowedImage[] memory listed) = policies.allowedImages(cluster);
        check(listed[0].root == root && listed[0].signature == signature, "listed");
        // Without it from the next announcement's time on, and with it until then.
        policies.allowImage(cluster, "image", root, 0, new bytes32[](0));
        check(policies.imageOf(cluster, "image").signature == signature, "still");
        vm.warp(block.timestamp + DELAY);
        check(policies.imageOf(cluster, "image").signature == 0, "no more");
        policies.allowImage(cluster, "image", root, signature, proof);
        vm.warp(block.timestamp + DELAY);
        policies.revokeImage(cluster, "image");
        check(policies.imageOf(cluster, "image").signature == 0, "revoked");
    }

    /// @dev What nodes read with every block: all that is allowed now, and nothing else.
    function test_the_allowed_images_are_listed() external {
        (bool restricted, IPolicyRegistry.AllowedImage[] memory listed) =
            policies.allowedImages(cluster);
        check(!restricted && listed.length == 0, "not restricted");
        policies.allowImage(cluster, "a", "root", 0, new bytes32[](0));
        policies.allowImage(cluster, "b", "root", 0, new bytes32[](0));
        policies.allowImage(cluster, "c", "root", 0, new bytes32[](0));
        (restricted, listed) = policies.allowedImages(cluster);
        check(!restricted && listed.length == 0, "announced only");
        vm.warp(policies.imageOf(cluster, "c").allowedFrom);
        (, listed) = policies.allowedImages(cluster);
        check(
            listed.length == 3 && listed[0].manifest == "a" && listed[2].manifest == "c", "allowed"
        );
        policies.revokeImage(cluster, "a");
        (, listed) = policies.allowedImages(cluster);
        check(
            listed.length == 2 && listed[0].manifest == "c" && listed[1].manifest == "b", "revoked"
        );
        policies.revokeImage(cluster, "b");
        policies.revokeImage(cluster, "c");
        (restricted, listed) = policies.allowedImages(cluster);
        check(restricted && listed.length == 0, "restricted still");
        policies.allowImage(cluster, "b", "root", 0, new bytes32[](0));
        vm.warp(policies.imageOf(cluster, "b").allowedFrom);
        (, listed) = policies.allowedImages(cluster);
        check(listed.length == 1 && listed[0].manifest == "b", "allowed again");
    }

    function test_the_list_of_images_is_bounded() external {
        uint256 max = policies.MAX_IMAGES();
        for (uint256 i = 1; i <= max; ++i) {
            policies.allowImage(cluster, bytes32(i), "root", 0, new bytes32[](0));
        }
        vm.expectPartialRevert(IPolicyRegistry.TooManyImages.selector);
        policies.allowImage(cluster, "one more", "root", 0, new bytes32[](0));
        policies.revokeImage(cluster, bytes32(uint256(7)));
        policies.allowImage(cluster, "one more", "root", 0, new bytes32[](0));
    }

    /// @dev protocol-spec/vectors/images.json: the Rust crate makes the tree, the contract checks it.
    function test_parts_of_an_image_are_proved_as_the_rust_crate_commits_to_them() external {
        string memory json = vm.readFile("../protocol-spec/vectors/images.json");
        bytes32 root = vm.parseJsonBytes32(json, ".root");
        bytes32 manifest = vm.parseJsonBytes32(json, ".manifest");
        policies.allowImage(cluster, manifest, root, 0, new bytes32[](0));
        vm.warp(block.timestamp + DELAY);
        for (uint256 i = 0; i < 5; ++i) {
            string memory place = string.concat(".parts[", vm.toString(i), "]");
            IPolicyRegistry.ImagePart part =
                IPolicyRegistry.ImagePart(vm.parseJsonUint(json, string.concat(place, ".kind")));
            bytes32 digest = vm.parseJsonBytes32(json, string.concat(place, ".digest"));
            bytes32[] memory proof = vm.parseJsonBytes32Array(json, string.concat(place, ".proof"));
            bytes32 leaf = vm.parseJsonBytes32(json, string.concat(place, ".leaf"));
            check(policies.imageLeaf(part, digest) == leaf, "leaf");
            check(policies.verifyImagePart(cluster, manifest, part, digest, proof), "included");
            check(!policies.verifyImagePart(cluster, manifest, part, root, proof), "another part");
            IPolicyRegistry.ImagePart other = IPolicyRegistry.ImagePart((uint8(part) + 1) % 3);
            check(!policies.verifyImagePart(cluster, manifest, other, digest, proof), "kind");
        }
        policies.revokeImage(cluster, manifest);
        bytes32 first = vm.parseJsonBytes32(json, ".parts[0].digest");
        bytes32[] memory path = vm.parseJsonBytes32Array(json, ".parts[0].proof");
        check(
            !policies.verifyImagePart(
                cluster, manifest, IPolicyRegistry.ImagePart.Config, first, path
            ),
            "revoked"
        );
    }
}
