//! Values and checks shared by the unit tests of this module.

use core::fmt::Debug;

use super::*;
use crate::{
    codec::{CodecError, Wire},
    identity::SecretIdentity,
    ids::*,
};

pub(crate) fn binding() -> Binding {
    Binding {
        scope: ClusterScope {
            chain_id: ChainId(31_337),
            contract: Address([0xc0; 20]),
            cluster: ClusterId([0xc1; 32]),
        },
        key_set: KeySetDigest([0xde; 32]),
        epoch: Epoch(2),
    }
}

pub(crate) fn secret(byte: u8) -> SecretIdentity {
    SecretIdentity::from_bytes(&[byte; 32]).unwrap()
}

/// Round trip; every truncation, a trailing byte and another version are refused.
pub(crate) fn assert_wire<T: Wire + Debug + PartialEq>(value: &T) {
    let bytes = value.to_wire();
    assert_eq!(T::from_wire(&bytes).as_ref(), Ok(value));
    for len in 0..bytes.len() {
        assert!(T::from_wire(&bytes[..len]).is_err(), "{} cut to {len} bytes", T::NAME);
    }
    let trailing = [&bytes[..], &[0]].concat();
    assert_eq!(T::from_wire(&trailing), Err(CodecError::NotCanonical { name: T::NAME }));
    let mut newer = bytes;
    newer[0] = T::VERSION + 1;
    assert!(matches!(T::from_wire(&newer), Err(CodecError::Version { .. })));
}

pub(crate) fn labels(texts: &[&str]) -> Vec<Label> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

pub(crate) fn job() -> JobSpec {
    JobSpec {
        scope: binding().scope,
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
