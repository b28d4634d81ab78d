// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Directory of the contracts in force
/// @notice The one address that operators configure. It never changes, while the contracts that it
/// names may be replaced by its owner, the timelock; every set that was ever in force stays readable.
/// Its guardian may pause new work (jobs, elections, ceremonies) for a while, and nothing
/// else: nodes can always leave, stake can always be withdrawn or slashed, and certificates anchored.
interface IDirectory {
    /// @notice One contract of the set.
    struct Entry {
        /// Its name in ASCII, padded with zeros: "NodeRegistry".
        bytes32 name;
        /// Where it is.
        address location;
    }

    /// @notice A new set is in force.
    event SetPublished(uint64 indexed version, Entry[] entries);

    /// @notice Who may pause.
    event GuardianChanged(address guardian);
    /// @notice New work is paused until this second (Unix time); 0 if no longer.
    event PauseChanged(address indexed by, uint64 until);

    /// @notice No set was published yet, or not so many.
    error UnknownVersion(uint64 version);
    /// @notice The set has no contract of this name.
    error UnknownContract(bytes32 name);
    /// @notice Two entries of one name.
    error DuplicateName(bytes32 name);
    /// @notice There is no contract at this address, or it was deployed for another directory.
    error ForeignContract(bytes32 name, address location);
    /// @notice A set without contracts.
    error EmptySet();
    /// @notice Only the owner, or for the first set who deployed the directory.
    error NotPublisher(address caller);
    /// @notice Only the guardian or the owner.
    error NotGuardian(address caller);

    /// @notice Puts a new set in force. The owner; the first set, who deployed the directory.
    function publish(Entry[] calldata entries) external returns (uint64 version);

    /// @notice Names the guardian; zero for none. Owner only.
    function setGuardian(address guardian) external;

    /// @notice Pauses new work for `PAUSE`, counted from now. The guardian or the owner.
    function pause() external;

    /// @notice Ends the pause. The guardian or the owner.
    function unpause() external;

    /// @notice New work is paused while this second (Unix time) is not past.
    function pausedUntil() external view returns (uint64);

    /// @notice Who may pause.
    function guardian() external view returns (address);

    /// @notice Version of the set in force; 0 before the first.
    function currentVersion() external view returns (uint64);

    /// @notice The contracts of a version, in the order in which they were published.
    function setAt(uint64 version) external view returns (Entry[] memory);

    /// @notice The contract of this name in the set in force.
    function contractOf(bytes32 name) external view returns (address);

    /// @notice Version of this interface.
    function interfaceVersion() external view returns (uint16);
}
