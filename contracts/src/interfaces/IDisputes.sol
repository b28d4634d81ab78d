// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAssignmentAnchor} from "./IAssignmentAnchor.sol";
import {IVeilContract} from "./IVeilContract.sol";

/// @title Disputes over what committees and their members signed
/// @notice Provable faults are punished by whoever shows the proof; a wrong evaluation, which no
/// contract can recompute, is challenged with a bond and decided by governance after outsiders
/// re-executed the archived slot.
///
/// A group signature does not say who signed, so two of one slot suspend the group and slash nobody.
/// Members sign with their own identities (EIP-712):
///
/// `CertificateVote(bytes32 cluster,uint64 epoch,uint64 slot,bytes32 certificate)` for the only
/// certificate of a slot that they take part in signing, and
/// `FrostShare(bytes32 cluster,uint64 epoch,bytes32 message,uint16 signers,uint256 groupCommitmentX,uint256 groupCommitmentY,uint256 commitmentX,uint256 commitmentY,uint256 share)`
/// for the share z_i of a FROST signature over `message`: R, the signer's own R_i = D_i + rho_i E_i, the
/// signers as bits (bit i-1 for participant i), and z_i. A share is wrong if
/// z_i G != R_i + c lambda_i Y_i.
///
/// A fault costs part of the stake that its member had at its first fault of the last `DISPUTE_WINDOW`. In that
/// time nobody loses more than `MAX_MEMBER_BPS` of that, of however many epochs the faults are, and in an epoch a
/// committee together not more than `MAX_COMMITTEE_BPS` of its stake. An epoch can be disputed until
/// `DISPUTE_WINDOW` after the next one's key came into force. The reporter gets `REWARD_BPS` of what is taken,
/// and can `claim` it; the rest is in the cluster's fee pool, which pays nobody more than its steps have cost.
///
/// A challenge is of one certificate, which was anchored, and of one challenger: what others challenged, and how
/// that was decided, bars nobody. It keeps the stake of nodes that leave the cluster where it is, for
/// `NodeRegistry.MAX_HOLD` at most. Governance decides it within `RESOLUTION_TIME`, or it lapses.
interface IDisputes is IVeilContract {
    /// @notice What a member's identity signs for a certificate.
    struct Vote {
        bytes32 cluster;
        uint64 epoch;
        uint64 slot;
        /// Hash of the certificate.
        bytes32 certificate;
    }

    /// @notice What a member's identity signs for its share of a FROST signature.
    struct Share {
        bytes32 cluster;
        uint64 epoch;
        /// What the group signs.
        bytes32 message;
        /// Bit i-1 for participant i.
        uint16 signers;
        /// R.
        Point groupCommitment;
        /// R_i.
        Point commitment;
        /// z_i.
        uint256 share;
    }

    /// @notice A key that proves who signed.
    struct Signed {
        Point identity;
        CompactSignature signature;
    }

    /// @notice Kinds of faults.
    enum Fault {
        Equivocation,
        WrongShare,
        WrongEvaluation
    }

    /// @notice Where a challenge stands.
    enum ChallengeStatus {
        Unknown,
        Open,
        Upheld,
        Rejected,
        /// Not decided in time.
        Lapsed
    }

    /// @notice A challenge of an evaluation.
    struct Challenge {
        ChallengeStatus status;
        bytes32 cluster;
        uint64 epoch;
        uint64 slot;
        /// Unix time.
        uint64 openedAt;
        /// Hash of the certificate in question.
        bytes32 certificate;
        /// Digest of what the challenger re-executed.
        bytes32 evidence;
        address challenger;
        uint256 bond;
    }

    /// @notice The group signed two certificates of one slot.
    event GroupEquivocation(
        bytes32 indexed cluster, uint64 indexed epoch, uint64 indexed slot, bytes32 a, bytes32 b
    );
    /// @notice A member lost stake.
    event MemberSlashed(
        bytes32 indexed cluster,
        bytes32 indexed peer,
        uint64 indexed epoch,
        Fault fault,
        uint256 amount,
        address reporter
    );
    /// @notice A slot's evaluation is in question.
    event ChallengeOpened(
        uint256 indexed id,
        bytes32 indexed cluster,
        uint64 epoch,
        uint64 slot,
        bytes32 certificate,
        bytes32 evidence
    );
    /// @notice Governance decided, or did not in time.
    event ChallengeResolved(
        uint256 indexed id, bytes32 indexed cluster, bool upheld, bytes32[] culprits
    );
    /// @notice Rewards or bonds were paid.
    event Claimed(address indexed account, uint256 amount);

