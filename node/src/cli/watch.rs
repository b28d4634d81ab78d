//! `--watch`: what a command shows, again and again, until Ctrl-C or until nobody reads it.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::{select, time::sleep};
use veil_node_terminal::{standard_output, view::View};

use super::{
    failure::{Exit, Failure},
    output::{self, Reader, Shown},
    run::stop_on_signals,
};

#[derive(Debug, Args)]
pub(super) struct Watch {
    /// Look again every 2 seconds, or every so many as in --watch=10, until Ctrl-C: in place on a terminal, with --json
    /// one object a line.
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2",
        value_parser = clap::value_parser!(u16).range(1..=3600)
    )]
    watch: Option<u16>,
}

impl Watch {
    /// Shows what `look` finds, once or as often as it is asked for.
    ///
    /// # Errors
    /// Those of the first look, which says whether the arguments are right. Later on a node or a chain that does
    /// not answer is told and asked again; anything else ends it.
    pub(super) async fn show(
        &self,
        json: bool,
        look: impl AsyncFn() -> Result<Shown, Failure>,
    ) -> Result<Exit, Failure> {
        let Some(seconds) = self.watch else {
            let shown = look().await?;
            shown.print(json)?;
            return Ok(shown.exit);
        };
        let stop = stop_on_signals()?;
        let (mut view, mut last) = (View::default(), None::<Shown>);
        loop {
            let looked = select! {
                () = stop.cancelled() => break,
                looked = look() => looked,
            };
            let reader = match (looked, &last) {
                (Ok(shown), _) => {
                    let reader = again(&mut view, json, &shown, None)?;
                    last = Some(shown);
                    reader
                }
                (Err(failure), Some(last)) if failure.exit == Exit::Failed => {
                    again(&mut view, json, last, Some(&failure))?
                }
                (Err(failure), _) => return Err(failure),
            };
            if reader == Reader::Left {
                break;
            }
            select! {
                () = stop.cancelled() => break,
                () = sleep(Duration::from_secs(seconds.into())) => {}
            }
        }
        Ok(Exit::Done)
    }
}

/// Shows it once more, with what went wrong since.
fn again(
    view: &mut View,
    json: bool,
    shown: &Shown,
    wrong: Option<&Failure>,
) -> Result<Reader, Failure> {
    let wrong_in_words =
        wrong.map(|failure| format!("error: {}; it is asked again", failure.message));
    match (json, wrong, standard_output()) {
        (true, Some(failure), _) => {
            let object = json!({ "error": failure.message, "kind": failure.kind });
            output::show(true, &object, |_| Ok(()))
        }
        (true, None, _) => shown.print(true),
        (false, _, Some(size)) => {
            let text = format!("{}{}\n", shown.text(), wrong_in_words.unwrap_or_default());
            let frame = view.renew(text.trim_end(), size);
            output::print(|out| out.write_all(frame.as_bytes()))
        }
        (false, Some(_), None) => {
            output::note(wrong_in_words.unwrap_or_default());
            // Nothing new; but whether anybody reads is to be known.
            output::print(|out| writeln!(out))
        }
        (false, None, None) => output::print(|out| writeln!(out, "{}", shown.text())),
    }
}
