//! What is said of replicas that their workers give back.

use std::fmt::Write as _;

use veil_node_process::moment;
use veil_protocol_spec::scheduling::{GiveBackReason, Returned};

/// Who gave a replica back, until when it may run there, and why.
#[must_use]
pub fn told(returned: &Returned) -> String {
    let worker = &returned.placement.worker;
    let mut text = match returned.reason {
        GiveBackReason::Evicted => format!("evicted by worker {worker}"),
        GiveBackReason::Unhealthy => {
            format!("given back by worker {worker}, where it stays unhealthy")
        }
        GiveBackReason::Drained => format!("stopped by worker {worker}, which is drained"),
        GiveBackReason::DrainEnded => format!("stopped by worker {worker}, which was drained"),
        GiveBackReason::SealedPart => {
            format!("given back by worker {worker}, which cannot use what is sealed in it")
        }
    };
    if let (GiveBackReason::Evicted, Some(until)) = (returned.reason, returned.until) {
        text.push_str(", notice until ");
        text.push_str(&moment::utc(until));
    }
    if !returned.note.as_str().is_empty() {
        text.push_str(", because ");
        text.push_str(returned.note.as_str());
    }
    if returned.times > 1 {
        let times = returned.times;
        let _ = write!(text, " (given back {times} times: it waits longer each time)"); // into memory
    }
    text
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::{
        PeerIdHash, Slot,
        scheduling::{Placement, UnixMillis},
    };

    use super::*;

    #[test]
    fn who_gave_it_back_until_when_and_why() {
        let evicted = Returned {
            placement: Placement { worker: PeerIdHash([1; 32]), slot: Slot(3) },
            slot: Slot(5),
            block: 9,
            reason: GiveBackReason::Evicted,
            until: Some(UnixMillis(1_795_802_400_000)),
            note: "the power goes".to_owned().try_into().unwrap(),
            times: 1,
            closed_to: Vec::new(),
        };
        let worker = evicted.placement.worker;
        assert_eq!(
            told(&evicted),
            format!(
                "evicted by worker {worker}, notice until 2026-11-27 18:00:00 UTC, because the power goes"
            )
        );
        let unhealthy = Returned {
            reason: GiveBackReason::Unhealthy,
            until: None,
            note: Default::default(),
            times: 3,
            ..evicted.clone()
        };
        assert_eq!(
            told(&unhealthy),
            format!(
                "given back by worker {worker}, where it stays unhealthy (given back 3 times: it waits longer each time)"
            )
        );
        let closed = Returned {
            reason: GiveBackReason::SealedPart,
            note: "its sealed part was dealt wrongly".to_owned().try_into().unwrap(),
            ..evicted
        };
        assert_eq!(
            told(&closed),
            format!(
                "given back by worker {worker}, which cannot use what is sealed in it, because its sealed part was dealt wrongly"
            )
        );
    }
}
