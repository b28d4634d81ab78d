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

    /// @dev A shown assignment: who may confirm it.
    mapping(bytes32 assignmentHash => address operator) private _proven;

    /// @dev In two words: slot, epoch and count are the lowest three times 64 bits of the second one.
    struct PackedHead {
        bytes32 hash;
        uint256 numbers;
    }

    mapping(bytes32 cluster => PackedHead) private _heads;

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
        PackedHead storage head = _heads[certificate.cluster];
        if (certificate.base != head.hash) revert WrongBase(certificate.base, head.hash);
        uint256 numbers = head.numbers;
        uint256 slot;
        assembly ("memory-safe") {
            slot := calldataload(add(certificate, 0x60))
        }
        if (slot <= uint64(numbers) || slot > type(uint64).max) {
            revert SlotNotLater(uint64(slot), uint64(numbers));
        }
        bytes32 hash = Certificates.digest(block.chainid, directory, certificate);
        if (!FrostVerifier.verify(groupKey, hash, signature)) revert WrongGroupSignature();
        head.hash = hash;
        assembly ("memory-safe") {
            // The epoch is a number of 64 bits, being the one in force.
            let epoch := shl(64, calldataload(add(certificate, 0x20)))
            let count := shl(128, add(shr(128, numbers), 1))
            sstore(add(head.slot, 1), or(or(count, epoch), slot))
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
        _checkChain(chain);
        assignmentHash = Certificates.leaf(assignment);
        bytes32 root = chain[0].assignmentsRoot;
        if (!MerkleProof.verifyCalldata(proof, root, assignmentHash)) {
            revert NotIncluded(assignmentHash, root);
        }
        address operator = registry.operatorOf(chain[0].cluster, assignment.worker);
        if (assignment.outcome != 1 || operator == address(0)) {
            revert NoSuchWorker(assignment.worker);
        }
        _proven[assignmentHash] = operator;
        emit AssignmentProven(chain[0].cluster, assignmentHash, operator);
    }

    /// @inheritdoc IAssignmentAnchor
    function anchorDeployment(bytes32 assignmentHash) public override returns (bool) {
        address operator = _proven[assignmentHash];
        if (operator == address(0)) revert UnprovenAssignment(assignmentHash);
        if (operator != msg.sender) revert NotWorkerOperator(assignmentHash, msg.sender);
        emit DeploymentConfirmed(assignmentHash, operator);
        return true;
    }

    /// @inheritdoc IAssignmentAnchor
    function confirmDeployment(
        Certificate[] calldata chain,
        Assignment calldata assignment,
        bytes32[] calldata proof
    ) external override returns (bytes32 assignmentHash) {
        assignmentHash = proveAssignment(chain, assignment, proof);
        anchorDeployment(assignmentHash);
    }

    /// @inheritdoc IAssignmentAnchor
    function headOf(bytes32 cluster) external view override returns (Head memory) {
        PackedHead storage head = _heads[cluster];
        uint256 numbers = head.numbers;
        return Head(head.hash, uint64(numbers), uint64(numbers >> 64), uint64(numbers >> 128));
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

    /// @dev Checks that each certificate names the one before it and the last one is the head.
    function _checkChain(Certificate[] calldata chain) private view {
        if (chain.length == 0) revert NotAnchored(0, 0);
        bytes32 hash = hashOf(chain[0]);
        for (uint256 i = 1; i < chain.length; ++i) {
            if (chain[i].previous != hash) revert NotAnchored(hash, chain[i].previous);
            hash = hashOf(chain[i]);
        }
        // Only certificates of this cluster lead up to its head: the hash covers the cluster.
        bytes32 head = _heads[chain[0].cluster].hash;
        if (hash != head) revert NotAnchored(hash, head);
    }
}
