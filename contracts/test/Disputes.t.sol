// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAssignmentAnchor} from "../src/interfaces/IAssignmentAnchor.sol";
import {IDisputes} from "../src/interfaces/IDisputes.sol";
import {IKeyCeremony} from "../src/interfaces/IKeyCeremony.sol";
import {IVeilContract} from "../src/interfaces/IVeilContract.sol";
import {FrostVerifier} from "../src/libraries/FrostVerifier.sol";
import {Secp256k1} from "../src/libraries/Secp256k1.sol";
import {Base} from "./Base.sol";
import {Signer} from "./Signer.sol";

contract DisputesTest is Base {
    uint256 private constant N = Secp256k1.N;

    function setUp() public override {
        super.setUp();
        for (uint256 i = 1; i <= 4; ++i) {
            register(registration(i, MEMBER), i, 10 ether);
        }
        memberCount = 4;
        publish(0, GROUP, 0);
    }

    function certificate(bytes32 root) private view returns (IAssignmentAnchor.Certificate memory) {
        return IAssignmentAnchor.Certificate({
            cluster: cluster,
            epoch: 0,
            keySet: keccak256("key set"),
            slot: 1,
            manifest: keccak256("manifest"),
            previous: 0,
            base: 0,
            jobsSeen: 1,
            evaluation: keccak256("evaluation"),
            membersOnly: 0,
            assignmentsRoot: root,
            stateRoot: keccak256("state"),
            referenceStringOrigin: 0
        });
    }

    /// @dev Two certificates of one slot: the group anchors no more, and does not hand over.
    function test_an_equivocating_group_is_suspended() external {
        IAssignmentAnchor.Certificate memory a = certificate("a");
        IAssignmentAnchor.Certificate memory b = certificate("b");
        (bytes32 hashA, bytes32 hashB) = (anchors.hashOf(a), anchors.hashOf(b));
        IVeilContract.FrostSignature memory signatureA = Signer.sign(GROUP, hashA);
        IVeilContract.FrostSignature memory signatureB = Signer.sign(GROUP, hashB);
        vm.expectPartialRevert(IDisputes.NoEquivocation.selector);
        disputes.reportGroupEquivocation(a, signatureA, a, signatureA);
        b.slot = 2;
        vm.expectPartialRevert(IDisputes.NoEquivocation.selector);
        disputes.reportGroupEquivocation(a, signatureA, b, signatureB);
        b.slot = 1;
        vm.expectPartialRevert(IDisputes.WrongGroupSignature.selector);
        disputes.reportGroupEquivocation(a, signatureA, b, signatureA);
        vm.expectPartialRevert(IVeilContract.NotContract.selector);
        ceremony.suspend(cluster, 0);

        vm.prank(STRANGER);
        disputes.reportGroupEquivocation(a, signatureA, b, signatureB);
        vm.expectPartialRevert(IDisputes.AlreadyPunished.selector);
        disputes.reportGroupEquivocation(a, signatureA, b, signatureB);
        IVeilContract.CompressedPoint memory key = Signer.key(GROUP);
        vm.expectPartialRevert(IAssignmentAnchor.GroupSuspended.selector);
        anchors.anchor(a, key, signatureA);

        propose(proposal(1, 0));
        IKeyCeremony.Publication memory p = publication(1, 0, GROUP + 1);
        p.cluster = cluster;
        publishReady(p, GROUP + 1);
        IVeilContract.FrostSignature memory handover = Signer.sign(GROUP, handoverDigest(p));
        vm.expectPartialRevert(IKeyCeremony.GroupSuspended.selector);
        ceremony.activate(cluster, 1, 0, handover);
        // Governance replaces it, after the long delay.
        ceremony.announceSuccession(cluster, 1);
        vm.warp(block.timestamp + 14 days);
        ceremony.activate(cluster, 1, 0, handover);
        check(ceremony.epochs(cluster) == 2, "replaced");
    }

    function voteDigest(IDisputes.Vote memory vote, bytes32 other) private view returns (bytes32) {
        bytes32 kind = keccak256(
            "CertificateVote(bytes32 cluster,uint64 epoch,uint64 slot,bytes32 certificate)"
        );
        return typedDigest(keccak256(abi.encode(kind, vote.cluster, vote.epoch, vote.slot, other)));
    }

    /// @dev protocol-spec/vectors/votes.json: what members sign is what the contract judges.
    function test_votes_have_the_digest_of_the_rust_crate() external view {
        string memory json = vm.readFile("../protocol-spec/vectors/votes.json");
        uint256 cases = vm.parseJsonUint(json, ".count");
        check(cases > 0, "cases");
        for (uint256 i = 0; i < cases; ++i) {
            string memory place = string.concat(".cases[", vm.toString(i), "]");
            bytes32 domain = keccak256(
                abi.encode(
                    keccak256(
                        "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
                    ),
                    keccak256("Veil"),
                    keccak256("1"),
                    vm.parseJsonUint(json, string.concat(place, ".chain_id")),
                    vm.parseJsonBytes32(json, string.concat(place, ".directory"))
                )
            );
            bytes32 vote = keccak256(
                abi.encode(
                    disputes.CERTIFICATE_VOTE_TYPE(),
                    vm.parseJsonBytes32(json, string.concat(place, ".cluster")),
                    vm.parseJsonUint(json, string.concat(place, ".epoch")),
                    vm.parseJsonUint(json, string.concat(place, ".slot")),
                    vm.parseJsonBytes32(json, string.concat(place, ".certificate"))
                )
            );
            bytes32 signed = keccak256(abi.encodePacked(hex"1901", domain, vote));
            bytes32 given = vm.parseJsonBytes32(json, string.concat(place, ".digest"));
            check(signed == given, "digest");
        }
    }

    /// @dev Two votes of one member for one slot.
    function report(uint256 secret, uint64 slot) private {
        IDisputes.Vote memory vote = IDisputes.Vote(cluster, 0, slot, "a");
        disputes.reportEquivocation(
            vote,
            "b",
            identityKey(secret),
            compact(secret, voteDigest(vote, "a")),
            compact(secret, voteDigest(vote, "b"))
        );
    }

    function test_an_equivocating_member_loses_stake_once() external {
        vm.prank(STRANGER);
        report(1, 7);
        check(registry.nodeOf(cluster, peerOf(1)).stake == 5 ether, "half");
        check(disputes.lostBy(cluster, 0, peerOf(1)) == 5 ether, "lost");
        vm.expectPartialRevert(IDisputes.AlreadyPunished.selector);
        report(1, 7);
        // Another slot of the same epoch costs nothing more: the member's cap is reached.
        report(1, 8);
        check(registry.nodeOf(cluster, peerOf(1)).stake == 5 ether, "capped");

        check(disputes.owedTo(STRANGER) == 0.5 ether, "reward");
        disputes.claim(STRANGER);
        check(STRANGER.balance == 0.5 ether, "paid");
        vm.expectPartialRevert(IDisputes.NothingToClaim.selector);
        disputes.claim(STRANGER);
        // The rest is nobody's: not governance's, which decides challenges.
        check(disputes.owedTo(address(this)) == 0, "not the owner's");
        check(pool.poolOf(cluster).balance == 4.5 ether, "the cluster's");
        check(address(pool).balance == 4.5 ether && address(0).balance == 0, "not burnt");
        check(address(disputes).balance == 0, "nothing kept");
    }

    /// @dev Also while it leaves.
    function test_a_member_that_leaves_can_be_slashed() external {
        registry.requestExit(cluster, peerOf(2));
        report(2, 1);
        check(registry.stakeOf(cluster, peerOf(2)).active == 5 ether, "half of it");
    }

    function test_what_is_no_equivocation() external {
        IDisputes.Vote memory vote = IDisputes.Vote(cluster, 0, 1, "a");
        IVeilContract.Point memory key = identityKey(1);
        IVeilContract.CompactSignature memory one = compact(1, voteDigest(vote, "a"));
        IVeilContract.CompactSignature memory other = compact(2, voteDigest(vote, "b"));
        vm.expectPartialRevert(IDisputes.NoEquivocation.selector);
        disputes.reportEquivocation(vote, "a", key, one, one);
        vm.expectPartialRevert(IDisputes.WrongMemberSignature.selector);
        disputes.reportEquivocation(vote, "b", key, one, other);
        register(9, MEMBER);
        vm.expectPartialRevert(IDisputes.NotSeated.selector);
        report(9, 1);
    }

    /// @dev However many members equivocate in however many slots, the committee loses no more than its
    /// cap and nobody more than half.
    function testFuzz_the_caps_hold(uint8[10] calldata who) external {
        uint256 lost = 0;
        for (uint64 i = 0; i < who.length; ++i) {
            report(who[i] % 4 + 1, i + 1);
        }
        for (uint256 i = 1; i <= 4; ++i) {
            uint256 own = disputes.lostBy(cluster, 0, peerOf(i));
            check(own <= 5 ether, "member");
            check(registry.nodeOf(cluster, peerOf(i)).stake == 10 ether - own, "stake");
            lost += own;
        }
        (uint256 total, uint256 limit) = disputes.lostByCommittee(cluster, 0);
        check(total == lost && lost <= limit && limit == 40 ether * 3333 / 10_000, "committee");
        check(disputes.owedTo(address(this)) == address(disputes).balance, "owed");
        check(address(disputes).balance + pool.poolOf(cluster).balance == lost, "conserved");
    }

    /// @dev Anchored, with nothing before it.
    function anchored() private returns (IAssignmentAnchor.Certificate[] memory chain) {
        chain = new IAssignmentAnchor.Certificate[](1);
        chain[0] = certificate("root");
        bytes32 hash = anchors.hashOf(chain[0]);
        anchors.anchor(chain[0], Signer.key(GROUP), Signer.sign(GROUP, hash));
    }

    function challengeBy(address challenger, IAssignmentAnchor.Certificate[] memory chain)
        private
        returns (uint256)
    {
        vm.deal(challenger, 1 ether);
        vm.prank(challenger);
        return disputes.challenge{value: 0.1 ether}(chain, "evidence");
    }

    function test_a_challenge_is_decided_by_governance() external {
        IAssignmentAnchor.Certificate[] memory chain = new IAssignmentAnchor.Certificate[](1);
        chain[0] = certificate("root");
        vm.expectPartialRevert(IDisputes.NotAnchored.selector);
        disputes.challenge{value: 0.1 ether}(chain, "evidence");
        vm.expectPartialRevert(IDisputes.NotAnchored.selector);
        disputes.challenge{value: 0.1 ether}(new IAssignmentAnchor.Certificate[](0), "evidence");
        chain = anchored();
        vm.expectPartialRevert(IDisputes.WrongBond.selector);
        disputes.challenge{value: 1}(chain, "evidence");
        uint256 id = challengeBy(STRANGER, chain);
        vm.deal(STRANGER, 1 ether);
        vm.prank(STRANGER);
        vm.expectPartialRevert(IDisputes.AlreadyChallenged.selector);
        disputes.challenge{value: 0.1 ether}(chain, "evidence");
        IDisputes.Challenge memory found = disputes.challengeOf(id);
        check(found.status == IDisputes.ChallengeStatus.Open && found.slot == 1, "open");
        check(found.certificate == anchors.hashOf(chain[0]), "of the certificate");
        check(disputes.openChallenges(cluster) == 1, "counted");

        bytes32[] memory culprits = new bytes32[](1);
        culprits[0] = peerOf(3);
        vm.prank(STRANGER);
        vm.expectPartialRevert(IVeilContract.NotGovernance.selector);
        disputes.resolve(id, true, culprits);
        disputes.resolve(id, true, culprits);
        check(registry.nodeOf(cluster, peerOf(3)).stake == 7.5 ether, "slashed");
        check(disputes.owedTo(STRANGER) == 0.1 ether + 0.25 ether, "bond and reward");
        vm.expectPartialRevert(IDisputes.ChallengeNotOpen.selector);
        disputes.resolve(id, false, culprits);

        // Another one who was right as well has the bond back, and nobody is punished twice.
        id = challengeBy(address(0x0c), chain);
        disputes.resolve(id, true, culprits);
        check(disputes.owedTo(address(0x0c)) == 0.1 ether, "the bond");
        check(registry.nodeOf(cluster, peerOf(3)).stake == 7.5 ether, "not again");

        // One that was wrong pays those it accused.
        id = challengeBy(STRANGER, chain);
        disputes.resolve(id, false, culprits);
        check(registry.nodeOf(cluster, peerOf(3)).stake == 7.5 ether, "not again");
        check(disputes.owedTo(address(this)) == 0.1 ether, "the operators of the committee");
        check(disputes.openChallenges(cluster) == 0, "none is open");
    }

    function test_a_challenge_that_is_not_decided_lapses() external {
        uint256 id = challengeBy(STRANGER, anchored());
        vm.expectPartialRevert(IDisputes.ChallengeNotLapsed.selector);
        disputes.lapse(id);
        vm.warp(block.timestamp + 30 days);
        vm.expectPartialRevert(IDisputes.ChallengeLapsed.selector);
        disputes.resolve(id, true, new bytes32[](0));
        vm.prank(address(0x0c)); // anyone
        disputes.lapse(id);
        check(disputes.challengeOf(id).status == IDisputes.ChallengeStatus.Lapsed, "lapsed");
        check(disputes.owedTo(STRANGER) == 0.1 ether, "the bond");
        vm.expectPartialRevert(IDisputes.ChallengeNotOpen.selector);
        disputes.lapse(id);
    }

    /// @dev Who was shared a bond, and has left since, is paid nothing: it is the cluster's.
    function test_the_share_of_who_left_is_the_clusters() external {
        uint256 id = challengeBy(STRANGER, anchored());
        registry.requestExit(cluster, peerOf(2));
        disputes.resolve(id, false, new bytes32[](0));
        check(disputes.owedTo(address(this)) == 0.075 ether, "three of four");
        check(pool.poolOf(cluster).balance == 0.025 ether, "in the pool");
    }

    /// @dev f(i) for the polynomial of degree 2 whose value at 0 is the group's key: 3 of 4 sign.
    function shareOf(uint256 i) private pure returns (uint256) {
        return addmod(GROUP + 1, mulmod(i, addmod(7919, mulmod(i, 104_729, N), N), N), N);
    }

    function verifyingLeaf(uint256 i) private pure returns (bytes32) {
        IVeilContract.Point memory key = identityKey(shareOf(i));
        bytes32 kind = keccak256("VerifyingShare(uint8 index,uint256 x,uint256 y)");
        return keccak256(bytes.concat(keccak256(abi.encode(kind, i, key.x, key.y))));
    }

    function pair(bytes32 a, bytes32 b) private pure returns (bytes32) {
        return a < b ? keccak256(abi.encode(a, b)) : keccak256(abi.encode(b, a));
    }

    /// @dev Epoch 1, whose group has shares.
    function publishShared() private {
        propose(proposal(1, 0));
        IKeyCeremony.Publication memory p = publication(1, 0, GROUP + 1);
        p.cluster = cluster;
        p.verifyingSharesRoot = pair(
            pair(verifyingLeaf(1), verifyingLeaf(2)), pair(verifyingLeaf(3), verifyingLeaf(4))
        );
        publishReady(p, GROUP + 1);
        ceremony.activate(cluster, 1, 0, Signer.sign(GROUP, handoverDigest(p)));
    }

    /// @dev Member i's share with nonce 1000 i of a signature by members 1, 2 and 3.
    function honestShare(uint256 i) private view returns (IDisputes.Share memory share) {
        share.cluster = cluster;
        share.epoch = 1;
        share.message = "message";
        share.signers = 7;
        share.groupCommitment = identityKey(6000);
        share.commitment = identityKey(1000 * i);
        uint256[4] memory lambda = [0, 3, N - 3, uint256(1)]; // of 1, 2, 3 at 0
        IVeilContract.CompressedPoint memory key = Signer.key(GROUP + 1);
        uint256 c = FrostVerifier.challenge(
            key.x, key.prefix, share.message, share.groupCommitment.x, share.groupCommitment.y
        );
        share.share = addmod(1000 * i, mulmod(mulmod(c, lambda[i], N), shareOf(i), N), N);
    }

    function shareDigest(IDisputes.Share memory share) private view returns (bytes32) {
        bytes32 kind = keccak256(
            "FrostShare(bytes32 cluster,uint64 epoch,bytes32 message,uint16 signers,uint256 groupCommitmentX,uint256 groupCommitmentY,uint256 commitmentX,uint256 commitmentY,uint256 share)"
        );
        return typedDigest(keccak256(bytes.concat(kind, abi.encode(share))));
    }

    function reportShare(IDisputes.Share memory share) private {
        IDisputes.Signed memory signed =
            IDisputes.Signed(identityKey(2), compact(2, shareDigest(share)));
        bytes32[] memory proof = new bytes32[](2);
        proof[0] = verifyingLeaf(1);
        proof[1] = pair(verifyingLeaf(3), verifyingLeaf(4));
        disputes.reportWrongShare(share, signed, identityKey(shareOf(2)), proof);
    }

    /// @dev What the shares add up to is a signature of the group, so that they are right.
    function test_right_shares_are_not_punished() external {
        publishShared();
        IVeilContract.FrostSignature memory sum;
        IVeilContract.Point memory r = identityKey(6000);
        (sum.rx, sum.ry) = (r.x, r.y);
        for (uint256 i = 1; i <= 3; ++i) {
            sum.z = addmod(sum.z, honestShare(i).share, N);
        }
        IVeilContract.CompressedPoint memory key = Signer.key(GROUP + 1);
        check(this.verify(key, "message", sum), "they are shares");
        IDisputes.Share memory share = honestShare(2);
        vm.expectPartialRevert(IDisputes.ShareIsValid.selector);
        reportShare(share);
    }

    /// @dev External, so that the library gets calldata.
    function verify(
        IVeilContract.CompressedPoint calldata key,
        bytes32 message,
        IVeilContract.FrostSignature calldata signature
    ) external view returns (bool) {
        return FrostVerifier.verify(key, message, signature);
    }

    function testFuzz_wrong_shares_cost_stake(uint256 wrong) external {
        publishShared();
        IDisputes.Share memory share = honestShare(2);
        wrong %= N;
        vm.assume(wrong != share.share);
        share.share = wrong;
        reportShare(share);
        check(registry.nodeOf(cluster, peerOf(2)).stake == 9 ether, "a tenth");
        vm.expectPartialRevert(IDisputes.AlreadyPunished.selector);
        reportShare(share);
    }

    function test_gas_of_a_wrong_share() external {
        publishShared();
        IDisputes.Share memory share = honestShare(2);
        share.share ^= 1;
        reportShare(share);
        vm.snapshotGasLastCall("Disputes", "report of a wrong share");
    }

    function test_what_proves_no_wrong_share() external {
        publishShared();
        IDisputes.Share memory share = honestShare(2);
        share.signers = 3;
        vm.expectPartialRevert(IDisputes.WrongSigners.selector);
        reportShare(share);
        share.signers = 13;
        vm.expectPartialRevert(IDisputes.WrongSigners.selector);
        reportShare(share);
        share.signers = 23;
        vm.expectPartialRevert(IDisputes.WrongSigners.selector);
        reportShare(share);
        share = honestShare(2);
        share.commitment.y ^= 1;
        vm.expectPartialRevert(IDisputes.MalformedShare.selector);
        reportShare(share);
        share = honestShare(2);
        share.share = N;
        vm.expectPartialRevert(IDisputes.MalformedShare.selector);
        reportShare(share);
        share = honestShare(2);
        share.epoch = 0; // whose key has no such verifying shares
        vm.expectPartialRevert(IDisputes.WrongVerifyingShare.selector);
        reportShare(share);
    }
}
