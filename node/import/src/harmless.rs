//! Keys that can be left out and change nothing that a program of the job sees, or that Veil says in another way.
//!
//! Every other key that is not used counts as changed behaviour. `docs/import.md` lists the same keys with the same
//! reasons, and a test compares both.

use crate::report::Format;

/// Keys of one format, with the reason of each.
type Table = &'static [(&'static str, &'static str)];

const COMPOSE: Table = &[
    ("version", "Compose itself ignores it"),
    ("x-*", "an extension that no program of the job reads"),
    ("annotations", "metadata of the container, which its program does not see"),
    ("attach", "which logs `docker compose up` shows"),
    (
        "container_name",
        "other services reach it under this name by links; the container's own name is the worker's",
    ),
    ("cpu_shares", "a weight among the containers of one machine: a job has its CPU to itself"),
    (
        "deploy.endpoint_mode",
        "links carry connections to each healthy replica in turn, as `vip` does",
    ),
    ("deploy.labels", "metadata of the service, which its program does not see"),
    ("deploy.placement.preferences", "`policy = \"spread\"` is the default"),
    (
        "deploy.resources.reservations",
        "a job asks for its limits; where there are none, for what is reserved",
    ),
    ("deploy.rollback_config", "a version that comes back follows the rules of its own `[update]`"),
    ("deploy.update_config.delay", "`update.min_healthy` is waited for before the next replica"),
    ("deploy.update_config.max_failure_ratio", "one failure reverts the version"),
    (
        "deploy.update_config.order",
        "a new replica is healthy before the old one stops, unless both need one fixed port",
    ),
    ("depends_on.required", "what is depended on is a job of the same file"),
    ("depends_on.restart", "links lead to the new container by themselves"),
    ("develop", "for `docker compose watch`"),
    ("env_file.format", "the file is read at import"),
    ("healthcheck.start_interval", "the probe's interval holds from the start"),
    (
        "labels",
        "metadata of the container, which its program does not see; what a proxy reads there is named by itself",
    ),
    ("logging", "the worker keeps the log: `veil job logs`"),
    ("mem_reservation", "a job asks for its limit; where there is none, for what is reserved"),
    ("mem_swappiness", "there is no swap"),
    ("memswap_limit", "there is no swap"),
    ("networks.driver_opts", "of the network's bridge on one machine"),
    ("networks.gw_priority", "a job has one network"),
    ("networks.priority", "a job has one network"),
    ("networks.*.attachable", "only `docker run` asks for it"),
    ("networks.*.enable_ipv4", "workers decide it"),
    ("networks.*.enable_ipv6", "workers decide it"),
    ("networks.*.external", "jobs of other files are linked by hand: `[[link]] job = \"...\"`"),
    ("networks.*.ipam", "links have names, not addresses"),
    ("networks.*.labels", "metadata of the network"),
    ("networks.*.name", "only the engine uses it"),
    ("oom_score_adj", "which program a machine out of memory ends: a job has its memory to itself"),
    ("ports.app_protocol", "only proxies read it"),
    (
        "ports.host_ip",
        "of this machine: the port is reached by links and `veil job forward`, or on the worker's address",
    ),
    ("ports.mode", "a replica's port is on its own worker"),
    ("ports.udp", "a link carries connections, no datagrams; the published port is kept"),
    ("profiles", "each job is submitted by itself"),
    ("pull_policy", "an image with a digest does not change"),
    (
        "configs.gid",
        "sealed files can be read by every user in the container, unless `mode` says less",
    ),
    (
        "configs.uid",
        "sealed files can be read by every user in the container, unless `mode` says less",
    ),
    (
        "secrets.gid",
        "sealed files can be read by every user in the container, unless `mode` says less",
    ),
    (
        "secrets.uid",
        "sealed files can be read by every user in the container, unless `mode` says less",
    ),
    ("security_opt.no-new-privileges", "it always holds"),
    ("tty", "the program writes to the log, not to a terminal"),
    ("volumes.bind", "a file is sealed, a folder is a volume that a worker offers"),
    ("volumes.consistency", "engines ignore it"),
    ("volumes.localtime", "the time zone of one machine: say `[env] TZ = \"...\"`"),
    ("volumes.selinux", "labels are the worker's"),
    ("volumes.shared", "jobs that share a host volume run where it is: let one worker offer it"),
    (
        "volumes.sealed-folder",
        "the files of the folder are sealed, for reading; what the program writes there is lost",
    ),
    ("volumes.*.external", "workers offer the volume by name"),
    ("volumes.*.labels", "metadata of the volume"),
];

