// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {VeilContract} from "./VeilContract.sol";
import {IKeyCeremony} from "./interfaces/IKeyCeremony.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {FrostVerifier} from "./libraries/FrostVerifier.sol";
import {Secp256k1} from "./libraries/Secp256k1.sol";

/// @title The commit point of key ceremonies
/// @notice See `IKeyCeremony`.
/// @dev Caveat: the epoch changes with the publication, and certificates of the epoch before can no
/// longer be anchored then; a committee anchors what it signed before it hands over.
contract KeyCeremony is IKeyCeremony, VeilContract {
    /// @notice A deadline is at most this far away.
    uint64 public constant MAX_DURATION = 7 days;
    /// @notice Longest name of a parameter set.
    uint256 public constant MAX_NAME_BYTES = 64;
    /// @notice EIP-712 type of what members sign.
    bytes32 public constant KEY_PUBLICATION_TYPE = keccak256(
        "KeyPublication(bytes32 cluster,uint64 epoch,uint32 attempt,uint256 groupKeyX,uint256 groupKeyY,bytes32 verifyingSharesRoot,bytes32 fheKeyDigest,bytes32 transcriptRoot,bytes32 referenceStringDigest,uint8 referenceStringOrigin)"
    );
    /// @notice EIP-712 type of what the new group signs.
    bytes32 public constant KEY_POSSESSION_TYPE = keccak256("KeyPossession(bytes32 publication)");
    /// @notice EIP-712 type of what the previous group signs.
    bytes32 public constant KEY_HANDOVER_TYPE = keccak256("KeyHandover(bytes32 publication)");
    /// @notice EIP-712 type of what a member signs to abort.
    bytes32 public constant CEREMONY_ABORT_TYPE =
        keccak256("CeremonyAbort(bytes32 cluster,uint64 epoch,uint32 attempt,bytes32 reason)");

    /// @notice Where the clusters and their nodes are.
    INodeRegistry public immutable registry;

    /// @dev Status `Expired` is never stored: it follows from the deadline.
    struct Record {
        Status status;
        uint64 deadline;
        bytes32 parametersDigest;
        bytes32 context;
        string parameters;
        bytes32[] roster;
    }

    mapping(bytes32 cluster => mapping(uint64 epoch => Record[])) private _attempts;
    mapping(bytes32 cluster => Key[]) private _keys;

    constructor(address directory_, INodeRegistry registry_) VeilContract(directory_) {
        if (address(registry_).code.length == 0) revert MissingContract();
        registry = registry_;
    }

    /// @inheritdoc IKeyCeremony
    function propose(Proposal calldata proposal) external override {
        bytes32 cluster = proposal.cluster;
        INodeRegistry.Cluster memory settings = registry.clusterOf(cluster);
        if (msg.sender != settings.admin) revert NotClusterAdmin(cluster, msg.sender);
        if (proposal.epoch != epochs(cluster)) revert WrongEpoch(proposal.epoch, epochs(cluster));
        uint256 name = bytes(proposal.parameters).length;
        if (name == 0 || name > MAX_NAME_BYTES) revert InvalidParametersName(name);
        uint64 latest = uint64(block.timestamp) + MAX_DURATION;
        if (proposal.deadline <= block.timestamp || proposal.deadline > latest) {
            revert InvalidDeadline(proposal.deadline, latest);
        }
        Record[] storage list = _attempts[cluster][proposal.epoch];
        uint32 expected = uint32(list.length);
        if (proposal.attempt != expected) revert WrongAttempt(proposal.attempt, expected);
        if (expected > 0) {
            Record storage last = list[expected - 1];
            if (_status(last) == Status.Proposed) {
                revert AttemptStillOpen(expected - 1, last.deadline);
            }
        }
        bytes32[] memory registered = registry.members(cluster);
        if (registered.length < settings.committeeSize) {
            revert TooFewMembers(registered.length, settings.committeeSize);
        }
        Record storage record = list.push();
        record.status = Status.Proposed;
        record.deadline = proposal.deadline;
        record.parametersDigest = proposal.parametersDigest;
        record.context = proposal.context;
        record.parameters = proposal.parameters;
        for (uint256 i = 0; i < settings.committeeSize; ++i) {
            record.roster.push(registered[i]);
        }
        emit CeremonyProposed(cluster, proposal.epoch, proposal.attempt, proposal.deadline);
    }

    /// @inheritdoc IKeyCeremony
    function abort(bytes32 cluster, uint64 epoch, uint32 attempt, bytes32 reason)
        external
        override
    {
        Record storage record = _open(cluster, epoch, attempt);
        if (registry.clusterOf(cluster).admin != msg.sender && !_isOperator(cluster, record)) {
            revert NotAParticipant(msg.sender);
        }
        record.status = Status.Aborted;
        emit CeremonyAborted(cluster, epoch, attempt, msg.sender, reason);
    }

    /// @inheritdoc IKeyCeremony
    function abortSigned(
        bytes32 cluster,
        uint64 epoch,
        uint32 attempt,
        bytes32 reason,
        uint8 seat,
        CompactSignature calldata signature
    ) external override {
        Record storage record = _open(cluster, epoch, attempt);
        if (seat == 0 || seat > record.roster.length) revert UnknownSeat(seat);
        address signer = registry.signerOf(record.roster[seat - 1]);
        bytes32 digest = _typedDigest(
            keccak256(abi.encode(CEREMONY_ABORT_TYPE, cluster, epoch, attempt, reason))
        );
        if (!_isSignedBy(signer, digest, signature)) revert WrongMemberSignature(seat);
        record.status = Status.Aborted;
        emit CeremonyAborted(cluster, epoch, attempt, signer, reason);
    }

    /// @inheritdoc IKeyCeremony
    function publish(
        Publication calldata publication,
        CompactSignature[] calldata memberSignatures,
        FrostSignature calldata proofOfPossession,
        FrostSignature calldata handoverSignature
    ) external override {
        bytes32 cluster = publication.cluster;
        Record storage record = _open(cluster, publication.epoch, publication.attempt);
        if (publication.referenceStringOrigin > 1) {
            revert UnknownReferenceStringOrigin(publication.referenceStringOrigin);
        }
        if (!FrostVerifier.isUsable(publication.groupKey)) revert InvalidGroupKey();
        bytes32 structHash = _publicationHash(publication);
        _checkMembers(record.roster, _typedDigest(structHash), memberSignatures);
        bytes32 possession = _typedDigest(keccak256(abi.encode(KEY_POSSESSION_TYPE, structHash)));
        CompressedPoint memory groupKey =
            CompressedPoint(publication.groupKey.x, Secp256k1.prefix(publication.groupKey.y));
        if (!FrostVerifier.verify(groupKey, possession, proofOfPossession)) {
            revert WrongProofOfPossession();
        }
        if (publication.epoch > 0) {
            CompressedPoint memory previous = _groupKey(_keys[cluster][publication.epoch - 1]);
            bytes32 handover = _typedDigest(keccak256(abi.encode(KEY_HANDOVER_TYPE, structHash)));
            if (!FrostVerifier.verify(previous, handover, handoverSignature)) {
                revert WrongHandoverSignature();
            }
        }
        record.status = Status.Published;
        _keys[cluster].push(
            Key({
                groupKeyX: groupKey.x,
                groupKeyPrefix: groupKey.prefix,
                verifyingSharesRoot: publication.verifyingSharesRoot,
                fheKeyDigest: publication.fheKeyDigest,
                transcriptRoot: publication.transcriptRoot,
                referenceStringDigest: publication.referenceStringDigest,
                referenceStringOrigin: publication.referenceStringOrigin,
                attempt: publication.attempt,
                publishedAt: uint64(block.timestamp)
            })
        );
        emit KeyPublished(
            cluster,
            publication.epoch,
            publication.attempt,
            publication.fheKeyDigest,
            publication.referenceStringOrigin
        );
    }

    /// @inheritdoc IKeyCeremony
    function epochs(bytes32 cluster) public view override returns (uint64) {
        return uint64(_keys[cluster].length);
    }

    /// @inheritdoc IKeyCeremony
    function attempts(bytes32 cluster, uint64 epoch) external view override returns (uint32) {
        return uint32(_attempts[cluster][epoch].length);
    }

    /// @inheritdoc IKeyCeremony
    function attemptOf(bytes32 cluster, uint64 epoch, uint32 attempt)
        external
        view
        override
        returns (Attempt memory)
    {
        Record storage record = _existing(cluster, epoch, attempt);
        return Attempt({
            status: _status(record),
            deadline: record.deadline,
            parameters: record.parameters,
            parametersDigest: record.parametersDigest,
            context: record.context,
            roster: record.roster
        });
    }

    /// @inheritdoc IKeyCeremony
    function keyOf(bytes32 cluster, uint64 epoch) external view override returns (Key memory) {
        if (epoch >= _keys[cluster].length) revert NoKey(cluster, epoch);
        return _keys[cluster][epoch];
    }

    /// @inheritdoc IKeyCeremony
    function verificationKey(bytes32 cluster)
        external
        view
        override
        returns (
            uint64 epoch,
            CompressedPoint memory groupKey,
            bytes32 fheKeyDigest,
            uint8 referenceStringOrigin
        )
    {
        Key[] storage keys = _keys[cluster];
        if (keys.length == 0) revert NoKey(cluster, 0);
        epoch = uint64(keys.length - 1);
        Key storage key = keys[epoch];
        return (epoch, _groupKey(key), key.fheKeyDigest, key.referenceStringOrigin);
    }

    function _groupKey(Key storage key) private view returns (CompressedPoint memory) {
        return CompressedPoint(key.groupKeyX, key.groupKeyPrefix);
    }

    function _checkMembers(
        bytes32[] storage roster,
        bytes32 digest,
        CompactSignature[] calldata signatures
    ) private view {
        uint256 n = roster.length;
        if (signatures.length != n) revert WrongNumberOfSignatures(signatures.length, n);
        for (uint256 i = 0; i < n; ++i) {
            if (!_isSignedBy(registry.signerOf(roster[i]), digest, signatures[i])) {
                revert WrongMemberSignature(uint8(i + 1));
            }
        }
    }

    function _publicationHash(Publication calldata publication) private pure returns (bytes32) {
        return keccak256(
            abi.encode(
                KEY_PUBLICATION_TYPE,
                publication.cluster,
                publication.epoch,
                publication.attempt,
                publication.groupKey.x,
                publication.groupKey.y,
                publication.verifyingSharesRoot,
                publication.fheKeyDigest,
                publication.transcriptRoot,
                publication.referenceStringDigest,
                publication.referenceStringOrigin
            )
        );
    }

    function _isOperator(bytes32 cluster, Record storage record) private view returns (bool) {
        for (uint256 i = 0; i < record.roster.length; ++i) {
            if (registry.operatorOf(cluster, record.roster[i]) == msg.sender) return true;
        }
        return false;
    }

    function _status(Record storage record) private view returns (Status) {
        bool late = record.status == Status.Proposed && block.timestamp > record.deadline;
        return late ? Status.Expired : record.status;
    }

    function _existing(bytes32 cluster, uint64 epoch, uint32 attempt)
        private
        view
        returns (Record storage)
    {
        Record[] storage list = _attempts[cluster][epoch];
        if (attempt >= list.length) revert UnknownAttempt(cluster, epoch, attempt);
        return list[attempt];
    }

    /// @dev The attempt, if it may still be published or aborted.
    function _open(bytes32 cluster, uint64 epoch, uint32 attempt)
        private
        view
        returns (Record storage record)
    {
        record = _existing(cluster, epoch, attempt);
        Status status = _status(record);
        if (status == Status.Aborted) revert AttemptAborted(attempt);
        if (status == Status.Expired) revert AttemptExpired(attempt, record.deadline);
        if (status == Status.Published) revert AttemptPublished(attempt);
    }
}
