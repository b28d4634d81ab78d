//! Who may reach what: `reach.md`, steps 4 and 6.
//!
//! Nothing is said about a job before it is known who asks.

use async_trait::async_trait;
use veil_node_chain::signer_of;
use veil_protocol_spec::{
    Address, Blake3Digest, PeerIdHash, ReplicaIndex,
    reach::{
        Action, Endpoints, MOST_SECONDS, PortWanted, ReachRequest, Refusal, SignedReachRequest,
    },
    registry::Delegation,
    scheduling::{ClusterScope, Name, Port, Protocol, Submission},
};

/// Where the newest certificate has a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On this worker.
    Here,
    /// It has ended for good, and ran here last.
    EndedHere,
    /// On another, or nowhere.
    Elsewhere,
}

/// What a worker knows of its cluster.
#[async_trait]
pub trait World: Send + Sync + 'static {
    /// Chain, directory, cluster.
    fn scope(&self) -> ClusterScope;

    /// This worker.
    fn me(&self) -> PeerIdHash;

    /// Unix time in seconds.
    fn now(&self) -> u64;

    /// A job, as the chain has it.
    fn submission(&self, job: &Blake3Digest) -> Option<Submission>;

    /// Where a replica is.
    fn place(&self, job: Blake3Digest, replica: ReplicaIndex) -> Place;

    /// The port that a job gives this name.
    fn port(&self, job: &Blake3Digest, name: &Name) -> Option<Port>;

    /// How a replica fares here, and where its ports are published.
    fn endpoints(&self, job: &Blake3Digest, replica: ReplicaIndex) -> Endpoints;

    /// Whether commands may be run.
    fn allows_exec(&self) -> bool;

    /// What an operator's delegation to a key is worth now, by the chain.
    ///
    /// # Errors
    /// In words, if the chain does not say so.
    async fn delegation(&self, operator: Address, key: Address) -> Result<Delegation, String>;

    /// Returns once any of the above may be another than when it was called.
    async fn changed(&self);
}

/// Step 4: whether the request is one of the session with `client`, by whom it says, for what is here.
///
/// # Errors
/// [`Refusal`].
pub async fn authorise(
    world: &dyn World,
    client: PeerIdHash,
    signed: &SignedReachRequest,
) -> Result<(), Refusal> {
    let request = &signed.request;
    let now = world.now();
    if request.scope != world.scope() {
        return Err(Refusal::OtherCluster);
    }
    if request.worker != world.me() {
        return Err(Refusal::OtherWorker);
    }
    if request.client != client {
        return Err(Refusal::OtherClient);
    }
    if request.expires < now {
        return Err(Refusal::Expired);
    }
    if request.expires > now.saturating_add(MOST_SECONDS) {
        return Err(Refusal::TooLong);
    }
    if signer_of(&request.digest(), &signed.signature()) != Some(request.account) {
        return Err(Refusal::Signature);
    }
    acts(world, request).await?;
    stays(world, request)?;
    match &request.action {
        Action::Exec(_) if !world.allows_exec() => Err(Refusal::ExecOff),
        Action::Exec(exec) if exec.command.is_empty() => Err(Refusal::Malformed),
        _ => Ok(()),
    }
}

/// Step 6: whether the account still acts for the operator.
///
/// # Errors
/// [`Refusal::NotDelegated`]; [`Refusal::NotNow`] if the chain does not say.
pub async fn acts(world: &dyn World, request: &ReachRequest) -> Result<(), Refusal> {
    let &ReachRequest { account, operator, .. } = request;
    if account == operator {
        return Ok(());
    }
    match world.delegation(operator, account).await {
        Ok(Delegation::Until(until)) if until >= world.now() => Ok(()),
        Ok(_) => Err(Refusal::NotDelegated),
        Err(_) => Err(Refusal::NotNow),
    }
}

/// Step 6: whether the job is the operator's still, and the replica here.
///
/// # Errors
/// [`Refusal`].
pub fn stays(world: &dyn World, request: &ReachRequest) -> Result<(), Refusal> {
    let submission = world.submission(&request.job).ok_or(Refusal::UnknownJob)?;
    if submission.operator != request.operator {
        return Err(Refusal::OtherOperator);
    }
    if submission.cancelled {
        return Err(Refusal::Stopped);
    }
    match (world.place(request.job, request.replica), &request.action) {
        // What has ended has written something, and does nothing more.
        (Place::Here, _) | (Place::EndedHere, Action::Logs(_)) => Ok(()),
        _ => Err(Refusal::NotHere),
    }
}

/// The port of the container that is meant.
///
/// # Errors
/// [`Refusal::NoPort`], [`Refusal::Datagrams`].
pub fn port(world: &dyn World, job: &Blake3Digest, wanted: &PortWanted) -> Result<u16, Refusal> {
    match wanted {
        PortWanted::Number(number) => Ok(number.get()),
        PortWanted::Named(name) => {
            let port = world.port(job, name).ok_or(Refusal::NoPort)?;
            match port.protocol {
                Protocol::Tcp => Ok(port.container.get()),
                Protocol::Udp => Err(Refusal::Datagrams),
            }
        }
    }
}
