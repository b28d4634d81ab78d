// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IVeilContract} from "./IVeilContract.sol";

/// @title Clusters, their nodes, and the nodes' stake
/// @notice A node is a libp2p peer with a secp256k1 identity. Who registers it proves that it holds
/// the identity's key by a signature over EIP-712 typed data:
///
/// `NodeRegistration(bytes32 cluster,bytes32 peer,address operator,uint8 roles,bytes32 organisation,string labels,uint32 nonce)`
///
/// What only readers off chain need (the key, the organisation's name, the labels) is in the event
/// `NodeRegistered` and not stored: join the nodes of `nodes` with their event by peer and
/// `registration`. A
/// contract that needs the key takes it as an argument and compares its hash with the peer.
///
/// What a node is, its roles and its organisation, the cluster's admin says: `register` uses an approval up
/// and registers exactly what it names. Without one, a worker of an open cluster may register, of no
/// organisation; the admin's own nodes need none.
///
/// Stake counts from the election of `activeFrom` on: two epochs after the one in which it was added,
/// or at once before the cluster's first key. A node that leaves is out of the next election at once, and one
/// that the admin of an elected cluster takes out only of the one after the next, so that the admin chooses
/// nobody by it;
/// its stake stays slashable until the committees that it may sit in are replaced and their disputes
/// are closed.
interface INodeRegistry is IVeilContract {
    /// @notice What a cluster is registered with. It never changes.
    struct Settings {
        /// Size of the committee: 1, 4, 7, 10 or 13.
        uint8 committeeSize;
        /// Elected or registered spares behind the committee, at most `MAX_STANDBYS`.
        uint8 standbys;
        /// Most seats and standby seats of one organisation; 0 for no limit.
        uint8 seatsPerOrganisation;
        /// Whether workers may register without the admin's approval. Members never may.
        bool openToWorkers;
        /// Whether committees are elected. If not, they are the first members in the order of their
        /// positions ("appointed": the admin chooses by admitting them).
        bool elected;
        /// Longest time between two slots while work is pending, in milliseconds.
        uint64 slotMillis;
        /// Least active stake of a member to be elected, in wei; less than 2^96.
        uint96 memberStake;
        /// How long what widens rights or policy is announced before it holds, in seconds.
        uint32 wideningDelay;
    }

    /// @notice A registered cluster.
    struct Cluster {
        /// Who may change the cluster's policy; proposes ceremonies and admits nodes.
        address admin;
        uint8 committeeSize;
        uint8 standbys;
        uint8 seatsPerOrganisation;
        bool openToWorkers;
        bool elected;
        uint32 wideningDelay;
        uint64 slotMillis;
        uint96 memberStake;
        /// Unix time.
        uint64 registeredAt;
    }

    /// @notice What registers a node.
    struct Registration {
        bytes32 cluster;
        /// The identity's public key, uncompressed.
        Point identity;
        /// `ROLE_WORKER`, `ROLE_MEMBER` or both.
        uint8 roles;
        /// Who runs it, as the admin approved it: in ASCII, padded with zeros; zero if nobody vouches for it,
        /// which counts as one organisation.
        bytes32 organisation;
        /// Public labels `key=value`, separated by commas.
        string labels;
    }

    /// @notice What the admin of a cluster admits a peer as, once.
    struct Approval {
        /// The account that may register it.
        address operator;
        /// `ROLE_WORKER`, `ROLE_MEMBER` or both: all of them, no others.
        uint8 roles;
        /// Last second (Unix time) in which it can be used.
        uint64 validUntil;
        /// Who runs it, in ASCII, padded with zeros; zero for nobody in particular.
        bytes32 organisation;
    }

    /// @notice What a worker is given. Nothing else of it depends on this.
    enum Eligibility {
        /// What finds room.
        Eligible,
        /// Nothing more; what it runs stays.
        Ineligible,
        /// Nothing more, and what it runs goes to others.
        Draining
    }

    /// @notice A registered node.
    struct Node {
        /// Keccak-256 of the libp2p peer id.
        bytes32 peer;
        /// Its account.
        address operator;
        uint8 roles;
        /// Place in its list (members, or workers that are not members); it changes as others leave.
        uint32 position;
        /// How often it has registered, this time included: tells its event `NodeRegistered` from earlier ones.
        uint32 registration;
        /// First seven bytes of the Keccak-256 of the organisation's word.
        bytes7 organisationTag;
        /// All of its stake, in wei.
        uint256 stake;
        Eligibility eligibility;
        /// When a worker that is drained stops what is left, in Unix seconds; 0 for never.
        uint64 drainDeadline;
    }

