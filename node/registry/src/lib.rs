//! Registries of images: what an image consists of, and who has signed it.
//!
//! Registries speak the OCI distribution protocol. Images are signed as cosign and Podman do it with a key:
//! beside the image lies another one under the tag `sha256-<digest>.sig`, each of whose layers is a "simple
//! signing" payload that names the image's digest, and whose annotation is its signature, here by ECDSA with
//! P-256 and SHA-256.
//!
//! # What a worker checks of an image that its cluster allows
//! 1. What the registry serves under the digest has the digest.
//! 2. Its configuration, its layers and the signature that the chain names are, in this order, the parts under
//!    the root that the chain has ([`ImageParts`](veil_protocol_spec::scheduling::ImageParts)).
//! 3. If the policy asks for signatures: the registry serves that very signature, one of the worker's keys has
//!    made it, and what is signed names the image's digest.
//!
//! A registry is believed nothing: what it serves meets a limit of size first, and what asking again cannot
//! change is final ([`RegistryError::is_final`]). It is asked anonymously first, as engines do; where it wants to know who asks,
//! with the credentials of [`Registry::check`] and [`Registry::resolve_as`], if they are given.
//! The check is [`Registry::check`]; who allows an image finds with [`Registry::manifest`], [`parts`] and
//! [`Registry::signature_by`] what the chain is told.

mod client;
mod error;
mod key;
mod manifest;
mod signature;

pub use client::{FindLogin, Registry};
pub use error::RegistryError;
pub use key::{ImageKey, KeyError};
pub use manifest::parts;
