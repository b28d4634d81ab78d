// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {INodeRegistry} from "./INodeRegistry.sol";
import {IVeilContract} from "./IVeilContract.sol";

/// @title Elections of committees
/// @notice `request` freezes the candidates and fixes a block that is not there yet; `seal` proves
/// that block's prevrandao by its header and draws seats and standby seats, weighted by stake, without
/// replacement. Both may be called by anyone, and nothing in them depends on who calls or when: a
/// caller that dislikes the outcome can only leave it to the next caller. An epoch is drawn for once: who
/// cannot or will not make its key is followed by the next of the same permutation (`extend` shows more of it),
/// and another draw is for `REDRAW_DELAY` later, and burns `REDRAW_PRICE`. If nobody seals while the
/// block's hash is provable (256 blocks, 8,191 where the chain has EIP-2935), `expire` fixes another
/// block for the same candidates.
///
/// The draw (`veil_protocol_spec::election` is its twin): the seed is
/// `keccak256(abi.encode(keccak256("veil v1 election"), prevrandao, chainid, directory, cluster, epoch, round))`.
/// For k = 0, 1, ... the number `uint256(keccak256(abi.encode(seed, k)))` modulo the weight that is left
/// falls on a candidate, counting weights in the order of candidates. It is seated and leaves the draw;
/// if its organisation has all the seats that it may have, the organisation's other candidates leave
/// too. The first `committeeSize` are the seats, the others standbys.
interface ICommitteeElection is IVeilContract {
    /// @notice Where an election stands.
    enum Status {
        None,
        Requested,
        Sealed,
        /// Not enough candidates, given the limit per organisation; it may be requested again.
        Failed
    }

    /// @notice The election of one epoch.
    struct Election {
        Status status;
        /// How often it was requested.
        uint32 round;
        /// The block whose prevrandao decides.
        uint64 randomBlock;
        /// When sealed: how many seats and standby seats were filled.
        uint8 seats;
        uint8 standbys;
        /// When it was sealed, Unix time.
        uint64 sealedAt;
        /// Keccak-256 of the words of all candidates.
        bytes32 candidatesHash;
        /// When sealed: Keccak-256 of the drawn peers, seats first.
        bytes32 committeeHash;
        /// When sealed: what decided.
        bytes32 prevRandao;
    }

    /// @notice The candidates are frozen: what `seal` is to be called with.
    event ElectionRequested(
        bytes32 indexed cluster,
        uint64 indexed epoch,
        uint32 round,
        uint64 randomBlock,
        INodeRegistry.Candidate[] candidates
    );
    /// @notice Another block decides.
    event ElectionRearmed(bytes32 indexed cluster, uint64 indexed epoch, uint64 randomBlock);
    /// @notice The committee is elected, or has more standbys: the first `seats` of the peers, then standbys.
    event CommitteeElected(
        bytes32 indexed cluster,
        uint64 indexed epoch,
        uint32 round,
        bytes32 prevRandao,
        uint8 seats,
        bytes32[] peers
    );
    /// @notice Only so many seats could be filled.
    event ElectionFailed(bytes32 indexed cluster, uint64 indexed epoch, uint32 round, uint8 filled);

    /// @notice The cluster's committees are appointed.
    error NotElected(bytes32 cluster);
    /// @notice Only the epoch that gets the next key is elected for.
    error WrongEpoch(uint64 given, uint64 expected);
    /// @notice The epoch has an election that is not sealed, or whose committee is at work.
    error AlreadyRequested(bytes32 cluster, uint64 epoch, Status status);
    /// @notice The epoch's committee is drawn. If it has no key until then, another draw may be asked for from
    /// `from` (Unix time) on.
    error DrawnAlready(bytes32 cluster, uint64 epoch, uint64 from);
    /// @notice Nodes may still come: the candidates can be frozen from `from` (Unix time) on.
    error WindowOpen(bytes32 cluster, uint64 epoch, uint64 from);
    /// @notice A first draw costs nothing, another one `REDRAW_PRICE`.
    error WrongPrice(uint256 given, uint256 price);
    /// @notice The epoch's election is not sealed.
    error NotSealed(bytes32 cluster, uint64 epoch, Status status);
    /// @notice All candidates, as far as the limit per organisation allows, are drawn.
    error NobodyLeft(bytes32 cluster, uint64 epoch);
    /// @notice Fewer candidates than seats.
    error TooFewCandidates(uint256 candidates, uint8 seats);
    /// @notice The epoch's election is not waiting to be sealed.
    error NotRequested(bytes32 cluster, uint64 epoch, Status status);
    /// @notice These are not the frozen candidates: take those of the event `ElectionRequested`.
    error WrongCandidates(bytes32 given, bytes32 expected);
    /// @notice The block is not there yet.
    error TooEarly(uint64 randomBlock, uint256 current);
    /// @notice The block's hash can no longer be proved: `expire`.
    error BlockHashUnavailable(uint64 randomBlock);
    /// @notice The header is not that of the block.
    error WrongHeader(bytes32 given, bytes32 expected);
    /// @notice The header has fewer fields than a block has.
    error MalformedHeader();
    /// @notice The block's hash can still be proved: `seal`.
    error NotExpired(uint64 randomBlock);

    /// @notice Freezes the candidates, when the epoch before has had its key, or the cluster is registered, for
    /// `windowSeconds`. Anyone; again after a failed election, or for `REDRAW_PRICE`, `REDRAW_DELAY` after the
    /// last draw, while no attempt of a ceremony is open.
    function request(bytes32 cluster, uint64 epoch) external payable;

    /// @notice Draws the committee. Anyone.
    /// @param candidates Those of the event `ElectionRequested`.
    /// @param header The deciding block's header in RLP.
    function seal(
        bytes32 cluster,
        uint64 epoch,
        INodeRegistry.Candidate[] calldata candidates,
        bytes calldata header
    ) external;

    /// @notice Draws more standbys from where the draw ended, when those there are do not suffice. Anyone.
    /// @param candidates Those of the event `ElectionRequested`.
    function extend(bytes32 cluster, uint64 epoch, INodeRegistry.Candidate[] calldata candidates)
        external;

    /// @notice Fixes another block if the hash of the one before can no longer be proved. Anyone.
    function expire(bytes32 cluster, uint64 epoch) external;

    function electionOf(bytes32 cluster, uint64 epoch) external view returns (Election memory);

    /// @notice How many blocks after the request the deciding one is.
    function delayBlocks() external view returns (uint64);

    /// @notice How long nodes may come before the candidates can be frozen, in seconds.
    function windowSeconds() external view returns (uint64);

    /// @notice The draw alone: positions of the drawn candidates in order, at most `count`.
    function draw(
        bytes32 seed,
        INodeRegistry.Candidate[] calldata candidates,
        uint8 count,
        uint8 seatsPerOrganisation
    ) external pure returns (uint256[] memory positions);
}
