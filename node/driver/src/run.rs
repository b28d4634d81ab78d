//! The thread that a machine lives on.

use std::{fmt, sync::Arc};

use tokio::{
    runtime::Handle,
    sync::mpsc::{self, error::TryRecvError},
};
use tokio_util::sync::CancellationToken;
use veil_committee_machine::{Effect, Machine, Millis, PersistId, Verdict};

use crate::{
    config::DriverConfig, error::DriverError, host::Host, outbox::Outbox, transport::Inbound,
};

/// Messages taken before the next piece of work.
const BATCH: usize = 64;
/// Shortest sleep, should a machine name a time that has passed and stay with it.
const SHORTEST_SLEEP: Millis = 20;

/// What runs on the machine's thread between its inputs.
pub(crate) type Command<M> = Box<dyn FnOnce(&mut M, Millis) + Send>;

/// What is left when a driver has ended.
pub struct Ended<M, H> {
    /// The machine as it was.
    pub machine: M,
    /// Its host, with what it has stored.
    pub host: H,
    /// Why it ended, if nobody told it to.
    pub error: Option<DriverError>,
}

impl<M, H> fmt::Debug for Ended<M, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ended").field("error", &self.error).finish_non_exhaustive()
    }
}

pub(crate) struct Thread<M: Machine, H> {
    pub(crate) config: DriverConfig,
    pub(crate) machine: M,
    pub(crate) host: H,
    pub(crate) incoming: mpsc::Receiver<Inbound>,
    pub(crate) commands: mpsc::Receiver<Command<M>>,
    pub(crate) outboxes: Vec<Arc<Outbox>>,
    pub(crate) stop: CancellationToken,
    pub(crate) runtime: Handle,
}

enum Wake<M> {
    Message(Option<Inbound>),
    Command(Command<M>),
    Time,
    Stop,
}

impl<M: Machine, H: Host<M>> Thread<M, H> {
    pub(crate) fn run(mut self) -> Ended<M, H> {
        let error = self.serve().err();
        if let Some(error) = &error {
            tracing::error!(%error, "a machine stopped");
        }
        let Self { machine, host, .. } = self;
        Ended { machine, host, error }
    }

    fn serve(&mut self) -> Result<(), DriverError> {
        // A machine may have effects from its construction.
        self.carry_out_all()?;
        let mut links_open = true;
        while !self.stop.is_cancelled() {
            for _ in 0..BATCH {
                match self.incoming.try_recv() {
                    Ok(message) => self.accept(message)?,
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        links_open = false;
                        break;
                    }
                }
            }
            while let Ok(command) = self.commands.try_recv() {
                command(&mut self.machine, self.config.clock.now());
                self.carry_out_all()?;
            }
            self.timeout()?;
            let more = self.machine.work(self.config.clock.now());
            self.carry_out_all()?;
            self.host.observe(&self.machine, self.config.clock.now());
            if !more {
                self.sleep(links_open)?;
            }
        }
        Ok(())
    }

    fn accept(&mut self, (from, bytes): Inbound) -> Result<(), DriverError> {
        let now = self.config.clock.now();
        match self.machine.handle(from, &bytes, now) {
            Verdict::Valid => {}
            Verdict::Skip(reason) => {
                tracing::trace!(participant = %from, ?reason, "a message was left aside");
            }
            Verdict::Fault(reason) => {
                tracing::warn!(participant = %from, %reason, "a message was refused");
                self.host.faulted(reason);
            }
        }
        self.carry_out_all()
    }

    fn timeout(&mut self) -> Result<(), DriverError> {
        let now = self.config.clock.now();
        if self.machine.poll_timeout().is_some_and(|at| now >= at) {
            self.machine.handle_timeout(now);
            self.carry_out_all()?;
        }
        Ok(())
    }

    /// Waits for whatever comes first.
    fn sleep(&mut self, links_open: bool) -> Result<(), DriverError> {
        let earliest = self.config.clock.now() + SHORTEST_SLEEP;
        let until = self.machine.poll_timeout().map(|at| at.max(earliest));
        let clock = self.config.clock;
        let Self { incoming, commands, stop, runtime, .. } = self;
        let wake = runtime.block_on(async {
            tokio::select! {
                message = incoming.recv(), if links_open => Wake::Message(message),
                Some(command) = commands.recv() => Wake::Command(command),
                () = clock.reach(until) => Wake::Time,
                () = stop.cancelled() => Wake::Stop,
            }
        });
        match wake {
            Wake::Message(Some(message)) => self.accept(message),
            Wake::Command(command) => {
                command(&mut self.machine, self.config.clock.now());
                self.carry_out_all()
            }
            Wake::Message(None) | Wake::Time | Wake::Stop => Ok(()),
        }
    }

    fn carry_out_all(&mut self) -> Result<(), DriverError> {
        let mut held = None;
        while let Some(effect) = held.take().or_else(|| self.machine.poll_effect()) {
            match effect {
                Effect::Persist { id, record } => {
                    let mut ids = vec![id];
                    let mut records = vec![record];
                    loop {
                        match self.machine.poll_effect() {
                            Some(Effect::Persist { id, record }) => {
                                ids.push(id);
                                records.push(record);
                            }
                            other => {
                                held = other;
                                break;
                            }
                        }
                    }
                    self.persist(&ids, &records)?;
                }
                Effect::Send { to, bytes } => {
                    if let Some(outbox) = self.outboxes.iter().find(|outbox| outbox.to() == to) {
                        outbox.push(bytes);
                    }
                }
                Effect::Broadcast(bytes) => {
                    self.outboxes.iter().for_each(|outbox| outbox.push(Arc::clone(&bytes)));
                }
                Effect::Special(effect) => {
                    self.host.carry_out(effect, &self.machine).map_err(DriverError::Effect)?;
                }
            }
        }
        Ok(())
    }

    /// "`Persist` completes before any later effect."
    fn persist(&mut self, ids: &[PersistId], records: &[M::Record]) -> Result<(), DriverError> {
        match self.host.persist(records) {
            Ok(()) => {
                ids.iter().for_each(|id| self.machine.persisted(*id));
                Ok(())
            }
            Err(error) => {
                let mut goes_on = true;
                for id in ids {
                    goes_on &= self.machine.persist_failed(*id);
                }
                if !goes_on {
                    return Err(DriverError::Persist(error));
                }
                tracing::error!(%error, "a record could not be stored; what depends on it is not sent");
                Ok(())
            }
        }
    }
}
