// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {VeilContract} from "./VeilContract.sol";
import {ICommitteeElection} from "./interfaces/ICommitteeElection.sol";
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

    /// @notice EIP-712 type of what members sign to replace one that was absent.
    bytes32 public constant MEMBER_ABSENCE_TYPE =
        keccak256("MemberAbsence(bytes32 cluster,uint64 epoch,uint32 attempt,uint8 seat)");
    /// @notice Most attempts of an elected committee; then another one is elected. An appointed one is
    /// the admin's to change.
    uint32 public constant MAX_ATTEMPTS = 8;
    /// @notice How long a succession is announced.
    uint64 public constant SUCCESSION_DELAY = 14 days;

    /// @notice Where the clusters and their nodes are.
    INodeRegistry public immutable registry;
    /// @notice Where elected committees are.
    ICommitteeElection public immutable election;

    /// @dev Status `Expired` is never stored: it follows from the deadline.
    struct Record {
        Status status;
        uint64 deadline;
        uint8 standbys;
        bytes32 parametersDigest;
        bytes32 context;
        /// Keccak-256 of the words of the members' addresses: what their signatures are checked by.
        bytes32 signersHash;
        string parameters;
        bytes32[] roster;
    }

    /// @dev The committee that tries to make an epoch's key.
    struct Committee {
        /// Keccak-256 of its peers and its standbys'.
        bytes32 hash;
        /// The election's round; 0 if appointed.
        uint32 round;
        uint32 firstAttempt;
        /// Seats replaced after the attempt before `replacedBefore`, as bits.
        uint32 replacedBefore;
        uint16 replacedNow;
        /// Seats (from 1) that the standbys have, in order.
        uint8[] replaced;
    }

    mapping(bytes32 cluster => mapping(uint64 epoch => Record[])) private _attempts;
    mapping(bytes32 cluster => mapping(uint64 epoch => Committee)) private _committees;
    mapping(bytes32 cluster => Key[]) private _keys;
    /// @inheritdoc IKeyCeremony
    mapping(bytes32 cluster => bytes32) public override verificationHash;
    /// @inheritdoc IKeyCeremony
    mapping(bytes32 cluster => mapping(uint64 epoch => bool)) public override isSuspended;
    /// @inheritdoc IKeyCeremony
    mapping(bytes32 cluster => mapping(uint64 epoch => uint64)) public override successionFrom;

    constructor(address directory_, INodeRegistry registry_, ICommitteeElection election_)
        VeilContract(directory_)
    {
        _requireContract(address(registry_));
        _requireContract(address(election_));
        registry = registry_;
        election = election_;
    }

    /// @inheritdoc IKeyCeremony
    function propose(Proposal calldata proposal, Point[] calldata identities)
        external
        override
        whenNotPaused
    {
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
        if (expected > 0 && _status(list[expected - 1]) == Status.Proposed) {
            revert AttemptStillOpen(expected - 1, list[expected - 1].deadline);
        }
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
    function replaceSeat(
        bytes32 cluster,
        uint64 epoch,
        uint32 attempt,
        uint8 seat,
        Absence[] calldata absences
    ) external override {
        Record storage record = _failed(cluster, epoch, attempt);
        if (seat == 0 || seat > record.roster.length) revert UnknownSeat(seat);
        bytes32 digest =
            _typedDigest(keccak256(abi.encode(MEMBER_ABSENCE_TYPE, cluster, epoch, attempt, seat)));
        _checkAbsences(record, seat, digest, absences);

        Committee storage committee = _committees[cluster][epoch];
        if (committee.replacedBefore != attempt + 1) {
            (committee.replacedBefore, committee.replacedNow) = (attempt + 1, 0);
        }
        uint16 bit = uint16(1) << seat;
        if (committee.replacedNow & bit != 0) revert SeatAlreadyReplaced(seat);
        if (committee.replaced.length >= record.standbys) revert NoStandbyLeft();
        committee.replacedNow |= bit;
        committee.replaced.push(seat);
        bytes32 left = record.roster[seat - 1];
        emit SeatReplaced(cluster, epoch, seat, left, uint8(committee.replaced.length));
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
        Point calldata identity,
        CompactSignature calldata signature
    ) external override {
        Record storage record = _open(cluster, epoch, attempt);
        bytes32 digest = _typedDigest(
            keccak256(abi.encode(CEREMONY_ABORT_TYPE, cluster, epoch, attempt, reason))
        );
        address signer = _checkMember(record, seat, identity, digest, signature);
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
        _checkMembers(record, _typedDigest(structHash), memberSignatures);
        bytes32 possession = _typedDigest(keccak256(abi.encode(KEY_POSSESSION_TYPE, structHash)));
        uint256 groupKeyX = publication.groupKey.x;
        uint8 groupKeyPrefix = Secp256k1.prefix(publication.groupKey.y);
        if (!FrostVerifier.verify(groupKeyX, groupKeyPrefix, possession, proofOfPossession)) {
            revert WrongProofOfPossession();
        }
        if (publication.epoch > 0) {
            bytes32 handover = _typedDigest(keccak256(abi.encode(KEY_HANDOVER_TYPE, structHash)));
            _checkHandover(cluster, publication.epoch, handover, handoverSignature);
        }
        record.status = Status.Published;
        _keys[cluster].push(
            Key({
                groupKeyX: groupKeyX,
                groupKeyPrefix: groupKeyPrefix,
                verifyingSharesRoot: publication.verifyingSharesRoot,
                fheKeyDigest: publication.fheKeyDigest,
                transcriptRoot: publication.transcriptRoot,
                referenceStringDigest: publication.referenceStringDigest,
                referenceStringOrigin: publication.referenceStringOrigin,
                attempt: publication.attempt,
                publishedAt: uint64(block.timestamp)
            })
        );
        verificationHash[cluster] = keccak256(
            abi.encode(
                publication.epoch,
                publication.fheKeyDigest,
                publication.referenceStringOrigin,
                groupKeyX,
                groupKeyPrefix
            )
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
    function suspend(bytes32 cluster, uint64 epoch) external override onlyContract("Disputes") {
        if (epoch >= _keys[cluster].length) revert NoKey(cluster, epoch);
        isSuspended[cluster][epoch] = true;
        // An earlier group can anchor nothing anyway.
        if (epoch + 1 == _keys[cluster].length) verificationHash[cluster] = 0;
        emit EpochSuspended(cluster, epoch);
    }

    /// @inheritdoc IKeyCeremony
    function announceSuccession(bytes32 cluster, uint64 epoch) external override onlyGovernance {
        uint64 next = epochs(cluster);
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
    function seatOf(bytes32 cluster, uint64 epoch, bytes32 peer)
        external
        view
        override
        returns (uint8)
    {
        if (epoch >= _keys[cluster].length) revert NoKey(cluster, epoch);
        bytes32[] storage roster = _attempts[cluster][epoch][_keys[cluster][epoch].attempt].roster;
        for (uint256 i = 0; i < roster.length; ++i) {
            if (roster[i] == peer) return uint8(i + 1);
        }
        return 0;
    }

    /// @inheritdoc IKeyCeremony
    function isExhausted(bytes32 cluster, uint64 epoch) external view override returns (bool) {
        Committee storage committee = _committees[cluster][epoch];
        Record[] storage list = _attempts[cluster][epoch];
        uint256 tried = list.length - committee.firstAttempt;
        if (tried < MAX_ATTEMPTS || _status(list[list.length - 1]) == Status.Proposed) {
            return false;
        }
        // A committee elected since has not tried yet.
        return committee.round == election.electionOf(cluster, epoch).round;
    }

    /// @dev Seats the committee, with its standbys in the replaced seats.
    function _seat(
        Record storage record,
        Proposal calldata proposal,
        Point[] calldata identities,
        INodeRegistry.Cluster memory settings
    ) private {
        uint256 n = settings.committeeSize;
        uint256[] memory places = new uint256[](n);
        for (uint256 i = 0; i < n; ++i) {
            places[i] = i;
        }
        uint8[] memory replaced = _choose(proposal, _hashOfPeers(identities), settings);
        for (uint256 k = 0; k < replaced.length; ++k) {
            places[replaced[k] - 1] = n + k;
        }
        address[] memory signers = new address[](n);
        for (uint256 i = 0; i < n; ++i) {
            Point calldata identity = identities[places[i]];
            bytes32 peer = Secp256k1.peerIdHash(identity);
            signers[i] = Secp256k1.addressOf(peer, identity);
            if (signers[i] == address(0)) revert InvalidIdentityKey(identity.x);
            record.roster.push(peer);
        }
        record.signersHash = keccak256(abi.encodePacked(signers));
        record.standbys = uint8(identities.length - n);
    }

    /// @dev Checks that the committee is the one to try.
    /// @return The seats that its standbys have.
    function _choose(
        Proposal calldata proposal,
        bytes32 given,
        INodeRegistry.Cluster memory settings
    ) private returns (uint8[] memory) {
        (bytes32 expected, uint32 round) = settings.elected
            ? _elected(proposal.cluster, proposal.epoch)
            : (_appointed(proposal.cluster, settings.committeeSize, settings.standbys), 0);
        if (given != expected) revert WrongRoster(given, expected);
        Committee storage committee = _committees[proposal.cluster][proposal.epoch];
        if (committee.hash != given || committee.round != round) {
            (committee.hash, committee.round) = (given, round);
            committee.firstAttempt = proposal.attempt;
            delete committee.replaced;
        }
        uint32 tried = proposal.attempt - committee.firstAttempt;
        if (settings.elected && tried >= MAX_ATTEMPTS) revert TooManyAttempts(tried);
        return committee.replaced;
    }

    function _hashOfPeers(Point[] calldata identities) private pure returns (bytes32) {
        bytes32[] memory peers = new bytes32[](identities.length);
        for (uint256 i = 0; i < peers.length; ++i) {
            peers[i] = Secp256k1.peerIdHash(identities[i]);
        }
        return keccak256(abi.encodePacked(peers));
    }

    /// @dev Hash of the peers of the elected committee and its standbys.
    function _elected(bytes32 cluster, uint64 epoch)
        private
        view
        returns (bytes32 hash, uint32 round)
    {
        ICommitteeElection.Election memory elected = election.electionOf(cluster, epoch);
        if (elected.status != ICommitteeElection.Status.Sealed) revert NoCommittee(cluster, epoch);
        return (elected.committeeHash, elected.round);
    }

    /// @dev Hash of the peers of the first registered members.
    function _appointed(bytes32 cluster, uint256 n, uint256 standbys)
        private
        view
        returns (bytes32)
    {
        bytes32[] memory peers = registry.members(cluster);
        if (peers.length < n) revert TooFewMembers(peers.length, uint8(n));
        if (peers.length > n + standbys) {
            assembly ("memory-safe") {
                mstore(peers, add(n, standbys)) // the others are not asked
            }
        }
        return keccak256(abi.encodePacked(peers));
    }

    /// @dev The signatures are right if they recover to the addresses of the roster in order: one word
    /// to read, whatever the size of the committee.
    function _checkMembers(
        Record storage record,
        bytes32 digest,
        CompactSignature[] calldata signatures
    ) private view {
        address[] memory recovered = new address[](signatures.length);
        for (uint256 i = 0; i < recovered.length; ++i) {
            recovered[i] = _signer(digest, signatures[i]);
        }
        if (keccak256(abi.encodePacked(recovered)) == record.signersHash) return;
        uint256 n = record.roster.length;
        if (signatures.length != n) revert WrongNumberOfSignatures(signatures.length, n);
        revert WrongMemberSignatures(recovered);
    }

    /// @dev t + 1 members say so: at least one of them is honest.
    function _checkAbsences(
        Record storage record,
        uint8 absent,
        bytes32 digest,
        Absence[] calldata absences
    ) private view {
        uint256 needed = (record.roster.length - 1) / 3 + 1;
        if (absences.length < needed) revert TooFewAbsences(absences.length, needed);
        uint8 last = 0;
        for (uint256 i = 0; i < absences.length; ++i) {
            Absence calldata absence = absences[i];
            if (absence.seat <= last || absence.seat == absent) revert WrongOrder(absence.seat);
            last = absence.seat;
            _checkMember(record, last, absence.identity, digest, absence.signature);
        }
    }

    /// @dev Checks a signature by the member in `seat`, whose key has to be given.
    function _checkMember(
        Record storage record,
        uint8 seat,
        Point calldata identity,
        bytes32 digest,
        CompactSignature calldata signature
    ) private view returns (address signer) {
        if (seat == 0 || seat > record.roster.length) {
            revert UnknownSeat(seat);
        }
        signer = Secp256k1.addressOf(record.roster[seat - 1], identity);
        if (!_isSignedBy(signer, digest, signature)) revert WrongMemberSignature(seat);
    }

    /// @dev The group before consents, or a succession that was announced for long takes its place.
    function _checkHandover(
        bytes32 cluster,
        uint64 epoch,
        bytes32 digest,
        FrostSignature calldata signature
    ) private view {
        uint64 from = successionFrom[cluster][epoch];
        if (from != 0 && block.timestamp >= from) return;
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

    /// @dev The last attempt, if it failed.
    function _failed(bytes32 cluster, uint64 epoch, uint32 attempt)
        private
        view
        returns (Record storage record)
    {
        record = _existing(cluster, epoch, attempt);
        Status status = _status(record);
        bool failed = status == Status.Aborted || status == Status.Expired;
        if (!failed || attempt + 1 != _attempts[cluster][epoch].length) {
            revert AttemptNotFailed(attempt, status);
        }
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
