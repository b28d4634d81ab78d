// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";

import {VeilContract} from "./VeilContract.sol";
import {IAssignmentAnchor} from "./interfaces/IAssignmentAnchor.sol";
import {IDisputes} from "./interfaces/IDisputes.sol";
import {IFeePool} from "./interfaces/IFeePool.sol";
import {IKeyCeremony} from "./interfaces/IKeyCeremony.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {Certificates} from "./libraries/Certificates.sol";
import {FrostVerifier} from "./libraries/FrostVerifier.sol";
import {Lagrange} from "./libraries/Lagrange.sol";
import {Secp256k1} from "./libraries/Secp256k1.sol";

/// @title Disputes over what committees and their members signed
/// @notice See `IDisputes`.
contract Disputes is IDisputes, VeilContract {
    /// @notice What a fault costs, in 1/10,000 of the stake at the member's first fault of the epoch.
    uint256 public constant EQUIVOCATION_BPS = 5000;
    /// @notice See `EQUIVOCATION_BPS`.
    uint256 public constant WRONG_SHARE_BPS = 1000;
    /// @notice See `EQUIVOCATION_BPS`.
    uint256 public constant WRONG_EVALUATION_BPS = 2500;
    /// @notice The most that a member can lose in an epoch.
    uint256 public constant MAX_MEMBER_BPS = 5000;
    /// @notice The most that a committee can lose in its epoch, of the stake that it had at its first
    /// fault.
    uint256 public constant MAX_COMMITTEE_BPS = 3333;
    /// @notice The reporter's part of what is taken. Less than any fault costs, so that nobody gains
    /// by reporting itself.
    uint256 public constant REWARD_BPS = 1000;
    /// @notice What a challenger puts up.
    uint256 public constant CHALLENGE_BOND = 0.1 ether;
    /// @notice Until when after the key that replaced it an epoch can be disputed, and how long what a member
    /// has lost counts towards its cap.
    uint64 public constant DISPUTE_WINDOW = 14 days;
    /// @notice How long governance has for a challenge.
    uint64 public constant RESOLUTION_TIME = 30 days;
    /// @notice EIP-712 type of a member's vote.
    bytes32 public constant CERTIFICATE_VOTE_TYPE =
        keccak256("CertificateVote(bytes32 cluster,uint64 epoch,uint64 slot,bytes32 certificate)");
    /// @notice EIP-712 type of a member's share.
    bytes32 public constant FROST_SHARE_TYPE = keccak256(
        "FrostShare(bytes32 cluster,uint64 epoch,bytes32 message,uint16 signers,uint256 groupCommitmentX,uint256 groupCommitmentY,uint256 commitmentX,uint256 commitmentY,uint256 share)"
    );
    /// @notice EIP-712 type of a leaf of `verifyingSharesRoot`.
    bytes32 public constant VERIFYING_SHARE_TYPE =
        keccak256("VerifyingShare(uint8 index,uint256 x,uint256 y)");

    /// @notice Where the stake is.
    INodeRegistry public immutable registry;
    /// @notice Where the keys and rosters are.
    IKeyCeremony public immutable ceremony;
    /// @notice Where the certificates are.
    IAssignmentAnchor public immutable anchors;

    /// @dev What was lost of what was there at the first fault; `limit` is the most of it.
    struct Loss {
        uint96 base;
        uint96 lost;
        /// Of a member: when the time of these numbers began. Of a committee: 0, they are its epoch's.
        uint64 since;
    }

    mapping(bytes32 cluster => mapping(uint64 epoch => Loss)) private _committees;
    mapping(bytes32 cluster => mapping(bytes32 peer => Loss)) private _members;
    /// @inheritdoc IDisputes
    mapping(bytes32 cluster => mapping(uint64 epoch => mapping(bytes32 peer => uint256)))
        public
        override lostBy;
    mapping(bytes32 fault => bool) private _punished;
    /// @dev Open ones: Keccak-256 of certificate and challenger.
    mapping(bytes32 certificateAndChallenger => bool) private _challenged;
    /// @inheritdoc IDisputes
    mapping(bytes32 cluster => uint256) public override openChallenges;
    Challenge[] private _challenges;
    /// @inheritdoc IDisputes
    mapping(address account => uint256) public override owedTo;

    constructor(
        address directory_,
        INodeRegistry registry_,
        IKeyCeremony ceremony_,
        IAssignmentAnchor anchors_
    ) VeilContract(directory_) {
        _requireContract(address(registry_));
        _requireContract(address(ceremony_));
        _requireContract(address(anchors_));
        registry = registry_;
        ceremony = ceremony_;
        anchors = anchors_;
    }

    /// @notice Takes slashed stake.
    receive() external payable {
        if (msg.sender != address(registry)) revert NotContract("NodeRegistry", msg.sender);
    }

    /// @inheritdoc IDisputes
    function reportGroupEquivocation(
        IAssignmentAnchor.Certificate calldata a,
        FrostSignature calldata signatureA,
        IAssignmentAnchor.Certificate calldata b,
        FrostSignature calldata signatureB
    ) external override {
        if (a.cluster != b.cluster || a.epoch != b.epoch || a.slot != b.slot) {
            revert NoEquivocation();
        }
        bytes32 hashA = Certificates.digest(block.chainid, directory, a);
        bytes32 hashB = Certificates.digest(block.chainid, directory, b);
        if (hashA == hashB) revert NoEquivocation();
        if (ceremony.isSuspended(a.cluster, a.epoch)) revert AlreadyPunished(hashA);
        IKeyCeremony.Key memory key = ceremony.keyOf(a.cluster, a.epoch);
        if (!_verify(key, hashA, signatureA) || !_verify(key, hashB, signatureB)) {
            revert WrongGroupSignature();
        }
        emit GroupEquivocation(a.cluster, a.epoch, a.slot, hashA, hashB);
        ceremony.suspend(a.cluster, a.epoch);
    }

    /// @inheritdoc IDisputes
    function reportEquivocation(
        Vote calldata vote,
        bytes32 otherCertificate,
        Point calldata identity,
        CompactSignature calldata signature,
        CompactSignature calldata otherSignature
    ) external override {
        if (vote.certificate == otherCertificate) {
            revert NoEquivocation();
        }
        bytes32 peer = Secp256k1.peerIdHash(identity);
        _checkSignature(peer, identity, _voteDigest(vote, vote.certificate), signature);
        _checkSignature(peer, identity, _voteDigest(vote, otherCertificate), otherSignature);
        _requireDisputable(vote.cluster, vote.epoch);
        _seatOf(vote.cluster, vote.epoch, peer);
        _punishOnce(
            keccak256(abi.encode(Fault.Equivocation, vote.cluster, vote.epoch, vote.slot, peer))
        );
        _slash(vote.cluster, vote.epoch, peer, Fault.Equivocation, msg.sender);
    }

    /// @inheritdoc IDisputes
    function reportWrongShare(
        Share calldata share,
        Signed calldata signed,
        Point calldata verifyingShare,
        bytes32[] calldata proof
    ) external override {
        bytes32 peer = Secp256k1.peerIdHash(signed.identity);
        _checkSignature(peer, signed.identity, _shareDigest(share), signed.signature);
        _requireDisputable(share.cluster, share.epoch);
        uint8 seat = _seatOf(share.cluster, share.epoch, peer);
        _checkSigners(share, seat);
        IKeyCeremony.Key memory key = ceremony.keyOf(share.cluster, share.epoch);
        bytes32 leaf = keccak256(
            bytes.concat(
                keccak256(
                    abi.encode(VERIFYING_SHARE_TYPE, seat, verifyingShare.x, verifyingShare.y)
                )
            )
        );
        if (!MerkleProof.verifyCalldata(proof, key.verifyingSharesRoot, leaf)) {
            revert WrongVerifyingShare();
        }
        if (_isRight(share, key, seat, verifyingShare)) revert ShareIsValid();
        _punishOnce(
            keccak256(abi.encode(Fault.WrongShare, share.cluster, share.epoch, share.message, peer))
        );
        _slash(share.cluster, share.epoch, peer, Fault.WrongShare, msg.sender);
    }

    /// @inheritdoc IDisputes
    function challenge(IAssignmentAnchor.Certificate[] calldata chain, bytes32 evidence)
        external
        payable
        override
        returns (uint256 id)
    {
        if (msg.value != CHALLENGE_BOND) {
            revert WrongBond(msg.value, CHALLENGE_BOND);
        }
        if (!anchors.isAnchored(chain)) revert NotAnchored();
        IAssignmentAnchor.Certificate calldata certificate = chain[0];
        _requireDisputable(certificate.cluster, certificate.epoch);
        bytes32 hash = Certificates.digest(block.chainid, directory, certificate);
        bytes32 key = keccak256(abi.encode(hash, msg.sender));
        if (_challenged[key]) revert AlreadyChallenged(hash);
        _challenged[key] = true;
        openChallenges[certificate.cluster] += 1;
        id = _challenges.length;
        _challenges.push(
            Challenge({
                status: ChallengeStatus.Open,
                cluster: certificate.cluster,
                epoch: certificate.epoch,
                slot: certificate.slot,
                openedAt: uint64(block.timestamp),
                certificate: hash,
                evidence: evidence,
                challenger: msg.sender,
                bond: msg.value
            })
        );
        emit ChallengeOpened(
            id, certificate.cluster, certificate.epoch, certificate.slot, hash, evidence
        );
    }

    /// @inheritdoc IDisputes
    function resolve(uint256 id, bool upheld, bytes32[] calldata culprits)
        external
        override
        onlyGovernance
    {
        Challenge storage record = _open(id);
        uint64 until = record.openedAt + RESOLUTION_TIME;
        if (block.timestamp >= until) revert ChallengeLapsed(id, until);
        _close(record, upheld ? ChallengeStatus.Upheld : ChallengeStatus.Rejected);
        if (upheld) owedTo[record.challenger] += record.bond;
        else _share(record.cluster, record.epoch, record.bond);
        for (uint256 i = 0; upheld && i < culprits.length; ++i) {
            _seatOf(record.cluster, record.epoch, culprits[i]);
            // Whoever else challenged the certificate may have been right, too.
            bytes32 fault =
                keccak256(abi.encode(Fault.WrongEvaluation, record.certificate, culprits[i]));
            if (_punished[fault]) continue;
            _punished[fault] = true;
            _slash(
                record.cluster, record.epoch, culprits[i], Fault.WrongEvaluation, record.challenger
            );
        }
        emit ChallengeResolved(id, record.cluster, upheld, culprits);
    }

    /// @inheritdoc IDisputes
    function lapse(uint256 id) external override {
        Challenge storage record = _open(id);
        uint64 until = record.openedAt + RESOLUTION_TIME;
        if (block.timestamp < until) revert ChallengeNotLapsed(id, until);
        _close(record, ChallengeStatus.Lapsed);
        owedTo[record.challenger] += record.bond;
        emit ChallengeResolved(id, record.cluster, false, new bytes32[](0));
    }

    /// @inheritdoc IDisputes
    function claim(address account) external override {
        uint256 amount = owedTo[account];
        if (amount == 0) revert NothingToClaim(account);
        owedTo[account] = 0;
        emit Claimed(account, amount);
        (bool taken,) = account.call{value: amount}("");
        if (!taken) revert PaymentFailed(account);
    }

    /// @inheritdoc IDisputes
    function challengeOf(uint256 id) external view override returns (Challenge memory found) {
        if (id < _challenges.length) found = _challenges[id];
    }

    /// @inheritdoc IDisputes
    function lostByCommittee(bytes32 cluster, uint64 epoch)
        external
        view
        override
        returns (uint256 lost, uint256 limit)
    {
        Loss memory loss = _committees[cluster][epoch];
        return (loss.lost, uint256(loss.base) * MAX_COMMITTEE_BPS / 10_000);
    }

    /// @dev Takes what the fault costs, within the caps of the member and of the committee.
    function _slash(bytes32 cluster, uint64 epoch, bytes32 peer, Fault fault, address reporter)
        private
    {
        Loss memory committee = _committees[cluster][epoch];
        if (committee.base == 0) committee.base = uint96(_committeeStake(cluster, epoch));
        Loss memory member = _members[cluster][peer];
        // Its cap is for a time, and not per epoch: faults of several epochs do not add up.
        if (member.base == 0 || block.timestamp >= member.since + DISPUTE_WINDOW) {
            member = Loss(uint96(_stakeOf(cluster, peer)), 0, uint64(block.timestamp));
        }

        uint256 amount = uint256(member.base) * _cost(fault) / 10_000;
        amount = _least(amount, uint256(member.base) * MAX_MEMBER_BPS / 10_000 - member.lost);
        uint256 most = uint256(committee.base) * MAX_COMMITTEE_BPS / 10_000;
        amount = _least(amount, most - committee.lost);
        amount = _least(amount, _stakeOf(cluster, peer));
        uint256 reward = amount * REWARD_BPS / 10_000;
        member.lost += uint96(amount);
        committee.lost += uint96(amount);
        (_members[cluster][peer], _committees[cluster][epoch]) = (member, committee);
        lostBy[cluster][epoch][peer] += amount;
        owedTo[reporter] += reward;
        emit MemberSlashed(cluster, peer, epoch, fault, amount, reporter);
        if (amount > 0) {
            registry.slash(cluster, peer, amount);
            _toPool(cluster, amount - reward);
        }
    }

    /// @dev A bond that was lost is the committee's, whom it accused: the same for each seat.
    function _share(bytes32 cluster, uint64 epoch, uint256 bond) private {
        bytes32[] memory roster = _roster(cluster, epoch);
        uint256 each = bond / roster.length;
        for (uint256 i = 0; i < roster.length; ++i) {
            address operator = registry.operatorOf(cluster, roster[i]);
            if (operator == address(0)) continue;
            owedTo[operator] += each;
            bond -= each;
        }
        _toPool(cluster, bond);
    }

    /// @dev What is nobody's is the cluster's, for what its certificates cost: those who report, judge or sit in the
    /// committee have no more of it than they spent.
    function _toPool(bytes32 cluster, uint256 amount) private {
        if (amount == 0) return;
        IFeePool(_contractOf("FeePool")).deposit{value: amount}(cluster);
    }

    function _open(uint256 id) private view returns (Challenge storage record) {
        if (id >= _challenges.length || _challenges[id].status != ChallengeStatus.Open) {
            revert ChallengeNotOpen(id);
        }
        return _challenges[id];
    }

    function _close(Challenge storage record, ChallengeStatus status) private {
        record.status = status;
        openChallenges[record.cluster] -= 1;
        delete _challenged[keccak256(abi.encode(record.certificate, record.challenger))];
    }

    /// @dev An epoch has a key, and is over for less than `DISPUTE_WINDOW`, if at all.
    function _requireDisputable(bytes32 cluster, uint64 epoch) private view {
        uint64 epochs = ceremony.epochs(cluster);
        if (epoch >= epochs) revert IKeyCeremony.NoKey(cluster, epoch);
        if (epoch + 1 == epochs) return;
        uint64 until = ceremony.keyOf(cluster, epoch + 1).publishedAt + DISPUTE_WINDOW;
        if (block.timestamp >= until) revert DisputesClosed(cluster, epoch, until);
    }

    function _cost(Fault fault) private pure returns (uint256) {
        if (fault == Fault.Equivocation) return EQUIVOCATION_BPS;
        return fault == Fault.WrongShare ? WRONG_SHARE_BPS : WRONG_EVALUATION_BPS;
    }

    function _punishOnce(bytes32 fault) private {
        if (_punished[fault]) revert AlreadyPunished(fault);
        _punished[fault] = true;
    }

    function _committeeStake(bytes32 cluster, uint64 epoch) private view returns (uint256 total) {
        bytes32[] memory roster = _roster(cluster, epoch);
        for (uint256 i = 0; i < roster.length; ++i) {
            total += _stakeOf(cluster, roster[i]);
        }
    }

    function _roster(bytes32 cluster, uint64 epoch) private view returns (bytes32[] memory) {
        uint32 attempt = ceremony.keyOf(cluster, epoch).attempt;
        return ceremony.attemptOf(cluster, epoch, attempt).roster;
    }

    function _stakeOf(bytes32 cluster, bytes32 peer) private view returns (uint256) {
        INodeRegistry.Stake memory stake = registry.stakeOf(cluster, peer);
        return uint256(stake.active) + stake.added;
    }

    /// @dev From 1.
    function _seatOf(bytes32 cluster, uint64 epoch, bytes32 peer)
        private
        view
        returns (uint8 seat)
    {
        seat = ceremony.seatOf(cluster, epoch, peer);
        if (seat == 0) revert NotSeated(cluster, epoch, peer);
    }

    /// @dev A FROST signature needs 2t+1 of the n = 3t+1 members.
    function _checkSigners(Share calldata share, uint8 seat) private view {
        uint256 n = registry.clusterOf(share.cluster).committeeSize;
        uint256 signers = share.signers;
        uint256 count = 0;
        for (uint256 j = 0; j < n; ++j) {
            count += (signers >> j) & 1;
        }
        bool within = signers >> n == 0 && (signers >> (seat - 1)) & 1 == 1;
        if (!within || count < 2 * ((n - 1) / 3) + 1) revert WrongSigners(share.signers);
    }

    /// @dev z_i G = R_i + c lambda_i Y_i.
    function _isRight(
        Share calldata share,
        IKeyCeremony.Key memory key,
        uint8 seat,
        Point calldata verifyingShare
    ) private view returns (bool) {
        bool wellFormed = share.share < Secp256k1.N && FrostVerifier.isUsable(verifyingShare)
            && Secp256k1.isOnCurve(share.groupCommitment.x, share.groupCommitment.y)
            && Secp256k1.isOnCurve(share.commitment.x, share.commitment.y);
        if (!wellFormed) revert MalformedShare();
        uint256 c = FrostVerifier.challenge(
            key.groupKeyX,
            key.groupKeyPrefix,
            share.message,
            share.groupCommitment.x,
            share.groupCommitment.y
        );
        return FrostVerifier.isDifference(
            verifyingShare.x,
            Secp256k1.prefix(verifyingShare.y),
            mulmod(c, Lagrange.coefficient(share.signers, seat), Secp256k1.N),
            share.share,
            share.commitment.x,
            share.commitment.y
        );
    }

    function _verify(
        IKeyCeremony.Key memory key,
        bytes32 message,
        FrostSignature calldata signature
    ) private view returns (bool) {
        return FrostVerifier.verify(key.groupKeyX, key.groupKeyPrefix, message, signature);
    }

    function _checkSignature(
        bytes32 peer,
        Point calldata identity,
        bytes32 digest,
        CompactSignature calldata signature
    ) private view {
        address signer = Secp256k1.addressOf(peer, identity);
        if (!_isSignedBy(signer, digest, signature)) revert WrongMemberSignature(peer);
    }

    function _voteDigest(Vote calldata vote, bytes32 certificate) private view returns (bytes32) {
        return _typedDigest(
            keccak256(
                abi.encode(CERTIFICATE_VOTE_TYPE, vote.cluster, vote.epoch, vote.slot, certificate)
            )
        );
    }

    /// @dev All fields are words, and the points' coordinates follow one another.
    function _shareDigest(Share calldata share) private view returns (bytes32) {
        return _typedDigest(keccak256(abi.encode(FROST_SHARE_TYPE, share)));
    }

    function _least(uint256 a, uint256 b) private pure returns (uint256) {
        return a < b ? a : b;
    }
}
