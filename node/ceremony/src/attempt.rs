//! One attempt of one member, from the proposal to the chain's decision.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use veil_keygen_ceremony::{
    keyset::ParameterSet,
    machine::{AbortReport, Ceremony, CommitPoint, Outcome, Record, ResumeError},
    setup::Setup,
    transcript::FinishCertificate,
};
use veil_node_driver::{Channel, Clock, Driver, DriverConfig, QueueLimits, Transports};
use veil_node_process::unix_now;
use veil_node_storage::journal::Journal;
use veil_protocol_spec::{
    Blake3Digest, Committee,
    ceremony::{CeremonyParameters, Round, SignedMessage},
    domain,
    publication::ReferenceString,
};

use crate::{
    commit_point::{AttemptStatus, Proposal},
    error::CeremonyError,
    exchange::{Exchange, ExchangeConfig},
    finished::FinishedKey,
    folder::AttemptFolder,
    host::{CeremonyEvent, CeremonyHost, ExchangeHost, ExchangeState},
    journals,
    options::{Member, ceremony_context},
    preflight::{Needs, Preflight, own_facts},
    publish::Publisher,
    reference_string::keep,
};

/// Everything fixed about an attempt, checked.
struct Plan {
    setup: Arc<Setup>,
    params: ParameterSet,
    parameters: CeremonyParameters,
    folder: AttemptFolder,
}

/// How an attempt ended for the machine.
enum Decision {
    Completed(Box<Outcome>),
    Aborted(Box<AbortReport>),
}

/// Checks a proposal before anything is done for it.
fn plan(member: &Member, proposal: &Proposal) -> Result<Plan, CeremonyError> {
    let refuse = |reason: String| Err(CeremonyError::Proposal(reason));
    let options = &member.options;
    if proposal.context != ceremony_context(&options.scope) {
        return refuse("it is for another chain, contract or cluster".to_owned());
    }
    let Some(committee) =
        u8::try_from(proposal.roster.len()).ok().and_then(|n| Committee::new(n).ok())
    else {
        return refuse(format!("no committee has {} members", proposal.roster.len()));
    };
    let params = ParameterSet::by_name(&proposal.parameters, committee)
        .map_err(|error| CeremonyError::Proposal(error.to_string()))?;
    let allowed = ParameterSet::by_name(&options.parameters, committee)
        .map_err(|error| CeremonyError::Proposal(error.to_string()))?;
    if allowed != params {
        return refuse(format!(
            "it asks for parameters {}, this member is configured for {}",
            params.name(),
            allowed.name()
        ));
    }
    let parameters = CeremonyParameters {
        committee,
        parameters: proposal.parameters.clone(),
        parameters_digest: proposal.parameters_digest,
        roster: proposal.roster.clone(),
        epoch: proposal.epoch,
        context: proposal.context,
    };
    let timing = options.timing.machine;
    let setup = Setup::new(
        parameters.clone(),
        params.clone(),
        proposal.attempt,
        &options.identity,
        timing,
    )?;
    let folder = AttemptFolder::of(
        member.data.path(),
        proposal.epoch,
        proposal.attempt,
        setup.participant(),
    );
    Ok(Plan { setup: Arc::new(setup), params, parameters, folder })
}

/// Takes part in an attempt until the chain has decided.
pub(crate) async fn run(
    member: &Member,
    proposal: &Proposal,
    stop: &CancellationToken,
) -> Result<FinishedKey, CeremonyError> {
    let plan = plan(member, proposal)?;
    let me = plan.setup.participant();
    match proposal.status {
        AttemptStatus::Proposed => {}
        AttemptStatus::Published { .. } if plan.folder.exists() => {
            on_files(&plan.folder, AttemptFolder::restore_key_share).await?;
        }
        AttemptStatus::Published { .. } => return Err(CeremonyError::PublishedWithoutMe),
        AttemptStatus::Aborted | AttemptStatus::Expired => {
            // A former life of this member may have left secrets of it.
            on_files(&plan.folder, AttemptFolder::give_up).await?;
            return Err(CeremonyError::OutOfDate {
                epoch: proposal.epoch,
                attempt: proposal.attempt,
                status: proposal.status,
            });
        }
    }
    member.status.begin(proposal.epoch, proposal.attempt, me, proposal.deadline);
    let result = Box::pin(take_part(member, proposal, &plan, stop)).await;
    match &result {
        Ok(_) => member.status.end("completed"),
        Err(CeremonyError::Interrupted) => {}
        Err(error) => member.status.end(&error.to_string()),
    }
    result
}

