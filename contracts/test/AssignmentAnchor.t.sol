// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAssignmentAnchor} from "../src/interfaces/IAssignmentAnchor.sol";
import {IVeilContract} from "../src/interfaces/IVeilContract.sol";
import {Certificates} from "../src/libraries/Certificates.sol";
import {Base} from "./Base.sol";
import {Signer} from "./Signer.sol";

contract AssignmentAnchorTest is Base {
    function setUp() public override {
        super.setUp();
        registerMembers();
        publish(0, GROUP, 0);
    }

    /// @dev To be anchored on `base`; the one before it is another, which was not anchored.
    function certificate(uint64 slot, bytes32 base)
        private
        view
        returns (IAssignmentAnchor.Certificate memory)
    {
        return IAssignmentAnchor.Certificate({
            cluster: cluster,
            epoch: 0,
            keySet: keccak256("key set"),
            slot: slot,
            manifest: keccak256("manifest"),
            previous: keccak256("not anchored"),
            base: base,
            jobsSeen: 3,
            evaluation: keccak256("evaluation"),
            membersOnly: 0,
            assignmentsRoot: keccak256("root"),
            stateRoot: keccak256("state"),
            referenceStringOrigin: 0
        });
    }

    function anchor(IAssignmentAnchor.Certificate memory c) private returns (bytes32 hash) {
        hash = anchors.hashOf(c);
        anchorBy(GROUP, c, hash);
    }

    function anchorBy(uint256 secret, IAssignmentAnchor.Certificate memory c, bytes32 hash)
        private
    {
        anchors.anchor(c, Signer.key(secret), Signer.sign(secret, hash));
    }

    /// @dev External, so that the library gets calldata.
    function digest(uint256 chain, address to, IAssignmentAnchor.Certificate calldata c)
        external
        pure
        returns (bytes32)
    {
        return Certificates.digest(chain, to, c);
    }

    function word(string memory json, string memory key) private pure returns (bytes32) {
        return vm.parseBytes32(string.concat("0x", vm.parseJsonString(json, key)));
    }

    /// @dev protocol-spec/vectors/scheduling.json; the values are those of its generator.
    function test_digests_are_those_of_the_rust_crate() external view {
        string memory json = vm.readFile("../protocol-spec/vectors/scheduling.json");
        IAssignmentAnchor.Certificate memory c = IAssignmentAnchor.Certificate({
            cluster: bytes32(uint256(0x22) * (type(uint256).max / 255)),
            epoch: 4,
            keySet: bytes32(uint256(0x33) * (type(uint256).max / 255)),
            slot: 7,
            manifest: word(json, ".manifest.digest"),
            previous: bytes32(uint256(0x77) * (type(uint256).max / 255)),
            base: bytes32(uint256(0x7b) * (type(uint256).max / 255)),
            jobsSeen: 300,
            evaluation: bytes32(uint256(0xee) * (type(uint256).max / 255)),
            membersOnly: 0,
            assignmentsRoot: word(json, ".assignments.root"),
            stateRoot: bytes32(uint256(0xdd) * (type(uint256).max / 255)),
            referenceStringOrigin: 0
        });
        address to = address(uint160(0x11) * (type(uint160).max / 255));
        bytes32 expected = word(json, ".assignment_certificate.signing_digest");
        check(this.digest(31337, to, c) == expected, "certificate");
        c.evaluation = 0;
        c.assignmentsRoot = 0;
        expected = word(json, ".assignment_certificate.signing_digest_of_void");
        check(this.digest(31337, to, c) == expected, "void");

        IAssignmentAnchor.Assignment memory placed = IAssignmentAnchor.Assignment(
            word(json, ".job_spec.digest"), 0, 1, word(json, ".telemetry.sender")
        );
        check(anchors.leafOf(placed) == word(json, ".assignments.leaves[0]"), "placed");
        IAssignmentAnchor.Assignment memory pending =
            IAssignmentAnchor.Assignment(word(json, ".job_spec.digest"), 1, 0, 0);
        check(anchors.leafOf(pending) == word(json, ".assignments.leaves[1]"), "pending");

        IAssignmentAnchor.Replica memory replica = IAssignmentAnchor.Replica(
            word(json, ".job_spec.digest"), 1, 0, word(json, ".telemetry.sender"), 7, 0
        );
        check(anchors.replicaLeafOf(replica) == word(json, ".replica_leaf.hash"), "replica");
        replica.flags = 1;
        bytes32 done = word(json, ".replica_leaf.hash_of_done");
        check(anchors.replicaLeafOf(replica) == done, "replica that is done");
    }

    function testFuzz_reserved_parts_of_a_leaf_are_zero(uint8 form, uint8 flags) external {
        IAssignmentAnchor.Replica memory replica =
            IAssignmentAnchor.Replica("job", 0, form, "worker", 1, flags);
        if (form != 0 || flags > 1) {
            vm.expectRevert(
                abi.encodeWithSelector(IAssignmentAnchor.ReservedInLeaf.selector, form, flags)
            );
        }
        anchors.replicaLeafOf(replica);
    }

    function test_gas_of_anchor() external {
        IAssignmentAnchor.Certificate memory c = certificate(1, 0);
        bytes32 hash = anchors.hashOf(c);
        anchorBy(GROUP, c, hash);
        vm.snapshotGasLastCall("AssignmentAnchor", "anchor, first");
        c = certificate(2, hash);
        hash = anchors.hashOf(c);
        anchorBy(GROUP, c, hash);
        vm.snapshotGasLastCall("AssignmentAnchor", "anchor, second to 64th");
        check(anchors.headOf(cluster).count == 2, "count");
        // When all places for heads are used.
        for (uint64 slot = 3; slot <= 65; ++slot) {
            c = certificate(slot, hash);
            hash = anchors.hashOf(c);
            anchorBy(GROUP, c, hash);
        }
        vm.snapshotGasLastCall("AssignmentAnchor", "anchor, later");
    }

    /// @dev The sequence strictly increases, whatever slots are tried.
    function testFuzz_slots_strictly_increase(uint8[8] calldata slots) external {
        bytes32 head = 0;
        uint64 last = 0;
        uint64 count = 0;
        for (uint256 i = 0; i < slots.length; ++i) {
            IAssignmentAnchor.Certificate memory c = certificate(slots[i], head);
            bytes32 hash = anchors.hashOf(c);
            if (slots[i] <= last) {
                vm.expectRevert(
                    abi.encodeWithSelector(
                        IAssignmentAnchor.SlotNotLater.selector, uint64(slots[i]), last
                    )
                );
                anchorBy(GROUP, c, hash);
                continue;
            }
            anchorBy(GROUP, c, hash);
            (head, last, count) = (hash, slots[i], count + 1);
        }
        IAssignmentAnchor.Head memory found = anchors.headOf(cluster);
        check(found.hash == head && found.slot == last && found.count == count, "head");
    }

    function testFuzz_only_the_group_of_the_epoch_anchors(uint256 secret) external {
        secret = secret % 1e18 + 1;
        vm.assume(secret != GROUP);
        IAssignmentAnchor.Certificate memory c = certificate(1, 0);
        bytes32 hash = anchors.hashOf(c);
        vm.expectPartialRevert(IAssignmentAnchor.WrongGroupKey.selector);
        anchorBy(secret, c, hash);
        IVeilContract.CompressedPoint memory key = Signer.key(GROUP);
        IVeilContract.FrostSignature memory signature = Signer.sign(secret, hash);
        vm.expectRevert(abi.encodeWithSelector(IAssignmentAnchor.WrongGroupSignature.selector));
        anchors.anchor(c, key, signature);
    }

    function test_a_signature_is_good_for_one_chain() external {
        IAssignmentAnchor.Certificate memory c = certificate(1, 0);
        bytes32 hash = anchors.hashOf(c);
        vm.chainId(5);
        vm.expectRevert(abi.encodeWithSelector(IAssignmentAnchor.WrongGroupSignature.selector));
        anchorBy(GROUP, c, hash);
    }

    function test_what_the_certificate_states_must_be_in_force() external {
        IAssignmentAnchor.Certificate memory c = certificate(1, "elsewhere");
        bytes32 hash = anchors.hashOf(c);
        vm.expectPartialRevert(IAssignmentAnchor.WrongBase.selector);
        anchorBy(GROUP, c, hash);
        c = certificate(1, 0);
        c.epoch = 1;
        vm.expectPartialRevert(IAssignmentAnchor.EpochNotInForce.selector);
        anchorBy(GROUP, c, hash);
        c = certificate(1, 0);
        c.keySet = "other";
        vm.expectPartialRevert(IAssignmentAnchor.WrongKeySet.selector);
        anchorBy(GROUP, c, hash);
        c = certificate(1, 0);
        c.referenceStringOrigin = 1;
        vm.expectPartialRevert(IAssignmentAnchor.WrongReferenceStringOrigin.selector);
        anchorBy(GROUP, c, hash);
    }

    function test_an_old_key_never_anchors() external {
        bytes32 first = anchor(certificate(1, 0));
        publish(1, GROUP + 1, GROUP);
        IAssignmentAnchor.Certificate memory c = certificate(2, first);
        bytes32 hash = anchors.hashOf(c);
        vm.expectPartialRevert(IAssignmentAnchor.EpochNotInForce.selector);
        anchorBy(GROUP, c, hash);
        c.epoch = 1;
        hash = anchors.hashOf(c);
        vm.expectPartialRevert(IAssignmentAnchor.WrongGroupKey.selector);
        anchorBy(GROUP, c, hash);
        anchorBy(GROUP + 1, c, hash);
    }

    /// @dev Three slots began before the first of them was anchored: the other two can no longer be,
    /// but the next one carries on from it, and they are proved through their links.
    function test_slots_are_skipped_and_stay_provable() external {
        IAssignmentAnchor.Certificate[] memory chain = new IAssignmentAnchor.Certificate[](3);
        IAssignmentAnchor.Certificate memory first = certificate(1, 0);
        bytes32 head = anchors.hashOf(first);
        bytes32 leaf = keccak256("leaf");
        (chain[0], chain[1]) = (certificate(2, 0), certificate(3, 0));
        (chain[0].previous, chain[0].assignmentsRoot) = (head, leaf);
        // The third of them ended void.
        (chain[1].evaluation, chain[1].assignmentsRoot) = (0, 0);
        chain[1].previous = anchors.hashOf(chain[0]);
        anchor(first);
        for (uint256 i = 0; i < 2; ++i) {
            bytes32 hash = anchors.hashOf(chain[i]);
            vm.expectRevert(
                abi.encodeWithSelector(IAssignmentAnchor.WrongBase.selector, bytes32(0), head)
            );
            anchorBy(GROUP, chain[i], hash);
        }
        bytes32[] memory proof = new bytes32[](0);
        vm.expectPartialRevert(IAssignmentAnchor.NotAnchored.selector);
        anchors.verifyInclusion(chain, leaf, proof);

        chain[2] = certificate(9, head);
        chain[2].previous = anchors.hashOf(chain[1]);
        head = anchor(chain[2]);
        IAssignmentAnchor.Head memory found = anchors.headOf(cluster);
        check(found.hash == head && found.slot == 9 && found.count == 2, "head");
        check(anchors.verifyInclusion(chain, leaf, proof), "proved");
    }

    function test_a_void_slot_is_anchored_like_any_other() external {
        IAssignmentAnchor.Certificate memory c = certificate(1, 0);
        (c.evaluation, c.assignmentsRoot) = (0, 0);
        check(anchors.headOf(cluster).hash == 0, "none yet");
        bytes32 hash = anchor(c);
        check(anchors.headOf(cluster).hash == hash, "head");
    }

    function test_deployments_are_confirmed_by_their_workers_operator() external {
        bytes32 worker = register(9, WORKER);
        IAssignmentAnchor.Assignment memory placed =
            IAssignmentAnchor.Assignment("job", 0, 1, worker);
        bytes32 leaf = anchors.leafOf(placed);
        bytes32 sibling = keccak256("sibling");
        IAssignmentAnchor.Certificate memory c = certificate(1, 0);
        c.assignmentsRoot = leaf < sibling
            ? keccak256(abi.encode(leaf, sibling))
            : keccak256(abi.encode(sibling, leaf));
        IAssignmentAnchor.Certificate memory next = certificate(2, anchor(c));
        next.previous = next.base;
        anchor(next);
        IAssignmentAnchor.Certificate[] memory chain = new IAssignmentAnchor.Certificate[](2);
        (chain[0], chain[1]) = (c, next);
        bytes32[] memory proof = new bytes32[](1);
        proof[0] = sibling;
        check(anchors.verifyInclusion(chain, leaf, proof), "included");
        check(!anchors.verifyInclusion(chain, sibling, new bytes32[](0)), "not included");

        vm.expectPartialRevert(IAssignmentAnchor.UnprovenAssignment.selector);
        anchors.anchorDeployment(leaf);
        bytes32 id = keccak256(abi.encode(cluster, anchors.hashOf(c), leaf));
        vm.prank(address(0xbad));
        check(anchors.proveAssignment(chain, placed, proof) == id, "id");
        vm.prank(address(0xbad));
        vm.expectPartialRevert(IAssignmentAnchor.NotWorkerOperator.selector);
        anchors.anchorDeployment(id);
        check(anchors.anchorDeployment(id), "confirmed");
        vm.expectPartialRevert(IAssignmentAnchor.AlreadyConfirmed.selector);
        anchors.anchorDeployment(id);
        vm.expectPartialRevert(IAssignmentAnchor.AlreadyConfirmed.selector);
        anchors.confirmDeployment(chain, placed, proof);

        chain[0].stateRoot = 0;
        vm.expectPartialRevert(IAssignmentAnchor.NotAnchored.selector);
        anchors.proveAssignment(chain, placed, proof);
    }
}
