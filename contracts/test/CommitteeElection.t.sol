// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {CommitteeElection} from "../src/CommitteeElection.sol";
import {ICommitteeElection} from "../src/interfaces/ICommitteeElection.sol";
import {IKeyCeremony} from "../src/interfaces/IKeyCeremony.sol";
import {INodeRegistry} from "../src/interfaces/INodeRegistry.sol";
import {IVeilContract} from "../src/interfaces/IVeilContract.sol";
import {Base} from "./Base.sol";
import {Headers} from "./Headers.sol";

contract CommitteeElectionTest is Base {
    function elected(uint8 seats, uint8 standbys, uint8 limit) private {
        INodeRegistry.Settings memory given = settings();
        (given.committeeSize, given.standbys, given.seatsPerOrganisation) = (seats, standbys, limit);
        given.elected = true;
        cluster = registry.registerCluster(keccak256(abi.encode(seats, standbys, limit)), given);
    }

    /// @dev Members 1 to `count` with different stakes, `each` of every organisation.
    function registerCandidates(uint256 count, uint256 each) private {
        for (uint256 i = 1; i <= count; ++i) {
            INodeRegistry.Registration memory node = registration(i, MEMBER);
            node.organisation = bytes32("organisation") | bytes32((i - 1) / each);
            register(node, i, i * 1 ether);
        }
    }

    /// @dev A block whose prevrandao is known, and later ones.
    function mine(uint256 number, bytes32 random) private returns (bytes memory header) {
        header = Headers.header(number, random);
        vm.roll(number + 1);
        vm.setBlockhash(number, keccak256(header));
    }

    function request() private returns (INodeRegistry.Candidate[] memory, uint64) {
        election.request(cluster, 0);
        return (registry.candidates(cluster, 0), election.electionOf(cluster, 0).randomBlock);
    }

    function seed(bytes32 random, uint32 round) private view returns (bytes32) {
        bytes memory first = front(random, block.chainid, address(directory));
        return keccak256(bytes.concat(first, abi.encode(cluster, uint64(0), round)));
    }

    function front(bytes32 random, uint256 chain, address to) private pure returns (bytes memory) {
        return abi.encode(keccak256("veil v1 election"), random, chain, to);
    }

    function gasOf(string memory name, uint8 seats, uint8 standbys, uint256 count) private {
        elected(seats, standbys, 2);
        registerCandidates(count, 2);
        election.request(cluster, 0);
        vm.snapshotGasLastCall("CommitteeElection", string.concat("request, ", name));
        INodeRegistry.Candidate[] memory list = registry.candidates(cluster, 0);
        uint64 number = election.electionOf(cluster, 0).randomBlock;
        bytes memory header = mine(number, keccak256("random"));
        election.seal(cluster, 0, list, header);
        vm.snapshotGasLastCall("CommitteeElection", string.concat("seal, ", name));
        ICommitteeElection.Election memory found = election.electionOf(cluster, 0);
        check(found.seats == seats && found.standbys == standbys, "filled");
    }

    function test_gas_of_a_small_election() external {
        gasOf("7 and 2 of 32", 7, 2, 32);
    }

    function test_gas_of_a_large_election() external {
        gasOf("13 and 4 of 128", 13, 4, 128);
    }

    function test_an_election_from_request_to_ceremony() external {
        elected(4, 2, 0);
        registerCandidates(10, 1);
        vm.prank(STRANGER); // anyone
        (INodeRegistry.Candidate[] memory list, uint64 number) = request();
        check(number == block.number + DELAY_BLOCKS, "block");
        vm.expectPartialRevert(ICommitteeElection.AlreadyRequested.selector);
        election.request(cluster, 0);

        // Who comes, stakes or leaves now changes nothing.
        registry.increaseStake{value: 100 ether}(cluster, peerOf(1));
        registry.requestExit(cluster, peerOf(2));
        vm.expectPartialRevert(ICommitteeElection.TooEarly.selector);
        election.seal(cluster, 0, list, "");
        bytes memory header = mine(number, "random");
        INodeRegistry.Candidate[] memory changed = registry.candidates(cluster, 0);
        vm.expectPartialRevert(ICommitteeElection.WrongCandidates.selector);
        election.seal(cluster, 0, changed, header);
        bytes memory forged = Headers.header(number, "other random");
        vm.expectPartialRevert(ICommitteeElection.WrongHeader.selector);
        election.seal(cluster, 0, list, forged);
        IKeyCeremony.Proposal memory early = proposal(0, 0);
        vm.expectPartialRevert(IKeyCeremony.NoCommittee.selector);
        ceremony.propose(early, new IVeilContract.Point[](0));

        vm.prank(STRANGER);
        election.seal(cluster, 0, list, header);
        vm.expectPartialRevert(ICommitteeElection.NotRequested.selector);
        election.seal(cluster, 0, list, header);
        vm.expectPartialRevert(ICommitteeElection.DrawnAlready.selector);
        election.request(cluster, 0);

        uint256[] memory drawn = election.draw(seed("random", 1), list, 6, 0);
        IVeilContract.Point[] memory keys = new IVeilContract.Point[](6);
        bytes32[] memory peers = new bytes32[](6);
        for (uint256 i = 0; i < 6; ++i) {
            keys[i] = identityKey(drawn[i] + 1);
            peers[i] = peerOf(drawn[i] + 1);
        }
        bytes32 hash = keccak256(abi.encodePacked(peers));
        check(election.electionOf(cluster, 0).committeeHash == hash, "committee");
        IKeyCeremony.Proposal memory given = proposal(0, 0);
        given.deadline = uint64(block.timestamp) + 599;
        vm.expectPartialRevert(IKeyCeremony.InvalidDeadline.selector);
        ceremony.propose(given, keys);
        given = proposal(0, 0);
        ceremony.propose(given, keys);
        bytes32[] memory roster = ceremony.attemptOf(cluster, 0, 0).roster;
        for (uint256 i = 0; i < 4; ++i) {
            check(roster[i] == peers[i], "seat");
        }
        (keys[0], keys[1]) = (keys[1], keys[0]);
        vm.warp(given.deadline + 1);
        given = proposal(0, 1);
        vm.expectPartialRevert(IKeyCeremony.WrongRoster.selector);
        ceremony.propose(given, keys);
    }

    /// @dev An epoch is drawn for once: failed attempts bring no other draw about, however many. A week later
    /// one may be paid for, if none is under way.
    function test_another_draw_is_late_and_costs() external {
        elected(4, 2, 0);
        registerCandidates(10, 1);
        (INodeRegistry.Candidate[] memory list, uint64 number) = request();
        bytes memory header = mine(number, "random");
        election.seal(cluster, 0, list, header);
        uint64 sealedAt = election.electionOf(cluster, 0).sealedAt;
        IVeilContract.Point[] memory keys = keysOf(secretsDrawn("random", 1, list, 6));
        vm.deal(STRANGER, 3 ether);
        for (uint32 attempt = 0; attempt < 10; ++attempt) {
            IKeyCeremony.Proposal memory given = proposal(0, attempt);
            ceremony.propose(given, keys);
            vm.warp(given.deadline + 1);
            vm.prank(STRANGER);
            vm.expectPartialRevert(ICommitteeElection.DrawnAlready.selector);
            election.request{value: 1 ether}(cluster, 0);
        }
        vm.warp(sealedAt + 7 days - 1);
        ceremony.propose(proposal(0, 10), keys);
        vm.warp(sealedAt + 7 days);
        vm.prank(STRANGER);
        vm.expectPartialRevert(ICommitteeElection.AlreadyRequested.selector);
        election.request{value: 1 ether}(cluster, 0);
        vm.warp(sealedAt + 8 days);
        vm.expectPartialRevert(ICommitteeElection.WrongPrice.selector);
        election.request(cluster, 0);
        vm.prank(STRANGER);
        election.request{value: 1 ether}(cluster, 0);
        check(address(0).balance == 1 ether, "burnt");
        check(election.electionOf(cluster, 0).round == 2, "second round");
        list = registry.candidates(cluster, 0);
        // The same prevrandao draws others: the round is in the seed.
        bytes32 before = election.electionOf(cluster, 0).committeeHash;
        header = mine(election.electionOf(cluster, 0).randomBlock, "random");
        election.seal(cluster, 0, list, header);
        check(election.electionOf(cluster, 0).committeeHash != before, "another committee");
        vm.prank(STRANGER);
        vm.expectPartialRevert(ICommitteeElection.DrawnAlready.selector);
        election.request{value: 1 ether}(cluster, 0);
        // The next week begins with it.
        check(election.electionOf(cluster, 0).sealedAt == block.timestamp, "anew");
    }

    /// @dev More standbys are those that the same draw would have given at once, behind those there are.
    function test_a_draw_goes_on_where_it_ended() external {
        elected(4, 2, 2);
        registerCandidates(10, 2);
        (INodeRegistry.Candidate[] memory list, uint64 number) = request();
        vm.expectPartialRevert(ICommitteeElection.NotSealed.selector);
        election.extend(cluster, 0, list);
        bytes memory header = mine(number, "random");
        election.seal(cluster, 0, list, header);
        vm.expectPartialRevert(ICommitteeElection.WrongCandidates.selector);
        election.extend(cluster, 0, new INodeRegistry.Candidate[](0));
        vm.prank(STRANGER); // anyone
        election.extend(cluster, 0, list);
        ICommitteeElection.Election memory found = election.electionOf(cluster, 0);
        check(found.seats == 4 && found.standbys == 4, "two more");
        uint256[] memory more = secretsDrawn("random", 1, list, 8);
        bytes32[] memory peers = new bytes32[](8);
        for (uint256 i = 0; i < 8; ++i) {
            peers[i] = peerOf(more[i]);
        }
        check(found.committeeHash == keccak256(abi.encodePacked(peers)), "of the same draw");
        election.extend(cluster, 0, list);
        check(election.electionOf(cluster, 0).standbys == 6, "all ten");
        vm.expectPartialRevert(ICommitteeElection.NobodyLeft.selector);
        election.extend(cluster, 0, list);
    }

    /// @dev The secrets of those that are drawn.
    function secretsDrawn(
        bytes32 random,
        uint32 round,
        INodeRegistry.Candidate[] memory list,
        uint8 count
    ) private view returns (uint256[] memory secretsOfDrawn) {
        uint8 limit = registry.clusterOf(cluster).seatsPerOrganisation;
        secretsOfDrawn = election.draw(seed(random, round), list, count, limit);
        for (uint256 i = 0; i < secretsOfDrawn.length; ++i) {
            secretsOfDrawn[i] += 1;
        }
    }

    /// @dev The admin proposes, but cannot end an elected committee's attempt and so use them up.
    function test_only_members_abort_an_elected_committees_attempt() external {
        address admin = address(0xad);
        INodeRegistry.Settings memory given = settings();
        (given.elected, given.standbys) = (true, 0);
        vm.prank(admin);
        cluster = registry.registerCluster(0, given);
        for (uint256 i = 1; i <= 4; ++i) {
            vm.prank(admin);
            registry.approve(cluster, peerOf(i), approval(address(this), MEMBER));
            register(i, MEMBER);
        }
        (INodeRegistry.Candidate[] memory list, uint64 number) = request();
        bytes memory header = mine(number, "random");
        election.seal(cluster, 0, list, header);
        uint256[] memory drawn = election.draw(seed("random", 1), list, 4, 0);
        IVeilContract.Point[] memory keys = new IVeilContract.Point[](4);
        for (uint256 i = 0; i < 4; ++i) {
            keys[i] = identityKey(drawn[i] + 1);
        }
        IKeyCeremony.Proposal memory p = proposal(0, 0);
        vm.prank(admin);
        ceremony.propose(p, keys);
        vm.prank(admin);
        vm.expectPartialRevert(IKeyCeremony.NotAParticipant.selector);
        ceremony.abort(cluster, 0, 0, "again");
        ceremony.abort(cluster, 0, 0, "a member"); // whose operator this is
        for (uint256 i = 1; i <= 4; ++i) {
            check(ceremony.hasForfeited(cluster, 0, peerOf(i)), "and has no seat any more");
        }
    }

    function test_an_unsealed_election_gets_another_block() external {
        elected(4, 0, 0);
        registerCandidates(5, 1);
        (INodeRegistry.Candidate[] memory list, uint64 number) = request();
        vm.expectPartialRevert(ICommitteeElection.TooEarly.selector);
        election.expire(cluster, 0);
        bytes memory header = mine(number, "random");
        vm.expectPartialRevert(ICommitteeElection.NotExpired.selector);
        election.expire(cluster, 0);
        vm.roll(number + 10_000);
        vm.expectPartialRevert(ICommitteeElection.BlockHashUnavailable.selector);
        election.seal(cluster, 0, list, header);
        vm.prank(STRANGER);
        election.expire(cluster, 0);
        number = election.electionOf(cluster, 0).randomBlock;
        check(number == block.number + DELAY_BLOCKS, "another block");
        header = mine(number, "other random");
        election.seal(cluster, 0, list, header);
    }

    /// @dev EIP-2935: the history contract answers for blocks that the opcode has forgotten.
    function test_a_block_of_the_history_contract_is_provable() external {
        elected(4, 0, 0);
        registerCandidates(5, 1);
        (INodeRegistry.Candidate[] memory list, uint64 number) = request();
        bytes memory header = mine(number, "random");
        vm.roll(number + 5000);
        address history = 0x0000F90827F1C53a10cb7A02335B175320002935;
        // The code that the EIP gives.
        vm.etch(
            history,
            hex"3373fffffffffffffffffffffffffffffffffffffffe14604657602036036042575f35600143038111604257611fff81430311604257611fff9006545f5260205ff35b5f5ffd5b5f35611fff60014303065500"
        );
        vm.store(history, bytes32(uint256(number) % 8191), keccak256(header));
        election.seal(cluster, 0, list, header);
        check(election.electionOf(cluster, 0).status == ICommitteeElection.Status.Sealed, "sealed");
    }

    /// @dev The limit may leave seats empty: the election fails, and can be held again.
    function test_an_election_without_enough_organisations_fails_and_is_repeated() external {
        elected(4, 0, 1);
        registerCandidates(5, 5);
        (INodeRegistry.Candidate[] memory list, uint64 number) = request();
        bytes memory header = mine(number, "random");
        election.seal(cluster, 0, list, header);
        check(election.electionOf(cluster, 0).status == ICommitteeElection.Status.Failed, "failed");
        for (uint256 i = 6; i <= 8; ++i) {
            INodeRegistry.Registration memory node = registration(i, MEMBER);
            node.organisation = bytes32(i);
            register(node, i, 0);
        }
        (list, number) = request();
        header = mine(number, "random");
        election.seal(cluster, 0, list, header);
        check(election.electionOf(cluster, 0).seats == 4, "four organisations");
    }

    function test_who_cannot_hold_an_election() external {
        vm.expectPartialRevert(ICommitteeElection.TooEarly.selector);
        new CommitteeElection(address(directory), registry, 0, 0);
        vm.expectPartialRevert(ICommitteeElection.NotElected.selector);
        election.request(cluster, 0);
        elected(4, 0, 0);
        registerCandidates(3, 1);
        vm.expectPartialRevert(ICommitteeElection.TooFewCandidates.selector);
        election.request(cluster, 0);
        vm.expectPartialRevert(ICommitteeElection.WrongEpoch.selector);
        election.request(cluster, 1);
    }

    function test_a_header_that_is_no_header_is_refused() external {
        elected(4, 0, 0);
        registerCandidates(4, 1);
        (INodeRegistry.Candidate[] memory list, uint64 number) = request();
        bytes[4] memory headers =
            [bytes(hex"c0"), hex"f90102", hex"01020304", hex"cd80808080808080808080808080"];
        vm.roll(number + 1);
        for (uint256 i = 0; i < 4; ++i) {
            vm.setBlockhash(number, keccak256(headers[i]));
            vm.expectPartialRevert(ICommitteeElection.MalformedHeader.selector);
            election.seal(cluster, 0, list, headers[i]);
        }
    }

    /// @dev Nobody is drawn twice, no organisation beyond its limit, and nobody is left out while
    /// there are seats.
    function testFuzz_the_draw(
        bytes32 random,
        uint64[12] calldata weights,
        uint8 count,
        uint8 limit
    ) external view {
        count = count % 14;
        limit = limit % 4;
        INodeRegistry.Candidate[] memory list = new INodeRegistry.Candidate[](12);
        for (uint256 i = 0; i < 12; ++i) {
            list[i] = INodeRegistry.Candidate(
                bytes32(i), bytes7(uint56(i / 3)), weights[i] % 2 ** 60 + 1
            );
        }
        uint256[] memory drawn = election.draw(random, list, count, limit);
        uint256 most = limit == 0 || limit >= 3 ? 12 : 4 * uint256(limit);
        check(drawn.length == (count < most ? count : most), "filled");
        uint256[4] memory seats;
        uint256 seen = 0;
        for (uint256 k = 0; k < drawn.length; ++k) {
            check(drawn[k] < 12 && (seen >> drawn[k]) & 1 == 0, "twice");
            seen |= 1 << drawn[k];
            ++seats[drawn[k] / 3];
        }
        for (uint256 i = 0; i < 4; ++i) {
            check(limit == 0 || seats[i] <= limit, "limit");
        }
    }

    /// @dev protocol-spec/vectors/election.json: the Rust crate draws, the contract draws the same.
    function test_the_draw_is_that_of_the_rust_crate() external view {
        string memory json = vm.readFile("../protocol-spec/vectors/election.json");
        uint256 cases = vm.parseJsonUint(json, ".count");
        for (uint256 i = 0; i < cases; ++i) {
            string memory place = string.concat(".cases[", vm.toString(i), "]");
            bytes32 given = seedOf(json, place);
            check(given == vm.parseJsonBytes32(json, string.concat(place, ".seed")), "seed");
            checkDraw(json, place, given);
        }
    }

    function seedOf(string memory json, string memory place) private pure returns (bytes32) {
        bytes memory first = front(
            vm.parseJsonBytes32(json, string.concat(place, ".prevrandao")),
            vm.parseJsonUint(json, ".chain_id"),
            address(uint160(uint256(vm.parseJsonBytes32(json, ".directory"))))
        );
        bytes memory second = abi.encode(
            vm.parseJsonBytes32(json, ".cluster"),
            vm.parseJsonUint(json, string.concat(place, ".epoch")),
            vm.parseJsonUint(json, string.concat(place, ".round"))
        );
        return keccak256(bytes.concat(first, second));
    }

    function checkDraw(string memory json, string memory place, bytes32 given) private view {
        bytes32[] memory peers = vm.parseJsonBytes32Array(json, string.concat(place, ".peers"));
        uint256[] memory weights = vm.parseJsonUintArray(json, string.concat(place, ".weights"));
        uint256[] memory tags = vm.parseJsonUintArray(json, string.concat(place, ".organisations"));
        INodeRegistry.Candidate[] memory list = new INodeRegistry.Candidate[](peers.length);
        for (uint256 i = 0; i < peers.length; ++i) {
            list[i] = INodeRegistry.Candidate(peers[i], bytes7(uint56(tags[i])), uint64(weights[i]));
        }
        uint256[] memory drawn = election.draw(
            given,
            list,
            uint8(vm.parseJsonUint(json, string.concat(place, ".draws"))),
            uint8(vm.parseJsonUint(json, string.concat(place, ".limit")))
        );
        uint256[] memory expected = vm.parseJsonUintArray(json, string.concat(place, ".drawn"));
        check(keccak256(abi.encode(drawn)) == keccak256(abi.encode(expected)), "draw");
    }
}
