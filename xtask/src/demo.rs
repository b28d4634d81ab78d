//! One command that sets up what is missing, then runs a cluster with a sample job.

mod shop;

use clap::ValueEnum;

use crate::{failed::Failed, setup, step::Step};

const NAME: &str = "demo";

/// A folder of `examples` that is run in place of the sample job.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Example {
    /// Four jobs that are linked, from a Compose file.
    Shop,
}

/// Sets up and runs `veil devnet`, which ends after the placement unless `stay`; passes `args` on.
pub(crate) fn run(example: Option<Example>, stay: bool, args: &[String]) -> Result<(), Failed> {
    if let Some(Example::Shop) = example {
        setup::mmdebstrap()?;
    }
    let containers = setup::run()?;
    if let Some(Example::Shop) = example {
        return shop::run(&containers, stay, args);
    }
    let line = command_line(&containers.image, stay, args);
    let step = Step::cargo(NAME, &line);
    match &containers.socket {
        Some(socket) => step.env("VEIL_DOCKER_SOCKET", socket),
        None => step,
    }
    .run()
}

/// The arguments of cargo. An option that `args` contain is not added.
fn command_line<'a>(image: &'a str, stay: bool, args: &'a [String]) -> Vec<&'a str> {
    let mut line = vec!["run", "--release", "--bin", "veil", "--", "devnet"];
    if !args.iter().any(|arg| arg == "--image" || arg.starts_with("--image=")) {
        line.extend(["--image", image]);
    }
    if !stay && !args.iter().any(|arg| arg == "--exit-after-placement") {
        line.push("--exit-after-placement");
    }
    line.extend(args.iter().map(String::as_str));
    line
}

#[cfg(test)]
mod tests {
    use super::command_line;

    #[test]
    fn the_sample_image_runs_until_the_placement_unless_told_otherwise() {
        let given = |stay, args: &[&str]| {
            let args: Vec<_> = args.iter().map(|&arg| arg.to_owned()).collect();
            command_line("app@sha256:00", stay, &args)[6..].join(" ")
        };
        let image = "--image app@sha256:00";
        assert_eq!(given(false, &[]), format!("{image} --exit-after-placement"));
        assert_eq!(given(true, &["--json"]), format!("{image} --json"));
        assert_eq!(given(true, &["--image", "x"]), "--image x");
        let once = given(false, &["--exit-after-placement"]);
        assert_eq!(once, format!("{image} --exit-after-placement"));
    }
}
