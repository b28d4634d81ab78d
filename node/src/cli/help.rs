//! What Veil is, who does what next, and what the exit codes say: for `--help`, and for the manual pages.

use veil_node_terminal::{standard_output, table::wrap};

/// What Veil is. Its lines are those that a terminal shows.
pub(super) const ABOUT: &str = "\
Veil runs containers on machines of several organisations, and shows nobody how
loaded a machine is. Workers encrypt what they measure, placement is computed on
the ciphertexts, and a committee that holds the key in shares decrypts nothing
but who runs what. It signs that, workers enforce it with Docker or Podman, and
an Ethereum contract anchors it.";

/// No line of it is longer: not every terminal is larger, and in a pipe clap breaks no lines.
const WIDTH: usize = 80;

/// Within how many characters clap breaks lines: those of the terminal. In a pipe or a file it breaks none, which is
/// what its 0 means, so that a search finds what is said of an option.
pub(super) fn columns() -> usize {
    standard_output().map_or(0, |size| size.columns)
}

/// What somebody does first.
pub(super) struct Start {
    /// Who that is, or wants to be.
    pub(super) who: &'static str,
    /// The next command.
    pub(super) command: &'static str,
    /// What comes after it.
    pub(super) then: &'static str,
}

/// Where to start, by what somebody is.
pub(super) const STARTS: &[Start] = &[
    Start {
        who: "You want to see it work",
        command: "veil devnet",
        then: "runs a whole network on this machine, with a job on it",
    },
    Start {
        who: "You run containers",
        command: "veil job init",
        then: "then `veil job validate`, `veil job plan`, `veil job submit`, `veil job status --watch`",
    },
    Start {
        who: "You run a worker",
        command: "veil config sample --role worker",
        then: "then `veil identity new`, `veil chain register --role worker`, `veil worker run`",
    },
    Start {
        who: "You sit in the committee",
        command: "veil config sample --role member",
        then: "then `veil identity new`, `veil chain register --role member`, `veil committee run`",
    },
    Start {
        who: "You administer a cluster",
        command: "veil chain deploy",
        then: "then `veil chain cluster`, `veil chain approve`, `veil ceremony propose`, `veil chain grant`",
    },
];

/// Exit codes of all commands, and what they say.
pub(super) const EXIT_CODES: &[(u8, &str)] = &[
    (0, "done"),
    (1, "the protocol, the chain, a node or a verification said no, or did not answer"),
    (2, "arguments, a configuration or a job file are wrong, or a command is missing"),
    (3, "a file could not be read or written, or a keystore not opened"),
    (130, "stopped at once, by a second Ctrl-C"),
];

/// What stands below the options in `veil --help`.
pub(super) fn after() -> String {
    let indented =
        |text: &str, indent: usize| wrap(text, WIDTH - indent).join(&format!("\n{:indent$}", ""));
    let starts = STARTS.iter().map(|Start { who, command, then }| {
        format!("  {who}:  {command}\n      {}\n", indented(then, 6))
    });
    let starts: Vec<_> = starts.collect();
    let codes =
        EXIT_CODES.iter().map(|(code, means)| format!("  {code:>3}  {}\n", indented(means, 7)));
    let codes: Vec<_> = codes.collect();
    format!(
        "What to do next:\n{}\nExit codes:\n{}\n\
         `veil COMMAND --help` says more of each. With --json a command prints one\n\
         object, also of an error.",
        starts.concat(),
        codes.concat()
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::{Cli, failure::Exit};

    /// The command that the words after `veil` name, options left out.
    fn is_command(text: &str) -> bool {
        let mut command = Cli::command();
        let mut words = text.split(' ').take_while(|word| !word.starts_with('-'));
        assert_eq!(words.next(), Some("veil"), "{text}");
        for word in words {
            let Some(next) = command.find_subcommand(word) else { return false };
            command = next.clone();
        }
        let options = text.split(' ').filter_map(|word| word.strip_prefix("--"));
        options
            .into_iter()
            .all(|name| command.get_arguments().any(|argument| argument.get_long() == Some(name)))
            && !command.has_subcommands()
    }

    #[test]
    fn every_command_that_is_told_to_beginners_exists() {
        assert!(!is_command("veil job") && !is_command("veil nonsense"));
        assert!(!is_command("veil job init --nonsense"));
        for Start { command, then, .. } in STARTS {
            assert!(is_command(command), "{command}");
            for quoted in then.split('`').skip(1).step_by(2) {
                assert!(is_command(quoted), "{quoted}");
            }
        }
    }

    #[test]
    fn the_exit_codes_are_all_that_commands_end_with() {
        for exit in [Exit::Done, Exit::Failed, Exit::Usage, Exit::Files] {
            let listed = EXIT_CODES.iter().any(|(code, _)| *code == exit.code());
            assert!(listed, "{exit:?}");
        }
        let documented = include_str!("../../../docs/cli.md");
        for (code, means) in EXIT_CODES {
            assert!(documented.contains(&format!("| {code} | {means} |")), "{code}");
        }
    }

    #[test]
    fn what_is_said_to_beginners_fits_every_terminal() {
        for line in ABOUT.lines().chain(after().lines()) {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
    }
}
