// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IVeilContract} from "./IVeilContract.sol";

/// @title The chain of assignment certificates
/// @notice Holds the hash of the last certificate that was anchored, the head, and those of some heads before
/// it, and nothing else of them.
/// Not every certificate is anchored: each names the head as of the block that its members read the
/// chain at, and is anchored on that one only, whatever slots lie between. Each names the hash of the
/// certificate before it, too, so that earlier ones, anchored or not, are proved by showing the links
/// up to the head, or to one that was it recently: a confirmation under way outlives the next slots.
interface IAssignmentAnchor is IVeilContract {
    /// @notice What a certificate's FROST signature covers, apart from purpose, chain and directory.
    struct Certificate {
        bytes32 cluster;
        uint64 epoch;
        /// Digest of the FHE key set.
        bytes32 keySet;
        uint64 slot;
        bytes32 manifest;
        /// Hash of the certificate before this one; zero for the first.
        bytes32 previous;
        /// Hash of the certificate that this one is anchored on: the head when its slot began; zero if
        /// there was none.
        bytes32 base;
        /// Jobs on the job board then.
        uint64 jobsSeen;
        /// Digest of what was evaluated; zero if the slot ended void.
        bytes32 evaluation;
        /// Commitment to a section for members: zero, until there is one.
        bytes32 membersOnly;
        bytes32 assignmentsRoot;
        bytes32 stateRoot;
        /// 0 the committee together, 1 a single party (insecure).
        uint8 referenceStringOrigin;
    }

    /// @notice Where one replica goes.
    struct Assignment {
        bytes32 job;
        uint16 replica;
        /// 0 pending, 1 to a worker.
        uint8 outcome;
        /// The worker's peer; zero if pending.
        bytes32 worker;
    }

    /// @notice What a state root says of one replica that has a place, or has ended and is done.
    struct Replica {
        bytes32 job;
        uint16 replica;
        /// 0: `worker` is the worker's peer. 1, a commitment to it, is reserved.
        uint8 form;
        bytes32 worker;
        /// The slot that assigned it.
        uint64 slot;
        /// 1 if it is done: then worker and slot are those of the place that it had. 2 is reserved.
        uint8 flags;
    }

    /// @notice The last certificate of a cluster.
    struct Head {
        bytes32 hash;
        uint64 slot;
        uint64 epoch;
        /// How many certificates were anchored.
        uint64 count;
    }

    /// @notice A certificate was anchored.
    event CertificateAnchored(
        bytes32 indexed cluster,
        uint64 indexed slot,
        bytes32 indexed hash,
        bytes32 assignmentsRoot,
        bytes32 stateRoot,
        uint8 referenceStringOrigin
    );
    /// @notice An assignment was shown to be in the certificates of its cluster.
    event AssignmentProven(
        bytes32 indexed cluster,
        bytes32 indexed assignmentHash,
        address indexed operator,
        bytes32 certificate,
        bytes32 leaf
    );
    /// @notice The worker's operator confirms that the assignment is deployed. `AssignmentProven` says of which
    /// cluster, certificate and leaf.
    event DeploymentConfirmed(bytes32 indexed assignmentHash, address indexed operator);

