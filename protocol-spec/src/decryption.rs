//! decryption
