//! What the words mean in which engines and registries refuse a pull.
//!
//! An engine passes on the registry's answer as a sentence, often with a status of its own: Docker 20.10
//! says 500 where the registry said 429, and 200 where it finds out while it pulls. The sentences here are
//! those of Docker with its own image store and with containerd's, and of Podman.

use bollard::errors::Error;
use veil_protocol_spec::scheduling::ImageReference;

use crate::{
    error::{DockerError, ReplicaError},
    facts::EngineFacts,
};

/// Why `image` cannot be had, which was asked for with or without credentials.
pub(crate) fn of_pull(
    image: &ImageReference,
    facts: &EngineFacts,
    with_credentials: bool,
    error: &DockerError,
) -> ReplicaError {
    let (image, reason) = (image.clone(), error.to_string());
    let (status, words) = match error {
        DockerError::Refused { status, message, .. } => (*status, message.to_lowercase()),
        // The status is lost once the engine has begun to answer.
        DockerError::Failed { source: Error::DockerStreamError { error }, .. } => {
            (200, error.to_lowercase())
        }
        _ => return ReplicaError::Pull { image, reason },
    };
    let says = |any: &[&str]| any.iter().any(|part| words.contains(part));
    let both = |one: &str, other: &str| words.contains(one) && words.contains(other);
    if status == 429 || says(&["toomanyrequests", "too many requests", "http 429", "status: 429"]) {
        ReplicaError::Limited { image, reason }
    } else if says(&["application/vnd.in-toto"]) {
        ReplicaError::Attestation { image }
    } else if says(&["no matching manifest for", "no image found in"]) {
        ReplicaError::WrongPlatform { image, wants: facts.platform(), reason }
    // The content is what the digest says, so the next attempt brings the same.
    } else if says(&["invalid tar header"]) || both("error processing tar file", "unexpected eof") {
        let engine = format!("{} {}", facts.engine, facts.version);
        ReplicaError::Unreadable { image, engine, reason }
    } else if says(&["verification failed for digest", "does not match provided manifest digest"]) {
        ReplicaError::WrongContent { image, reason }
    } else if with_credentials
        && (status == 401
            || says(&["unauthorized", "incorrect username or password", "authentication required"]))
    {
        ReplicaError::Credentials { image, reason }
    } else if says(&["manifest unknown"])
        || (400..500).contains(&status) && status != 408
        || says(&["not found"]) && !says(&["blob"])
    {
        ReplicaError::NoSuchImage { image, reason }
    } else {
        ReplicaError::Pull { image, reason }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use veil_node_process::moment::asked_to_wait;

    use super::*;

    fn refused(status: u16, message: &str) -> DockerError {
        DockerError::Refused { call: "pull", status, message: message.to_owned() }
    }

    fn facts() -> EngineFacts {
        EngineFacts {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            engine: "Docker".to_owned(),
            version: "20.10.24".to_owned(),
        }
    }

    fn image() -> ImageReference {
        format!("r.example/app@sha256:{}", "ab".repeat(32)).parse().unwrap()
    }

    fn broken(error: &str) -> DockerError {
        let source = Error::DockerStreamError { error: error.to_owned() };
        DockerError::Failed { call: "pull", source }
    }

    /// The sentences of Docker 20.10.24, but for those that name another engine.
    #[test]
    fn every_refusal_has_its_name_and_only_what_can_change_is_tried_again() {
        let (facts, image) = (facts(), image());
        let unpacking = "failed to register layer: Error processing tar file(exit status 1): ";
        for (error, name, is_final) in [
            (
                refused(500, "toomanyrequests: You have reached your pull rate limit."),
                "Limited",
                false,
            ),
            (
                refused(500, "error parsing HTTP 429 response body: invalid character"),
                "Limited",
                false,
            ),
            (refused(429, "slow down"), "Limited", false),
            (
                refused(500, "received unexpected HTTP status: 503 Service Unavailable"),
                "Pull",
                false,
            ),
            (
                refused(500, "Get \"https://r.example/v2/\": dial tcp: connection refused"),
                "Pull",
                false,
            ),
            (refused(408, "time is over"), "Pull", false),
            (broken(&format!("{unpacking}write /x: no space left on device")), "Pull", false),
            (broken("download failed after attempts=1: unknown blob"), "Pull", false),
            (DockerError::Timeout { call: "pull", deadline: Duration::ZERO }, "Pull", false),
            (broken(&format!("{unpacking}archive/tar: invalid tar header")), "Unreadable", true),
            (broken(&format!("{unpacking}unexpected EOF")), "Unreadable", true),
            (broken("unsupported media type application/vnd.in-toto+json"), "Attestation", true),
            (
                broken("no matching manifest for linux/amd64 in the manifest list entries"),
                "WrongPlatform",
                true,
            ),
            // Podman.
            (
                refused(
                    500,
                    "choosing an image: no image found in image index for architecture amd64",
                ),
                "WrongPlatform",
                true,
            ),
            (broken("manifest verification failed for digest sha256:634843"), "WrongContent", true),
            (
                refused(404, "manifest for r.example/app not found: manifest unknown"),
                "NoSuchImage",
                true,
            ),
            (broken("manifest for r.example/app not found: manifest unknown"), "NoSuchImage", true),
            (refused(404, "pull access denied for r.example/app: denied"), "NoSuchImage", true),
        ] {
            let refusal = of_pull(&image, &facts, false, &error);
            let shown = format!("{refusal:?}");
            assert!(shown.starts_with(name), "{error}: {shown}");
            assert_eq!(refusal.is_final(), is_final, "{error}");
            assert!(refusal.to_string().contains(image.as_str()), "{refusal}");
        }
    }

    /// The sentences of Docker 20.10.24 with `docker-registry` and with Docker Hub, and of Podman 4.3.
    #[test]
    fn refused_credentials_are_named_and_not_tried_again() {
        let (facts, image) = (facts(), image());
        for words in [
            "Head \"https://r.example/v2/app/manifests/sha256:ab\": unauthorized: authentication required",
            "Get \"https://registry-1.docker.io/v2/\": unauthorized: incorrect username or password",
            "no basic auth credentials; unauthorized",
        ] {
            let refused = of_pull(&image, &facts, true, &refused(500, words));
            assert!(matches!(refused, ReplicaError::Credentials { .. }), "{refused}");
            assert!(refused.is_final() && refused.to_string().contains("[registry]"), "{refused}");
            let without = of_pull(&image, &facts, false, &self::refused(500, words));
            assert!(!matches!(without, ReplicaError::Credentials { .. }), "{without}");
        }
    }

    #[test]
    fn what_is_said_about_waiting_is_understood() {
        let seconds = Duration::from_secs;
        for (words, expected) in [
            ("slow down; Retry-After: 77", Some(seconds(77))),
            ("toomanyrequests: retry-after: 1m2s, allowed: 44000/minute", Some(seconds(62))),
            ("retry-after: 250ms, allowed: 44000/minute", Some(Duration::from_millis(250))),
            ("Retry after 30 seconds", Some(seconds(30))),
            ("Retry-After: Wed, 21 Oct 2026 07:28:00 GMT", None),
            ("Retry-After: 1e999", Some(seconds(1))),
            ("Retry-After: ", None),
            ("Retry-After: 99999999999999999999999999", Some(Duration::MAX)),
            ("You have reached your pull rate limit.", None),
        ] {
            assert_eq!(asked_to_wait(words), expected, "{words}");
        }
    }
}
