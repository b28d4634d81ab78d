//! Values shared by the unit tests of this crate.

use veil_protocol_spec_base::{
    binding::ClusterScope,
    ids::{Address, ChainId, ClusterId},
};

use crate::{job::*, labels::Label, quantities::LatencyClass, resources::*};

pub(crate) fn labels(texts: &[&str]) -> Vec<Label> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

pub(crate) fn job() -> JobSpec {
    JobSpec {
        scope: ClusterScope {
            chain_id: ChainId(31_337),
            contract: Address([0xc0; 20]),
            cluster: ClusterId([0xc1; 32]),
        },
        operator: Address([0x0a; 20]),
        nonce: 1,
        image: format!("localhost:5000/app@sha256:{}", "ab".repeat(32)).parse().unwrap(),
        command: vec!["/bin/app".into()],
        args: vec!["--port".into(), "8080".into()],
        request: ResourceRequest::Clear(Resources {
            cpu: CpuUnits(5),
            memory: MemoryUnits(8),
            disk: DiskUnits(1),
            gpu: GpuUnits(0),
        }),
        replicas: 3,
        priority: Priority(10),
        policy: SchedulingPolicy::Spread,
        constraints: Constraints {
            allow: labels(&["zone=eu-1", "zone=eu-2"]),
            deny: labels(&["class=spot"]),
            anti_affinity: Some(AntiAffinity {
                strength: Strength::Hard,
                domain: FailureDomain::Label("zone".parse().unwrap()),
            }),
            max_latency: Some(LatencyClass::new(2).unwrap()),
            prefer_previous: true,
        },
        lease: LeasePolicy::Exclusive { seconds: 120 },
        restart: RestartPolicy::OnFailure { max_retries: 3 },
        health: Some(HealthCheck {
            probe: HealthProbe::Http { port: 8080, path: "/healthz".into() },
            interval_seconds: 10,
            timeout_seconds: 2,
            retries: 3,
            start_period_seconds: 30,
        }),
    }
}
