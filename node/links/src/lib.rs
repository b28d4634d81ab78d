//! Links: how a container reaches its operator's other jobs, wherever they run (`protocol-spec/links.md`).
//!
//! # Role
//! Stands between a container, which connects to a name and a number of its own, and the replicas of another job. It
//! knows neither engine nor network: whoever uses it says where replicas are and opens the way to one ([`Directory`]),
//! and has the kernel bring connections here.
//!
//! # Flow
//! 1. [`Listeners::listen`] gives a link of a container a port of this machine, which only the bridge of the
//!    container's own network reaches.
//! 2. As long as the link leads nowhere, because there is no such job, or none of its replicas has a place, or all of
//!    them have refused and are paused, nothing listens there: connections are refused at once, and
//!    [`Listeners::states`] says why.
//! 3. A connection goes to the replica whose turn it is ([`Choice`]), and to the next one if that refuses.
//! 4. On the worker that has the replica, [`answer`] reads who asks for what, has [`judge`] decide, and carries the
//!    bytes.
//!
//! # State and restart
//! None on disk. A container's addresses are its worker's to remember; which replicas are paused is learnt anew.
//!
//! # Caveats
//! A replica that breaks off a connection is not paused: what it says inside is its own.

mod choice;
mod frame;
mod judge;
mod listener;
mod stream;

pub use self::{
    choice::{Choice, Target},
    frame::{LinkFailure, answer, connect, state},
    judge::{Facts, Granted, judge},
    listener::{Directory, LinkOf, LinkState, Listeners, Nowhere},
    stream::Duplex,
};
