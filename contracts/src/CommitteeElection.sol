// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {VeilContract} from "./VeilContract.sol";
import {ICommitteeElection} from "./interfaces/ICommitteeElection.sol";
import {IKeyCeremony} from "./interfaces/IKeyCeremony.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {BlockProof} from "./libraries/BlockProof.sol";
import {Draw} from "./libraries/Draw.sol";

/// @title Elections of committees
/// @notice See `ICommitteeElection`.
contract CommitteeElection is ICommitteeElection, VeilContract {
    bytes32 private constant SEED = keccak256("veil v1 election");

    /// @notice Where the candidates are.
    INodeRegistry public immutable registry;
    /// @inheritdoc ICommitteeElection
    uint64 public immutable override delayBlocks;

    mapping(bytes32 cluster => mapping(uint64 epoch => Election)) private _elections;

    /// @param delayBlocks_ On a chain with proposers that could foresee or choose prevrandao, at least
    /// four of its epochs (EIP-4399, "Tips for application developers"): 128 on Ethereum.
    constructor(address directory_, INodeRegistry registry_, uint64 delayBlocks_)
        VeilContract(directory_)
    {
        _requireContract(address(registry_));
        // The deciding block must not be there when it is fixed, or the caller would know it.
        if (delayBlocks_ == 0) revert TooEarly(uint64(block.number), block.number);
        registry = registry_;
        delayBlocks = delayBlocks_;
    }

    /// @inheritdoc ICommitteeElection
    function request(bytes32 cluster, uint64 epoch) external override whenNotPaused {
        INodeRegistry.Cluster memory settings = registry.clusterOf(cluster);
        if (!settings.elected) revert NotElected(cluster);
        IKeyCeremony ceremony = IKeyCeremony(_contractOf("KeyCeremony"));
        uint64 next = ceremony.epochs(cluster);
        if (epoch != next) revert WrongEpoch(epoch, next);
        Election storage election = _elections[cluster][epoch];
        Status status = election.status;
        bool again = status == Status.None || status == Status.Failed
            || (status == Status.Sealed && ceremony.isExhausted(cluster, epoch));
        if (!again) revert AlreadyRequested(cluster, epoch, status);
        INodeRegistry.Candidate[] memory candidates = registry.candidates(cluster, epoch);
        if (candidates.length < settings.committeeSize) {
            revert TooFewCandidates(candidates.length, settings.committeeSize);
        }
        uint64 randomBlock = uint64(block.number) + delayBlocks;
        election.status = Status.Requested;
        election.round += 1;
        election.randomBlock = randomBlock;
        election.candidatesHash = _hash(candidates);
        emit ElectionRequested(cluster, epoch, election.round, randomBlock, candidates);
    }

    /// @inheritdoc ICommitteeElection
    function seal(
        bytes32 cluster,
        uint64 epoch,
        INodeRegistry.Candidate[] calldata candidates,
        bytes calldata header
    ) external override {
        Election memory election = _requested(cluster, epoch);
        _checkCandidates(candidates, election.candidatesHash);
        bytes32 random = _random(election.randomBlock, header);
        bytes32 seed = keccak256(
            abi.encode(SEED, random, block.chainid, directory, cluster, epoch, election.round)
        );
        INodeRegistry.Cluster memory settings = registry.clusterOf(cluster);
        uint256[] memory drawn = Draw.draw(
            seed,
            candidates,
            uint256(settings.committeeSize) + settings.standbys,
            settings.seatsPerOrganisation
        );
        // Not a revert, so that another election can follow.
        if (drawn.length < settings.committeeSize) {
            _elections[cluster][epoch].status = Status.Failed;
            emit ElectionFailed(cluster, epoch, election.round, uint8(drawn.length));
            return;
        }
        // The positions become the peers.
        bytes32[] memory peers;
        assembly ("memory-safe") {
            peers := drawn
        }
        for (uint256 i = 0; i < drawn.length; ++i) {
            peers[i] = candidates[drawn[i]].peer;
        }
        election.status = Status.Sealed;
        election.seats = settings.committeeSize;
        election.standbys = uint8(drawn.length) - settings.committeeSize;
        election.committeeHash = keccak256(abi.encodePacked(peers));
        _elections[cluster][epoch] = election;
        emit CommitteeElected(cluster, epoch, election.round, random, election.seats, peers);
    }

    /// @inheritdoc ICommitteeElection
    function expire(bytes32 cluster, uint64 epoch) external override {
        uint64 passed = _requested(cluster, epoch).randomBlock;
        if (block.number <= passed) revert TooEarly(passed, block.number);
        if (BlockProof.hashOf(passed) != 0) revert NotExpired(passed);
        uint64 randomBlock = uint64(block.number) + delayBlocks;
        _elections[cluster][epoch].randomBlock = randomBlock;
        emit ElectionRearmed(cluster, epoch, randomBlock);
    }

    /// @inheritdoc ICommitteeElection
    function electionOf(bytes32 cluster, uint64 epoch)
        external
        view
        override
        returns (Election memory)
    {
        return _elections[cluster][epoch];
    }

    /// @inheritdoc ICommitteeElection
    function draw(
        bytes32 seed,
        INodeRegistry.Candidate[] calldata candidates,
        uint8 count,
        uint8 seatsPerOrganisation
    ) external pure override returns (uint256[] memory positions) {
        return Draw.draw(seed, candidates, count, seatsPerOrganisation);
    }

    function _requested(bytes32 cluster, uint64 epoch) private view returns (Election memory) {
        Election memory election = _elections[cluster][epoch];
        if (election.status != Status.Requested) {
            revert NotRequested(cluster, epoch, election.status);
        }
        return election;
    }

    function _checkCandidates(INodeRegistry.Candidate[] calldata candidates, bytes32 expected)
        private
        pure
    {
        bytes32 given;
        assembly ("memory-safe") {
            let m := mload(0x40)
            let size := mul(candidates.length, 0x60)
            calldatacopy(m, candidates.offset, size)
            given := keccak256(m, size)
        }
        if (given != expected) revert WrongCandidates(given, expected);
    }

    /// @dev prevrandao of the block, which must be past and provable.
    function _random(uint64 number, bytes calldata header) private view returns (bytes32 random) {
        if (block.number <= number) revert TooEarly(number, block.number);
        bytes32 expected = BlockProof.hashOf(number);
        if (expected == 0) revert BlockHashUnavailable(number);
        bytes32 given = keccak256(header);
        if (given != expected) revert WrongHeader(given, expected);
        bool found;
        (found, random) = BlockProof.prevRandao(header);
        if (!found) revert MalformedHeader();
    }

    /// @dev Keccak-256 of the words of all candidates.
    function _hash(INodeRegistry.Candidate[] memory candidates)
        private
        pure
        returns (bytes32 hash)
    {
        // An array of structs in memory is an array of pointers; its encoding has two words before.
        bytes memory encoded = abi.encode(candidates);
        assembly ("memory-safe") {
            hash := keccak256(add(encoded, 0x60), sub(mload(encoded), 0x40))
        }
    }
}
