// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAssignmentAnchor} from "../src/interfaces/IAssignmentAnchor.sol";
import {IDisputes} from "../src/interfaces/IDisputes.sol";
import {Works} from "./Works.sol";

/// @dev Deposits, anchors, confirms, funds, claims, ends, reclaims, withdraws and slashes, in any order, with time
/// passing. The anchoring stranger, the worker's operator, two payers and the reporter are accounts of their own; a
/// second cluster does nothing, and must lose nothing.
contract FeeHandler is Works {
    address private constant OTHER = address(0x0333);
    uint256 private constant OTHERS = 3 ether;
    bytes32 private idle;
    bytes32 private certificate;
    uint64 private slot;
    uint256 private confirmedAt;
    /// @dev What came into the contract, and left it.
    uint256 public paidIn;
    uint256 public paidOut;
    /// @dev Seconds that one payer has paid for the confirmed replica.
    mapping(address payer => uint256) private seconds_;
    string public violation;
    mapping(bytes32 what => uint256) public done;
    uint256 public successes;

    function setUp() public override {
        super.setUp();
        idle = registry.registerCluster("idle", settings());
        pool.deposit{value: OTHERS}(idle);
        paidIn = OTHERS;
        vm.deal(OTHER, 1000 ether);
        for (uint256 i = 1; i <= 3; ++i) {
            // The committee's stake is the test's.
            registry.increaseStake{value: 10 ether}(cluster, peerOf(i));
        }
    }

    function did(bytes32 what) private {
        ++done[what];
        ++successes;
    }

    function payerOf(uint256 i) private pure returns (address) {
        return i % 2 == 0 ? PAYER : OTHER;
    }

    function deposit(uint256 amount) external {
        amount = amount % 0.01 ether + 1;
        pool.deposit{value: amount}(cluster);
        paidIn += amount;
        did("deposit");
    }

    /// @param what 0 assigns the replica anew, 1 leaves it out of the state, others keep it.
    function anchor(uint256 time, uint256 what) external {
        vm.warp(block.timestamp + time % 2 hours);
        uint256 before = pool.poolOf(cluster).balance;
        uint256 owed = pool.owedTo(STRANGER);
        bool soon = block.timestamp < uint256(pool.poolOf(cluster).refundedAt) + 60;
        if (what % 8 == 0) {
            IAssignmentAnchor.Certificate memory c = next();
            c.assignmentsRoot = anchors.leafOf(assignment(0));
            anchorBy(STRANGER, c);
            (certificate, slot, confirmedAt) = (headIs, c.slot, 0);
            (seconds_[PAYER], seconds_[OTHER]) = (0, 0);
        } else {
            IAssignmentAnchor.Certificate memory c = next();
            if (what % 8 != 1) c.stateRoot = anchors.replicaLeafOf(placed(slot));
            anchorBy(STRANGER, c);
        }
        uint256 amount = pool.owedTo(STRANGER) - owed;
        if (amount != before - pool.poolOf(cluster).balance) violation = "not of the pool";
        if (amount > 120_000 * pool.PRICE()) violation = "more than a step costs";
        if (soon && amount != 0) violation = "refunded too often";
        did("anchor");
    }

    function confirm() external {
        if (headIs == 0 || certificate != headIs || confirmedAt != 0) return;
        IAssignmentAnchor.Certificate[] memory chain = new IAssignmentAnchor.Certificate[](1);
        chain[0] = head;
        vm.prank(OWNER);
        pool.confirmDeployment(chain, assignment(0), new bytes32[](0));
        confirmedAt = block.timestamp;
        did("confirm");
    }

    function fundJob(uint256 who, uint256 amount, uint64 price) external {
        amount = amount % 0.01 ether + 1;
        vm.prank(payerOf(who));
        try pool.fundJob{value: amount}(cluster, JOB, price % 1000 gwei + 1) {
            paidIn += amount;
            did("fund");
        } catch {}
    }

    function endFee(uint256 who) external {
        vm.prank(payerOf(who));
        try pool.endJobFee(cluster, JOB) {
            did("end");
        } catch {}
    }

    function reclaim(uint256 who, uint256 time) external {
        vm.warp(block.timestamp + time % 8 days);
        uint256 endsAt = pool.escrowOf(cluster, JOB, payerOf(who)).endsAt;
        vm.prank(payerOf(who));
        try pool.reclaimJobFee(cluster, JOB) {
            if (block.timestamp < endsAt + 7 days) violation = "workers had no time to claim";
            did("reclaim");
        } catch {}
    }

    function claimWork(uint256 who) external {
        address payer = payerOf(who);
        uint64 price = pool.escrowOf(cluster, JOB, payer).price;
        uint256 time = anchors.anchoredAt(cluster, headIs);
        try pool.claim(head, placed(slot), new bytes32[](0), certificate, payer) returns (
            uint256 amount
        ) {
            if (confirmedAt == 0) violation = "paid without a confirmation";
            seconds_[payer] += amount / price;
            if (amount % price != 0) violation = "a part of a second";
            if (seconds_[payer] > time - confirmedAt) violation = "a second paid twice";
            did("claim");
        } catch {}
    }

    function withdraw(uint256 who) external {
        address[4] memory all = [STRANGER, OWNER, PAYER, OTHER];
        address to = all[who % 4];
        uint256 owed = pool.owedTo(to);
        uint256 before = to.balance;
        try pool.withdraw(to) {
            if (to.balance - before != owed) violation = "another amount";
            paidOut += owed;
            did("withdraw");
        } catch {}
    }

    /// @dev What is slashed comes into the pool.
    function slash(uint256 who, uint64 inSlot) external {
        uint256 secret = who % 3 + 1;
        bytes32 kind = keccak256(
            "CertificateVote(bytes32 cluster,uint64 epoch,uint64 slot,bytes32 certificate)"
        );
        IDisputes.Vote memory vote = IDisputes.Vote(cluster, 0, inSlot, "a");
        bytes32 a =
            typedDigest(keccak256(abi.encode(kind, cluster, uint64(0), inSlot, bytes32("a"))));
        bytes32 b =
            typedDigest(keccak256(abi.encode(kind, cluster, uint64(0), inSlot, bytes32("b"))));
        uint256 before = address(pool).balance;
        try disputes.reportEquivocation(
            vote, "b", identityKey(secret), compact(secret, a), compact(secret, b)
        ) {
            paidIn += address(pool).balance - before;
            did("slash");
        } catch {}
    }

    /// @dev It holds what it owes to somebody, no more and no less.
    function checkSolvency() external view {
        uint256 sum = pool.poolOf(cluster).balance + pool.poolOf(idle).balance;
        sum += pool.escrowOf(cluster, JOB, PAYER).balance;
        sum += pool.escrowOf(cluster, JOB, OTHER).balance;
        sum += pool.owedTo(STRANGER) + pool.owedTo(OWNER) + pool.owedTo(PAYER) + pool.owedTo(OTHER);
        check(pool.owedTo(address(this)) == 0, "who pays in is owed nothing");
        check(address(pool).balance == sum, "solvent");
        check(paidIn - paidOut == sum, "what came in is there or was paid");
        check(pool.poolOf(idle).balance == OTHERS, "another cluster's");
        check(bytes(violation).length == 0, violation);
    }
}

