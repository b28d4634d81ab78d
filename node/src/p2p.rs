//! The peer-to-peer network.
