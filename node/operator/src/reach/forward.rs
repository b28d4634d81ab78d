//! Connections to a port of a replica, as if it were here.

use std::sync::Arc;

use async_recursion::async_recursion as boxed;
use tokio::{net::TcpStream, sync::Mutex};
use veil_node_reach::{ReachFailure, Reached, splice};
use veil_protocol_spec::reach::{Action, PortWanted, Refusal};

use super::{Named, Placed, ReachError, Way};

/// One session that carries many connections; another is made when it is over.
#[derive(Debug)]
pub struct Forward {
    way: Arc<Way>,
    named: Named,
    port: PortWanted,
    session: Mutex<Option<Arc<Reached>>>,
}

impl Forward {
    /// Reaches the replica once, so that what speaks against it is known at once. Where it leads.
    ///
    /// # Errors
    /// [`ReachError`].
    #[boxed]
    pub async fn begin(
        way: Arc<Way>,
        named: Named,
        port: PortWanted,
    ) -> Result<(Self, Placed), ReachError> {
        let forward = Self { way, named, port, session: Mutex::new(None) };
        let placed = forward.renew(&mut *forward.session.lock().await).await?;
        Ok((forward, placed))
    }

    async fn renew(&self, session: &mut Option<Arc<Reached>>) -> Result<Placed, ReachError> {
        let places = self.way.places(&self.named).await?;
        let mut last = None;
        for placed in places.into_iter().filter(|placed| !placed.ended) {
            match self.way.reach(&placed, Action::Forward(self.port.clone())).await {
                Ok(reached) => {
                    *session = Some(Arc::new(reached));
                    return Ok(placed);
                }
                // The next replica may be reached.
                Err(error) => last = Some(error),
            }
        }
        let (job, because) = (self.named.job.clone(), String::new());
        Err(last.unwrap_or(ReachError::NoPlace { job, because }))
    }

    async fn reached(&self) -> Result<Arc<Reached>, ReachError> {
        let mut session = self.session.lock().await;
        if session.as_ref().is_none_or(|session| session.is_over()) {
            *session = None;
            self.renew(&mut session).await?;
        }
        session.clone().ok_or_else(|| ReachError::NoPlace {
            job: self.named.job.clone(),
            because: String::new(),
        })
    }

    /// Carries a connection there, until both ends are over.
    ///
    /// # Errors
    /// [`ReachError`] if there is none.
    #[boxed]
    pub async fn carry(&self, connection: TcpStream) -> Result<(), ReachError> {
        // Small writes are not to wait for each other; that an option is not set is no reason to refuse.
        let _ = connection.set_nodelay(true);
        let stream = match self.reached().await?.connect().await {
            // The replica has moved, or its worker was restarted.
            Err(error) if !is_of_program(&error) => self.reached().await?.connect().await?,
            connected => connected?,
        };
        // However it ends, it was carried.
        let _ = splice(connection, stream).await;
        Ok(())
    }
}

const fn is_of_program(error: &ReachFailure) -> bool {
    matches!(error, ReachFailure::Refused { refusal: Refusal::NothingListens, .. })
}
