// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Multisig} from "./Multisig.sol";
import {Vm} from "./Vm.sol";

contract MultisigTest {
    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    Multisig private _account;

    function setUp() public {
        _account = new Multisig([address(0xa1), address(0xa2), address(0xa3)]);
    }

    function test_two_of_three_decide_and_no_one_alone() public {
        bytes memory data = abi.encodeCall(_account.nonce, ());
        vm.prank(address(0xa1));
        _account.agree(address(_account), 0, data);
        vm.prank(address(0xa1));
        vm.expectRevert(abi.encodeWithSelector(Multisig.TooFew.selector, 1));
        _account.execute(address(_account), 0, data);
        vm.expectRevert(abi.encodeWithSelector(Multisig.NotOwner.selector, address(this)));
        _account.agree(address(_account), 0, data);
        vm.prank(address(0xa2));
        _account.agree(address(_account), 0, data);
        vm.prank(address(0xa3));
        _account.execute(address(_account), 0, data);
        assert(_account.nonce() == 1);
        // What was agreed is used up.
        vm.prank(address(0xa3));
        vm.expectRevert(abi.encodeWithSelector(Multisig.TooFew.selector, 0));
        _account.execute(address(_account), 0, data);
    }
}
