//! The FHE circuits every evaluator runs bit-identically, and their cleartext twin.
