// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {VeilContract} from "./VeilContract.sol";
import {ICommitteeElection} from "./interfaces/ICommitteeElection.sol";
import {IKeyCeremony} from "./interfaces/IKeyCeremony.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {Secp256k1} from "./libraries/Secp256k1.sol";

/// @title Attempts of ceremonies and who sits in them
/// @notice The part of `IKeyCeremony` that comes before there is a key.
abstract contract Attempts is IKeyCeremony, VeilContract {
    /// @notice EIP-712 type of what members sign to replace one that was absent.
    bytes32 public constant MEMBER_ABSENCE_TYPE =
        keccak256("MemberAbsence(bytes32 cluster,uint64 epoch,uint32 attempt,uint8 seat)");

    /// @notice Where the clusters and their nodes are.
    INodeRegistry public immutable registry;
    /// @notice Where elected committees are.
    ICommitteeElection public immutable election;

    /// @dev Status `Expired` is never stored: it follows from the deadline.
    struct Record {
        Status status;
        uint64 deadline;
        bytes32 parametersDigest;
        bytes32 context;
        /// Keccak-256 of the words of the members' addresses: what their signatures are checked by.
        bytes32 signersHash;
        string parameters;
        bytes32[] roster;
    }

    mapping(bytes32 cluster => mapping(uint64 epoch => Record[])) internal _attempts;
    /// @inheritdoc IKeyCeremony
    mapping(bytes32 cluster => mapping(uint64 epoch => mapping(bytes32 peer => bool)))
        public
        override hasForfeited;

    constructor(address directory_, INodeRegistry registry_, ICommitteeElection election_)
        VeilContract(directory_)
    {
        _requireContract(address(registry_));
        _requireContract(address(election_));
        registry = registry_;
        election = election_;
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

        if (hasForfeited[cluster][epoch][record.roster[seat - 1]]) {
            revert SeatAlreadyReplaced(seat);
        }
        _forfeit(cluster, epoch, attempt, record, seat);
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
    function isOpen(bytes32 cluster, uint64 epoch) external view override returns (bool) {
        Record[] storage list = _attempts[cluster][epoch];
        return list.length > 0 && _status(list[list.length - 1]) == Status.Proposed;
    }

    /// @dev Seats the committee: in the place of each that is out, the next standby that is not.
    function _seat(
        Record storage record,
        Proposal calldata proposal,
        Point[] calldata identities,
        INodeRegistry.Cluster memory settings
    ) internal {
        uint256 n = settings.committeeSize;
        _checkCommittee(proposal, _hashOfPeers(identities), settings);
        uint256 standby = n;
        address[] memory signers = new address[](n);
        for (uint256 i = 0; i < n; ++i) {
            Point calldata identity = identities[i];
            bytes32 peer = Secp256k1.peerIdHash(identity);
            while (_isOut(proposal, peer, settings.elected)) {
                if (standby == identities.length) revert NoStandbyLeft();
                identity = identities[standby++];
                peer = Secp256k1.peerIdHash(identity);
            }
            signers[i] = Secp256k1.addressOf(peer, identity);
            if (signers[i] == address(0)) revert InvalidIdentityKey(identity.x);
            record.roster.push(peer);
        }
        record.signersHash = keccak256(abi.encodePacked(signers));
    }

    /// @dev Who lost its seat, or has left since it was drawn. An appointed one is registered.
    function _isOut(Proposal calldata proposal, bytes32 peer, bool elected)
        private
        view
        returns (bool)
    {
        return hasForfeited[proposal.cluster][proposal.epoch][peer]
            || (elected && registry.operatorOf(proposal.cluster, peer) == address(0));
    }

    /// @dev For this epoch, whatever attempts and committees there are.
    function _forfeit(
        bytes32 cluster,
        uint64 epoch,
        uint32 attempt,
        Record storage record,
        uint8 seat
    ) internal {
        bytes32 peer = record.roster[seat - 1];
        hasForfeited[cluster][epoch][peer] = true;
        emit SeatForfeited(cluster, epoch, attempt, seat, peer);
    }

    /// @dev Checks that the keys given are those of the committee to try.
    function _checkCommittee(
        Proposal calldata proposal,
        bytes32 given,
        INodeRegistry.Cluster memory settings
    ) private view {
        bytes32 expected = settings.elected
            ? _elected(proposal.cluster, proposal.epoch)
            : _appointed(proposal.cluster, settings.committeeSize, settings.standbys);
        if (given != expected) revert WrongRoster(given, expected);
    }

    function _hashOfPeers(Point[] calldata identities) private pure returns (bytes32) {
        bytes32[] memory peers = new bytes32[](identities.length);
        for (uint256 i = 0; i < peers.length; ++i) {
            peers[i] = Secp256k1.peerIdHash(identities[i]);
        }
        return keccak256(abi.encodePacked(peers));
    }

    /// @dev Hash of the peers of the elected committee and its standbys.
    function _elected(bytes32 cluster, uint64 epoch) private view returns (bytes32) {
        ICommitteeElection.Election memory elected = election.electionOf(cluster, epoch);
        if (elected.status != ICommitteeElection.Status.Sealed) revert NoCommittee(cluster, epoch);
        return elected.committeeHash;
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
    ) internal view {
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
    ) internal view returns (address signer) {
        if (seat == 0 || seat > record.roster.length) {
            revert UnknownSeat(seat);
        }
        signer = Secp256k1.addressOf(record.roster[seat - 1], identity);
        if (!_isSignedBy(signer, digest, signature)) revert WrongMemberSignature(seat);
    }

    /// @dev The seats of the caller's nodes, as bits.
    function _seatsOfCaller(bytes32 cluster, Record storage record)
        internal
        view
        returns (uint256 seats)
    {
        for (uint256 i = 0; i < record.roster.length; ++i) {
            if (registry.operatorOf(cluster, record.roster[i]) == msg.sender) seats |= 1 << i;
        }
    }

    function _status(Record storage record) internal view returns (Status) {
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
        internal
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