    /// @notice A node's stake, in wei.
    struct Stake {
        /// Counts in elections.
        uint88 active;
        /// Counts from the election of epoch `activeFrom` on.
        uint88 added;
        uint24 activeFrom;
        /// If leaving: the epoch whose key ends the last committee that the node may sit in. If its eviction
        /// is announced: the first epoch that it is no candidate of.
        uint24 exitEpoch;
        /// If leaving: since when, Unix time.
        uint32 exitRequestedAt;
    }

    /// @notice Who may be drawn.
    struct Candidate {
        bytes32 peer;
        bytes7 organisationTag;
        /// 1 plus the active stake in gwei.
        uint64 weight;
    }

    /// @notice A cluster exists.
    event ClusterRegistered(bytes32 indexed cluster, address indexed admin, Settings settings);
    /// @notice The admin admits the peer, under this operator, as this; what was approved before is void.
    event NodeApproved(
        bytes32 indexed cluster,
        bytes32 indexed peer,
        address indexed operator,
        uint8 roles,
        bytes32 organisation,
        uint64 validUntil
    );
    /// @notice What was approved and not used is void.
    event ApprovalWithdrawn(bytes32 indexed cluster, bytes32 indexed peer);
    /// @notice A node joined, for the first time or once more: `registration` counts from 1. The identity's key is
    /// given compressed.
    event NodeRegistered(
        bytes32 indexed cluster,
        bytes32 indexed peer,
        address indexed operator,
        uint8 roles,
        uint32 registration,
        uint256 identityX,
        uint8 identityPrefix,
        bytes32 organisation,
        string labels
    );
    /// @notice A node left. If it has stake, that is in the exit queue: see `ExitRequested`.
    event NodeDeregistered(bytes32 indexed cluster, bytes32 indexed peer);
    /// @notice A worker is given work, or is not, from now on.
    event EligibilityChanged(
        bytes32 indexed cluster,
        bytes32 indexed peer,
        Eligibility eligibility,
        uint64 drainDeadline,
        address by
    );
    /// @notice A node has more stake, which counts from the election of this epoch on.
    event StakeIncreased(
        bytes32 indexed cluster, bytes32 indexed peer, uint256 amount, uint64 activeFrom
    );
    /// @notice A node with stake leaves.
    event ExitRequested(
        bytes32 indexed cluster, bytes32 indexed peer, uint256 amount, uint64 exitEpoch
    );
    /// @notice The admin takes a member of an elected cluster out: it is no candidate from this epoch on, and
    /// the admin may complete it once that election is due.
    event EvictionAnnounced(bytes32 indexed cluster, bytes32 indexed peer, uint64 fromEpoch);
    /// @notice Where a node's stake will go.
    event WithdrawalAddressChanged(
        bytes32 indexed cluster, bytes32 indexed peer, address indexed to
    );
    /// @notice Who may become the cluster's admin by accepting; zero for nobody.
    event AdminProposed(bytes32 indexed cluster, address indexed to);
    /// @notice The cluster has another admin.
    event AdminChanged(bytes32 indexed cluster, address indexed before, address indexed admin);
    /// @notice The stake went to its withdrawal address, or its operator.
    event StakeWithdrawn(
        bytes32 indexed cluster, bytes32 indexed peer, address indexed to, uint256 amount
    );
    /// @notice Part of the stake went to the disputes contract.
    event StakeSlashed(bytes32 indexed cluster, bytes32 indexed peer, uint256 amount);

