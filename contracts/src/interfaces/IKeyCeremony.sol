// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IVeilContract} from "./IVeilContract.sol";

/// @title The commit point of key ceremonies
/// @notice An attempt of a ceremony is proposed with a deadline and ends in exactly one of three
/// ways: published, aborted, expired. The contract orders these once for all, so that all members
/// agree whether there is a key.
///
/// Typed data (EIP-712):
///
/// `KeyPublication(bytes32 cluster,uint64 epoch,uint32 attempt,uint256 groupKeyX,uint256 groupKeyY,bytes32 verifyingSharesRoot,bytes32 fheKeyDigest,bytes32 transcriptRoot,bytes32 referenceStringDigest,uint8 referenceStringOrigin)`
/// is signed by each member's identity. `KeyPossession(bytes32 publication)` over that struct's hash
/// is signed with FROST by the new group, `KeyHandover(bytes32 publication)` by the group before it.
/// `CeremonyAbort(bytes32 cluster,uint64 epoch,uint32 attempt,bytes32 reason)` is signed by a member.
interface IKeyCeremony is IVeilContract {
    /// @notice Where an attempt stands.
    enum Status {
        Unknown,
        Proposed,
        Aborted,
        Expired,
        Published
    }

    /// @notice What an attempt is proposed with.
    struct Proposal {
        bytes32 cluster;
        uint64 epoch;
        /// 0 for the first attempt of an epoch, then one more each.
        uint32 attempt;
        /// Name of the FHE parameter set.
        string parameters;
        /// Its digest.
        bytes32 parametersDigest;
        /// The ceremony's context: what ties its messages to this deployment.
        bytes32 context;
        /// Last second (Unix time) at which the key may be published.
        uint64 deadline;
    }

    /// @notice An attempt.
    struct Attempt {
        Status status;
        uint64 deadline;
        string parameters;
        bytes32 parametersDigest;
        bytes32 context;
        /// Peers in the order of their seats: participant j at position j-1.
        bytes32[] roster;
    }

    /// @notice What a finished attempt publishes.
    struct Publication {
        bytes32 cluster;
        uint64 epoch;
        uint32 attempt;
        /// The FROST group key.
        Point groupKey;
        /// Root over the members' verifying shares.
        bytes32 verifyingSharesRoot;
        /// Digest of the FHE key set.
        bytes32 fheKeyDigest;
        /// Root of the ceremony's transcript.
        bytes32 transcriptRoot;
        /// Digest of the reference string that telemetry proofs rest on.
        bytes32 referenceStringDigest;
        /// Who made it: 0 the committee together, 1 a single party (insecure).
        uint8 referenceStringOrigin;
    }

    /// @notice A published key.
    struct Key {
        /// The FROST group key: x, and 2 or 3 for an even or odd y.
        uint256 groupKeyX;
        uint8 groupKeyPrefix;
        /// The attempt that made it.
        uint32 attempt;
        /// Who made the reference string: 0 the committee together, 1 a single party (insecure).
        uint8 referenceStringOrigin;
        /// When it was published, Unix time.
        uint64 publishedAt;
        bytes32 verifyingSharesRoot;
        bytes32 fheKeyDigest;
        bytes32 transcriptRoot;
        bytes32 referenceStringDigest;
    }

    /// @notice The roster may begin.
    event CeremonyProposed(
        bytes32 indexed cluster, uint64 indexed epoch, uint32 indexed attempt, uint64 deadline
    );
    /// @notice The attempt makes no key.
    event CeremonyAborted(
        bytes32 indexed cluster,
        uint64 indexed epoch,
        uint32 indexed attempt,
        address by,
        bytes32 reason
    );
    /// @notice The epoch has a key.
    event KeyPublished(
        bytes32 indexed cluster,
        uint64 indexed epoch,
        uint32 attempt,
        bytes32 fheKeyDigest,
        uint8 referenceStringOrigin
    );

