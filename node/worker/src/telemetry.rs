//! What a worker measures of its host.
//!
//! # Flow
//! 1. The executor says what the worker's own containers hold ([`Held`](veil_node_containers::Held)).
//! 2. [`Sampler::sample`] reads the host, leaves out what is held, caps it by the operator's
//!    [`Offer`](veil_node_config::offer::Offer), and rounds down to the coarse units in which placement is computed.
//! 3. The [`Sample`] is encrypted at once; nothing else may see it.
//!
//! # What counts as free
//! For CPU, memory and disk: what is offered less what is reserved, and never more than what the
//! host has left when every replica uses all that is reserved for it:
//! `total - kept back - used by others - reserved`. Used by others is what the host uses beyond the
//! worker's own containers, so that a busy replica is not counted twice.
//!
//! CPU load is the average since the previous sample, and half of the figure is the figure before:
//! a burst moves it, but does not decide it. The load of this process is left out; the part that the
//! offer keeps back is for it.
//!
//! While the engine does not say which containers there are, nothing is free.
//!
//! # Caveats
//! - The figures are the host's, not those of the worker's own control group: containers are the
//!   engine's children, not the worker's.
//! - Disk counts replicas' files as used by others and as reserved, so it errs on the low side.
//! - GPUs are counted, as the driver lists them; how busy they are is not looked at.

mod free;
mod gpus;
mod sampler;

pub(crate) use self::gpus::Gpus;
pub use self::sampler::{Sample, Sampler, SecretReading, Unreadable};
