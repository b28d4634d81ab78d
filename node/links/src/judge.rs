//! Whether another worker may reach a replica that is here.
//!
//! "Nothing in a request is believed": what is asked for is compared with the newest certificate and with the bodies
//! of the two jobs, which this worker knows by itself.

use veil_protocol_spec::{
    PeerIdHash,
    link::{LinkEnd, LinkRefusal, LinkRequest, LinkWish, ReplicaCondition},
    scheduling::{JobSpec, Protocol},
};

/// What this worker knows.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// This worker.
    pub me: PeerIdHash,
    /// Which worker has a replica, by the newest certificate.
    pub place: &'a dyn Fn(&LinkEnd) -> Option<PeerIdHash>,
    /// The body of the job that asks.
    pub from: Option<&'a JobSpec>,
    /// The body of the job that is asked for.
    pub to: Option<&'a JobSpec>,
    /// How the replica that is asked for is, if it has a container here.
    pub condition: Option<ReplicaCondition>,
}

/// What is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// A connection to this port of the container.
    Connect(u16),
    /// To be told this.
    State(ReplicaCondition),
}

/// Decides on what `asking` wants, a worker by its connection.
///
/// # Errors
/// [`LinkRefusal`]: the first reason.
pub fn judge(
    asking: PeerIdHash,
    request: &LinkRequest,
    facts: &Facts<'_>,
) -> Result<Granted, LinkRefusal> {
    if (facts.place)(&request.from) != Some(asking) {
        return Err(LinkRefusal::NotYours);
    }
    // What has left for another worker still runs here until it runs there.
    if (facts.place)(&request.to) != Some(facts.me) && facts.condition.is_none() {
        return Err(LinkRefusal::NotHere);
    }
    let (Some(from), Some(to)) = (facts.from, facts.to) else { return Err(LinkRefusal::NoBody) };
    if from.operator != to.operator {
        return Err(LinkRefusal::OtherOperator);
    }
    let condition = facts.condition.unwrap_or_default();
    match &request.wish {
        LinkWish::State if from.after.iter().any(|after| after.job == to.name) => {
            Ok(Granted::State(condition))
        }
        LinkWish::Connect(port) if from.links_to(&to.name, port) => {
            let port = to.ports.iter().find(|of| of.name == *port && of.protocol == Protocol::Tcp);
            let port = port.ok_or(LinkRefusal::NoPort)?;
            match condition {
                ReplicaCondition { running: false, .. } => Err(LinkRefusal::NotRunning),
                ReplicaCondition { healthy: false, .. } => Err(LinkRefusal::Unhealthy),
                _ => Ok(Granted::Connect(port.container.get())),
            }
        }
        _ => Err(LinkRefusal::NoLink),
    }
}

#[cfg(test)]
mod tests {
    use core::num::NonZeroU16;

    use veil_protocol_spec::{
        Address, Blake3Digest, ChainId, ClusterId, ReplicaIndex,
        scheduling::{
            After, ClusterScope, Condition, CpuUnits, HostPort, Link, MemoryUnits, Port,
            ResourceRequest, Resources,
        },
    };

    use super::*;

    const ME: PeerIdHash = PeerIdHash([1; 32]);
    const ASKING: PeerIdHash = PeerIdHash([2; 32]);
    const HEALTHY: ReplicaCondition = ReplicaCondition { running: true, healthy: true };

    fn job(name: &str) -> JobSpec {
        let scope = ClusterScope {
            chain_id: ChainId(1),
            contract: Address([1; 20]),
            cluster: ClusterId([2; 32]),
        };
        let request = ResourceRequest::Clear(Resources {
            cpu: CpuUnits(1),
            memory: MemoryUnits(1),
            ..Resources::default()
        });
        let image = format!("app@sha256:{}", "ab".repeat(32)).parse().unwrap();
        JobSpec::new(scope, Address([3; 20]), 0, name.parse().unwrap(), image, request)
    }

    fn web() -> JobSpec {
        let link = Link {
            host: "db".parse().unwrap(),
            listen: NonZeroU16::new(5432).unwrap(),
            job: "db".parse().unwrap(),
            port: "pg".parse().unwrap(),
            env: None,
        };
        let after = After { job: "db".parse().unwrap(), is: Condition::Healthy };
        JobSpec { links: vec![link], after: vec![after], ..job("web") }
    }