const KUBERNETES: Table = &[
    ("metadata.annotations", "programs of the cluster read it, not the container's"),
    ("metadata.generateName", "jobs have names"),
    ("metadata.labels", "what Services select by; jobs are linked by name"),
    ("metadata.namespace", "jobs of an operator are in one space of names"),
    ("status", "written by the cluster, not by people"),
    (
        "spec.activeDeadlineSeconds",
        "counted by the cluster's controller: stop the job with `veil job stop`",
    ),
    ("spec.completionMode", "`NonIndexed` is the default"),
    (
        "spec.concurrencyPolicy",
        "`Allow` is the default: runs that do not overlap see no difference",
    ),
    ("spec.failedJobsHistoryLimit", "how many objects the cluster keeps"),
    ("spec.manualSelector", "replicas belong to their job"),
    ("spec.minReadySeconds", "`update.min_healthy` says it"),
    ("spec.parallelism", "as many at once as there are to be done"),
    ("spec.persistentVolumeClaimRetentionPolicy", "what is in a host volume is never removed"),
    ("spec.podManagementPolicy", "replicas are placed as there is room"),
    ("spec.progressDeadlineSeconds", "`update.healthy_deadline` says it"),
    ("spec.revisionHistoryLimit", "a cluster remembers the last 8 versions"),
    ("spec.selector", "replicas belong to their job"),
    ("spec.serviceName", "links carry connections to each healthy replica in turn"),
    ("spec.startingDeadlineSeconds", "of several times that have passed only the last one is run"),
    (
        "spec.strategy",
        "a new replica is healthy before the old one stops; with `Recreate` the old one stops first: `lease`",
    ),
    ("spec.successfulJobsHistoryLimit", "how many objects the cluster keeps"),
    ("spec.suspend", "`false` is the default"),
    ("spec.ttlSecondsAfterFinished", "stop jobs that are done with `veil job stop`"),
    (
        "spec.updateStrategy",
        "a new replica is healthy before the old one stops, unless both need one fixed port",
    ),
    ("affinity.preferred", "what is only preferred; `policy` says which worker of those with room"),
    ("automountServiceAccountToken", "there is no cluster that a token would open"),
    ("dnsPolicy", "the worker's resolver is asked; links have names of their own"),
    (
        "enableServiceLinks",
        "links have names; write variables into `[env]` if the program reads them",
    ),
    ("imagePullSecrets", "`[registry] from = \"docker\"` takes what `docker login` left"),
    ("nodeSelector.kubernetes.io/os", "workers run Linux"),
    ("preemptionPolicy", "no replica is ended for another one's sake"),
    ("priorityClassName", "`placement.priority` orders jobs of one operator"),
    ("schedulerName", "there is one way of placing"),
    ("securityContext.allowPrivilegeEscalation", "it never is"),
    (
        "securityContext.fsGroup",
        "host volumes have the owner that their worker's operator gave them; sealed files are for all",
    ),
    ("securityContext.fsGroupChangePolicy", "belongs to `fsGroup`"),
    ("securityContext.privileged", "`false` is the only value that jobs have"),
    ("securityContext.runAsNonRoot", "a check of `user`, not a setting"),
    ("securityContext.seccompProfile", "the engine's default profile always holds"),
    ("serviceAccount", "there is no cluster that an account would open"),
    (
        "serviceAccountName",
        "there is no cluster that an account would open; a Role that the file has is named by itself",
    ),
    ("shareProcessNamespace", "of one container with itself"),
    ("topologySpreadConstraints", "what is only preferred; `policy = \"spread\"` is the default"),
    (
        "tolerations",
        "no worker keeps jobs away by taints; `deny` names labels that a worker must not have",
    ),
    ("containers.image.pullPolicy", "an image with a digest does not change"),
    (
        "containers.resources.requests",
        "a job asks for its limits; where there are none, for what is requested",
    ),
    ("containers.terminationMessagePath", "the end of the log says the same"),
    ("containers.terminationMessagePolicy", "the end of the log says the same"),
    ("containers.tty", "the program writes to the log, not to a terminal"),
    ("containers.probe.successThreshold", "one success makes a replica healthy"),
    (
        "containers.readinessProbe",
        "a job has one probe, that of `livenessProbe`; links lead to replicas that are healthy by it",
    ),
    ("containers.startupProbe", "`health.start_period` covers the time that it grants"),
    ("volumes.hostPath.type", "a worker offers a folder that is there"),
    ("volumes.shared", "jobs that share a host volume run where it is: let one worker offer it"),
    ("volumes.unused", "no container mounts it"),
    (
        "PersistentVolumeClaim",
        "a claim is a host volume of its name, whose size is that of the worker's folder",
    ),
    ("PersistentVolume", "workers offer host volumes by name"),
    ("StorageClass", "workers offer host volumes by name"),
    ("Namespace", "jobs of an operator are in one space of names"),
    ("ServiceAccount", "there is no cluster that an account would open"),
    ("PodDisruptionBudget", "a drained worker's replicas are healthy elsewhere before they stop"),
    ("PriorityClass", "`placement.priority` orders jobs of one operator"),
    ("LimitRange", "a job file says what a replica gets"),
    ("ResourceQuota", "a quota is the cluster's, on chain"),
    ("Service.spec.allocateLoadBalancerNodePorts", "of the cluster's load balancer"),
    ("Service.spec.clusterIP", "links have names, not addresses"),
    ("Service.spec.clusterIPs", "links have names, not addresses"),
    ("Service.spec.externalTrafficPolicy", "a published port is on the replica's own worker"),
    ("Service.spec.internalTrafficPolicy", "links lead to healthy replicas, wherever they run"),
    ("Service.spec.ipFamilies", "workers decide it"),
    ("Service.spec.ipFamilyPolicy", "workers decide it"),
    ("Service.spec.loadBalancerIP", "a published port is on the worker's address"),
    ("Service.spec.publishNotReadyAddresses", "links lead to healthy replicas"),
    ("Service.spec.sessionAffinity", "`None` is the default"),
    (
        "Service.spec.ports.udp",
        "a link carries connections, no datagrams; a published port is kept",
    ),
    ("Service.unused", "it selects nothing in the file"),
];

