// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Approvals} from "./Approvals.sol";
import {VeilContract} from "./VeilContract.sol";
import {IDisputes} from "./interfaces/IDisputes.sol";
import {IKeyCeremony} from "./interfaces/IKeyCeremony.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {Secp256k1} from "./libraries/Secp256k1.sol";

/// @title Clusters, their nodes, and the nodes' stake
/// @notice See `INodeRegistry`.
contract NodeRegistry is Approvals {
    /// @notice Most standbys of a committee.
    uint8 public constant MAX_STANDBYS = 8;
    /// @notice Longest announcement of what widens.
    uint32 public constant MAX_WIDENING_DELAY = 30 days;
    /// @notice Longest labels.
    uint256 public constant MAX_LABELS_BYTES = 1024;
    /// @notice How long stake stays slashable after the committee was replaced.
    uint64 public constant DISPUTE_WINDOW = 14 days;
    /// @notice How long it does if the committee is never replaced.
    uint64 public constant MAX_EXIT = 180 days;
    /// @notice How long open challenges hold a stake back that would be free otherwise, at most.
    uint64 public constant MAX_HOLD = 30 days;
    /// @notice Most members of a cluster: elections and ceremonies read them all.
    uint256 public constant MAX_MEMBERS = 256;
    /// @notice EIP-712 type of what an identity signs to be registered.
    bytes32 public constant NODE_REGISTRATION_TYPE = keccak256(
        "NodeRegistration(bytes32 cluster,bytes32 peer,address operator,uint8 roles,bytes32 organisation,string labels,uint32 nonce)"
    );

    /// @dev A node of one cluster, in one word. `roles` is zero while it is not registered; `operator`
    /// stays until its stake is withdrawn.
    struct Record {
        address operator;
        uint8 roles;
        uint24 position;
        uint8 registrations;
        bytes7 organisationTag;
    }

    /// @dev What a worker is given, in one word.
    struct Given {
        Eligibility eligibility;
        uint64 drainDeadline;
    }

    mapping(bytes32 cluster => Cluster) private _clusters;
    mapping(bytes32 cluster => mapping(bytes32 peer => Record)) private _records;
    mapping(bytes32 cluster => mapping(bytes32 peer => Stake)) private _stakes;
    mapping(bytes32 cluster => mapping(bytes32 peer => Given)) private _eligibility;
    /// @dev The last takes the place of one that leaves. Workers are apart, so that no crowd of them makes
    /// an election expensive.
    mapping(bytes32 cluster => bytes32[]) private _members;
    mapping(bytes32 cluster => bytes32[]) private _workers;
    /// @inheritdoc INodeRegistry
    mapping(bytes32 cluster => mapping(bytes32 peer => address)) public override withdrawalAddress;

    constructor(address directory_) VeilContract(directory_) {}

    /// @inheritdoc INodeRegistry
    function registerCluster(bytes32 salt, Settings calldata settings)
        external
        override
        returns (bytes32 cluster)
    {
        uint8 size = settings.committeeSize;
        if (size != 1 && size != 4 && size != 7 && size != 10 && size != 13) {
            revert UnsupportedCommitteeSize(size);
        }
        if (settings.standbys > MAX_STANDBYS) revert TooManyStandbys(settings.standbys);
        if (settings.slotMillis == 0) revert InvalidSlotTime();
        if (settings.wideningDelay > MAX_WIDENING_DELAY) {
            revert InvalidWideningDelay(settings.wideningDelay);
        }
        if (settings.memberStake > type(uint88).max) revert InvalidStake(settings.memberStake);
        cluster = clusterId(msg.sender, salt);
        if (_clusters[cluster].admin != address(0)) revert ClusterAlreadyRegistered(cluster);
        _clusters[cluster] = Cluster({
            admin: msg.sender,
            committeeSize: size,
            standbys: settings.standbys,
            seatsPerOrganisation: settings.seatsPerOrganisation,
            openToWorkers: settings.openToWorkers,
            elected: settings.elected,
            wideningDelay: settings.wideningDelay,
            slotMillis: settings.slotMillis,
            memberStake: settings.memberStake,
            registeredAt: uint64(block.timestamp)
        });
        _rememberFirst(cluster);
        emit ClusterRegistered(cluster, msg.sender, settings);
    }

    /// @inheritdoc INodeRegistry
    function register(Registration calldata registration, CompactSignature calldata signature)
        external
        payable
        override
        returns (bytes32 peer)
    {
        _checkRoles(registration.roles);
        uint256 length = bytes(registration.labels).length;
        if (length > MAX_LABELS_BYTES) revert LabelsTooLong(length);
        peer = Secp256k1.peerIdHash(registration.identity);
        address signer = Secp256k1.addressOf(peer, registration.identity);
        if (signer == address(0)) revert InvalidIdentityKey();
        bytes32 cluster = registration.cluster;
        Record memory record = _records[cluster][peer];
        if (record.roles != 0) revert NodeAlreadyRegistered(cluster, peer);
        if (record.operator != address(0)) revert ExitPending(cluster, peer);
        if (record.registrations == type(uint8).max) revert TooManyRegistrations(peer);
        _admit(registration, peer);
        bytes32 digest = _registrationDigest(registration, peer, record.registrations);
        if (!_isSignedBy(signer, digest, signature)) revert WrongIdentitySignature(peer);
        _enlist(registration, peer, record.registrations + 1);
        if (msg.value > 0) _addStake(cluster, peer);
    }

    /// @inheritdoc INodeRegistry
    function increaseStake(bytes32 cluster, bytes32 peer) external payable override {
        // Nobody else: each addition moves the activation of what was added before.
        if (_registered(cluster, peer).operator != msg.sender) {
            revert NotNodeOperator(cluster, peer, msg.sender);
        }
        if (msg.value == 0) revert InvalidStake(0);
        _addStake(cluster, peer);
    }

    /// @inheritdoc INodeRegistry
    function setEligibility(
        bytes32 cluster,
        bytes32 peer,
        Eligibility eligibility,
        uint64 drainDeadline
    ) external override {
        _requireOperatorOrAdmin(cluster, peer, _registered(cluster, peer));
        if (drainDeadline != 0 && eligibility != Eligibility.Draining) {
            revert NotDrained(drainDeadline);
        }
        _eligibility[cluster][peer] = Given(eligibility, drainDeadline);
        emit EligibilityChanged(cluster, peer, eligibility, drainDeadline, msg.sender);
    }

    /// @inheritdoc INodeRegistry
    function requestExit(bytes32 cluster, bytes32 peer) external override {
        Record storage record = _registered(cluster, peer);
        _requireOperatorOrAdmin(cluster, peer, record);
        if (record.operator != msg.sender && _isEvictedLater(cluster, peer, record)) return;
        _delist(cluster, peer, record);
        record.roles = 0;
        delete _eligibility[cluster][peer];
        emit NodeDeregistered(cluster, peer);
        // Whom the admin takes out does not come back by what was said before.
        if (_clusters[cluster].admin == msg.sender) _forgetApproval(cluster, peer);
        Stake storage stake = _stakes[cluster][peer];
        uint256 amount = _total(stake);
        if (amount == 0) {
            delete _stakes[cluster][peer];
            delete withdrawalAddress[cluster][peer];
            record.operator = address(0);
            return;
        }
        // It may sit in the committee in force and in the one that is elected for the next epoch;
        // the key of the epoch after that ends both.
        uint24 exitEpoch = _epochs(cluster) + 1;
        stake.exitEpoch = exitEpoch;
        stake.exitRequestedAt = uint32(block.timestamp);
        emit ExitRequested(cluster, peer, amount, exitEpoch);
    }

    /// @inheritdoc INodeRegistry
    function withdraw(bytes32 cluster, bytes32 peer) external override {
        Record storage record = _records[cluster][peer];
        address operator = record.operator;
        if (record.roles != 0 || operator == address(0)) revert NoExit(cluster, peer);
        Stake memory stake = _stakes[cluster][peer];
        uint64 latest = stake.exitRequestedAt + MAX_EXIT;
        uint64 free = _freeFrom(cluster, stake.exitEpoch, latest);
        if (block.timestamp < free) revert StillSlashable(stake.exitEpoch, latest);
        if (block.timestamp < free + MAX_HOLD) {
            uint256 open = IDisputes(_contractOf("Disputes")).openChallenges(cluster);
            if (open != 0) revert HeldByChallenges(open, free + MAX_HOLD);
        }
        uint256 amount = _total(stake);
        address to = withdrawalAddress[cluster][peer];
        if (to == address(0)) to = operator;
        delete _stakes[cluster][peer];
        delete withdrawalAddress[cluster][peer];
        record.operator = address(0);
        emit StakeWithdrawn(cluster, peer, to, amount);
        _pay(to, amount);
    }

    /// @inheritdoc INodeRegistry
    function setWithdrawalAddress(bytes32 cluster, bytes32 peer, address to) external override {
        address given = withdrawalAddress[cluster][peer];
        // Also while it leaves. What was given away, the operator's hot key cannot take back.
        address holder = given == address(0) ? _records[cluster][peer].operator : given;
        if (holder != msg.sender) revert NotStakeHolder(cluster, peer, msg.sender);
        if (to == address(0)) revert InvalidOperator();
        withdrawalAddress[cluster][peer] = to;
        emit WithdrawalAddressChanged(cluster, peer, to);
    }

    /// @inheritdoc INodeRegistry
    function slash(bytes32 cluster, bytes32 peer, uint256 amount)
        external
        override
        onlyContract("Disputes")
        returns (uint256 taken)
    {
        Stake storage stake = _stakes[cluster][peer];
        uint256 fromActive = amount < stake.active ? amount : stake.active;
        uint256 fromAdded = amount - fromActive;
        if (fromAdded > stake.added) fromAdded = stake.added;
        stake.active -= uint88(fromActive);
        stake.added -= uint88(fromAdded);
        taken = fromActive + fromAdded;
        emit StakeSlashed(cluster, peer, taken);
        _pay(msg.sender, taken);
    }

    /// @inheritdoc INodeRegistry
    function clusterId(address admin, bytes32 salt) public view override returns (bytes32) {
        return keccak256(abi.encode(block.chainid, address(this), admin, salt));
    }

    /// @inheritdoc INodeRegistry
    function clusterOf(bytes32 cluster) external view override returns (Cluster memory) {
        return _existing(cluster);
    }

    /// @inheritdoc INodeRegistry
    function registrations(bytes32 cluster, bytes32 peer) external view override returns (uint32) {
        return _records[cluster][peer].registrations;
    }

    /// @inheritdoc INodeRegistry
    function operatorOf(bytes32 cluster, bytes32 peer) external view override returns (address) {
        Record storage record = _records[cluster][peer];
        return record.roles == 0 ? address(0) : record.operator;
    }

    /// @inheritdoc INodeRegistry
    function nodeOf(bytes32 cluster, bytes32 peer) external view override returns (Node memory) {
        _registered(cluster, peer);
        return _node(cluster, peer);
    }

    /// @inheritdoc INodeRegistry
    function stakeOf(bytes32 cluster, bytes32 peer) external view override returns (Stake memory) {
        return _stakes[cluster][peer];
    }

    /// @inheritdoc INodeRegistry
    function nodes(bytes32 cluster, bool ofMembers, uint32 from, uint32 count)
        external
        view
        override
        returns (Node[] memory page, uint32 next)
    {
        _existing(cluster);
        bytes32[] storage list = ofMembers ? _members[cluster] : _workers[cluster];
        uint256 end = uint256(from) + count;
        if (end >= list.length) end = list.length;
        else next = uint32(end);
        page = new Node[](end > from ? end - from : 0);
        for (uint256 i = 0; i < page.length; ++i) {
            page[i] = _node(cluster, list[from + i]);
        }
    }

    /// @inheritdoc INodeRegistry
    function members(bytes32 cluster) external view override returns (bytes32[] memory) {
        _existing(cluster);
        return _members[cluster];
    }

    /// @inheritdoc INodeRegistry
    function candidates(bytes32 cluster, uint64 epoch)
        external
        view
        override
        returns (Candidate[] memory list)
    {
        uint256 least = _existing(cluster).memberStake;
        bytes32[] storage order = _members[cluster];
        uint256 length = order.length;
        list = new Candidate[](length);
        uint256 found = 0;
        for (uint256 i = 0; i < length; ++i) {
            bytes32 peer = order[i];
            Stake memory stake = _stakes[cluster][peer];
            // The admin takes it out, and said so two epochs before.
            if (stake.exitEpoch != 0 && epoch >= stake.exitEpoch) continue;
            uint256 active = stake.active;
            if (stake.activeFrom <= epoch) active += stake.added;
            if (active < least) continue;
            // Less than 2^89 wei are less than 2^60 gwei.
            list[found++] = Candidate(
                peer, _records[cluster][peer].organisationTag, uint64(1 + active / 1 gwei)
            );
        }
        assembly ("memory-safe") {
            mstore(list, found) // shorter than allocated
        }
    }

    function _enlist(Registration calldata registration, bytes32 peer, uint8 times) private {
        bool member = registration.roles & ROLE_MEMBER != 0;
        bytes32[] storage list =
            member ? _members[registration.cluster] : _workers[registration.cluster];
        uint24 position = uint24(list.length);
        if (member && position >= MAX_MEMBERS) {
            revert TooManyMembers(registration.cluster, MAX_MEMBERS);
        }
        list.push(peer);
        _records[registration.cluster][peer] = Record({
            operator: msg.sender,
            roles: registration.roles,
            position: position,
            registrations: times,
            organisationTag: bytes7(keccak256(abi.encode(registration.organisation)))
        });
        emit NodeRegistered(
            registration.cluster,
            peer,
            msg.sender,
            registration.roles,
            times,
            registration.identity.x,
            Secp256k1.prefix(registration.identity.y),
            registration.organisation,
            registration.labels
        );
    }

    /// @dev Adds the value of the call. What was added before and counts already is settled.
    function _addStake(bytes32 cluster, bytes32 peer) private {
        Stake storage stake = _stakes[cluster][peer];
        uint256 total = _total(stake) + msg.value;
        if (total > type(uint88).max) revert InvalidStake(msg.value);
        uint24 epochs = _epochs(cluster);
        if (stake.activeFrom <= epochs) {
            stake.active += stake.added;
            stake.added = 0;
        }
        // The next election is for epoch `epochs`; candidates may be frozen already.
        uint24 activeFrom = epochs == 0 ? 0 : epochs + 1;
        if (epochs == 0) stake.active += uint88(msg.value);
        else stake.added += uint88(msg.value);
        stake.activeFrom = activeFrom;
        emit StakeIncreased(cluster, peer, msg.value, activeFrom);
    }

    function _total(Stake memory stake) private pure returns (uint256) {
        return uint256(stake.active) + stake.added;
    }

    /// @dev When a stake that leaves is free: `DISPUTE_WINDOW` after the key of its exit epoch, `latest` at
    /// the latest.
    function _freeFrom(bytes32 cluster, uint64 epoch, uint64 latest) private view returns (uint64) {
        if (_epochs(cluster) <= epoch) return latest;
        uint64 over = _ceremony().keyOf(cluster, epoch).publishedAt + DISPUTE_WINDOW;
        return over < latest ? over : latest;
    }

    /// @dev An admin that took members of an elected cluster out at once would choose whom to draw of. The
    /// first call says from which election on it is none; another one, then, takes it out.
    function _isEvictedLater(bytes32 cluster, bytes32 peer, Record storage record)
        private
        returns (bool)
    {
        if (record.roles & ROLE_MEMBER == 0 || !_clusters[cluster].elected) return false;
        Stake storage stake = _stakes[cluster][peer];
        uint24 epochs = _epochs(cluster);
        if (stake.exitEpoch == 0) {
            uint24 from = epochs + 2;
            stake.exitEpoch = from;
            emit EvictionAnnounced(cluster, peer, from);
            return true;
        }
        if (epochs < stake.exitEpoch) revert EvictionPending(cluster, peer, stake.exitEpoch);
        return false;
    }

    /// @dev The last takes its place.
    function _delist(bytes32 cluster, bytes32 peer, Record storage record) private {
        bytes32[] storage list =
            record.roles & ROLE_MEMBER != 0 ? _members[cluster] : _workers[cluster];
        bytes32 last = list[list.length - 1];
        if (last != peer) {
            list[record.position] = last;
            _records[cluster][last].position = record.position;
        }
        list.pop();
    }

    /// @dev How many keys the cluster has.
    function _epochs(bytes32 cluster) private view returns (uint24) {
        return uint24(_ceremony().epochs(cluster));
    }

    function _ceremony() private view returns (IKeyCeremony) {
        return IKeyCeremony(_contractOf("KeyCeremony"));
    }

    function _pay(address to, uint256 amount) private {
        if (amount == 0) return;
        (bool taken,) = to.call{value: amount}("");
        if (!taken) revert PaymentFailed(to);
    }

    function _registrationDigest(Registration calldata registration, bytes32 peer, uint32 nonce)
        private
        view
        returns (bytes32)
    {
        return _typedDigest(
            keccak256(
                abi.encode(
                    NODE_REGISTRATION_TYPE,
                    registration.cluster,
                    peer,
                    msg.sender,
                    registration.roles,
                    registration.organisation,
                    keccak256(bytes(registration.labels)),
                    nonce
                )
            )
        );
    }

    function _node(bytes32 cluster, bytes32 peer) private view returns (Node memory) {
        Record storage record = _records[cluster][peer];
        Given memory given = _eligibility[cluster][peer];
        return Node({
            peer: peer,
            operator: record.operator,
            roles: record.roles,
            position: record.position,
            registration: record.registrations,
            organisationTag: record.organisationTag,
            stake: _total(_stakes[cluster][peer]),
            eligibility: given.eligibility,
            drainDeadline: given.drainDeadline
        });
    }

    function _existing(bytes32 cluster) internal view override returns (Cluster storage settings) {
        settings = _clusters[cluster];
        if (settings.admin == address(0)) revert UnknownCluster(cluster);
    }

    function _requireOperatorOrAdmin(bytes32 cluster, bytes32 peer, Record storage record)
        private
        view
    {
        if (record.operator != msg.sender && _clusters[cluster].admin != msg.sender) {
            revert NotNodeOperator(cluster, peer, msg.sender);
        }
    }

    function _registered(bytes32 cluster, bytes32 peer)
        private
        view
        returns (Record storage record)
    {
        record = _records[cluster][peer];
        if (record.roles == 0) revert NodeNotRegistered(cluster, peer);
    }
}
