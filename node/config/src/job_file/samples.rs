//! Commented job files to start from.

/// A service, with every key that can be used.
pub const SERVICE: &str = include_str!("../../samples/job.toml");
/// A batch job.
pub const BATCH: &str = include_str!("../../samples/job-batch.toml");
/// A periodic job.
pub const PERIODIC: &str = include_str!("../../samples/job-periodic.toml");
/// A system job.
pub const SYSTEM: &str = include_str!("../../samples/job-system.toml");