    /// @notice Only the cluster's admin may do this.
    error NotClusterAdmin(bytes32 cluster, address caller);
    /// @notice Keys are made epoch by epoch.
    error WrongEpoch(uint64 given, uint64 expected);
    /// @notice Attempts are counted without gaps.
    error WrongAttempt(uint32 given, uint32 expected);
    /// @notice The attempt before this one may still publish: wait for its deadline or abort it.
    error AttemptStillOpen(uint32 attempt, uint64 deadline);
    /// @notice The deadline is past, or further away than `MAX_DURATION`.
    error InvalidDeadline(uint64 deadline, uint64 latest);
    /// @notice Not enough members are registered.
    error TooFewMembers(uint256 registered, uint8 needed);
    /// @notice The name of the parameter set is empty or longer than `MAX_NAME_BYTES`.
    error InvalidParametersName(uint256 length);
    /// @notice No such attempt was proposed.
    error UnknownAttempt(bytes32 cluster, uint64 epoch, uint32 attempt);
    /// @notice The attempt was aborted.
    error AttemptAborted(uint32 attempt);
    /// @notice The attempt's deadline is past.
    error AttemptExpired(uint32 attempt, uint64 deadline);
    /// @notice The attempt has published its key.
    error AttemptPublished(uint32 attempt);
    /// @notice Neither the admin nor the operator of a member of this attempt.
    error NotAParticipant(address caller);
    /// @notice Seats are counted from 1.
    error UnknownSeat(uint8 seat);
    /// @notice The signature of the member in this seat (from 1) does not verify.
    error WrongMemberSignature(uint8 seat);
    /// @notice All members sign; not more, not fewer.
    error WrongNumberOfSignatures(uint256 given, uint256 expected);
    /// @notice The group key is not on the curve, or cannot be verified against.
    error InvalidGroupKey();
    /// @notice The new group has not signed.
    error WrongProofOfPossession();
    /// @notice The previous group has not signed.
    error WrongHandoverSignature();
    /// @notice Neither 0 (committee) nor 1 (single party).
    error UnknownReferenceStringOrigin(uint8 origin);
    /// @notice The epoch has no key.
    error NoKey(bytes32 cluster, uint64 epoch);

    /// @notice Proposes an attempt and freezes its roster. The cluster's admin.
    function propose(Proposal calldata proposal) external;

    /// @notice Ends an attempt that has not published. The admin, or the operator of a member.
    /// @param reason Digest of why, for the records.
    function abort(bytes32 cluster, uint64 epoch, uint32 attempt, bytes32 reason) external;

    /// @notice The same with the signature of a member's identity, sent by anyone.
    function abortSigned(
        bytes32 cluster,
        uint64 epoch,
        uint32 attempt,
        bytes32 reason,
        uint8 seat,
        CompactSignature calldata signature
    ) external;

    /// @notice Publishes a key, once per epoch. Anyone who has the signatures.
    /// @param memberSignatures Of all members, in the order of their seats.
    /// @param proofOfPossession By the new group.
    /// @param handoverSignature By the previous group; ignored for epoch 0.
    function publish(
        Publication calldata publication,
        CompactSignature[] calldata memberSignatures,
        FrostSignature calldata proofOfPossession,
        FrostSignature calldata handoverSignature
    ) external;

    /// @notice How many epochs have a key; the current epoch is one less.
    function epochs(bytes32 cluster) external view returns (uint64);

    /// @notice How many attempts were proposed for an epoch.
    function attempts(bytes32 cluster, uint64 epoch) external view returns (uint32);

    function attemptOf(bytes32 cluster, uint64 epoch, uint32 attempt)
        external
        view
        returns (Attempt memory);

    /// @notice The key of an epoch; reverts with `NoKey` if there is none.
    function keyOf(bytes32 cluster, uint64 epoch) external view returns (Key memory);

    /// @notice The part of the current key that a certificate is checked against.
    function verificationKey(bytes32 cluster)
        external
        view
        returns (
            uint64 epoch,
            CompressedPoint memory groupKey,
            bytes32 fheKeyDigest,
            uint8 referenceStringOrigin
        );
}
