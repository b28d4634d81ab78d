// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {VeilContract} from "../src/VeilContract.sol";
import {IAssignmentAnchor} from "../src/interfaces/IAssignmentAnchor.sol";
import {IDirectory} from "../src/interfaces/IDirectory.sol";
import {IKeyCeremony} from "../src/interfaces/IKeyCeremony.sol";
import {INodeRegistry} from "../src/interfaces/INodeRegistry.sol";
import {IVeilContract} from "../src/interfaces/IVeilContract.sol";
import {BlockProof} from "../src/libraries/BlockProof.sol";
import {Base} from "./Base.sol";
import {Signer} from "./Signer.sol";

/// @dev What is internal, for calldata.
contract Inside is VeilContract {
    constructor(address directory_) VeilContract(directory_) {}

    function signer(bytes32 digest, CompactSignature calldata signature)
        external
        view
        returns (address)
    {
        return _signer(digest, signature);
    }

    function isSignedBy(address by, bytes32 digest, CompactSignature calldata signature)
        external
        view
        returns (bool)
    {
        return _isSignedBy(by, digest, signature);
    }

    function prevRandao(bytes calldata header) external pure returns (bool, bytes32) {
        return BlockProof.prevRandao(header);
    }
}

/// @dev One step beyond each bound, and on it.
contract EdgesTest is Base {
    uint256 private constant HALF_N =
        0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    /// @dev The precompile takes a high s; Veil does not. What nobody signed is not the zero address's.
    function test_high_s_recovers_nobody() external {
        Inside inside = new Inside(address(directory));
        (bytes32 digest, bytes32 r) = (keccak256("digest"), bytes32(identityKey(5).x));
        address high = ecrecover(digest, 27, r, bytes32(HALF_N + 1));
        check(high != address(0), "it is a signature of somebody");
        IVeilContract.CompactSignature memory s =
            IVeilContract.CompactSignature(r, bytes32(HALF_N + 1));
        check(inside.signer(digest, s) == address(0), "high");
        s.vs = bytes32(HALF_N);
        address low = ecrecover(digest, 27, r, bytes32(HALF_N));
        check(inside.signer(digest, s) == low && low != address(0), "low");
        s.r = 0;
        check(inside.signer(digest, s) == address(0), "nobody");
        check(!inside.isSignedBy(address(0), digest, s), "nor zero's");
    }

    /// @dev What does not count in elections yet is slashed with the rest, after it.
    function test_added_stake_is_slashed_after_the_active() external {
        registerMembers();
        publish(0, GROUP, 0);
        bytes32 peer = peerOf(1);
        registry.increaseStake{value: 3 ether}(cluster, peer);
        publish(1, GROUP + 1, GROUP);
        publish(2, GROUP + 2, GROUP + 1);
        registry.increaseStake{value: 2 ether}(cluster, peer);
        vm.prank(address(disputes));
        check(registry.slash(cluster, peer, 4 ether) == 4 ether, "taken");
        INodeRegistry.Stake memory stake = registry.stakeOf(cluster, peer);
        check(stake.active == 0 && stake.added == 1 ether, "the active first");
        vm.prank(address(disputes));
        check(registry.slash(cluster, peer, 4 ether) == 1 ether, "what is left");
        check(address(registry).balance == 0, "all of it");
    }

    function test_only_the_registry_pays_the_disputes_contract() external {
        vm.deal(STRANGER, 1 ether);
        vm.prank(STRANGER);
        (bool taken, bytes memory why) = address(disputes).call{value: 1}("");
        check(!taken && bytes4(why) == IVeilContract.NotContract.selector, "from a stranger");
        vm.deal(address(registry), 1 ether);
        vm.prank(address(registry));
        (taken,) = address(disputes).call{value: 1}("");
        check(taken, "from the registry");
    }

    function test_who_may_pause_and_name_the_guardian() external {
        vm.prank(GUARDIAN);
        vm.expectPartialRevert(bytes4(keccak256("OwnableUnauthorizedAccount(address)")));
        directory.setGuardian(GUARDIAN);
        directory.pause(); // its owner
        vm.prank(STRANGER);
        vm.expectPartialRevert(IDirectory.NotGuardian.selector);
        directory.unpause();
        directory.unpause();
        check(directory.pausedUntil() == 0, "no longer");
        directory.setGuardian(STRANGER);
        check(directory.guardian() == STRANGER, "named");
    }

    function test_only_governance_withdraws_a_succession() external {
        registerMembers();
        publish(0, GROUP, 0);
        ceremony.announceSuccession(cluster, 1);
        vm.prank(STRANGER);
        vm.expectPartialRevert(IVeilContract.NotGovernance.selector);
        ceremony.withdrawSuccession(cluster, 1);
    }

    function test_the_id_of_a_cluster_names_its_chain() external {
        bytes32 here = registry.clusterId(address(this), 0);
        vm.chainId(block.chainid + 1);
        check(registry.clusterId(address(this), 0) != here, "another chain");
    }

    function test_a_deadline_is_in_the_future_and_within_a_week() external {
        registerMembers();
        IKeyCeremony.Proposal memory p = proposal(0, 0);
        p.deadline = uint64(block.timestamp);
        proposeRefused(p, IKeyCeremony.InvalidDeadline.selector);
        p.deadline = uint64(block.timestamp) + 7 days + 1;
        proposeRefused(p, IKeyCeremony.InvalidDeadline.selector);
        p.deadline = uint64(block.timestamp) + 1;
        propose(p);
        vm.warp(p.deadline);
        check(ceremony.isOpen(cluster, 0), "still");
        vm.warp(p.deadline + 1);
        check(!ceremony.isOpen(cluster, 0), "no longer");
    }

    /// @dev A group of an earlier epoch that signed twice is suspended; the one in force goes on.
    function test_suspending_an_old_group_stops_no_other() external {
        registerMembers();
        publish(0, GROUP, 0);
        publish(1, GROUP + 1, GROUP);
        vm.prank(address(disputes));
        ceremony.suspend(cluster, 0);
        check(ceremony.isSuspended(cluster, 0), "suspended");
        IAssignmentAnchor.Certificate memory c;
        (c.cluster, c.epoch, c.slot) = (cluster, 1, 1);
        (c.keySet, c.referenceStringOrigin) = (keccak256("key set"), 0);
        bytes32 hash = anchors.hashOf(c);
        anchors.anchor(c, Signer.key(GROUP + 1), Signer.sign(GROUP + 1, hash));
        check(anchors.headOf(cluster).epoch == 1, "the head's epoch");
        vm.prank(address(disputes));
        ceremony.suspend(cluster, 1);
        check(ceremony.verificationHash(cluster) == 0, "this one is in force");
        vm.prank(address(disputes));
        vm.expectPartialRevert(IKeyCeremony.NoKey.selector);
        ceremony.suspend(cluster, 2);
    }

    /// @dev What found no place is confirmed by nobody, whatever peer it names.
    function test_a_pending_assignment_is_not_confirmed() external {
        registerMembers();
        publish(0, GROUP, 0);
        bytes32 worker = register(9, WORKER);
        IAssignmentAnchor.Assignment memory pending =
            IAssignmentAnchor.Assignment("job", 0, 0, worker);
        IAssignmentAnchor.Certificate[] memory chain = new IAssignmentAnchor.Certificate[](1);
        (chain[0].cluster, chain[0].slot) = (cluster, 1);
        (chain[0].keySet, chain[0].referenceStringOrigin) = (keccak256("key set"), 0);
        chain[0].assignmentsRoot = anchors.leafOf(pending);
        bytes32 hash = anchors.hashOf(chain[0]);
        anchors.anchor(chain[0], Signer.key(GROUP), Signer.sign(GROUP, hash));
        vm.expectPartialRevert(IAssignmentAnchor.NoSuchWorker.selector);
        anchors.confirmDeployment(chain, pending, new bytes32[](0));
    }

    function test_bounds_of_a_registration() external {
        INodeRegistry.Registration memory node = registration(1, 0);
        IVeilContract.CompactSignature memory none;
        vm.expectPartialRevert(INodeRegistry.UnknownRoles.selector);
        registry.register(node, none);
        node.roles = 4;
        vm.expectPartialRevert(INodeRegistry.UnknownRoles.selector);
        registry.register(node, none);
        node.roles = 3;
        node.labels = string(new bytes(1025));
        vm.expectPartialRevert(INodeRegistry.LabelsTooLong.selector);
        registry.register(node, none);
        node.labels = string(new bytes(1024));
        register(node, 1, 0);
    }

    function test_a_peer_registers_255_times() external {
        for (uint256 i = 0; i < 255; ++i) {
            register(1, WORKER);
            registry.requestExit(cluster, peerOf(1));
        }
        INodeRegistry.Registration memory node = registration(1, WORKER);
        IVeilContract.CompactSignature memory signature =
            compact(1, registrationDigest(node, peerOf(1), address(this), 255));
        vm.expectPartialRevert(INodeRegistry.TooManyRegistrations.selector);
        registry.register(node, signature);
    }

    /// @dev Lists of 13 fields of all forms, and the 14th.
    function test_prevrandao_is_the_fourteenth_field() external {
        Inside inside = new Inside(address(directory));
        bytes memory random = bytes.concat(hex"a0", bytes32("random"));
        bytes memory short = hex"80808080808080808080807f80"; // the byte itself, too
        bytes memory long = bytes.concat(
            hex"8080808080808080808080", hex"b7", new bytes(55), hex"b838", new bytes(56)
        );
        bytes memory longer =
            bytes.concat(hex"808080808080808080808080", hex"b90100", new bytes(256));
        has(inside, bytes.concat(hex"ee", short, random));
        has(inside, bytes.concat(hex"f89e", long, random));
        has(inside, bytes.concat(hex"f90130", longer, random));
        // One field fewer or more, another length of it, cut off, no list.
        lacks(inside, bytes.concat(hex"ed", hex"808080808080808080808080", random));
        lacks(inside, bytes.concat(hex"ef80", short, random));
        lacks(inside, bytes.concat(hex"ed", short, hex"9f", new bytes(31)));
        lacks(inside, bytes.concat(hex"ee", short, hex"a0", new bytes(31)));
        lacks(inside, bytes.concat(hex"be", short, random));
        lacks(inside, bytes.concat(hex"ee", hex"c0808080808080808080808080", random));
        lacks(inside, hex"f9");
        lacks(inside, bytes.concat(hex"f8", hex"8080808080808080808080b8"));
        lacks(inside, bytes.concat(hex"f8", hex"8080808080808080808080b901"));
    }

    function has(Inside inside, bytes memory header) private pure {
        (bool is_, bytes32 value) = inside.prevRandao(header);
        check(is_ && value == bytes32("random"), "found");
    }

    function lacks(Inside inside, bytes memory header) private pure {
        (bool is_,) = inside.prevRandao(header);
        check(!is_, "no such field");
    }
}
