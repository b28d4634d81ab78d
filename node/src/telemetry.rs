//! What a worker measures of its host.
