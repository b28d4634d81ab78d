// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {FeePool} from "../src/FeePool.sol";
import {IAssignmentAnchor} from "../src/interfaces/IAssignmentAnchor.sol";
import {IFeePool} from "../src/interfaces/IFeePool.sol";
import {IKeyCeremony} from "../src/interfaces/IKeyCeremony.sol";
import {INodeRegistry} from "../src/interfaces/INodeRegistry.sol";
import {IVeilContract} from "../src/interfaces/IVeilContract.sol";
import {Price} from "../src/libraries/Price.sol";
import {Headers} from "./Headers.sol";
import {Signer} from "./Signer.sol";
import {Works} from "./Works.sol";

/// @dev Confirms several deployments in one transaction, and takes its payment by asking for it again.
contract Batch {
    FeePool private immutable pool;
    uint256 public asked;

    constructor(FeePool pool_) {
        pool = pool_;
    }

    function confirm(
        IAssignmentAnchor.Certificate[] calldata chain,
        IAssignmentAnchor.Assignment[] calldata list,
        bytes32[][] calldata proofs
    ) external {
        for (uint256 i = 0; i < list.length; ++i) {
            pool.confirmDeployment(chain, list[i], proofs[i]);
        }
    }

    receive() external payable {
        ++asked;
        try pool.withdraw(address(this)) {
            revert("paid twice");
        } catch {}
    }
}