    /// @notice The admin has a cluster under this salt already.
    error ClusterAlreadyRegistered(bytes32 cluster);
    /// @notice No such cluster.
    error UnknownCluster(bytes32 cluster);
    /// @notice Committees have 1, 4, 7, 10 or 13 seats.
    error UnsupportedCommitteeSize(uint8 size);
    /// @notice More standbys than `MAX_STANDBYS`.
    error TooManyStandbys(uint8 standbys);
    /// @notice The slot time is zero.
    error InvalidSlotTime();
    /// @notice The delay is longer than `MAX_WIDENING_DELAY`.
    error InvalidWideningDelay(uint32 delay);
    /// @notice The labels are longer than `MAX_LABELS_BYTES`.
    error LabelsTooLong(uint256 length);
    /// @notice Not a point of secp256k1.
    error InvalidIdentityKey();
    /// @notice The signature is not by the identity over this registration.
    error WrongIdentitySignature(bytes32 peer);
    /// @notice No role, or one that does not exist.
    error UnknownRoles(uint8 roles);
    /// @notice The node is registered in the cluster.
    error NodeAlreadyRegistered(bytes32 cluster, bytes32 peer);
    /// @notice The node is not registered in the cluster.
    error NodeNotRegistered(bytes32 cluster, bytes32 peer);
    /// @notice The peer was registered in this cluster 255 times: use another identity.
    error TooManyRegistrations(bytes32 peer);
    /// @notice The admin has not admitted this peer under this operator, or it has registered by that
    /// approval already: `approve` does.
    error NodeNotApproved(bytes32 cluster, bytes32 peer, address operator);
    /// @notice The approval could be used until `validUntil` (Unix time).
    error ApprovalExpired(bytes32 cluster, bytes32 peer, uint64 validUntil);
    /// @notice The admin approved these roles and this organisation, not those of the registration.
    error NotAsApproved(bytes32 cluster, bytes32 peer, uint8 roles, bytes32 organisation);
    /// @notice An approval ends in the future, and at `latest` (Unix time) at most.
    error InvalidApprovalTime(uint64 validUntil, uint64 latest);
    /// @notice An approval without an operator.
    error InvalidOperator();
    /// @notice Only the cluster's admin may do this.
    error NotClusterAdmin(bytes32 cluster, address caller);
    /// @notice Only the node's operator or the cluster's admin may do this.
    error NotNodeOperator(bytes32 cluster, bytes32 peer, address caller);
    /// @notice Only a drain has a deadline.
    error NotDrained(uint64 drainDeadline);
    /// @notice No value was sent, or more than a stake can be.
    error InvalidStake(uint256 amount);
    /// @notice The node left and its stake is still in the exit queue: `withdraw` first.
    error ExitPending(bytes32 cluster, bytes32 peer);
    /// @notice The node has no stake in the exit queue: `requestExit` puts it there.
    error NoExit(bytes32 cluster, bytes32 peer);
    /// @notice The stake is still slashable. It is free once epoch `exitEpoch` has a key and
    /// `DISPUTE_WINDOW` is over after that, or at `latest` (Unix time) whatever happens.
    error StillSlashable(uint64 exitEpoch, uint64 latest);
    /// @notice `open` challenges of the cluster are not decided; the stake waits for them, until `latest` (Unix
    /// time) at most.
    error HeldByChallenges(uint256 open, uint64 latest);
    /// @notice The cluster has as many members as it may.
    error TooManyMembers(bytes32 cluster, uint256 most);
    /// @notice The eviction is announced and can be completed when the election of epoch `fromEpoch` is due.
    error EvictionPending(bytes32 cluster, bytes32 peer, uint64 fromEpoch);
    /// @notice Only the node's withdrawal address may change it, or its operator while there is none.
    error NotStakeHolder(bytes32 cluster, bytes32 peer, address caller);
    /// @notice The admin has not proposed this account for its place.
    error NotNextAdmin(bytes32 cluster, address caller);
    /// @notice The account did not take the stake.
    error PaymentFailed(address to);

    /// @notice Registers a cluster; the caller becomes its admin. Its policy is uploaded to the
    /// `PolicyRegistry` next.
    /// @param salt Tells the admin's clusters apart.
    function registerCluster(bytes32 salt, Settings calldata settings)
        external
        returns (bytes32 cluster);

    /// @notice Proposes another admin, which has to accept; zero proposes nobody. The admin.
    function transferAdmin(bytes32 cluster, address to) external;

    /// @notice Takes the admin's place. Whom it proposed.
    function acceptAdmin(bytes32 cluster) external;

    /// @notice Whom the admin proposed for its place.
    function nextAdmin(bytes32 cluster) external view returns (address);

