//! `[resources]` and `[placement]`: what a replica needs, and where it may run.

use veil_protocol_spec::scheduling::{
    AntiAffinity, Constraints, CpuUnits, DiskUnits, FailureDomain, GpuUnits, Label, LabelKey,
    LatencyClass, MemoryUnits, Organisation, Organisations, Priority, RequestTooLarge, Resources,
    SchedulingPolicy, Strength,
};

use super::{
    document::{Parsed, Reader, Value},
    problem::Reason,
    values::{boolean, bytes, devices, list, millicores, parsed, refused, whole, word},
};

/// `[resources]`; `None` if CPU or memory is missing.
pub(super) fn resources(reader: &mut Reader<'_>) -> Option<Resources> {
    fn covering<T>(
        value: &Value<'_>,
        amount: Parsed<u64>,
        units: fn(u64) -> Result<T, RequestTooLarge>,
    ) -> Parsed<T> {
        units(amount?).or_else(|error| refused(value, Reason::Value(error.to_string())))
    }

    let root = reader.root();
    reader.require(root, "resources.cpu", "[resources] cpu = \"500m\"");
    reader.require(root, "resources.memory", "[resources] memory = \"256Mi\"");
    let cpu = reader.get_as(root, "resources.cpu", |path, value| {
        covering(value, millicores(path, value), CpuUnits::covering)
    });
    let memory = reader.get_as(root, "resources.memory", |path, value| {
        covering(value, bytes(path, value), MemoryUnits::covering)
    });
    let disk = reader.get_as(root, "resources.disk", |path, value| {
        covering(value, bytes(path, value), DiskUnits::covering)
    });
    let gpu =
        reader.top("resources.gpus", |value| covering(value, devices(value), GpuUnits::covering));
    Some(Resources {
        cpu: cpu?,
        memory: memory?,
        disk: disk.unwrap_or_default(),
        gpu: gpu.unwrap_or_default(),
    })
}

pub(super) fn priority(reader: &mut Reader<'_>) -> Priority {
    let priority = reader.top("placement.priority", |value| whole(value, 0..=u8::MAX));
    Priority(priority.unwrap_or_default())
}

pub(super) fn policy(reader: &mut Reader<'_>) -> SchedulingPolicy {
    let words = [
        ("spread", SchedulingPolicy::Spread),
        ("bin_pack", SchedulingPolicy::BinPack),
        ("priority_round_robin", SchedulingPolicy::PriorityRoundRobin),
        ("cost", SchedulingPolicy::Cost),
    ];
    reader.top("placement.policy", |value| word(value, &words)).unwrap_or_default()
}

fn label(value: &Value<'_>) -> Parsed<Label> {
    if value.get_ref().is_table() {
        return refused(value, Reason::Value("write a label as \"gpu=a100\"".to_owned()));
    }
    parsed(value)
}

fn labels(value: &Value<'_>) -> Parsed<Vec<Label>> {
    let mut labels = list(value, "a list of labels, such as [\"gpu=a100\"],", label)?;
    labels.sort();
    Ok(labels)
}

/// A list of names, or "any".
fn organisations(value: &Value<'_>) -> Parsed<Organisations> {
    if value.get_ref().is_str() {
        return word(value, &[("any", ())]).map(|()| Organisations::Any);
    }
    let mut names: Vec<Organisation> = list(value, "\"any\" or a list of names", parsed)?;
    names.sort();
    Ok(Organisations::Of(names))
}

fn latency(value: &Value<'_>) -> Parsed<LatencyClass> {
    let class = whole(value, 0..=LatencyClass::MAX)?;
    LatencyClass::new(class).or_else(|error| refused(value, Reason::Value(error.to_string())))
}

/// `[placement]`.
pub(super) fn constraints(reader: &mut Reader<'_>) -> Constraints {
    let words = [("soft", Strength::Soft), ("hard", Strength::Hard)];
    let strength = reader.top("placement.anti_affinity", |value| word(value, &words));
    if !reader.has(reader.root(), "placement.anti_affinity") {
        let only_with = "anti_affinity = \"soft\" or \"hard\"";
        reader.refuse(reader.root(), &["placement.failure_domain"], only_with);
    }
    let label: Option<LabelKey> = reader.top("placement.failure_domain", parsed);
    let domain = label.map_or(FailureDomain::Worker, FailureDomain::Label);
    Constraints {
        allow: reader.top("placement.allow", labels).unwrap_or_default(),
        deny: reader.top("placement.deny", labels).unwrap_or_default(),
        anti_affinity: strength.map(|strength| AntiAffinity { strength, domain }),
        max_latency: reader.top("placement.max_latency", latency),
        prefer_previous: reader.top("placement.prefer_previous", boolean).unwrap_or_default(),
        organisations: reader.top("placement.organisations", organisations).unwrap_or_default(),
    }
}
