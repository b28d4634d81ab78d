//! What Podman takes otherwise than Docker, whose API it speaks: a container that is made for Docker, changed so
//! that it is the same there.
//!
//! What Podman cannot do and does not refuse is refused before: GPUs ([`ReplicaError::NoGpusOfPodman`]), another
//! runtime than its own ([`DockerError::OtherRuntime`](crate::DockerError::OtherRuntime)).

use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig};

use crate::{error::ReplicaError, executor::Executor};

/// A day: the worker is the clock of health checks, and systemd's, where Podman has it, is to leave them alone.
const NEVER: i64 = 86_400 * 1_000_000_000;

impl Executor {
    /// Changes `body` to what the engine takes for what Docker takes it for.
    pub(crate) async fn adapt(&self, body: &mut ContainerCreateBody) -> Result<(), ReplicaError> {
        if !self.facts().await?.is_podman() {
            return Ok(());
        }
        if let Some(runtime) = &self.terms.runtime {
            self.docker.check_runtime(runtime).await?; // or it runs by another one without a word
        }
        let user = match (&body.user, &body.image) {
            (None, Some(image)) => self.docker.image(image).await?.config.and_then(|of| of.user),
            (user, _) => user.clone(),
        };
        for_podman(body, user.as_deref().unwrap_or_default());
        Ok(())
    }
}

/// `user` is whom the program runs as.
fn for_podman(body: &mut ContainerCreateBody, user: &str) {
    if let Some(check) = &mut body.healthcheck {
        adapt_check(check);
    }
    if let Some(host) = &mut body.host_config {
        adapt_host(host, is_root(user));
    }
}

fn is_root(user: &str) -> bool {
    let name = user.split(':').next().unwrap_or_default();
    name.is_empty() || name == "root" || name.parse() == Ok(0)
}

fn adapt_host(host: &mut HostConfig, is_root: bool) {
    // It has none of Docker's log drivers that bound what they keep.
    host.log_config = Some(HostConfigLogConfig {
        typ: Some("k8s-file".to_owned()),
        config: Some(HashMap::from([("max-size".to_owned(), "30m".to_owned())])),
    });
    // The address that stands for all of them it takes for one that no packet has.
    let bindings = host.port_bindings.iter_mut().flat_map(HashMap::values_mut);
    for binding in bindings.flatten().flatten() {
        binding.host_ip = binding.host_ip.take().filter(|address| address != "0.0.0.0");
    }
    // What is added by name it gives to other users than root, too, who have none of it on Docker.
    if !is_root {
        host.cap_add = None;
    }
    for options in host.tmpfs.iter_mut().flat_map(HashMap::values_mut) {
        *options = in_memory(options);
    }
}

/// It knows no `uid` and `gid`, but `U`: the container's user. And it would begin with what the image has there.
fn in_memory(options: &str) -> String {
    let is_owner = |option: &&str| option.starts_with("uid=") || option.starts_with("gid=");
    let owner = options.split(',').any(|option| is_owner(&option)).then_some("U");
    let kept = options.split(',').filter(|option| !is_owner(option));
    kept.chain(owner).chain(["notmpcopyup"]).collect::<Vec<_>>().join(",")
}

/// It joins the words of a command by spaces, and takes that apart again; but reads a list in JSON as it is.
fn adapt_check(check: &mut HealthConfig) {
    if let Some([kind, command @ ..]) = check.test.as_deref()
        && kind == "CMD"
        && command.len() > 1
    {
        check.test = Some(vec![serde_json::json!(command).to_string()]);
    }
    if check.interval.is_some() {
        check.interval = Some(NEVER);
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::PortBinding;

    use super::*;

    fn adapted(host: HostConfig, user: &str) -> HostConfig {
        let mut body =
            ContainerCreateBody { host_config: Some(host), ..ContainerCreateBody::default() };
        for_podman(&mut body, user);
        body.host_config.unwrap()
    }

    #[test]
    fn all_addresses_are_published_on_by_naming_none() {
        let bound = |address: &str| {
            let at = PortBinding { host_ip: Some(address.to_owned()), ..PortBinding::default() };
            let bindings = Some([("80/tcp".to_owned(), Some(vec![at]))].into());
            let host = adapted(HostConfig { port_bindings: bindings, ..HostConfig::default() }, "");
            host.port_bindings.unwrap()["80/tcp"].clone().unwrap()[0].host_ip.clone()
        };
        assert_eq!(bound("0.0.0.0"), None);
        assert_eq!(bound("127.0.0.1").as_deref(), Some("127.0.0.1"));
    }

    #[test]
    fn capabilities_are_for_root_alone() {
        let added = Some(vec!["CAP_CHOWN".to_owned()]);
        for (user, is_root) in [
            ("", true),
            ("0", true),
            ("00:5", true),
            ("root", true),
            ("root:adm", true),
            ("101", false),
            ("101:0", false),
            ("web", false),
        ] {
            let host = HostConfig { cap_add: added.clone(), ..HostConfig::default() };
            assert_eq!(adapted(host, user).cap_add.is_some(), is_root, "{user}");
        }
    }

    #[test]
    fn folders_in_memory_belong_to_the_user_and_begin_empty() {
        for (docker, podman) in [
            ("rw,mode=1777,size=4096", "rw,mode=1777,size=4096,notmpcopyup"),
            ("ro,size=4096,uid=101", "ro,size=4096,U,notmpcopyup"),
            ("rw,size=4096,uid=101,gid=102", "rw,size=4096,U,notmpcopyup"),
        ] {
            let tmpfs = Some(HashMap::from([("/tmp".to_owned(), docker.to_owned())]));
            let host = adapted(HostConfig { tmpfs, ..HostConfig::default() }, "");
            assert_eq!(host.tmpfs.unwrap()["/tmp"], podman);
        }
    }

    #[test]
    fn the_words_of_a_check_stay_what_they_are() {
        for (docker, podman) in [
            (&["NONE"][..], &["NONE"][..]),
            (&["CMD", "/bin/check"], &["CMD", "/bin/check"]),
            (&["CMD", "sh", "-c", "a  \"b\""], &[r#"["sh","-c","a  \"b\""]"#]),
        ] {
            let words = |list: &[&str]| list.iter().map(|&one| one.to_owned()).collect::<Vec<_>>();
            let mut check = HealthConfig {
                test: Some(words(docker)),
                interval: Some(1_000_000_000),
                ..HealthConfig::default()
            };
            adapt_check(&mut check);
            assert_eq!(check.test, Some(words(podman)));
            assert_eq!(check.interval, Some(NEVER));
        }
    }
}
