//! How much is read, and made of it.

/// Longest file that is read.
pub const MAX_BYTES: usize = 1 << 20;

/// Most jobs of one file: as many versions as a cluster remembers for one operator.
pub const MAX_JOBS: usize = 256;
/// Levels of lists and maps. Kubernetes' deepest objects have about 15.
pub const MAX_DEPTH: usize = 64;
/// Values and keys of a file, aliases written out. The largest file that is read has fewer of its own.
pub const MAX_NODES: usize = 200_000;
/// Bytes of all texts, aliases written out.
pub const MAX_TEXT: usize = 8 << 20;
