// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Attempts} from "./Attempts.sol";
import {IAssignmentAnchor} from "./interfaces/IAssignmentAnchor.sol";
import {ICommitteeElection} from "./interfaces/ICommitteeElection.sol";
import {IKeyCeremony} from "./interfaces/IKeyCeremony.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {FrostVerifier} from "./libraries/FrostVerifier.sol";
import {Secp256k1} from "./libraries/Secp256k1.sol";

/// @title The commit point of key ceremonies
/// @notice See `IKeyCeremony`.
contract KeyCeremony is Attempts {
    /// @notice A deadline is at most this far away.
    uint64 public constant MAX_DURATION = 7 days;
    /// @notice And for an elected committee at least this far, so that the admin cannot let its attempts
    /// fail in no time.
    uint64 public constant MIN_DURATION = 10 minutes;
    /// @notice Longest name of a parameter set.
    uint256 public constant MAX_NAME_BYTES = 64;
    /// @notice EIP-712 type of what members sign.
    bytes32 public constant KEY_PUBLICATION_TYPE = keccak256(
        "KeyPublication(bytes32 cluster,uint64 epoch,uint32 attempt,uint256 groupKeyX,uint256 groupKeyY,bytes32 verifyingSharesRoot,bytes32 fheKeyDigest,bytes32 transcriptRoot,bytes32 referenceStringDigest,uint8 referenceStringOrigin)"
    );
    /// @notice EIP-712 type of what the new group signs.
    bytes32 public constant KEY_POSSESSION_TYPE = keccak256("KeyPossession(bytes32 publication)");
    /// @notice EIP-712 type of what the previous group signs.
    bytes32 public constant KEY_HANDOVER_TYPE =
        keccak256("KeyHandover(bytes32 publication,bytes32 lastCertificate)");
    /// @notice EIP-712 type of what a member signs to abort.
    bytes32 public constant CEREMONY_ABORT_TYPE =
        keccak256("CeremonyAbort(bytes32 cluster,uint64 epoch,uint32 attempt,bytes32 reason)");

    /// @notice How long a succession is announced.
    uint64 public constant SUCCESSION_DELAY = 14 days;
    /// @notice How long it can be used then.
    uint64 public constant SUCCESSION_TIME = 30 days;

    /// @dev One more than those in force, while one is ready.
    mapping(bytes32 cluster => mapping(uint64 epoch => Key)) private _keys;
    /// @inheritdoc IKeyCeremony
    mapping(bytes32 cluster => uint64) public override epochs;
    /// @inheritdoc IKeyCeremony
    mapping(bytes32 cluster => bytes32) public override readyPublication;
    /// @inheritdoc IKeyCeremony
    mapping(bytes32 cluster => bytes32) public override verificationHash;
    /// @inheritdoc IKeyCeremony
    mapping(bytes32 cluster => mapping(uint64 epoch => bool)) public override isSuspended;
    /// @inheritdoc IKeyCeremony
    mapping(bytes32 cluster => mapping(uint64 epoch => uint64)) public override successionFrom;

    constructor(address directory_, INodeRegistry registry_, ICommitteeElection election_)
        Attempts(directory_, registry_, election_)
    {}

    /// @inheritdoc IKeyCeremony
    function propose(Proposal calldata proposal, Point[] calldata identities)
        external
        override
        whenNotPaused
    {
        bytes32 cluster = proposal.cluster;
        INodeRegistry.Cluster memory settings = registry.clusterOf(cluster);
        if (msg.sender != settings.admin) revert NotClusterAdmin(cluster, msg.sender);
        if (proposal.epoch != epochs[cluster]) revert WrongEpoch(proposal.epoch, epochs[cluster]);
        uint256 name = bytes(proposal.parameters).length;
        if (name == 0 || name > MAX_NAME_BYTES) revert InvalidParametersName(name);
        uint64 latest = uint64(block.timestamp) + MAX_DURATION;
        uint64 least = uint64(block.timestamp) + (settings.elected ? MIN_DURATION : 1);
        if (proposal.deadline < least || proposal.deadline > latest) {
            revert InvalidDeadline(proposal.deadline, latest);
        }
        Record[] storage list = _attempts[cluster][proposal.epoch];
        uint32 expected = uint32(list.length);
        if (proposal.attempt != expected) revert WrongAttempt(proposal.attempt, expected);
        if (expected > 0 && _status(list[expected - 1]) == Status.Proposed) {
            revert AttemptStillOpen(expected - 1, list[expected - 1].deadline);
        }
        // What the attempt before made ready is given up.
        if (readyPublication[cluster] != 0) delete readyPublication[cluster];
        Record storage record = list.push();
        record.status = Status.Proposed;
        record.deadline = proposal.deadline;
        record.parametersDigest = proposal.parametersDigest;
        record.context = proposal.context;
        record.parameters = proposal.parameters;
        _seat(record, proposal, identities, settings);
        emit CeremonyProposed(
            cluster, proposal.epoch, proposal.attempt, proposal.deadline, record.roster
        );
    }

    /// @inheritdoc IKeyCeremony
    function abort(bytes32 cluster, uint64 epoch, uint32 attempt, bytes32 reason)
        external
        override
    {
        Record storage record = _open(cluster, epoch, attempt);
        // An admin that could end an elected committee's attempts would keep it from its key, and a member's
        // operator that does leaves its seats to others.
        INodeRegistry.Cluster memory settings = registry.clusterOf(cluster);
        bool mayAsAdmin = settings.admin == msg.sender && !settings.elected;
        uint256 seats = mayAsAdmin ? 0 : _seatsOfCaller(cluster, record);
        if (!mayAsAdmin && seats == 0) revert NotAParticipant(msg.sender);
        for (uint8 seat = 1; settings.elected && seats != 0; ++seat) {
            if (seats & 1 == 1) _forfeit(cluster, epoch, attempt, record, seat);
            seats >>= 1;
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
        Point calldata identity,
        CompactSignature calldata signature
    ) external override {
        Record storage record = _open(cluster, epoch, attempt);
        bytes32 digest = _typedDigest(
            keccak256(abi.encode(CEREMONY_ABORT_TYPE, cluster, epoch, attempt, reason))
        );
        address signer = _checkMember(record, seat, identity, digest, signature);
        if (registry.clusterOf(cluster).elected) _forfeit(cluster, epoch, attempt, record, seat);
        record.status = Status.Aborted;
        emit CeremonyAborted(cluster, epoch, attempt, signer, reason);
    }

    /// @inheritdoc IKeyCeremony
    function publish(
        Publication calldata publication,
        CompactSignature[] calldata memberSignatures,
        FrostSignature calldata proofOfPossession
    ) external override {
        bytes32 cluster = publication.cluster;
        Record storage record = _open(cluster, publication.epoch, publication.attempt);
        if (publication.referenceStringOrigin != 0) {
            revert UnknownReferenceStringOrigin(publication.referenceStringOrigin);
        }
        if (!FrostVerifier.isUsable(publication.groupKey)) revert InvalidGroupKey();
        bytes32 structHash = _publicationHash(publication);
        _checkMembers(record, _typedDigest(structHash), memberSignatures);
        bytes32 possession = _typedDigest(keccak256(abi.encode(KEY_POSSESSION_TYPE, structHash)));
        uint256 groupKeyX = publication.groupKey.x;
        uint8 groupKeyPrefix = Secp256k1.prefix(publication.groupKey.y);
        if (!FrostVerifier.verify(groupKeyX, groupKeyPrefix, possession, proofOfPossession)) {
            revert WrongProofOfPossession();
        }
        record.status = Status.Published;
        _keys[cluster][publication.epoch] = Key({
            groupKeyX: groupKeyX,
            groupKeyPrefix: groupKeyPrefix,
            verifyingSharesRoot: publication.verifyingSharesRoot,
            fheKeyDigest: publication.fheKeyDigest,
            transcriptRoot: publication.transcriptRoot,
            referenceStringDigest: publication.referenceStringDigest,
            referenceStringOrigin: publication.referenceStringOrigin,
            attempt: publication.attempt,
            publishedAt: uint64(block.timestamp)
        });
        emit KeyPublished(
            cluster,
            publication.epoch,
            publication.attempt,
            publication.fheKeyDigest,
            publication.referenceStringOrigin
        );
        // The first key takes over from nobody.
        if (publication.epoch == 0) _activate(cluster, 0);
        else readyPublication[cluster] = structHash;
    }

    /// @inheritdoc IKeyCeremony
    function activate(
        bytes32 cluster,
        uint64 epoch,
        bytes32 lastCertificate,
        FrostSignature calldata handoverSignature
    ) external override {
        bytes32 publication = readyPublication[cluster];
        if (publication == 0 || epoch != epochs[cluster]) revert NoReadyKey(cluster, epoch);
        // What the group before has signed and is not anchored could never be, afterwards.
        bytes32 head = IAssignmentAnchor(_contractOf("AssignmentAnchor")).headOf(cluster).hash;
        if (lastCertificate != head) revert NotTheHead(lastCertificate, head);
        bytes32 handover = keccak256(abi.encode(KEY_HANDOVER_TYPE, publication, lastCertificate));
        _checkHandover(cluster, epoch, _typedDigest(handover), handoverSignature);
        delete readyPublication[cluster];
        _keys[cluster][epoch].publishedAt = uint64(block.timestamp);
        _activate(cluster, epoch);
    }

    /// @inheritdoc IKeyCeremony
    function suspend(bytes32 cluster, uint64 epoch) external override onlyContract("Disputes") {
        if (epoch >= epochs[cluster]) revert NoKey(cluster, epoch);
        isSuspended[cluster][epoch] = true;
        // An earlier group can anchor nothing anyway.
        if (epoch + 1 == epochs[cluster]) verificationHash[cluster] = 0;
        emit EpochSuspended(cluster, epoch);
    }

    /// @inheritdoc IKeyCeremony
    function announceSuccession(bytes32 cluster, uint64 epoch) external override onlyGovernance {
        uint64 next = epochs[cluster];
        if (epoch != next || epoch == 0) revert WrongEpoch(epoch, next);
        uint64 from = uint64(block.timestamp) + SUCCESSION_DELAY;
        successionFrom[cluster][epoch] = from;
        emit SuccessionAnnounced(cluster, epoch, from);
    }

    /// @inheritdoc IKeyCeremony
    function withdrawSuccession(bytes32 cluster, uint64 epoch) external override onlyGovernance {
        successionFrom[cluster][epoch] = 0;
        emit SuccessionAnnounced(cluster, epoch, 0);
    }

    /// @inheritdoc IKeyCeremony
    function keyOf(bytes32 cluster, uint64 epoch) external view override returns (Key memory) {
        if (epoch >= epochs[cluster]) revert NoKey(cluster, epoch);
        return _keys[cluster][epoch];
    }

    /// @inheritdoc IKeyCeremony
    function seatOf(bytes32 cluster, uint64 epoch, bytes32 peer)
        external
        view
        override
        returns (uint8)
    {
        if (epoch >= epochs[cluster]) revert NoKey(cluster, epoch);
        bytes32[] storage roster = _attempts[cluster][epoch][_keys[cluster][epoch].attempt].roster;
        for (uint256 i = 0; i < roster.length; ++i) {
            if (roster[i] == peer) return uint8(i + 1);
        }
        return 0;
    }

    /// @dev Puts the key in force that is there.
    function _activate(bytes32 cluster, uint64 epoch) private {
        Key storage key = _keys[cluster][epoch];
        epochs[cluster] = epoch + 1;
        verificationHash[cluster] = keccak256(
            abi.encode(
                epoch,
                key.fheKeyDigest,
                key.referenceStringOrigin,
                key.groupKeyX,
                key.groupKeyPrefix
            )
        );
        emit KeyActivated(cluster, epoch, key.attempt);
    }

    /// @dev The group before consents, or a succession that was announced for long takes its place.
    function _checkHandover(
        bytes32 cluster,
        uint64 epoch,
        bytes32 digest,
        FrostSignature calldata signature
    ) private view {
        uint64 from = successionFrom[cluster][epoch];
        if (from != 0 && block.timestamp >= from && block.timestamp < from + SUCCESSION_TIME) {
            return;
        }
        if (verificationHash[cluster] == 0) revert GroupSuspended(epoch - 1);
        Key storage key = _keys[cluster][epoch - 1];
        if (!FrostVerifier.verify(key.groupKeyX, key.groupKeyPrefix, digest, signature)) {
            revert WrongHandoverSignature();
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
}
