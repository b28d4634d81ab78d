// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";

import {VeilContract} from "./VeilContract.sol";
import {IAssignmentAnchor} from "./interfaces/IAssignmentAnchor.sol";
import {ICommitteeElection} from "./interfaces/ICommitteeElection.sol";
import {IFeePool} from "./interfaces/IFeePool.sol";
import {IKeyCeremony} from "./interfaces/IKeyCeremony.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {Certificates} from "./libraries/Certificates.sol";
import {Price} from "./libraries/Price.sol";

/// @title What keeping a cluster on the chain costs, and what its workers earn
/// @notice See `IFeePool`. It calls contracts of its own set only, which call nobody else's; value leaves it in
/// `withdraw` alone, after all is written down.
contract FeePool is IFeePool, VeilContract {
    /// @notice The pool's part of what is paid for a job, in 1/10,000.
    uint256 public constant POOL_BPS = 500;
    /// @notice The most of a block's base fee that is paid back, in wei.
    uint256 public constant MAX_BASE_FEE = Price.MAX_BASE_FEE;
    /// @notice The most of a tip that is paid back, in wei.
    uint256 public constant MAX_TIP = Price.MAX_TIP;
    /// @notice Seconds between two refunded anchors, unless the cluster's admin says otherwise.
    uint32 public constant DEFAULT_INTERVAL = 60;
    /// @notice How long workers may claim after an escrow was ended.
    uint64 public constant CLAIM_TIME = 7 days;

    /// @dev Steps, as events have them; the gas of each that is paid for, at most.
    uint8 private constant ANCHOR = 1;
    uint8 private constant SEAL = 2;
    uint8 private constant PUBLISH = 3;
    uint8 private constant ACTIVATE = 4;
    uint8 private constant CONFIRM = 5;
    uint256 private constant ANCHOR_GAS = 120_000;
    uint256 private constant SEAL_GAS = 650_000;
    uint256 private constant PUBLISH_GAS = 450_000;
    uint256 private constant ACTIVATE_GAS = 130_000;
    uint256 private constant CONFIRM_GAS = 130_000;
    /// @dev What every transaction costs, and the least that the arguments of any step do: 4 for a zero byte. Paid once
    /// in a transaction, whoever puts how many calls into it.
    uint256 private constant TRANSACTION_GAS = 21_000;
    /// @dev The least that is used after the gas was counted: two words that are changed, and an event.
    uint256 private constant BOOKKEEPING_GAS = 9_000;

    /// @dev Confirmed work that somebody pays for, from its confirmation on.
    struct Work {
        bytes32 cluster;
        bytes32 job;
        bytes32 assignmentHash;
        address operator;
        address payer;
        uint64 from;
        uint64 time;
    }

    /// @notice Where the clusters are.
    INodeRegistry public immutable registry;
    /// @notice Where committees are drawn.
    ICommitteeElection public immutable election;
    /// @notice Where keys are published.
    IKeyCeremony public immutable ceremony;
    /// @notice Where certificates are.
    IAssignmentAnchor public immutable anchors;

    mapping(bytes32 cluster => Pool) private _pools;
    /// @dev Which steps of an epoch were refunded: bit `step`.
    mapping(bytes32 cluster => mapping(uint64 epoch => uint256)) private _refunded;
    /// @dev By Keccak-256 of cluster, job, payer.
    mapping(bytes32 clusterJobAndPayer => Escrow) private _escrows;
    /// @inheritdoc IFeePool
    mapping(bytes32 assignmentHash => mapping(address payer => uint64)) public override paidUntil;
    /// @inheritdoc IFeePool
    mapping(address account => uint256) public override owedTo;
    /// @dev Whether this transaction was paid for already.
    bool private transient _counted;

    constructor(
        address directory_,
        INodeRegistry registry_,
        ICommitteeElection election_,
        IKeyCeremony ceremony_,
        IAssignmentAnchor anchors_
    ) VeilContract(directory_) {
        _requireContract(address(registry_));
        _requireContract(address(election_));
        _requireContract(address(ceremony_));
        _requireContract(address(anchors_));
        (registry, election, ceremony, anchors) = (registry_, election_, ceremony_, anchors_);
    }

    /// @inheritdoc IFeePool
    function anchor(
        IAssignmentAnchor.Certificate calldata certificate,
        CompressedPoint calldata,
        FrostSignature calldata
    ) external override {
        uint256 start = gasleft();
        _relay(address(anchors));
        Pool storage pool = _pools[certificate.cluster];
        (uint256 last, uint256 interval) = (pool.refundedAt, pool.interval);
        // Each certificate can be anchored, also by a member that means to empty the pool.
        if (block.timestamp < last + (interval == 0 ? DEFAULT_INTERVAL : interval)) return;
        if (_refund(certificate.cluster, pool, ANCHOR, ANCHOR_GAS, start)) {
            pool.refundedAt = uint40(block.timestamp);
        }
    }

    /// @inheritdoc IFeePool
    function seal(bytes32 cluster, uint64 epoch, INodeRegistry.Candidate[] calldata, bytes calldata)
        external
        override
    {
        uint256 start = gasleft();
        _relay(address(election));
        // What drew nobody is no progress.
        ICommitteeElection.Status status = election.electionOf(cluster, epoch).status;
        if (status != ICommitteeElection.Status.Sealed) return;
        _refundOnce(cluster, epoch, SEAL, SEAL_GAS, start);
    }

    /// @inheritdoc IFeePool
    function publish(
        IKeyCeremony.Publication calldata publication,
        CompactSignature[] calldata,
        FrostSignature calldata
    ) external override {
        uint256 start = gasleft();
        _relay(address(ceremony));
        _refundOnce(publication.cluster, publication.epoch, PUBLISH, PUBLISH_GAS, start);
    }

    /// @inheritdoc IFeePool
    function activate(bytes32 cluster, uint64 epoch, bytes32, FrostSignature calldata)
        external
        override
    {
        uint256 start = gasleft();
        _relay(address(ceremony));
        _refundOnce(cluster, epoch, ACTIVATE, ACTIVATE_GAS, start);
    }

    /// @inheritdoc IFeePool
    function confirmDeployment(
        IAssignmentAnchor.Certificate[] calldata chain,
        IAssignmentAnchor.Assignment calldata assignment,
        bytes32[] calldata proof
    ) external override returns (bytes32 assignmentHash) {
        uint256 start = gasleft();
        assignmentHash = anchors.confirmDeploymentFor(msg.sender, chain, assignment, proof);
        bytes32 cluster = chain[0].cluster;
        _refund(cluster, _pools[cluster], CONFIRM, CONFIRM_GAS, start);
    }

    /// @inheritdoc IFeePool
    function deposit(bytes32 cluster) external payable override {
        if (msg.value == 0) revert EmptyFee();
        registry.clusterOf(cluster); // what nobody has, nobody can use
        _pools[cluster].balance += uint128(msg.value);
        emit Deposited(cluster, msg.sender, msg.value);
    }

    /// @inheritdoc IFeePool
    function setAnchorInterval(bytes32 cluster, uint32 interval) external override {
        if (registry.clusterOf(cluster).admin != msg.sender) {
            revert NotClusterAdmin(cluster, msg.sender);
        }
        if (interval == 0 || interval > 1 days) revert InvalidInterval(interval);
        _pools[cluster].interval = interval;
        emit AnchorIntervalChanged(cluster, interval);
    }

    /// @inheritdoc IFeePool
    function fundJob(bytes32 cluster, bytes32 job, uint64 price) external payable override {
        if (msg.value == 0 || price == 0) revert EmptyFee();
        registry.clusterOf(cluster);
        Escrow storage escrow = _escrow(cluster, job, msg.sender);
        if (escrow.endsAt != 0) revert FeeEnds(escrow.endsAt + CLAIM_TIME);
        if (price < escrow.price) revert PriceLowered(price, escrow.price);
        if (escrow.since == 0) escrow.since = uint40(block.timestamp);
        uint256 part = msg.value * POOL_BPS / 10_000;
        escrow.price = price;
        // There is less ether than 2^96 wei.
        escrow.balance += uint96(msg.value - part);
        _pools[cluster].balance += uint128(part);
        emit JobFunded(cluster, job, msg.sender, msg.value - part, price);
        emit Deposited(cluster, msg.sender, part);
    }

    /// @inheritdoc IFeePool
    function endJobFee(bytes32 cluster, bytes32 job) external override {
        Escrow storage escrow = _funded(cluster, job, msg.sender);
        if (escrow.endsAt != 0) revert FeeEnds(escrow.endsAt + CLAIM_TIME);
        escrow.endsAt = uint40(block.timestamp);
        emit JobFeeEnded(cluster, job, msg.sender, escrow.endsAt);
    }

    /// @inheritdoc IFeePool
    function reclaimJobFee(bytes32 cluster, bytes32 job)
        external
        override
        returns (uint256 amount)
    {
        Escrow storage escrow = _funded(cluster, job, msg.sender);
        uint64 free = escrow.endsAt == 0 ? 0 : escrow.endsAt + CLAIM_TIME;
        if (free == 0 || block.timestamp < free) revert FeeNotFree(free);
        amount = escrow.balance;
        delete _escrows[keccak256(abi.encode(cluster, job, msg.sender))];
        owedTo[msg.sender] += amount;
        emit JobFeeReclaimed(cluster, job, msg.sender, amount);
    }

    /// @inheritdoc IFeePool
    function claim(
        IAssignmentAnchor.Certificate calldata head,
        IAssignmentAnchor.Replica calldata replica,
        bytes32[] calldata proof,
        bytes32 certificate,
        address payer
    ) external override returns (uint256 amount) {
        Work memory work;
        work.time = _checkState(head, replica, proof);
        (work.cluster, work.job, work.payer) = (head.cluster, replica.job, payer);
        bytes32 leaf = Certificates.leafOf(replica.job, replica.replica, 1, replica.worker);
        work.assignmentHash = keccak256(abi.encode(work.cluster, certificate, leaf));
        uint64 slot;
        (work.operator, work.from, slot) = anchors.confirmationOf(work.assignmentHash);
        // One that was taken away and given back was assigned anew.
        if (work.from == 0 || slot != uint56(replica.slot)) {
            revert NotConfirmed(work.assignmentHash, replica.slot);
        }
        return _pay(work);
    }

    /// @inheritdoc IFeePool
    function withdraw(address account) external override {
        uint256 amount = owedTo[account];
        if (amount == 0) revert NothingOwed(account);
        owedTo[account] = 0;
        emit Withdrawn(account, amount);
        (bool taken,) = account.call{value: amount}("");
        if (!taken) revert PaymentFailed(account);
    }

    /// @inheritdoc IFeePool
    function poolOf(bytes32 cluster) external view override returns (Pool memory) {
        return _pools[cluster];
    }

    /// @inheritdoc IFeePool
    function escrowOf(bytes32 cluster, bytes32 job, address payer)
        external
        view
        override
        returns (Escrow memory)
    {
        return _escrow(cluster, job, payer);
    }

    /// @dev Makes the same call to the contract that does it, and fails as that does.
    function _relay(address target) private {
        assembly ("memory-safe") {
            let m := mload(0x40)
            calldatacopy(m, 0, calldatasize())
            let done := call(gas(), target, 0, m, calldatasize(), 0, 0)
            if iszero(done) {
                returndatacopy(m, 0, returndatasize())
                revert(m, returndatasize())
            }
        }
    }

    /// @dev A step that can be repeated, by another attempt or another draw, is refunded the first time.
    function _refundOnce(bytes32 cluster, uint64 epoch, uint8 step, uint256 most, uint256 start)
        private
    {
        uint256 refunded = _refunded[cluster][epoch];
        if (refunded & (1 << step) != 0) return;
        if (_refund(cluster, _pools[cluster], step, most, start)) {
            _refunded[cluster][epoch] = refunded | (1 << step);
        }
    }

    /// @dev Owes the caller what its call has cost since `start`, or what the pool has.
    function _refund(bytes32 cluster, Pool storage pool, uint8 step, uint256 most, uint256 start)
        private
        returns (bool)
    {
        uint256 balance = pool.balance;
        if (balance == 0) return false;
        uint256 used = BOOKKEEPING_GAS;
        if (!_counted) {
            _counted = true;
            used += TRANSACTION_GAS + 4 * msg.data.length;
        }
        used += start - gasleft();
        uint256 amount = (used < most ? used : most) * _price();
        if (amount > balance) amount = balance;
        if (amount == 0) return false;
        pool.balance = uint128(balance - amount);
        owedTo[msg.sender] += amount;
        emit Refunded(cluster, msg.sender, step, amount);
        return true;
    }

    /// @dev Owes the operator what the escrow pays for the seconds that were not paid.
    function _pay(Work memory work) private returns (uint256 amount) {
        Escrow storage escrow = _funded(work.cluster, work.job, work.payer);
        Escrow memory found = escrow;
        uint64 from = _later(work.from, found.since);
        from = _later(from, paidUntil[work.assignmentHash][work.payer]);
        uint64 until = found.endsAt != 0 && found.endsAt < work.time ? found.endsAt : work.time;
        if (until <= from) revert NothingEarned(from);
        // What the escrow lacks now, it may hold later: only the seconds that it holds count as paid.
        uint256 affordable = found.balance / found.price;
        if (affordable == 0) revert EscrowEmpty(work.cluster, work.job, work.payer);
        if (affordable < until - from) until = from + uint64(affordable);
        amount = uint256(until - from) * found.price;
        escrow.balance = found.balance - uint96(amount);
        paidUntil[work.assignmentHash][work.payer] = until;
        owedTo[work.operator] += amount;
        emit WorkPaid(work.cluster, work.assignmentHash, work.operator, work.payer, amount, until);
    }

    /// @dev What a unit of gas is paid. Tests run in transactions without a price, and have one of theirs.
    function _price() internal view virtual returns (uint256) {
        return Price.ofGas();
    }

    /// @dev Whether the replica runs by a certificate that was anchored last, and when that was.
    function _checkState(
        IAssignmentAnchor.Certificate calldata head,
        IAssignmentAnchor.Replica calldata replica,
        bytes32[] calldata proof
    ) private view returns (uint64 time) {
        bytes32 hash = Certificates.digest(block.chainid, directory, head);
        time = anchors.anchoredAt(head.cluster, hash);
        if (time == 0) revert NotLatest(hash);
        if (replica.flags != 0 || replica.form != 0) {
            revert ReplicaDone(replica.job, replica.replica);
        }
        bytes32 leaf = Certificates.replicaLeaf(replica);
        if (!MerkleProof.verifyCalldata(proof, head.stateRoot, leaf)) {
            revert NotInState(leaf, head.stateRoot);
        }
    }

    function _escrow(bytes32 cluster, bytes32 job, address payer)
        private
        view
        returns (Escrow storage)
    {
        return _escrows[keccak256(abi.encode(cluster, job, payer))];
    }

    function _funded(bytes32 cluster, bytes32 job, address payer)
        private
        view
        returns (Escrow storage escrow)
    {
        escrow = _escrow(cluster, job, payer);
        if (escrow.price == 0) revert NoFee(cluster, job, payer);
    }

    function _later(uint64 a, uint64 b) private pure returns (uint64) {
        return a > b ? a : b;
    }
}