contract FeePoolTest is Works {
    /// @dev What a transaction of that gas is paid at most, and nearly.
    function checkRefund(uint256 gas, uint256 owed, string memory what) private view {
        check(owed <= gas * pool.PRICE(), string.concat(what, ": more than it cost"));
        check(owed >= gas * pool.PRICE() * 7 / 10, string.concat(what, ": too little"));
    }

    function test_gas_of_an_anchor() external {
        for (uint256 i = 0; i < 64; ++i) {
            anchorBy(address(this), next());
        }
        IAssignmentAnchor.Certificate memory c = next();
        bytes32 hash = anchors.hashOf(c);
        IVeilContract.CompressedPoint memory key = Signer.key(GROUP);
        IVeilContract.FrostSignature memory signature = Signer.sign(GROUP, hash);
        uint256 before = vm.snapshotState();
        pool.anchor(c, key, signature);
        vm.snapshotGasLastCall("FeePool", "anchor, later, of an empty pool");
        check(vm.revertToState(before), "reverted");
        pool.deposit{value: 1 ether}(cluster);
        anchorBy(STRANGER, c);
        vm.warp(block.timestamp + 60);
        c = next();
        signature = Signer.sign(GROUP, anchors.hashOf(c));
        uint256 owed = pool.owedTo(STRANGER);
        vm.prank(STRANGER);
        pool.anchor(c, key, signature);
        uint256 gas = vm.snapshotGasLastCall("FeePool", "anchor, later");
        checkRefund(gas, pool.owedTo(STRANGER) - owed, "anchor");
    }

    function test_who_anchors_is_paid_back_once_in_the_interval() external {
        pool.deposit{value: 1 ether}(cluster);
        anchorBy(STRANGER, next());
        uint256 owed = pool.owedTo(STRANGER);
        check(owed > 0 && pool.poolOf(cluster).balance == 1 ether - owed, "of the pool");
        vm.warp(block.timestamp + 59);
        anchorBy(STRANGER, next());
        check(pool.owedTo(STRANGER) == owed, "too soon, and anchored all the same");
        vm.warp(block.timestamp + 1);
        anchorBy(STRANGER, next());
        check(pool.owedTo(STRANGER) > owed, "a minute later");
        check(anchors.headOf(cluster).count == 3, "all of them");

        vm.prank(STRANGER);
        vm.expectPartialRevert(IFeePool.NotClusterAdmin.selector);
        pool.setAnchorInterval(cluster, 5);
        vm.expectPartialRevert(IFeePool.InvalidInterval.selector);
        pool.setAnchorInterval(cluster, 0);
        vm.expectPartialRevert(IFeePool.InvalidInterval.selector);
        pool.setAnchorInterval(cluster, 1 days + 1);
        pool.setAnchorInterval(cluster, 5);
        owed = pool.owedTo(STRANGER);
        vm.warp(block.timestamp + 5);
        anchorBy(STRANGER, next());
        check(pool.owedTo(STRANGER) > owed, "as the admin says");
    }

    /// @dev What another contract refuses is refused by name, and paid to nobody.
    function test_useless_calls_are_not_refunded() external {
        pool.deposit{value: 1 ether}(cluster);
        anchorBy(address(this), next());
        uint256 left = pool.poolOf(cluster).balance;
        vm.warp(block.timestamp + 1 days);
        IAssignmentAnchor.Certificate memory again = head;
        IVeilContract.CompressedPoint memory key = Signer.key(GROUP);
        IVeilContract.FrostSignature memory signature = Signer.sign(GROUP, headIs);
        vm.prank(STRANGER);
        vm.expectPartialRevert(IAssignmentAnchor.WrongBase.selector);
        pool.anchor(again, key, signature);
        again = next();
        vm.prank(STRANGER);
        vm.expectPartialRevert(IAssignmentAnchor.WrongGroupSignature.selector);
        pool.anchor(again, key, signature);
        vm.prank(STRANGER);
        vm.expectPartialRevert(IAssignmentAnchor.NotAnchored.selector);
        pool.confirmDeployment(
            new IAssignmentAnchor.Certificate[](0), assignment(0), new bytes32[](0)
        );
        check(pool.owedTo(STRANGER) == 0 && pool.poolOf(cluster).balance == left, "nothing");
        vm.prank(STRANGER);
        vm.expectPartialRevert(IVeilContract.NotContract.selector);
        anchors.confirmDeploymentFor(
            OWNER, new IAssignmentAnchor.Certificate[](0), assignment(0), new bytes32[](0)
        );
    }

    function test_an_empty_pool_fails_nothing() external {
        anchorBy(STRANGER, next());
        check(pool.owedTo(STRANGER) == 0, "nothing");
        pool.deposit{value: 7}(cluster);
        anchorBy(STRANGER, next());
        check(pool.owedTo(STRANGER) == 7 && pool.poolOf(cluster).balance == 0, "what is there");
        check(anchors.headOf(cluster).count == 2, "anchored");
    }

    function test_only_clusters_have_pools() external {
        vm.expectPartialRevert(INodeRegistry.UnknownCluster.selector);
        pool.deposit{value: 1}("nobody's");
        vm.expectPartialRevert(INodeRegistry.UnknownCluster.selector);
        pool.fundJob{value: 1}("nobody's", JOB, 1);
        vm.expectPartialRevert(IFeePool.EmptyFee.selector);
        pool.deposit(cluster);
    }

    /// @dev However many attempts there are.
    function test_keys_are_refunded_once_for_an_epoch() external {
        pool.deposit{value: 1 ether}(cluster);
        for (uint32 attempt = 0; attempt < 2; ++attempt) {
            propose(proposal(1, attempt));
            IKeyCeremony.Publication memory p = publication(1, attempt, GROUP + 1);
            p.cluster = cluster;
            IVeilContract.CompactSignature[] memory members =
                memberSignatures(typedDigest(publicationHash(p)));
            IVeilContract.FrostSignature memory possession =
                Signer.sign(GROUP + 1, possessionDigest(p));
            uint256 owed = pool.owedTo(STRANGER);
            vm.prank(STRANGER);
            pool.publish(p, members, possession);
            string memory name =
                attempt == 0 ? "publish, 4 members" : "publish, 4 members, not refunded";
            uint256 gas = vm.snapshotGasLastCall("FeePool", name);
            owed = pool.owedTo(STRANGER) - owed;
            if (attempt == 0) checkRefund(gas, owed, "publish");
            else check(owed == 0, "another attempt");
            if (attempt == 0) continue;
            IVeilContract.FrostSignature memory handover = Signer.sign(GROUP, handoverDigest(p));
            owed = pool.owedTo(STRANGER);
            vm.prank(STRANGER);
            pool.activate(cluster, 1, 0, handover);
            gas = vm.snapshotGasLastCall("FeePool", "activate");
            checkRefund(gas, pool.owedTo(STRANGER) - owed, "activate");
        }
        check(ceremony.epochs(cluster) == 2, "in force");
    }

    function test_a_seal_is_refunded_if_it_drew() external {
        INodeRegistry.Settings memory given = settings();
        given.elected = true;
        cluster = registry.registerCluster("elected", given);
        for (uint256 i = 1; i <= 6; ++i) {
            register(registration(i, MEMBER), i, 1 ether);
        }
        pool.deposit{value: 1 ether}(cluster);
        election.request(cluster, 0);
        INodeRegistry.Candidate[] memory list = registry.candidates(cluster, 0);
        uint64 number = election.electionOf(cluster, 0).randomBlock;
        bytes memory header = Headers.header(number, keccak256("random"));
        vm.roll(number + 1);
        vm.setBlockhash(number, keccak256(header));
        vm.prank(STRANGER);
        pool.seal(cluster, 0, list, header);
        uint256 gas = vm.snapshotGasLastCall("FeePool", "seal, 4 and 2 of 6");
        checkRefund(gas, pool.owedTo(STRANGER), "seal");
    }

    /// @dev One transaction is paid for once, however many steps are in it.
    function test_a_batch_is_paid_no_more_than_it_cost() external {
        Batch batch = new Batch(pool);
        vm.prank(OWNER);
        registry.requestExit(cluster, peerOf(WORKER_SECRET));
        registerWorker(address(batch));
        pool.deposit{value: 1 ether}(cluster);
        IAssignmentAnchor.Assignment[] memory list = new IAssignmentAnchor.Assignment[](2);
        (list[0], list[1]) = (assignment(0), assignment(1));
        bytes32[] memory leaves = new bytes32[](2);
        (leaves[0], leaves[1]) = (anchors.leafOf(list[0]), anchors.leafOf(list[1]));
        bytes32[][] memory proofs = new bytes32[][](2);
        (proofs[0], proofs[1]) = (new bytes32[](1), new bytes32[](1));
        (proofs[0][0], proofs[1][0]) = (leaves[1], leaves[0]);
        IAssignmentAnchor.Certificate[] memory chain = new IAssignmentAnchor.Certificate[](1);
        chain[0] = next();
        chain[0].assignmentsRoot = leaves[0] < leaves[1]
            ? keccak256(abi.encode(leaves[0], leaves[1]))
            : keccak256(abi.encode(leaves[1], leaves[0]));
        anchorBy(STRANGER, chain[0]);
        batch.confirm(chain, list, proofs);
        uint256 gas = vm.snapshotGasLastCall("FeePool", "two confirmations in one transaction");
        uint256 owed = pool.owedTo(address(batch));
        checkRefund(gas, owed, "batch");
        // Who asks again while it is paid gets nothing more.
        pool.withdraw(address(batch));
        check(address(batch).balance == owed && batch.asked() == 1, "once");
        vm.expectPartialRevert(IFeePool.NothingOwed.selector);
        pool.withdraw(address(batch));
    }

    function test_who_takes_no_payment_keeps_its_claim() external {
        pool.deposit{value: 1 ether}(cluster);
        anchorBy(address(registry), next());
        uint256 owed = pool.owedTo(address(registry));
        vm.expectPartialRevert(IFeePool.PaymentFailed.selector);
        pool.withdraw(address(registry));
        check(pool.owedTo(address(registry)) == owed && owed > 0, "kept");
    }

    /// @dev Called where base fee and price are those that are set.
    function testFuzz_the_price_of_gas_is_never_more_than_is_paid(uint48 fee, uint48 tip) external {
        vm.fee(fee);
        vm.txGasPrice(uint256(fee) + tip);
        uint256 price = Price.ofGas();
        check(price <= uint256(fee) + tip, "more than is paid");
        check(price <= 102 gwei, "the limits");
        if (fee <= 100 gwei && tip <= 2 gwei) check(price == uint256(fee) + tip, "all of it");
    }
}

