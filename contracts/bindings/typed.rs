//! What is signed as EIP-712 typed data. The contracts have the same type strings.

#![allow(missing_docs, reason = "the fields are documented in contracts/src/interfaces")]

alloy::sol! {
    /// By an identity, to be registered as a node.
    #[derive(Debug, PartialEq, Eq)]
    struct NodeRegistration {
        bytes32 cluster;
        bytes32 peer;
        address operator;
        uint8 roles;
        bytes32 organisation;
        string labels;
        uint32 nonce;
    }

    /// By the identity of each member, to publish a key.
    #[derive(Debug, PartialEq, Eq)]
    struct KeyPublication {
        bytes32 cluster;
        uint64 epoch;
        uint32 attempt;
        uint256 groupKeyX;
        uint256 groupKeyY;
        bytes32 verifyingSharesRoot;
        bytes32 fheKeyDigest;
        bytes32 transcriptRoot;
        bytes32 referenceStringDigest;
        uint8 referenceStringOrigin;
    }

    /// By the new group (FROST), over the hash of the publication.
    #[derive(Debug, PartialEq, Eq)]
    struct KeyPossession {
        bytes32 publication;
    }

    /// By the group before (FROST), over the hash of the publication and of the last certificate anchored.
    #[derive(Debug, PartialEq, Eq)]
    struct KeyHandover {
        bytes32 publication;
        bytes32 lastCertificate;
    }

    /// By the identity of a member, to abort an attempt.
    #[derive(Debug, PartialEq, Eq)]
    struct CeremonyAbort {
        bytes32 cluster;
        uint64 epoch;
        uint32 attempt;
        bytes32 reason;
    }

    /// By the identity of a member, that another one was absent from an attempt.
    #[derive(Debug, PartialEq, Eq)]
    struct MemberAbsence {
        bytes32 cluster;
        uint64 epoch;
        uint32 attempt;
        uint8 seat;
    }

    /// By the identity of a member, for the only certificate of a slot that it helps to sign.
    #[derive(Debug, PartialEq, Eq)]
    struct CertificateVote {
        bytes32 cluster;
        uint64 epoch;
        uint64 slot;
        bytes32 certificate;
    }

    /// By the identity of a member, for its share of a FROST signature.
    #[derive(Debug, PartialEq, Eq)]
    struct FrostShare {
        bytes32 cluster;
        uint64 epoch;
        bytes32 message;
        uint16 signers;
        uint256 groupCommitmentX;
        uint256 groupCommitmentY;
        uint256 commitmentX;
        uint256 commitmentY;
        uint256 share;
    }

    /// By an account, to log in at the node that shows a certificate, for itself or for the operator whose
    /// delegate it is; no contract checks it.
    #[derive(Debug, PartialEq, Eq)]
    struct ApiLogin {
        bytes32 cluster;
        bytes32 certificate;
        address account;
        address operator;
        bytes32 challenge;
        uint64 expires;
    }

    /// By an account, to reach a replica of a job on a worker, in the session of which `client` is one end; for itself,
    /// or for the operator whose delegate it is. No contract checks it.
    #[derive(Debug, PartialEq, Eq)]
    struct ReachRequest {
        bytes32 cluster;
        bytes32 worker;
        bytes32 client;
        address account;
        address operator;
        bytes32 job;
        uint16 replica;
        string action;
        bytes32 details;
        uint64 expires;
    }

    /// Leaf of the tree over a group's verifying shares.
    #[derive(Debug, PartialEq, Eq)]
    struct VerifyingShare {
        uint8 index;
        uint256 x;
        uint256 y;
    }
}