/// Does something with the files of an attempt, if there are any, where waiting for the disk is allowed.
async fn on_files(
    folder: &AttemptFolder,
    f: fn(&AttemptFolder) -> std::io::Result<()>,
) -> Result<(), CeremonyError> {
    if !folder.exists() {
        return Ok(());
    }
    let done = {
        let folder = folder.clone();
        tokio::task::spawn_blocking(move || f(&folder)).await
    };
    let path = folder.path().to_owned();
    match done {
        Ok(Ok(())) => Ok(()),
        Ok(Err(source)) => Err(CeremonyError::Files { path, source }),
        Err(_) => Err(CeremonyError::Interrupted),
    }
}

async fn take_part(
    member: &Member,
    proposal: &Proposal,
    plan: &Plan,
    stop: &CancellationToken,
) -> Result<FinishedKey, CeremonyError> {
    let options = &member.options;
    let me = plan.setup.participant();
    plan.folder.prepare(&plan.parameters)?;
    let (journal, messages) = Journal::open::<SignedMessage>(&plan.folder.journal())?;
    let fresh = journal.is_empty();
    // A member that has no share yet has signed nothing with one.
    if fresh && !FinishedKey::any(member.data.path()) {
        journals::make(&journals::folder(member.data.path()))?;
    }
    let clock = Clock::start();
    let config = DriverConfig {
        committee: plan.setup.committee(),
        me,
        clock,
        queues: QueueLimits::default(),
    };
    let facts = own_facts(&plan.params, member.data.path());
    let exchange = Exchange::new(ExchangeConfig {
        ceremony: plan.parameters.id(),
        attempt: proposal.attempt,
        committee: plan.setup.committee(),
        me,
        roster: proposal.roster.clone(),
        facts: facts.clone(),
        clock_zero: unix_now().0.saturating_sub(clock.now()),
        retry: options.timing.machine.retry,
    });
    let (sender, mut state) = watch::channel(ExchangeState::default());
    let (transport, incoming) = member.transports.open(Channel::Publication, &proposal.roster);
    let exchange = Driver::start(config, exchange, ExchangeHost(sender), transport, incoming);
    if fresh {
        let needs = Needs::of(plan.setup.committee(), &plan.params);
        let asked = exchange.with(|exchange, now| exchange.ask_facts(now)).await;
        asked.map_err(|_| CeremonyError::Interrupted)?;
        let answered = async {
            loop {
                let missing = exchange.with(|exchange, _| exchange.unanswered()).await;
                let missing = missing.unwrap_or_default();
                let n = proposal.roster.len() as u32;
                member.status.step("preflight", (n - missing.len() as u32, n), missing);
                let all = state.wait_for(|state| state.all_facts);
                if tokio::time::timeout(Duration::from_millis(500), all).await.is_ok() {
                    return;
                }
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(options.timing.preflight, answered) => {}
            () = stop.cancelled() => return Err(CeremonyError::Interrupted),
        }
        let answers = exchange.with(|exchange, _| exchange.answers().clone()).await;
        let answers = answers.map_err(|_| CeremonyError::Interrupted)?;
        let report = Preflight::judge(&proposal.roster, me, &facts, &answers, needs);
        if !report.passed() {
            // The others shall learn what this member lacks.
            let _ = exchange.finish(options.timing.drain).await?;
            return Err(CeremonyError::Preflight(report));
        }
    }
    let machine = machine(member, plan, messages, clock.now())?;
    let (events, mut received) = mpsc::unbounded_channel();
    let host = CeremonyHost {
        folder: plan.folder.clone(),
        journal,
        passphrase: options.passphrase.clone(),
        parameters: plan.parameters.clone(),
        attempt: proposal.attempt,
        events,
        status: member.status.clone(),
        shown: None,
    };
    let (transport, incoming) = member.transports.open(Channel::Ceremony, &proposal.roster);
    let ceremony = Driver::start(config, machine, host, transport, incoming);
    let publisher = |reference| Publisher {
        member,
        proposal,
        folder: &plan.folder,
        config,
        exchange: exchange.control(),
        state: state.clone(),
        reference,
    };
    let decided = decide(member, proposal, plan, &ceremony, &mut received, publisher, stop).await;
    // After a restart the key may be published before this member looks at the string again.
    let reference = match &decided {
        Ok(Decision::Completed(_)) => Some(reference_string(plan, &ceremony).await),
        _ => None,
    };
    // The abort, or the last answers, shall still reach the others.
    let ended = ceremony.finish(options.timing.drain).await?;
    let _ = exchange.finish(options.timing.drain).await?;
    if let Some(error) = ended.error {
        return Err(CeremonyError::Driver(error));
    }
    match decided? {
        Decision::Completed(outcome) => {
            let reference_string = reference.unwrap_or(Err(CeremonyError::Interrupted))?;
            let key = FinishedKey {
                epoch: proposal.epoch,
                attempt: proposal.attempt,
                participant: me,
                key_set: outcome.key_set,
                transcript_root: outcome.certificate.root,
                reference_string,
                folder: plan.folder.path().to_owned(),
            };
            let saved = key.save(member.data.path()).and_then(|()| key.erase_deals());
            let path = plan.folder.path().to_owned();
            saved.map_err(|source| CeremonyError::Files { path, source })?;
            Ok(key)
        }
        Decision::Aborted(report) => {
            on_files(&plan.folder, AttemptFolder::give_up).await?;
            Err(CeremonyError::Aborted(report))
        }
    }
}

/// A fresh machine, or one that goes on from its records.
fn machine(
    member: &Member,
    plan: &Plan,
    messages: Vec<SignedMessage>,
    now: u64,
) -> Result<Ceremony, CeremonyError> {
    let options = &member.options;
    let store = Box::new(plan.folder.open_shares(&plan.setup)?);
    let (setup, identity) = (Arc::clone(&plan.setup), options.identity.clone());
    let me = setup.participant();
    if messages.is_empty() {
        if plan.folder.seed_is_erased() {
            return Err(ResumeError::NoSeed.into());
        }
        let seed = plan.folder.seed(&options.passphrase)?;
        return Ok(Ceremony::new(setup, identity, seed, store, now));
    }
    tracing::info!(records = messages.len(), "going on with the ceremony where it was left");
    let finished =
        messages.iter().any(|m| m.header.sender == me && m.header.round == Round::Finish);
    let seed = plan.folder.stored_seed(&options.passphrase)?;
    let mut records: Vec<Record> =
        messages.into_iter().map(|message| Record::Message(Box::new(message))).collect();
    if finished && let Some(share) = plan.folder.key_share(&options.passphrase)? {
        records.push(Record::KeyShare(Arc::new(share)));
    }
    Ok(Ceremony::resume(setup, identity, seed, store, records, now)?)
}

/// The file of the string that the members made, from the machine's messages.
async fn reference_string(
    plan: &Plan,
    ceremony: &Driver<Ceremony, CeremonyHost>,
) -> Result<ReferenceString, CeremonyError> {
    let powers = ceremony.with(|machine, _| machine.reference_string()).await;
    let powers = powers.ok().flatten().ok_or(CeremonyError::Interrupted)?;
    let (params, path) = (plan.params.clone(), plan.folder.reference_string());
    let kept = tokio::task::spawn_blocking(move || keep(&params, &powers, &path)).await;
    kept.map_err(|_| CeremonyError::Interrupted)?.map_err(CeremonyError::ReferenceString)
}

/// Lets the machine, the publication and the chain run until the attempt is decided.
async fn decide<'a>(
    member: &Member,
    proposal: &Proposal,
    plan: &Plan,
    ceremony: &Driver<Ceremony, CeremonyHost>,
    events: &mut mpsc::UnboundedReceiver<CeremonyEvent>,
    publisher: impl Fn(ReferenceString) -> Publisher<'a>,
    stop: &CancellationToken,
) -> Result<Decision, CeremonyError> {
    let mut certificate: Option<FinishCertificate> = None;
    let mut publishing = None;
    let mut poll = tokio::time::interval(member.options.timing.poll);
    poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let publication = async {
            match &mut publishing {
                Some(task) => task.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = events.recv() => match event {
                Some(CeremonyEvent::Publish(finished)) => {
                    let share = ceremony.with(|machine, _| machine.key_share().cloned()).await;
                    // Expired since then: the share is void, and what the machine says next is why.
                    let Some(share) = share.ok().flatten() else { continue };
                    certificate = Some((*finished).clone());
                    let publisher = &publisher;
                    publishing = Some(Box::pin(async move {
                        match reference_string(plan, ceremony).await {
                            Ok(reference) => publisher(reference).run(&finished, share).await,
                            Err(error) => error,
                        }
                    }));
                }
                Some(CeremonyEvent::Complete(outcome)) => return Ok(Decision::Completed(outcome)),
                Some(CeremonyEvent::Abort(report)) => {
                    tell_chain(member, proposal, &report).await;
                    return Ok(Decision::Aborted(report));
                }
                // The driver has ended with an error of its own.
                None => return Err(CeremonyError::Interrupted),
            },
            error = publication => {
                // The key is not published by this member; the chain decides. "Per attempt a member
                // signs either ABORT or FINISH(root), [...] never both" (`ceremony.md`, 6): it has
                // finished, so it ends nothing; without its signature the attempt expires.
                tracing::error!(%error, "this member cannot help to publish the key");
                member.status.step("commit-point", (0, 1), Vec::new());
                publishing = None;
            }
            _ = poll.tick() => {
                let status = member.chain.status(proposal.epoch, proposal.attempt).await;
                let decision = match status {
                    Ok(AttemptStatus::Proposed) => continue,
                    Ok(AttemptStatus::Aborted | AttemptStatus::Expired) => CommitPoint::Expired,
                    Ok(AttemptStatus::Published { transcript_root, .. }) => {
                        match &certificate {
                            Some(mine) if mine.root == transcript_root => {
                                CommitPoint::Published(Box::new(mine.clone()))
                            }
                            Some(_) => return Err(CeremonyError::OtherTranscript),
                            // It signed, so its records give the certificate in a moment.
                            None => continue,
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the chain does not say how the attempt stands");
                        continue;
                    }
                };
                let told = ceremony
                    .with(move |machine, _| machine.handle_commit_point(decision))
                    .await;
                told.map_err(|_| CeremonyError::Interrupted)?;
            }
            () = ceremony.ended() => return Err(CeremonyError::Interrupted),
            () = stop.cancelled() => return Err(CeremonyError::Interrupted),
        }
    }
}

async fn tell_chain(member: &Member, proposal: &Proposal, report: &AbortReport) {
    use veil_protocol_spec::ceremony::AbortReason;
    // It comes from there.
    if !matches!(report.reason, AbortReason::Expired) {
        abort_on_chain(member, proposal, &report.reason.to_string()).await;
    }
}

/// Ends the attempt for everybody. If that fails the attempt expires.
async fn abort_on_chain(member: &Member, proposal: &Proposal, reason: &str) {
    let digest = Blake3Digest(domain::hash_parts(domain::CEREMONY_ABORT, &[reason.as_bytes()]));
    let identity = &member.options.identity;
    let Some(seat) = seat(member, proposal) else { return };
    let (epoch, attempt) = (proposal.epoch, proposal.attempt);
    let chain = &member.chain;
    // Whoever misbehaves could make the others leave one by one, otherwise.
    if !matches!(chain.abort_costs_seat().await, Ok(false)) {
        tracing::info!("the attempt is left to expire: ending it would cost this member its seat");
        return;
    }
    if let Ok(AttemptStatus::Proposed) = chain.status(epoch, attempt).await
        && let Err(error) = chain.abort(epoch, attempt, digest, seat, identity).await
    {
        tracing::warn!(%error, "the abort is not on chain; the attempt will expire");
    }
}

fn seat(member: &Member, proposal: &Proposal) -> Option<veil_protocol_spec::ParticipantIndex> {
    let public = member.options.identity.public();
    let position = proposal.roster.iter().position(|identity| *identity == public)?;
    veil_protocol_spec::ParticipantIndex::new(u8::try_from(position).ok()? + 1).ok()
}
