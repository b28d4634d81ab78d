// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAssignmentAnchor} from "../src/interfaces/IAssignmentAnchor.sol";
import {IJobBoard} from "../src/interfaces/IJobBoard.sol";
import {IKeyCeremony} from "../src/interfaces/IKeyCeremony.sol";
import {INodeRegistry} from "../src/interfaces/INodeRegistry.sol";
import {IVeilContract} from "../src/interfaces/IVeilContract.sol";
import {Base} from "./Base.sol";
import {Signer} from "./Signer.sol";

/// @dev Attacks on jobs, certificates, confirmations and images. Each was possible once.
contract AttacksWorkTest is Base {
    address private constant EVE = address(0xe0e);

    function certificate(uint64 epoch, uint64 slot, bytes32 base)
        private
        view
        returns (IAssignmentAnchor.Certificate memory c)
    {
        c.cluster = cluster;
        c.epoch = epoch;
        c.keySet = keccak256("key set");
        c.slot = slot;
        (c.base, c.previous) = (base, base);
        c.referenceStringOrigin = 0;
    }

    function anchor(uint256 group, IAssignmentAnchor.Certificate memory c)
        private
        returns (bytes32 hash)
    {
        hash = anchors.hashOf(c);
        anchors.anchor(c, Signer.key(group), Signer.sign(group, hash));
    }

    function worker(bytes32 of_, uint256 secret) private {
        INodeRegistry.Registration memory node = registration(secret, WORKER);
        (node.cluster, node.organisation) = (of_, 0);
        IVeilContract.CompactSignature memory signature =
            compact(secret, registrationDigest(node, peerOf(secret), EVE, 0));
        registerAs(EVE, node, signature);
    }

    /// @dev A worker confirmed, by a certificate of its own cluster, what another one never assigned.
    function test_a_confirmation_is_of_one_cluster() external {
        registerMembers();
        publish(0, GROUP, 0);
        worker(cluster, 50);
        bytes32 victim = cluster;
        IAssignmentAnchor.Assignment memory fake =
            IAssignmentAnchor.Assignment("job of the victim cluster", 0, 1, peerOf(50));
        bytes32 leaf = anchors.leafOf(fake);
        bytes32 own = clusterOfOne();
        cluster = own;
        worker(own, 50);
        IAssignmentAnchor.Certificate[] memory chain = new IAssignmentAnchor.Certificate[](1);
        chain[0] = certificate(0, 1, 0);
        chain[0].assignmentsRoot = leaf;
        bytes32 hash = anchor(777, chain[0]);
        vm.prank(EVE);
        bytes32 id = anchors.confirmDeployment(chain, fake, new bytes32[](0));
        check(id == keccak256(abi.encode(own, hash, leaf)), "of her own cluster, and says so");
        check(id != keccak256(abi.encode(victim, hash, leaf)), "not of the victim's");
        chain[0].cluster = victim;
        vm.prank(EVE);
        vm.expectPartialRevert(IAssignmentAnchor.NotAnchored.selector);
        anchors.confirmDeployment(chain, fake, new bytes32[](0));
    }

    /// @dev A cluster of EVE's, with a committee of one and its key.
    function clusterOfOne() private returns (bytes32 own) {
        INodeRegistry.Settings memory given = settings();
        (given.committeeSize, given.standbys) = (1, 0);
        vm.prank(EVE);
        own = registry.registerCluster("mine", given);
        INodeRegistry.Registration memory node = registration(51, MEMBER);
        node.cluster = own;
        IVeilContract.CompactSignature memory signature =
            compact(51, registrationDigest(node, peerOf(51), EVE, 0));
        registerAs(EVE, node, signature);
        IVeilContract.Point[] memory keys = new IVeilContract.Point[](1);
        keys[0] = identityKey(51);
        IKeyCeremony.Proposal memory given_ = proposal(0, 0);
        given_.cluster = own;
        vm.prank(EVE);
        ceremony.propose(given_, keys);
        IKeyCeremony.Publication memory p = publication(0, 0, 777);
        p.cluster = own;
        IVeilContract.CompactSignature[] memory members = new IVeilContract.CompactSignature[](1);
        members[0] = compact(51, typedDigest(publicationHash(p)));
        ceremony.publish(p, members, Signer.sign(777, possessionDigest(p)));
    }

    /// @dev Each slot that was anchored made every confirmation under way void.
    function test_a_confirmation_outlives_the_next_heads() external {
        registerMembers();
        publish(0, GROUP, 0);
        worker(cluster, 50);
        IAssignmentAnchor.Assignment memory placed =
            IAssignmentAnchor.Assignment("job", 0, 1, peerOf(50));
        IAssignmentAnchor.Certificate[] memory chain = new IAssignmentAnchor.Certificate[](1);
        chain[0] = certificate(0, 1, 0);
        chain[0].assignmentsRoot = anchors.leafOf(placed);
        bytes32 head = anchor(GROUP, chain[0]);
        for (uint64 slot = 2; slot <= 64; ++slot) {
            head = anchor(GROUP, certificate(0, slot, head));
        }
        check(anchors.isAnchored(chain), "the oldest of 64");
        uint256 before = vm.snapshotState();
        anchor(GROUP, certificate(0, 65, head));
        check(!anchors.isAnchored(chain), "one more");
        vm.prank(EVE);
        vm.expectPartialRevert(IAssignmentAnchor.NotAnchored.selector);
        anchors.confirmDeployment(chain, placed, new bytes32[](0));
        vm.revertToState(before);
        vm.prank(EVE);
        anchors.confirmDeployment(chain, placed, new bytes32[](0));
        vm.prank(EVE);
        vm.expectPartialRevert(IAssignmentAnchor.AlreadyConfirmed.selector);
        anchors.confirmDeployment(chain, placed, new bytes32[](0));
    }

    function test_gas_of_a_confirmation() external {
        registerMembers();
        publish(0, GROUP, 0);
        worker(cluster, 50);
        IAssignmentAnchor.Assignment memory placed =
            IAssignmentAnchor.Assignment("job", 0, 1, peerOf(50));
        IAssignmentAnchor.Certificate[] memory chain = new IAssignmentAnchor.Certificate[](1);
        chain[0] = certificate(0, 1, 0);
        chain[0].assignmentsRoot = anchors.leafOf(placed);
        anchor(GROUP, chain[0]);
        vm.prank(EVE);
        anchors.confirmDeployment(chain, placed, new bytes32[](0));
        vm.snapshotGasLastCall("AssignmentAnchor", "confirmation");
    }

    /// @dev A next key, published by anybody, orphaned what was signed and not anchored yet.
    function test_a_published_key_orphans_nothing() external {
        registerMembers();
        publish(0, GROUP, 0);
        IAssignmentAnchor.Certificate memory c = certificate(0, 1, 0);
        propose(proposal(1, 0));
        IKeyCeremony.Publication memory p = publication(1, 0, GROUP + 1);
        p.cluster = cluster;
        publishReady(p, GROUP + 1);
        IVeilContract.FrostSignature memory early = Signer.sign(GROUP, handoverDigest(p));
        bytes32 hash = anchor(GROUP, c);
        // What was signed before it names another head than there is.
        vm.expectPartialRevert(IKeyCeremony.NotTheHead.selector);
        ceremony.activate(cluster, 1, 0, early);
        vm.expectRevert(abi.encodeWithSelector(IKeyCeremony.WrongHandoverSignature.selector));
        ceremony.activate(cluster, 1, hash, early);
        ceremony.activate(cluster, 1, hash, Signer.sign(GROUP, handoverDigest(p)));
        anchor(GROUP + 1, certificate(1, 2, hash));
    }

    /// @dev Whoever listed a copy of the digest first and cancelled it killed the job.
    function test_a_copied_digest_is_another_job() external {
        allow(STRANGER, 10, 10);
        allow(EVE, 10, 10);
        vm.prank(EVE);
        uint64 copy = board.submit(cluster, "the victim's job", 0, 1);
        vm.prank(EVE);
        board.cancel(cluster, copy);
        vm.prank(STRANGER);
        uint64 own = board.submit(cluster, "the victim's job", 0, 1);
        IJobBoard.Job[] memory jobs = board.jobs(cluster, 0, 10);
        check(jobs[copy].cancelled && jobs[copy].operator == EVE, "hers");
        check(!jobs[own].cancelled && jobs[own].operator == STRANGER, "not the victim's");
        vm.prank(EVE);
        vm.expectPartialRevert(IJobBoard.NotSubmitter.selector);
        board.cancel(cluster, own);
        vm.prank(EVE);
        vm.expectPartialRevert(IJobBoard.AlreadySubmitted.selector);
        board.submit(cluster, "the victim's job", 1, 1);
        // The admin may stop any.
        board.cancel(cluster, own);
        check(board.jobs(cluster, own, 1)[0].cancelled, "cancelled");
    }

    /// @dev One account filled the queue for all; now what one uses up is its own.
    function test_nobody_uses_up_what_others_may_submit() external {
        allow(EVE, 64, 64);
        allow(STRANGER, 1, 1);
        for (uint64 i = 0; i < 64; ++i) {
            vm.prank(EVE);
            board.submit(cluster, keccak256(abi.encode("junk", i)), i, 1);
        }
        vm.prank(EVE);
        vm.expectPartialRevert(IJobBoard.QuotaExceeded.selector);
        board.submit(cluster, "one more", 64, 1);
        vm.prank(STRANGER);
        board.submit(cluster, "another's", 0, 1);
    }

    /// @dev One announced image closed a cluster to all others at once, before it was allowed itself.
    function test_an_announcement_forbids_nothing_yet() external {
        INodeRegistry.Settings memory given = settings();
        given.wideningDelay = 2 days;
        cluster = registry.registerCluster("images", given);
        vm.warp(block.timestamp + 2 days);
        policies.allowImage(cluster, "bogus", "root", 0, new bytes32[](0));
        check(policies.isImageAllowed(cluster, "running"), "what runs, runs");
        check(policies.restrictedFrom(cluster) == block.timestamp + 2 days, "until then");
        vm.warp(block.timestamp + 2 days - 1);
        check(policies.isImageAllowed(cluster, "running"), "still");
        vm.warp(block.timestamp + 1);
        check(!policies.isImageAllowed(cluster, "running"), "announced for two days");
        check(policies.isImageAllowed(cluster, "bogus"), "and this is allowed");
    }
}
