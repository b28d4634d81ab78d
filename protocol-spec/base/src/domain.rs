//! Every domain separator of the system.
//!
//! Each is a BLAKE3 `derive_key` context (hard-coded, globally unique, application-specific, as
//! BLAKE3 asks), used for one purpose only. A label is never reused across ceremonies, attempts or
//! purposes: the ids are part of the hashed input wherever a value belongs to one of them.

/// `blake3::Hasher::new_derive_key` over parts, each after its length: no two lists of parts
/// collide.
#[must_use]
pub fn hash_parts(domain: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(domain);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// The context after the version of what is hashed: 1 unless another is given.
macro_rules! separator {
    ($context:literal) => {
        concat!("veil v1 ", $context)
    };
    ($context:literal, $version:literal) => {
        concat!("veil v", $version, " ", $context)
    };
}

macro_rules! domains {
    ($($(#[$doc:meta])* $name:ident = $context:literal $(, $version:literal)?;)*) => {
        $($(#[$doc])* pub const $name: &str = separator!($context $(, $version)?);)*

        /// All of the above, for the test that no two are equal.
        pub const ALL: &[&str] = &[$($name),*];
    };
}

domains! {
    /// Digest of a ceremony's parameters and roster, the [`crate::CeremonyId`].
    CEREMONY_ID = "ceremony id";
    /// Chain, contract and cluster of a ceremony: `CeremonyParameters::context`.
    CEREMONY_CONTEXT = "ceremony context";
    /// Why an attempt was aborted, as recorded on chain.
    CEREMONY_ABORT = "ceremony abort";
    /// What must be equal for members to compute the same bytes.
    BUILD_FINGERPRINT = "build fingerprint";
    /// Checksum chain of a journal.
    JOURNAL_ENTRY = "journal entry";
    /// What a member signs of a ceremony message.
    CEREMONY_MESSAGE = "ceremony message";
    /// Digest of a signed ceremony message, as echoed.
    CEREMONY_ECHO = "ceremony echo";
    /// Everything a member draws in an attempt, from its persisted seed.
    CEREMONY_MEMBER_RNG = "ceremony member rng";
    /// Commitment to one 32-byte contribution to a correlated key.
    CONTRIBUTION_COMMITMENT = "contribution commitment";
    /// r_A from all contributions of the set.
    SET_KEY = "set key";
    /// k_G from all contributions of the noise group.
    NOISE_GROUP_KEY = "noise group key";
    /// k_G from all contributions of the zero group.
    ZERO_GROUP_KEY = "zero group key";
    /// H(r_A), broadcast to confirm that a set agrees.
    SET_KEY_CONFIRMATION = "set key confirmation";
    /// The part of r_A that is erased with the ceremony.
    SET_KEY_DKG = "set key dkg";
    /// The part of r_A that is kept for decryption.
    SET_KEY_DEC = "set key dec";
    /// PRF keys derived for one label.
    PRF_LABEL = "prf label";
    /// Commitment to a share of the public seed.
    PUBLIC_SEED_COMMITMENT = "public seed commitment";
    /// The public seed from all reveals.
    PUBLIC_SEED = "public seed";
    /// HPKE info string of private ceremony payloads.
    PRIVATE_CHANNEL = "private channel";
    /// Digest of a chunk of a share stream.
    CHUNK = "chunk";
    /// Seeds of the members of a reproducible simulation.
    SIMULATION = "simulation";
    /// Root over everything a ceremony attempt agreed on; what FINISH signs.
    TRANSCRIPT_ROOT = "transcript root";
    /// The public test ciphertext of a key set.
    TEST_CIPHERTEXT = "test ciphertext";
    /// Checksum of a stored key share.
    KEY_SHARE = "key share";
    /// What a backup of a key share is sealed for; its digest of everything that is not sealed.
    SHARE_BACKUP = "share backup";
    /// Digest of the key that a backup of a key share is sealed to.
    SHARE_BACKUP_RECIPIENT = "share backup recipient";
    /// The seed of that key, from what a passphrase is stretched to.
    SHARE_BACKUP_PASSPHRASE = "share backup passphrase";
    /// Checksum of the file of a backup.
    SHARE_BACKUP_FILE = "share backup file";
    /// Digest of a serialized key set.
    KEY_SET_DIGEST = "key set digest";
    /// Digest of an FHE parameter set.
    PARAMETERS_DIGEST = "parameters digest";
    /// Digest (a, b) of a squashed block: the PRF input of its flooding masks.
    SQUASHED_BLOCK = "squashed block";
    /// PRF keys for flooding masks.
    FLOODING = "flooding";
    /// Digest of the outputs a decryption is authorised for.
    DECRYPTION_REQUEST = "decryption request";
    /// What a member signs of a decryption message.
    DECRYPTION_MESSAGE = "decryption message";
    /// What a member signs of a FROST message.
    FROST_MESSAGE = "frost message";
    /// Digest of a `Telemetry` message.
    TELEMETRY = "telemetry";
    /// Digest of a `JobSpec`.
    JOB_SPEC = "job spec";
    /// What the versions of one job have in common, by its operator and its name.
    JOB_LINE = "job line";
    /// What the replicas of a job are made of, whatever their number.
    JOB_TEMPLATE = "job template";
    /// Digest of a job's body without its sealed part.
    PUBLIC_BODY = "public body";
    /// What a member's sealing key is derived with, from its key share.
    SEALING_KEY = "sealing key";
    /// What a member signs of its sealing key.
    SEALING_KEY_ANNOUNCEMENT = "sealing key announcement";
    /// Digest of a cluster's compact public key, as members state it.
    COMPACT_PUBLIC_KEY = "compact public key";
    /// Digest of the sealing keys that a job is sealed to.
    SEALING_ROSTER = "sealing roster";
    /// The second generator of commitments to shares of a sealed job's key.
    SHARE_GENERATOR = "share generator";
    /// Everything that a sealed part is bound to.
    SEALED_CONTEXT = "sealed context";
    /// The key of a sealed part, from the secret that is shared.
    SEALED_PART_KEY = "sealed part key";
    /// HPKE info string of a share as the operator encrypts it to a member.
    DEALT_SHARE = "dealt share";
    /// What a worker signs when it asks for a share.
    SHARE_REQUEST = "share request";
    /// HPKE info string of a share as a member encrypts it to a winner.
    RELEASED_SHARE = "released share";
    /// The key under which a worker keeps what it has opened, from its identity.
    KEPT_CONTENTS = "kept contents";
    /// What an operator's account signs, so that a key to seal one of its jobs with comes of it.
    SEALER_KEY = "sealer key";
    /// What an operator seals with, from that key.
    SEALING_RANDOMNESS = "sealing randomness";
    /// The seed of an encrypted request, from that key.
    REQUEST_SEED = "request seed";
    /// The tag that equal contents of one operator's job have.
    CONTENTS_TAG = "contents tag";
    /// Commits to the limits behind an encrypted request, and to the seed of its encryption.
    REQUEST_COMMITMENT = "request commitment";
    /// What an encrypted request is encrypted with, from the seed that winners learn.
    REQUEST_RANDOMNESS = "request randomness";
    /// Digest of a `Manifest`.
    MANIFEST = "manifest";
    /// The place of a worker in a list of a manifest that not all fit into.
    MANIFEST_RANK = "manifest rank";
    /// What tfhe's proof of a telemetry list binds.
    TELEMETRY_PROOF = "telemetry proof";
    /// What tfhe's proof of an encrypted request binds.
    REQUEST_PROOF = "request proof";
    /// What tfhe's proof of a policy's encrypted weights binds.
    WEIGHTS_PROOF = "weights proof";
    /// What tfhe's proof of an encrypted bid binds.
    BID_PROOF = "bid proof";
    /// Digest of a policy's encrypted weights.
    ENCRYPTED_WEIGHTS = "encrypted weights";
    /// Digest of the common reference string (CRS) of the proofs of encrypted lists.
    REFERENCE_STRING = "reference string";
    /// Digest of the powers that a reference string is made of.
    REFERENCE_STRING_POWERS = "reference string powers";
    /// Weights of the check that they are powers.
    REFERENCE_STRING_WEIGHTS = "reference string weights";
    /// A contributor's exponent and nonce.
    REFERENCE_STRING_SECRET = "reference string secret";
    /// What a contributor proves something about.
    REFERENCE_STRING_STATEMENT = "reference string statement";
    /// The challenge of its proof.
    REFERENCE_STRING_CHALLENGE = "reference string challenge";
    /// Session id and domain separators of the proofs made with a string.
    REFERENCE_STRING_LABELS = "reference string labels";
    /// Tells evaluation keys apart, by their compact public key.
    EVALUATION_KEY = "evaluation key";
    /// Fingerprint of the evaluation: what must be equal for two evaluators to get the same bits.
    CIRCUIT_FINGERPRINT = "circuit fingerprint";
    /// Digest of a circuit's encrypted outputs, before squashing.
    CIRCUIT_OUTPUTS = "circuit outputs";
    /// Digest of the outputs of all evaluations of a slot, if there are several.
    CIRCUIT_STEPS = "circuit steps";
    /// What a slot has evaluated and opened so far.
    OPENED_STEPS = "opened steps";
    /// Stands for them where a slot has no workers, and so nothing was evaluated.
    NO_OUTPUTS = "no outputs";
    /// The order in which equally good workers are preferred for one replica.
    TIE_BREAK = "tie break";
    /// What a member signs when it considers a worker lost.
    WORKER_SUSPICION = "worker suspicion", 2;
    /// The part of topic and protocol names that stands for one cluster.
    NETWORK_SCOPE = "network scope";
    /// What a peer signs of its record in the membership: key, generation, addresses.
    MEMBER_RECORD = "member record";
    /// Keccak-256 of it is the first word of what a certificate's signature covers.
    ASSIGNMENT_CERTIFICATE = "assignment certificate", 2;
    /// Keccak-256 of it is the first word of a leaf of the assignment tree.
    ASSIGNMENT_LEAF = "assignment leaf";
    /// Keccak-256 of it is the first word of a leaf of an image's tree.
    IMAGE_LEAF = "image leaf";
    /// Keccak-256 of it is the first word of what an election's seed is the hash of.
    ELECTION = "election";
    /// Keccak-256 of it is the first word of a replica's leaf of the state tree.
    STATE_REPLICA_LEAF = "state replica leaf", 2;
    /// Keccak-256 of it is the first word of the commitment that hides a replica's worker.
    HIDDEN_WORKER = "hidden worker";
    /// Keccak-256 of it is the first word of a worker's leaf of the state tree.
    STATE_WORKER_LEAF = "state worker leaf";
    /// Keccak-256 of it is the first word of a lost worker's leaf of the state tree.
    STATE_LOST_LEAF = "state lost worker leaf";
    /// Keccak-256 of it is the first word of the leaf of the state tree that says how a replica has ended.
    STATE_EXIT_LEAF = "state exit leaf";
    /// Keccak-256 of it is the first word of the leaf of the state tree that commits to what was tried.
    STATE_TRIES_LEAF = "state tries leaf";
    /// Keccak-256 of it is the first word of the leaf of the state tree that commits to what was given back.
    STATE_RETURNED_LEAF = "state returned leaf";
    /// Keccak-256 of it is the first word of the leaf of the state tree that commits to versions of jobs.
    STATE_ROLLOUTS_LEAF = "state rollouts leaf";
    /// Keccak-256 of it is the first word of the leaf of the state tree that commits to the times of periodic jobs.
    STATE_RUNS_LEAF = "state runs leaf";
    /// Keccak-256 of it is the first word of the leaf of the state tree that says what happened before.
    STATE_HISTORY_LEAF = "state history leaf";
    /// Whose turn it is when there is not room for all that wants a place.
    FAIR_SHARE = "fair share";
    /// What an evaluator signs of its result.
    EVALUATION_REPORT = "evaluation report";
    /// The place of a worker among those that may be drawn as auditors of a slot.
    AUDITOR_RANK = "auditor rank";
    /// What a member signs to vote in the agreement, votes that make a lock excepted.
    AGREEMENT_VOTE = "agreement vote";
    /// What a member signs to precommit to a value: a vote of the instance's lock.
    AGREEMENT_LOCK = "agreement lock";
    /// What a proposer signs of its proposal.
    AGREEMENT_PROPOSAL = "agreement proposal";
    /// Digest of a `SlotEnd`.
    SLOT_END = "slot end";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_separators_are_equal() {
        assert_eq!(ALL.iter().collect::<HashSet<_>>().len(), ALL.len());
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(hash_parts(CHUNK, &[b"ab", b"c"]), hash_parts(CHUNK, &[b"a", b"bc"]));
        assert_ne!(hash_parts(CHUNK, &[b"ab"]), hash_parts(SET_KEY, &[b"ab"]));
    }
}
