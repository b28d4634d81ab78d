//! `veil completions` and `veil man`: both are made of the arguments themselves, and cannot say otherwise.

use std::{fs, io, path::PathBuf};

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::{
    Cli,
    failure::{Exit, Failure},
    help::{ABOUT, EXIT_CODES, STARTS, Start},
    output,
    run::conclude,
};

/// What `whatis veil` says.
const NAME: &str = "confidential, decentralised container orchestration";

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell that reads them.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct Manual {
    /// Write the pages of all commands into this folder, over those that are there.
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Print this page instead of writing all.
    #[arg(long, value_name = "PAGE", default_value = "veil", conflicts_with = "folder")]
    page: String,
}

/// `veil completions`.
pub(super) fn completions(arguments: &Completions) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "veil", &mut script);
    conclude(false, output::print(|out| out.write_all(&script)).map(|_| Exit::Done))
}

/// `veil man`.
pub(super) fn manual(arguments: &Manual) -> Exit {
    conclude(false, carry_out(arguments))
}

fn carry_out(arguments: &Manual) -> Result<Exit, Failure> {
    let pages = pages().map_err(|error| Failure::new(Exit::Failed, "internal", error))?;
    let Some(folder) = &arguments.folder else {
        let wanted = &arguments.page;
        let page = pages.iter().find(|page| page.name == *wanted).ok_or_else(|| {
            Failure::usage(format!(
                "there is no page {wanted}: pages are named as in veil-job-submit; `veil man DIR` writes all"
            ))
        })?;
        return output::print(|out| out.write_all(&page.text)).map(|_| Exit::Done);
    };
    fs::create_dir_all(folder).map_err(Failure::file(folder))?;
    for page in &pages {
        let path = folder.join(format!("{}.1", page.name));
        fs::write(&path, &page.text).map_err(Failure::file(&path))?;
    }
    let folder = folder.display();
    output::print(|out| {
        writeln!(out, "{} pages written; `man -l {folder}/veil.1` shows the first", pages.len())
    })?;
    Ok(Exit::Done)
}

struct Page {
    /// As in `veil-job-submit`.
    name: String,
    text: Vec<u8>,
}

/// One page for each command, those that only hold others among them.
fn pages() -> io::Result<Vec<Page>> {
    let mut root = Cli::command().about(NAME).long_about(ABOUT).disable_help_subcommand(true);
    root.build();
    let mut pages = Vec::new();
    collect(&root, None, &mut pages)?;
    Ok(pages)
}

fn collect(command: &clap::Command, above: Option<&str>, pages: &mut Vec<Page>) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let text = page(command, above)?;
    pages.push(Page { name: name.to_owned(), text });
    // Clap adds a `help` to each command that holds others.
    let below = command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help");
    below.into_iter().try_for_each(|command| collect(command, Some(name), pages))
}

fn page(command: &clap::Command, above: Option<&str>) -> io::Result<Vec<u8>> {
    let version = command.get_version().unwrap_or_default();
    let man = Man::new(command.clone()).manual("Veil").source(format!("Veil {version}"));
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut more = Roff::new();
    if above.is_none() {
        more.control("SH", ["FIRST STEPS"]);
        for Start { who, command, then } in STARTS {
            more.control("TP", []);
            more.text([roman(*who)]);
            more.text([bold(*command), roman(": "), roman(*then)]);
        }
    }
    more.control("SH", ["EXIT STATUS"]);
    for (code, means) in EXIT_CODES {
        more.control("TP", []);
        more.text([bold(code.to_string())]);
        more.text([roman(*means)]);
    }
    if let Some(above) = above {
        more.control("SH", ["SEE ALSO"]);
        more.text([bold(above), roman("(1)")]);
    }
    more.to_writer(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_is_shown_has_a_page() {
        fn names(command: &clap::Command, name: &str, found: &mut Vec<String>) {
            found.push(name.to_owned());
            for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
                names(below, &format!("{name}-{}", below.get_name()), found);
            }
        }
        let mut expected = Vec::new();
        names(&Cli::command(), "veil", &mut expected);
        assert!(expected.contains(&"veil-chain-policy-set".to_owned()), "{expected:?}");
        let pages: Vec<_> = pages().unwrap().into_iter().map(|page| page.name).collect();
        assert_eq!(pages, expected);
    }
}
