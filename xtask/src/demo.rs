//! The main job with one command: sets up what is missing, then runs a cluster with a sample job.

use crate::{
    setup,
    step::{Failed, Step},
};

const NAME: &str = "demo";

/// Sets up and runs `veil devnet`, which ends after the placement unless it is to `stay`; `args`
/// are passed on.
pub(crate) fn run(stay: bool, args: &[String]) -> Result<(), Failed> {
    let containers = setup::run()?;
    let mut line = vec!["run", "--release", "--bin", "veil", "--", "devnet"];
    if !args.iter().any(|arg| arg == "--image" || arg.starts_with("--image=")) {
        line.extend(["--image", &containers.image]);
    }
    if !stay && !args.iter().any(|arg| arg == "--exit-after-placement") {
        line.push("--exit-after-placement");
    }
    line.extend(args.iter().map(String::as_str));
    let step = Step::cargo(NAME, &line);
    match &containers.socket {
        Some(socket) => step.env("VEIL_DOCKER_SOCKET", socket),
        None => step,
    }
    .run()
}
