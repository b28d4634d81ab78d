// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAssignmentAnchor} from "../src/interfaces/IAssignmentAnchor.sol";
import {ICommitteeElection} from "../src/interfaces/ICommitteeElection.sol";
import {IDisputes} from "../src/interfaces/IDisputes.sol";
import {IKeyCeremony} from "../src/interfaces/IKeyCeremony.sol";
import {INodeRegistry} from "../src/interfaces/INodeRegistry.sol";
import {IVeilContract} from "../src/interfaces/IVeilContract.sol";
import {Base} from "./Base.sol";
import {Headers} from "./Headers.sol";
import {Signer} from "./Signer.sol";

/// @dev Does what the world does to an elected cluster: nodes come, stake, leave and withdraw; elections
/// are held; ceremonies succeed, fail and replace absentees; certificates are anchored, with old keys,
/// too; members equivocate. What must never happen is recorded where it would happen.
contract Handler is Base {
    uint256 private constant PEOPLE = 10;

    /// @dev Value that entered the registry, and left it.
    uint256 public paidIn;
    uint256 public paidOut;
    /// @dev Seats of the committee that was drawn last, as secrets.
    uint256[] private drawn;
    uint256 private random = 1;
    /// @dev Group keys of the epochs: GROUP + epoch.
    uint64 public epochs;
    /// @dev What was anchored last.
    bytes32 public head;
    uint64 public slot;
    uint64 public anchored;
    /// @dev What happened that must not, and how much happened at all.
    string public violation;
    mapping(bytes32 what => uint256) public done;

    function setUp() public override {
        super.setUp();
        INodeRegistry.Settings memory given = settings();
        given.elected = true;
        given.seatsPerOrganisation = 2;
        cluster = registry.registerCluster("elected", given);
        for (uint256 i = 1; i <= 8; ++i) {
            join(i, i * 1 ether);
        }
        // What follows is not worth much without a first key.
        elect(7);
        ceremonyRound(0, true);
    }

    function secretOf(uint256 i) private pure returns (uint256) {
        return i % PEOPLE + 1;
    }

    function join(uint256 i, uint256 stake) public {
        uint256 secret = secretOf(i);
        if (registry.stakeOf(cluster, peerOf(secret)).exitRequestedAt != 0) return;
        if (registry.operatorOf(cluster, peerOf(secret)) != address(0)) return;
        INodeRegistry.Registration memory node = registration(secret, MEMBER);
        node.organisation = bytes32(1 + secret / 2);
        stake %= 20 ether;
        register(node, secret, stake);
        paidIn += stake;
        ++done["join"];
    }

    function addStake(uint256 i, uint256 amount) external {
        bytes32 peer = peerOf(secretOf(i));
        if (registry.operatorOf(cluster, peer) == address(0)) return;
        amount = amount % 5 ether + 1;
        registry.increaseStake{value: amount}(cluster, peer);
        paidIn += amount;
        ++done["stake"];
    }

    function depart(uint256 i) external {
        bytes32 peer = peerOf(secretOf(i));
        if (registry.operatorOf(cluster, peer) == address(0)) return;
        if (registry.members(cluster).length <= 6) return;
        registry.requestExit(cluster, peer);
        ++done["leave"];
    }

    /// @dev Waits some days; stake must not leave the registry too early.
    function withdraw(uint256 i, uint256 time) external {
        vm.warp(block.timestamp + time % 4 days);
        bytes32 peer = peerOf(secretOf(i));
        INodeRegistry.Stake memory stake = registry.stakeOf(cluster, peer);
        uint256 before = address(this).balance;
        try registry.withdraw(cluster, peer) {
            uint256 amount = address(this).balance - before;
            if (amount != uint256(stake.active) + stake.added) violation = "wrong payment";
            bool over = epochs > stake.exitEpoch
                && block.timestamp >= ceremony.keyOf(cluster, stake.exitEpoch).publishedAt + 14 days;
            if (amount > 0 && !over && block.timestamp < stake.exitRequestedAt + 180 days) {
                violation = "paid too early";
            }
            paidOut += amount;
            ++done["withdraw"];
        } catch {}
    }

    function elect(uint256 entropy) public {
        try election.request(cluster, epochs) {}
        catch {
            if (election.electionOf(cluster, epochs).status != ICommitteeElection.Status.Requested)
            {
                return;
            }
        }
        INodeRegistry.Candidate[] memory list = registry.candidates(cluster, epochs);
        uint64 number = election.electionOf(cluster, epochs).randomBlock;
        random = uint256(keccak256(abi.encode(random, entropy)));
        bytes memory header = Headers.header(number, bytes32(random));
        vm.roll(number + 1);
        vm.setBlockhash(number, keccak256(header));
        try election.seal(cluster, epochs, list, header) {
            remember(list);
            ++done["elect"];
        } catch {
            election.expire(cluster, epochs);
        }
    }

    /// @dev Draws once more, to know who sits where; nobody may sit twice.
    function remember(INodeRegistry.Candidate[] memory list) private {
        ICommitteeElection.Election memory held = election.electionOf(cluster, epochs);
        delete drawn;
        if (held.status != ICommitteeElection.Status.Sealed) return;
        bytes memory front = abi.encode(
            keccak256("veil v1 election"), bytes32(random), block.chainid, address(directory)
        );
        bytes32 seed = keccak256(bytes.concat(front, abi.encode(cluster, epochs, held.round)));
        uint256[] memory positions = election.draw(seed, list, held.seats + held.standbys, 2);
        bytes32[] memory peers = new bytes32[](positions.length);
        for (uint256 k = 0; k < positions.length; ++k) {
            peers[k] = list[positions[k]].peer;
            for (uint256 secret = 1; secret <= PEOPLE; ++secret) {
                if (peerOf(secret) == peers[k]) drawn.push(secret);
            }
            for (uint256 j = 0; j < k; ++j) {
                if (peers[j] == peers[k]) violation = "a seat twice";
            }
        }
        if (keccak256(abi.encodePacked(peers)) != held.committeeHash) violation = "another draw";
    }

    /// @dev An attempt that fails, whose absentee is replaced, or one that publishes.
    function ceremonyRound(uint256 what, bool succeeds) public {
        if (drawn.length < 4) return;
        if (election.electionOf(cluster, epochs).status != ICommitteeElection.Status.Sealed) {
            return;
        }
        IVeilContract.Point[] memory keys = new IVeilContract.Point[](drawn.length);
        for (uint256 k = 0; k < drawn.length; ++k) {
            keys[k] = identityKey(drawn[k]);
        }
        uint32 attempt = ceremony.attempts(cluster, epochs);
        try ceremony.propose(proposal(epochs, attempt), keys) {}
        catch {
            return;
        }
        bytes32[] memory roster = ceremony.attemptOf(cluster, epochs, attempt).roster;
        for (uint256 i = 1; i < roster.length; ++i) {
            for (uint256 j = 0; j < i; ++j) {
                if (roster[i] == roster[j]) violation = "a seat twice after a replacement";
            }
        }
        bytes32 inForce = ceremony.verificationHash(cluster);
        if (succeeds) {
            publishBy(roster, attempt, what % 5 == 4);
            return;
        }
        ceremony.abort(cluster, epochs, attempt, "failed");
        replace(roster, attempt, uint8(what % 4 + 1));
        // It can never publish any more.
        publishBy(roster, attempt, false);
        if (ceremony.verificationHash(cluster) != inForce) violation = "a failed ceremony's key";
        ++done["fail"];
    }

    function secretsOf(bytes32[] memory roster) private pure returns (uint256[] memory secrets) {
        secrets = new uint256[](roster.length);
        for (uint256 i = 0; i < roster.length; ++i) {
            for (uint256 secret = 1; secret <= PEOPLE; ++secret) {
                if (peerOf(secret) == roster[i]) secrets[i] = secret;
            }
        }
    }

    /// @param forged Without the handover of the group in force.
    function publishBy(bytes32[] memory roster, uint32 attempt, bool forged) private {
        IKeyCeremony.Publication memory p = publication(epochs, attempt, GROUP + epochs);
        p.cluster = cluster;
        bytes32 digest = typedDigest(publicationHash(p));
        uint256[] memory secrets = secretsOf(roster);
        IVeilContract.CompactSignature[] memory members =
            new IVeilContract.CompactSignature[](secrets.length);
        for (uint256 i = 0; i < secrets.length; ++i) {
            members[i] = compact(secrets[i], digest);
        }
        IVeilContract.FrostSignature memory possession =
            Signer.sign(GROUP + epochs, possessionDigest(p));
        uint256 before = forged ? 77 : GROUP + epochs - 1;
        IVeilContract.FrostSignature memory handover = Signer.sign(before, handoverDigest(p));
        try ceremony.publish(p, members, possession, handover) {
            if (forged && epochs > 0) violation = "a handover that nobody signed";
            ++epochs;
            ++done["publish"];
            delete drawn;
        } catch {}
    }

    function replace(bytes32[] memory roster, uint32 attempt, uint8 absent) private {
        uint256[] memory secrets = secretsOf(roster);
        bytes32 digest = typedDigest(
            keccak256(
                abi.encode(
                    keccak256(
                        "MemberAbsence(bytes32 cluster,uint64 epoch,uint32 attempt,uint8 seat)"
                    ),
                    cluster,
                    epochs,
                    attempt,
                    absent
                )
            )
        );
        IKeyCeremony.Absence[] memory list = new IKeyCeremony.Absence[](2);
        uint256 found = 0;
        for (uint8 seat = 1; seat <= 4 && found < 2; ++seat) {
            if (seat == absent) continue;
            uint256 secret = secrets[seat - 1];
            list[found++] = IKeyCeremony.Absence(seat, identityKey(secret), compact(secret, digest));
        }
        try ceremony.replaceSeat(cluster, epochs, attempt, absent, list) {
            ++done["replace"];
        } catch {}
    }

    /// @dev By the key of any epoch, for any slot, on the head or on something else.
    function anchor(uint64 epoch, uint64 ahead, bool onHead) external {
        if (epochs == 0) return;
        // Mostly what can succeed.
        epoch = epoch % 3 == 0 ? epoch % epochs : epochs - 1;
        uint64 next = slot + ahead % 4;
        IAssignmentAnchor.Certificate memory c = IAssignmentAnchor.Certificate({
            cluster: cluster,
            epoch: epoch,
            keySet: keccak256("key set"),
            slot: next,
            manifest: keccak256("manifest"),
            previous: keccak256(abi.encode(ahead, "previous")),
            base: onHead ? head : keccak256("another"),
            jobsSeen: ahead,
            evaluation: ahead % 2 == 0 ? bytes32(0) : keccak256("evaluation"),
            membersOnly: 0,
            assignmentsRoot: keccak256(abi.encode(ahead)),
            stateRoot: keccak256("state"),
            referenceStringOrigin: 1
        });
        bytes32 hash = anchors.hashOf(c);
        try anchors.anchor(c, Signer.key(GROUP + epoch), Signer.sign(GROUP + epoch, hash)) {
            if (epoch + 1 != epochs) violation = "an old key anchored";
            if (next <= slot) violation = "the sequence did not increase";
            if (!onHead) violation = "not on the head";
            (head, slot, anchored) = (hash, next, anchored + 1);
            ++done["anchor"];
        } catch {}
    }

    function equivocate(uint256 i, uint64 inSlot, uint64 epoch) external {
        if (epochs == 0) return;
        epoch = epoch % epochs;
        uint256 secret = secretOf(i);
        IDisputes.Vote memory vote = IDisputes.Vote(cluster, epoch, inSlot, "a");
        uint256 before = address(disputes).balance;
        try disputes.reportEquivocation(
            vote, "b", identityKey(secret), signed(secret, vote, "a"), signed(secret, vote, "b")
        ) {
            paidOut += address(disputes).balance - before;
            ++done["slash"];
        } catch {}
    }

    function signed(uint256 secret, IDisputes.Vote memory vote, bytes32 certificate)
        private
        view
        returns (IVeilContract.CompactSignature memory)
    {
        bytes32 kind = keccak256(
            "CertificateVote(bytes32 cluster,uint64 epoch,uint64 slot,bytes32 certificate)"
        );
        return compact(
            secret,
            typedDigest(
                keccak256(abi.encode(kind, vote.cluster, vote.epoch, vote.slot, certificate))
            )
        );
    }

    function checkStake() external view {
        uint256 total = 0;
        for (uint256 secret = 1; secret <= PEOPLE; ++secret) {
            INodeRegistry.Stake memory stake = registry.stakeOf(cluster, peerOf(secret));
            total += uint256(stake.active) + stake.added;
        }
        check(address(registry).balance == total, "the registry holds the stakes, no more, no less");
        check(paidIn - paidOut == total, "what came in is there or went out");
    }

    function checkKeys() external view {
        check(ceremony.epochs(cluster) == epochs, "only ceremonies that succeeded made keys");
        check(anchors.headOf(cluster).slot == slot, "slot");
        check(anchors.headOf(cluster).hash == head, "head");
        check(anchors.headOf(cluster).count == anchored, "count");
    }

    function checkSlashes() external view {
        uint256 all = 0;
        for (uint64 epoch = 0; epoch < epochs; ++epoch) {
            (uint256 lost, uint256 limit) = disputes.lostByCommittee(cluster, epoch);
            check(lost <= limit, "the committee's cap");
            uint256 sum = 0;
            for (uint256 secret = 1; secret <= PEOPLE; ++secret) {
                sum += disputes.lostBy(cluster, epoch, peerOf(secret));
            }
            check(sum == lost, "the members' losses are the committee's");
            all += lost;
        }
        check(address(disputes).balance == all, "what was slashed is there");
        check(disputes.owedTo(address(this)) == all, "and is owed");
    }
}

