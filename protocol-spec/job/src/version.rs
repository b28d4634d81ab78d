//! What makes two jobs versions of one.
//!
//! Jobs of one operator with one name are versions of one job, a *line*: the later one takes the place of the
//! earlier one (`slot.md`, "Updates"). Replicas of versions with one *template* are as good as each other: such
//! versions differ in nothing that a container is made from, and none of them starts anew.

use serde::{Deserialize, Serialize};
use veil_protocol_spec_base::{
    codec::Wire,
    domain::{self, hash_parts},
    ids::{Blake3Digest, JobLine},
};

use crate::{
    job::{JobSpec, Priority, Sealed},
    kind::JobType,
    lifecycle::{LeasePolicy, UpdatePolicy},
    network::HostPort,
    proven::ProvenList,
    request::{EncryptedRequest, ResourceRequest},
};

/// What a version says of how it takes the place of another, as far as everybody must know it who does not have
/// its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionTerms {
    /// [`JobSpec::replicas`]; 0 of a system job, which has one on each worker that may run it.
    pub replicas: u16,
    /// [`UpdatePolicy::max_parallel`].
    pub max_parallel: u16,
    /// [`UpdatePolicy::auto_revert`].
    pub auto_revert: bool,
    /// Whether it is placed step by step, each replica healthy before the next. Otherwise all at once.
    pub rolls: bool,
    /// Whether a replica of another version leaves before this one's gets a place: both cannot run at once.
    pub stops_first: bool,
}

impl VersionTerms {
    /// Most bytes of its encoding.
    pub const MAX_BYTES: usize = 3 + 3 + 1 + 1 + 1;

    /// Whether it has one replica on each worker that may run it.
    #[must_use]
    pub const fn is_system(&self) -> bool {
        self.replicas == 0
    }
}

impl JobSpec {
    /// What it has in common with its other versions.
    #[must_use]
    pub fn line(&self) -> JobLine {
        let name = self.name.to_string();
        JobLine(hash_parts(domain::JOB_LINE, &[&self.operator.0, name.as_bytes()]))
    }

    /// What its replicas are made of: everything but nonce, number, priority and the rules of updates. Of what is
    /// sealed, and of the limits behind an encrypted request, the operator's [tag](crate::sealed::SealedPart::tag) says whether they are
    /// the same. What ends by itself has its own, since whoever submits it again wants it run again.
    #[must_use]
    pub fn template(&self) -> Blake3Digest {
        if self.kind.ends() {
            return self.digest();
        }
        let tag: &[u8] = self.sealed_part().map_or(&[], |part| part.tag.as_bytes());
        // Under a nonce of its own it is encrypted anew; without a sealed part nobody ever runs it.
        let request = match &self.request {
            ResourceRequest::Encrypted(encrypted) if !tag.is_empty() => {
                let (list, commitment) = (ProvenList::blank(), Blake3Digest([0; 32]));
                let blank = EncryptedRequest { list, commitment, ..*encrypted };
                ResourceRequest::Encrypted(blank)
            }
            request => request.clone(),
        };
        let template = Self {
            nonce: 0,
            replicas: 1,
            priority: Priority::default(),
            update: UpdatePolicy::default(),
            request,
            sealed: Sealed::Nothing,
            ..self.clone()
        };
        Blake3Digest(hash_parts(domain::JOB_TEMPLATE, &[&template.to_wire(), tag]))
    }

    /// Whether one of its replicas keeps others away from its worker, since both would be at one port.
    #[must_use]
    pub fn has_fixed_port(&self) -> bool {
        self.ports.iter().any(|port| matches!(port.host, HostPort::Fixed(_)))
    }

    /// How it takes the place of the version before.
    #[must_use]
    pub fn terms(&self) -> VersionTerms {
        let rolls = !self.kind.ends();
        VersionTerms {
            replicas: if self.kind == JobType::System { 0 } else { self.replicas },
            max_parallel: self.update.max_parallel,
            auto_revert: self.update.auto_revert,
            rolls,
            stops_first: !rolls || self.has_fixed_port() || self.lease != LeasePolicy::Keep,
        }
    }
}

#[cfg(test)]
mod tests {
    use core::num::NonZeroU16;

    use veil_protocol_spec_base::{
        codec::Bytes,
        ids::{Epoch, KeySetDigest},
    };

    use super::*;
    use crate::{
        arbitrary::job,
        network::{Port, Protocol},
        quantities::Scale,
        resources::Resource,
        sealed::SealedPart,
    };

    #[test]
    fn operator_and_name_make_a_line() {
        let mut other = job();
        (other.nonce, other.replicas) = (other.nonce + 1, 7);
        assert_eq!(other.line(), job().line());
        other.name = "another".parse().unwrap();
        assert_ne!(other.line(), job().line());
        other = job();
        other.operator.0[0] ^= 1;
        assert_ne!(other.line(), job().line());
    }