contract FeeInvariantsTest {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    FeeHandler private handler;

    function setUp() external {
        handler = new FeeHandler();
        (bool sent,) = address(handler).call{value: 1000 ether}("");
        require(sent, "not sent");
        handler.setUp();
    }

    function targetSelectors() external view returns (FuzzSelector[] memory list) {
        list = new FuzzSelector[](1);
        list[0].addr = address(handler);
        list[0].selectors = new bytes4[](9);
        list[0].selectors[0] = FeeHandler.deposit.selector;
        list[0].selectors[1] = FeeHandler.anchor.selector;
        list[0].selectors[2] = FeeHandler.confirm.selector;
        list[0].selectors[3] = FeeHandler.fundJob.selector;
        list[0].selectors[4] = FeeHandler.endFee.selector;
        list[0].selectors[5] = FeeHandler.reclaim.selector;
        list[0].selectors[6] = FeeHandler.claimWork.selector;
        list[0].selectors[7] = FeeHandler.withdraw.selector;
        list[0].selectors[8] = FeeHandler.slash.selector;
    }

    function targetContracts() external view returns (address[] memory list) {
        list = new address[](1);
        list[0] = address(handler);
    }

    function invariant_the_pool_is_solvent() external view {
        handler.checkSolvency();
    }

    function afterInvariant() external view {
        require(handler.successes() >= 8, "too few calls succeed");
    }

    /// @dev The handler does all of it: an invariant over nothing would always hold.
    function test_the_handler_does_everything() external {
        for (uint256 i = 0; i < 6; ++i) {
            handler.deposit(i);
            handler.fundJob(i, 1e15, 1);
            handler.anchor(61, 0);
            handler.confirm();
            handler.anchor(600, 2);
            handler.claimWork(i);
            handler.slash(i, uint64(i));
            handler.endFee(i);
            if (i > 1) handler.reclaim(i, 8 days - 1);
            handler.withdraw(i);
            handler.checkSolvency();
        }
        bytes32[9] memory all = [
            bytes32("deposit"),
            "anchor",
            "confirm",
            "fund",
            "end",
            "reclaim",
            "claim",
            "withdraw",
            "slash"
        ];
        for (uint256 i = 0; i < all.length; ++i) {
            require(handler.done(all[i]) > 1, string(abi.encodePacked(all[i])));
        }
    }
}
