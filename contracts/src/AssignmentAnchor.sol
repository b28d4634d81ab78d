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
    mapping(bytes32 cluster => Head) private _heads;

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
        bytes32 expected = ceremony.verificationHash(certificate.cluster);
        if (_verificationHash(certificate, groupKey) != expected) {
            _explain(certificate, groupKey, expected);
        }
        Head storage head = _heads[certificate.cluster];
        bytes32 previous = head.hash;
        if (certificate.previous != previous) {
            revert WrongPrevious(certificate.previous, previous);
        }
        (uint64 last, uint64 count) = (head.slot, head.count);
        if (certificate.slot <= last) revert SlotNotLater(certificate.slot, last);
        bytes32 hash = hashOf(certificate);
        if (!FrostVerifier.verify(groupKey, hash, signature)) revert WrongGroupSignature();
        _heads[certificate.cluster] = Head(hash, certificate.slot, certificate.epoch, count + 1);
        emit CertificateAnchored(
            certificate.cluster,
            certificate.slot,
            hash,
            certificate.assignmentsRoot,
            certificate.stateRoot,
            certificate.referenceStringOrigin
        );
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
        return _heads[cluster];
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
    function verifyInclusion(Certificate[] calldata chain, bytes32 leaf, bytes32[] calldata proof)
        external
        view
        override
        returns (bool)
    {
        _checkChain(chain);
        return MerkleProof.verifyCalldata(proof, chain[0].assignmentsRoot, leaf);
    }

    /// @dev As `IKeyCeremony.verificationHash`.
    function _verificationHash(Certificate calldata certificate, CompressedPoint calldata groupKey)
        private
        pure
        returns (bytes32)
    {
        return keccak256(
            abi.encode(
                certificate.epoch,
                certificate.keySet,
                certificate.referenceStringOrigin,
                groupKey.x,
                groupKey.prefix
            )
        );
    }

    /// @dev Says what of the certificate is not in force.
    function _explain(
        Certificate calldata certificate,
        CompressedPoint calldata groupKey,
        bytes32 expected
    ) private view {
        uint64 epochs = ceremony.epochs(certificate.cluster);
        if (epochs == 0) revert IKeyCeremony.NoKey(certificate.cluster, 0);
        uint64 epoch = epochs - 1;
        if (certificate.epoch != epoch) revert EpochNotInForce(certificate.epoch, epoch);
        if (expected == 0) revert GroupSuspended(epoch);
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