    /// @notice The certificate's epoch is not the current one.
    error EpochNotInForce(uint64 given, uint64 current);
    /// @notice The certificate names another key set than the epoch has.
    error WrongKeySet(bytes32 given, bytes32 current);
    /// @notice The certificate states another origin of the reference string than the key has.
    error WrongReferenceStringOrigin(uint8 given, uint8 current);
    /// @notice The group key given is not that of the epoch.
    error WrongGroupKey(uint256 given, uint256 current);
    /// @notice The group was suspended for equivocation: nothing is anchored until the next epoch.
    error GroupSuspended(uint64 epoch);
    /// @notice The certificate's slot is not after the last one anchored.
    error SlotNotLater(uint64 given, uint64 last);
    /// @notice The certificate names another head than there is.
    error WrongBase(bytes32 given, bytes32 head);
    /// @notice The group's signature does not verify.
    error WrongGroupSignature();
    /// @notice The certificates do not lead up to one of the last `RECENT_HEADS` heads.
    error NotAnchored(bytes32 hash, bytes32 head);
    /// @notice The leaf is not under the certificate's root.
    error NotIncluded(bytes32 leaf, bytes32 root);
    /// @notice The assignment names no registered worker.
    error NoSuchWorker(bytes32 worker);
    /// @notice What is reserved in a replica's leaf is zero.
    error ReservedInLeaf(uint8 form, uint8 flags);
    /// @notice Nobody has shown this assignment to be anchored: `proveAssignment` does.
    error UnprovenAssignment(bytes32 assignmentHash);
    /// @notice The assignment is confirmed; it is once.
    error AlreadyConfirmed(bytes32 assignmentHash);
    /// @notice Only the operator of the assigned worker may confirm.
    error NotWorkerOperator(bytes32 assignmentHash, address caller);

    /// @notice Makes a certificate of a later slot, which names the head as its base, the head. Anyone.
    /// @param groupKey That of the epoch, as `KeyCeremony.keyOf` has it; giving it costs less than
    /// reading it.
    function anchor(
        Certificate calldata certificate,
        CompressedPoint calldata groupKey,
        FrostSignature calldata signature
    ) external;

    /// @notice Shows that an assignment is anchored, so that it can be confirmed. Anyone.
    /// @param chain The certificate that has the assignment, then all later ones up to the head, or one that was
    /// the head recently.
    /// @param proof Siblings on the way from the assignment's leaf to the root, lowest first.
    /// @return assignmentHash `keccak256(abi.encode(cluster, certificate, leaf))`: the same assignment by
    /// another certificate, or of another cluster, is another one.
    function proveAssignment(
        Certificate[] calldata chain,
        Assignment calldata assignment,
        bytes32[] calldata proof
    ) external returns (bytes32 assignmentHash);

    /// @notice Confirms that an assignment is deployed; it must have been shown to be anchored. The
    /// operator of its worker.
    function anchorDeployment(bytes32 assignmentHash) external returns (bool);

    /// @notice `proveAssignment`, then `anchorDeployment`.
    function confirmDeployment(
        Certificate[] calldata chain,
        Assignment calldata assignment,
        bytes32[] calldata proof
    ) external returns (bytes32 assignmentHash);

    /// @notice The same for the caller of the fee pool of this set, which alone may do this and pays it back what it
    /// cost.
    function confirmDeploymentFor(
        address operator,
        Certificate[] calldata chain,
        Assignment calldata assignment,
        bytes32[] calldata proof
    ) external returns (bytes32 assignmentHash);

    /// @notice Who may confirm an assignment that was shown, when it was confirmed (Unix time; zero if it
    /// was not), and the slot that assigned it, its lowest 56 bits.
    function confirmationOf(bytes32 assignmentHash)
        external
        view
        returns (address operator, uint64 confirmedAt, uint64 slot);

    /// @notice When a certificate was anchored, if it is the head or the one anchored before it.
    /// @return Unix time; zero if it is neither.
    function anchoredAt(bytes32 cluster, bytes32 certificate) external view returns (uint64);

    function headOf(bytes32 cluster) external view returns (Head memory);

    /// @notice What the committee signs and the next certificate names.
    function hashOf(Certificate calldata certificate) external view returns (bytes32);

    /// @notice The leaf of an assignment.
    function leafOf(Assignment calldata assignment) external pure returns (bytes32);

    /// @notice The leaf of a replica in the tree of a certificate's `stateRoot`.
    function replicaLeafOf(Replica calldata replica) external pure returns (bytes32);

    /// @notice Whether the certificates lead up to the head, or one that was it recently.
    function isAnchored(Certificate[] calldata chain) external view returns (bool);

    /// @notice Whether the certificates lead up to the head, or one that was it recently, and the leaf is under the root of the
    /// first of them.
    function verifyInclusion(Certificate[] calldata chain, bytes32 leaf, bytes32[] calldata proof)
        external
        view
        returns (bool);
}
