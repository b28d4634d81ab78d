// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ICommitteeElection} from "../src/interfaces/ICommitteeElection.sol";
import {IKeyCeremony} from "../src/interfaces/IKeyCeremony.sol";
import {INodeRegistry} from "../src/interfaces/INodeRegistry.sol";
import {IVeilContract} from "../src/interfaces/IVeilContract.sol";
import {Base} from "./Base.sol";
import {Headers} from "./Headers.sol";

/// @dev Attacks on who sits in a committee. Each was possible once.
contract AttacksElectionTest is Base {
    address private constant ADMIN = address(0xad);
    address private constant EVE = address(0xe0e);
    uint64 private constant WINDOW = 1 days;

    function window() internal pure override returns (uint64) {
        return WINDOW;
    }

    function elected(uint8 standbys, uint8 limit) private {
        INodeRegistry.Settings memory given = settings();
        (given.elected, given.standbys, given.seatsPerOrganisation) = (true, standbys, limit);
        vm.prank(ADMIN);
        cluster = registry.registerCluster("elected", given);
    }

    /// @dev The node of `secret`, of that operator, approved by the admin.
    function admit(uint256 secret, address operator, uint256 stake) private {
        vm.prank(ADMIN);
        registry.approve(cluster, peerOf(secret), approval(operator, MEMBER));
        INodeRegistry.Registration memory node = registration(secret, MEMBER);
        IVeilContract.CompactSignature memory signature =
            compact(secret, registrationDigest(node, peerOf(secret), operator, 0));
        vm.deal(operator, stake);
        vm.prank(operator);
        registry.register{value: stake}(node, signature);
    }

    /// @dev From the request to the draw.
    /// @return list The secrets of seats and standbys.
    function hold(bytes32 random)
        private
        returns (uint256[] memory list, INodeRegistry.Candidate[] memory candidates)
    {
        vm.warp(block.timestamp + WINDOW);
        election.request(cluster, 0);
        candidates = registry.candidates(cluster, 0);
        uint64 number = election.electionOf(cluster, 0).randomBlock;
        bytes memory header = Headers.header(number, random);
        vm.roll(number + 1);
        vm.setBlockhash(number, keccak256(header));
        election.seal(cluster, 0, candidates, header);
        list = drawn(random, candidates);
    }

    function drawn(bytes32 random, INodeRegistry.Candidate[] memory candidates)
        private
        view
        returns (uint256[] memory list)
    {
        ICommitteeElection.Election memory held = election.electionOf(cluster, 0);
        bytes memory front =
            abi.encode(keccak256("veil v1 election"), random, block.chainid, address(directory));
        bytes32 seed =
            keccak256(bytes.concat(front, abi.encode(cluster, uint64(0), uint32(held.round))));
        uint8 limit = registry.clusterOf(cluster).seatsPerOrganisation;
        list = election.draw(seed, candidates, held.seats + held.standbys, limit);
        for (uint256 i = 0; i < list.length; ++i) {
            list[i] = secretOf(candidates[list[i]].peer);
        }
    }

    function secretOf(bytes32 peer) private pure returns (uint256 secret) {
        for (secret = 1; peerOf(secret) != peer; ++secret) {}
    }

    function proposeAsAdmin(uint32 attempt, uint256[] memory list) private {
        IKeyCeremony.Proposal memory given = proposal(0, attempt);
        IVeilContract.Point[] memory keys = keysOf(list);
        vm.prank(ADMIN);
        ceremony.propose(given, keys);
    }

    /// @dev With one seat, the admin had the committee drawn again until it had more.
    function test_an_admin_with_a_seat_draws_nothing_again() external {
        elected(2, 0);
        for (uint256 i = 1; i <= 12; ++i) {
            admit(i, i <= 3 ? ADMIN : address(uint160(0x1000 + i)), 1 ether);
        }
        (uint256[] memory list, INodeRegistry.Candidate[] memory candidates) = hold("nature");
        bytes32 committee = election.electionOf(cluster, 0).committeeHash;
        uint256[] memory seats = new uint256[](4);
        uint32 attempt = 0;
        // The first seat's operator, whoever that is, ends all attempts that it can.
        address first = registry.operatorOf(cluster, peerOf(list[0]));
        proposeAsAdmin(attempt, list);
        vm.prank(first);
        ceremony.abort(cluster, 0, attempt, "as the operator of a member");
        check(ceremony.hasForfeited(cluster, 0, peerOf(list[0])), "and is out");
        vm.prank(ADMIN);
        vm.expectPartialRevert(ICommitteeElection.DrawnAlready.selector);
        election.request(cluster, 0);
        check(election.electionOf(cluster, 0).committeeHash == committee, "as it was drawn");
        proposeAsAdmin(++attempt, list);
        bytes32[] memory roster = ceremony.attemptOf(cluster, 0, attempt).roster;
        for (uint256 i = 0; i < 4; ++i) {
            seats[i] = secretOf(roster[i]);
            check(registry.operatorOf(cluster, roster[i]) != first, "others sit there");
        }
        check(seats[0] == list[4], "the first standby");
        vm.prank(first);
        vm.expectPartialRevert(IKeyCeremony.NotAParticipant.selector);
        ceremony.abort(cluster, 0, attempt, "again");
        // Letting attempts fail changes nothing either.
        vm.warp(ceremony.attemptOf(cluster, 0, attempt).deadline + 1);
        proposeAsAdmin(++attempt, list);
        check(
            keccak256(abi.encode(ceremony.attemptOf(cluster, 0, attempt).roster))
                == keccak256(abi.encode(roster)),
            "the same roster"
        );
        check(candidates.length == 12, "of all");
    }

    /// @dev When no standby is left the same draw goes on: the seats of who is out go to the next of it.
    function test_a_draw_goes_on_behind_the_standbys() external {
        elected(1, 0);
        for (uint256 i = 1; i <= 8; ++i) {
            admit(i, address(uint160(0x1000 + i)), 1 ether);
        }
        (uint256[] memory list, INodeRegistry.Candidate[] memory candidates) = hold("nature");
        for (uint32 attempt = 0; attempt < 2; ++attempt) {
            proposeAsAdmin(attempt, list);
            bytes32 peer = ceremony.attemptOf(cluster, 0, attempt).roster[attempt];
            address operator = registry.operatorOf(cluster, peer);
            vm.prank(operator);
            ceremony.abort(cluster, 0, attempt, "it does not want to");
        }
        IKeyCeremony.Proposal memory third = proposal(0, 2);
        IVeilContract.Point[] memory keys = keysOf(list);
        vm.prank(ADMIN);
        vm.expectPartialRevert(IKeyCeremony.NoStandbyLeft.selector);
        ceremony.propose(third, keys);
        election.extend(cluster, 0, candidates);
        uint256[] memory longer = drawn("nature", candidates);
        for (uint256 i = 0; i < 5; ++i) {
            check(longer[i] == list[i], "the same, and more");
        }
        proposeAsAdmin(2, longer);
        bytes32[] memory roster = ceremony.attemptOf(cluster, 0, 2).roster;
        check(roster[0] == peerOf(list[4]), "the standby");
        check(roster[1] == peerOf(longer[5]), "the next of the draw");
    }

    /// @dev The admin took out whom it did not want and froze the rest, in one transaction.
    function test_an_admin_does_not_choose_by_evicting() external {
        elected(0, 0);
        for (uint256 i = 1; i <= 10; ++i) {
            admit(i, address(uint160(0x1000 + i)), i <= 4 ? 1 ether : 32 ether);
        }
        for (uint256 i = 5; i <= 10; ++i) {
            vm.prank(ADMIN);
            registry.requestExit(cluster, peerOf(i));
            vm.prank(ADMIN);
            vm.expectPartialRevert(INodeRegistry.EvictionPending.selector);
            registry.requestExit(cluster, peerOf(i));
        }
        vm.warp(block.timestamp + WINDOW);
        vm.prank(ADMIN);
        election.request(cluster, 0);
        check(registry.candidates(cluster, 0).length == 10, "all may be drawn");
        check(registry.candidates(cluster, 1).length == 10, "in the next one, too");
        check(registry.candidates(cluster, 2).length == 4, "and are out then");
        check(registry.operatorOf(cluster, peerOf(5)) != address(0), "registered");
        // Who wants to leave does.
        vm.prank(address(uint160(0x1005)));
        registry.requestExit(cluster, peerOf(5));
        check(registry.operatorOf(cluster, peerOf(5)) == address(0), "left");
        check(registry.stakeOf(cluster, peerOf(5)).exitEpoch == 1, "as any other");
    }

    /// @dev An appointed committee is the admin's choice, as before.
    function test_an_appointing_admin_evicts_at_once() external {
        register(1, MEMBER);
        registry.approve(cluster, peerOf(2), approval(EVE, MEMBER));
        INodeRegistry.Registration memory node = registration(2, MEMBER);
        IVeilContract.CompactSignature memory signature =
            compact(2, registrationDigest(node, peerOf(2), EVE, 0));
        registerAs(EVE, node, signature);
        registry.requestExit(cluster, peerOf(2));
        check(registry.operatorOf(cluster, peerOf(2)) == address(0), "out");
    }

    /// @dev Four machines of one operator, approved as workers, took four seats as four organisations.
    function test_roles_and_organisations_are_the_admins_to_say() external {
        elected(0, 1);
        for (uint256 i = 1; i <= 4; ++i) {
            vm.prank(ADMIN);
            registry.approve(cluster, peerOf(i), approval(EVE, WORKER));
            INodeRegistry.Registration memory node = registration(i, MEMBER);
            bytes32 digest = registrationDigest(node, peerOf(i), EVE, 0);
            IVeilContract.CompactSignature memory signature = compact(i, digest);
            vm.prank(EVE);
            vm.expectPartialRevert(INodeRegistry.NotAsApproved.selector);
            registry.register(node, signature);
            node.roles = WORKER;
            node.organisation = bytes32(0xf00d + i);
            signature = compact(i, registrationDigest(node, peerOf(i), EVE, 0));
            vm.prank(EVE);
            vm.expectPartialRevert(INodeRegistry.NotAsApproved.selector);
            registry.register(node, signature);
        }
        check(registry.members(cluster).length == 0, "no member");
    }

    /// @dev Registering and leaving again made each election dearer for ever.
    function test_who_leaves_leaves_no_place_behind() external {
        for (uint256 i = 1; i <= 6; ++i) {
            register(i, MEMBER);
        }
        uint256 before = gasleft();
        registry.candidates(cluster, 0);
        uint256 cost = before - gasleft();
        for (uint256 k = 0; k < 60; ++k) {
            register(77, MEMBER);
            registry.requestExit(cluster, peerOf(77));
        }
        check(registry.members(cluster).length == 6, "six");
        before = gasleft();
        registry.candidates(cluster, 0);
        check(before - gasleft() < cost * 11 / 10, "as dear as before");
    }

    /// @dev What elections and ceremonies read has a bound.
    function test_members_are_256_at_most() external {
        for (uint256 i = 1; i <= 256; ++i) {
            register(i, MEMBER);
        }
        INodeRegistry.Registration memory node = registration(257, MEMBER);
        bytes32 digest = registrationDigest(node, peerOf(257), address(this), 0);
        IVeilContract.CompactSignature memory signature = compact(257, digest);
        vm.expectPartialRevert(INodeRegistry.TooManyMembers.selector);
        registry.register(node, signature);
        register(258, WORKER);
        registry.requestExit(cluster, peerOf(3));
        check(registry.members(cluster).length == 255, "shorter");
        check(registry.nodeOf(cluster, peerOf(256)).position == 2, "in its place");
        registry.register(node, signature);
    }

    /// @dev A replaced absentee had its seat back as soon as anybody joined.
    function test_a_replaced_absentee_does_not_come_back() external {
        for (uint256 i = 1; i <= 5; ++i) {
            register(i, MEMBER);
        }
        memberCount = 5;
        propose(proposal(0, 0));
        ceremony.abort(cluster, 0, 0, "absent");
        bytes32 digest = absenceDigest(0, 0, 2);
        IKeyCeremony.Absence[] memory list = new IKeyCeremony.Absence[](2);
        list[0] = IKeyCeremony.Absence(1, identityKey(1), compact(1, digest));
        list[1] = IKeyCeremony.Absence(3, identityKey(3), compact(3, digest));
        ceremony.replaceSeat(cluster, 0, 0, 2, list);
        register(6, MEMBER);
        memberCount = 6;
        propose(proposal(0, 1));
        bytes32[] memory roster = ceremony.attemptOf(cluster, 0, 1).roster;
        check(roster[1] == peerOf(5), "the standby");
        for (uint256 i = 0; i < 4; ++i) {
            check(roster[i] != peerOf(2), "not the absentee");
        }
    }

    /// @dev Anybody froze the candidates at the fourth registration, before others came.
    function test_nodes_have_time_to_come() external {
        elected(0, 0);
        for (uint256 i = 1; i <= 4; ++i) {
            admit(i, EVE, 1 wei);
        }
        vm.warp(block.timestamp + WINDOW - 1);
        vm.prank(EVE);
        vm.expectPartialRevert(ICommitteeElection.WindowOpen.selector);
        election.request(cluster, 0);
        for (uint256 i = 5; i <= 10; ++i) {
            admit(i, address(uint160(0x1000 + i)), 32 ether);
        }
        vm.warp(block.timestamp + 1);
        vm.prank(EVE);
        election.request(cluster, 0);
        check(registry.candidates(cluster, 0).length == 10, "all ten");
    }

    /// @dev An elected node that left kept its seat in the roster, and only signatures helped.
    function test_an_elected_node_that_left_has_no_seat() external {
        elected(1, 0);
        for (uint256 i = 1; i <= 5; ++i) {
            admit(i, address(uint160(0x1000 + i)), 1 ether);
        }
        (uint256[] memory list,) = hold("random");
        vm.prank(address(uint160(0x1000 + list[0])));
        registry.requestExit(cluster, peerOf(list[0]));
        proposeAsAdmin(0, list);
        bytes32[] memory roster = ceremony.attemptOf(cluster, 0, 0).roster;
        check(roster[0] == peerOf(list[4]), "the standby sits there");
    }

    /// @dev By its identity's signature, too, a member that ends an attempt leaves its seat.
    function test_a_signed_abort_costs_the_signers_seat() external {
        elected(1, 0);
        for (uint256 i = 1; i <= 5; ++i) {
            admit(i, address(uint160(0x1000 + i)), 1 ether);
        }
        (uint256[] memory list,) = hold("random");
        proposeAsAdmin(0, list);
        bytes32 kind =
            keccak256("CeremonyAbort(bytes32 cluster,uint64 epoch,uint32 attempt,bytes32 reason)");
        bytes32 digest =
            typedDigest(keccak256(abi.encode(kind, cluster, uint64(0), uint32(0), bytes32("why"))));
        IVeilContract.Point memory key = identityKey(list[2]);
        IVeilContract.CompactSignature memory signature = compact(list[2], digest);
        ceremony.abortSigned(cluster, 0, 0, "why", 3, key, signature);
        proposeAsAdmin(1, list);
        bytes32[] memory roster = ceremony.attemptOf(cluster, 0, 1).roster;
        check(roster[2] == peerOf(list[4]), "the standby sits there");
        check(roster[3] == peerOf(list[3]), "and nobody else has moved");
    }
}
