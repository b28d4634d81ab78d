// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IVeilContract} from "./IVeilContract.sol";

/// @title Clusters and their nodes
/// @notice A node is a libp2p peer with a secp256k1 identity. Who registers it proves that it holds
/// the identity's key by a signature over EIP-712 typed data:
///
/// `NodeRegistration(bytes32 cluster,bytes32 peer,address operator,uint8 roles,bytes32 organisation,string labels,uint32 nonce)`
interface INodeRegistry is IVeilContract {
    /// @notice What a cluster is registered with.
    struct Cluster {
        /// Who may change the cluster; proposes ceremonies and admits nodes.
        address admin;
        /// Size of the committee: 1, 4, 7, 10 or 13.
        uint8 committeeSize;
        /// Whether workers may register without the admin's approval. Members never may.
        bool openToWorkers;
        /// Longest time between two slots while work is pending, in milliseconds.
        uint64 slotMillis;
    }

    /// @notice What registers a node.
    struct Registration {
        bytes32 cluster;
        /// The identity's public key, uncompressed.
        Point identity;
        /// `ROLE_WORKER`, `ROLE_MEMBER` or both.
        uint8 roles;
        /// Who runs it, in ASCII, padded with zeros; zero if not said.
        bytes32 organisation;
        /// Public labels `key=value`, separated by commas.
        string labels;
    }

    /// @notice A registered node.
    struct Node {
        /// Keccak-256 of the libp2p peer id.
        bytes32 peer;
        /// The identity's public key, compressed (33 bytes).
        bytes identity;
        /// Its account.
        address operator;
        uint8 roles;
        /// Place in the order of registration, counting nodes that left.
        uint32 position;
        bytes32 organisation;
        string labels;
    }

    /// @notice A cluster exists.
    event ClusterRegistered(
        bytes32 indexed cluster,
        address indexed admin,
        uint8 committeeSize,
        bool openToWorkers,
        uint64 slotMillis
    );
    /// @notice The cluster's policy is another one now.
    event ClusterPolicyChanged(bytes32 indexed cluster, bytes32 policyHash, bytes policy);
    /// @notice `admin` admits the peer, under this operator, to its clusters; zero withdraws it.
    event NodeApproved(address indexed admin, bytes32 indexed peer, address indexed operator);
    /// @notice A node joined.
    event NodeRegistered(
        bytes32 indexed cluster, bytes32 indexed peer, address indexed operator, uint8 roles
    );
    /// @notice A node left.
    event NodeDeregistered(bytes32 indexed cluster, bytes32 indexed peer);
    /// @notice What an account may do in a cluster.
    event RightsChanged(bytes32 indexed cluster, address indexed account, uint32 rights);

    /// @notice The admin has a cluster under this salt already.
    error ClusterAlreadyRegistered(bytes32 cluster);
    /// @notice No such cluster.
    error UnknownCluster(bytes32 cluster);
    /// @notice Committees have 1, 4, 7, 10 or 13 seats.
    error UnsupportedCommitteeSize(uint8 size);
    /// @notice The slot time is zero.
    error InvalidSlotTime();
    /// @notice Only the cluster's admin may do this.
    error NotClusterAdmin(bytes32 cluster, address caller);
    /// @notice The policy is longer than `MAX_POLICY_BYTES`.
    error PolicyTooLong(uint256 length);
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
    /// @notice The admin has not admitted this peer under this operator: `registerNode` does.
    error NodeNotApproved(bytes32 cluster, bytes32 peer, address operator);
    /// @notice Only the node's operator or the cluster's admin may do this.
    error NotNodeOperator(bytes32 cluster, bytes32 peer, address caller);

    /// @notice Registers a cluster; the caller becomes its admin.
    /// @param salt Tells the admin's clusters apart.
    /// @param policy Scheduling policy, opaque here; its Keccak-256 is in every manifest.
    function registerCluster(
        bytes32 salt,
        uint8 committeeSize,
        bool openToWorkers,
        uint64 slotMillis,
        bytes calldata policy
    ) external returns (bytes32 cluster);

    /// @notice Replaces the policy. Admin only.
    function setClusterPolicy(bytes32 cluster, bytes calldata policy) external;

    /// @notice Says what an account may do, as `RIGHT_` bits. Admin only; the admin has all rights.
    function setRights(bytes32 cluster, address account, uint32 rights) external;

    /// @notice Admits a peer, under an operator's account, to the clusters of the caller. The
    /// operator then completes the registration with `register`, which proves possession of the
    /// identity's key. A zero operator withdraws the admission of a node that has not registered.
    function registerNode(bytes32 peerID, address operator) external;

    /// @notice Registers a node of the caller.
    /// @param signature By the identity, over the typed data above with the caller as operator.
    function register(Registration calldata registration, CompactSignature calldata signature)
        external
        returns (bytes32 peer);

    /// @notice Takes a node out of the cluster. Its operator or the admin.
    function deregister(bytes32 cluster, bytes32 peer) external;

    /// @notice The id that `registerCluster` gives.
    function clusterId(address admin, bytes32 salt) external view returns (bytes32);

    function clusterOf(bytes32 cluster) external view returns (Cluster memory);

    function getClusterPolicy(bytes32 cluster) external view returns (bytes memory);

    function rightsOf(bytes32 cluster, address account) external view returns (uint32);

    /// @notice The operator that `admin` admitted the peer under; zero if none.
    function approvedOperator(address admin, bytes32 peer) external view returns (address);

    /// @notice How often the peer was registered in the cluster: the nonce of the next registration.
    function registrations(bytes32 cluster, bytes32 peer) external view returns (uint32);

    /// @notice The account address of an identity's key, for `ecrecover`; zero if it never registered.
    function signerOf(bytes32 peer) external view returns (address);

    /// @notice The node's operator; zero if it is not registered.
    function operatorOf(bytes32 cluster, bytes32 peer) external view returns (address);

    function nodeOf(bytes32 cluster, bytes32 peer) external view returns (Node memory);

    /// @notice Registered nodes in the order of registration, from position `from` on, looking at
    /// `count` positions at most.
    /// @return page The nodes.
    /// @return next Where to go on; 0 at the end.
    function nodes(bytes32 cluster, uint32 from, uint32 count)
        external
        view
        returns (Node[] memory page, uint32 next);

    /// @notice Peers of the registered members in the order of registration: the first
    /// `committeeSize` of them are the committee until committees are elected.
    function members(bytes32 cluster) external view returns (bytes32[] memory);
}
