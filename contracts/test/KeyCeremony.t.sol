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
        ceremony.propose(proposal(0, 0));
        (
            IKeyCeremony.Publication memory p,
            IVeilContract.CompactSignature[] memory members,
            IVeilContract.FrostSignature memory possession
        ) = signed(0, 0);
        IVeilContract.FrostSignature memory none;
        ceremony.publish(p, members, possession, none);
        vm.snapshotGasLastCall("KeyCeremony", "publish, 4 members");
        check(ceremony.epochs(cluster) == 1, "epochs");
        check(ceremony.keyOf(cluster, 0).fheKeyDigest == p.fheKeyDigest, "key");
        check(statusOf(0) == IKeyCeremony.Status.Published, "status");
    }

    function test_each_member_signs_in_its_seat() external {
        ceremony.propose(proposal(0, 0));
        (
            IKeyCeremony.Publication memory p,
            IVeilContract.CompactSignature[] memory members,
            IVeilContract.FrostSignature memory possession
        ) = signed(0, 0);
        IVeilContract.FrostSignature memory none;
        IVeilContract.CompactSignature memory first = members[0];
        members[0] = members[1];
        vm.expectRevert(
            abi.encodeWithSelector(IKeyCeremony.WrongMemberSignature.selector, uint8(1))
        );
        ceremony.publish(p, members, possession, none);
        members[0] = first;
        ceremony.publish(p, members, possession, none);
        vm.expectRevert(abi.encodeWithSelector(IKeyCeremony.AttemptPublished.selector, uint32(0)));
        ceremony.publish(p, members, possession, none);
    }

    /// @dev Every field is signed.
    function testFuzz_a_changed_publication_is_refused(uint8 field) external {
        ceremony.propose(proposal(0, 0));
        (
            IKeyCeremony.Publication memory p,
            IVeilContract.CompactSignature[] memory members,
            IVeilContract.FrostSignature memory possession
        ) = signed(0, 0);
        field = field % 6;
        if (field == 0) p.groupKey = identityKey(GROUP + 1);
        if (field == 1) p.verifyingSharesRoot = 0;
        if (field == 2) p.fheKeyDigest = 0;
        if (field == 3) p.transcriptRoot = 0;
        if (field == 4) p.referenceStringDigest = 0;
        if (field == 5) p.referenceStringOrigin = 0;
        IVeilContract.FrostSignature memory none;
        vm.expectRevert(
            abi.encodeWithSelector(IKeyCeremony.WrongMemberSignature.selector, uint8(1))
        );
        ceremony.publish(p, members, possession, none);
    }

    function test_a_key_off_the_curve_is_refused() external {
        ceremony.propose(proposal(0, 0));
        IKeyCeremony.Publication memory p = publication(0, 0, GROUP);
        p.cluster = cluster;
        p.groupKey.y ^= 1;
        IVeilContract.FrostSignature memory none;
        vm.expectRevert(abi.encodeWithSelector(IKeyCeremony.InvalidGroupKey.selector));
        ceremony.publish(p, new IVeilContract.CompactSignature[](0), none, none);
    }

    function testFuzz_deadline(uint64 deadline, uint64 later) external {
        deadline = NOW + 1 + deadline % 7 days;
        IKeyCeremony.Proposal memory given = proposal(0, 0);
        given.deadline = deadline;
        ceremony.propose(given);
        (
            IKeyCeremony.Publication memory p,
            IVeilContract.CompactSignature[] memory members,
            IVeilContract.FrostSignature memory possession
        ) = signed(0, 0);
        later = later % 14 days;
        vm.warp(NOW + later);
        IVeilContract.FrostSignature memory none;
        if (NOW + later > deadline) {
            check(statusOf(0) == IKeyCeremony.Status.Expired, "expired");
            vm.expectRevert(
                abi.encodeWithSelector(IKeyCeremony.AttemptExpired.selector, uint32(0), deadline)
            );
        }
        ceremony.publish(p, members, possession, none);
    }

    function test_an_aborted_attempt_stays_dead_and_the_next_one_may_begin() external {
        ceremony.propose(proposal(0, 0));
        vm.expectPartialRevert(IKeyCeremony.AttemptStillOpen.selector);
        ceremony.propose(proposal(0, 1));
        vm.prank(address(0xbad));
        vm.expectPartialRevert(IKeyCeremony.NotAParticipant.selector);
        ceremony.abort(cluster, 0, 0, "why");

        bytes32 kind =
            keccak256("CeremonyAbort(bytes32 cluster,uint64 epoch,uint32 attempt,bytes32 reason)");
        bytes32 digest =
            typedDigest(keccak256(abi.encode(kind, cluster, uint64(0), uint32(0), bytes32("why"))));
        vm.expectPartialRevert(IKeyCeremony.WrongMemberSignature.selector);
        ceremony.abortSigned(cluster, 0, 0, "why", 2, compact(3, digest));
        vm.expectPartialRevert(IKeyCeremony.UnknownSeat.selector);
        ceremony.abortSigned(cluster, 0, 0, "why", 5, compact(3, digest));
        vm.prank(address(0xbad)); // anyone may send it
        ceremony.abortSigned(cluster, 0, 0, "why", 3, compact(3, digest));
        check(statusOf(0) == IKeyCeremony.Status.Aborted, "status");

        (
            IKeyCeremony.Publication memory p,
            IVeilContract.CompactSignature[] memory members,
            IVeilContract.FrostSignature memory possession
        ) = signed(0, 0);
        IVeilContract.FrostSignature memory none;
        vm.expectRevert(abi.encodeWithSelector(IKeyCeremony.AttemptAborted.selector, uint32(0)));
        ceremony.publish(p, members, possession, none);
        vm.expectPartialRevert(IKeyCeremony.WrongAttempt.selector);
        ceremony.propose(proposal(0, 2));
        ceremony.propose(proposal(0, 1));
        check(ceremony.attempts(cluster, 0) == 2, "attempts");
    }

    /// @dev An unfinished ceremony never replaces a key, and the next one needs the group's consent.
    function test_rollover() external {
        publish(0, GROUP, 0);
        vm.expectPartialRevert(IKeyCeremony.WrongEpoch.selector);
        ceremony.propose(proposal(0, 1));
        ceremony.propose(proposal(1, 0));
        check(ceremony.epochs(cluster) == 1, "in force");

        IKeyCeremony.Publication memory p = publication(1, 0, GROUP + 1);
        p.cluster = cluster;
        IVeilContract.CompactSignature[] memory members =
            memberSignatures(typedDigest(publicationHash(p)));
        IVeilContract.FrostSignature memory possession = Signer.sign(GROUP + 1, possessionDigest(p));
        IVeilContract.FrostSignature memory handover = Signer.sign(GROUP + 1, handoverDigest(p));
        vm.expectRevert(abi.encodeWithSelector(IKeyCeremony.WrongHandoverSignature.selector));
        ceremony.publish(p, members, possession, handover);
        handover = Signer.sign(GROUP, handoverDigest(p));
        ceremony.publish(p, members, possession, handover);
        check(ceremony.epochs(cluster) == 2, "rolled over");
    }
}
