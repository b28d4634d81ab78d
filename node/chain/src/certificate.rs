//! A certificate as the argument of several contracts.

/// The body of a certificate in a contract's type of it. alloy makes one type for each contract that
/// takes it, with the same fields.
macro_rules! certificate_arguments {
    ($type:path, $body:expr) => {{
        let body: &veil_protocol_spec::scheduling::CertificateBody = $body;
        $type {
            cluster: body.binding.scope.cluster.0.into(),
            epoch: body.binding.epoch.0,
            keySet: body.binding.key_set.0.into(),
            slot: body.slot.0,
            manifest: body.manifest.0.into(),
            previous: body.previous.0.into(),
            base: body.base.0.into(),
            jobsSeen: body.jobs_seen,
            evaluation: body.evaluation.0.into(),
            membersOnly: body.members_only.0.into(),
            assignmentsRoot: body.assignments_root.0.into(),
            stateRoot: body.state_root.0.into(),
            referenceStringOrigin: body.reference_string as u8,
        }
    }};
}

pub(crate) use certificate_arguments;
