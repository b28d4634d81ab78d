//! Why a measurement gives no figure.

/// Any error that ends a measurement.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
