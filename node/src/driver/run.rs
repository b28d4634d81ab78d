//! The thread that a machine lives on.

use std::sync::Arc;

use tokio::{runtime::Handle, sync::mpsc, sync::mpsc::error::TryRecvError};
use tokio_util::sync::CancellationToken;

use super::{
    Command, DriverConfig, DriverError, Effect, Ended, Inbound, Keeper, Machine, Millis, Ticket,
    Verdict, outbox::Outbox,
};

/// Messages taken before the next piece of work.
const BATCH: usize = 64;
/// Shortest sleep, should a machine name a time that has passed and stay with it.
const SHORTEST_SLEEP: Millis = 20;

pub(super) struct Thread<M: Machine, K> {
    pub(super) config: DriverConfig,
    pub(super) machine: M,
    pub(super) keeper: K,
    pub(super) incoming: mpsc::Receiver<Inbound>,
    pub(super) commands: mpsc::Receiver<Command<M>>,
    pub(super) outboxes: Vec<Arc<Outbox>>,
    pub(super) stop: CancellationToken,
    pub(super) runtime: Handle,
}

enum Wake<M> {
    Message(Option<Inbound>),
    Command(Command<M>),
    Time,
    Stop,
}

impl<M: Machine, K: Keeper<M>> Thread<M, K> {
    pub(super) fn run(mut self) -> Ended<M, K> {
        let error = self.serve().err();
        if let Some(error) = &error {
            tracing::error!(%error, "a machine stopped");
        }
        let Self { machine, keeper, .. } = self;
        Ended { machine, keeper, error }
    }

    fn serve(&mut self) -> Result<(), DriverError> {
        // A machine may have effects from its construction.
        self.carry_out_all()?;
        let mut links_open = true;
        while !self.stop.is_cancelled() {
            for _ in 0..BATCH {
                match self.incoming.try_recv() {
                    Ok(message) => self.take(message)?,
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
            self.keeper.observe(&self.machine, self.config.clock.now());
            if !more {
                self.sleep(links_open)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, (from, bytes): Inbound) -> Result<(), DriverError> {
        let now = self.config.clock.now();
        if let Verdict::Fault(reason) = self.machine.handle(from, &bytes, now) {
            tracing::warn!(participant = %from, reason, "a message was refused");
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
        let until = until.and_then(|at| self.config.clock.at(at));
        let Self { incoming, commands, stop, runtime, .. } = self;
        let wake = runtime.block_on(async {
            let timer = async {
                match until {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = incoming.recv(), if links_open => Wake::Message(message),
                Some(command) = commands.recv() => Wake::Command(command),
                () = timer => Wake::Time,
                () = stop.cancelled() => Wake::Stop,
            }
        });
        match wake {
            Wake::Message(Some(message)) => self.take(message),
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
                Effect::Persist(ticket, record) => {
                    let mut tickets = vec![ticket];
                    let mut records = vec![record];
                    loop {
                        match self.machine.poll_effect() {
                            Some(Effect::Persist(ticket, record)) => {
                                tickets.push(ticket);
                                records.push(record);
                            }
                            other => {
                                held = other;
                                break;
                            }
                        }
                    }
                    self.persist(&tickets, &records)?;
                }
                Effect::Send(to, bytes) => {
                    if let Some(outbox) = self.outboxes.iter().find(|outbox| outbox.to() == to) {
                        outbox.push(bytes);
                    }
                }
                Effect::Broadcast(bytes) => {
                    self.outboxes.iter().for_each(|outbox| outbox.push(Arc::clone(&bytes)));
                }
                Effect::Special(effect) => {
                    self.keeper.carry_out(effect, &self.machine).map_err(DriverError::Effect)?;
                }
            }
        }
        Ok(())
    }

    /// "`Persist` completes before any later effect."
    fn persist(&mut self, tickets: &[Ticket], records: &[M::Record]) -> Result<(), DriverError> {
        match self.keeper.persist(records) {
            Ok(()) => {
                tickets.iter().for_each(|ticket| self.machine.persisted(*ticket));
                Ok(())
            }
            Err(error) => {
                let mut goes_on = true;
                for ticket in tickets {
                    goes_on &= self.machine.persist_failed(*ticket);
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