const AKASH: Table = &[
    ("version", "of the language, not of what runs"),
    ("dependencies", "Akash reads it, and does nothing by it"),
    ("endpoints", "a fixed port is on the address of the worker"),
    (
        "expose.accept",
        "names of hosts are of Akash's proxy: let them lead to the endpoints of the job",
    ),
    ("expose.http_options", "limits of Akash's proxy; no proxy stands before a job's port"),
    ("expose.ip", "the port has its number on the address of the worker"),
    ("expose.udp", "a link carries connections, no datagrams; the published port is kept"),
    (
        "profiles.compute.gpu.interface",
        "a label of the worker can say it: `allow = [\"gpu-interface=...\"]`",
    ),
    (
        "profiles.compute.gpu.ram",
        "a label of the worker can say it: `allow = [\"gpu-memory=...\"]`",
    ),
    (
        "profiles.compute.gpu.vendor",
        "a label of the worker can say it: `allow = [\"gpu-vendor=...\"]`",
    ),
    ("profiles.compute.storage.class", "what a host volume lies on is its worker's matter"),
    (
        "profiles.compute.storage.size",
        "of a host volume: that of the folder that the worker offers",
    ),
    (
        "profiles.placement.attributes",
        "attributes are of Akash's providers: `placement.allow` names labels of workers",
    ),
    (
        "profiles.placement.pricing",
        "a cluster's workers have prices of their own: `placement.policy = \"cost\"`",
    ),
    (
        "profiles.placement.signedBy",
        "auditors are of Akash: `placement.organisations` names whom the cluster's admin approved",
    ),
    ("params.permissions", "there is no cluster that a permission would open"),
];

/// Keys of a format, with their reasons, in the order of `docs/import.md`.
#[must_use]
pub const fn table(format: Format) -> Table {
    match format {
        Format::Compose => COMPOSE,
        Format::Kubernetes => KUBERNETES,
        Format::Akash => AKASH,
    }
}

/// Why a key can be left out, if it can.
#[must_use]
pub fn reason(format: Format, key: &str) -> Option<&'static str> {
    let is = |listed: &str| {
        listed == key || listed.strip_suffix('*').is_some_and(|begin| key.starts_with(begin))
    };
    table(format).iter().find(|(listed, _)| is(listed)).map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The list in `docs/import.md` is this one.
    #[test]
    fn the_document_lists_what_may_be_left_out() {
        let document = include_str!("../../../docs/import.md");
        for format in [Format::Compose, Format::Kubernetes, Format::Akash] {
            let heading = format!("### Left out of {}\n", format.name());
            let (_, section) = document.split_once(&heading).expect("a section of the format");
            let section = section.split("\n#").next().unwrap_or_default();
            let rows = section.lines().filter_map(|line| {
                let (key, reason) = line.strip_prefix("| `")?.split_once("` | ")?;
                Some((key, reason.strip_suffix(" |")?))
            });
            let documented: Vec<_> = rows.collect();
            assert_eq!(documented, table(format), "{}", format.name());
        }
    }

    #[test]
    fn each_key_is_listed_once() {
        for format in [Format::Compose, Format::Kubernetes, Format::Akash] {
            let mut keys: Vec<_> = table(format).iter().map(|(key, _)| *key).collect();
            keys.sort_unstable();
            let all = keys.len();
            keys.dedup();
            assert_eq!(all, keys.len());
        }
        assert!(reason(Format::Compose, "x-anything").is_some());
        assert!(reason(Format::Compose, "privileged").is_none());
    }
}
