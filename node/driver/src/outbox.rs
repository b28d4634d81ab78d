//! Outgoing messages: a bounded queue for each participant, a few messages of it in flight.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use backon::{ExponentialBuilder, Retryable};
use tokio::{
    sync::Notify,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use veil_protocol_spec::ParticipantIndex;

use crate::{
    config::{DriverConfig, QueueLimits},
    transport::{AnyTransport, Transport, TransportError},
};

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Arc<[u8]>>,
    bytes: usize,
}

/// The queue for one participant.
pub(crate) struct Outbox {
    to: ParticipantIndex,
    limits: QueueLimits,
    queue: Mutex<Queue>,
    more: Notify,
    dropped: Arc<AtomicU64>,
}

impl Outbox {
    pub(crate) const fn to(&self) -> ParticipantIndex {
        self.to
    }

    /// Queues a message, unless the same one waits already.
    pub(crate) fn push(&self, bytes: Arc<[u8]>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.waiting.contains(&bytes) {
            return;
        }
        while !queue.waiting.is_empty()
            && (queue.bytes + bytes.len() > self.limits.bytes
                || queue.waiting.len() >= self.limits.messages)
        {
            if let Some(oldest) = queue.waiting.pop_front() {
                queue.bytes -= oldest.len();
                let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
                tracing::debug!(to = %self.to, dropped, "queue full: the oldest message is dropped");
            }
        }
        queue.bytes += bytes.len();
        queue.waiting.push_back(bytes);
        drop(queue);
        self.more.notify_one();
    }

    fn pop(&self) -> Option<Arc<[u8]>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = queue.waiting.pop_front()?;
        queue.bytes -= bytes.len();
        Some(bytes)
    }

    async fn deliver(self: Arc<Self>, transport: AnyTransport, drain: CancellationToken) {
        let mut in_flight = JoinSet::new();
        loop {
            while in_flight.len() < self.limits.in_flight
                && let Some(bytes) = self.pop()
            {
                in_flight.spawn(send(transport.clone(), self.to, bytes, self.limits));
            }
            let idle = in_flight.is_empty();
            if idle && drain.is_cancelled() {
                return;
            }
            tokio::select! {
                _ = in_flight.join_next(), if !idle => {}
                () = self.more.notified() => {}
                () = drain.cancelled(), if idle => {}
            }
        }
    }
}

async fn send(
    transport: AnyTransport,
    to: ParticipantIndex,
    bytes: Arc<[u8]>,
    limits: QueueLimits,
) {
    let backoff = ExponentialBuilder::default()
        .with_min_delay(limits.pause)
        .with_max_times(limits.retries)
        .with_jitter();
    let sent = (|| transport.send(to, Arc::clone(&bytes)))
        .retry(backoff)
        .when(TransportError::is_transient)
        .await;
    if let Err(error) = sent {
        tracing::debug!(%to, bytes = bytes.len(), %error, "not delivered; the machine asks again");
    }
}

/// A queue and a sending task for every other participant.
pub(crate) fn start(
    config: &DriverConfig,
    transport: &AnyTransport,
    drain: &CancellationToken,
    dropped: &Arc<AtomicU64>,
) -> (Vec<Arc<Outbox>>, Vec<JoinHandle<()>>) {
    let others = config.committee.participants().filter(|j| *j != config.me);
    others
        .map(|to| {
            let outbox = Arc::new(Outbox {
                to,
                limits: config.queues,
                queue: Mutex::default(),
                more: Notify::new(),
                dropped: Arc::clone(dropped),
            });
            let task = tokio::spawn(Arc::clone(&outbox).deliver(transport.clone(), drain.clone()));
            (outbox, task)
        })
        .unzip()
}
