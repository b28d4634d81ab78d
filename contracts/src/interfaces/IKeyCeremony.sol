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
/// is signed with FROST by the new group, `KeyHandover(bytes32 publication,bytes32 lastCertificate)`, which also
/// names the last certificate that was anchored, by the group before it.
/// `CeremonyAbort(bytes32 cluster,uint64 epoch,uint32 attempt,bytes32 reason)` is signed by a member.
/// `MemberAbsence(bytes32 cluster,uint64 epoch,uint32 attempt,uint8 seat)` is signed by t+1 members to
/// replace the one in that seat (from 1) by the next standby after a failed attempt.
///
/// Publishing makes a key ready and changes nothing that is in force; the first key takes effect at once, a
/// later one when it is activated. While no attempt follows, that has no deadline.
///
/// The roster of an attempt is the elected committee, or in an appointed cluster the first members in
/// the order of their positions. Who forfeited its seat of the epoch, which an operator does that aborts an elected
/// committee's attempt, or was drawn and has left since, is followed by the next standby that did not. Where a
/// member's key is needed, it is an argument that is compared with the peer.
///
/// From epoch 1 on the group before signs the handover. If it cannot, because its quorum is gone or it
/// was suspended for equivocation, governance may announce a succession, which replaces that signature
/// after `SUCCESSION_DELAY`, for `SUCCESSION_TIME`.
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
        /// Who made it: 0, the committee together in its ceremony. Nothing else is taken.
        uint8 referenceStringOrigin;
    }

    /// @notice A published key.
    struct Key {
        /// The FROST group key: x, and 2 or 3 for an even or odd y.
        uint256 groupKeyX;
        uint8 groupKeyPrefix;
        /// The attempt that made it.
        uint32 attempt;
        /// Who made the reference string: 0, the committee together.
        uint8 referenceStringOrigin;
        /// When it came into force, Unix time.
        uint64 publishedAt;
        bytes32 verifyingSharesRoot;
        bytes32 fheKeyDigest;
        bytes32 transcriptRoot;
        bytes32 referenceStringDigest;
    }

    /// @notice That a member was absent, with the signature of another one.
    struct Absence {
        /// The signer's seat, from 1.
        uint8 seat;
        /// The signer's key.
        Point identity;
        CompactSignature signature;
    }

    /// @notice The roster may begin.
    event CeremonyProposed(
        bytes32 indexed cluster,
        uint64 indexed epoch,
        uint32 indexed attempt,
        uint64 deadline,
        bytes32[] roster
    );
    /// @notice The peer in this seat (from 1) of the attempt has no seat in the epoch's later ones.
    event SeatForfeited(
        bytes32 indexed cluster,
        uint64 indexed epoch,
        uint32 attempt,
        uint8 seat,
        bytes32 indexed peer
    );
    /// @notice The epoch's group may no longer anchor, nor hand over.
    event EpochSuspended(bytes32 indexed cluster, uint64 indexed epoch);
    /// @notice From this second (Unix time) on, the epoch's key needs no handover signature; 0 if the
    /// announcement was withdrawn.
    event SuccessionAnnounced(bytes32 indexed cluster, uint64 indexed epoch, uint64 from);
    /// @notice The attempt makes no key.
    event CeremonyAborted(
        bytes32 indexed cluster,
        uint64 indexed epoch,
        uint32 indexed attempt,
        address by,
        bytes32 reason
    );
    /// @notice The epoch's key is ready.
    event KeyPublished(
        bytes32 indexed cluster,
        uint64 indexed epoch,
        uint32 attempt,
        bytes32 fheKeyDigest,
        uint8 referenceStringOrigin
    );

    /// @notice The epoch's key is in force.
    event KeyActivated(bytes32 indexed cluster, uint64 indexed epoch, uint32 attempt);

    /// @notice Only the cluster's admin may do this.
    error NotClusterAdmin(bytes32 cluster, address caller);
    /// @notice Keys are made epoch by epoch.
    error WrongEpoch(uint64 given, uint64 expected);
    /// @notice Attempts are counted without gaps.
    error WrongAttempt(uint32 given, uint32 expected);
    /// @notice The attempt before this one may still publish: wait for its deadline or abort it.
    error AttemptStillOpen(uint32 attempt, uint64 deadline);
    /// @notice The deadline is past, further away than `MAX_DURATION`, or, for an elected committee, nearer
    /// than `MIN_DURATION`.
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
    /// @notice Not the operator of a member of this attempt, nor the admin of an appointed committee.
    error NotAParticipant(address caller);
    /// @notice Seats are counted from 1.
    error UnknownSeat(uint8 seat);
    /// @notice The signature of the member in this seat (from 1) does not verify, or the key given is
    /// not that member's.
    error WrongMemberSignature(uint8 seat);
    /// @notice The signatures are not those of the members in the order of their seats. Whose they
    /// are: compare with the addresses of the members' keys.
    error WrongMemberSignatures(address[] recovered);
    /// @notice All members sign; not more, not fewer.
    error WrongNumberOfSignatures(uint256 given, uint256 expected);
    /// @notice The group key is not on the curve, or cannot be verified against.
    error InvalidGroupKey();
    /// @notice The new group has not signed.
    error WrongProofOfPossession();
    /// @notice The previous group has not signed.
    error WrongHandoverSignature();
    /// @notice The group before is suspended: governance has to announce a succession.
    error GroupSuspended(uint64 epoch);
    /// @notice The cluster's committees are elected, and the epoch has none yet.
    error NoCommittee(bytes32 cluster, uint64 epoch);
    /// @notice The keys given are not those of the committee and its standbys, in order.
    error WrongRoster(bytes32 given, bytes32 expected);
    /// @notice The point with this x-coordinate is not on the curve.
    error InvalidIdentityKey(uint256 x);
    /// @notice No key is ready for the epoch, or it is not the next one.
    error NoReadyKey(bytes32 cluster, uint64 epoch);
    /// @notice The handover names another certificate than was anchored last.
    error NotTheHead(bytes32 given, bytes32 head);
    /// @notice Only the last attempt's roster can be changed, and only after it failed.
    error AttemptNotFailed(uint32 attempt, Status status);
    /// @notice All standbys are seated, or out themselves: in an elected cluster `extend` draws more.
    error NoStandbyLeft();
    /// @notice The peer in this seat has forfeited it.
    error SeatAlreadyReplaced(uint8 seat);
    /// @notice t+1 members other than the absent one sign, in ascending order of seats.
    error TooFewAbsences(uint256 given, uint256 needed);
    /// @notice Signers are given in strictly ascending order of seats, without the absent one.
    error WrongOrder(uint8 seat);
    /// @notice Not 0: the committee did not make it.
    error UnknownReferenceStringOrigin(uint8 origin);
    /// @notice The epoch has no key.
    error NoKey(bytes32 cluster, uint64 epoch);

    /// @notice Proposes an attempt and freezes its roster. The cluster's admin.
    /// @param identities Keys of the committee (`committeeSize`), then of its standbys (as many as were
    /// elected; in an appointed cluster as many as are registered, up to its `standbys`), in order, those that
    /// are out among them. A key that is ready is given up.
    function propose(Proposal calldata proposal, Point[] calldata identities) external;

    /// @notice Takes the seat of the epoch from a member that was absent from the last attempt, which failed.
    /// Anyone who has the signatures.
    function replaceSeat(
        bytes32 cluster,
        uint64 epoch,
        uint32 attempt,
        uint8 seat,
        Absence[] calldata absences
    ) external;

    /// @notice Ends an attempt that has not published. The operator of a member, whose nodes forfeit their seats
    /// if the committee is elected; or the admin if it is appointed.
    /// @param reason Digest of why, for the records.
    function abort(bytes32 cluster, uint64 epoch, uint32 attempt, bytes32 reason) external;

    /// @notice The same with the signature of a member's identity, sent by anyone.
    function abortSigned(
        bytes32 cluster,
        uint64 epoch,
        uint32 attempt,
        bytes32 reason,
        uint8 seat,
        Point calldata identity,
        CompactSignature calldata signature
    ) external;

    /// @notice Makes a key ready, and the first one of a cluster the one in force. Anyone who has the signatures.
    /// @param memberSignatures Of all members, in the order of their seats.
    /// @param proofOfPossession By the new group.
    function publish(
        Publication calldata publication,
        CompactSignature[] calldata memberSignatures,
        FrostSignature calldata proofOfPossession
    ) external;

    /// @notice Puts the key that is ready in force. Anyone who has the signature.
    /// @param lastCertificate The hash of the last certificate that was anchored; zero if none was.
    /// @param handoverSignature By the previous group; ignored in a succession.
    function activate(
        bytes32 cluster,
        uint64 epoch,
        bytes32 lastCertificate,
        FrostSignature calldata handoverSignature
    ) external;

    /// @notice Hash of the struct `KeyPublication` of the next epoch's key, if it is ready; zero otherwise.
    function readyPublication(bytes32 cluster) external view returns (bytes32);

    /// @notice Ends what the epoch's group may do. The disputes contract.
    function suspend(bytes32 cluster, uint64 epoch) external;

    /// @notice Announces that the key of `epoch`, the next one, will need no handover signature. The
    /// directory's owner.
    function announceSuccession(bytes32 cluster, uint64 epoch) external;

    /// @notice Withdraws the announcement. The directory's owner.
    function withdrawSuccession(bytes32 cluster, uint64 epoch) external;

    /// @notice From when (Unix time) the epoch's key needs no handover signature; 0 if it does.
    function successionFrom(bytes32 cluster, uint64 epoch) external view returns (uint64);

    /// @notice How many epochs have had a key in force; the current epoch is one less.
    function epochs(bytes32 cluster) external view returns (uint64);

    /// @notice How many attempts were proposed for an epoch.
    function attempts(bytes32 cluster, uint64 epoch) external view returns (uint32);

    function attemptOf(bytes32 cluster, uint64 epoch, uint32 attempt)
        external
        view
        returns (Attempt memory);

    /// @notice The key of an epoch; reverts with `NoKey` if there is none.
    function keyOf(bytes32 cluster, uint64 epoch) external view returns (Key memory);

    /// @notice The place of a peer in the roster that made the epoch's key, from 1; 0 if it had none.
    function seatOf(bytes32 cluster, uint64 epoch, bytes32 peer) external view returns (uint8);

    /// @notice Whether an attempt of the epoch may still be published.
    function isOpen(bytes32 cluster, uint64 epoch) external view returns (bool);

    /// @notice Whether the peer has no seat in the epoch's later attempts.
    function hasForfeited(bytes32 cluster, uint64 epoch, bytes32 peer) external view returns (bool);

    /// @notice Whether the epoch's group was suspended.
    function isSuspended(bytes32 cluster, uint64 epoch) external view returns (bool);

    /// @notice What a certificate states of its key, and the group key, in one word:
    /// `keccak256(abi.encode(epoch, fheKeyDigest, referenceStringOrigin, groupKeyX, groupKeyPrefix))` of
    /// the key in force; 0 before the first key and while its group is suspended.
    function verificationHash(bytes32 cluster) external view returns (bytes32);
}