    fn db() -> JobSpec {
        let port = |name: &str, container, protocol| Port {
            name: name.parse().unwrap(),
            container: NonZeroU16::new(container).unwrap(),
            protocol,
            host: HostPort::None,
        };
        let ports = vec![port("dns", 53, Protocol::Udp), port("pg", 5433, Protocol::Tcp)];
        JobSpec { ports, ..job("db") }
    }

    fn end(byte: u8) -> LinkEnd {
        LinkEnd { job: Blake3Digest([byte; 32]), replica: ReplicaIndex(0) }
    }

    fn request(wish: LinkWish) -> LinkRequest {
        LinkRequest { from: end(2), to: end(1), wish }
    }

    fn connect(port: &str) -> LinkRequest {
        request(LinkWish::Connect(port.parse().unwrap()))
    }

    fn placed(end: &LinkEnd) -> Option<PeerIdHash> {
        Some(PeerIdHash(end.job.0)).filter(|worker| [ME, ASKING].contains(worker))
    }

    fn judged(
        asking: PeerIdHash,
        request: &LinkRequest,
        change: impl FnOnce(&mut Facts<'_>, &mut JobSpec, &mut JobSpec),
    ) -> Result<Granted, LinkRefusal> {
        let (mut from, mut to) = (web(), db());
        let mut facts =
            Facts { me: ME, place: &placed, from: None, to: None, condition: Some(HEALTHY) };
        change(&mut facts, &mut from, &mut to);
        let facts = Facts { from: Some(&from), to: Some(&to), ..facts };
        judge(asking, request, &facts)
    }

    #[test]
    fn a_link_of_the_body_leads_to_the_port_of_the_container() {
        assert_eq!(judged(ASKING, &connect("pg"), |_, _, _| {}), Ok(Granted::Connect(5433)));
        let state = judged(ASKING, &request(LinkWish::State), |_, _, _| {});
        assert_eq!(state, Ok(Granted::State(HEALTHY)));
        // It has left by a certificate, and runs here until it runs there.
        let gone = |facts: &mut Facts<'_>, _: &mut JobSpec, _: &mut JobSpec| {
            facts.place = &|end| Some(PeerIdHash([end.job.0[0] | 2; 32]));
        };
        let moving = LinkRequest { from: end(2), ..connect("pg") };
        assert_eq!(judged(ASKING, &moving, gone), Ok(Granted::Connect(5433)));
    }

    #[test]
    fn whatever_else_is_refused_by_name() {
        type Change = fn(&mut Facts<'_>, &mut JobSpec, &mut JobSpec);
        let nothing: Change = |_, _, _| {};
        let cases: [(PeerIdHash, LinkRequest, Change, LinkRefusal); 10] = [
            (PeerIdHash([7; 32]), connect("pg"), nothing, LinkRefusal::NotYours),
            (ASKING, LinkRequest { from: end(9), ..connect("pg") }, nothing, LinkRefusal::NotYours),
            (
                ASKING,
                LinkRequest { to: end(9), ..connect("pg") },
                |facts, _, _| facts.condition = None,
                LinkRefusal::NotHere,
            ),
            // Another operator's job of the same name.
            (ASKING, connect("pg"), |_, _, to| to.operator.0[0] ^= 1, LinkRefusal::OtherOperator),
            (ASKING, connect("dns"), nothing, LinkRefusal::NoLink),
            (ASKING, connect("pg"), |_, from, _| from.links.clear(), LinkRefusal::NoLink),
            (
                ASKING,
                request(LinkWish::State),
                |_, from, _| from.after.clear(),
                LinkRefusal::NoLink,
            ),
            (ASKING, connect("pg"), |_, _, to| to.ports.clear(), LinkRefusal::NoPort),
            (ASKING, connect("pg"), |facts, _, _| facts.condition = None, LinkRefusal::NotRunning),
            (
                ASKING,
                connect("pg"),
                |facts, _, _| {
                    facts.condition = Some(ReplicaCondition { healthy: false, ..HEALTHY })
                },
                LinkRefusal::Unhealthy,
            ),
        ];
        for (i, (asking, request, change, expected)) in cases.into_iter().enumerate() {
            assert_eq!(judged(asking, &request, change), Err(expected), "{i}");
        }
        let facts = Facts { me: ME, place: &placed, from: None, to: None, condition: None };
        assert_eq!(judge(ASKING, &connect("pg"), &facts), Err(LinkRefusal::NoBody));
        let udp = |_: &mut Facts<'_>, from: &mut JobSpec, _: &mut JobSpec| {
            from.links[0].port = "dns".parse().unwrap();
        };
        assert_eq!(judged(ASKING, &connect("dns"), udp), Err(LinkRefusal::NoPort));
    }
}
