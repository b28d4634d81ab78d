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
    /// @notice How long after a draw another one may be asked for, while the epoch has no key.
    uint64 public constant REDRAW_DELAY = 7 days;
    /// @notice What that costs. It is burnt: nobody gains by drawing, or by being drawn, again.
    uint256 public constant REDRAW_PRICE = 1 ether;
    /// @inheritdoc ICommitteeElection
    uint64 public immutable override delayBlocks;
    /// @inheritdoc ICommitteeElection
    uint64 public immutable override windowSeconds;

    mapping(bytes32 cluster => mapping(uint64 epoch => Election)) private _elections;

    /// @param delayBlocks_ On a chain with proposers that could foresee or choose prevrandao, at least
    /// four of its epochs (EIP-4399, "Tips for application developers"): 128 on Ethereum.
    /// @param windowSeconds_ How long nodes may come before the candidates can be frozen.
    constructor(
        address directory_,
        INodeRegistry registry_,
        uint64 delayBlocks_,
        uint64 windowSeconds_
    ) VeilContract(directory_) {
        _requireContract(address(registry_));
        // The deciding block must not be there when it is fixed, or the caller would know it.
        if (delayBlocks_ == 0) revert TooEarly(uint64(block.number), block.number);
        registry = registry_;
        delayBlocks = delayBlocks_;
        windowSeconds = windowSeconds_;
    }

    /// @inheritdoc ICommitteeElection
    function request(bytes32 cluster, uint64 epoch) external payable override whenNotPaused {
        INodeRegistry.Cluster memory settings = registry.clusterOf(cluster);
        if (!settings.elected) revert NotElected(cluster);
        IKeyCeremony ceremony = IKeyCeremony(_contractOf("KeyCeremony"));
        uint64 next = ceremony.epochs(cluster);
        if (epoch != next) revert WrongEpoch(epoch, next);
        Election storage election = _elections[cluster][epoch];
        Status status = election.status;
        if (status == Status.Requested) revert AlreadyRequested(cluster, epoch, status);
        bool redraws = status == Status.Sealed;
        if (redraws) {
            uint64 from = election.sealedAt + REDRAW_DELAY;
            if (block.timestamp < from) revert DrawnAlready(cluster, epoch, from);
            if (ceremony.isOpen(cluster, epoch)) revert AlreadyRequested(cluster, epoch, status);
        } else {
            uint64 since =
                epoch == 0 ? settings.registeredAt : ceremony.keyOf(cluster, epoch - 1).publishedAt;
            if (block.timestamp < since + windowSeconds) {
                revert WindowOpen(cluster, epoch, since + windowSeconds);
            }
        }
        uint256 price = redraws ? REDRAW_PRICE : 0;
        if (msg.value != price) revert WrongPrice(msg.value, price);
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
        _burn(price);
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
        election.prevRandao = _random(election.randomBlock, header);
        INodeRegistry.Cluster memory settings = registry.clusterOf(cluster);
        uint256 count = uint256(settings.committeeSize) + settings.standbys;
        uint256[] memory drawn = Draw.draw(
            _seed(cluster, epoch, election), candidates, count, settings.seatsPerOrganisation
        );
        // Not a revert, so that another election can follow.
        if (drawn.length < settings.committeeSize) {
            _elections[cluster][epoch].status = Status.Failed;
            emit ElectionFailed(cluster, epoch, election.round, uint8(drawn.length));
            return;
        }
        election.status = Status.Sealed;
        election.seats = settings.committeeSize;
        election.sealedAt = uint64(block.timestamp);
        _store(cluster, epoch, election, candidates, drawn);
    }

    /// @inheritdoc ICommitteeElection
    function extend(bytes32 cluster, uint64 epoch, INodeRegistry.Candidate[] calldata candidates)
        external
        override
        whenNotPaused
    {
        Election memory election = _elections[cluster][epoch];
        if (election.status != Status.Sealed) revert NotSealed(cluster, epoch, election.status);
        _checkCandidates(candidates, election.candidatesHash);
        INodeRegistry.Cluster memory settings = registry.clusterOf(cluster);
        uint256 before = uint256(election.seats) + election.standbys;
        // As many as there were standbys at first, and some if there were none.
        uint256 more = settings.standbys == 0 ? settings.committeeSize : settings.standbys;
        uint256 count = before + more;
        if (count > type(uint8).max) count = type(uint8).max;
        uint256[] memory drawn = Draw.draw(
            _seed(cluster, epoch, election), candidates, count, settings.seatsPerOrganisation
        );
        if (drawn.length == before) revert NobodyLeft(cluster, epoch);
        _store(cluster, epoch, election, candidates, drawn);
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

    /// @dev All rounds of an epoch have their own permutation; what is drawn later of one continues it.
    function _seed(bytes32 cluster, uint64 epoch, Election memory election)
        private
        view
        returns (bytes32)
    {
        return keccak256(
            abi.encode(
                SEED, election.prevRandao, block.chainid, directory, cluster, epoch, election.round
            )
        );
    }

    function _store(
        bytes32 cluster,
        uint64 epoch,
        Election memory election,
        INodeRegistry.Candidate[] calldata candidates,
        uint256[] memory drawn
    ) private {
        // The positions become the peers.
        bytes32[] memory peers;
        assembly ("memory-safe") {
            peers := drawn
        }
        for (uint256 i = 0; i < drawn.length; ++i) {
            peers[i] = candidates[drawn[i]].peer;
        }
        election.standbys = uint8(drawn.length) - election.seats;
        election.committeeHash = keccak256(abi.encodePacked(peers));
        _elections[cluster][epoch] = election;
        emit CommitteeElected(
            cluster, epoch, election.round, election.prevRandao, election.seats, peers
        );
    }

    /// @dev What belongs to nobody any more. Nothing takes it from the zero address.
    function _burn(uint256 amount) private {
        if (amount == 0) return;
        (bool done,) = address(0).call{value: amount}("");
        assert(done); // no code is there to refuse it
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