    /// @notice The two statements are not about one slot of one epoch, or are the same.
    error NoEquivocation();
    /// @notice A group signature does not verify under the epoch's key.
    error WrongGroupSignature();
    /// @notice The member's signature does not verify.
    error WrongMemberSignature(bytes32 peer);
    /// @notice The peer had no seat in the epoch's committee.
    error NotSeated(bytes32 cluster, uint64 epoch, bytes32 peer);
    /// @notice The fault was punished.
    error AlreadyPunished(bytes32 fault);
    /// @notice The verifying share is not under the key's root.
    error WrongVerifyingShare();
    /// @notice The signers are not a quorum with the member in it.
    error WrongSigners(uint16 signers);
    /// @notice A point is not on the curve, or the share is no scalar.
    error MalformedShare();
    /// @notice The share is right.
    error ShareIsValid();
    /// @notice The bond is not `CHALLENGE_BOND`.
    error WrongBond(uint256 given, uint256 expected);
    /// @notice The epoch could be disputed until `until` (Unix time).
    error DisputesClosed(bytes32 cluster, uint64 epoch, uint64 until);
    /// @notice The certificates do not lead up to one that was anchored recently.
    error NotAnchored();
    /// @notice Governance could decide the challenge until `until` (Unix time): `lapse` it.
    error ChallengeLapsed(uint256 id, uint64 until);
    /// @notice Governance may decide the challenge until `until` (Unix time).
    error ChallengeNotLapsed(uint256 id, uint64 until);
    /// @notice The same account has challenged the certificate, and that is not decided.
    error AlreadyChallenged(bytes32 certificate);
    /// @notice No such challenge, or it was decided.
    error ChallengeNotOpen(uint256 id);
    /// @notice The account has nothing to claim.
    error NothingToClaim(address account);
    /// @notice The account did not take the payment.
    error PaymentFailed(address to);

    /// @notice Two certificates of one slot with group signatures: suspends the epoch's group. Anyone.
    function reportGroupEquivocation(
        IAssignmentAnchor.Certificate calldata a,
        FrostSignature calldata signatureA,
        IAssignmentAnchor.Certificate calldata b,
        FrostSignature calldata signatureB
    ) external;

    /// @notice Two votes of one member for one slot. Anyone.
    function reportEquivocation(
        Vote calldata vote,
        bytes32 otherCertificate,
        Point calldata identity,
        CompactSignature calldata signature,
        CompactSignature calldata otherSignature
    ) external;

    /// @notice A share that its member signed and that is wrong. Anyone.
    /// @param verifyingShare Y_i, the member's; proved under the key's `verifyingSharesRoot`.
    function reportWrongShare(
        Share calldata share,
        Signed calldata signed,
        Point calldata verifyingShare,
        bytes32[] calldata proof
    ) external;

    /// @notice Questions the evaluation of a slot; the value sent is the bond. Anyone.
    /// @param chain The certificate in question, then all later ones up to one that was anchored recently.
    /// @param evidence Digest of what the challenger re-executed.
    function challenge(IAssignmentAnchor.Certificate[] calldata chain, bytes32 evidence)
        external
        payable
        returns (uint256 id);

    /// @notice Decides a challenge: upheld, the bond goes back and the culprits are slashed; rejected, it goes to
    /// the operators of the epoch's committee. The directory's owner.
    function resolve(uint256 id, bool upheld, bytes32[] calldata culprits) external;

    /// @notice Ends a challenge that was not decided in time; the bond goes back. Anyone.
    function lapse(uint256 id) external;

    /// @notice How many challenges of the cluster's certificates are open.
    function openChallenges(bytes32 cluster) external view returns (uint256);

    /// @notice Pays what an account is owed. Anyone.
    function claim(address account) external;

    function challengeOf(uint256 id) external view returns (Challenge memory);

    /// @notice What `claim` would pay.
    function owedTo(address account) external view returns (uint256);

    /// @notice What a member has lost in an epoch.
    function lostBy(bytes32 cluster, uint64 epoch, bytes32 peer) external view returns (uint256);

    /// @notice What a committee has lost in its epoch, and the most that it can lose; 0 and 0 before
    /// the first fault.
    function lostByCommittee(bytes32 cluster, uint64 epoch)
        external
        view
        returns (uint256 lost, uint256 limit);
}
