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

/// @dev Does what the world does to an elected cluster, in any order: nodes come, stake, leave, are evicted and
/// withdraw; elections are held, extended and paid for again; ceremonies succeed, expire and are aborted;
/// certificates are anchored, with old keys, too; members equivocate, certificates are challenged; time passes.
/// Nobody has two roles: the admin, each operator, the reporter, the challengers, the guardian and governance,
/// which is this contract, are accounts of their own. What must never happen is recorded where it would happen.
contract Handler is Base {
    uint256 internal constant PEOPLE = 10;
    address internal constant ADMIN = address(0xad);
    address internal constant REPORTER = address(0x4e9);
    address internal constant CHALLENGER = address(0xc4a);

    /// @dev Value that entered the registry, and left it to operators or by slashes.
    uint256 public paidIn;
    uint256 public paidOut;
    uint256 public slashed;
    /// @dev Bonds that were put up, what was claimed, and what other draws cost.
    uint256 public bonds;
    uint256 public claimed;
    uint256 public redrawn;
    /// @dev What was drawn last, of which round and when.
    uint256[] internal seats;
    INodeRegistry.Candidate[] internal frozen;
    uint32 private round;
    uint64 private sealedAt;
    uint256 private random = 1;
    /// @dev Group keys of the epochs: GROUP + epoch.
    uint64 public epochs;
    /// @dev What was anchored last.
    IAssignmentAnchor.Certificate internal last;
    bytes32 public head;
    uint64 public slot;
    uint64 public anchored;
    uint256 public challenges;
    /// @dev What a member had and has lost since the first slash of the last fourteen days.
    mapping(bytes32 peer => uint256[3]) private losses;
    /// @dev What happened that must not, and how much happened at all.
    string public violation;
    mapping(bytes32 what => uint256) public done;
    uint256 public successes;

    function setUp() public override {
        super.setUp();
        INodeRegistry.Settings memory given = settings();
        given.elected = true;
        given.seatsPerOrganisation = 2;
        vm.prank(ADMIN);
        cluster = registry.registerCluster("elected", given);
        for (uint256 i = 1; i <= 8; ++i) {
            join(i, i * 1 ether);
        }
        // What follows is not worth much without a first key.
        elect(7);
        ceremonyRound(0, 0);
    }

    function did(bytes32 what) internal {
        ++done[what];
        ++successes;
    }

    function secretOf(uint256 i) internal pure returns (uint256) {
        return i % PEOPLE + 1;
    }

    function operatorOf(uint256 secret) internal pure returns (address) {
        return address(uint160(0x1000 + secret));
    }

    function join(uint256 i, uint256 stake) public {
        uint256 secret = secretOf(i);
        bytes32 peer = peerOf(secret);
        if (registry.stakeOf(cluster, peer).exitRequestedAt != 0) return;
        if (registry.operatorOf(cluster, peer) != address(0)) return;
        INodeRegistry.Registration memory node = registration(secret, MEMBER);
        node.organisation = bytes32(1 + secret / 2);
        stake %= 20 ether;
        INodeRegistry.Approval memory given = approval(operatorOf(secret), MEMBER);
        given.organisation = node.organisation;
        vm.prank(ADMIN);
        registry.approve(cluster, peer, given);
        uint32 nonce = registry.registrations(cluster, peer);
        bytes32 digest = registrationDigest(node, peer, operatorOf(secret), nonce);
        vm.deal(operatorOf(secret), operatorOf(secret).balance + stake);
        vm.prank(operatorOf(secret));
        registry.register{value: stake}(node, compact(secret, digest));
        paidIn += stake;
        did("join");
    }

    function addStake(uint256 i, uint256 amount) external {
        uint256 secret = secretOf(i);
        if (registry.operatorOf(cluster, peerOf(secret)) == address(0)) return;
        amount = amount % 5 ether + 1;
        vm.deal(operatorOf(secret), operatorOf(secret).balance + amount);
        vm.prank(operatorOf(secret));
        registry.increaseStake{value: amount}(cluster, peerOf(secret));
        paidIn += amount;
        did("stake");
    }

    function depart(uint256 i) external {
        uint256 secret = secretOf(i);
        if (registry.operatorOf(cluster, peerOf(secret)) == address(0)) return;
        if (registry.members(cluster).length <= 6) return;
        vm.prank(operatorOf(secret));
        registry.requestExit(cluster, peerOf(secret));
        did("leave");
    }

    /// @dev Whom the admin evicts stays a candidate of the next election.
    function evict(uint256 i) external {
        bytes32 peer = peerOf(secretOf(i));
        if (registry.members(cluster).length <= 6) return;
        uint256 before = registry.candidates(cluster, epochs).length;
        bool announced = registry.stakeOf(cluster, peer).exitEpoch != 0;
        vm.prank(ADMIN);
        try registry.requestExit(cluster, peer) {
            bool same = registry.candidates(cluster, epochs).length == before;
            if (!announced && !same) violation = "evicted at once";
            did("evict");
        } catch {}
    }

    /// @dev Stake must not leave the registry while it may be disputed, half a year excepted.
    function withdraw(uint256 i, uint256 time) external {
        vm.warp(block.timestamp + time % 4 days);
        bytes32 peer = peerOf(secretOf(i));
        address operator = operatorOf(secretOf(i));
        INodeRegistry.Stake memory stake = registry.stakeOf(cluster, peer);
        uint256 before = operator.balance;
        try registry.withdraw(cluster, peer) {
            uint256 amount = operator.balance - before;
            if (amount != uint256(stake.active) + stake.added) violation = "wrong payment";
            bool early = block.timestamp < stake.exitRequestedAt + 180 days;
            for (uint64 epoch = 0; amount > 0 && early && epoch < epochs; ++epoch) {
                bool over = epoch + 1 < epochs
                    && block.timestamp >= ceremony.keyOf(cluster, epoch + 1).publishedAt + 14 days;
                if (!over && ceremony.seatOf(cluster, epoch, peer) != 0) {
                    violation = "paid while it can be disputed";
                }
            }
            paidOut += amount;
            did("withdraw");
        } catch {}
    }

    /// @dev A first draw, or another one, for which the reporter pays.
    function elect(uint256 entropy) public {
        ICommitteeElection.Election memory held = election.electionOf(cluster, epochs);
        bool again = held.status == ICommitteeElection.Status.Sealed;
        vm.deal(REPORTER, 1 ether);
        vm.prank(REPORTER);
        try election.request{value: again ? 1 ether : 0}(cluster, epochs) {
            if (again && block.timestamp < held.sealedAt + 7 days) violation = "drawn again";
            if (again) redrawn += 1 ether;
            delete frozen;
            INodeRegistry.Candidate[] memory list = registry.candidates(cluster, epochs);
            for (uint256 k = 0; k < list.length; ++k) {
                frozen.push(list[k]);
            }
        } catch {
            if (held.status != ICommitteeElection.Status.Requested) return;
        }
        uint64 number = election.electionOf(cluster, epochs).randomBlock;
        random = uint256(keccak256(abi.encode(random, entropy)));
        bytes memory header = Headers.header(number, bytes32(random));
        vm.roll(number + 1);
        vm.setBlockhash(number, keccak256(header));
        try election.seal(cluster, epochs, frozen, header) {
            remember();
            did("elect");
        } catch {
            election.expire(cluster, epochs);
        }
    }

    function extend() external {
        uint256[] memory before = seats;
        try election.extend(cluster, epochs, frozen) {
            remember();
            for (uint256 k = 0; k < before.length; ++k) {
                if (seats[k] != before[k]) violation = "another draw";
            }
            did("extend");
        } catch {}
    }

    /// @dev Draws once more, to know who sits where; nobody may sit twice, and no organisation too often.
    function remember() private {
        ICommitteeElection.Election memory held = election.electionOf(cluster, epochs);
        delete seats;
        if (held.status != ICommitteeElection.Status.Sealed) return;
        bytes memory front = abi.encode(
            keccak256("veil v1 election"), bytes32(random), block.chainid, address(directory)
        );
        bytes32 seed = keccak256(bytes.concat(front, abi.encode(cluster, epochs, held.round)));
        uint256[] memory positions = election.draw(seed, frozen, held.seats + held.standbys, 2);
        bytes32[] memory peers = new bytes32[](positions.length);
        for (uint256 k = 0; k < positions.length; ++k) {
            peers[k] = frozen[positions[k]].peer;
            seats.push(secretOfPeer(peers[k]));
            uint256 own = 0;
            for (uint256 j = 0; j < k; ++j) {
                if (peers[j] == peers[k]) violation = "a seat twice";
                if (seats[j] / 2 == seats[k] / 2) ++own;
            }
            if (own >= 2) violation = "an organisation beyond its limit";
        }
        if (keccak256(abi.encodePacked(peers)) != held.committeeHash) violation = "another hash";
    }

    function secretOfPeer(bytes32 peer) private pure returns (uint256 secret) {
        for (secret = 1; secret < PEOPLE && peerOf(secret) != peer; ++secret) {}
    }

    /// @dev An attempt that publishes, whose handover is forged, that expires with a member absent, or that a
    /// member's operator aborts.
    function ceremonyRound(uint256 what, uint256 outcome) public {
        outcome %= 4;
        uint32 attempt = ceremony.attempts(cluster, epochs);
        IKeyCeremony.Proposal memory given = proposal(epochs, attempt);
        IVeilContract.Point[] memory keys = keysOf(seats);
        vm.prank(ADMIN);
        try ceremony.propose(given, keys) {}
        catch {
            return;
        }
        bytes32[] memory roster = ceremony.attemptOf(cluster, epochs, attempt).roster;
        for (uint256 i = 0; i < roster.length; ++i) {
            if (ceremony.hasForfeited(cluster, epochs, roster[i])) violation = "a forfeited seat";
            if (registry.operatorOf(cluster, roster[i]) == address(0)) violation = "one that left";
            for (uint256 j = 0; j < i; ++j) {
                if (roster[i] == roster[j]) violation = "a seat twice after a replacement";
            }
        }
        bytes32 inForce = ceremony.verificationHash(cluster);
        if (outcome < 2) {
            publishBy(roster, attempt, outcome == 1);
            return;
        }
        if (outcome == 2) {
            vm.warp(block.timestamp + 3601);
            replace(roster, attempt, uint8(what % 4 + 1));
        } else {
            vm.prank(registry.operatorOf(cluster, roster[what % 4]));
            ceremony.abort(cluster, epochs, attempt, "failed");
            did("abort");
        }
        // It can never publish any more.
        publishBy(roster, attempt, false);
        if (ceremony.verificationHash(cluster) != inForce) violation = "a failed ceremony's key";
        did("fail");
    }

    /// @param forged By another group than the one in force.
    function publishBy(bytes32[] memory roster, uint32 attempt, bool forged) private {
        IKeyCeremony.Publication memory p = publication(epochs, attempt, GROUP + epochs);
        p.cluster = cluster;
        bytes32 digest = typedDigest(publicationHash(p));
        IVeilContract.CompactSignature[] memory members =
            new IVeilContract.CompactSignature[](roster.length);
        for (uint256 i = 0; i < roster.length; ++i) {
            members[i] = compact(secretOfPeer(roster[i]), digest);
        }
        try ceremony.publish(p, members, Signer.sign(GROUP + epochs, possessionDigest(p))) {}
        catch {
            return;
        }
        if (epochs > 0) {
            if (ceremony.epochs(cluster) != epochs) violation = "in force without a handover";
            uint256 before = forged ? 77 : GROUP + epochs - 1;
            IVeilContract.FrostSignature memory handover = Signer.sign(before, handoverDigest(p));
            try ceremony.activate(cluster, epochs, head, handover) {
                if (forged) violation = "a handover that nobody signed";
            } catch {
                if (!forged && !ceremony.isSuspended(cluster, epochs - 1)) violation = "refused";
                return;
            }
        }
        ++epochs;
        did("publish");
        delete seats;
    }

    function replace(bytes32[] memory roster, uint32 attempt, uint8 absent) private {
        bytes32 digest = absenceDigest(epochs, attempt, absent);
        IKeyCeremony.Absence[] memory list = new IKeyCeremony.Absence[](2);
        uint256 found = 0;
        for (uint8 seat = 1; seat <= 4 && found < 2; ++seat) {
            if (seat == absent) continue;
            uint256 secret = secretOfPeer(roster[seat - 1]);
            list[found++] = IKeyCeremony.Absence(seat, identityKey(secret), compact(secret, digest));
        }
        ceremony.replaceSeat(cluster, epochs, attempt, absent, list);
        did("replace");
    }

    /// @dev By the key of any epoch, for any slot, on the head or on something else.
    function anchor(uint64 epoch, uint64 ahead, bool onHead) external {
        // Mostly what can succeed.
        epoch = epoch % 3 == 0 ? epoch % epochs : epochs - 1;
        uint64 next = slot + ahead % 4;
        IAssignmentAnchor.Certificate memory c;
        (c.cluster, c.epoch, c.slot) = (cluster, epoch, next);
        c.keySet = keccak256("key set");
        c.base = onHead ? head : keccak256("another");
        c.evaluation = ahead % 2 == 0 ? bytes32(0) : keccak256("evaluation");
        c.assignmentsRoot = keccak256(abi.encode(ahead));
        c.referenceStringOrigin = 0;
        bytes32 hash = anchors.hashOf(c);
        try anchors.anchor(c, Signer.key(GROUP + epoch), Signer.sign(GROUP + epoch, hash)) {
            if (epoch + 1 != epochs) violation = "an old key anchored";
            if (next <= slot) violation = "the sequence did not increase";
            if (!onHead) violation = "not on the head";
            (head, slot, anchored, last) = (hash, next, anchored + 1, c);
            did("anchor");
        } catch {}
    }

    function wait(uint256 time) external {
        vm.warp(block.timestamp + time % 30 days);
        did("wait");
    }

    function equivocate(uint256 i, uint64 inSlot, uint64 epoch) external {
        epoch = epoch % epochs;
        uint256 secret = secretOf(i);
        IDisputes.Vote memory vote = IDisputes.Vote(cluster, epoch, inSlot, "a");
        (uint256 before, uint256 had) = (address(registry).balance, total(peerOf(secret)));
        IVeilContract.Point memory key = identityKey(secret);
        IVeilContract.CompactSignature memory a = signed(secret, vote, "a");
        IVeilContract.CompactSignature memory b = signed(secret, vote, "b");
        vm.prank(REPORTER);
        try disputes.reportEquivocation(vote, "b", key, a, b) {
            loses(peerOf(secret), had, before - address(registry).balance);
            did("slash");
        } catch {}
    }

    function challenge() external {
        if (anchored == 0) return;
        IAssignmentAnchor.Certificate[] memory chain = new IAssignmentAnchor.Certificate[](1);
        chain[0] = last;
        address by = address(uint160(CHALLENGER) + uint160(challenges % 2));
        vm.deal(by, by.balance + 0.1 ether);
        vm.prank(by);
        try disputes.challenge{value: 0.1 ether}(chain, "evidence") {
            bonds += 0.1 ether;
            ++challenges;
            did("challenge");
        } catch {}
    }

    function decide(uint256 id, uint256 who, bool upheld) external {
        if (challenges == 0) return;
        id %= challenges;
        bytes32[] memory culprits = new bytes32[](1);
        culprits[0] = peerOf(secretOf(who));
        (uint256 before, uint256 had) = (address(registry).balance, total(culprits[0]));
        try disputes.resolve(id, upheld, culprits) {
            loses(culprits[0], had, before - address(registry).balance);
            did("resolve");
        } catch {
            try disputes.lapse(id) {
                if (block.timestamp < disputes.challengeOf(id).openedAt + 30 days) {
                    violation = "lapsed early";
                }
                did("lapse");
            } catch {}
        }
    }

    function claim(uint256 i) external {
        address[3] memory who = [REPORTER, CHALLENGER, operatorOf(secretOf(i))];
        uint256 before = address(disputes).balance;
        try disputes.claim(who[i % 3]) {
            claimed += before - address(disputes).balance;
            did("claim");
        } catch {}
    }

    function total(bytes32 peer) internal view returns (uint256) {
        INodeRegistry.Stake memory stake = registry.stakeOf(cluster, peer);
        return uint256(stake.active) + stake.added;
    }

    /// @dev In fourteen days nobody loses more than half of what it had at the first slash of them.
    function loses(bytes32 peer, uint256 had, uint256 amount) private {
        slashed += amount;
        uint256[3] storage loss = losses[peer];
        if (loss[0] == 0 || block.timestamp >= loss[2] + 14 days) {
            losses[peer] = [had, 0, block.timestamp];
        }
        loss[1] += amount;
        if (loss[1] > loss[0] / 2) violation = "more than half in fourteen days";
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
}