    #[test]
    fn scaling_keeps_the_template_and_nothing_else_does() {
        let same: [fn(&mut JobSpec); 4] = [
            |job| job.nonce += 1,
            |job| job.replicas += 1,
            |job| job.priority = Priority(9),
            |job| job.update.max_parallel = 5,
        ];
        for (i, change) in same.iter().enumerate() {
            let mut changed = job();
            change(&mut changed);
            assert_eq!(changed.template(), job().template(), "{i}");
        }
        let others: [fn(&mut JobSpec); 4] = [
            |job| job.args.push("--new".to_owned()),
            |job| job.lease = LeasePolicy::Exclusive { seconds: 60 },
            |job| job.restart.attempts = Some(9),
            |job| job.kind = JobType::Batch { max_attempts: 1 },
        ];
        for (i, change) in others.iter().enumerate() {
            let mut changed = job();
            change(&mut changed);
            assert_ne!(changed.template(), job().template(), "{i}");
        }
        // A batch job that is submitted again is to run again.
        let batch = JobSpec { kind: JobType::Batch { max_attempts: 1 }, ..job() };
        let again = JobSpec { nonce: batch.nonce + 1, ..batch.clone() };
        assert_ne!(again.template(), batch.template());
    }

    /// "Scaling is an update that restarts nothing": each version is sealed, and its request encrypted, anew.
    #[test]
    fn versions_with_equal_contents_have_one_template() {
        let encrypted = |nonce: u8, limits: u8| {
            let metadata_and_seed = Blake3Digest([nonce; 32]);
            let part = SealedPart {
                key_set: KeySetDigest([1; 32]),
                epoch: Epoch(nonce.into()),
                roster: Blake3Digest([nonce; 32]),
                tag: Blake3Digest([limits; 32]),
                commitments: Vec::new(),
                shares: Vec::new(),
                ciphertext: Bytes(vec![nonce]),
            };
            JobSpec {
                nonce: nonce.into(),
                replicas: nonce.into(),
                request: ResourceRequest::Encrypted(EncryptedRequest {
                    key_set: KeySetDigest([1; 32]),
                    scale: Scale::FINEST,
                    dominant: Resource::Cpu,
                    commitment: metadata_and_seed,
                    list: ProvenList::new(vec![nonce; 9]).unwrap(),
                }),
                sealed: Sealed::Part(Box::new(part)),
                ..job()
            }
        };
        let (first, scaled) = (encrypted(1, 7), encrypted(2, 7));
        assert_ne!(first.digest(), scaled.digest());
        assert_eq!(first.template(), scaled.template());
        assert_ne!(first.template(), encrypted(2, 8).template(), "something sealed is another");
        let mut other = scaled.clone();
        other.args.push("--new".to_owned());
        assert_ne!(first.template(), other.template());
        let ResourceRequest::Encrypted(request) = &mut other.request else { panic!("in clear") };
        request.dominant = Resource::Gpu;
        assert_ne!(JobSpec { args: first.args.clone(), ..other }.template(), first.template());
        let plain = JobSpec { sealed: Sealed::Nothing, ..first.clone() };
        assert_ne!(first.template(), plain.template(), "nothing is sealed");
    }

    #[test]
    fn a_system_job_rolls_as_a_service_does_and_has_no_number_of_replicas() {
        let system = JobSpec { kind: JobType::System, replicas: 1, ..job() };
        let (terms, service) = (system.terms(), JobSpec { replicas: 1, ..job() }.terms());
        assert!(terms.is_system() && !service.is_system());
        assert_eq!(VersionTerms { replicas: 1, ..terms }, service);
        let again = JobSpec { nonce: system.nonce + 1, ..system.clone() };
        assert_eq!(again.template(), system.template(), "it starts nothing anew");
        assert_ne!(system.template(), JobSpec { replicas: 1, ..job() }.template());
    }

    #[test]
    fn what_cannot_run_twice_at_once_stops_first() {
        let fixed = Port {
            name: "http".parse().unwrap(),
            container: NonZeroU16::new(80).unwrap(),
            protocol: Protocol::Tcp,
            host: HostPort::Fixed(NonZeroU16::new(8080).unwrap()),
        };
        let plain = JobSpec { ports: Vec::new(), lease: LeasePolicy::Keep, ..job() };
        assert!(plain.terms().rolls && !plain.terms().stops_first);
        let bound = JobSpec { ports: vec![fixed.clone()], ..plain.clone() };
        assert!(bound.terms().rolls && bound.terms().stops_first);
        let dynamic = Port { host: HostPort::Dynamic, ..fixed };
        assert!(!JobSpec { ports: vec![dynamic], ..plain.clone() }.terms().stops_first);
        let lease = LeasePolicy::Exclusive { seconds: 60 };
        assert!(JobSpec { lease, ..plain.clone() }.terms().stops_first);
        let batch = JobSpec { kind: JobType::Batch { max_attempts: 1 }, ..plain };
        assert!(!batch.terms().rolls && batch.terms().stops_first);
    }
}
