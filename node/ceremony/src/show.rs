//! Where a ceremony stands: which step, who is outstanding, since when.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::{
    commit_point::{AttemptStatus, Proposal},
    status::{CeremonyStatus, Outstanding, unix_seconds},
};

/// What the chain says, or why it is not known.
pub type OnChain = Result<Option<Proposal>, String>;

/// Where the local status is of the attempt on chain, names can be given.
fn outstanding(proposal: Option<&Proposal>, local: &CeremonyStatus) -> Vec<Value> {
    let named = proposal.filter(|p| (p.epoch, p.attempt) == (local.epoch, local.attempt));
    let one = |of: &Outstanding| {
        let identity = named.and_then(|proposal| proposal.roster.get(of.participant.position()));
        json!({ "participant": of.participant, "identity": identity, "since": of.since })
    };
    local.outstanding.iter().map(one).collect()
}

/// For programs, as `docs/json.md` lists it.
#[must_use]
pub fn as_json(chain: &OnChain, local: Option<&CeremonyStatus>, running: bool) -> Value {
    let proposal = chain.as_ref().ok().and_then(Option::as_ref);
    json!({
        "chain": proposal.map(|proposal| json!({
            "epoch": proposal.epoch,
            "attempt": proposal.attempt,
            "status": proposal.status.name(),
            "keyset_digest": match proposal.status {
                AttemptStatus::Published { key_set, .. } => Some(key_set),
                _ => None,
            },
            "parameters": proposal.parameters,
            "deadline": proposal.deadline,
            "members": proposal.roster,
        })),
        "chain_error": chain.as_ref().err(),
        "member": local.map(|local| json!({
            "running": running,
            "epoch": local.epoch,
            "attempt": local.attempt,
            "participant": local.participant,
            "step": local.step,
            "done": local.done,
            "total": local.total,
            "outstanding": outstanding(proposal, local),
            "since": local.since,
            "outcome": local.outcome,
        })),
    })
}

/// For a person.
///
/// # Errors
/// What the writer says.
pub fn write(
    out: &mut dyn Write,
    chain: &OnChain,
    local: Option<&CeremonyStatus>,
    running: bool,
) -> io::Result<()> {
    match chain {
        Err(error) => writeln!(out, "chain   error: {error}")?,
        Ok(None) => writeln!(out, "chain   no ceremony is proposed: `veil ceremony propose`")?,
        Ok(Some(proposal)) => {
            let left = proposal.deadline.saturating_sub(unix_seconds());
            let until = if proposal.status == AttemptStatus::Proposed {
                format!(", {left} s left")
            } else {
                String::new()
            };
            writeln!(
                out,
                "chain   epoch {} attempt {}: {}{until}",
                proposal.epoch,
                proposal.attempt,
                proposal.status.name()
            )?;
        }
    }
    let Some(local) = local else {
        return writeln!(out, "member  has not taken part yet: `veil ceremony join`");
    };
    let since = unix_seconds().saturating_sub(local.since);
    let state = match (&local.outcome, running) {
        (Some(outcome), _) => outcome.clone(),
        (None, true) => format!("{} {}/{} for {since} s", local.step, local.done, local.total),
        (None, false) => format!(
            "stopped in {}; `veil ceremony join` goes on",
            if local.step.is_empty() { "the beginning" } else { &local.step }
        ),
    };
    let participant = local.participant.map_or_else(String::new, |j| format!(" participant {j}"));
    let (epoch, attempt) = (local.epoch, local.attempt);
    writeln!(out, "member {participant} epoch {epoch} attempt {attempt}: {state}")?;
    let proposal = chain.as_ref().ok().and_then(Option::as_ref);
    for missing in outstanding(proposal, local) {
        let identity = missing["identity"].as_str().unwrap_or_default();
        let since = missing["since"].as_u64().unwrap_or_default();
        let seconds = unix_seconds().saturating_sub(since);
        let participant = &missing["participant"];
        writeln!(out, "waiting for participant {participant} for {seconds} s {identity}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::{Attempt, Epoch, ParticipantIndex, PublicIdentity};

    use super::*;

    #[test]
    fn who_is_outstanding_is_named_with_the_time_since_when() {
        let participant = |j| ParticipantIndex::new(j).unwrap();
        let identity = |j| PublicIdentity([j; 33]);
        let proposal = Proposal {
            epoch: Epoch(1),
            attempt: Attempt(2),
            status: AttemptStatus::Proposed,
            deadline: unix_seconds() + 60,
            parameters: "production".to_owned(),
            context: [0; 32],
            parameters_digest: veil_protocol_spec::Blake3Digest([0; 32]),
            roster: (1..=4).map(identity).collect(),
        };
        let since = unix_seconds() - 42;
        let local = CeremonyStatus {
            epoch: Epoch(1),
            attempt: Attempt(2),
            participant: Some(participant(1)),
            step: "deal".to_owned(),
            outstanding: vec![Outstanding { participant: participant(3), since }],
            ..CeremonyStatus::default()
        };
        let chain = Ok(Some(proposal));
        let object = as_json(&chain, Some(&local), true);
        let outstanding = &object["member"]["outstanding"];
        assert_eq!(
            *outstanding,
            json!([{ "participant": 3, "identity": identity(3), "since": since }])
        );
        let mut text = Vec::new();
        write(&mut text, &chain, Some(&local), true).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("waiting for participant 3 for 4"), "{text}");
        assert!(text.contains(&identity(3).to_string()), "{text}");
        // Of another attempt than the chain's nobody knows who that is.
        let earlier = CeremonyStatus { attempt: Attempt(1), ..local };
        let object = as_json(&chain, Some(&earlier), true);
        assert!(object["member"]["outstanding"][0]["identity"].is_null(), "{object}");
    }
}