    /// @notice Admits a peer, under an operator's account, in these roles and of this organisation. The
    /// operator then completes the registration with `register`, which proves possession of the
    /// identity's key and uses the approval up. It takes the place of an earlier one that was not used. The
    /// admin.
    function approve(bytes32 cluster, bytes32 peer, Approval calldata approval) external;

    /// @notice Makes what was approved, and not used, void. The admin. A node that has registered stays:
    /// `requestExit` takes it out.
    function withdrawApproval(bytes32 cluster, bytes32 peer) external;

    /// @notice `approve` in the first cluster that the caller registered, as a worker of no organisation,
    /// for `DEFAULT_APPROVAL`; with a zero operator `withdrawApproval` there.
    function registerNode(bytes32 peerID, address operator) external;

    /// @notice Registers a node of the caller. The value sent is its stake; none is needed to
    /// register.
    /// @param signature By the identity, over the typed data above with the caller as operator.
    function register(Registration calldata registration, CompactSignature calldata signature)
        external
        payable
        returns (bytes32 peer);

    /// @notice Adds the value sent to a node's stake. Its operator.
    function increaseStake(bytes32 cluster, bytes32 peer) external payable;

    /// @notice Says what a worker is given from now on. Its operator or the admin. A node that registers
    /// again begins as `Eligible`.
    /// @param drainDeadline When a worker that is drained stops what has no other place yet, in Unix seconds, which
    /// may be over already; 0 for never, which is the only one for a worker that is not drained.
    function setEligibility(
        bytes32 cluster,
        bytes32 peer,
        Eligibility eligibility,
        uint64 drainDeadline
    ) external;

    /// @notice Takes a node out of the cluster at once; its stake, if any, enters the exit queue. Its
    /// operator or the admin. A member of an elected cluster, the admin takes out in two calls: the first
    /// announces it for the election after the next one.
    function requestExit(bytes32 cluster, bytes32 peer) external;

    /// @notice Pays the stake of a node that left to its withdrawal address, or to its operator if there is
    /// none, when it is no longer slashable and open challenges of the cluster hold it back no longer. Anyone.
    function withdraw(bytes32 cluster, bytes32 peer) external;

    /// @notice Says where the stake of a node goes. Its operator, once; from then on that address.
    function setWithdrawalAddress(bytes32 cluster, bytes32 peer, address to) external;

    /// @notice Where the stake of a node goes; zero for its operator.
    function withdrawalAddress(bytes32 cluster, bytes32 peer) external view returns (address);

    /// @notice Moves stake to the disputes contract, which alone may call this. Takes what there is.
    /// @return taken At most `amount`.
    function slash(bytes32 cluster, bytes32 peer, uint256 amount) external returns (uint256 taken);

    /// @notice The id that `registerCluster` gives.
    function clusterId(address admin, bytes32 salt) external view returns (bytes32);

    function clusterOf(bytes32 cluster) external view returns (Cluster memory);

    /// @notice What is approved of the peer and not used yet, though its time may be over; all zero if
    /// nothing.
    function approvalOf(bytes32 cluster, bytes32 peer) external view returns (Approval memory);

    /// @notice How often the peer was registered in the cluster: the nonce of the next registration.
    function registrations(bytes32 cluster, bytes32 peer) external view returns (uint32);

    /// @notice The node's operator; zero if it is not registered.
    function operatorOf(bytes32 cluster, bytes32 peer) external view returns (address);

    function nodeOf(bytes32 cluster, bytes32 peer) external view returns (Node memory);

    /// @notice The node's stake, also while it leaves.
    function stakeOf(bytes32 cluster, bytes32 peer) external view returns (Stake memory);

    /// @notice Registered nodes from position `from` on, `count` at most. They are in the order of registration,
    /// except that the last takes the place of one that leaves.
    /// @param members True for members, workers among them; false for workers that are not members.
    /// @return page The nodes.
    /// @return next Where to go on; 0 at the end.
    function nodes(bytes32 cluster, bool members, uint32 from, uint32 count)
        external
        view
        returns (Node[] memory page, uint32 next);

    /// @notice Peers of the registered members in the order of their positions: the first
    /// `committeeSize` of them are an appointed committee, the `standbys` after them its spares.
    function members(bytes32 cluster) external view returns (bytes32[] memory);

    /// @notice Members with enough stake for the election of `epoch`, in the order of their positions.
    function candidates(bytes32 cluster, uint64 epoch) external view returns (Candidate[] memory);
}
