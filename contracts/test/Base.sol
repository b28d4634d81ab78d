// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AssignmentAnchor} from "../src/AssignmentAnchor.sol";
import {CommitteeElection} from "../src/CommitteeElection.sol";
import {Directory} from "../src/Directory.sol";
import {Disputes} from "../src/Disputes.sol";
import {JobBoard} from "../src/JobBoard.sol";
import {KeyCeremony} from "../src/KeyCeremony.sol";
import {NodeRegistry} from "../src/NodeRegistry.sol";
import {PolicyRegistry} from "../src/PolicyRegistry.sol";
import {IDirectory} from "../src/interfaces/IDirectory.sol";
import {IKeyCeremony} from "../src/interfaces/IKeyCeremony.sol";
import {INodeRegistry} from "../src/interfaces/INodeRegistry.sol";
import {IPolicyRegistry} from "../src/interfaces/IPolicyRegistry.sol";
import {IVeilContract} from "../src/interfaces/IVeilContract.sol";
import {PricedPool} from "./PricedPool.sol";
import {Signer} from "./Signer.sol";
import {Vm} from "./Vm.sol";

/// @dev The set, deployed, with the test as its owner; a cluster whose admin is the test and whose
/// committee is appointed; helpers that sign.
abstract contract Base {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    Directory internal directory;
    NodeRegistry internal registry;
    PolicyRegistry internal policies;
    CommitteeElection internal election;
    KeyCeremony internal ceremony;
    JobBoard internal board;
    AssignmentAnchor internal anchors;
    Disputes internal disputes;
    PricedPool internal pool;
    bytes32 internal cluster;
    /// @dev The members 1 to this are registered, or were.
    uint256 internal memberCount;

    uint8 internal constant WORKER = 1;
    uint8 internal constant MEMBER = 2;
    uint64 internal constant NOW = 1_800_000_000;
    uint64 internal constant DELAY_BLOCKS = 16;
    address internal constant GUARDIAN = address(0x6a6d);
    address internal constant STRANGER = address(0xbad);
    /// @dev The secret key of the group that tests publish.
    uint256 internal constant GROUP = 0x6b0f;

    function setUp() public virtual {
        vm.warp(NOW);
        vm.roll(1000);
        directory = new Directory(address(this), GUARDIAN);
        deploySet();
        cluster = registry.registerCluster(0, settings());
        policies.setClusterPolicy(cluster, "policy");
    }

    /// @dev The next set of the directory, in force.
    function deploySet() internal {
        deployContracts();
        directory.publish(entries());
    }

    function deployContracts() internal {
        registry = new NodeRegistry(address(directory));
        policies = new PolicyRegistry(address(directory), registry);
        election = new CommitteeElection(address(directory), registry, DELAY_BLOCKS, window());
        ceremony = new KeyCeremony(address(directory), registry, election);
        board = new JobBoard(address(directory), policies, registry);
        anchors = new AssignmentAnchor(address(directory), registry, ceremony);
        disputes = new Disputes(address(directory), registry, ceremony, anchors);
        pool = new PricedPool(address(directory), registry, election, ceremony, anchors);
    }

    /// @dev How long nodes may come before the candidates can be frozen.
    function window() internal view virtual returns (uint64) {
        return 0;
    }

    receive() external payable {}

    function settings() internal view virtual returns (INodeRegistry.Settings memory) {
        return INodeRegistry.Settings({
            committeeSize: 4,
            standbys: 2,
            seatsPerOrganisation: 0,
            openToWorkers: true,
            elected: false,
            slotMillis: 10_000,
            memberStake: 0,
            wideningDelay: 0
        });
    }

    function entries() internal view returns (IDirectory.Entry[] memory list) {
        list = new IDirectory.Entry[](8);
        list[0] = IDirectory.Entry("NodeRegistry", address(registry));
        list[1] = IDirectory.Entry("PolicyRegistry", address(policies));
        list[2] = IDirectory.Entry("CommitteeElection", address(election));
        list[3] = IDirectory.Entry("KeyCeremony", address(ceremony));
        list[4] = IDirectory.Entry("JobBoard", address(board));
        list[5] = IDirectory.Entry("AssignmentAnchor", address(anchors));
        list[6] = IDirectory.Entry("Disputes", address(disputes));
        list[7] = IDirectory.Entry("FeePool", address(pool));
    }

    /// @dev Lets an account submit jobs.
    function allow(address account, uint32 jobs, uint32 leakBits) internal {
        policies.setAllowance(cluster, account, IPolicyRegistry.Allowance(1, jobs, leakBits));
    }

    function check(bool condition, string memory what) internal pure {
        require(condition, what);
    }

    /// @dev EIP-712, written out once more.
    function typedDigest(bytes32 structHash) internal view returns (bytes32) {
        bytes32 separator = keccak256(
            abi.encode(
                keccak256(
                    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
                ),
                keccak256("Veil"),
                keccak256("1"),
                block.chainid,
                address(directory)
            )
        );
        return keccak256(abi.encodePacked(hex"1901", separator, structHash));
    }

    function compact(uint256 secret, bytes32 digest)
        internal
        pure
        returns (IVeilContract.CompactSignature memory)
    {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(secret, digest);
        bytes32 vs = v == 28 ? s | bytes32(uint256(1) << 255) : s;
        return IVeilContract.CompactSignature(r, vs);
    }

    function identityKey(uint256 secret) internal pure returns (IVeilContract.Point memory) {
        Vm.Wallet memory wallet = vm.createWallet(secret);
        return IVeilContract.Point(wallet.publicKeyX, wallet.publicKeyY);
    }

    function registration(uint256 secret, uint8 roles)
        internal
        view
        returns (INodeRegistry.Registration memory)
    {
        return INodeRegistry.Registration(cluster, identityKey(secret), roles, "example", "zone=a");
    }

    /// @dev What `registration` says, for that operator, until tomorrow.
    function approval(address operator, uint8 roles)
        internal
        view
        returns (INodeRegistry.Approval memory)
    {
        return INodeRegistry.Approval(operator, roles, uint64(block.timestamp) + 1 days, "example");
    }

    /// @dev Registers a node, as that operator; what refuses it is expected before.
    function registerAs(
        address operator,
        INodeRegistry.Registration memory node,
        IVeilContract.CompactSignature memory signature
    ) internal {
        vm.prank(operator);
        registry.register(node, signature);
    }

    function registrationDigest(
        INodeRegistry.Registration memory node,
        bytes32 peer,
        address operator,
        uint32 nonce
    ) internal view returns (bytes32) {
        return typedDigest(
            keccak256(
                abi.encode(
                    keccak256(
                        "NodeRegistration(bytes32 cluster,bytes32 peer,address operator,uint8 roles,bytes32 organisation,string labels,uint32 nonce)"
                    ),
                    node.cluster,
                    peer,
                    operator,
                    node.roles,
                    node.organisation,
                    keccak256(bytes(node.labels)),
                    nonce
                )
            )
        );
    }

    function peerOf(uint256 secret) internal pure returns (bytes32) {
        IVeilContract.Point memory key = identityKey(secret);
        bytes1 prefix = key.y % 2 == 0 ? bytes1(0x02) : bytes1(0x03);
        return keccak256(abi.encodePacked(hex"002508021221", prefix, key.x));
    }

    /// @dev Registers the node of `secret`, operated by the test.
    function register(uint256 secret, uint8 roles) internal returns (bytes32 peer) {
        return register(registration(secret, roles), secret, 0);
    }

    function register(INodeRegistry.Registration memory node, uint256 secret, uint256 stake)
        internal
        returns (bytes32 peer)
    {
        peer = peerOf(secret);
        uint32 nonce = registry.registrations(node.cluster, peer);
        bytes32 digest = registrationDigest(node, peer, address(this), nonce);
        check(registry.register{value: stake}(node, compact(secret, digest)) == peer, "peer");
    }

    function registerMembers() internal {
        registerMembers(4);
    }

    function registerMembers(uint256 count) internal {
        for (uint256 i = 1; i <= count; ++i) {
            register(i, MEMBER);
        }
        memberCount = count;
    }

    /// @dev Secrets of the first `count` members, at most, in the order that the registry has.
    function secrets(uint256 count) internal view returns (uint256[] memory list) {
        bytes32[] memory peers = registry.members(cluster);
        if (peers.length < count) count = peers.length;
        list = new uint256[](count);
        for (uint256 i = 0; i < count; ++i) {
            for (uint256 secret = 1; secret <= memberCount; ++secret) {
                if (peerOf(secret) == peers[i]) list[i] = secret;
            }
        }
    }

    function keysOf(uint256[] memory list)
        internal
        pure
        returns (IVeilContract.Point[] memory keys)
    {
        keys = new IVeilContract.Point[](list.length);
        for (uint256 i = 0; i < list.length; ++i) {
            keys[i] = identityKey(list[i]);
        }
    }

    /// @dev Keys of the first `count` members.
    function identities(uint256 count) internal view returns (IVeilContract.Point[] memory) {
        return keysOf(secrets(count));
    }

    /// @dev Proposes with the members that are registered, at most committee and standbys.
    function propose(IKeyCeremony.Proposal memory p) internal {
        ceremony.propose(p, identities(6));
    }

    /// @dev That the same is refused.
    function proposeRefused(IKeyCeremony.Proposal memory p, bytes4 why) internal {
        IVeilContract.Point[] memory keys = identities(6);
        vm.expectPartialRevert(why);
        ceremony.propose(p, keys);
    }

    function proposal(uint64 epoch, uint32 attempt)
        internal
        view
        returns (IKeyCeremony.Proposal memory)
    {
        return IKeyCeremony.Proposal(
            cluster,
            epoch,
            attempt,
            "test",
            bytes32("parameters"),
            bytes32("context"),
            uint64(block.timestamp) + 3600
        );
    }

    function publication(uint64 epoch, uint32 attempt, uint256 group)
        internal
        pure
        returns (IKeyCeremony.Publication memory p)
    {
        p.epoch = epoch;
        p.attempt = attempt;
        p.groupKey = identityKey(group);
        p.verifyingSharesRoot = keccak256("shares");
        p.fheKeyDigest = keccak256("key set");
        p.transcriptRoot = keccak256("transcript");
        p.referenceStringDigest = keccak256("reference string");
        p.referenceStringOrigin = 0;
    }

    function absenceDigest(uint64 epoch, uint32 attempt, uint8 seat)
        internal
        view
        returns (bytes32)
    {
        bytes32 kind = keccak256(
            "MemberAbsence(bytes32 cluster,uint64 epoch,uint32 attempt,uint8 seat)"
        );
        return typedDigest(keccak256(abi.encode(kind, cluster, epoch, attempt, seat)));
    }

    function publicationHash(IKeyCeremony.Publication memory p) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                keccak256(
                    "KeyPublication(bytes32 cluster,uint64 epoch,uint32 attempt,uint256 groupKeyX,uint256 groupKeyY,bytes32 verifyingSharesRoot,bytes32 fheKeyDigest,bytes32 transcriptRoot,bytes32 referenceStringDigest,uint8 referenceStringOrigin)"
                ),
                p.cluster,
                p.epoch,
                p.attempt,
                p.groupKey,
                p.verifyingSharesRoot,
                p.fheKeyDigest,
                p.transcriptRoot,
                p.referenceStringDigest,
                p.referenceStringOrigin
            )
        );
    }

    function memberSignatures(bytes32 digest)
        internal
        view
        returns (IVeilContract.CompactSignature[] memory list)
    {
        uint256[] memory own = secrets(4);
        list = new IVeilContract.CompactSignature[](4);
        for (uint256 i = 0; i < 4; ++i) {
            list[i] = compact(own[i], digest);
        }
    }

    function possessionDigest(IKeyCeremony.Publication memory p) internal view returns (bytes32) {
        bytes32 kind = keccak256("KeyPossession(bytes32 publication)");
        return typedDigest(keccak256(abi.encode(kind, publicationHash(p))));
    }

    /// @dev On the certificate that is the head.
    function handoverDigest(IKeyCeremony.Publication memory p) internal view returns (bytes32) {
        bytes32 kind = keccak256("KeyHandover(bytes32 publication,bytes32 lastCertificate)");
        return typedDigest(keccak256(abi.encode(kind, publicationHash(p), headHash())));
    }

    function headHash() internal view returns (bytes32) {
        return anchors.headOf(cluster).hash;
    }

    /// @dev Proposes and publishes the key `group` of an epoch, and puts it in force.
    function publish(uint64 epoch, uint256 group, uint256 previous) internal {
        propose(proposal(epoch, ceremony.attempts(cluster, epoch)));
        IKeyCeremony.Publication memory p =
            publication(epoch, ceremony.attempts(cluster, epoch) - 1, group);
        p.cluster = cluster;
        publishReady(p, group);
        if (epoch > 0) {
            ceremony.activate(cluster, epoch, headHash(), Signer.sign(previous, handoverDigest(p)));
        }
    }

    /// @dev By the members of the registry.
    function publishReady(IKeyCeremony.Publication memory p, uint256 group) internal {
        ceremony.publish(
            p,
            memberSignatures(typedDigest(publicationHash(p))),
            Signer.sign(group, possessionDigest(p))
        );
    }
}