contract WorkTest is Works {
    uint64 private constant GWEI = 1 gwei;

    function test_gas_of_confirmation_and_claim() external {
        pool.deposit{value: 1 ether}(cluster);
        fund(1 ether, GWEI);
        IAssignmentAnchor.Certificate memory c = next();
        c.assignmentsRoot = anchors.leafOf(assignment(0));
        anchorBy(OWNER, c);
        IAssignmentAnchor.Certificate[] memory chain = new IAssignmentAnchor.Certificate[](1);
        chain[0] = c;
        uint256 owed = pool.owedTo(OWNER);
        vm.prank(OWNER);
        pool.confirmDeployment(chain, assignment(0), new bytes32[](0));
        uint256 gas = vm.snapshotGasLastCall("FeePool", "confirmation");
        owed = pool.owedTo(OWNER) - owed;
        check(owed <= gas * pool.PRICE() && owed >= gas * pool.PRICE() * 7 / 10, "refund");
        bytes32 certificate = headIs;
        claimOfThousand(certificate, c.slot, "claim, first");
        claimOfThousand(certificate, c.slot, "claim, later");
    }

    /// @dev Ten levels: a state of a thousand leaves.
    function claimOfThousand(bytes32 certificate, uint64 slot, string memory name) private {
        vm.warp(block.timestamp + 100);
        bytes32[] memory proof = new bytes32[](10);
        IAssignmentAnchor.Replica memory replica = placed(slot);
        bytes32 node = anchors.replicaLeafOf(replica);
        for (uint256 level = 0; level < 10; ++level) {
            proof[level] = keccak256(abi.encode("sibling", level));
            node = node < proof[level]
                ? keccak256(abi.encode(node, proof[level]))
                : keccak256(abi.encode(proof[level], node));
        }
        IAssignmentAnchor.Certificate memory with = next();
        with.stateRoot = node;
        anchorBy(address(this), with);
        check(pool.claim(head, replica, proof, certificate, PAYER) == 100 * GWEI, "paid");
        vm.snapshotGasLastCall("FeePool", name);
    }

    function test_work_is_paid_by_time_while_the_state_has_it() external {
        fund(1 ether, 3 * GWEI);
        check(pool.poolOf(cluster).balance == 0.05 ether, "the pool's part");
        check(pool.escrowOf(cluster, JOB, PAYER).balance == 0.95 ether, "the rest");
        vm.warp(block.timestamp + 500);
        (bytes32 certificate, uint64 slot) = place();
        vm.warp(block.timestamp + 100);
        anchorState(placed(slot));
        uint256 owed = pool.owedTo(OWNER);
        vm.warp(block.timestamp + 1000); // what is not anchored yet is not paid yet
        check(claim(placed(slot), certificate) == 300 * GWEI, "since the confirmation");
        check(pool.owedTo(OWNER) == owed + 300 * GWEI, "to the operator");
        vm.expectPartialRevert(IFeePool.NothingEarned.selector);
        claim(placed(slot), certificate);
        // One claim, whatever was anchored in between; the certificate before the last will do.
        for (uint256 i = 0; i < 5; ++i) {
            vm.warp(block.timestamp + 10);
            anchorState(placed(slot));
        }
        IAssignmentAnchor.Certificate memory kept = head;
        anchorState(placed(slot));
        uint256 paid = pool.claim(kept, placed(slot), new bytes32[](0), certificate, PAYER);
        check(paid == 1050 * 3 * GWEI, "all in between");
        anchorState(placed(slot));
        vm.expectPartialRevert(IFeePool.NotLatest.selector);
        pool.claim(kept, placed(slot), new bytes32[](0), certificate, PAYER);
    }

    function test_what_is_not_paid() external {
        (bytes32 certificate, uint64 slot) = place();
        vm.warp(block.timestamp + 100);
        anchorState(placed(slot));
        vm.expectPartialRevert(IFeePool.NoFee.selector);
        claim(placed(slot), certificate);
        fund(1 ether, GWEI);
        // No time before the fee.
        vm.expectPartialRevert(IFeePool.NothingEarned.selector);
        claim(placed(slot), certificate);
        vm.expectPartialRevert(IFeePool.NotConfirmed.selector);
        claim(placed(slot), "another");
        vm.expectPartialRevert(IFeePool.NotInState.selector);
        claim(placed(slot + 1), certificate);
        vm.warp(block.timestamp + 100);
        // It was given back to the worker: that is another assignment.
        anchorState(placed(slot + 1));
        vm.expectPartialRevert(IFeePool.NotConfirmed.selector);
        claim(placed(slot + 1), certificate);
        IAssignmentAnchor.Replica memory done = placed(slot);
        done.flags = 1;
        anchorState(done);
        vm.expectPartialRevert(IFeePool.ReplicaDone.selector);
        claim(done, certificate);
        check(pool.owedTo(OWNER) == 0, "nothing");
    }

    function test_an_escrow_pays_what_it_holds_and_later_the_rest() external {
        fund(1000 * GWEI, 10 * GWEI);
        (bytes32 certificate, uint64 slot) = place();
        vm.warp(block.timestamp + 200);
        anchorState(placed(slot));
        check(claim(placed(slot), certificate) == 950 * GWEI, "95 seconds");
        vm.expectPartialRevert(IFeePool.EscrowEmpty.selector);
        claim(placed(slot), certificate);
        fund(10_000 * GWEI, 10 * GWEI);
        check(claim(placed(slot), certificate) == 1050 * GWEI, "the other 105");
    }

    function test_a_payer_ends_its_escrow_and_workers_have_time_to_claim() external {
        vm.startPrank(PAYER);
        vm.expectPartialRevert(IFeePool.NoFee.selector);
        pool.endJobFee(cluster, JOB);
        vm.expectPartialRevert(IFeePool.EmptyFee.selector);
        pool.fundJob{value: 1}(cluster, JOB, 0);
        vm.stopPrank();
        fund(1 ether, 2 * GWEI);
        vm.prank(PAYER);
        vm.expectPartialRevert(IFeePool.PriceLowered.selector);
        pool.fundJob{value: 1}(cluster, JOB, GWEI);
        (bytes32 certificate, uint64 slot) = place();
        vm.warp(block.timestamp + 50);
        vm.prank(PAYER);
        vm.expectPartialRevert(IFeePool.FeeNotFree.selector);
        pool.reclaimJobFee(cluster, JOB);
        vm.prank(PAYER);
        pool.endJobFee(cluster, JOB);
        vm.prank(PAYER);
        vm.expectPartialRevert(IFeePool.FeeEnds.selector);
        pool.endJobFee(cluster, JOB);
        vm.prank(PAYER);
        vm.expectPartialRevert(IFeePool.FeeEnds.selector);
        pool.fundJob{value: 1}(cluster, JOB, 2 * GWEI);
        vm.warp(block.timestamp + 7 days - 1);
        anchorState(placed(slot));
        vm.prank(PAYER);
        vm.expectPartialRevert(IFeePool.FeeNotFree.selector);
        pool.reclaimJobFee(cluster, JOB);
        check(claim(placed(slot), certificate) == 100 * GWEI, "up to the end");
        vm.warp(block.timestamp + 1);
        vm.prank(PAYER);
        uint256 rest = pool.reclaimJobFee(cluster, JOB);
        check(rest == 0.95 ether - 100 * GWEI && pool.owedTo(PAYER) == rest, "the rest");
        uint256 before = PAYER.balance;
        pool.withdraw(PAYER);
        check(PAYER.balance == before + rest, "paid");
        // A later fee pays for no time before it.
        fund(1 ether, 2 * GWEI);
        anchorState(placed(slot));
        vm.expectPartialRevert(IFeePool.NothingEarned.selector);
        claim(placed(slot), certificate);
    }
}
