// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Directory of the contracts in force
/// @notice The one address that operators configure. It never changes, while the contracts that it
/// names may be replaced by its owner, the timelock; every set that was ever in force stays readable.
/// The contracts of a set work with one another for good: a new set takes new clusters and new stake, and
/// has no power over those of the sets before it.
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
    /// @notice The contract was deployed for another set of this directory than the next one.
    error OtherSet(bytes32 name, uint64 version, uint64 next);
    /// @notice The contract has another interface than the directory.
    error OtherInterface(bytes32 name, uint16 version, uint16 expected);
    /// @notice The set lacks a contract of this name.
    error IncompleteSet(bytes32 name);
    /// @notice The last pause is not `COOL_DOWN` over; one may begin at `from` (Unix time).
    error PauseTooSoon(uint64 from);
    /// @notice Only the owner, or for the first set who deployed the directory.
    error NotPublisher(address caller);
    /// @notice Only the guardian or the owner.
    error NotGuardian(address caller);

    /// @notice Puts a new set in force: all contracts that nodes use, deployed for it. The owner; the first set,
    /// who deployed the directory.
    function publish(Entry[] calldata entries) external returns (uint64 version);

    /// @notice Names the guardian; zero for none. Owner only.
    function setGuardian(address guardian) external;

    /// @notice Pauses new work for `PAUSE`, counted from now, and not again until `COOL_DOWN` after that. The
    /// guardian or the owner.
    function pause() external;

    /// @notice Ends the pause. The guardian or the owner.
    function unpause() external;

    /// @notice New work is paused while this second (Unix time) is not past.
    function pausedUntil() external view returns (uint64);

    /// @notice From when (Unix time) new work may be paused again.
    function pausableFrom() external view returns (uint64);

    /// @notice Who may pause.
    function guardian() external view returns (address);

    /// @notice Version of the set in force; 0 before the first.
    function currentVersion() external view returns (uint64);

    /// @notice The contracts of a version, in the order in which they were published.
    function setAt(uint64 version) external view returns (Entry[] memory);

    /// @notice The contract of this name in the set in force.
    function contractOf(bytes32 name) external view returns (address);

    /// @notice The contract of this name in the set of a version.
    function contractAt(uint64 version, bytes32 name) external view returns (address);

    /// @notice Version of this interface.
    function interfaceVersion() external view returns (uint16);
}
