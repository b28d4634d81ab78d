// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";

import {VeilContract} from "./VeilContract.sol";
import {IAssignmentAnchor} from "./interfaces/IAssignmentAnchor.sol";
import {IKeyCeremony} from "./interfaces/IKeyCeremony.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {Certificates} from "./libraries/Certificates.sol";
import {FrostVerifier} from "./libraries/FrostVerifier.sol";

/// @title The chain of assignment certificates
/// @notice See `IAssignmentAnchor`.
contract AssignmentAnchor is IAssignmentAnchor, VeilContract {
    /// @notice Where the group keys are.
    IKeyCeremony public immutable ceremony;
    /// @notice Where the workers' operators are.
    INodeRegistry public immutable registry;

    /// @notice How many of the last heads certificates are proved against.
    uint64 public constant RECENT_HEADS = 64;
    /// @dev Where in `Anchored.numbers` the count and the times are.
    uint256 private constant COUNT = 96;
    uint256 private constant AT = 136;

    /// @dev A shown assignment: who may confirm it, since when it is (0 if it is not), and the lowest 56 bits of the
    /// slot that assigned it. In one word.
    struct Shown {
        address operator;
        uint40 confirmedAt;
        uint56 slot;
    }

    /// @dev `numbers` are, from the lowest bit on: slot (64 bits) and epoch (32) of the head, how many there were
    /// (40), when it was anchored (40), and when the one before it was (40). The certificate that was anchored as
    /// number i, from 0, is in place i modulo their number.
    struct Anchored {
        uint256 numbers;
        bytes32[64] heads;
    }

    mapping(bytes32 cluster => Anchored) private _anchored;
    mapping(bytes32 assignmentHash => Shown) private _shown;

    constructor(address directory_, INodeRegistry registry_, IKeyCeremony ceremony_)
        VeilContract(directory_)
    {
        _requireContract(address(registry_));
        _requireContract(address(ceremony_));
        registry = registry_;
        ceremony = ceremony_;
    }

    /// @inheritdoc IAssignmentAnchor
    function anchor(
        Certificate calldata certificate,
        CompressedPoint calldata groupKey,
        FrostSignature calldata signature
    ) external override {
        // What the certificate states of its key must be in force: one word says it all.
        if (!_isInForce(certificate, groupKey)) _explain(certificate, groupKey);
        Anchored storage anchored = _anchored[certificate.cluster];
        uint256 numbers = anchored.numbers;
        uint256 count = _count(numbers);
        bytes32 head = _headAt(anchored, count);
        if (certificate.base != head) revert WrongBase(certificate.base, head);
        uint256 slot;
        assembly ("memory-safe") {
            slot := calldataload(add(certificate, 0x60))
        }
        if (slot <= uint64(numbers) || slot > type(uint64).max) {
            revert SlotNotLater(uint64(slot), uint64(numbers));
        }
        bytes32 hash = Certificates.digest(block.chainid, directory, certificate);
        if (!FrostVerifier.verify(groupKey, hash, signature)) revert WrongGroupSignature();
        anchored.heads[count % RECENT_HEADS] = hash;
        // As many bits as each has place for: nobody lives to see 2^32 epochs, or 2^40 certificates.
        numbers = ((numbers >> AT) & type(uint40).max) << (AT + 40);
        numbers |= (block.timestamp << AT) | ((count + 1) << COUNT);
        assembly ("memory-safe") {
            let epoch := shl(64, calldataload(add(certificate, 0x20)))
            sstore(anchored.slot, or(or(numbers, epoch), slot))
        }
        bytes32 topic = CertificateAnchored.selector;
        assembly ("memory-safe") {
            // Its data are the last three fields as they are.
            let m := mload(0x40)
            calldatacopy(m, add(certificate, 0x140), 0x60)
            log4(m, 0x60, topic, calldataload(certificate), slot, hash)
        }
    }

    /// @inheritdoc IAssignmentAnchor
    function proveAssignment(
        Certificate[] calldata chain,
        Assignment calldata assignment,
        bytes32[] calldata proof
    ) public override returns (bytes32 assignmentHash) {
        bytes32 certificate = _checkChain(chain);
        bytes32 leaf = Certificates.leaf(assignment);
        bytes32 root = chain[0].assignmentsRoot;
        if (!MerkleProof.verifyCalldata(proof, root, leaf)) revert NotIncluded(leaf, root);
        bytes32 cluster = chain[0].cluster;
        address operator = registry.operatorOf(cluster, assignment.worker);
        if (assignment.outcome != 1 || operator == address(0)) {
            revert NoSuchWorker(assignment.worker);
        }
        // What one cluster assigned, another one's certificate says nothing of.
        assignmentHash = keccak256(abi.encode(cluster, certificate, leaf));
        if (_shown[assignmentHash].confirmedAt != 0) revert AlreadyConfirmed(assignmentHash);
        _shown[assignmentHash] = Shown(operator, 0, uint56(chain[0].slot));
        emit AssignmentProven(cluster, assignmentHash, operator, certificate, leaf);
    }

    /// @inheritdoc IAssignmentAnchor
    function anchorDeployment(bytes32 assignmentHash) external override returns (bool) {
        _confirm(assignmentHash, msg.sender);
        return true;
    }

    /// @inheritdoc IAssignmentAnchor
    function confirmDeployment(
        Certificate[] calldata chain,
        Assignment calldata assignment,
        bytes32[] calldata proof
    ) external override returns (bytes32 assignmentHash) {
        assignmentHash = proveAssignment(chain, assignment, proof);
        _confirm(assignmentHash, msg.sender);
    }

    /// @inheritdoc IAssignmentAnchor
    function confirmDeploymentFor(
        address operator,
        Certificate[] calldata chain,
        Assignment calldata assignment,
        bytes32[] calldata proof
    ) external override onlyContract("FeePool") returns (bytes32 assignmentHash) {
        assignmentHash = proveAssignment(chain, assignment, proof);
        _confirm(assignmentHash, operator);
    }

    /// @inheritdoc IAssignmentAnchor
    function confirmationOf(bytes32 assignmentHash)
        external
        view
        override
        returns (address operator, uint64 confirmedAt, uint64 slot)
    {
        Shown memory shown = _shown[assignmentHash];
        return (shown.operator, shown.confirmedAt, shown.slot);
    }

    /// @inheritdoc IAssignmentAnchor
    function anchoredAt(bytes32 cluster, bytes32 certificate)
        external
        view
        override
        returns (uint64)
    {
        Anchored storage anchored = _anchored[cluster];
        uint256 numbers = anchored.numbers;
        uint256 count = _count(numbers);
        if (certificate == 0) return 0;
        if (_headAt(anchored, count) == certificate) return uint40(numbers >> AT);
        bool before = count > 1 && _headAt(anchored, count - 1) == certificate;
        return before ? uint40(numbers >> (AT + 40)) : 0;
    }

    /// @inheritdoc IAssignmentAnchor
    function headOf(bytes32 cluster) external view override returns (Head memory) {
        Anchored storage anchored = _anchored[cluster];
        uint256 numbers = anchored.numbers;
        uint256 count = _count(numbers);
        bytes32 hash = _headAt(anchored, count);
        return Head(hash, uint64(numbers), uint32(numbers >> 64), uint64(count));
    }

    /// @inheritdoc IAssignmentAnchor
    function isAnchored(Certificate[] calldata chain) external view override returns (bool) {
        (bytes32 last,) = _follow(chain);
        return chain.length != 0 && _isRecent(chain[0].cluster, last);
    }

    /// @inheritdoc IAssignmentAnchor
    function hashOf(Certificate calldata certificate) public view override returns (bytes32) {
        return Certificates.digest(block.chainid, directory, certificate);
    }

    /// @inheritdoc IAssignmentAnchor
    function leafOf(Assignment calldata assignment) external pure override returns (bytes32) {
        return Certificates.leaf(assignment);
    }

    /// @inheritdoc IAssignmentAnchor
    function replicaLeafOf(Replica calldata replica) external pure override returns (bytes32) {
        if (replica.form != 0 || replica.flags > 1) {
            revert ReservedInLeaf(replica.form, replica.flags);
        }
        return Certificates.replicaLeaf(replica);
    }

    /// @inheritdoc IAssignmentAnchor
    function verifyInclusion(Certificate[] calldata chain, bytes32 leaf, bytes32[] calldata proof)
        external
        view
        override
        returns (bool)
    {
        _checkChain(chain);
        return MerkleProof.verifyCalldata(proof, chain[0].assignmentsRoot, leaf);
    }

    /// @dev That its worker runs it, by the worker's operator.
    function _confirm(bytes32 assignmentHash, address operator) private {
        Shown storage shown = _shown[assignmentHash];
        if (shown.operator == address(0)) revert UnprovenAssignment(assignmentHash);
        if (shown.confirmedAt != 0) revert AlreadyConfirmed(assignmentHash);
        if (shown.operator != operator) revert NotWorkerOperator(assignmentHash, operator);
        shown.confirmedAt = uint40(block.timestamp);
        emit DeploymentConfirmed(assignmentHash, operator);
    }

    /// @dev How many certificates were anchored.
    function _count(uint256 numbers) private pure returns (uint256) {
        return uint40(numbers >> COUNT);
    }

    /// @dev Whether `ceremony.verificationHash(cluster)` is that of what is given.
    function _isInForce(Certificate calldata certificate, CompressedPoint calldata groupKey)
        private
        view
        returns (bool inForce)
    {
        address target = address(ceremony);
        bytes32 selector = IKeyCeremony.verificationHash.selector;
        assembly ("memory-safe") {
            mstore(0x00, selector)
            mstore(0x04, calldataload(certificate))
            // It does not revert. If there is not enough gas, something else than a hash stays here.
            pop(staticcall(gas(), target, 0x00, 0x24, 0x00, 0x20))
            let m := mload(0x40)
            calldatacopy(m, add(certificate, 0x20), 0x40) // epoch, key set
            mstore(add(m, 0x40), calldataload(add(certificate, 0x180))) // origin
            calldatacopy(add(m, 0x60), groupKey, 0x40)
            inForce := eq(keccak256(m, 0xa0), mload(0x00))
        }
    }

    /// @dev Says what of the certificate is not in force.
    function _explain(Certificate calldata certificate, CompressedPoint calldata groupKey)
        private
        view
    {
        uint64 epochs = ceremony.epochs(certificate.cluster);
        if (epochs == 0) revert IKeyCeremony.NoKey(certificate.cluster, 0);
        uint64 epoch = epochs - 1;
        if (certificate.epoch != epoch) revert EpochNotInForce(certificate.epoch, epoch);
        if (ceremony.isSuspended(certificate.cluster, epoch)) revert GroupSuspended(epoch);
        IKeyCeremony.Key memory key = ceremony.keyOf(certificate.cluster, epoch);
        if (certificate.keySet != key.fheKeyDigest) {
            revert WrongKeySet(certificate.keySet, key.fheKeyDigest);
        }
        if (certificate.referenceStringOrigin != key.referenceStringOrigin) {
            revert WrongReferenceStringOrigin(
                certificate.referenceStringOrigin, key.referenceStringOrigin
            );
        }
        revert WrongGroupKey(groupKey.x, key.groupKeyX);
    }

    /// @dev Checks that each certificate names the one before it, and that the last one was anchored recently.
    /// @return first The hash of the first one.
    function _checkChain(Certificate[] calldata chain) private view returns (bytes32 first) {
        if (chain.length == 0) revert NotAnchored(0, 0);
        bytes32 last;
        (last, first) = _follow(chain);
        // Only certificates of this cluster lead up to its heads: the hash covers the cluster.
        if (_isRecent(chain[0].cluster, last)) return first;
        Anchored storage anchored = _anchored[chain[0].cluster];
        revert NotAnchored(last, _headAt(anchored, _count(anchored.numbers)));
    }

    /// @dev The hashes of the last and the first certificate; zero as the last if one does not name the one
    /// before it.
    function _follow(Certificate[] calldata chain)
        private
        view
        returns (bytes32 last, bytes32 first)
    {
        for (uint256 i = 0; i < chain.length; ++i) {
            if (i != 0 && chain[i].previous != last) return (0, first);
            last = hashOf(chain[i]);
            if (i == 0) first = last;
        }
    }

    /// @dev From the head backwards: that is what most are shown against.
    function _isRecent(bytes32 cluster, bytes32 hash) private view returns (bool) {
        if (hash == 0) return false;
        Anchored storage anchored = _anchored[cluster];
        uint256 count = _count(anchored.numbers);
        uint256 least = count < RECENT_HEADS ? 0 : count - RECENT_HEADS;
        for (; count > least; --count) {
            if (_headAt(anchored, count) == hash) return true;
        }
        return false;
    }

    /// @dev The head when so many were anchored; zero for none.
    function _headAt(Anchored storage anchored, uint256 count) private view returns (bytes32) {
        return count == 0 ? bytes32(0) : anchored.heads[(count - 1) % RECENT_HEADS];
    }
}