contract InvariantsTest {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    Handler private handler;

    function setUp() external {
        handler = new Handler();
        (bool funded,) = address(handler).call{value: 10_000 ether}("");
        require(funded, "funds");
        handler.setUp();
    }

    /// @dev What forge may call.
    function targetSelectors() external view returns (FuzzSelector[] memory list) {
        list = new FuzzSelector[](1);
        list[0].addr = address(handler);
        list[0].selectors = new bytes4[](8);
        list[0].selectors[0] = Handler.join.selector;
        list[0].selectors[1] = Handler.addStake.selector;
        list[0].selectors[2] = Handler.depart.selector;
        list[0].selectors[3] = Handler.withdraw.selector;
        list[0].selectors[4] = Handler.elect.selector;
        list[0].selectors[5] = Handler.ceremonyRound.selector;
        list[0].selectors[6] = Handler.anchor.selector;
        list[0].selectors[7] = Handler.equivocate.selector;
    }

    function targetContracts() external view returns (address[] memory list) {
        list = new address[](1);
        list[0] = address(handler);
    }

    function invariant_stake_is_conserved() external view {
        handler.checkStake();
    }

    function invariant_keys_and_sequence() external view {
        handler.checkKeys();
    }

    function invariant_slashes_stay_within_their_caps() external view {
        handler.checkSlashes();
    }

    function invariant_nothing_happened_that_must_not() external view {
        require(bytes(handler.violation()).length == 0, handler.violation());
    }

    /// @dev The handler does all of it: an invariant over nothing would always hold.
    function test_the_handler_does_everything() external {
        for (uint256 i = 0; i < 12; ++i) {
            handler.anchor(uint64(i), 1, true);
            handler.depart(i);
            handler.join(i, 5 ether);
            handler.addStake(i + 1, 1 ether);
            handler.elect(i);
            handler.ceremonyRound(i, false);
            handler.equivocate(i, uint64(i), uint64(i));
            handler.ceremonyRound(1, true);
            handler.withdraw(i, 4 days - 1);
        }
        bytes32[9] memory all = [
            bytes32("join"),
            "stake",
            "leave",
            "withdraw",
            "elect",
            "fail",
            "replace",
            "publish",
            "slash"
        ];
        for (uint256 i = 0; i < all.length; ++i) {
            require(handler.done(all[i]) > 0, string(abi.encodePacked(all[i])));
        }
        require(handler.done("anchor") > 0, "anchor");
        handler.checkStake();
        handler.checkKeys();
        handler.checkSlashes();
    }
}
