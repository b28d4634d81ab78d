//! `veil job exec`.

use std::io::{self, Write as _};

use clap::Args;
use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use veil_node_operator::reach::{
    Named, Placed, ReachError,
    exec::{pass_input, run},
};
use veil_node_terminal::{raw::Raw, standard_output, waiting};
use veil_protocol_spec::reach::{ExecInput, ExecOutput, ExecWanted, TerminalSize};

use super::Reaching;
use crate::cli::{
    asking::Asking,
    failure::{Exit, Failure},
    output,
};

/// Pieces on the way.
const QUEUE: usize = 16;

#[derive(Debug, Args)]
pub(in crate::cli) struct Exec {
    /// A job, by name, digest or its first digits, and perhaps which replica; otherwise the first that has a place.
    #[arg(value_name = "JOB[/REPLICA]")]
    job: Named,
    /// Give the command what comes from standard input.
    #[arg(short, long)]
    input: bool,
    /// Give the command a terminal: this one.
    #[arg(short, long, conflicts_with = "json")]
    terminal: bool,
    /// The command, and its arguments. Its exit code is that of this command.
    #[arg(value_name = "COMMAND", required = true, last = true)]
    command: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli::job) reaching: Reaching,
}

fn size() -> TerminalSize {
    let number = |of: usize| u16::try_from(of).unwrap_or(u16::MAX);
    let size = standard_output();
    let size = size.map(|size| (number(size.lines), number(size.columns)));
    let (rows, columns) = size.unwrap_or((24, 80));
    TerminalSize { rows, columns }
}

pub(in crate::cli::job) async fn exec(arguments: &Exec, asking: &Asking) -> Result<Exit, Failure> {
    let Exec { job, input, terminal, command, reaching } = arguments;
    let (way, _) = reaching.way(asking).await?;
    waiting::on("looking where the replica is");
    let places = way.places(job).await?;
    let runs = |placed: &&Placed| !placed.ended;
    let placed = places.iter().find(runs).ok_or_else(|| ReachError::NoPlace {
        job: job.job.clone(),
        because: ": it has ended".to_owned(),
    })?;
    let terminal = terminal.then(size);
    let wanted = ExecWanted { command: command.clone(), input: *input, terminal };
    let (feed, feeding) = mpsc::channel(QUEUE);
    if terminal.is_some() {
        follow_size(feed.clone())?;
    }
    waiting::over();
    let raw = if terminal.is_some() && *input {
        let stopped = |error: io::Error| Failure::new(Exit::Failed, "terminal", error);
        Raw::begin().map_err(stopped)?
    } else {
        None
    };
    if *input {
        pass_input(io::stdin(), feed);
    }
    let (said, mut saying) = mpsc::channel(QUEUE);
    let mut running = Box::pin(run(&way, placed, wanted, feeding, said));
    let mut written = Written { json: reaching.json(), ..Written::default() };
    let mut ended = None;
    loop {
        tokio::select! {
            code = &mut running, if ended.is_none() => ended = Some(code),
            next = saying.recv() => match next {
                Some(piece) => written.write(piece)?,
                None => break,
            },
        }
        if ended.is_some() {
            // What is on the way is there already.
            while let Ok(piece) = saying.try_recv() {
                written.write(piece)?;
            }
            break;
        }
    }
    drop(raw);
    let code = match ended {
        Some(code) => code?,
        None => running.await?,
    };
    if reaching.json() {
        let Written { out, error, .. } = written;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let object = json!({ "exit_code": code, "stdout": text(&out), "stderr": text(&error) });
        output::show(true, &object, |_| Ok(()))?;
    }
    // The system keeps eight bits of a code.
    Ok(Exit::Of(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// Tells the command the terminal's size whenever it changes.
fn follow_size(feed: mpsc::Sender<ExecInput>) -> Result<(), Failure> {
    let changes = signal(SignalKind::window_change());
    let mut changes = changes.map_err(|error| Failure::new(Exit::Failed, "runtime", error))?;
    tokio::spawn(async move {
        while changes.recv().await.is_some() {
            if feed.send(ExecInput::Size(size())).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// What the command wrote, if it is kept.
#[derive(Default)]
struct Written {
    json: bool,
    out: Vec<u8>,
    error: Vec<u8>,
}

impl Written {
    fn write(&mut self, piece: ExecOutput) -> Result<(), Failure> {
        match piece {
            ExecOutput::Out(bytes) if self.json => self.out.extend(bytes.0),
            ExecOutput::Error(bytes) if self.json => self.error.extend(bytes.0),
            ExecOutput::Out(bytes) => {
                output::print(|out| out.write_all(&bytes.0))?;
            }
            ExecOutput::Error(bytes) => {
                let mut to = io::stderr().lock();
                let _ = to.write_all(&bytes.0).and_then(|()| to.flush()); // nobody reads it
            }
            ExecOutput::Exit(_) | ExecOutput::Failed(_) => {}
        }
        Ok(())
    }
}
