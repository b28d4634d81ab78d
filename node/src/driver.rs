//! Runs any machine of the protocol crates over the network.
