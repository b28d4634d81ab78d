// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IKeyCeremony} from "../src/interfaces/IKeyCeremony.sol";
import {IVeilContract} from "../src/interfaces/IVeilContract.sol";
import {Base} from "./Base.sol";
import {Signer} from "./Signer.sol";

contract KeyCeremonyTest is Base {
    function setUp() public override {
        super.setUp();
        registerMembers();
    }

    function signed(uint64 epoch, uint32 attempt)
        private
        view
        returns (
            IKeyCeremony.Publication memory p,
            IVeilContract.CompactSignature[] memory members,
            IVeilContract.FrostSignature memory possession
        )
    {
        p = publication(epoch, attempt, GROUP);
        p.cluster = cluster;
        members = memberSignatures(typedDigest(publicationHash(p)));
        possession = Signer.sign(GROUP, possessionDigest(p));
    }

    function statusOf(uint32 attempt) private view returns (IKeyCeremony.Status) {
        return ceremony.attemptOf(cluster, 0, attempt).status;
    }

    function test_gas_of_publish() external {
        propose(proposal(0, 0));
        (
            IKeyCeremony.Publication memory p,
            IVeilContract.CompactSignature[] memory members,
            IVeilContract.FrostSignature memory possession
        ) = signed(0, 0);
        ceremony.publish(p, members, possession);
        vm.snapshotGasLastCall("KeyCeremony", "publish, 4 members");
        check(ceremony.epochs(cluster) == 1, "epochs");
        check(ceremony.keyOf(cluster, 0).fheKeyDigest == p.fheKeyDigest, "key");
        check(statusOf(0) == IKeyCeremony.Status.Published, "status");
    }

    function test_each_member_signs_in_its_seat() external {
        propose(proposal(0, 0));
        (
            IKeyCeremony.Publication memory p,
            IVeilContract.CompactSignature[] memory members,
            IVeilContract.FrostSignature memory possession
        ) = signed(0, 0);
        IVeilContract.CompactSignature memory first = members[0];
        members[0] = members[1];
        // Whose they are, so that the sender can name the seat.
        address[] memory recovered = new address[](4);
        for (uint256 i = 0; i < 4; ++i) {
            recovered[i] = vm.createWallet(i == 0 ? 2 : i + 1).account;
        }
        vm.expectRevert(
            abi.encodeWithSelector(IKeyCeremony.WrongMemberSignatures.selector, recovered)
        );
        ceremony.publish(p, members, possession);
        members[0] = first;
        IVeilContract.CompactSignature[] memory few = new IVeilContract.CompactSignature[](3);
        for (uint256 i = 0; i < 3; ++i) {
            few[i] = members[i];
        }
        vm.expectPartialRevert(IKeyCeremony.WrongNumberOfSignatures.selector);
        ceremony.publish(p, few, possession);
        ceremony.publish(p, members, possession);
        vm.expectRevert(abi.encodeWithSelector(IKeyCeremony.AttemptPublished.selector, uint32(0)));
        ceremony.publish(p, members, possession);
    }

    /// @dev Every field is signed.
    function testFuzz_a_changed_publication_is_refused(uint8 field) external {
        propose(proposal(0, 0));
        (
            IKeyCeremony.Publication memory p,
            IVeilContract.CompactSignature[] memory members,
            IVeilContract.FrostSignature memory possession
        ) = signed(0, 0);
        field = field % 5;
        if (field == 0) p.groupKey = identityKey(GROUP + 1);
        if (field == 1) p.verifyingSharesRoot = 0;
        if (field == 2) p.fheKeyDigest = 0;
        if (field == 3) p.transcriptRoot = 0;
        if (field == 4) p.referenceStringDigest = 0;
        vm.expectPartialRevert(IKeyCeremony.WrongMemberSignatures.selector);
        ceremony.publish(p, members, possession);
    }

    function testFuzz_a_string_of_another_origin_is_refused(uint8 origin) external {
        vm.assume(origin != 0);
        propose(proposal(0, 0));
        (
            IKeyCeremony.Publication memory p,
            IVeilContract.CompactSignature[] memory members,
            IVeilContract.FrostSignature memory possession
        ) = signed(0, 0);
        p.referenceStringOrigin = origin;
        vm.expectRevert(
            abi.encodeWithSelector(IKeyCeremony.UnknownReferenceStringOrigin.selector, origin)
        );
        ceremony.publish(p, members, possession);
    }

    function test_a_key_off_the_curve_is_refused() external {
        propose(proposal(0, 0));
        IKeyCeremony.Publication memory p = publication(0, 0, GROUP);
        p.cluster = cluster;
        p.groupKey.y ^= 1;
        IVeilContract.FrostSignature memory none;
        vm.expectRevert(abi.encodeWithSelector(IKeyCeremony.InvalidGroupKey.selector));
        ceremony.publish(p, new IVeilContract.CompactSignature[](0), none);
    }

    function testFuzz_deadline(uint64 deadline, uint64 later) external {
        deadline = NOW + 1 + deadline % 7 days;
        IKeyCeremony.Proposal memory given = proposal(0, 0);
        given.deadline = deadline;
        propose(given);
        (
            IKeyCeremony.Publication memory p,
            IVeilContract.CompactSignature[] memory members,
            IVeilContract.FrostSignature memory possession
        ) = signed(0, 0);
        later = later % 14 days;
        vm.warp(NOW + later);
        if (NOW + later > deadline) {
            check(statusOf(0) == IKeyCeremony.Status.Expired, "expired");
            vm.expectRevert(
                abi.encodeWithSelector(IKeyCeremony.AttemptExpired.selector, uint32(0), deadline)
            );
        }
        ceremony.publish(p, members, possession);
    }

    function test_an_aborted_attempt_stays_dead_and_the_next_one_may_begin() external {
        propose(proposal(0, 0));
        proposeRefused(proposal(0, 1), IKeyCeremony.AttemptStillOpen.selector);
        vm.prank(address(0xbad));
        vm.expectPartialRevert(IKeyCeremony.NotAParticipant.selector);
        ceremony.abort(cluster, 0, 0, "why");

        bytes32 kind =
            keccak256("CeremonyAbort(bytes32 cluster,uint64 epoch,uint32 attempt,bytes32 reason)");
        bytes32 digest =
            typedDigest(keccak256(abi.encode(kind, cluster, uint64(0), uint32(0), bytes32("why"))));
        IVeilContract.Point memory key = identityKey(3);
        IVeilContract.CompactSignature memory signature = compact(3, digest);
        vm.expectPartialRevert(IKeyCeremony.WrongMemberSignature.selector);
        ceremony.abortSigned(cluster, 0, 0, "why", 2, key, signature);
        vm.expectPartialRevert(IKeyCeremony.UnknownSeat.selector);
        ceremony.abortSigned(cluster, 0, 0, "why", 5, key, signature);
        vm.prank(address(0xbad)); // anyone may send it
        ceremony.abortSigned(cluster, 0, 0, "why", 3, key, signature);
        check(statusOf(0) == IKeyCeremony.Status.Aborted, "status");

        (
            IKeyCeremony.Publication memory p,
            IVeilContract.CompactSignature[] memory members,
            IVeilContract.FrostSignature memory possession
        ) = signed(0, 0);
        vm.expectRevert(abi.encodeWithSelector(IKeyCeremony.AttemptAborted.selector, uint32(0)));
        ceremony.publish(p, members, possession);
        proposeRefused(proposal(0, 2), IKeyCeremony.WrongAttempt.selector);
        propose(proposal(0, 1));
        check(ceremony.attempts(cluster, 0) == 2, "attempts");
    }

    /// @dev An unfinished ceremony never replaces a key, and the next one needs the group's consent.
    function test_rollover() external {
        publish(0, GROUP, 0);
        proposeRefused(proposal(0, 1), IKeyCeremony.WrongEpoch.selector);
        propose(proposal(1, 0));
        check(ceremony.epochs(cluster) == 1, "in force");

        IKeyCeremony.Publication memory p = publication(1, 0, GROUP + 1);
        p.cluster = cluster;
        IVeilContract.CompactSignature[] memory members =
            memberSignatures(typedDigest(publicationHash(p)));
        IVeilContract.FrostSignature memory possession = Signer.sign(GROUP + 1, possessionDigest(p));
        IVeilContract.FrostSignature memory handover = Signer.sign(GROUP + 1, handoverDigest(p));
        vm.expectPartialRevert(IKeyCeremony.NoReadyKey.selector);
        ceremony.activate(cluster, 1, 0, handover);
        bytes32 inForce = ceremony.verificationHash(cluster);
        ceremony.publish(p, members, possession);
        // Ready, and nothing has changed, however long it takes.
        check(ceremony.epochs(cluster) == 1, "the old one");
        check(ceremony.verificationHash(cluster) == inForce, "in force");
        check(ceremony.readyPublication(cluster) == publicationHash(p), "ready");
        vm.expectPartialRevert(IKeyCeremony.NoKey.selector);
        ceremony.keyOf(cluster, 1);
        vm.warp(block.timestamp + 30 days);
        vm.expectRevert(abi.encodeWithSelector(IKeyCeremony.WrongHandoverSignature.selector));
        ceremony.activate(cluster, 1, 0, handover);
        vm.expectPartialRevert(IKeyCeremony.NoReadyKey.selector);
        ceremony.activate(cluster, 0, 0, handover);
        vm.expectPartialRevert(IKeyCeremony.NotTheHead.selector);
        ceremony.activate(cluster, 1, "another", handover);
        handover = Signer.sign(GROUP, handoverDigest(p));
        vm.prank(STRANGER); // anyone who has it
        ceremony.activate(cluster, 1, 0, handover);
        vm.snapshotGasLastCall("KeyCeremony", "activate");
        check(ceremony.epochs(cluster) == 2, "rolled over");
        check(ceremony.keyOf(cluster, 1).publishedAt == block.timestamp, "since now");
        vm.expectPartialRevert(IKeyCeremony.NoReadyKey.selector);
        ceremony.activate(cluster, 1, 0, handover);
    }

    /// @dev A handover is of one attempt: what the group signed for one that was given up is good for nothing.
    function test_a_key_that_is_given_up_is_never_activated() external {
        publish(0, GROUP, 0);
        propose(proposal(1, 0));
        IKeyCeremony.Publication memory p = publication(1, 0, GROUP + 1);
        p.cluster = cluster;
        publishReady(p, GROUP + 1);
        IVeilContract.FrostSignature memory first = Signer.sign(GROUP, handoverDigest(p));
        propose(proposal(1, 1));
        vm.expectPartialRevert(IKeyCeremony.NoReadyKey.selector);
        ceremony.activate(cluster, 1, 0, first);
        p.attempt = 1;
        publishReady(p, GROUP + 1);
        vm.expectRevert(abi.encodeWithSelector(IKeyCeremony.WrongHandoverSignature.selector));
        ceremony.activate(cluster, 1, 0, first);
        ceremony.activate(cluster, 1, 0, Signer.sign(GROUP, handoverDigest(p)));
        check(ceremony.keyOf(cluster, 1).attempt == 1, "the second attempt's");
    }

    /// @dev Only governance, only after the long delay, only for the next epoch.
    function test_succession_replaces_the_signature_of_a_dead_quorum() external {
        publish(0, GROUP, 0);
        vm.prank(STRANGER);
        vm.expectPartialRevert(IVeilContract.NotGovernance.selector);
        ceremony.announceSuccession(cluster, 1);
        vm.expectPartialRevert(IKeyCeremony.WrongEpoch.selector);
        ceremony.announceSuccession(cluster, 2);
        ceremony.announceSuccession(cluster, 1);
        uint64 from = uint64(block.timestamp) + 14 days;
        check(ceremony.successionFrom(cluster, 1) == from, "from");

        propose(proposal(1, 0));
        IKeyCeremony.Publication memory p = publication(1, 0, GROUP + 1);
        p.cluster = cluster;
        publishReady(p, GROUP + 1);
        IVeilContract.FrostSignature memory none;
        vm.warp(from - 1);
        vm.expectRevert(abi.encodeWithSelector(IKeyCeremony.WrongHandoverSignature.selector));
        ceremony.activate(cluster, 1, 0, none);
        // It ends, too.
        vm.warp(from + 30 days);
        vm.expectRevert(abi.encodeWithSelector(IKeyCeremony.WrongHandoverSignature.selector));
        ceremony.activate(cluster, 1, 0, none);
        vm.warp(from + 30 days - 1);
        ceremony.activate(cluster, 1, 0, none);
        check(ceremony.epochs(cluster) == 2, "succeeded");

        ceremony.announceSuccession(cluster, 2);
        ceremony.withdrawSuccession(cluster, 2);
        check(ceremony.successionFrom(cluster, 2) == 0, "withdrawn");
    }

    function absences(uint8 seat, uint8 first, uint8 second)
        private
        view
        returns (IKeyCeremony.Absence[] memory list)
    {
        bytes32 digest = absenceDigest(0, 0, seat);
        list = new IKeyCeremony.Absence[](2);
        list[0] = IKeyCeremony.Absence(first, identityKey(first), compact(first, digest));
        list[1] = IKeyCeremony.Absence(second, identityKey(second), compact(second, digest));
    }

    /// @dev The standby of the order takes the seat of who was absent, with the signatures of t+1.
    function test_a_standby_replaces_an_absentee_after_a_failed_attempt() external {
        register(5, MEMBER);
        register(6, MEMBER);
        memberCount = 6;
        propose(proposal(0, 0));
        IKeyCeremony.Absence[] memory good = absences(2, 1, 3);
        vm.expectPartialRevert(IKeyCeremony.AttemptNotFailed.selector);
        ceremony.replaceSeat(cluster, 0, 0, 2, good);
        ceremony.abort(cluster, 0, 0, "absent");

        IKeyCeremony.Absence[] memory few = new IKeyCeremony.Absence[](1);
        few[0] = good[0];
        vm.expectPartialRevert(IKeyCeremony.TooFewAbsences.selector);
        ceremony.replaceSeat(cluster, 0, 0, 2, few);
        IKeyCeremony.Absence[] memory bad = absences(2, 3, 1);
        vm.expectPartialRevert(IKeyCeremony.WrongOrder.selector);
        ceremony.replaceSeat(cluster, 0, 0, 2, bad);
        bad = absences(2, 1, 2);
        vm.expectPartialRevert(IKeyCeremony.WrongOrder.selector);
        ceremony.replaceSeat(cluster, 0, 0, 2, bad);
        bad = absences(2, 1, 3);
        bad[1].signature = bad[0].signature;
        vm.expectPartialRevert(IKeyCeremony.WrongMemberSignature.selector);
        ceremony.replaceSeat(cluster, 0, 0, 2, bad);

        vm.prank(STRANGER); // anyone who has the signatures
        ceremony.replaceSeat(cluster, 0, 0, 2, good);
        vm.expectPartialRevert(IKeyCeremony.SeatAlreadyReplaced.selector);
        ceremony.replaceSeat(cluster, 0, 0, 2, good);
        ceremony.replaceSeat(cluster, 0, 0, 1, absences(1, 3, 4));
        good = absences(3, 1, 4);
        check(ceremony.hasForfeited(cluster, 0, peerOf(2)), "forfeited");
        uint256 before = vm.snapshotState();
        ceremony.replaceSeat(cluster, 0, 0, 3, good);
        IKeyCeremony.Proposal memory third = proposal(0, 1);
        IVeilContract.Point[] memory six = identities(6);
        vm.expectPartialRevert(IKeyCeremony.NoStandbyLeft.selector);
        ceremony.propose(third, six);
        vm.revertToState(before);

        propose(proposal(0, 1));
        bytes32[] memory roster = ceremony.attemptOf(cluster, 0, 1).roster;
        check(roster[0] == peerOf(5) && roster[1] == peerOf(6), "standbys, in order");
        check(roster[2] == peerOf(3) && roster[3] == peerOf(4), "others");

        // Those in the seats sign, not those that left.
        IKeyCeremony.Publication memory p = publication(0, 1, GROUP);
        p.cluster = cluster;
        bytes32 digest = typedDigest(publicationHash(p));
        IVeilContract.CompactSignature[] memory members = memberSignatures(digest);
        IVeilContract.FrostSignature memory possession = Signer.sign(GROUP, possessionDigest(p));
        vm.expectPartialRevert(IKeyCeremony.WrongMemberSignatures.selector);
        ceremony.publish(p, members, possession);
        (members[0], members[1]) = (compact(5, digest), compact(6, digest));
        ceremony.publish(p, members, possession);
        check(ceremony.seatOf(cluster, 0, peerOf(5)) == 1, "seat");
        check(ceremony.seatOf(cluster, 0, peerOf(2)) == 0, "no seat");
    }

    function test_the_roster_is_that_of_the_registry() external {
        IVeilContract.Point[] memory wrong = identities(4);
        wrong[0] = identityKey(9);
        IKeyCeremony.Proposal memory given = proposal(0, 0);
        vm.expectPartialRevert(IKeyCeremony.WrongRoster.selector);
        ceremony.propose(given, wrong);
        // The peer has only the parity of y, so that a point off the curve may have its hash.
        wrong = identities(4);
        wrong[0].y ^= 2;
        vm.expectPartialRevert(IKeyCeremony.InvalidIdentityKey.selector);
        ceremony.propose(given, wrong);
        wrong = identities(3);
        vm.expectPartialRevert(IKeyCeremony.WrongRoster.selector);
        ceremony.propose(given, wrong);
        registry.requestExit(cluster, peerOf(1));
        vm.expectPartialRevert(IKeyCeremony.TooFewMembers.selector);
        ceremony.propose(given, wrong);
    }
}
